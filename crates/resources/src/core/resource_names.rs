//! Names of resources that are counted and measured: which are standard, which are whole numbers, and where each may stand.

use crate::object_meta::NOT_NEGATIVE;
use meta::field::{Errors, Path};
use meta::{Quantity, validation};

const CONTAINER: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// Counts of objects: never a fraction.
const COUNTS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
/// What a quota limits besides counts.
const QUOTA: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

const NOT_INTEGER: &str = "must be an integer";

pub(crate) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name) || name.starts_with("requests.hugepages-")
}

/// Kubernetes' own, rather than a device vendor's.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && validation::qualified_name(&format!("requests.{name}")).is_empty()
}

/// More may be promised than the node has.
pub(crate) fn allows_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

pub(crate) fn is_standard_quota(name: &str) -> bool {
    COUNTS.contains(&name) || QUOTA.contains(&name) || is_quota_huge_page(name)
}

fn is_integer(name: &str) -> bool {
    COUNTS.contains(&name) || is_extended(name)
}

/// A name that any list of resources may have; false when it was refused.
fn validate_name(name: &str, path: &Path, errors: &mut Errors) -> bool {
    let before = errors.len();
    errors.invalid_each(path, name, validation::qualified_name(name));
    if errors.len() == before && !name.contains('/') && !is_standard_quota(name) && name != "storage" {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    errors.len() == before
}

pub(crate) fn validate_container(name: &str, path: &Path, errors: &mut Errors) {
    validate_name(name, path, errors);
    if !name.contains('/') {
        if !CONTAINER.contains(&name) && !is_huge_page(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// Names at the level of the pod.
pub(crate) fn validate_pod(name: &str, path: &Path, errors: &mut Errors) {
    if validate_name(name, path, errors) && !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

pub(crate) fn validate_quota(name: &str, path: &Path, errors: &mut Errors) {
    validate_name(name, path, errors);
    if !name.contains('/') && !is_standard_quota(name) {
        errors.invalid(path, name, "must be a standard resource for quota");
    }
}

pub(crate) fn validate_limit(kind: &str, name: &str, path: &Path, errors: &mut Errors) {
    if kind == "Pod" || kind == "Container" {
        validate_container(name, path, errors);
    } else {
        validate_name(name, path, errors);
    }
}

/// Not negative, and whole where the resource cannot be split.
pub(crate) fn validate_amount(name: &str, amount: Quantity, path: &Path, errors: &mut Errors) {
    not_negative(amount, path, errors);
    if is_integer(name) && amount.milli_value() % 1000 != 0 {
        errors.invalid(path, amount, NOT_INTEGER);
    }
}

pub(crate) fn not_negative(amount: Quantity, path: &Path, errors: &mut Errors) {
    if amount.is_negative() {
        errors.invalid(path, amount, NOT_NEGATIVE);
    }
}

pub(crate) fn positive(amount: Quantity, path: &Path, errors: &mut Errors) {
    if amount.is_negative() || amount.is_zero() {
        errors.invalid(path, amount, "must be greater than zero");
    }
}
