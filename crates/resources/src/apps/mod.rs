//! The apps group: what keeps pods of one template running.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;
#[cfg(test)]
mod tests;

use crate::core::pod_template;
use crate::object_meta::{not_negative, validate_selector};
use api::core::v1::{PodSpec, PodTemplateSpec};
use api::meta::v1::{LabelSelector, ObjectMeta};
use meta::field::{Errors, Json, Path};
use meta::{IntOrString, validation};

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

/// A selector that is there, selects something, and selects the template's own pods.
pub(crate) fn selects_template(
    selector: Option<&LabelSelector>,
    template: &PodTemplateSpec,
    kind: &str,
    path: &Path,
    errors: &mut Errors,
) {
    let field = path.child("selector");
    match selector {
        None => errors.required(&field, ""),
        Some(selector) => {
            validate_selector(Some(selector), &field, errors);
            if selector.match_labels.is_empty() && selector.match_expressions.is_empty() {
                errors.invalid(&field, Json(selector), format!("empty selector is invalid for {kind}"));
            }
        }
    }
    matches_template(selector, template, &path.child("template"), errors);
}

/// The selector must find the pods that are made from the template.
pub(crate) fn matches_template(
    selector: Option<&LabelSelector>,
    template: &PodTemplateSpec,
    path: &Path,
    errors: &mut Errors,
) {
    let Some(selector) = selector else { return };
    let labels = &template.metadata.labels;
    let nothing = selector.match_labels.is_empty() && selector.match_expressions.is_empty();
    let matches = api::selector(selector).map_or(true, |selector| selector.matches(labels));
    if !nothing && !matches {
        let field = path.child("metadata").child("labels");
        errors.invalid(&field, Json(labels), "`selector` does not match template `labels`");
    }
}

/// A template of pods that run for good.
pub(crate) fn validate_template(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    pod_template::validate_spec(template, path, errors);
    require_restart_always(&template.spec, path, errors);
}

/// A count or a percentage, not negative.
pub(crate) fn count_or_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    match value {
        IntOrString::Int(count) => not_negative(i64::from(*count), path, errors),
        IntOrString::String(text) => errors.invalid_each(path, value, validation::percent(text)),
    }
}

/// The number in a count or percentage; text that is neither counts as nothing.
pub(crate) fn amount(value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(count) => i64::from(*count),
        IntOrString::String(text) => text.strip_suffix('%').unwrap_or(text).parse().unwrap_or(0),
    }
}

pub(crate) fn at_most_all(value: &IntOrString, path: &Path, errors: &mut Errors) {
    if matches!(value, IntOrString::String(_)) && amount(value) > 100 {
        errors.invalid(path, value, "must not be greater than 100%");
    }
}

/// How often hashes collided never goes back.
pub(crate) fn not_decremented(new: Option<i32>, old: Option<i32>, errors: &mut Errors) {
    let path = Path::new("status").child("collisionCount");
    if let Some(count) = new {
        not_negative(i64::from(count), &path, errors);
    }
    if new.unwrap_or(0) < old.unwrap_or(0) {
        errors.invalid(&path, new.unwrap_or(0), "cannot be decremented");
    }
}

/// Pods carry their owner's name, which should make a good host name.
pub(crate) fn name_warning(name: &str) -> Option<String> {
    let faults = validation::dns1123_label(name);
    (!faults.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            faults.join(" ")
        )
    })
}

/// Warnings of something that owns pods: its name on create, its template when it is new or changed.
pub(crate) fn owner_warnings(
    metadata: &ObjectMeta,
    template: &PodTemplateSpec,
    old: Option<&PodTemplateSpec>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if old.is_none() {
        warnings.extend(name_warning(&metadata.name));
    }
    if old != Some(template) {
        warnings.extend(pod_template::warnings(template, &Path::new("spec").child("template")));
    }
    warnings
}

/// The text form of a selector that a `scale` shows.
pub(crate) fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    api::selector(selector).map(|selector| selector.to_string()).unwrap_or_default()
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
