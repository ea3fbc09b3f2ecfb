//! Who owns what of a custom object: a schema as server-side apply sees it.

use crate::schema::{Additional, ListType, Schema, Type};
use patch::{Form, Node, Shape};
use serde_json::Value;

/// The whole object of a kind: its schema's fields, and those that every object has.
#[derive(Debug)]
pub struct Root<'a>(pub &'a Schema);

/// The shape of a value of this schema.
pub fn of(schema: &Schema) -> Shape<'_> {
    match schema.ty {
        Some(Type::Object) if schema.atomic_map => Shape::Leaf,
        Some(Type::Object) => Shape::Node(schema),
        Some(Type::Array) if schema.list_type.is_some() => Shape::Node(schema),
        Some(_) => Shape::Leaf,
        None if schema.int_or_string => Shape::Leaf,
        None => Shape::Deduced,
    }
}

fn field<'a>(schema: &'a Schema, name: &str, embedded: bool) -> Option<(Shape<'a>, bool)> {
    if embedded {
        match name {
            "metadata" => return Some((Shape::Struct(&api::meta::v1::OBJECT_META), true)),
            "apiVersion" | "kind" => return Some((Shape::Leaf, true)),
            _ => {}
        }
    }
    if let Some(property) = schema.properties.get(name) {
        return Some((of(property), true));
    }
    match &schema.additional {
        Some(Additional::Schema(schema)) => Some((of(schema), false)),
        Some(Additional::Any(true)) => Some((Shape::Deduced, false)),
        _ if schema.preserve_unknown => Some((Shape::Deduced, false)),
        _ => None,
    }
}

impl Node for Schema {
    fn form(&self) -> Form<'_> {
        match (&self.list_type, self.ty) {
            (Some(ListType::Set), Some(Type::Array)) => Form::Set,
            (Some(ListType::Map(keys)), Some(Type::Array)) => Form::Keyed(keys),
            _ => Form::Object,
        }
    }
    fn field(&self, name: &str) -> Option<(Shape<'_>, bool)> {
        field(self, name, self.embedded)
    }
    fn element(&self) -> Shape<'_> {
        self.items.as_deref().map_or(Shape::Leaf, of)
    }
    fn key_default(&self, key: &str) -> Option<&Value> {
        self.items.as_deref()?.properties.get(key)?.default.as_ref()
    }
}

impl Node for Root<'_> {
    fn form(&self) -> Form<'_> {
        Form::Object
    }
    fn field(&self, name: &str) -> Option<(Shape<'_>, bool)> {
        field(self.0, name, true)
    }
    fn element(&self) -> Shape<'_> {
        Shape::Leaf
    }
    fn key_default(&self, _: &str) -> Option<&Value> {
        None
    }
}
