//! JSON patch, RFC 6902, within upstream's limits.

use crate::Error;
use serde_json::Value;

/// Most operations that one patch may have, as upstream limits them.
pub const MAX_OPERATIONS: usize = 10_000;

/// The document that `patch`, a JSON text, makes of `document`.
pub fn apply(document: &Value, patch: &[u8]) -> Result<Value, Error> {
    let malformed =
        |error: &dyn std::fmt::Display| Error::Malformed(format!("error decoding patch: {error}"));
    let operations: Value = serde_json::from_slice(patch).map_err(|error| malformed(&error))?;
    let count = match &operations {
        Value::Array(operations) => operations.len(),
        _ => return Err(malformed(&"json: cannot unmarshal object into Go value of type jsonpatch.Patch")),
    };
    if count > MAX_OPERATIONS {
        return Err(Error::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(operations).map_err(|error| malformed(&error))?;
    let mut patched = document.clone();
    json_patch::patch(&mut patched, &operations).map_err(|error| {
        let path = error.path.to_string();
        let text = match error.kind {
            json_patch::PatchErrorKind::TestFailed => {
                format!("testing value {path} failed: test failed")
            }
            _ => format!(
                "{} operation does not apply: doc is missing path: {path}: missing value",
                verb(patch, error.operation)
            ),
        };
        Error::Unprocessable(text)
    })?;
    Ok(patched)
}

/// The name of the failed operation.
fn verb(patch: &[u8], at: usize) -> String {
    let operations: Value = serde_json::from_slice(patch).unwrap_or_default();
    operations[at]["op"].as_str().unwrap_or_default().to_string()
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
            {"op": "copy", "from": "/a", "path": "/b"},
            {"op": "remove", "path": "/list/0"},
            {"op": "move", "from": "/b", "path": "/c~1d"},
        ]);
        assert_eq!(
            check(json!({"a": 1, "list": ["x"]}), patch),
            Ok(json!({"a": 2, "list": ["z"], "c/d": 2}))
        );
    }

    #[test]
    fn what_does_not_fit_is_unprocessable() {
        let failed = check(json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 2}]));
        assert_eq!(failed, Err(Error::Unprocessable("testing value /a failed: test failed".into())));
        let missing = check(json!({}), json!([{"op": "remove", "path": "/a"}]));
        assert!(
            matches!(missing, Err(Error::Unprocessable(text)) if text.starts_with("remove operation does not apply"))
        );
    }

    #[test]
    fn what_is_no_patch_is_malformed() {
        assert!(matches!(apply(&json!({}), b"{}"), Err(Error::Malformed(_))));
        assert!(matches!(apply(&json!({}), b"[{"), Err(Error::Malformed(_))));
        assert!(matches!(check(json!({}), json!([{"op": "eat", "path": "/a"}])), Err(Error::Malformed(_))));
        let many: Vec<_> = (0..=MAX_OPERATIONS).map(|_| json!({"op": "remove", "path": "/a"})).collect();
        assert!(matches!(check(json!({}), Value::Array(many)), Err(Error::TooLarge(_))));
    }
}
