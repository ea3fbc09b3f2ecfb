//! CSI storage capacities: how much of a class there is, and where.

use crate::columns::{self, Cell, Column, NAME, or_unset};
use crate::core::resource_names;
use crate::object_meta::{IMMUTABLE, immutable, validate_selector};
use crate::strategy::Strategy;
use api::storage::v1::CSIStorageCapacity;
use meta::field::{Errors, Json, Path};
use meta::{Time, validation};

pub struct CSIStorageCapacities;

impl Strategy for CSIStorageCapacities {
    type Object = CSIStorageCapacity;
    const PLURAL: &'static str = "csistoragecapacities";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::string("StorageClassName"), Column::string("Capacity")];
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(new: &CSIStorageCapacity, old: Option<&CSIStorageCapacity>, errors: &mut Errors) {
        let (class, topology) = (Path::new("storageClassName"), Path::new("nodeTopology"));
        let faults = validation::dns1123_subdomain(&new.storage_class_name);
        errors.invalid_each(&class, &new.storage_class_name, faults);
        validate_selector(new.node_topology.as_deref(), &topology, errors);
        for (amount, field) in [(new.capacity, "capacity"), (new.maximum_volume_size, "maximumVolumeSize")] {
            resource_names::not_negative(amount.unwrap_or_default(), &Path::new(field), errors);
        }
        let Some(old) = old else { return };
        if new.node_topology != old.node_topology {
            let shown = new.node_topology.as_deref().cloned().unwrap_or_default();
            errors.invalid(&topology, Json(&shown), IMMUTABLE);
        }
        immutable(&new.storage_class_name, &old.storage_class_name, &class, errors);
    }

    fn row(object: &CSIStorageCapacity, _now: Time) -> Vec<Cell> {
        vec![
            columns::name(&object.metadata),
            object.storage_class_name.clone().into(),
            or_unset(object.capacity).into(),
        ]
    }
}
