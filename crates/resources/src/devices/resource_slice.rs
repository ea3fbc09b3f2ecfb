//! Resource slices: part of what a driver offers, on one node or on several.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::immutable;
use crate::strategy::Strategy;
use crate::with_spec;
use api::resource::v1::{ResourceSlice, ResourceSliceSpec};
use meta::field::{Errors, Json, Path};
use meta::{Time, validation};

pub struct ResourceSlices;

const DRIVER_MAX_BYTES: usize = 63;
const DEVICES_MAX: usize = 128;
const PLACES: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

impl Strategy for ResourceSlices {
    type Object = ResourceSlice;
    const PLURAL: &'static str = "resourceslices";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::string("Node"), Column::string("Driver"), Column::string("Pool"), AGE];
    const SELECTABLE: &'static [&'static str] = &["metadata.name", "spec.nodeName", "spec.driver"];
    with_spec!();

    fn validate(new: &ResourceSlice, old: Option<&ResourceSlice>, errors: &mut Errors) {
        let spec = &new.spec;
        let path = Path::new("spec");
        let driver = path.child("driver");
        if spec.driver.is_empty() {
            errors.required(&driver, "");
        } else {
            if spec.driver.len() > DRIVER_MAX_BYTES {
                errors.too_long(&driver, DRIVER_MAX_BYTES);
            }
            let faults = validation::dns1123_subdomain(&spec.driver.to_lowercase());
            errors.invalid_each(&driver, &spec.driver, faults);
        }
        let pool = path.child("pool");
        if spec.pool.name.is_empty() {
            errors.required(&pool.child("name"), "");
        } else {
            for part in spec.pool.name.split('/') {
                errors.invalid_each(&pool.child("name"), part, validation::dns1123_subdomain(part));
            }
        }
        if spec.pool.resource_slice_count <= 0 {
            let detail = "must be greater than zero";
            errors.invalid(&pool.child("resourceSliceCount"), spec.pool.resource_slice_count, detail);
        }
        if spec.pool.generation < 0 {
            let detail = "must be greater than or equal to zero";
            errors.invalid(&pool.child("generation"), spec.pool.generation, detail);
        }
        if let Some(old) = old {
            immutable(&spec.pool.name, &old.spec.pool.name, &pool.child("name"), errors);
            immutable(&spec.driver, &old.spec.driver, &driver, errors);
            immutable(&spec.node_name, &old.spec.node_name, &path.child("nodeName"), errors);
        }
        validate_place(spec, &path, errors);
        if !spec.shared_counters.is_empty() && !spec.devices.is_empty() {
            errors.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
        }
        let devices = path.child("devices");
        if spec.devices.len() > DEVICES_MAX {
            errors.too_many(&devices, spec.devices.len(), DEVICES_MAX);
        }
        for (index, device) in spec.devices.iter().enumerate() {
            let path = devices.index(index);
            if device.name.is_empty() {
                errors.required(&path.child("name"), "");
            } else {
                let faults = validation::dns1123_label(&device.name);
                errors.invalid_each(&path.child("name"), &device.name, faults);
            }
            if spec.devices[..index].iter().any(|it| it.name == device.name) {
                errors.duplicate(&path, &device.name);
            }
        }
    }

    fn selectable(slice: &ResourceSlice) -> Vec<(&'static str, String)> {
        vec![
            ("spec.nodeName", slice.spec.node_name.clone().unwrap_or_default()),
            ("spec.driver", slice.spec.driver.clone()),
        ]
    }

    fn row(slice: &ResourceSlice, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&slice.metadata),
            slice.spec.node_name.clone().unwrap_or_default().into(),
            slice.spec.driver.clone().into(),
            slice.spec.pool.name.clone().into(),
            columns::age(&slice.metadata, now),
        ]
    }
}

/// Where the devices are: one of four ways to say it.
fn validate_place(spec: &ResourceSliceSpec, path: &Path, errors: &mut Errors) {
    let mut chosen = Vec::new();
    if let Some(node) = &spec.node_name {
        let place = path.child("nodeName");
        if node.is_empty() {
            errors.invalid(&place, node, "must be either unset or set to a non-empty string");
        } else {
            chosen.push("`nodeName`");
            errors.invalid_each(&place, node, validation::dns1123_subdomain(node));
        }
    }
    if let Some(selector) = &spec.node_selector {
        chosen.push("`nodeSelector`");
        if selector.node_selector_terms.len() != 1 {
            let place = path.child("nodeSelector").child("nodeSelectorTerms");
            let detail = "must have exactly one node selector term";
            errors.invalid(&place, Json(&selector.node_selector_terms), detail);
        }
    }
    for (name, shown, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match value {
            Some(true) => chosen.push(shown),
            Some(false) => errors.invalid(&path.child(name), false, "must be either unset or set to true"),
            None => {}
        }
    }
    match chosen.len() {
        0 => errors.required(path, PLACES),
        1 => {}
        _ => {
            let value = format!("{{{}}}", chosen.join(", "));
            errors.invalid(path, value, format!("{PLACES}, but multiple fields are set"));
        }
    }
}
