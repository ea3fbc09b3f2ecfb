//! CSI drivers: what a driver needs of the cluster.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::{immutable, immutable_value};
use crate::strategy::Strategy;
use api::storage::v1::{CSIDriver, TokenRequest};
use meta::Time;
use meta::field::{Errors, Path};

pub struct CSIDrivers;

const PERIOD_SECONDS_MIN: i64 = 10;
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

impl Strategy for CSIDrivers {
    type Object = CSIDriver;
    const PLURAL: &'static str = "csidrivers";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::boolean("AttachRequired"),
        Column::boolean("PodInfoOnMount"),
        Column::boolean("StorageCapacity"),
        Column::string("TokenRequests"),
        Column::boolean("RequiresRepublish"),
        Column::string("Modes"),
        AGE,
    ];
    const UNCONDITIONAL_UPDATE: bool = false;

    fn default(driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".into());
        if spec.volume_lifecycle_modes.is_empty() {
            spec.volume_lifecycle_modes.push("Persistent".into());
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn validate(new: &CSIDriver, old: Option<&CSIDriver>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        for (value, field) in [
            (spec.attach_required, "attachedRequired"),
            (spec.pod_info_on_mount, "podInfoOnMount"),
            (spec.storage_capacity, "storageCapacity"),
        ] {
            if value.is_none() {
                errors.required(&path.child(field), "");
            }
        }
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        if let Some(policy) = spec.fs_group_policy.as_ref().filter(|it| !policies.contains(&it.as_str())) {
            errors.not_supported(&path.child("fsGroupPolicy"), policy, &policies);
        }
        tokens(&spec.token_requests, &path.child("tokenRequests"), errors);
        for mode in &spec.volume_lifecycle_modes {
            if mode != "Persistent" && mode != "Ephemeral" {
                let field = path.child("volumeLifecycleModes");
                errors.not_supported(&field, mode, &["Persistent", "Ephemeral"]);
            }
        }
        if let Some(seconds) =
            spec.node_allocatable_update_period_seconds.filter(|seconds| *seconds < PERIOD_SECONDS_MIN)
        {
            let field = path.child("nodeAllocatableUpdatePeriodSeconds");
            errors.invalid(&field, seconds, "must be greater than or equal to 10 seconds");
        }
        if let Some(old) = old {
            let field = path.child("attachedRequired");
            immutable(&spec.attach_required, &old.spec.attach_required, &field, errors);
            let (is, was) = (&spec.volume_lifecycle_modes, &old.spec.volume_lifecycle_modes);
            immutable_value(is, was, &path.child("volumeLifecycleModes"), errors);
        }
    }

    fn row(driver: &CSIDriver, now: Time) -> Vec<Cell> {
        let spec = &driver.spec;
        let audiences: Vec<&str> = spec.token_requests.iter().map(|it| it.audience.as_str()).collect();
        let tokens = if audiences.is_empty() { "<unset>".into() } else { audiences.join(",") };
        vec![
            columns::name(&driver.metadata),
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or(false).into(),
            spec.storage_capacity.unwrap_or(false).into(),
            tokens.into(),
            spec.requires_republish.unwrap_or(false).into(),
            columns::or_none(&spec.volume_lifecycle_modes.join(",")).into(),
            columns::age(&driver.metadata, now),
        ]
    }
}

fn tokens(requests: &[TokenRequest], path: &Path, errors: &mut Errors) {
    for (index, request) in requests.iter().enumerate() {
        let path = path.index(index);
        if requests[..index].iter().any(|other| other.audience == request.audience) {
            errors.duplicate(&path.child("audience"), &request.audience);
        }
        let Some(seconds) = request.expiration_seconds else { continue };
        let field = path.child("expirationSeconds");
        if seconds < TOKEN_SECONDS_MIN {
            errors.invalid(&field, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > TOKEN_SECONDS_MAX {
            errors.invalid(&field, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}
