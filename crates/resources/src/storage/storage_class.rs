//! Storage classes: how volumes are made on demand.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::core::pod::validation::topology_terms;
use crate::object_meta::{immutable, immutable_value};
use crate::strategy::Strategy;
use api::storage::v1::StorageClass;
use meta::field::{Errors, Path};
use meta::{Time, validation};
use std::collections::BTreeMap;

pub struct StorageClasses;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_MAX_BYTES: usize = 256 * 1024;

impl Strategy for StorageClasses {
    type Object = StorageClass;
    const PLURAL: &'static str = "storageclasses";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Provisioner"),
        Column::string("ReclaimPolicy"),
        Column::string("VolumeBindingMode"),
        Column::string("AllowVolumeExpansion"),
        AGE,
    ];

    fn default(class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".into());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate(new: &StorageClass, old: Option<&StorageClass>, errors: &mut Errors) {
        let provisioner = Path::new("provisioner");
        if new.provisioner.is_empty() {
            errors.required(&provisioner, "");
        } else {
            let faults = validation::qualified_name(&new.provisioner.to_lowercase());
            errors.invalid_each(&provisioner, &new.provisioner, faults);
        }
        validate_parameters(&new.parameters, true, &Path::new("parameters"), errors);
        let policies = ["Delete", "Retain"];
        if let Some(policy) = new.reclaim_policy.as_ref().filter(|it| !policies.contains(&it.as_str())) {
            errors.not_supported(&Path::new("reclaimPolicy"), policy, &policies);
        }
        let modes = ["Immediate", "WaitForFirstConsumer"];
        match new.volume_binding_mode.as_deref() {
            None => errors.required(&Path::new("volumeBindingMode"), ""),
            Some(mode) if !modes.contains(&mode) => {
                errors.not_supported(&Path::new("volumeBindingMode"), mode, &modes);
            }
            Some(_) => {}
        }
        topology_terms(&new.allowed_topologies, &Path::new("allowedTopologies"), errors);
        let Some(old) = old else { return };
        let forbidden = "updates to parameters are forbidden.";
        if new.parameters != old.parameters {
            errors.forbidden(&Path::new("parameters"), forbidden);
        }
        if new.provisioner != old.provisioner {
            errors.forbidden(&provisioner, "updates to provisioner are forbidden.");
        }
        if new.reclaim_policy != old.reclaim_policy {
            errors.forbidden(&Path::new("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
        }
        let mode = Path::new("volumeBindingMode");
        immutable(&new.volume_binding_mode, &old.volume_binding_mode, &mode, errors);
        let topologies = Path::new("allowedTopologies");
        immutable_value(&new.allowed_topologies, &old.allowed_topologies, &topologies, errors);
    }

    fn row(class: &StorageClass, now: Time) -> Vec<Cell> {
        let marked = |key: &str| class.metadata.annotations.get(key).is_some_and(|value| value == "true");
        let mut name = class.metadata.name.clone();
        if marked(DEFAULT_CLASS) || marked(DEFAULT_CLASS_BETA) {
            name += " (default)";
        }
        vec![
            name.into(),
            class.provisioner.clone().into(),
            class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into()).into(),
            class.volume_binding_mode.clone().unwrap_or_else(|| "Immediate".into()).into(),
            class.allow_volume_expansion.unwrap_or(false).into(),
            columns::age(&class.metadata, now),
        ]
    }
}

/// What a driver is told: a bounded number of keys and bytes.
pub(super) fn validate_parameters(
    parameters: &BTreeMap<String, String>,
    allow_empty: bool,
    path: &Path,
    errors: &mut Errors,
) {
    if parameters.len() > PARAMETERS_MAX {
        errors.too_long(path, PARAMETERS_MAX);
        return;
    }
    if parameters.keys().any(String::is_empty) {
        errors.invalid(path, "", "field can not be empty.");
    }
    if parameters.is_empty() && !allow_empty {
        errors.required(path, "must contain at least one key/value pair");
    }
    let size: usize = parameters.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > PARAMETERS_MAX_BYTES {
        errors.too_long(path, PARAMETERS_MAX_BYTES);
    }
}
