//! Fields that no schema knows are dropped, and told of.

use crate::schema::{Additional, Schema};
use serde_json::{Map, Value};

/// Paths kept of what was dropped.
const PATHS_MAX: usize = 100;
/// Fields that every object has, whatever its schema says.
pub const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops from the fields of a whole object what its schema does not know: the paths of what was dropped, sorted, as in
/// `.spec.foo` and `.spec.list[0].foo`.
pub fn object(fields: &mut Map<String, Value>, schema: &Schema) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), dropped: Vec::new() };
    if schema.preserve_unknown {
        pruner.keep_fields(fields, schema, true);
    } else {
        pruner.fields(fields, schema, true);
    }
    pruner.dropped.sort();
    pruner.dropped
}

/// The same for any value under its own schema.
pub fn value(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), dropped: Vec::new() };
    pruner.value(value, Some(schema));
    pruner.dropped
}

struct Pruner {
    path: String,
    dropped: Vec<String>,
}

impl Pruner {
    fn within(&mut self, step: std::fmt::Arguments<'_>, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        // Writing to a String cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut self.path, step);
        visit(self);
        self.path.truncate(length);
    }

    fn drop_field(&mut self, name: &str) {
        if self.dropped.len() < PATHS_MAX {
            self.dropped.push(format!("{}.{name}", self.path));
        }
    }

    fn value(&mut self, value: &mut Value, schema: Option<&Schema>) {
        if let Some(schema) = schema.filter(|schema| schema.preserve_unknown) {
            return self.keep(value, schema);
        }
        match value {
            Value::Object(fields) => match schema {
                Some(schema) => self.fields(fields, schema, schema.embedded),
                None => {
                    for name in std::mem::take(fields).keys() {
                        self.drop_field(name);
                    }
                }
            },
            Value::Array(items) => {
                let inner = schema.and_then(|schema| schema.items.as_deref());
                for (index, item) in items.iter_mut().enumerate() {
                    self.within(format_args!("[{index}]"), |pruner| pruner.value(item, inner));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, fields: &mut Map<String, Value>, schema: &Schema, embedded: bool) {
        fields.retain(|name, value| {
            if embedded && META_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let inner = match (schema.properties.get(name), &schema.additional) {
                (Some(property), _) => Some(property),
                (None, Some(Additional::Schema(schema))) => Some(&**schema),
                (None, Some(Additional::Any(_))) => None,
                (None, None) => {
                    self.drop_field(name);
                    return false;
                }
            };
            self.within(format_args!(".{name}"), |pruner| pruner.value(value, inner));
            true
        });
    }

    /// Under a node that keeps what it does not know, only what it does know is pruned.
    fn keep(&mut self, value: &mut Value, schema: &Schema) {
        match value {
            Value::Object(fields) => self.keep_fields(fields, schema, schema.embedded),
            Value::Array(items) => {
                let Some(inner) = schema.items.as_deref() else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    self.within(format_args!("[{index}]"), |pruner| pruner.keep(item, inner));
                }
            }
            _ => {}
        }
    }

    fn keep_fields(&mut self, fields: &mut Map<String, Value>, schema: &Schema, embedded: bool) {
        for (name, value) in fields.iter_mut() {
            if embedded && META_FIELDS.contains(&name.as_str()) {
                continue;
            }
            let inner = match (schema.properties.get(name), &schema.additional) {
                (Some(property), _) => Some(property),
                (None, Some(Additional::Schema(schema))) => Some(&**schema),
                (None, Some(Additional::Any(_))) => None,
                (None, None) => continue,
            };
            self.within(format_args!(".{name}"), |pruner| pruner.value(value, inner));
        }
    }
}
