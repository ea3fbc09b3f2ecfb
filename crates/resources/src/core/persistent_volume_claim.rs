//! Claims on storage: what a pod needs, and the volume bound to it. Only little of a claim can change once it is made.

use super::persistent_volume::{CLASS_ANNOTATION, access_modes};
use super::pod::defaults::{claim_spec, fill, round_up};
use crate::columns::{self, AGE, Cell, Column, NAME, or_unset};
use crate::strategy::Strategy;
use crate::with_status;
use api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, TypedLocalObjectReference, TypedObjectReference,
};
use meta::Time;
use meta::field::Errors;

pub(crate) mod validation;

pub struct PersistentVolumeClaims;

/// The two ways to name what a claim is filled from follow each other, unless the newer one reaches into another namespace.
fn normalize(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(Box::new(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            }));
        }
        (None, Some(source)) if source.namespace.as_deref().unwrap_or_default().is_empty() => {
            spec.data_source = Some(Box::new(TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            }));
        }
        _ => {}
    }
}

/// Sources that the older field cannot name were always passed over in silence.
fn drop_unknown_source(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    if spec.data_source_ref.is_some()
        || old.is_some_and(|old| old.data_source.is_some() || old.data_source_ref.is_some())
    {
        return;
    }
    let known = spec.data_source.as_ref().is_none_or(|source| {
        let group = source.api_group.as_deref().unwrap_or_default();
        matches!(
            (group, source.kind.as_str()),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    });
    if !known {
        spec.data_source = None;
    }
}

impl Strategy for PersistentVolumeClaims {
    type Object = PersistentVolumeClaim;
    const PLURAL: &'static str = "persistentvolumeclaims";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Status"),
        Column::string("Volume"),
        Column::string("Capacity"),
        Column::string("Access Modes"),
        Column::string("StorageClass"),
        Column::string("VolumeAttributesClass"),
        AGE,
        Column::string("VolumeMode").wide(),
    ];
    with_status!();

    fn default(claim: &mut PersistentVolumeClaim) {
        fill(&mut claim.status.phase, "Pending");
        claim_spec(&mut claim.spec);
        round_up(&mut claim.status.capacity);
        round_up(&mut claim.status.allocated_resources);
    }

    fn prepare_for_create(claim: &mut PersistentVolumeClaim) {
        claim.status.phase = "Pending".into();
        drop_unknown_source(&mut claim.spec, None);
        normalize(&mut claim.spec);
    }

    fn prepare_for_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        drop_unknown_source(&mut new.spec, Some(&old.spec));
        normalize(&mut new.spec);
    }

    fn validate(new: &PersistentVolumeClaim, old: Option<&PersistentVolumeClaim>, errors: &mut Errors) {
        validation::claim(new, old, errors);
    }

    fn row(claim: &PersistentVolumeClaim, now: Time) -> Vec<Cell> {
        let (spec, status) = (&claim.spec, &claim.status);
        let deleted = claim.metadata.deletion_timestamp.is_some();
        let phase = if deleted { "Terminating" } else { &status.phase };
        let (mut capacity, mut modes) = (String::new(), String::new());
        if !spec.volume_name.is_empty() {
            capacity = status.capacity.get("storage").copied().unwrap_or_default().to_string();
            modes = access_modes(&status.access_modes);
        }
        let class = claim.metadata.annotations.get(CLASS_ANNOTATION).or(spec.storage_class_name.as_ref());
        vec![
            columns::name(&claim.metadata),
            phase.into(),
            spec.volume_name.clone().into(),
            capacity.into(),
            modes.into(),
            class.cloned().unwrap_or_default().into(),
            or_unset(spec.volume_attributes_class_name.as_ref()).into(),
            columns::age(&claim.metadata, now),
            or_unset(spec.volume_mode.as_ref()).into(),
        ]
    }
}
