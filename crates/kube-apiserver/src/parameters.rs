//! The options of each verb, out of query and body, with upstream's complaints about them.

use crate::decode;
use crate::filters::Passed;
use crate::query::Query;
use api::errors::ApiError;
use api::meta::v1 as meta_v1;
use bytes::Bytes;
use meta::field::{Errors, Path};
use meta::{fields, labels};
use registry::{DeleteOptions, FieldValidation, ListOptions, MAX_FIELD_MANAGER, Propagation};

fn check(kind: &str, errors: &Errors) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", kind, "", errors)) }
}

fn dry_run(values: &[String], errors: &mut Errors) -> bool {
    for value in values {
        if value != "All" {
            errors.not_supported(&Path::new("dryRun"), value.as_str(), &["All"]);
        }
    }
    !values.is_empty()
}

fn texts(query: &Query, name: &str) -> Vec<String> {
    query.all(name).filter(|value| !value.is_empty()).map(str::to_string).collect()
}

/// Reads dryRun, fieldManager and fieldValidation into the request; `options` names the kind in complaints.
pub fn write(passed: &mut Passed, options: &'static str) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    passed.request.options_kind = options;
    passed.request.dry_run = dry_run(&texts(&passed.query, "dryRun"), &mut errors);
    let manager = &passed.request.field_manager;
    let path = Path::new("fieldManager");
    if manager.len() > MAX_FIELD_MANAGER {
        errors.too_long(&path, MAX_FIELD_MANAGER);
    }
    if let Some((at, _)) = manager.char_indices().find(|(_, character)| character.is_control()) {
        let why = format!("invalid character at position {at}: should only contain printable characters");
        errors.invalid(&path, manager.as_str(), why);
    }
    match passed.query.first("fieldValidation").unwrap_or_default() {
        "" | "Warn" => passed.request.field_validation = FieldValidation::Warn,
        "Ignore" => passed.request.field_validation = FieldValidation::Ignore,
        "Strict" => passed.request.field_validation = FieldValidation::Strict,
        other => {
            errors.not_supported(&Path::new("fieldValidation"), other, &["Ignore", "Strict", "Warn"]);
        }
    }
    check(options, &errors)
}

/// The options of list, watch and deletecollection.
pub fn list(query: &Query) -> Result<ListOptions, ApiError> {
    let text = |name: &str| query.first(name).unwrap_or_default();
    let labels = labels::Selector::parse(text("labelSelector")).map_err(ApiError::bad_request)?;
    let fields = fields::Selector::parse(text("fieldSelector")).map_err(ApiError::bad_request)?;
    Ok(ListOptions {
        labels,
        fields,
        resource_version: text("resourceVersion").into(),
        resource_version_match: text("resourceVersionMatch").into(),
        limit: query.integer("limit")?.unwrap_or(0),
        continue_token: text("continue").into(),
        allow_bookmarks: query.boolean("allowWatchBookmarks"),
        send_initial_events: query.optional_boolean("sendInitialEvents"),
    })
}

/// The options of a delete: the body's if there is one, else the query's.
pub fn delete(passed: &mut Passed, body: &Bytes) -> Result<DeleteOptions, ApiError> {
    let mut options = meta_v1::DeleteOptions::default();
    if body.is_empty() {
        let query = &passed.query;
        options.grace_period_seconds = query.integer("gracePeriodSeconds")?;
        options.orphan_dependents = query.optional_boolean("orphanDependents");
        options.propagation_policy = query.first("propagationPolicy").map(str::to_string);
        options.dry_run = texts(query, "dryRun");
    } else {
        let wanted = meta::Gvk { group: "meta.k8s.io", version: "v1", kind: "DeleteOptions" };
        decode_options(passed, &mut options, wanted, body)?;
        // A dry run is asked for in either place.
        options.dry_run.extend(texts(&passed.query, "dryRun"));
    }
    let mut errors = Errors::default();
    passed.request.dry_run = dry_run(&options.dry_run, &mut errors);
    if options.orphan_dependents.is_some() && options.propagation_policy.is_some() {
        errors.invalid(
            &Path::new("propagationPolicy"),
            options.propagation_policy.as_deref().unwrap_or_default(),
            "orphanDependents and deletionPropagation cannot be both set",
        );
    }
    let propagation = match options.propagation_policy.as_deref() {
        None => options
            .orphan_dependents
            .map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
        Some("Orphan") => Some(Propagation::Orphan),
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some(other) => {
            let path = Path::new("propagationPolicy");
            errors.not_supported(&path, other, &["Background", "Foreground", "Orphan", "nil"]);
            None
        }
    };
    check("DeleteOptions", &errors)?;
    let preconditions = options.preconditions.as_deref();
    let read = DeleteOptions {
        grace_period_seconds: options.grace_period_seconds,
        propagation,
        uid: preconditions.and_then(|conditions| conditions.uid.clone()),
        resource_version: preconditions.and_then(|conditions| conditions.resource_version.clone()),
    };
    passed.request.delete_options = Some(Box::new(options));
    Ok(read)
}

/// DeleteOptions are sent under any group's version; only the kind has to be theirs.
fn decode_options(
    passed: &Passed,
    options: &mut meta_v1::DeleteOptions,
    wanted: meta::Gvk,
    body: &Bytes,
) -> Result<(), ApiError> {
    let content_type = passed.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = match crate::negotiate::input(content_type)? {
        crate::negotiate::Encoding::Json => api::codec::MediaType::Json,
        crate::negotiate::Encoding::Yaml => api::codec::MediaType::Yaml,
        crate::negotiate::Encoding::Protobuf => api::codec::MediaType::Protobuf,
    };
    let mut notes = meta::json::Notes::default();
    if api::codec::decode(options, body, media, &mut notes).is_err() {
        // Again, for the complaint.
        decode::into(passed, options, wanted, body)?;
    }
    if media == api::codec::MediaType::Protobuf {
        return Ok(());
    }
    if !options.kind.is_empty() && options.kind != "DeleteOptions" {
        return Err(ApiError::bad_request("decoded object cannot be converted to DeleteOptions"));
    }
    Ok(())
}
