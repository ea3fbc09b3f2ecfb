//! Metadata that every kind has: what is valid in it, and what an update may not change.

use crate::names;
use api::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use meta::field::{Errors, Json, Path};
use meta::validation;
use std::collections::BTreeMap;

/// All annotations of an object together, keys and values, in bytes.
pub const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
const FIELD_MANAGER_MAX_BYTES: usize = 128;
const SUBRESOURCE_MAX_BYTES: usize = 256;

pub const IMMUTABLE: &str = "field is immutable";
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Checks the metadata of a new object under `metadata`.
pub fn validate(metadata: &ObjectMeta, namespaced: bool, name_rule: names::Rule, errors: &mut Errors) {
    validate_at(metadata, namespaced, name_rule, &Path::new("metadata"), errors);
}

/// The same anywhere: templates carry metadata too.
pub fn validate_at(
    metadata: &ObjectMeta,
    namespaced: bool,
    name_rule: names::Rule,
    path: &Path,
    errors: &mut Errors,
) {
    let name = path.child("name");
    if !metadata.generate_name.is_empty() {
        let field = path.child("generateName");
        errors.invalid_each(&field, &metadata.generate_name, name_rule(&metadata.generate_name, true));
    }
    if metadata.name.is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        errors.invalid_each(&name, &metadata.name, name_rule(&metadata.name, false));
    }
    let namespace = path.child("namespace");
    match (namespaced, metadata.namespace.as_str()) {
        (true, "") => errors.required(&namespace, ""),
        (true, given) => errors.invalid_each(&namespace, given, names::dns_label(given, false)),
        (false, "") => {}
        (false, _) => errors.forbidden(&namespace, "not allowed on this type"),
    }
    not_negative(metadata.generation, &path.child("generation"), errors);
    validate_labels(&metadata.labels, &path.child("labels"), errors);
    validate_annotations(&metadata.annotations, &path.child("annotations"), errors);
    validate_owners(&metadata.owner_references, &path.child("ownerReferences"), errors);
    validate_finalizers(&metadata.finalizers, &path.child("finalizers"), errors);
    validate_managed_fields(&metadata.managed_fields, &path.child("managedFields"), errors);
}

/// Checks the metadata of a changed object against what it was.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, errors: &mut Errors) {
    let path = Path::new("metadata");
    if old.deletion_timestamp.is_some() {
        let mut extra: Vec<&str> = new
            .finalizers
            .iter()
            .filter(|finalizer| !old.finalizers.contains(finalizer))
            .map(String::as_str)
            .collect();
        extra.sort_unstable();
        if !extra.is_empty() {
            let shown: Vec<String> = extra.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            errors.forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    shown.join(", ")
                ),
            );
        }
    }
    if new.resource_version.is_empty() {
        errors.invalid(&path.child("resourceVersion"), "", "must be specified for an update");
    }
    if new.generation < old.generation {
        errors.invalid(&path.child("generation"), new.generation, "must not be decremented");
    }
    let text = |time: Option<meta::Time>| time.map(|time| time.to_string());
    immutable(&new.name, &old.name, &path.child("name"), errors);
    immutable(&new.namespace, &old.namespace, &path.child("namespace"), errors);
    immutable(&new.uid, &old.uid, &path.child("uid"), errors);
    let created = path.child("creationTimestamp");
    immutable(&text(new.creation_timestamp), &text(old.creation_timestamp), &created, errors);
    let deleted = path.child("deletionTimestamp");
    immutable(&text(new.deletion_timestamp), &text(old.deletion_timestamp), &deleted, errors);
    let grace = path.child("deletionGracePeriodSeconds");
    immutable(&new.deletion_grace_period_seconds, &old.deletion_grace_period_seconds, &grace, errors);
    validate_labels(&new.labels, &path.child("labels"), errors);
    validate_annotations(&new.annotations, &path.child("annotations"), errors);
    validate_owners(&new.owner_references, &path.child("ownerReferences"), errors);
    validate_managed_fields(&new.managed_fields, &path.child("managedFields"), errors);
}

/// A field that may not change.
pub fn immutable<T: PartialEq + meta::field::Shown>(new: &T, old: &T, path: &Path, errors: &mut Errors) {
    if new != old {
        errors.invalid(path, new, IMMUTABLE);
    }
}

/// A message, list or map that may not change.
pub fn immutable_value<T: PartialEq + meta::Value>(new: &T, old: &T, path: &Path, errors: &mut Errors) {
    if new != old {
        errors.invalid(path, Json(new), IMMUTABLE);
    }
}

pub fn not_negative(value: i64, path: &Path, errors: &mut Errors) {
    if value < 0 {
        errors.invalid(path, value, NOT_NEGATIVE);
    }
}

pub fn validate_labels(labels: &BTreeMap<String, String>, path: &Path, errors: &mut Errors) {
    for (key, value) in labels {
        errors.invalid_each(path, key, validation::qualified_name(key));
        errors.invalid_each(path, value, validation::label_value(value));
    }
}

/// Keys are qualified names whose case does not matter.
pub fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path, errors: &mut Errors) {
    for key in annotations.keys() {
        errors.invalid_each(path, key, validation::qualified_name(&key.to_lowercase()));
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS_MAX_BYTES {
        errors.too_long(path, ANNOTATIONS_MAX_BYTES);
    }
}

fn validate_owners(owners: &Vec<OwnerReference>, path: &Path, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in owners {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        if version.is_empty() {
            errors.invalid(&path.child("apiVersion"), &owner.api_version, "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.invalid(&path.child(field), value, "must not be empty");
            }
        }
        if (group, version, owner.kind.as_str()) == ("", "v1", "Event") {
            errors.invalid(path, Json(owner), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller != Some(true) {
            continue;
        }
        let this = format!("{}/{}", owner.kind, owner.name);
        match &controller {
            None => controller = Some(this),
            Some(first) => errors.invalid(
                path,
                Json(owners),
                format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                ),
            ),
        }
    }
}

fn validate_finalizers(finalizers: &Vec<String>, path: &Path, errors: &mut Errors) {
    for finalizer in finalizers {
        errors.invalid_each(path, finalizer, validation::qualified_name(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, Json(finalizers), detail);
    }
}

fn validate_managed_fields(entries: &[ManagedFieldsEntry], path: &Path, errors: &mut Errors) {
    for (index, entry) in entries.iter().enumerate() {
        let path = path.index(index);
        if entry.operation != "Apply" && entry.operation != "Update" {
            errors.invalid(&path.child("operation"), &entry.operation, "must be `Apply` or `Update`");
        }
        if !entry.fields_type.is_empty() && entry.fields_type != "FieldsV1" {
            errors.invalid(&path.child("fieldsType"), &entry.fields_type, "must be `FieldsV1`");
        }
        let manager = path.child("manager");
        if entry.manager.len() > FIELD_MANAGER_MAX_BYTES {
            errors.too_long(&manager, FIELD_MANAGER_MAX_BYTES);
        }
        if entry.manager.chars().any(char::is_control) {
            errors.invalid(&manager, &entry.manager, "should only contain printable characters");
        }
        if entry.subresource.len() > SUBRESOURCE_MAX_BYTES {
            errors.too_long(&path.child("subresource"), SUBRESOURCE_MAX_BYTES);
        }
    }
}

/// A label selector of any kind; its absence is no fault here.
pub fn validate_selector(selector: Option<&LabelSelector>, path: &Path, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    validate_labels(&selector.match_labels, &path.child("matchLabels"), errors);
    for (index, term) in selector.match_expressions.iter().enumerate() {
        validate_requirement(term, &path.child("matchExpressions").index(index), errors);
    }
}

fn validate_requirement(term: &LabelSelectorRequirement, path: &Path, errors: &mut Errors) {
    match term.operator.as_str() {
        "In" | "NotIn" if term.values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.required(&path.child("values"), detail);
        }
        "Exists" | "DoesNotExist" if !term.values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.forbidden(&path.child("values"), detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.invalid_each(&path.child("key"), &term.key, validation::qualified_name(&term.key));
    for (index, value) in term.values.iter().enumerate() {
        errors.invalid_each(&path.child("values").index(index), value, validation::label_value(value));
    }
}
