//! CSI nodes: the drivers that run on a node, and how the node is called by each.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::{IMMUTABLE, not_negative};
use crate::strategy::Strategy;
use api::storage::v1::CSINode;
use meta::Time;
use meta::field::{Errors, Json, Path};

pub struct CSINodes;

const NODE_ID_MAX_BYTES: usize = 192;

impl Strategy for CSINodes {
    type Object = CSINode;
    const PLURAL: &'static str = "csinodes";
    const COLUMNS: &'static [Column] = &[NAME, Column::integer("Drivers"), AGE];
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(new: &CSINode, old: Option<&CSINode>, errors: &mut Errors) {
        let path = Path::new("spec").child("drivers");
        let drivers = &new.spec.drivers;
        for (index, driver) in drivers.iter().enumerate() {
            let path = path.index(index);
            super::validate_driver_name(&driver.name, &path.child("name"), errors);
            let id = path.child("nodeID");
            if driver.node_id.is_empty() {
                errors.required(&id, "");
            } else if driver.node_id.len() > NODE_ID_MAX_BYTES {
                errors.invalid(&id, &driver.node_id, "must be 192 characters or less");
            }
            if let Some(count) = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count) {
                not_negative(i64::from(count), &path.child("allocatable").child("count"), errors);
            }
            if drivers[..index].iter().any(|other| other.name == driver.name) {
                errors.duplicate(&path.child("name"), &driver.name);
            }
            for (at, key) in driver.topology_keys.iter().enumerate() {
                if key.is_empty() {
                    errors.required(&path, "");
                }
                if driver.topology_keys[..at].contains(key) {
                    errors.duplicate(&path, key);
                }
                let faults = meta::validation::qualified_name(key);
                errors.invalid_each(&path.child("topologyKeys"), key, faults);
            }
        }
        // A driver comes and goes as a whole; only how many volumes it can attach may change.
        for before in old.iter().flat_map(|old| &old.spec.drivers) {
            let after = drivers.iter().find(|driver| driver.name == before.name);
            let Some(after) = after else { continue };
            let mut kept = after.clone();
            kept.allocatable = before.allocatable.clone();
            if kept != *before {
                errors.invalid(&path, Json(after), IMMUTABLE);
            }
        }
    }

    fn row(node: &CSINode, now: Time) -> Vec<Cell> {
        let metadata = &node.metadata;
        vec![columns::name(metadata), node.spec.drivers.len().into(), columns::age(metadata, now)]
    }
}
