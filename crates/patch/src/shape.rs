//! How a value is owned and merged: the shapes that server-side apply tells apart, out of the Descriptor's facts.

use crate::set::Element;
use meta::{Descriptor, Field, Flags, List, Type};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;

/// The shape of a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// Owned as a whole: scalars, atomic lists and objects, anything without a declared type.
    Leaf,
    /// An object of declared fields.
    Struct(&'static Descriptor),
    /// An object of any keys.
    Map(&'static Type),
    /// A list of values each of which may be there once.
    Set,
    /// A list of objects told apart by these of their fields.
    Keyed(&'static Type, &'static [&'static str]),
    /// What a schema made at run time says: an object, a set or a keyed list, never a leaf.
    Node(&'a dyn Node),
    /// Nothing is declared: objects are owned field by field, everything else as a whole.
    Deduced,
    /// An object of which nothing is declared: what `Deduced` is once its value is known to be one.
    Open,
}

/// What a node of a schema made at run time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    Object,
    Set,
    /// A list of objects told apart by these of their fields.
    Keyed(&'a [String]),
}

/// A node of a schema made at run time, other than a leaf.
pub trait Node: Sync {
    fn form(&self) -> Form<'_>;
    /// The shape of a field of an object, and whether it is declared by name; `None` where there can be no such field.
    fn field(&self, name: &str) -> Option<(Shape<'_>, bool)>;
    /// The shape of a list's elements.
    fn element(&self) -> Shape<'_>;
    /// The default that is declared for a field of a list's elements.
    fn key_default(&self, key: &str) -> Option<&Value>;
}

impl fmt::Debug for dyn Node + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.form())
    }
}

/// Finds a field by its JSON name, inlined ones too.
pub fn find_field(descriptor: &'static Descriptor, name: &str) -> Option<&'static Field> {
    descriptor.fields.iter().find_map(|field| match field.ty {
        Type::Message(inner) if field.flags.has(Flags::INLINE) => find_field(inner, name),
        _ => (field.name == name).then_some(field),
    })
}

pub fn of_field(field: &'static Field) -> Shape<'static> {
    if field.flags.has(Flags::ATOMIC) {
        return Shape::Leaf;
    }
    match (&field.ty, field.list) {
        (Type::List(_), List::None | List::Atomic) => Shape::Leaf,
        (Type::List(_), List::Set) => Shape::Set,
        (Type::List(element), List::Map(keys)) => Shape::Keyed(element, keys),
        (ty, _) => of_type(ty),
    }
}

pub fn of_type(ty: &'static Type) -> Shape<'static> {
    match ty {
        Type::Message(descriptor) if !descriptor.atomic => Shape::Struct(descriptor),
        Type::Map(element) => Shape::Map(element),
        _ => Shape::Leaf,
    }
}

impl<'a> Shape<'a> {
    /// The shape for these values: what is deduced is an object where all that is there are objects.
    pub fn settle(self, a: Option<&Value>, b: Option<&Value>) -> Shape<'a> {
        if !matches!(self, Shape::Deduced) {
            return self;
        }
        let mut there = [a, b].into_iter().flatten().filter(|value| !value.is_null()).peekable();
        if there.peek().is_some() && there.all(Value::is_object) { Shape::Open } else { Shape::Leaf }
    }

    /// The shape of a field of an object of this shape, and whether the field is declared by name; `None` where there
    /// can be no such field.
    pub fn lookup(self, name: &str) -> Option<(Shape<'a>, bool)> {
        match self {
            Shape::Struct(descriptor) => find_field(descriptor, name).map(|field| (of_field(field), true)),
            Shape::Map(element) => Some((of_type(element), false)),
            Shape::Node(node) => node.field(name),
            Shape::Deduced | Shape::Open => Some((Shape::Deduced, false)),
            Shape::Leaf | Shape::Set | Shape::Keyed(..) => None,
        }
    }

    /// The same, taking what cannot be for a leaf.
    pub fn field(self, name: &str) -> (Shape<'a>, bool) {
        self.lookup(name).unwrap_or((Shape::Leaf, false))
    }

    /// The shape of a field, whether it is declared, and the step that leads to it; a declared name is not copied.
    pub fn part(self, name: &str) -> (Shape<'a>, bool, Element) {
        let (shape, declared) = self.field(name);
        let known = match self {
            Shape::Struct(descriptor) if declared => find_field(descriptor, name),
            _ => None,
        };
        let step = known.map_or_else(|| Cow::Owned(name.into()), |field| Cow::Borrowed(field.name));
        (shape, declared, Element::Field(step))
    }

    /// The shape of what a step from here leads to.
    pub fn step(self, element: &Element) -> Shape<'a> {
        match element {
            Element::Field(name) => self.field(name).0,
            Element::Key(_) => self.element(),
            _ => Shape::Leaf,
        }
    }

    /// The shape of an element of a list of this shape.
    pub fn element(self) -> Shape<'a> {
        match self {
            Shape::Keyed(ty, _) => of_type(ty),
            Shape::Node(node) if matches!(node.form(), Form::Keyed(_)) => node.element(),
            _ => Shape::Leaf,
        }
    }

    pub fn is_object(self) -> bool {
        match self {
            Shape::Struct(_) | Shape::Map(_) | Shape::Open => true,
            Shape::Node(node) => node.form() == Form::Object,
            _ => false,
        }
    }

    pub fn is_list(self) -> bool {
        match self {
            Shape::Set | Shape::Keyed(..) => true,
            Shape::Node(node) => node.form() != Form::Object,
            _ => false,
        }
    }

    /// How an element of a list is told from the others. Keys that are left out have their declared defaults.
    pub fn identify(self, item: &Value) -> Result<Element, String> {
        let set = || match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            _ => Ok(Element::Value(item.clone())),
        };
        match self {
            Shape::Set => set(),
            Shape::Keyed(ty, keys) => keyed(keys.iter().copied(), |key| default_of(ty, key), item),
            Shape::Node(node) => match node.form() {
                Form::Set => set(),
                Form::Keyed(keys) => {
                    keyed(keys.iter().map(String::as_str), |key| node.key_default(key).cloned(), item)
                }
                Form::Object => Err("invalid indexing of non-associative list".into()),
            },
            _ => Err("invalid indexing of non-associative list".into()),
        }
    }
}

fn keyed<'k>(
    keys: impl Iterator<Item = &'k str> + Clone,
    default_of: impl Fn(&str) -> Option<Value>,
    item: &Value,
) -> Result<Element, String> {
    let Value::Object(fields) = item else {
        let what = if item.is_null() { "a null element" } else { "non-map elements" };
        return Err(format!("associative list with keys may not have {what}"));
    };
    let mut found = Vec::new();
    for key in keys.clone() {
        if let Some(value) = fields.get(key) {
            found.push((key.to_string(), value.clone()));
        } else if let Some(value) = default_of(key) {
            found.push((key.to_string(), value));
        }
    }
    if found.is_empty() {
        let names: Vec<_> = keys.map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
             values for any key fields)",
            names.join(" ")
        ));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Element::Key(found))
}

fn default_of(ty: &'static Type, key: &str) -> Option<Value> {
    let Type::Message(descriptor) = ty else { return None };
    let field = find_field(descriptor, key).filter(|field| !field.default.is_empty())?;
    serde_json::from_str(field.default).ok()
}
