//! An OpenAPI v2 document in the protobuf form that clients of this API read: gnostic's `openapi.v2.Document`.
//!
//! The numbers are those of its published schema.

use meta::proto::{write_bytes, write_nested, write_varint_field};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

fn text(out: &mut Vec<u8>, tag: u32, object: &Object, name: &str) {
    if let Some(value) = object.get(name).and_then(Value::as_str) {
        write_bytes(tag, value.as_bytes(), out);
    }
}

fn texts(out: &mut Vec<u8>, tag: u32, object: &Object, name: &str) {
    for value in object.get(name).and_then(Value::as_array).into_iter().flatten() {
        write_bytes(tag, value.as_str().unwrap_or_default().as_bytes(), out);
    }
}

fn flag(out: &mut Vec<u8>, tag: u32, object: &Object, name: &str) {
    if object.get(name) == Some(&Value::Bool(true)) {
        write_varint_field(tag, 1, out);
    }
}

/// `x-` fields: a name, and the value as YAML, of which JSON is a part.
fn extensions(out: &mut Vec<u8>, tag: u32, object: &Object) {
    for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
        write_nested(tag, out, |out| {
            write_bytes(1, name.as_bytes(), out);
            write_nested(2, out, |out| write_bytes(2, value.to_string().as_bytes(), out));
        });
    }
}

fn objects<'a>(object: &'a Object, name: &str) -> impl Iterator<Item = (&'a String, &'a Object)> {
    let inner = object.get(name).and_then(Value::as_object).into_iter().flatten();
    inner.filter_map(|(name, value)| Some((name, value.as_object()?)))
}

/// The whole document.
pub fn document(document: &Object) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    text(&mut out, 1, document, "swagger");
    if let Some(info) = document.get("info").and_then(Value::as_object) {
        write_nested(2, &mut out, |out| {
            text(out, 1, info, "title");
            text(out, 2, info, "version");
        });
    }
    write_nested(8, &mut out, |out| {
        for (path, item) in objects(document, "paths") {
            write_nested(2, out, |out| {
                write_bytes(1, path.as_bytes(), out);
                write_nested(2, out, |out| path_item(item, out));
            });
        }
    });
    write_nested(9, &mut out, |out| {
        for (name, item) in objects(document, "definitions") {
            named_schema(1, name, item, out);
        }
    });
    out
}

fn path_item(item: &Object, out: &mut Vec<u8>) {
    for (tag, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(found) = item.get(method).and_then(Value::as_object) {
            write_nested(tag, out, |out| operation(found, out));
        }
    }
    parameters(9, item, out);
}

fn operation(item: &Object, out: &mut Vec<u8>) {
    texts(out, 1, item, "tags");
    text(out, 5, item, "operationId");
    texts(out, 6, item, "produces");
    texts(out, 7, item, "consumes");
    parameters(8, item, out);
    write_nested(9, out, |out| {
        for (code, answer) in objects(item, "responses") {
            write_nested(1, out, |out| {
                write_bytes(1, code.as_bytes(), out);
                write_nested(2, out, |out| write_nested(1, out, |out| response(answer, out)));
            });
        }
    });
    texts(out, 10, item, "schemes");
    extensions(out, 13, item);
}

fn response(answer: &Object, out: &mut Vec<u8>) {
    text(out, 1, answer, "description");
    if let Some(found) = answer.get("schema").and_then(Value::as_object) {
        write_nested(2, out, |out| write_nested(1, out, |out| schema(found, out)));
    }
}

fn parameters(tag: u32, item: &Object, out: &mut Vec<u8>) {
    let all = item.get("parameters").and_then(Value::as_array).into_iter().flatten();
    for parameter in all.filter_map(Value::as_object) {
        write_nested(tag, out, |out| write_nested(1, out, |out| one_parameter(parameter, out)));
    }
}

fn one_parameter(parameter: &Object, out: &mut Vec<u8>) {
    let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
    if place == "body" {
        write_nested(1, out, |out| {
            text(out, 2, parameter, "name");
            text(out, 3, parameter, "in");
            flag(out, 4, parameter, "required");
            if let Some(found) = parameter.get("schema").and_then(Value::as_object) {
                write_nested(5, out, |out| schema(found, out));
            }
        });
        return;
    }
    // Path parameters have no field 5 for empty values, so what follows is one less.
    let (kind, ty, unique) = if place == "path" { (4, 5, 17) } else { (3, 6, 18) };
    write_nested(2, out, |out| {
        write_nested(kind, out, |out| {
            flag(out, 1, parameter, "required");
            text(out, 2, parameter, "in");
            text(out, 4, parameter, "name");
            text(out, ty, parameter, "type");
            flag(out, unique, parameter, "uniqueItems");
        });
    });
}

fn named_schema(tag: u32, name: &str, item: &Object, out: &mut Vec<u8>) {
    write_nested(tag, out, |out| {
        write_bytes(1, name.as_bytes(), out);
        write_nested(2, out, |out| schema(item, out));
    });
}

fn schema(item: &Object, out: &mut Vec<u8>) {
    text(out, 1, item, "$ref");
    text(out, 2, item, "format");
    text(out, 4, item, "description");
    texts(out, 19, item, "required");
    match item.get("additionalProperties") {
        Some(Value::Object(found)) => {
            write_nested(21, out, |out| write_nested(1, out, |out| schema(found, out)));
        }
        Some(Value::Bool(true)) => write_nested(21, out, |out| write_varint_field(2, 1, out)),
        _ => {}
    }
    if let Some(ty) = item.get("type").and_then(Value::as_str) {
        write_nested(22, out, |out| write_bytes(1, ty.as_bytes(), out));
    }
    if let Some(found) = item.get("items").and_then(Value::as_object) {
        write_nested(23, out, |out| write_nested(1, out, |out| schema(found, out)));
    }
    if item.contains_key("properties") {
        write_nested(25, out, |out| {
            for (name, property) in objects(item, "properties") {
                named_schema(1, name, property, out);
            }
        });
    }
    extensions(out, 31, item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_small_document_keeps_its_shape() {
        let small = serde_json::json!({
            "swagger": "2.0",
            "definitions": {"A": {"type": "object", "properties": {"b": {"$ref": "#/definitions/B"}}, "x-k": [1]}},
        });
        let bytes = document(small.as_object().unwrap());
        expect![[r#"\n\u{3}2.0B\0J<\n:\n\u{1}A\u{12}5�\u{1}\u{8}\n\u{6}object�\u{1}\u{18}\n\u{16}\n\u{1}b\u{12}\u{11}\n\u{f}#/definitions/B�\u{1}\u{c}\n\u{3}x-k\u{12}\u{5}\u{12}\u{3}[1]"#]].assert_eq(&String::from_utf8_lossy(&bytes).escape_debug().to_string());
    }
}
