//! A kind's schema as clients are told of it, in OpenAPI of either version.

use crate::definition::{Definition, Version};
use serde_json::{Map, Value, json};

/// Which OpenAPI: the older one knows no logic and no null, and older clients stumble over what is not fully described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

/// The name of a kind's definition: its group from the end, version, kind.
pub fn name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').rev().collect();
    parts.extend([version, kind]);
    parts.join(".")
}

/// The schema of a version. `metadata` is the reference to the schema of ObjectMeta.
pub fn schema(definition: &Definition, version: &Version, metadata: &str, dialect: Dialect) -> Value {
    let source: Value = serde_json::from_str(&version.source).unwrap_or_default();
    let keeps = version.schema.preserve_unknown;
    let mut out = match source {
        Value::Object(_) if dialect == Dialect::V2 && keeps => json!({"type": "object"}),
        Value::Object(fields) if !fields.is_empty() => {
            let mut schema = Value::Object(fields);
            convert(&mut schema, metadata, dialect);
            root_fields(&mut schema, metadata, dialect);
            schema
        }
        _ => json!({"type": "object"}),
    };
    out["x-kubernetes-group-version-kind"] =
        json!([{"group": definition.group, "kind": definition.kind, "version": version.name}]);
    if dialect == Dialect::V3 && !version.selectable.is_empty() {
        let fields: Vec<Value> =
            version.selectable.iter().map(|(name, _)| json!({"fieldPath": name})).collect();
        out["x-kubernetes-selectable-fields"] = fields.into();
    }
    out
}

fn reference(to: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"$ref": to}),
        Dialect::V3 => json!({"allOf": [{"$ref": to}]}),
    }
}

const KIND: &str =
    "What kind of object this is, in CamelCase; it follows from the endpoint and cannot be changed.";
const API_VERSION: &str =
    "The version of this object's schema; servers convert what they know to the newest.";
const METADATA: &str = "What every object has: its name, its labels, who owns it.";

fn root_fields(schema: &mut Value, metadata: &str, dialect: Dialect) {
    let Some(fields) = schema.as_object_mut() else { return };
    let properties = fields.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    if let Some(properties) = properties.as_object_mut() {
        meta_fields(properties, metadata, dialect);
    }
}

fn meta_fields(properties: &mut Map<String, Value>, metadata: &str, dialect: Dialect) {
    properties.insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
    properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
    let mut metadata = reference(metadata, dialect);
    metadata["description"] = METADATA.into();
    properties.insert("metadata".into(), metadata);
}

/// Rewrites a schema for a dialect, from the top down.
fn convert(schema: &mut Value, metadata: &str, dialect: Dialect) {
    let Some(fields) = schema.as_object_mut() else { return };
    let keeps = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let int_or_string = fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    if dialect == Dialect::V2 {
        for name in ["allOf", "anyOf", "oneOf", "not"] {
            fields.remove(name);
        }
        let nullable = fields.remove("nullable") == Some(Value::Bool(true));
        if nullable || keeps {
            fields.remove("items");
            fields.remove("properties");
        }
        let is = |ty: &str| fields.get("type").and_then(Value::as_str) == Some(ty);
        if nullable || (keeps && is("object")) || (is("array") && !fields.contains_key("items")) {
            fields.remove("type");
        }
        drop_nullable_required(fields);
    } else if int_or_string && !fields.contains_key("anyOf") && !fields.contains_key("allOf") {
        fields.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    let embedded = fields.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            convert(property, metadata, dialect);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            convert(inner, metadata, dialect);
        }
    }
    if embedded && !(dialect == Dialect::V2 && keeps) {
        root_fields(schema, metadata, dialect);
    }
}

/// What may be null cannot be required of a client that knows no null.
fn drop_nullable_required(fields: &mut Map<String, Value>) {
    let nullable: Vec<String> = fields
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, property)| property.get("nullable") == Some(&Value::Bool(true)))
        .map(|(name, _)| name.clone())
        .collect();
    let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) else { return };
    required.retain(|name| !nullable.iter().any(|known| name == known));
    if required.is_empty() {
        fields.remove("required");
    }
}

/// The schema of a kind's list. `item` refers to the kind's schema, `metadata` to that of ListMeta.
pub fn list(definition: &Definition, version: &Version, item: &str, metadata: &str) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "items": {"type": "array", "items": {"$ref": item}},
            "metadata": {"$ref": metadata},
        },
        "x-kubernetes-group-version-kind":
            [{"group": definition.group, "kind": definition.list_kind, "version": version.name}],
    })
}
