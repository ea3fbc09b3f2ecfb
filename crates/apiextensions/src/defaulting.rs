//! Fills in what the author of an object left out, by the defaults of its schema; and drops nulls that mean nothing.

use crate::schema::{Additional, Schema};
use serde_json::{Map, Value};

/// Fills in the fields of an object, and of all that is in them. A null that may not be one counts as left out.
pub fn fields(fields: &mut Map<String, Value>, schema: &Schema) {
    if !schema.has_defaults {
        return;
    }
    for (name, property) in &schema.properties {
        let Some(default) = &property.default else { continue };
        match fields.get_mut(name) {
            None => {
                fields.insert(name.clone(), default.clone());
            }
            Some(value) if value.is_null() && !property.nullable => *value = default.clone(),
            Some(_) => {}
        }
    }
    for (name, value) in fields.iter_mut() {
        if let Some(property) = schema.properties.get(name) {
            self::value(value, property);
        } else if let Some(Additional::Schema(schema)) = &schema.additional {
            null_to_default(value, schema);
            self::value(value, schema);
        }
    }
}

fn null_to_default(value: &mut Value, schema: &Schema) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
}

/// The same for any value under its own schema.
pub fn value(value: &mut Value, schema: &Schema) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(inner) => fields(inner, schema),
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for item in items {
                null_to_default(item, schema);
                self::value(item, schema);
            }
        }
        _ => {}
    }
}

/// Drops the fields that are null though they may not be, and for which no default stands in.
pub fn drop_nulls(fields: &mut Map<String, Value>, schema: &Schema) {
    fields.retain(|name, value| {
        let Some(inner) = schema.field(name) else { return true };
        if value.is_null() {
            return inner.nullable || inner.default.is_some();
        }
        nulls_in(value, inner);
        true
    });
}

fn nulls_in(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(inner) => drop_nulls(inner, schema),
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            items.iter_mut().for_each(|item| nulls_in(item, schema));
        }
        _ => {}
    }
}
