//! Sets of fields, and their text form in managedFields (FieldsV1).
//!
//! A set is a tree: members are fields that belong to it, children are fields below which there are members.

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One step from a value to a part of it.
#[derive(Clone, Debug)]
pub enum Element {
    /// A field of an object, `f:` on the wire.
    Field(Cow<'static, str>),
    /// An element of a list by its keys, `k:`; the keys are in order of their names.
    Key(Vec<(String, Value)>),
    /// An element of a set by its value, `v:`.
    Value(Value),
    /// An element by its place, `i:`; nobody writes these, but they are kept.
    Index(i64),
}

impl Element {
    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }

    /// The element as a JSON string.
    fn write(&self, out: &mut String) {
        if let Element::Field(name) = self
            && name.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
        {
            // Nothing in it to escape, as in nearly all names.
            out.push_str("\"f:");
            out.push_str(name);
            out.push('"');
            return;
        }
        out.push_str(&Value::String(self.encode()).to_string());
    }

    fn encode(&self) -> String {
        match self {
            Element::Field(name) => format!("f:{name}"),
            Element::Key(keys) => {
                let keys: Map<String, Value> = keys.iter().cloned().collect();
                format!("k:{}", Value::Object(keys))
            }
            Element::Value(value) => format!("v:{value}"),
            Element::Index(index) => format!("i:{index}"),
        }
    }

    /// `None` for kinds of elements that this version does not know, which are passed over.
    fn decode(text: &str) -> Result<Option<Self>, String> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| format!("missing colon: {text}"))?;
        let json = || serde_json::from_str::<Value>(rest).map_err(|error| error.to_string());
        Ok(Some(match kind {
            "f" => Element::Field(Cow::Owned(rest.to_string())),
            "v" => Element::Value(json()?),
            "k" => match json()? {
                Value::Object(keys) => {
                    let mut keys: Vec<_> = keys.into_iter().collect();
                    keys.sort_by(|a, b| a.0.cmp(&b.0));
                    Element::Key(keys)
                }
                _ => return Err(format!("keys are no object: {text}")),
            },
            "i" => Element::Index(rest.parse().map_err(|_| format!("no index: {text}"))?),
            _ => return Ok(None),
        }))
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(keys) => {
                f.write_str("[")?;
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Element::Value(value) => write!(f, "[={value}]"),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Upstream's order of values: numbers, texts, truths, lists, objects, null.
fn compare_values(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let different = a.iter().zip(b).map(|(a, b)| compare_values(a, b)).find(|order| order.is_ne());
            different.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pair = |((a_key, a), (b_key, b)): ((&String, &Value), (&String, &Value))| {
                a_key.cmp(b_key).then_with(|| compare_values(a, b))
            };
            let different = a.iter().zip(b).map(pair).find(|order| order.is_ne());
            different.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                let pair = |((a_name, a), (b_name, b)): (&(String, Value), &(String, Value))| {
                    a_name.cmp(b_name).then_with(|| compare_values(a, b))
                };
                let different = a.iter().zip(b).map(pair).find(|order| order.is_ne());
                different.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Element::Value(a), Element::Value(b)) => compare_values(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element {}

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub members: BTreeSet<Element>,
    /// No child is empty.
    pub children: BTreeMap<Element, Set>,
}

impl Set {
    /// A set of dotted paths of plain fields.
    pub fn of_paths(paths: &[&str]) -> Self {
        let mut set = Set::default();
        for path in paths {
            let elements: Vec<_> =
                path.split('.').map(|name| Element::Field(Cow::Owned(name.into()))).collect();
            set.insert(&elements);
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// The empty path, which means everything, is not tracked.
    pub fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => match self.children.get_mut(first) {
                Some(child) => child.insert(rest),
                None => self.children.entry(first.clone()).or_default().insert(rest),
            },
        }
    }

    /// Takes in all of another set.
    pub fn absorb(&mut self, other: Set) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.members.extend(other.members);
        for (element, theirs) in other.children {
            self.children.entry(element).or_default().absorb(theirs);
        }
    }

    /// Gives up what is in another set; what lies below something there stays.
    pub fn subtract(&mut self, other: &Set) {
        if other.is_empty() {
            return;
        }
        self.members.retain(|element| !other.members.contains(element));
        for (element, theirs) in &other.children {
            if let Some(ours) = self.children.get_mut(element) {
                ours.subtract(theirs);
                if ours.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.has(rest)),
        }
    }

    pub fn union(&self, other: &Set) -> Set {
        let mut children = self.children.clone();
        for (element, theirs) in &other.children {
            let joined = children.get(element).map_or_else(|| theirs.clone(), |ours| ours.union(theirs));
            children.insert(element.clone(), joined);
        }
        Set { members: self.members.union(&other.members).cloned().collect(), children }
    }

    pub fn intersection(&self, other: &Set) -> Set {
        let common = |(element, ours): (&Element, &Set)| {
            let both = ours.intersection(other.children.get(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        };
        Set {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: self.children.iter().filter_map(common).collect(),
        }
    }

    /// Whether both have a member in common.
    pub fn intersects(&self, other: &Set) -> bool {
        let (few, many) =
            if self.members.len() < other.members.len() { (self, other) } else { (other, self) };
        few.members.iter().any(|element| many.members.contains(element))
            || self.children.iter().any(|(element, ours)| {
                other.children.get(element).is_some_and(|theirs| ours.intersects(theirs))
            })
    }

    /// What is here and not there; what lies below something there stays.
    pub fn difference(&self, other: &Set) -> Set {
        self.without(other, false)
    }

    /// What is here and neither there nor below something there.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        self.without(other, true)
    }

    fn without(&self, other: &Set, below: bool) -> Set {
        let left = |(element, ours): (&Element, &Set)| {
            if below && other.members.contains(element) {
                return None;
            }
            let rest = match other.children.get(element) {
                Some(theirs) => ours.without(theirs, below),
                None => ours.clone(),
            };
            (!rest.is_empty()).then(|| (element.clone(), rest))
        };
        Set {
            members: self.members.difference(&other.members).cloned().collect(),
            children: self.children.iter().filter_map(left).collect(),
        }
    }

    /// Every member as text, in upstream's order: members before what lies below.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.gather("", &mut paths);
        paths
    }

    fn gather(&self, prefix: &str, paths: &mut Vec<String>) {
        paths.extend(self.members.iter().map(|element| format!("{prefix}{element}")));
        for (element, child) in &self.children {
            child.gather(&format!("{prefix}{element}"), paths);
        }
    }

    /// The text form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = String::from("{");
        self.write(false, &mut out);
        out.push('}');
        out.into_bytes()
    }

    fn write(&self, member_itself: bool, out: &mut String) {
        let mut first = true;
        let mut comma = |out: &mut String| {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
        };
        if member_itself && !self.is_empty() {
            comma(out);
            out.push_str("\".\":{}");
        }
        let keys: BTreeSet<&Element> = self.members.iter().chain(self.children.keys()).collect();
        for element in keys {
            comma(out);
            element.write(out);
            out.push_str(":{");
            if let Some(child) = self.children.get(element) {
                child.write(self.members.contains(element), out);
            }
            out.push('}');
        }
    }

    /// Reads the text form.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        Ok(Self::read(&value)?.0)
    }

    /// The set below a value, and whether the value itself is a member.
    fn read(value: &Value) -> Result<(Self, bool), String> {
        let Value::Object(fields) = value else { return Err("a set of fields is no object".into()) };
        let mut set = Set::default();
        let mut itself = false;
        for (key, below) in fields {
            if key == "." {
                itself = true;
                continue;
            }
            let Some(element) = Element::decode(key)? else { continue };
            let (child, member) = Self::read(below)?;
            if member {
                set.members.insert(element.clone());
            }
            if !child.is_empty() {
                set.children.insert(element, child);
            }
        }
        let itself = itself || set.is_empty();
        Ok((set, itself))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}},"f:finalizers":{"v:\"a/b\"":{}},"f:replicas":{}}}"#;

    #[test]
    fn the_text_form_goes_there_and_back() {
        let set = Set::decode(TEXT.as_bytes()).expect("a set");
        assert_eq!(String::from_utf8(set.encode()).expect("text"), TEXT);
        assert_eq!(Set::default().encode(), b"{}");
        assert!(Set::decode(b"{\"q:x\":{}}").expect("passed over").is_empty());
        assert!(Set::decode(b"{\"fx\":{}}").is_err());
        assert!(Set::decode(b"[]").is_err());
    }

    #[test]
    fn paths_are_upstreams() {
        let set = Set::decode(TEXT.as_bytes()).expect("a set");
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.replicas",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].image",
                ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
                ".spec.finalizers[=\"a/b\"]",
            ]
        );
    }

    #[test]
    fn sets_are_sets() {
        let a = Set::of_paths(&["spec", "spec.a", "spec.b.c", "status.x"]);
        let b = Set::of_paths(&["spec", "spec.b.c"]);
        assert_eq!(a.difference(&b), Set::of_paths(&["spec.a", "status.x"]));
        assert_eq!(a.recursive_difference(&b), Set::of_paths(&["status.x"]));
        assert_eq!(a.intersection(&b), b);
        assert!(a.intersects(&b) && b.intersects(&a));
        assert!(!a.intersects(&Set::of_paths(&["spec.b", "status"])));
        assert_eq!(a.difference(&b).union(&b), a);
        let mut taken = a.difference(&b);
        taken.absorb(b.clone());
        assert_eq!(taken, a);
        taken.subtract(&b);
        assert_eq!(taken, a.difference(&b));
        assert_eq!(a.difference(&a), Set::default());
    }
}
