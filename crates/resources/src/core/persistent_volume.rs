//! Persistent volumes: storage as the cluster has it, kept when released unless stated otherwise.

use super::pod::defaults::{fill, round_up};
use crate::columns::{self, AGE, Cell, Column, NAME, or_unset};
use crate::strategy::Strategy;
use crate::with_status;
use api::core::v1::PersistentVolume;
use meta::Time;
use meta::field::Errors;

mod validation;

pub struct PersistentVolumes;

/// The older way to name a class.
pub(crate) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Access modes in short, in a fixed order: `RWO,ROX`.
pub(crate) fn access_modes(modes: &[String]) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let shown = known.iter().filter(|(mode, _)| modes.iter().any(|given| given == mode));
    shown.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

impl Strategy for PersistentVolumes {
    type Object = PersistentVolume;
    const PLURAL: &'static str = "persistentvolumes";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Capacity"),
        Column::string("Access Modes"),
        Column::string("Reclaim Policy"),
        Column::string("Status"),
        Column::string("Claim"),
        Column::string("StorageClass"),
        Column::string("VolumeAttributesClass"),
        Column::string("Reason"),
        AGE,
        Column::string("VolumeMode").wide(),
    ];
    const SELECTABLE: &'static [&'static str] = &[];
    with_status!();

    fn default(volume: &mut PersistentVolume) {
        fill(&mut volume.status.phase, "Pending");
        let spec = &mut volume.spec;
        fill(&mut spec.persistent_volume_reclaim_policy, "Retain");
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        round_up(&mut spec.capacity);
        let source = &mut spec.persistent_volume_source;
        if let Some(path) = &mut source.host_path {
            path.r#type.get_or_insert_default();
        }
        if let Some(rbd) = &mut source.rbd {
            fill(&mut rbd.pool, "rbd");
            fill(&mut rbd.user, "admin");
            fill(&mut rbd.keyring, "/etc/ceph/keyring");
        }
        if let Some(iscsi) = &mut source.iscsi {
            fill(&mut iscsi.iscsi_interface, "default");
        }
        if let Some(disk) = &mut source.azure_disk {
            disk.caching_mode.get_or_insert_with(|| "ReadWrite".into());
            disk.fs_type.get_or_insert_with(|| "ext4".into());
            disk.read_only.get_or_insert(false);
            disk.kind.get_or_insert_with(|| "Shared".into());
        }
        if let Some(scale_io) = &mut source.scale_io {
            fill(&mut scale_io.storage_mode, "ThinProvisioned");
            fill(&mut scale_io.fs_type, "xfs");
        }
    }

    fn prepare_for_create(volume: &mut PersistentVolume) {
        volume.status.phase = "Pending".into();
    }

    fn prepare_for_status(new: &mut PersistentVolume, old: &PersistentVolume) {
        if new.status.phase == old.status.phase && new.status.last_phase_transition_time.is_none() {
            new.status.last_phase_transition_time = old.status.last_phase_transition_time;
        }
    }

    fn validate(new: &PersistentVolume, old: Option<&PersistentVolume>, errors: &mut Errors) {
        validation::volume(new, old, errors);
    }

    fn row(volume: &PersistentVolume, now: Time) -> Vec<Cell> {
        let spec = &volume.spec;
        let claim = spec.claim_ref.as_ref().map(|claim| format!("{}/{}", claim.namespace, claim.name));
        let size = spec.capacity.get("storage").copied().unwrap_or_default();
        let deleted = volume.metadata.deletion_timestamp.is_some();
        let phase = if deleted { "Terminating" } else { &volume.status.phase };
        let class = volume.metadata.annotations.get(CLASS_ANNOTATION).unwrap_or(&spec.storage_class_name);
        vec![
            columns::name(&volume.metadata),
            size.to_string().into(),
            access_modes(&spec.access_modes).into(),
            spec.persistent_volume_reclaim_policy.clone().into(),
            phase.into(),
            claim.unwrap_or_default().into(),
            class.clone().into(),
            or_unset(spec.volume_attributes_class_name.as_ref()).into(),
            volume.status.reason.clone().into(),
            columns::age(&volume.metadata, now),
            or_unset(spec.volume_mode.as_ref()).into(),
        ]
    }
}
