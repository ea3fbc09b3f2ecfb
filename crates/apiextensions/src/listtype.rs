//! Sets hold each value once, and keyed lists each key.

use crate::schema::{Additional, ListType, Schema};
use meta::field::{Errors, Path};
use serde_json::{Map, Value};

/// All that stands twice in the lists of an object.
pub fn validate(path: &Path, schema: &Schema, fields: &Map<String, Value>, errors: &mut Errors) {
    for (name, value) in fields {
        if let Some(property) = schema.properties.get(name) {
            check(&path.child(name), property, value, errors);
        } else if let Some(Additional::Schema(schema)) = &schema.additional {
            check(&path.key(name), schema, value, errors);
        }
    }
}

fn check(path: &Path, schema: &Schema, value: &Value, errors: &mut Errors) {
    match value {
        Value::Object(fields) => validate(path, schema, fields, errors),
        Value::Array(items) => {
            match &schema.list_type {
                Some(ListType::Set) => {
                    for index in twice(items) {
                        errors.duplicate(&path.index(index), &items[index]);
                    }
                }
                Some(ListType::Map(keys)) => check_keys(path, keys, items, errors),
                None => {}
            }
            let Some(schema) = schema.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                check(&path.index(index), schema, item, errors);
            }
        }
        _ => {}
    }
}

fn check_keys(path: &Path, keys: &[String], items: &[Value], errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        if !item.is_null() && !item.is_object() {
            let detail = "must be an object for an array of list-type map";
            return errors.invalid(&path.index(index), item, detail);
        }
    }
    let of = |item: &Value| -> Value {
        let named = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(named.collect())
    };
    let found: Vec<Value> = items.iter().map(of).collect();
    for index in twice(&found) {
        errors.duplicate(&path.index(index), &found[index]);
    }
}

/// Where each value that stands more than once stands for the second time.
fn twice(items: &[Value]) -> Vec<usize> {
    let mut seen: std::collections::HashMap<String, usize> =
        std::collections::HashMap::with_capacity(items.len());
    let mut found = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(index);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_twice_is_told_once() {
        let schema = Schema {
            properties: [
                ("set".to_string(), Schema { list_type: Some(ListType::Set), ..Schema::default() }),
                (
                    "map".to_string(),
                    Schema { list_type: Some(ListType::Map(vec!["name".into()])), ..Schema::default() },
                ),
            ]
            .into(),
            ..Schema::default()
        };
        let object = json!({"set": [1, 2, 1, 1], "map": [{"name": "a", "x": 1}, {"name": "a", "x": 2}]});
        let mut errors = Errors::default();
        validate(&Path::root(), &schema, object.as_object().unwrap(), &mut errors);
        assert_eq!(
            errors.to_string(),
            r#"[map[1]: Duplicate value: {"name":"a"}, set[2]: Duplicate value: 1]"#
        );
    }
}
