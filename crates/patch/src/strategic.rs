//! Strategic merge patch: a merge patch that knows by which key the elements of a list are told apart, with directives.
//!
//! * `$patch: replace | delete | merge` in an object, or in an element of a list;
//! * `$retainKeys: [..]`: fields that are not named go;
//! * `$deleteFromPrimitiveList/<list>: [..]`: values that go;
//! * `$setElementOrder/<list>: [..]`: the order of the merged list, elements of the server's own keep their places.

use crate::Error;
use crate::shape::find_field;
use meta::{Descriptor, Type};
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// The document that `patch` makes of `document`, whose type `descriptor` describes.
pub fn apply(document: &Value, patch: &Value, descriptor: &'static Descriptor) -> Result<Value, Error> {
    let Value::Object(patch) = patch else {
        return Err(Error::Malformed("invalid JSON document".into()));
    };
    let document = document.as_object().cloned().unwrap_or_default();
    merge_map(document, patch.clone(), Some(descriptor)).map(Value::Object)
}

/// What the facts say of a field.
#[derive(Clone, Copy, Default)]
struct Facts {
    /// The type of the object, or of the elements of the list.
    inner: Option<&'static Descriptor>,
    merge_key: &'static str,
    replace: bool,
    merge_list: bool,
}

fn facts(descriptor: Option<&'static Descriptor>, name: &str) -> Facts {
    let Some(field) = descriptor.and_then(|descriptor| find_field(descriptor, name)) else {
        return Facts::default();
    };
    let has = |strategy: &str| field.patch_strategy.split(',').any(|part| part == strategy);
    let mut ty = &field.ty;
    if let Type::List(element) | Type::Map(element) = ty {
        ty = element;
    }
    let inner = match ty {
        Type::Message(descriptor) if !matches!(field.ty, Type::Map(_)) => Some(*descriptor),
        _ => None,
    };
    Facts { inner, merge_key: field.merge_key, replace: has("replace"), merge_list: has("merge") }
}

fn malformed(text: &str) -> Error {
    Error::Malformed(text.into())
}

fn bad_directive(value: &Value, patch: &Map<String, Value>) -> Error {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    Error::Malformed(format!("unknown patch type '{shown}' found: {}", Value::Object(patch.clone())))
}

fn no_merge_key(item: &Value, key: &str) -> Error {
    Error::Unprocessable(format!("map: {item} does not contain declared merge key: {key}"))
}

fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    descriptor: Option<&'static Descriptor>,
) -> Result<Map<String, Value>, Error> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(plain_map(patch)),
            Some("delete") => Ok(Map::new()),
            Some("merge") => merge_map(original, patch, descriptor),
            _ => Err(bad_directive(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(&mut original, &mut patch, descriptor)?;
    for (name, value) in patch {
        let deletes = name.strip_prefix(DELETE_FROM);
        let name = deletes.unwrap_or(&name).to_string();
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let Some(old) = original.get_mut(&name) else {
            if deletes.is_none() {
                original.insert(name, plain(value));
            }
            continue;
        };
        let facts = facts(descriptor, &name);
        match (old.take(), value) {
            (Value::Object(before), Value::Object(patch)) => {
                *old = Value::Object(if facts.replace {
                    plain_map(patch)
                } else {
                    merge_map(before, patch, facts.inner)?
                });
            }
            (Value::Array(before), Value::Array(patch)) => {
                *old = Value::Array(merge_list(before, patch, facts, deletes.is_some())?);
            }
            (before, _) if deletes.is_some() => *old = before,
            (_, value) => *old = plain(value),
        }
    }
    Ok(original)
}

fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Error> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || malformed("invalid patch format of retainKeys");
    let kept: Option<Vec<&str>> = kept.as_array().ok_or_else(bad)?.iter().map(Value::as_str).collect();
    let kept = kept.ok_or_else(bad)?;
    let named = |name: &String| name.starts_with('$') || kept.contains(&name.as_str());
    if !patch.iter().all(|(name, value)| value.is_null() || named(name)) {
        return Err(bad());
    }
    original.retain(|name, _| kept.contains(&name.as_str()));
    Ok(())
}

/// Carries out the `$setElementOrder` directives, and the merges of the lists they are about.
fn order_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    descriptor: Option<&'static Descriptor>,
) -> Result<(), Error> {
    let directives: Vec<String> = patch.keys().filter(|name| name.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let bad = || malformed("invalid patch format of setElementOrder list");
        let Some(Value::Array(order)) = patch.remove(&directive) else { return Err(bad()) };
        let name = directive[SET_ORDER.len()..].to_string();
        let facts = facts(descriptor, &name);
        let before = match original.get(&name) {
            Some(Value::Array(before)) => Some(before.clone()),
            Some(Value::Null) | None => None,
            Some(_) => return Err(bad()),
        };
        let changes = match patch.get(&name) {
            Some(Value::Array(changes)) => Some(changes.clone()),
            Some(Value::Null) => continue,
            Some(_) => return Err(bad()),
            None => None,
        };
        if let Some(changes) = &changes {
            check_order(changes, &order, facts.merge_key)?;
        }
        let merged = match (before.clone(), changes) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(changes)) => plain_list(changes),
            (Some(before), Some(changes)) => merge_list(before, changes, facts, false)?,
        };
        patch.remove(&name);
        let deleted = patch.remove(&format!("{DELETE_FROM}{name}"));
        let mut merged = merged;
        if let Some(Value::Array(deleted)) = deleted {
            merged.retain(|item| !deleted.contains(item));
        }
        let before = before.unwrap_or_default();
        original.insert(name, Value::Array(arrange(merged, &order, &before, facts.merge_key)));
    }
    Ok(())
}

/// Whether two elements of a list are the same one.
fn same(a: &Value, b: &Value, merge_key: &str) -> bool {
    if merge_key.is_empty() {
        return a == b;
    }
    match (a.get(merge_key), b.get(merge_key)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn position(list: &[Value], item: &Value, merge_key: &str) -> Option<usize> {
    list.iter().position(|other| same(other, item, merge_key))
}

/// Every element of a patched list must stand in its order list, in that order.
fn check_order(changes: &[Value], order: &[Value], merge_key: &str) -> Result<(), Error> {
    let is_deletion = |item: &&Value| item.get(DIRECTIVE).is_none();
    let mut at = 0;
    for item in changes.iter().filter(is_deletion) {
        let Some(found) = position(&order[at..], item, merge_key) else {
            return Err(Error::Malformed(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                Value::Array(changes.to_vec()),
                Value::Array(order.to_vec())
            )));
        };
        at += found;
    }
    Ok(())
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    facts: Facts,
    deletes: bool,
) -> Result<Vec<Value>, Error> {
    if deletes {
        original.retain(|item| !patch.contains(item));
        return Ok(original);
    }
    if !facts.merge_list {
        return Ok(plain_list(patch));
    }
    let objects = original.first().or(patch.first()).is_some_and(Value::is_object);
    if original.iter().chain(&patch).any(|item| item.is_object() != objects) {
        let kinds = "list element types are not identical";
        return Err(Error::Unprocessable(kinds.into()));
    }
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(Error::Unprocessable("lists of lists are not supported".into()));
    }
    let before = original.clone();
    if !objects {
        let mut merged: Vec<Value> = Vec::new();
        for item in original.into_iter().chain(patch.iter().cloned()) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return Ok(arrange(merged, &patch, &before, ""));
    }
    let key = facts.merge_key;
    if key.is_empty() {
        return Err(Error::Unprocessable("cannot merge lists without merge key".into()));
    }
    let (mut merged, patch) = special_elements(original, patch, key)?;
    for item in &patch {
        if item.get(key).is_none() {
            return Err(no_merge_key(item, key));
        }
        match (position(&merged, item, key), item) {
            (Some(at), Value::Object(change)) => {
                let old = merged[at].as_object().cloned().unwrap_or_default();
                merged[at] = Value::Object(merge_map(old, change.clone(), facts.inner)?);
            }
            _ => merged.push(plain(item.clone())),
        }
    }
    Ok(arrange(merged, &patch, &before, key))
}

/// Carries out the elements that are directives: deletions of one, replacement of the whole list.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let mut ordinary = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE).cloned() else {
            ordinary.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") if item.get(key).is_some() => original.retain(|other| !same(other, &item, key)),
            Some("delete") => return Err(no_merge_key(&item, key)),
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(malformed("merging lists cannot yet be specified in the patch"));
            }
            _ => return Err(bad_directive(&directive, item.as_object().unwrap_or(&Map::new()))),
        }
    }
    Ok(if replace { (plain_list(ordinary), Vec::new()) } else { (original, ordinary) })
}

/// Orders a merged list: elements of the patch as it orders them, the server's own where they stood between them.
fn arrange(merged: Vec<Value>, order: &[Value], before: &[Value], merge_key: &str) -> Vec<Value> {
    let (mut theirs, mut ours): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| position(order, item, merge_key).is_some());
    let last = usize::MAX;
    theirs.sort_by_key(|item| position(order, item, merge_key).unwrap_or(last));
    ours.sort_by_key(|item| position(before, item, merge_key).unwrap_or(last));
    let mut arranged = Vec::with_capacity(ours.len() + theirs.len());
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    loop {
        let first_is_ours = match (ours.peek(), theirs.peek()) {
            (None, None) => return arranged,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(our), Some(their)) => {
                match (position(before, our, merge_key), position(before, their, merge_key)) {
                    (Some(our), Some(their)) => our < their,
                    _ => false,
                }
            }
        };
        arranged.extend(if first_is_ours { ours.next() } else { theirs.next() });
    }
}

/// A value of a patch as it is stored where nothing was: without directives and nulls.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(plain_map(fields)),
        Value::Array(items) => Value::Array(plain_list(items)),
        other => other,
    }
}

fn plain_map(fields: Map<String, Value>) -> Map<String, Value> {
    if fields.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
        return Map::new();
    }
    let kept = |(name, value): &(String, Value)| !value.is_null() && !is_directive(name);
    fields.into_iter().filter(kept).map(|(name, value)| (name, plain(value))).collect()
}

fn is_directive(name: &str) -> bool {
    name == DIRECTIVE || name == RETAIN_KEYS || name.starts_with(DELETE_FROM) || name.starts_with(SET_ORDER)
}

fn plain_list(items: Vec<Value>) -> Vec<Value> {
    let kept = |item: &Value| {
        let directive = item.get(DIRECTIVE).and_then(Value::as_str);
        directive.is_none() || directive == Some("merge")
    };
    items.into_iter().filter(kept).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(patch: Value) -> Result<Value, Error> {
        let document = json!({
            "metadata": {"name": "web", "labels": {"app": "web", "tier": "x"}, "finalizers": ["a", "b"]},
            "spec": {
                "replicas": 3,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
                "template": {"spec": {
                    "containers": [
                        {"name": "web", "image": "web:1", "args": ["-v"], "env": [{"name": "A", "value": "1"}]},
                        {"name": "log", "image": "log:1"},
                    ],
                    "tolerations": [{"key": "a"}],
                    "volumes": [{"name": "v", "emptyDir": {}}],
                }},
            },
        });
        apply(&document, &patch, &api::apps::v1::DEPLOYMENT)
    }

    fn containers(patch: Value) -> Value {
        let patched = deployment(json!({"spec": {"template": {"spec": patch}}})).expect("a patch");
        patched["spec"]["template"]["spec"]["containers"].clone()
    }

    #[test]
    fn elements_merge_by_key() {
        let merged = containers(json!({"containers": [
            {"name": "web", "image": "web:2", "env": [{"name": "B", "value": "2"}]},
            {"name": "new", "image": "new:1", "stdin": null},
        ]}));
        let env = json!([{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]);
        let web = json!({"name": "web", "image": "web:2", "args": ["-v"], "env": env});
        let new = json!({"name": "new", "image": "new:1"});
        assert_eq!(merged, json!([web, new, {"name": "log", "image": "log:1"}]));
    }

    #[test]
    fn directives_delete_and_replace_elements() {
        let merged = containers(json!({"containers": [{"name": "web", "$patch": "delete"}]}));
        assert_eq!(merged, json!([{"name": "log", "image": "log:1"}]));
        let merged = containers(json!({"containers": [{"$patch": "replace"}, {"name": "x"}]}));
        assert_eq!(merged, json!([{"name": "x"}]));
    }

    #[test]
    fn an_order_list_orders() {
        let patch = json!({
            "$setElementOrder/containers": [{"name": "log"}, {"name": "web"}],
            "containers": [{"name": "web", "image": "web:3"}],
        });
        let merged = containers(patch);
        assert_eq!(merged[0]["name"], "log");
        assert_eq!(merged[1]["image"], "web:3");
        let patch = json!({"spec": {"template": {"spec": {
            "$setElementOrder/containers": [{"name": "log"}],
            "containers": [{"name": "web", "image": "web:3"}],
        }}}});
        assert!(matches!(deployment(patch), Err(Error::Malformed(_))));
    }

    #[test]
    fn maps_merge_and_nulls_remove() {
        let patched =
            deployment(json!({"metadata": {"labels": {"tier": null, "new": "y"}}})).expect("a patch");
        assert_eq!(patched["metadata"]["labels"], json!({"app": "web", "new": "y"}));
        let patched = deployment(json!({"metadata": {"labels": {"$patch": "replace", "z": "z"}}}));
        assert_eq!(patched.expect("a patch")["metadata"]["labels"], json!({"z": "z"}));
        let patched = deployment(json!({"metadata": {"labels": {"$patch": "delete"}}})).expect("a patch");
        assert_eq!(patched["metadata"]["labels"], json!({}));
        let refused = deployment(json!({"metadata": {"labels": {"$patch": "eat"}}}));
        assert!(matches!(refused, Err(Error::Malformed(_))));
    }

    #[test]
    fn retained_keys_drop_the_rest() {
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        let patched = deployment(patch).expect("a patch");
        assert_eq!(patched["spec"]["strategy"], json!({"type": "Recreate"}));
        let patch = json!({"spec": {"template": {"spec": {"volumes": [
            {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}
        ]}}}});
        let patched = deployment(patch).expect("a patch");
        let volumes = &patched["spec"]["template"]["spec"]["volumes"];
        assert_eq!(*volumes, json!([{"name": "v", "hostPath": {"path": "/x"}}]));
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
        assert!(matches!(deployment(patch), Err(Error::Malformed(_))));
    }

    #[test]
    fn lists_of_scalars() {
        let finalizers = |patch: Value| {
            deployment(json!({"metadata": patch})).expect("a patch")["metadata"]["finalizers"].clone()
        };
        assert_eq!(finalizers(json!({"finalizers": ["c", "a"]})), json!(["c", "a", "b"]));
        assert_eq!(finalizers(json!({"$deleteFromPrimitiveList/finalizers": ["a"]})), json!(["b"]));
        let both = json!({
            "$setElementOrder/finalizers": ["c", "b"],
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "finalizers": ["c"],
        });
        assert_eq!(finalizers(both), json!(["c", "b"]));
        // No merge strategy is declared: the patch's list is the list.
        let patched = deployment(json!({"spec": {"template": {"spec": {"tolerations": [{"key": "b"}]}}}}));
        let tolerations = &patched.expect("a patch")["spec"]["template"]["spec"]["tolerations"];
        assert_eq!(*tolerations, json!([{"key": "b"}]));
    }
}
