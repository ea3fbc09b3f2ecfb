//! How a value is owned and merged: the shapes that server-side apply tells apart, out of the Descriptor's facts.

use crate::set::Element;
use meta::{Descriptor, Field, Flags, List, Type};
use serde_json::Value;

/// The shape of a value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
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
}

/// Finds a field by its JSON name, inlined ones too.
pub fn find_field(descriptor: &'static Descriptor, name: &str) -> Option<&'static Field> {
    descriptor.fields.iter().find_map(|field| match field.ty {
        Type::Message(inner) if field.flags.has(Flags::INLINE) => find_field(inner, name),
        _ => (field.name == name).then_some(field),
    })
}

pub fn of_field(field: &'static Field) -> Shape {
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

pub fn of_type(ty: &'static Type) -> Shape {
    match ty {
        Type::Message(descriptor) if !descriptor.atomic => Shape::Struct(descriptor),
        Type::Map(element) => Shape::Map(element),
        _ => Shape::Leaf,
    }
}

impl Shape {
    /// The shape of a field of an object of this shape; and whether the field is declared by name.
    pub fn field(self, name: &str) -> (Shape, bool) {
        match self {
            Shape::Struct(descriptor) => match find_field(descriptor, name) {
                Some(field) => (of_field(field), true),
                None => (Shape::Leaf, false),
            },
            Shape::Map(element) => (of_type(element), false),
            _ => (Shape::Leaf, false),
        }
    }

    /// The shape of what a step from here leads to.
    pub fn step(self, element: &Element) -> Shape {
        match (self, element) {
            (_, Element::Field(name)) => self.field(name).0,
            (Shape::Keyed(ty, _), Element::Key(_)) => of_type(ty),
            _ => Shape::Leaf,
        }
    }

    /// The shape of an element of a list of this shape.
    pub fn element(self) -> Shape {
        match self {
            Shape::Keyed(ty, _) => of_type(ty),
            _ => Shape::Leaf,
        }
    }

    pub fn is_object(self) -> bool {
        matches!(self, Shape::Struct(_) | Shape::Map(_))
    }

    pub fn is_list(self) -> bool {
        matches!(self, Shape::Set | Shape::Keyed(..))
    }

    /// How an element of a list is told from the others. Keys that are left out have their declared defaults.
    pub fn identify(self, item: &Value) -> Result<Element, String> {
        match self {
            Shape::Set => match item {
                Value::Object(_) => {
                    Err("associative list without keys has an element that's a map type".into())
                }
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => {
                    Err("associative list without keys has an element that's an explicit null".into())
                }
                _ => Ok(Element::Value(item.clone())),
            },
            Shape::Keyed(ty, keys) => keyed(ty, keys, item),
            _ => Err("invalid indexing of non-associative list".into()),
        }
    }
}

fn keyed(ty: &'static Type, keys: &[&str], item: &Value) -> Result<Element, String> {
    let Value::Object(fields) = item else {
        let what = if item.is_null() { "a null element" } else { "non-map elements" };
        return Err(format!("associative list with keys may not have {what}"));
    };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        if let Some(value) = fields.get(*key) {
            found.push((key.to_string(), value.clone()));
        } else if let Some(value) = default_of(ty, key) {
            found.push((key.to_string(), value));
        }
    }
    if found.is_empty() {
        let names: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
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
