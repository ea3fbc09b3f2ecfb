//! Events: short-lived notes about other objects; written by two APIs, whose newer one is the stricter.

use crate::columns::{self, Cell, Column, NAME, human_duration};
use crate::names;
use crate::strategy::Strategy;
use api::core::v1::Event;
use meta::field::{Errors, Path};
use meta::{MicroTime, Time, validation};
use serde_json::Value;

pub struct Events;

const ACTION_MAX_BYTES: usize = 128;
const REASON_MAX_BYTES: usize = 128;
const INSTANCE_MAX_BYTES: usize = 128;
const NOTE_MAX_BYTES: usize = 1024;

impl Strategy for Events {
    type Object = Event;
    const PLURAL: &'static str = "events";
    const COLUMNS: &'static [Column] = &[
        Column::string("Last Seen"),
        Column::string("Type"),
        Column::string("Reason"),
        Column::string("Object"),
        Column::string("Subobject").wide(),
        Column::string("Source").wide(),
        Column::string("Message"),
        Column::string("First Seen").wide(),
        Column::string("Count").wide(),
        NAME.wide(),
    ];
    const CREATE_ON_UPDATE: bool = true;
    // The older API never looked at names.
    const NAME: names::Rule = names::any;
    const SELECTABLE: &'static [&'static str] = &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
        "metadata.namespace",
        "metadata.name",
    ];

    fn validate(new: &Event, _old: Option<&Event>, errors: &mut Errors) {
        validate_event(new, errors);
    }

    fn selectable(event: &Event) -> Vec<(&'static str, String)> {
        let involved = &event.involved_object;
        let source = &event.source.component;
        let source = if source.is_empty() { &event.reporting_component } else { source };
        vec![
            ("involvedObject.kind", involved.kind.clone()),
            ("involvedObject.namespace", involved.namespace.clone()),
            ("involvedObject.name", involved.name.clone()),
            ("involvedObject.uid", involved.uid.clone()),
            ("involvedObject.apiVersion", involved.api_version.clone()),
            ("involvedObject.resourceVersion", involved.resource_version.clone()),
            ("involvedObject.fieldPath", involved.field_path.clone()),
            ("reason", event.reason.clone()),
            ("reportingComponent", event.reporting_component.clone()),
            ("source", source.clone()),
            ("type", event.r#type.clone()),
        ]
    }

    fn row(event: &Event, now: Time) -> Vec<Cell> {
        let micro = |time: Option<MicroTime>| {
            let seconds = |time: MicroTime| human_duration(now.seconds() - time.seconds());
            time.map_or_else(|| "<unknown>".into(), seconds)
        };
        let first = match event.first_timestamp {
            Some(_) => columns::since(event.first_timestamp, now),
            None => micro(event.event_time),
        };
        let (last, count) = match (&event.series, event.last_timestamp) {
            (Some(series), _) => (micro(series.last_observed_time), series.count),
            (None, Some(_)) => (columns::since(event.last_timestamp, now), event.count.max(1)),
            (None, None) => (first.clone(), event.count.max(1)),
        };
        let involved = &event.involved_object;
        let mut object = involved.kind.to_lowercase();
        if !involved.name.is_empty() {
            object = format!("{object}/{}", involved.name);
        }
        vec![
            last.into(),
            event.r#type.clone().into(),
            event.reason.clone().into(),
            object.into(),
            involved.field_path.clone().into(),
            source(event).into(),
            event.message.trim().into(),
            first.into(),
            count.into(),
            columns::name(&event.metadata),
        ]
    }
}

fn source(event: &Event) -> String {
    let first = |one: &str, other: &str| if one.is_empty() { other.to_string() } else { one.to_string() };
    let component = first(&event.source.component, &event.reporting_component);
    let instance = first(&event.source.host, &event.reporting_instance);
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

fn validate_event(event: &Event, errors: &mut Errors) {
    let involved = &event.involved_object.namespace;
    let namespace = &event.metadata.namespace;
    let place = Path::new("involvedObject").child("namespace");
    let mismatch = "does not match event.namespace";
    if event.event_time.is_none() {
        // Events of the older kind: about objects of the cluster's scope they stand in "default".
        let fits = if involved.is_empty() {
            matches!(namespace.as_str(), "" | "default")
        } else {
            namespace == involved
        };
        if !fits {
            errors.invalid(&place, involved, mismatch);
        }
    } else {
        if involved.is_empty() && namespace != "default" && namespace != "kube-system" {
            errors.invalid(&place, involved, mismatch);
        }
        let component = Path::new("reportingComponent");
        if event.reporting_component.is_empty() {
            errors.required(&component, "");
        }
        let faults = validation::qualified_name(&event.reporting_component);
        errors.invalid_each(&component, &event.reporting_component, faults);
        for (field, value, limit, required) in [
            ("reportingInstance", &event.reporting_instance, INSTANCE_MAX_BYTES, true),
            ("action", &event.action, ACTION_MAX_BYTES, true),
            ("reason", &event.reason, REASON_MAX_BYTES, true),
            ("message", &event.message, NOTE_MAX_BYTES, false),
        ] {
            if required && value.is_empty() {
                errors.required(&Path::new(field), "");
            }
            if value.len() > limit {
                errors.invalid(&Path::new(field), "", format!("can have at most {limit} characters"));
            }
        }
    }
    let faults = validation::dns1123_subdomain(namespace);
    errors.invalid_each(&Path::new("namespace"), namespace, faults);
}

/// Fields that the newer API calls otherwise: its name, the hub's.
const RENAMED: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// `events.k8s.io/v1` to the core group's form.
pub(crate) fn to_hub(value: &mut Value) {
    rename(value, RENAMED.iter().copied());
}

/// And back.
pub(crate) fn from_hub(value: &mut Value) {
    rename(value, RENAMED.iter().map(|(newer, older)| (*older, *newer)));
}

fn rename(value: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = value.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
    }
}

/// The hub's field label for one of `events.k8s.io/v1`.
pub(crate) fn field_label(label: &str) -> Result<String, String> {
    if let Some(field) = label.strip_prefix("regarding.")
        && matches!(
            field,
            "kind" | "namespace" | "name" | "uid" | "apiVersion" | "resourceVersion" | "fieldPath"
        )
    {
        return Ok(format!("involvedObject.{field}"));
    }
    match label {
        "reportingController" => Ok("reportingComponent".into()),
        "reason" | "type" | "metadata.namespace" | "metadata.name" => Ok(label.into()),
        _ => Err(format!("field label not supported: {label}")),
    }
}
