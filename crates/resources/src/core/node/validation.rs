//! What a node may be: taints once each, addresses once each, and a pod range that never changes once given.

use crate::core::{addresses, pod, resource_names};
use api::core::v1::{Node, Taint};
use meta::field::{Errors, Json, Path};
use meta::validation;
use std::collections::BTreeSet;

const KEEP_RANGE: &str = "node updates may not change podCIDR except from \"\" to valid";
const KEEP_PROVIDER: &str = "node updates may not change providerID except from \"\" to valid";

pub(super) fn create(node: &Node, errors: &mut Errors) {
    taints(&node.spec.taints, errors);
    amounts(node, errors);
    features(node, errors);
    let path = Path::new("spec").child("podCIDRs");
    let ranges = &node.spec.pod_cidrs;
    for (index, range) in ranges.iter().enumerate() {
        addresses::validate_network(range, &[], &path.index(index), errors);
    }
    let families: BTreeSet<bool> = ranges.iter().map(|range| range.contains(':')).collect();
    if ranges.len() > 1 && families.len() != ranges.len() {
        errors.invalid(&path, Json(ranges), "may specify no more than one CIDR for each IP family");
    }
}

pub(super) fn update(new: &Node, old: &Node, errors: &mut Errors) {
    amounts(new, errors);
    features(new, errors);
    let path = Path::new("status").child("addresses");
    for (index, address) in new.status.addresses.iter().enumerate() {
        if new.status.addresses[..index].contains(address) {
            errors.duplicate(&path.index(index), Json(address));
        }
    }
    let spec = Path::new("spec");
    if !old.spec.pod_cidrs.is_empty() && old.spec.pod_cidrs != new.spec.pod_cidrs {
        errors.forbidden(&spec.child("podCIDRs"), KEEP_RANGE);
    }
    if !old.spec.provider_id.is_empty() && old.spec.provider_id != new.spec.provider_id {
        errors.forbidden(&spec.child("providerID"), KEEP_PROVIDER);
    }
    taints(&new.spec.taints, errors);
    if old.spec.external_id != new.spec.external_id {
        errors.forbidden(&spec.child("externalID"), "may not be updated");
    }
}

fn taints(taints: &[Taint], errors: &mut Errors) {
    // Upstream reports taints under metadata, and clients match on that.
    let path = Path::new("metadata").child("taints");
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        errors.invalid_each(&path.child("key"), &taint.key, validation::qualified_name(&taint.key));
        let faults = validation::label_value(&taint.value);
        if !faults.is_empty() {
            errors.invalid(&path.child("value"), &taint.value, faults.join(";"));
        }
        pod::validation::taint_effect(&taint.effect, false, &path.child("effect"), errors);
        if !seen.insert((&taint.effect, &taint.key)) {
            errors.duplicate(&path, Json(taint));
            if let Some(error) = errors.0.last_mut() {
                error.detail = "taints must be unique by key and effect pair".into();
            }
        }
    }
}

fn amounts(node: &Node, errors: &mut Errors) {
    let path = Path::new("status");
    for (list, field) in [(&node.status.capacity, "capacity"), (&node.status.allocatable, "allocatable")] {
        for (name, amount) in list {
            resource_names::validate_amount(name, *amount, &path.child(field).child(name), errors);
        }
    }
}

fn features(node: &Node, errors: &mut Errors) {
    let path = Path::new("status").child("declaredFeatures");
    let features = &node.status.declared_features;
    for (index, pair) in features.windows(2).enumerate() {
        if pair[0] == pair[1] {
            errors.duplicate(&path.index(index + 1), &pair[1]);
        } else if pair[0] > pair[1] {
            errors.invalid(&path.index(index + 1), &pair[1], "list must be sorted alphabetically");
        }
    }
}
