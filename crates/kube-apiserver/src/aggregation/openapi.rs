//! OpenAPI of all servers as one: v3 by reference to the server that has the document, v2 merged into one.

use super::Aggregator;
use crate::openapi::Documents;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The merged v2 document, and of which state it is.
#[derive(Default)]
pub struct Cache {
    of: (u64, String),
    documents: Option<Arc<Documents>>,
}

impl Aggregator {
    /// Adds the documents of remote servers to the v3 index.
    pub fn add_openapi_paths(&self, index: &mut Value) {
        for remote in self.remotes.load().values() {
            for (path, url) in &remote.documents.load().openapi_v3 {
                index["paths"][path] = json!({ "serverRelativeURL": url });
            }
        }
    }

    /// The server whose v3 document a path is.
    pub fn openapi_owner(&self, path: &str) -> Option<Arc<super::Remote>> {
        let remotes = self.remotes.load();
        let owner = remotes.values().find(|remote| remote.documents.load().openapi_v3.contains_key(path));
        owner.cloned()
    }

    /// The v2 document of all servers; `local` makes that of this one.
    pub fn merged_v2(&self, etag: &str, local: impl FnOnce() -> Map<String, Value>) -> Arc<Documents> {
        let of = (self.generation.load(Ordering::Acquire), etag.to_string());
        let mut cache = self.openapi.lock();
        if let Some(known) = cache.documents.as_ref().filter(|_| cache.of == of) {
            return Arc::clone(known);
        }
        let mut document = local();
        for remote in self.remotes.load().values() {
            let Some(text) = remote.documents.load().openapi_v2.clone() else { continue };
            let Ok(Value::Object(other)) = serde_json::from_slice(&text) else { continue };
            merge(&mut document, other, &remote.root());
        }
        let documents = Arc::new(Documents::new(document));
        *cache = Cache { of, documents: Some(Arc::clone(&documents)) };
        documents
    }
}

/// Puts the paths below `root` and all definitions of `other` into the document. A definition of a name that is taken
/// by another content gets a name of its own, as upstream does.
fn merge(document: &mut Map<String, Value>, mut other: Map<String, Value>, root: &str) {
    let Some(Value::Object(theirs)) = other.remove("definitions") else { return };
    let Some(Value::Object(ours)) = document.get_mut("definitions") else { return };
    let mut renamed: Vec<(String, String)> = Vec::new();
    for (name, definition) in &theirs {
        if ours.get(name).is_some_and(|known| known != definition) {
            let mut number = 2;
            while ours.contains_key(&format!("{name}_v{number}")) {
                number += 1;
            }
            renamed.push((name.clone(), format!("{name}_v{number}")));
        }
    }
    for (name, mut definition) in theirs {
        rename(&mut definition, &renamed);
        let name = renamed.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new.clone());
        ours.entry(name).or_insert(definition);
    }
    let Some(Value::Object(paths)) = other.remove("paths") else { return };
    let Some(Value::Object(ours)) = document.get_mut("paths") else { return };
    for (path, mut item) in paths {
        let below = path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if below && !ours.contains_key(&path) {
            rename(&mut item, &renamed);
            ours.insert(path, item);
        }
    }
}

fn rename(value: &mut Value, renamed: &[(String, String)]) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object.iter_mut() {
                if key == "$ref"
                    && let Some(name) = inner.as_str().and_then(|text| text.strip_prefix("#/definitions/"))
                    && let Some((_, new)) = renamed.iter().find(|(old, _)| old == name)
                {
                    *inner = json!(format!("#/definitions/{new}"));
                } else {
                    rename(inner, renamed);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_of_one_name_are_kept_apart() {
        let Value::Object(mut ours) =
            json!({"definitions": {"A": {"type": "string"}}, "paths": {"/apis/": {}}})
        else {
            return;
        };
        let Value::Object(theirs) = json!({
            "definitions": {"A": {"type": "object"}, "B": {"$ref": "#/definitions/A"}},
            "paths": {"/apis/x/v1/": {"get": {"$ref": "#/definitions/A"}}, "/version": {}},
        }) else {
            return;
        };
        merge(&mut ours, theirs, "/apis/x/v1");
        assert_eq!(
            Value::Object(ours),
            json!({
                "definitions": {"A": {"type": "string"}, "A_v2": {"type": "object"}, "B": {"$ref": "#/definitions/A_v2"}},
                "paths": {"/apis/": {}, "/apis/x/v1/": {"get": {"$ref": "#/definitions/A_v2"}}},
            })
        );
    }
}
