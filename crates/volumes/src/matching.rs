//! Which volume suits a claim, and what binding the two changes on the volume.

use crate::{BOUND_BY_CONTROLLER, class_of_claim, class_of_volume, requested, storage};
use api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use std::sync::Arc;

/// For whom the binder looks for a volume.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A claim that can be bound anywhere.
    Any,
    /// A claim that waits for its consumer: only a volume reserved for it counts.
    Reserved,
}

/// How a volume suits a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suit {
    /// It is bound to the claim or kept for it.
    Reserved,
    /// It is free, and the claim may have it.
    Free,
}

/// Whether a volume is bound to a claim, or reserved for it: by name, and by uid where the volume states one.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = &volume.spec.claim_ref else { return false };
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (reference.uid.is_empty() || reference.uid == claim.metadata.uid)
}

/// Whether one asks for a file system and the other is a block device.
pub fn modes_differ(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let mode = |stated: &Option<String>| stated.clone().unwrap_or_else(|| "Filesystem".into());
    mode(&claim.spec.volume_mode) != mode(&volume.spec.volume_mode)
}

/// Whether the claim wants a way of access that the volume does not offer.
pub fn lacks_access_modes(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    claim.spec.access_modes.iter().any(|mode| !volume.spec.access_modes.contains(mode))
}

/// Whether a claim could have a volume, wherever the volume can be reached from.
pub fn suits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Suit> {
    let reserved = is_bound_to(volume, claim);
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    let possible = (volume.spec.claim_ref.is_none() || reserved)
        && storage(&volume.spec.capacity) >= requested(claim)
        && attributes(&claim.spec.volume_attributes_class_name)
            == attributes(&volume.spec.volume_attributes_class_name)
        && !modes_differ(claim, volume)
        && volume.metadata.deletion_timestamp.is_none();
    if !possible {
        return None;
    }
    if reserved {
        return Some(Suit::Reserved);
    }
    let selected = match claim.spec.selector.as_deref() {
        Some(selector) => api::selector(selector).is_ok_and(|own| own.matches(&volume.metadata.labels)),
        None => true,
    };
    let free = volume.status.phase == "Available"
        && selected
        && class_of_volume(volume) == class_of_claim(claim)
        && !lacks_access_modes(claim, volume);
    free.then_some(Suit::Free)
}

/// The best volume for a claim: the one reserved for it, else, among those with the fewest ways of access too many,
/// the smallest that is large enough. Ties go to the first.
pub fn best_match<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl Iterator<Item = &'a Arc<PersistentVolume>>,
    wanted: Wanted,
) -> Option<Arc<PersistentVolume>> {
    let suiting = volumes.filter_map(|volume| Some((suits(claim, volume)?, volume)));
    let best = suiting
        .filter(|(suit, _)| *suit == Suit::Reserved || wanted == Wanted::Any)
        .min_by_key(|(suit, volume)| (*suit, volume.spec.access_modes.len(), storage(&volume.spec.capacity)));
    best.map(|(_, volume)| volume.clone())
}

/// The volume as it is once bound to the claim; `None` where it is so already. A volume that was not reserved by
/// whoever made it is marked as chosen by the binder.
pub fn bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let reserved = is_bound_to(volume, claim);
    let exact = reserved && volume.spec.claim_ref.as_ref().is_some_and(|own| own.uid == claim.metadata.uid);
    let marked = reserved || volume.metadata.annotations.contains_key(BOUND_BY_CONTROLLER);
    if exact && marked {
        return None;
    }
    let mut next = volume.clone();
    if !exact {
        next.spec.claim_ref = Some(Box::new(ObjectReference {
            kind: "PersistentVolumeClaim".into(),
            api_version: "v1".into(),
            namespace: claim.metadata.namespace.clone(),
            name: claim.metadata.name.clone(),
            uid: claim.metadata.uid.clone(),
            resource_version: claim.metadata.resource_version.clone(),
            field_path: String::new(),
        }));
    }
    if !marked {
        next.metadata.annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    Some(next)
}
