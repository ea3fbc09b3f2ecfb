//! What claims and volumes say to each other: classes, marks of a binding, which volume suits a claim, which claims a
//! pod names. Binder, scheduler and kubelet must agree on these, so they stand here once.
//!
//! Invariant: total functions of the objects passed in.
#![forbid(unsafe_code)]

pub mod attachments;
pub mod local_path;
mod matching;
mod pods;
mod reach;

pub use matching::{
    Suit, Wanted, best_match, bound_to, is_bound_to, lacks_access_modes, modes_differ, suits,
};
pub use pods::{PodClaim, claims_of, ephemeral_claim_name, owned_by_pod};
pub use reach::reaches;

use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::meta::v1::ObjectMeta;
use api::storage::v1::StorageClass;
use meta::Quantity;
use std::collections::BTreeMap;

/// On a claim: the binder is done with it for good.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: its partner was chosen by the binder and not by whoever made it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: the provisioner that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the node that the scheduler chose for its first consumer.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: which provisioner is to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same under its older name, which external provisioners still read.
pub const STORAGE_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a volume: its capacity before a resize that its file system has not followed yet.
pub const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
/// A class's name before there was a field for it.
pub const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
/// Keeps a claim while pods use it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while a claim is bound to it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Marks the class of claims that name none.
pub const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// The class that a claim names; empty where it names none, or names "no class".
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let by_annotation = claim.metadata.annotations.get(CLASS_BETA);
    by_annotation.or(claim.spec.storage_class_name.as_ref()).map_or("", String::as_str)
}

/// Whether a claim says anything about its class.
pub fn has_class(claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.annotations.contains_key(CLASS_BETA) || claim.spec.storage_class_name.is_some()
}

pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    volume.metadata.annotations.get(CLASS_BETA).unwrap_or(&volume.spec.storage_class_name)
}

/// Whether claims of this class are bound only when the node of their first consumer is known.
pub fn waits_for_consumer(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// Whether the binder has bound the claim for good.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !claim.spec.volume_name.is_empty() && claim.metadata.annotations.contains_key(BIND_COMPLETED)
}

/// The bytes asked for; zero where the claim says none.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    storage(&claim.spec.resources.requests)
}

/// The entry for storage; zero where there is none.
pub fn storage(quantities: &BTreeMap<String, Quantity>) -> Quantity {
    quantities.get("storage").copied().unwrap_or_default()
}

/// The name of the class marked as default: the newest of several, and by name among those.
pub fn default_class<'a>(classes: impl Iterator<Item = &'a ObjectMeta>) -> Option<&'a str> {
    classes
        .filter(|class| DEFAULT_CLASS.iter().any(|mark| marked(class, mark)))
        .max_by(|a, b| a.creation_timestamp.cmp(&b.creation_timestamp).then_with(|| b.name.cmp(&a.name)))
        .map(|class| class.name.as_str())
}

fn marked(metadata: &ObjectMeta, annotation: &str) -> bool {
    metadata.annotations.get(annotation).is_some_and(|value| value == "true")
}

/// A claim as its users name it: `namespace/name`.
pub fn name_of(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", claim.metadata.namespace, claim.metadata.name)
}
