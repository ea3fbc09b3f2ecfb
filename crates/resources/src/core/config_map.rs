//! Config maps: text and bytes under keys that can be file names, at most a mebibyte, frozen on demand.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::Strategy;
use api::core::v1::ConfigMap;
use meta::field::{Errors, Path};
use meta::{Time, validation};
use std::collections::BTreeMap;

/// All values of a config map or secret together, in bytes.
pub const DATA_MAX_BYTES: usize = 1024 * 1024;
pub(crate) const FROZEN: &str = "field is immutable when `immutable` is set";

pub struct ConfigMaps;

impl Strategy for ConfigMaps {
    type Object = ConfigMap;
    const PLURAL: &'static str = "configmaps";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Data"), AGE];

    fn validate(new: &ConfigMap, old: Option<&ConfigMap>, errors: &mut Errors) {
        if let Some(old) = old.filter(|old| old.immutable == Some(true)) {
            if new.immutable != Some(true) {
                errors.forbidden(&Path::new("immutable"), FROZEN);
            }
            if new.data != old.data {
                errors.forbidden(&Path::new("data"), FROZEN);
            }
            if new.binary_data != old.binary_data {
                errors.forbidden(&Path::new("binaryData"), FROZEN);
            }
        }
        let mut size = 0;
        let data = Path::new("data");
        for (key, value) in &new.data {
            errors.invalid_each(&data.key(key), key, validation::config_map_key(key));
            if new.binary_data.contains_key(key) {
                errors.invalid(&data.key(key), key, "duplicate of key present in binaryData");
            }
            size += value.len();
        }
        size += validate_bytes(&new.binary_data, &Path::new("binaryData"), errors);
        if size > DATA_MAX_BYTES {
            errors.too_long(&Path::root(), DATA_MAX_BYTES);
        }
    }

    fn row(object: &ConfigMap, now: Time) -> Vec<Cell> {
        let count = object.data.len() + object.binary_data.len();
        vec![columns::name(&object.metadata), count.into(), columns::age(&object.metadata, now)]
    }
}

/// Checks keys, and gives the size of all values.
pub(crate) fn validate_bytes(data: &BTreeMap<String, Vec<u8>>, path: &Path, errors: &mut Errors) -> usize {
    for key in data.keys() {
        errors.invalid_each(&path.key(key), key, validation::config_map_key(key));
    }
    data.values().map(Vec::len).sum()
}
