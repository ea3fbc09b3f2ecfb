//! Patches in the write path: from the body to the object it proposes.

use crate::ownership::{empty_tree, tree, with_claim};
use crate::request::{FieldValidation, Patch, PatchType};
use crate::write::Target;
use api::Object;
use api::codec::MediaType;
use api::errors::{ApiError, Cause, Reason};
use api::meta::v1::ManagedFieldsEntry;
use meta::json::Notes;
use patch::managed::{self, Applied, ApplyError};
use serde_json::{Map, Value};

const CONFLICT_CAUSE: &str = "FieldManagerConflict";
/// Patches of kinds made at run time, whose schemas say nothing of strategic merges.
const CUSTOM_PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// The error that upstream makes of a patch.
fn refused(error: patch::Error) -> ApiError {
    match error {
        patch::Error::Malformed(text) => ApiError::bad_request(text),
        patch::Error::TooLarge(text) => ApiError::request_entity_too_large(text),
        patch::Error::Unprocessable(text) => {
            let message = "the server rejected our request due to an error in our request";
            let cause =
                Cause { reason: "UnexpectedServerResponse".into(), message: text, field: String::new() };
            ApiError::new(Reason::Invalid, message).with_causes(vec![cause])
        }
    }
}

/// Says what strict decoding found, or refuses for it.
fn judge(target: &Target<'_>, notes: Notes) -> Result<(), ApiError> {
    match target.request.field_validation {
        _ if notes.0.is_empty() => Ok(()),
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            notes.0.into_iter().for_each(|note| target.request.warnings.add(note));
            Ok(())
        }
        FieldValidation::Strict => {
            Err(ApiError::bad_request(format!("strict decoding error: {}", notes.0.join(", "))))
        }
    }
}

/// A tree as an object of the target's kind.
fn decode(target: &Target<'_>, tree: &Value, notes: &mut Notes) -> Result<Box<dyn Object>, ApiError> {
    let text = tree.to_string();
    let mut object = target.resource.new_object();
    api::codec::decode(object.as_dyn_mut(), text.as_bytes(), MediaType::Json, notes)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(object)
}

fn body(patch: &Patch) -> Result<Value, ApiError> {
    serde_json::from_slice(&patch.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
}

/// What a JSON, merge or strategic merge patch makes of an object, defaulted.
pub(crate) fn patched(
    target: &Target<'_>,
    patch: &Patch,
    old: &dyn Object,
) -> Result<Box<dyn Object>, ApiError> {
    let document = api::codec::to_value(old.as_dyn());
    let patched = match patch.kind {
        PatchType::Json => patch::json::apply(&document, &patch.body).map_err(refused)?,
        PatchType::Merge => {
            let mut document = document;
            patch::merge::apply(&mut document, &body(patch)?);
            document
        }
        PatchType::StrategicMerge if target.resource.custom().is_some() => {
            return Err(ApiError::unsupported_media_type(&CUSTOM_PATCHES));
        }
        PatchType::StrategicMerge => {
            let descriptor = target.resource.descriptor();
            patch::strategic::apply(&document, &body(patch)?, descriptor).map_err(refused)?
        }
        PatchType::Apply => return apply(target, patch, old),
    };
    let mut notes = Notes::default();
    let mut object = decode(target, &patched, &mut notes)?;
    judge(target, notes)?;
    target.resource.default(&mut *object);
    Ok(object)
}

/// The applied configuration, checked: it is of the resource's own kind and names no managed fields.
fn configuration(target: &Target<'_>, patch: &Patch) -> Result<Value, ApiError> {
    let mut config: Value = serde_json::from_slice(&patch.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let gvk = target.resource.gvk();
    if kind != gvk.kind || api_version != gvk.api_version() {
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let shown = format!("{group}/{version}, Kind={kind}");
        return Err(ApiError::bad_request(format!("invalid object type: {shown}")));
    }
    let mut notes = Notes::default();
    let mut object = target.resource.new_object();
    api::codec::decode(object.as_dyn_mut(), &patch.body, MediaType::Json, &mut notes)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    // Fields that are not declared cannot be owned: the merge itself refuses them, whatever was asked for.
    notes.0.retain(|note| !note.starts_with("unknown"));
    judge(target, notes)?;
    if !object.metadata().managed_fields.is_empty() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let name = &object.metadata().name;
    if !name.is_empty() && *name != target.key.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.key.name
        )));
    }
    let metadata = config
        .as_object_mut()
        .map(|fields| fields.entry("metadata").or_insert_with(|| Value::Object(Map::new())));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.insert("name".into(), target.key.name.clone().into());
        if target.resource.namespaced() && !metadata.contains_key("namespace") {
            metadata.insert("namespace".into(), target.key.namespace.clone().into());
        }
    }
    Ok(config)
}

fn apply_to(
    target: &Target<'_>,
    patch: &Patch,
    live: &Value,
    entries: &[ManagedFieldsEntry],
) -> Result<Box<dyn Object>, ApiError> {
    let config = configuration(target, patch)?;
    let Applied { object, entries } =
        with_claim(target, |claim| managed::apply(live, &config, entries, claim, patch.force))
            .map_err(|error| refused_apply(target, error))?;
    let mut object = decode(target, &object, &mut Notes::default())?;
    target.resource.default(&mut *object);
    object.metadata_mut().managed_fields = entries;
    Ok(object)
}

fn refused_apply(target: &Target<'_>, error: ApplyError) -> ApiError {
    let message = error.to_string();
    match error {
        ApplyError::Conflicts(conflicts) => {
            let cause = |conflict: managed::Conflict| Cause {
                reason: CONFLICT_CAUSE.into(),
                message: format!("conflict with {}", conflict.manager),
                field: conflict.field,
            };
            ApiError::apply_conflict(conflicts.into_iter().map(cause).collect(), message)
        }
        ApplyError::Invalid(text) => {
            let gvk = target.resource.gvk();
            let what = format!(
                "{}/{}; {}/{}, Kind={}",
                target.key.namespace, target.key.name, gvk.group, gvk.version, gvk.kind
            );
            ApiError::new(Reason::Unknown, format!("failed to create typed patch object ({what}): {text}"))
        }
    }
}

/// What an apply makes of an object.
pub(crate) fn apply(
    target: &Target<'_>,
    patch: &Patch,
    old: &dyn Object,
) -> Result<Box<dyn Object>, ApiError> {
    apply_to(target, patch, &tree(old), &old.metadata().managed_fields)
}

/// The object that an apply creates.
pub(crate) fn apply_to_nothing(target: &Target<'_>, patch: &Patch) -> Result<Box<dyn Object>, ApiError> {
    apply_to(target, patch, &empty_tree(target.resource), &[])
}
