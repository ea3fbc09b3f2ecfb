//! Objects of other kinds inside an object: their kind must be told, and their metadata is read as every object's is.

use crate::schema::Schema;
use api::meta::v1::ObjectMeta;
use meta::field::{Errors, Path};
use meta::json::Notes;
use serde_json::{Map, Value};

/// Reads the metadata of embedded objects as metadata: what it does not know is dropped, and told of by its path.
///
/// # Errors
/// The field whose value is of a wrong type, and why.
pub fn coerce(fields: &mut Map<String, Value>, schema: &Schema) -> Result<Vec<String>, Box<Errors>> {
    let mut unknown = Vec::new();
    for (name, value) in fields.iter_mut() {
        if let Some(inner) = schema.field(name) {
            coerce_value(&Path::root().child(name), value, inner, &mut unknown)?;
        }
    }
    Ok(unknown)
}

fn coerce_value(
    path: &Path,
    value: &mut Value,
    schema: &Schema,
    unknown: &mut Vec<String>,
) -> Result<(), Box<Errors>> {
    match value {
        Value::Object(fields) => {
            if schema.embedded {
                coerce_object(path, fields, unknown)?;
            }
            for (name, value) in fields.iter_mut() {
                match schema.properties.get(name) {
                    Some(property) => coerce_value(&path.child(name), value, property, unknown)?,
                    None => {
                        if let Some(inner) = schema.field(name) {
                            coerce_value(&path.key(name), value, inner, unknown)?;
                        }
                    }
                }
            }
            Ok(())
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return Ok(()) };
            for (index, item) in items.iter_mut().enumerate() {
                coerce_value(&path.index(index), item, inner, unknown)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn coerce_object(
    path: &Path,
    fields: &mut Map<String, Value>,
    unknown: &mut Vec<String>,
) -> Result<(), Box<Errors>> {
    let wrong = |name: &str, value: &Value, why: String| {
        let mut errors = Errors::default();
        errors.invalid(&path.child(name), value, why);
        Box::new(errors)
    };
    for name in ["apiVersion", "kind"] {
        if let Some(value) = fields.get(name).filter(|value| !value.is_string()) {
            return Err(wrong(name, value, "must be a string".into()));
        }
    }
    let Some(value) = fields.get_mut("metadata") else { return Ok(()) };
    let mut notes = Notes::default();
    let metadata = read(value, &mut notes).map_err(|why| wrong("metadata", value, why))?;
    for note in notes.0 {
        if let Some(field) = note.strip_prefix("unknown field \"").and_then(|rest| rest.strip_suffix('"')) {
            unknown.push(format!(".{}.{field}", path.child("metadata")));
        }
    }
    *value = api::codec::to_value(&metadata);
    Ok(())
}

fn read(value: &Value, notes: &mut Notes) -> Result<ObjectMeta, String> {
    let mut metadata = ObjectMeta::default();
    meta::json::decode(&mut metadata, value.to_string().as_bytes(), notes)
        .map_err(|error| error.to_string())?;
    Ok(metadata)
}

/// All that is wrong with the identity of embedded objects.
pub fn validate(fields: &Map<String, Value>, schema: &Schema, errors: &mut Errors) {
    for (name, value) in fields {
        if let Some(inner) = schema.field(name) {
            check(&Path::root().child(name), value, inner, errors);
        }
    }
}

/// The same for any value under its own schema.
pub fn check(path: &Path, value: &Value, schema: &Schema, errors: &mut Errors) {
    match value {
        Value::Object(fields) => {
            if schema.embedded {
                check_object(path, fields, errors);
            }
            for (name, value) in fields {
                match schema.properties.get(name) {
                    Some(property) => check(&path.child(name), value, property, errors),
                    None => {
                        if let Some(inner) = schema.field(name) {
                            check(&path.key(name), value, inner, errors);
                        }
                    }
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                check(&path.index(index), item, inner, errors);
            }
        }
        _ => {}
    }
}

fn check_object(path: &Path, fields: &Map<String, Value>, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        let path = path.child(name);
        match fields.get(name) {
            None => errors.required(&path, ""),
            Some(Value::String(text)) if text.is_empty() => errors.invalid(&path, text, "must not be empty"),
            Some(Value::String(text)) if name == "kind" => {
                let faults = meta::validation::dns1035_label(&text.to_lowercase());
                if !faults.is_empty() {
                    let detail =
                        format!("may have mixed case, but should otherwise match: {}", faults.join(","));
                    errors.invalid(&path, text, detail);
                }
            }
            Some(Value::String(text)) if text.matches('/').count() > 1 => {
                errors.invalid(&path, text, format!("unexpected GroupVersion string: {text}"));
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.invalid(&path, other, "must be a string"),
        }
    }
    if let Some(value) = fields.get("metadata")
        && let Err(why) = read(value, &mut Notes::default())
    {
        errors.invalid(&path.child("metadata"), value, why);
    }
}
