//! What a claim must state, and the little of it that may change later.

use crate::core::persistent_volume::CLASS_ANNOTATION;
use crate::core::resource_names;
use crate::object_meta::{IMMUTABLE, immutable, validate_selector};
use api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use meta::field::{Errors, Path};
use meta::validation;

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const KEEP: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

pub(crate) fn access_modes(modes: &[String], path: &Path, errors: &mut Errors) {
    for mode in modes {
        if !MODES.contains(&mode.as_str()) {
            errors.not_supported(path, mode, MODES);
        }
    }
    let single = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    let other = modes.iter().any(|mode| mode != "ReadWriteOncePod" && MODES.contains(&mode.as_str()));
    if single && other {
        errors.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

pub(crate) fn class_name(name: &str, path: &Path, errors: &mut Errors) {
    errors.invalid_each(path, name, validation::dns1123_subdomain(name));
}

pub(crate) fn volume_mode(mode: Option<&str>, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !matches!(*mode, "Block" | "Filesystem")) {
        errors.not_supported(path, mode, &["Block", "Filesystem"]);
    }
}

/// A claim's spec, also in templates of claims.
pub(crate) fn spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let modes = path.child("accessModes");
    if spec.access_modes.is_empty() {
        errors.required(&modes, "at least 1 access mode is required");
    }
    validate_selector(spec.selector.as_deref(), &path.child("selector"), errors);
    access_modes(&spec.access_modes, &modes, errors);
    let storage = path.child("resources").key("storage");
    match spec.resources.requests.get("storage") {
        None => errors.required(&storage, ""),
        Some(amount) => resource_names::positive(*amount, &storage, errors),
    }
    if let Some(class) = spec.storage_class_name.as_ref().filter(|class| !class.is_empty()) {
        class_name(class, &path.child("storageClassName"), errors);
    }
    volume_mode(spec.volume_mode.as_deref(), &path.child("volumeMode"), errors);
    sources(spec, path, errors);
    if let Some(class) = spec.volume_attributes_class_name.as_ref().filter(|class| !class.is_empty()) {
        class_name(class, &path.child("volumeAttributesClassName"), errors);
    }
}

fn reference(group: Option<&String>, kind: &str, name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    if kind.is_empty() {
        errors.required(&path.child("kind"), "");
    }
    let group = group.map_or("", String::as_str);
    if group.is_empty() {
        if kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid(path, kind, detail);
        }
    } else {
        errors.invalid_each(&path.child("apiGroup"), group, validation::dns1123_subdomain(group));
    }
}

fn sources(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let source = path.child("dataSource");
    if let Some(from) = &spec.data_source {
        reference(from.api_group.as_ref(), &from.kind, &from.name, &source, errors);
    }
    let Some(newer) = &spec.data_source_ref else { return };
    let newer_path = path.child("dataSourceRef");
    reference(newer.api_group.as_ref(), &newer.kind, &newer.name, &newer_path, errors);
    let namespace = newer.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() {
        let faults = validation::dns1123_label(namespace);
        errors.invalid_each(&newer_path.child("namespace"), namespace, faults);
    }
    let Some(older) = &spec.data_source else { return };
    if !namespace.is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.invalid(path, source.as_str(), detail);
    } else if (&older.api_group, &older.kind, &older.name) != (&newer.api_group, &newer.kind, &newer.name) {
        errors.invalid(path, source.as_str(), "must match dataSourceRef");
    }
}

pub(super) fn claim(new: &PersistentVolumeClaim, old: Option<&PersistentVolumeClaim>, errors: &mut Errors) {
    let path = Path::new("spec");
    spec(&new.spec, &path, errors);
    let Some(old) = old else { return };
    let (mut after, mut before) = (new.spec.clone(), old.spec.clone());
    // The volume may be named once, by whoever binds the claim.
    if before.volume_name.is_empty() {
        before.volume_name = after.volume_name.clone();
    }
    class_upgrade(new, old, &mut after, errors);
    if new.status.phase == "Bound" {
        if let Some(size) = before.resources.requests.get("storage") {
            after.resources.requests.insert("storage".into(), *size);
        }
        after.volume_attributes_class_name = before.volume_attributes_class_name.clone();
    }
    if after != before {
        errors.forbidden(&path, crate::difference::describe(KEEP, &before, &after));
    }
    let size = |claim: &PersistentVolumeClaim| {
        claim.spec.resources.requests.get("storage").copied().unwrap_or_default()
    };
    let held = new.status.capacity.get("storage").or(old.status.capacity.get("storage"));
    if size(new) < size(old) && size(new) <= held.copied().unwrap_or_default() {
        let field = path.child("resources").child("requests").child("storage");
        errors.forbidden(&field, "field can not be less than status.capacity");
    }
    immutable(&new.spec.volume_mode, &old.spec.volume_mode, &Path::new("volumeMode"), errors);
    if old.status.current_volume_attributes_class_name.is_some() {
        let field = path.child("volumeAttributesClassName");
        let fault = match new.spec.volume_attributes_class_name.as_deref() {
            None => "nil",
            Some("") => "empty string",
            Some(_) => return,
        };
        let detail =
            format!("update to {fault} is forbidden when status.currentVolumeAttributesClassName is not nil");
        errors.forbidden(&field, detail);
    }
}

/// A class named by the older annotation, or by nothing yet, may be written into the spec once.
fn class_upgrade(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    after: &mut PersistentVolumeClaimSpec,
    errors: &mut Errors,
) {
    let annotation =
        |claim: &PersistentVolumeClaim| claim.metadata.annotations.get(CLASS_ANNOTATION).cloned();
    let (was, is) = (annotation(old), annotation(new));
    let named = new.spec.storage_class_name.as_ref();
    let unnamed = old.spec.storage_class_name.is_none();
    if unnamed && was.is_some() && named == was.as_ref() && (is.is_none() || is == was) {
        after.storage_class_name = None;
        return;
    }
    if was.as_deref().unwrap_or_default() != is.as_deref().unwrap_or_default() {
        let path = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
        errors.invalid(&path, is.unwrap_or_default(), IMMUTABLE);
    }
    if unnamed && named.is_some() && (was.is_none() || was.as_ref() == named) {
        after.storage_class_name = None;
    }
}
