//! Walks over values by their shape: which fields a value has, what differs between two, what is left without some.

use crate::set::{Element, Set};
use crate::shape::Shape;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a container holds nothing; absent and null count as empty.
fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// What is wrong with a configuration as such: undeclared fields, lists whose elements cannot be told apart.
pub fn validate(shape: Shape<'_>, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(shape, value, "", &mut faults);
    faults
}

fn check(shape: Shape<'_>, value: &Value, path: &str, faults: &mut Vec<String>) {
    let shape = shape.settle(Some(value), None);
    match (shape, value) {
        (_, Value::Null) | (Shape::Leaf, _) => {}
        (_, Value::Object(fields)) if shape.is_object() => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match shape.lookup(name) {
                    Some((inner, _)) => check(inner, value, &path, faults),
                    None => faults.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        (_, Value::Array(items)) if shape.is_list() => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                match shape.identify(item) {
                    Err(why) => faults.push(format!("{path}: element {index}: {why}")),
                    Ok(element) => {
                        check(shape.element(), item, &format!("{path}{element}"), faults);
                        if let Some(twice) = seen.replace(element) {
                            faults.push(format!("{path}: duplicate entries for key {twice}"));
                        }
                    }
                }
            }
        }
        (shape, value) => {
            let wanted = if shape.is_object() { "map" } else { "list" };
            faults.push(format!("{path}: expected {wanted}, got {value}"));
        }
    }
}

/// The fields that a value has.
pub fn field_set(shape: Shape<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    let mut path = Vec::new();
    gather(shape, value, &mut path, &mut set);
    set
}

fn gather(shape: Shape<'_>, value: &Value, path: &mut Vec<Element>, set: &mut Set) {
    let shape = shape.settle(Some(value), None);
    match (shape, value) {
        (_, Value::Object(fields)) if shape.is_object() => {
            for (name, value) in fields {
                let (inner, declared, step) = shape.part(name);
                path.push(step);
                gather(inner, value, path, set);
                let hollow = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if hollow || !declared {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (_, Value::Array(items)) if shape.is_list() => {
            for (element, found) in elements(shape, items) {
                path.push(element);
                // Of elements that stand twice only the fact is known, not what is in them.
                if let [only] = found[..] {
                    gather(shape.element(), only, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        (shape, Value::Null) if shape.is_object() || shape.is_list() => {}
        _ => set.insert(path),
    }
}

/// The elements of a list by what tells them apart. Those that cannot be told apart are left out.
fn elements<'v>(shape: Shape<'_>, items: &'v [Value]) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut found: BTreeMap<Element, Vec<&'v Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = shape.identify(item) {
            found.entry(element).or_default().push(item);
        }
    }
    found
}

/// What differs between two values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    pub fn without(self, reset: &Set) -> Self {
        if reset.is_empty() {
            return self;
        }
        Comparison {
            removed: self.removed.recursive_difference(reset),
            modified: self.modified.recursive_difference(reset),
            added: self.added.recursive_difference(reset),
        }
    }
}

/// Compares a value with what it became. `None` for no value at all.
pub fn compare(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut comparison = Comparison::default();
    differ(shape, old, new, &mut Vec::new(), &mut comparison);
    comparison
}

fn differ(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    let shape = shape.settle(old, new);
    let typed = shape.is_object() || shape.is_list();
    if old == new && old.is_some() {
        return;
    }
    let leaf = !typed || (is_hollow(old) && is_hollow(new));
    if !leaf && shape.is_object() {
        differ_fields(shape, old, new, path, out);
    } else if !leaf {
        differ_items(shape, old, new, path, out);
    }
    match (old, new) {
        (None, _) => out.added.insert(path),
        (_, None) => out.removed.insert(path),
        (Some(old), Some(new)) if leaf && old != new => out.modified.insert(path),
        _ => {}
    }
}

fn differ_fields(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    let empty = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    let added = new.keys().filter(|name| !old.contains_key(*name));
    for name in old.keys().chain(added) {
        let (old, new) = (old.get(name), new.get(name));
        if old == new {
            continue;
        }
        let (inner, _, step) = shape.part(name);
        path.push(step);
        differ(inner, old, new, path, out);
        path.pop();
    }
}

/// The elements of a list; none where there is no list.
pub(crate) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn differ_items(
    shape: Shape<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    let (old, new) = (elements(shape, items(old)), elements(shape, items(new)));
    let inner = shape.element();
    for element in old.keys().chain(new.keys().filter(|element| !old.contains_key(*element))) {
        let none = Vec::new();
        let before = old.get(element).unwrap_or(&none);
        let after = new.get(element).unwrap_or(&none);
        path.push(element.clone());
        match (before.len(), after.len()) {
            (0 | 1, 0 | 1) => {
                differ(inner, before.first().copied(), after.first().copied(), path, out);
            }
            (0 | 1, _) => {
                if let Some(before) = before.first() {
                    differ(inner, Some(before), None, path, out);
                }
                out.added.insert(path);
            }
            (_, 0 | 1) => {
                if let Some(after) = after.first() {
                    differ(inner, None, Some(after), path, out);
                }
                out.removed.insert(path);
            }
            _ if before != after => out.modified.insert(path),
            _ => {}
        }
        path.pop();
    }
}

/// The value without the fields of a set; `None` where nothing is left.
pub fn remove(shape: Shape<'_>, value: &Value, set: &Set) -> Option<Value> {
    let shape = shape.settle(Some(value), None);
    match (shape, value) {
        (_, Value::Object(fields)) if shape.is_object() => remove_fields(shape, fields, set),
        (_, Value::Array(items)) if shape.is_list() => remove_items(shape, items, set),
        // Whoever asks for something below a leaf to be removed asks for the leaf: nothing else can be meant.
        _ if shape.is_object() || shape.is_list() => None,
        (_, Value::Object(_) | Value::Array(_)) => None,
        _ => Some(value.clone()),
    }
}

fn remove_fields(shape: Shape<'_>, fields: &Map<String, Value>, set: &Set) -> Option<Value> {
    let mut left = Map::new();
    let mut matched = false;
    for (name, value) in fields {
        let element = Element::Field(name.clone().into());
        if set.members.contains(&element) {
            continue;
        }
        let Some(below) = set.children.get(&element) else {
            left.insert(name.clone(), value.clone());
            continue;
        };
        matched = true;
        left.insert(
            name.clone(),
            remove(shape.field(name).0, value, below).unwrap_or_else(|| emptied(value)),
        );
    }
    (!left.is_empty() || matched).then_some(Value::Object(left))
}

fn remove_items(shape: Shape<'_>, items: &[Value], set: &Set) -> Option<Value> {
    let mut left = Vec::with_capacity(items.len());
    let mut matched = false;
    for item in items {
        let Ok(element) = shape.identify(item) else {
            left.push(item.clone());
            continue;
        };
        if set.members.contains(&element) {
            continue;
        }
        let Some(below) = set.children.get(&element) else {
            left.push(item.clone());
            continue;
        };
        matched = true;
        left.push(remove(shape.element(), item, below).unwrap_or_else(|| emptied(item)));
    }
    (!left.is_empty() || matched).then_some(Value::Array(left))
}

/// A container that lost all it held stays, empty.
fn emptied(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

/// The set with each declared field of an object a member as soon as something below it is one.
pub fn with_named_fields(shape: Shape<'_>, set: &Set) -> Set {
    let mut full = Set { members: set.members.clone(), children: BTreeMap::new() };
    for (element, child) in &set.children {
        if let Element::Field(name) = element
            && shape.field(name).1
        {
            full.members.insert(element.clone());
        }
        full.children.insert(element.clone(), with_named_fields(shape.step(element), child));
    }
    full
}
