//! The apps group: what keeps pods of one template running.

use crate::object_meta::not_negative;
use api::core::v1::PodSpec;
use api::meta::v1::ObjectMeta;
use meta::field::{Errors, Path};

/// The metadata that a `scale` shows of its object.
pub(crate) fn scale_metadata(of: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: of.name.clone(),
        namespace: of.namespace.clone(),
        uid: of.uid.clone(),
        resource_version: of.resource_version.clone(),
        creation_timestamp: of.creation_timestamp,
        ..Default::default()
    }
}

/// What keeps pods running runs only pods that keep running.
pub(crate) fn require_restart_always(spec: &PodSpec, template: &Path, errors: &mut Errors) {
    let path = template.child("spec");
    if spec.restart_policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), &spec.restart_policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let field = path.child("activeDeadlineSeconds");
        errors.forbidden(&field, "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
}

/// None negative, and no part greater than the whole.
pub(crate) fn validate_replica_counts(
    replicas: i32,
    labeled: i32,
    ready: i32,
    available: i32,
    errors: &mut Errors,
) {
    let path = Path::new("status");
    let counts = [
        (replicas, "replicas"),
        (labeled, "fullyLabeledReplicas"),
        (ready, "readyReplicas"),
        (available, "availableReplicas"),
    ];
    for (count, field) in counts {
        not_negative(i64::from(count), &path.child(field), errors);
    }
    for (count, field) in &counts[1..] {
        if *count > replicas {
            errors.invalid(&path.child(field), *count, "cannot be greater than status.replicas");
        }
    }
    if available > ready {
        errors.invalid(&path.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}
