//! JSON patch, RFC 6902, within upstream's limits and with the tolerances of the library that upstream uses: `replace`
//! sets a key that is not there, an index may count from the end, and a test for null passes where there is nothing.

use crate::Error;
use serde_json::Value;

/// Most operations that one patch may have, as upstream limits them.
pub const MAX_OPERATIONS: usize = 10_000;
/// Bytes that the copy operations of one patch may add.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024 * 10;

const MISSING: &str = "missing value";

/// The document that `patch`, a JSON text, makes of `document`.
pub fn apply(document: &Value, patch: &[u8]) -> Result<Value, Error> {
    let malformed =
        |error: &dyn std::fmt::Display| Error::Malformed(format!("error decoding patch: {error}"));
    let patch: Value = serde_json::from_slice(patch).map_err(|error| malformed(&error))?;
    let Value::Array(operations) = patch else {
        return Err(malformed(&"json: cannot unmarshal object into Go value of type jsonpatch.Patch"));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    if !operations.iter().all(Value::is_object) {
        let text = "json: cannot unmarshal into Go value of type jsonpatch.Operation";
        return Err(malformed(&text));
    }
    let mut patched = document.clone();
    let mut copied = 0;
    for operation in &operations {
        carry_out(&mut patched, operation, &mut copied).map_err(Error::Unprocessable)?;
    }
    Ok(patched)
}

fn carry_out(document: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), String> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str);
    let kind = text("op").unwrap_or("unknown");
    let path = || text("path").ok_or(format!("{kind} operation failed to decode path: {MISSING}"));
    let from = || text("from").ok_or(format!("{kind} operation failed to decode from: {MISSING}"));
    let value = operation.get("value");
    match kind {
        "add" => add(document, path()?, value.cloned().unwrap_or_default())
            .map_err(|fault| fault.text("add", path().unwrap_or_default(), "path", true)),
        "remove" => {
            let path = path()?;
            let (parent, key) =
                find(document, path).ok_or_else(|| Fault::NoParent.text("remove", path, "path", true))?;
            remove(parent, &key)
                .map(|_| ())
                .map_err(|fault| format!("error in remove for path: '{path}': {fault}"))
        }
        "replace" => replace(document, path()?, value.cloned().unwrap_or_default()),
        "move" => {
            let (from, path) = (from()?, path()?);
            let (parent, key) =
                find(document, from).ok_or_else(|| Fault::NoParent.text("move", from, "from path", false))?;
            let moved =
                remove(parent, &key).map_err(|fault| format!("error in move for path: '{key}': {fault}"))?;
            add(document, path, moved).map_err(|fault| fault.text("move", path, "destination path", false))
        }
        "copy" => {
            let (from, path) = (from()?, path()?);
            let (parent, key) =
                find(document, from).ok_or_else(|| Fault::NoParent.text("copy", from, "from path", false))?;
            let value =
                get(parent, &key).map_err(|fault| format!("error in copy for from: '{from}': {fault}"))?;
            let value = value.cloned().unwrap_or_default();
            *copied += value.to_string().len();
            if *copied > MAX_COPIED_BYTES {
                return Err(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the \
                     limit {MAX_COPIED_BYTES}"
                ));
            }
            add(document, path, value).map_err(|fault| fault.text("copy", path, "destination path", false))
        }
        "test" => test(document, path()?, value.unwrap_or(&Value::Null)),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// Why a value could not be put where a path says.
enum Fault {
    NoParent,
    Refused(String),
}

impl Fault {
    fn text(self, operation: &str, path: &str, what: &str, quoted: bool) -> String {
        match self {
            Fault::NoParent if quoted => {
                format!("{operation} operation does not apply: doc is missing {what}: {path:?}: {MISSING}")
            }
            Fault::NoParent => {
                format!("{operation} operation does not apply: doc is missing {what}: {path}: {MISSING}")
            }
            Fault::Refused(why) => format!("error in {operation} for path: '{path}': {why}"),
        }
    }
}

/// The container that holds the last step of a path, and that step.
fn find<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let decode = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let (_, steps) = path.split_once('/')?;
    let (way, last) = match steps.rsplit_once('/') {
        Some((way, last)) => (Some(way), last),
        None => (None, steps),
    };
    let mut at = document;
    for part in way.into_iter().flat_map(|way| way.split('/')) {
        at = match at {
            Value::Object(fields) => fields.get_mut(&decode(part))?,
            Value::Array(items) => {
                let index = index(part, items.len()).ok()?;
                items.get_mut(index)?
            }
            _ => return None,
        };
    }
    (at.is_object() || at.is_array()).then(|| (at, decode(last)))
}

/// An index of a list of `length`; negative ones count from the end.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let number: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let at = if number < 0 { number + length } else { number };
    if at < 0 || at >= length {
        return Err(format!("Unable to access invalid index: {number}: invalid index referenced"));
    }
    usize::try_from(at).map_err(|error| error.to_string())
}

fn get<'a>(parent: &'a Value, key: &str) -> Result<Option<&'a Value>, String> {
    match parent {
        Value::Object(fields) => Ok(fields.get(key)),
        Value::Array(items) => Ok(items.get(index(key, items.len())?)),
        _ => Ok(None),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Fault> {
    let (parent, key) = find(document, path).ok_or(Fault::NoParent)?;
    match parent {
        Value::Object(fields) => {
            fields.insert(key, value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&key, items.len() + 1).map_err(|why| {
                let odd = why.starts_with("strconv");
                Fault::Refused(if odd {
                    format!("value was not a proper array index: '{key}': {why}")
                } else {
                    why
                })
            })?;
            items.insert(at, value);
        }
        _ => return Err(Fault::NoParent),
    }
    Ok(())
}

fn remove(parent: &mut Value, key: &str) -> Result<Value, String> {
    match parent {
        Value::Object(fields) => {
            fields.remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}"))
        }
        Value::Array(items) => {
            let at = index(key, items.len())?;
            Ok(items.remove(at))
        }
        _ => Err(MISSING.into()),
    }
}

fn replace(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        if !(value.is_object() || value.is_array()) {
            return Err("replace operation value must be object or array: unknown object type".into());
        }
        *document = value;
        return Ok(());
    }
    let Some((parent, key)) = find(document, path) else {
        return Err(Fault::NoParent.text("replace", path, "path", false));
    };
    match parent {
        Value::Object(fields) => {
            fields.insert(key, value);
        }
        Value::Array(items) => {
            let at = index(&key, items.len()).map_err(|_| {
                format!("replace operation does not apply: doc is missing key: {path}: {MISSING}")
            })?;
            items[at] = value;
        }
        _ => {}
    }
    Ok(())
}

fn test(document: &mut Value, path: &str, wanted: &Value) -> Result<(), String> {
    let failed = || format!("testing value {path} failed: test failed");
    if path.is_empty() {
        return if document == wanted { Ok(()) } else { Err(failed()) };
    }
    let Some((parent, key)) = find(document, path) else {
        return Err(format!("test operation does not apply: is missing path: {path}: {MISSING}"));
    };
    let found = get(parent, &key).map_err(|why| format!("error in test for path: '{path}': {why}"))?;
    if found.unwrap_or(&Value::Null) == wanted { Ok(()) } else { Err(failed()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(document: Value, patch: Value) -> Result<Value, Error> {
        apply(&document, patch.to_string().as_bytes())
    }

    #[test]
    fn operations_apply_in_order() {
        let patch = json!([
            {"op": "test", "path": "/a", "value": 1},
            {"op": "replace", "path": "/a", "value": 2},
            {"op": "add", "path": "/list/-", "value": "z"},
            {"op": "add", "path": "/list/0", "value": "first"},
            {"op": "copy", "from": "/a", "path": "/b"},
            {"op": "remove", "path": "/list/1"},
            {"op": "move", "from": "/b", "path": "/c~1d"},
            {"op": "replace", "path": "/list/-1", "value": "last"},
            {"op": "replace", "path": "/new", "value": true},
            {"op": "test", "path": "/none", "value": null},
        ]);
        let wanted = json!({"a": 2, "list": ["first", "last"], "c/d": 2, "new": true});
        assert_eq!(check(json!({"a": 1, "list": ["x"]}), patch), Ok(wanted));
    }

    #[test]
    fn what_does_not_fit_is_unprocessable() {
        let document = json!({"a": 1, "list": ["x"]});
        let cases = [
            (json!({"op": "test", "path": "/a", "value": 2}), "testing value /a failed: test failed"),
            (
                json!({"op": "remove", "path": "/b"}),
                "error in remove for path: '/b': Unable to remove nonexistent key: b: missing value",
            ),
            (
                json!({"op": "remove", "path": "/b/c"}),
                "remove operation does not apply: doc is missing path: \"/b/c\": missing value",
            ),
            (
                json!({"op": "add", "path": "/b/c", "value": 1}),
                "add operation does not apply: doc is missing path: \"/b/c\": missing value",
            ),
            (
                json!({"op": "add", "path": "/list/7", "value": 1}),
                "error in add for path: '/list/7': Unable to access invalid index: 7: invalid index referenced",
            ),
            (
                json!({"op": "replace", "path": "/list/7", "value": 1}),
                "replace operation does not apply: doc is missing key: /list/7: missing value",
            ),
            (
                json!({"op": "move", "from": "/x/y", "path": "/z"}),
                "move operation does not apply: doc is missing from path: /x/y: missing value",
            ),
            (json!({"op": "eat", "path": "/a"}), "Unexpected kind: eat"),
            (json!({"op": "add"}), "add operation failed to decode path: missing value"),
        ];
        for (operation, wanted) in cases {
            let failed = check(document.clone(), json!([operation]));
            assert_eq!(failed, Err(Error::Unprocessable(wanted.into())));
        }
    }

    #[test]
    fn what_is_no_patch_is_malformed() {
        assert!(matches!(apply(&json!({}), b"{}"), Err(Error::Malformed(_))));
        assert!(matches!(apply(&json!({}), b"[{"), Err(Error::Malformed(_))));
        assert!(matches!(apply(&json!({}), b"[1]"), Err(Error::Malformed(_))));
        let many: Vec<_> = (0..=MAX_OPERATIONS).map(|_| json!({"op": "remove", "path": "/a"})).collect();
        assert!(matches!(check(json!({}), Value::Array(many)), Err(Error::TooLarge(_))));
    }
}
