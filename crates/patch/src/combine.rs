//! Merges an applied configuration into an object, by shape.

use crate::set::Element;
use crate::shape::Shape;
use crate::walk::items;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// `live` with everything that `config` states; `None` where neither holds anything.
///
/// Objects merge by field, sets and keyed lists by element, everything else is the configuration's. The order of a
/// merged list is that of the configuration, with what only `live` has where it stood between its neighbours.
pub fn merge(shape: Shape<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let hollow = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    let shape = shape.settle(live, config);
    let leaf = !(shape.is_object() || shape.is_list()) || (hollow(live) && hollow(config));
    if leaf {
        return config.or(live).cloned();
    }
    if shape.is_object() { merge_fields(shape, live, config) } else { merge_items(shape, live, config) }
}

fn merge_fields(shape: Shape<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let empty = Map::new();
    let live = live.and_then(Value::as_object).unwrap_or(&empty);
    let config = config.and_then(Value::as_object).unwrap_or(&empty);
    let mut merged = Map::new();
    for name in live.keys().chain(config.keys().filter(|name| !live.contains_key(*name))) {
        if let Some(value) = merge(shape.field(name).0, live.get(name), config.get(name)) {
            merged.insert(name.clone(), value);
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

fn identified<'v>(shape: Shape<'_>, items: &'v [Value]) -> Vec<(Element, &'v Value)> {
    items.iter().filter_map(|item| Some((shape.identify(item).ok()?, item))).collect()
}

fn merge_items(shape: Shape<'_>, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let ours = identified(shape, items(live));
    let theirs = identified(shape, items(config));
    let wanted: BTreeMap<&Element, &Value> =
        theirs.iter().map(|(element, value)| (element, *value)).collect();
    // An element that stands several times in the live list is not merged with: the configuration's stands alone.
    let mut known: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, value) in &ours {
        known.entry(element).and_modify(|value| *value = None).or_insert(Some(*value));
    }
    let mut shared: VecDeque<&Element> =
        theirs.iter().map(|(element, _)| element).filter(|element| known.contains_key(element)).collect();
    let mut next_shared = shared.pop_front();
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let mut merged = Vec::with_capacity(ours.len().max(theirs.len()));
    let inner = shape.element();
    let (mut l, mut r) = (0, 0);
    while l < ours.len() || r < theirs.len() {
        if let (Some((our, _)), Some((their, theirs_value))) = (ours.get(l), theirs.get(r)) {
            if our == their {
                done.insert(our);
                merged.extend(merge(inner, known[our], Some(theirs_value)));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.pop_front();
                continue;
            }
            // Shared, but not the one whose turn it is in the configuration's order.
            if wanted.contains_key(our) && next_shared.is_some_and(|next| next != our) {
                l += 1;
                continue;
            }
        }
        if let Some((our, value)) = ours.get(l) {
            if !wanted.contains_key(our) {
                merged.extend(merge(inner, Some(value), None));
                l += 1;
                continue;
            }
            if done.contains(our) {
                l += 1;
            }
        }
        if let Some((their, value)) = theirs.get(r) {
            done.insert(their);
            merged.extend(merge(inner, known.get(their).copied().flatten(), Some(value)));
            r += 1;
            if next_shared == Some(their) {
                next_shared = shared.pop_front();
            }
        }
    }
    (!merged.is_empty()).then_some(Value::Array(merged))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape;
    use meta::List;
    use serde_json::json;

    fn pod() -> Shape<'static> {
        Shape::Struct(&api::core::v1::POD)
    }

    fn names(live: &[&str], config: &[&str]) -> Vec<String> {
        let pods = |names: &[&str]| {
            let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"spec": {"containers": containers}})
        };
        let merged = merge(pod(), Some(&pods(live)), Some(&pods(config))).expect("something");
        let names = merged["spec"]["containers"].as_array().expect("a list");
        names.iter().map(|item| item["name"].as_str().expect("a name").to_string()).collect()
    }

    #[test]
    fn lists_keep_the_order_of_the_configuration() {
        assert_eq!(names(&["a", "b", "c"], &["c", "a"]), ["b", "c", "a"].map(String::from));
        assert_eq!(names(&["a", "b"], &["x", "b"]), ["a", "x", "b"].map(String::from));
        assert_eq!(names(&[], &["x"]), ["x"].map(String::from));
        assert_eq!(names(&["a"], &[]), ["a"].map(String::from));
        assert_eq!(names(&["a", "b", "c"], &["b"]), ["a", "b", "c"].map(String::from));
    }

    #[test]
    fn elements_merge_by_their_keys_with_defaults() {
        let live = json!({"spec": {"containers": [{"name": "a", "image": "x", "ports": [
            {"containerPort": 80, "protocol": "TCP", "name": "web"}
        ]}]}});
        let config =
            json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 1}]}]}});
        let merged = merge(pod(), Some(&live), Some(&config)).expect("something");
        let port = json!({"containerPort": 80, "protocol": "TCP", "name": "web", "hostPort": 1});
        let container = json!({"name": "a", "image": "x", "ports": [port]});
        assert_eq!(merged["spec"]["containers"], json!([container]));
    }

    #[test]
    fn the_facts_tell_lists_apart() {
        let finalizers = shape::find_field(&api::meta::v1::OBJECT_META, "finalizers").expect("a field");
        assert!(matches!(finalizers.list, List::Set));
        assert!(matches!(shape::of_field(finalizers), Shape::Set));
        let selector = pod().field("spec").0.field("nodeSelector").0;
        assert!(matches!(selector, Shape::Leaf), "atomic by the field's own flag");
        assert!(pod().field("spec").0.field("volumes").0.is_list());
        let volume = pod().field("spec").0.field("volumes").0.element();
        assert!(matches!(volume.field("emptyDir"), (Shape::Struct(_), true)), "inlined fields are found");
    }
}
