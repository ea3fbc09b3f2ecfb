//! What no schema of a definition may say, structural or not.

use api::apiextensions::v1::{JSONSchemaProps, ValidationRule};
use meta::field::{Errors, Json, Path};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where a schema stands, as far as it matters to what it may say.
#[derive(Clone, Default)]
struct Place {
    /// Why there may be no default here.
    no_defaults: Option<String>,
    /// Inside of what every object has: its kind or metadata.
    in_meta: bool,
}

pub fn validate(props: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    node(props, path, &Place::default(), true, errors);
}

fn node(props: &JSONSchemaProps, path: &Path, place: &Place, root: bool, errors: &mut Errors) {
    unsupported(props, path, place, errors);
    if props.unique_items {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), detail);
    }
    if let Some(additional) = props.additional_properties.as_deref() {
        let at = path.child("additionalProperties");
        if !props.properties.is_empty() && (!additional.allows || additional.schema.is_some()) {
            errors.forbidden(&at, "additionalProperties and properties are mutual exclusive");
        }
        if let Some(schema) = additional.schema.as_deref() {
            let mut inner = place.clone();
            if place.in_meta {
                inner.no_defaults = Some("inside additionalProperties applying to object metadata".into());
            }
            node(schema, &at, &inner, false, errors);
        }
    }
    for (name, property) in &props.properties {
        let mut inner = place.clone();
        if (root || props.x_kubernetes_embedded_resource)
            && crate::prune::META_FIELDS.contains(&name.as_str())
        {
            inner.in_meta = true;
            if root {
                inner.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        node(property, &path.child("properties").key(name), &inner, false, errors);
    }
    if let Some(not) = props.not.as_deref() {
        node(not, &path.child("not"), place, false, errors);
    }
    for (name, all) in [("allOf", &props.all_of), ("oneOf", &props.one_of), ("anyOf", &props.any_of)] {
        for (index, schema) in all.iter().enumerate() {
            node(schema, &path.child(name).index(index), place, false, errors);
        }
    }
    if let Some(items) = props.items.as_deref() {
        if let Some(schema) = items.schema.as_deref() {
            node(schema, &path.child("items"), place, false, errors);
        }
        for (index, schema) in items.schemas.iter().enumerate() {
            node(schema, &path.child("items").index(index), place, false, errors);
        }
    }
    if props.x_kubernetes_preserve_unknown_fields == Some(false) {
        errors.invalid(
            &path.child("x-kubernetes-preserve-unknown-fields"),
            false,
            "must be true or undefined",
        );
    }
    map_type(props, path, errors);
    list_type(props, path, errors);
    list_map(props, path, errors);
    keys(props, path, errors);
    for (index, rule) in props.x_kubernetes_validations.iter().enumerate() {
        check_rule(props, rule, &path.child("x-kubernetes-validations").index(index), errors);
    }
}

fn unsupported(props: &JSONSchemaProps, path: &Path, place: &Place, errors: &mut Errors) {
    if !props.r#type.is_empty() && !TYPES.contains(&props.r#type.as_str()) {
        errors.not_supported(&path.child("type"), &props.r#type, &TYPES);
    }
    if let Some(why) = place.no_defaults.as_ref().filter(|_| props.default.is_some()) {
        errors.forbidden(&path.child("default"), format!("must not be set {why}"));
    }
    let unsupported = [
        (!props.id.is_empty(), "id"),
        (props.additional_items.is_some(), "additionalItems"),
        (!props.pattern_properties.is_empty(), "patternProperties"),
        (!props.definitions.is_empty(), "definitions"),
        (!props.dependencies.is_empty(), "dependencies"),
        (props.r#ref.is_some(), "$ref"),
    ];
    for (there, name) in unsupported {
        if there {
            errors.forbidden(&path.child(name), format!("{name} is not supported"));
        }
    }
    if props.r#type == "null" {
        errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if props.items.as_deref().is_some_and(|items| !items.schemas.is_empty()) {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if place.in_meta && props.x_kubernetes_embedded_resource {
        errors.forbidden(
            &path.child("x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        );
    }
}

fn wrong_type(props: &JSONSchemaProps, path: &Path, detail: &str, errors: &mut Errors) {
    if props.r#type.is_empty() {
        errors.required(&path.child("type"), detail);
    } else {
        errors.invalid(&path.child("type"), &props.r#type, detail);
    }
}

fn map_type(props: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let Some(map_type) = props.x_kubernetes_map_type.as_deref() else { return };
    if props.r#type != "object" {
        wrong_type(props, path, "must be object if x-kubernetes-map-type is specified", errors);
    }
    if !matches!(map_type, "atomic" | "granular") {
        errors.not_supported(&path.child("x-kubernetes-map-type"), map_type, &["atomic", "granular"]);
    }
}

fn list_type(props: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let Some(list_type) = props.x_kubernetes_list_type.as_deref() else { return };
    let items = props.items.as_deref().and_then(|items| items.schema.as_deref());
    if props.r#type != "array" {
        wrong_type(props, path, "must be array if x-kubernetes-list-type is specified", errors);
    } else if let Some(items) = items.filter(|_| list_type == "set") {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let at = path.child("items");
        let inner = items.x_kubernetes_list_type.as_deref();
        match items.r#type.as_str() {
            "array" if inner.is_some_and(|inner| inner != "atomic") => {
                errors.invalid(&at.child("x-kubernetes-list-type"), inner, detail);
            }
            "object" if items.x_kubernetes_map_type.as_deref() != Some("atomic") => {
                errors.invalid(&at.child("x-kubernetes-map-type"), inner, detail);
            }
            _ => {}
        }
    }
    if !matches!(list_type, "atomic" | "set" | "map") {
        errors.not_supported(&path.child("x-kubernetes-list-type"), list_type, &["atomic", "set", "map"]);
    }
}

fn list_map(props: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let list_type = props.x_kubernetes_list_type.as_deref();
    let keys = &props.x_kubernetes_list_map_keys;
    if !keys.is_empty() && list_type != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.required(&path.child("x-kubernetes-list-type"), detail),
            Some(other) => errors.invalid(&path.child("x-kubernetes-list-type"), other, detail),
        }
    }
    if list_type != Some("map") {
        return;
    }
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.required(&keys_path, "must not be empty if x-kubernetes-list-type is map");
    }
    let at = path.child("items");
    let Some(items) = props.items.as_deref() else {
        return errors.required(&at, "must have a schema if x-kubernetes-list-type is map");
    };
    let Some(items) = items.schema.as_deref() else {
        return errors.invalid(
            &at,
            Json(items),
            "must only have a single schema if x-kubernetes-list-type is map",
        );
    };
    if items.r#type != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.invalid(&at.child("type"), &items.r#type, detail);
    }
    for (index, key) in keys.iter().enumerate() {
        match items.properties.get(key) {
            Some(property) if matches!(property.r#type.as_str(), "array" | "object") => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.invalid(&at.child("properties").key(key).child("type"), &items.r#type, detail);
            }
            Some(_) => {}
            None => errors.invalid(&keys_path, Json(keys), "entries must all be names of item properties"),
        }
        if keys[..index].contains(key) {
            errors.invalid(&keys_path, Json(keys), "must not contain duplicate entries");
        }
    }
}

/// Elements of sets and keyed lists are there, and so are their keys.
fn keys(props: &JSONSchemaProps, path: &Path, errors: &mut Errors) {
    let Some(list_type @ ("set" | "map")) = props.x_kubernetes_list_type.as_deref() else { return };
    let Some(items) = props.items.as_deref().and_then(|items| items.schema.as_deref()) else { return };
    let at = path.child("items");
    if items.nullable {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.forbidden(&at.child("nullable"), detail);
    }
    if list_type == "set" {
        return;
    }
    for key in &props.x_kubernetes_list_map_keys {
        let Some(property) = items.properties.get(key) else { continue };
        let at = at.child("properties").key(key);
        if !items.required.contains(key) && property.default.is_none() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&at.child("default"), detail);
        }
        if property.nullable {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&at.child("nullable"), detail);
        }
    }
}

fn broken(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// The parts of a rule that are not its expressions.
fn check_rule(props: &JSONSchemaProps, rule: &ValidationRule, path: &Path, errors: &mut Errors) {
    let message = rule.message.trim();
    let at = path.child("message");
    if rule.rule.trim().is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if !rule.message.is_empty() && message.is_empty() {
        errors.invalid(&at, &rule.message, "must be non-empty if specified");
    } else if broken(message) {
        errors.invalid(&at, &rule.message, "must not contain line breaks");
    } else if broken(rule.rule.trim()) && message.is_empty() {
        errors.required(&at, "message must be specified if rule contains line breaks");
    }
    if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.required(&path.child("messageExpression"), detail);
    }
    if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
        errors.not_supported(&path.child("reason"), reason, &REASONS);
    }
    let at = path.child("fieldPath");
    if rule.field_path.is_empty() {
        return;
    }
    if rule.field_path.trim().is_empty() {
        errors.invalid(&at, &rule.field_path, "must be non-empty if specified");
    }
    if broken(&rule.field_path) {
        errors.invalid(&at, &rule.field_path, "must not contain line breaks");
    }
    if let Ok(schema) = crate::Schema::compile(props)
        && super::resolve(&rule.field_path, &schema, true).is_err()
    {
        errors.invalid(&at, &rule.field_path, "must be a valid path");
    }
}
