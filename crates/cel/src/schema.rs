//! Types and size bounds of data that a schema describes: what the checker, the cost estimate and the values share.
//!
//! The facts are those of upstream's `SchemaDeclType`: which schemas an expression can see at all, how many elements
//! a list, map or string can have at most given its bounds or, without bounds, the size of a request, and how few
//! bytes a value takes at least.

use crate::escape::escape;
use crate::types::Type;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The largest request that the server takes, in bytes: what bounds data without bounds of its own.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;

/// The part of an OpenAPI v3 schema (structural or not) that matters here. Build one with [`Schema::from_json`] or by
/// hand; fields have the names of their JSON properties.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `object`, `array`, `string`, `integer`, `number`, `boolean`, or empty.
    pub kind: String,
    pub format: String,
    pub nullable: bool,
    pub items: Option<Box<Schema>>,
    pub properties: BTreeMap<String, Schema>,
    /// `additionalProperties` where it is a schema.
    pub additional_properties: Option<Box<Schema>>,
    pub required: BTreeSet<String>,
    pub has_default: bool,
    /// Lengths in bytes of the values of `enum` that are strings.
    pub enum_lengths: Vec<u64>,
    pub max_items: Option<i64>,
    pub max_length: Option<i64>,
    pub max_properties: Option<i64>,
    pub int_or_string: bool,
    pub preserve_unknown_fields: bool,
    pub embedded_resource: bool,
    pub list_type: ListType,
}

/// How the elements of a list are told apart: `x-kubernetes-list-type` and `x-kubernetes-list-map-keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// The properties that identify an element.
    Map(Vec<String>),
}

impl Schema {
    /// Reads the JSON form of a schema; unknown properties are passed over.
    pub fn from_json(json: &Json) -> Schema {
        let text = |name: &str| json.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| json.get(name).and_then(Json::as_i64);
        let flag = |name: &str| json.get(name).and_then(Json::as_bool).unwrap_or(false);
        let texts = |name: &str| -> Vec<String> {
            let all = json.get(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
            all.iter().filter_map(Json::as_str).map(str::to_owned).collect()
        };
        let inner = |name: &str| {
            json.get(name).filter(|inner| inner.is_object()).map(|inner| Box::new(Schema::from_json(inner)))
        };
        let properties = json.get("properties").and_then(Json::as_object);
        let kind = match json.get("type") {
            Some(Json::Array(all)) => all.first().and_then(Json::as_str).unwrap_or_default().to_owned(),
            _ => text("type"),
        };
        let list_type = match json.get("x-kubernetes-list-type").and_then(Json::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(texts("x-kubernetes-list-map-keys")),
            _ => ListType::Atomic,
        };
        Schema {
            kind,
            format: text("format"),
            nullable: flag("nullable"),
            items: inner("items"),
            properties: properties
                .map(|all| all.iter().map(|(name, one)| (name.clone(), Schema::from_json(one))).collect())
                .unwrap_or_default(),
            additional_properties: inner("additionalProperties"),
            required: texts("required").into_iter().collect(),
            has_default: json.get("default").is_some_and(|value| !value.is_null()),
            enum_lengths: texts("enum").iter().map(|value| value.len() as u64).collect(),
            max_items: number("maxItems"),
            max_length: number("maxLength"),
            max_properties: number("maxProperties"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown_fields: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            list_type,
        }
    }

    /// The schema with the type and object metadata that every resource has.
    fn with_type_and_object_meta(&self) -> Schema {
        let text = || Schema { kind: "string".into(), ..Schema::default() };
        let is = |schema: Option<&Schema>, kind: &str| schema.is_some_and(|schema| schema.kind == kind);
        let metadata = self.properties.get("metadata");
        let named = |name: &str| is(metadata.and_then(|metadata| metadata.properties.get(name)), "string");
        let mut all = self.clone();
        if is(self.properties.get("kind"), "string")
            && is(self.properties.get("apiVersion"), "string")
            && is(metadata, "object")
            && named("name")
            && named("generateName")
        {
            return all;
        }
        all.properties.insert("kind".into(), text());
        all.properties.insert("apiVersion".into(), text());
        let metadata = Schema {
            kind: "object".into(),
            properties: [("name".to_owned(), text()), ("generateName".to_owned(), text())].into(),
            ..Schema::default()
        };
        all.properties.insert("metadata".into(), metadata);
        all
    }
}

/// What an expression can see of data: its type, its bounds, and how its JSON becomes values.
#[derive(Clone, Debug)]
pub struct DeclType {
    pub kind: Kind,
    /// The most elements (characters, bytes, items, entries) that a value can have; 0 where it has no size.
    pub max_elements: u64,
    /// The fewest bytes that its JSON takes.
    pub min_serialized_size: u64,
    pub nullable: bool,
}

/// The shapes of declared data.
#[derive(Clone, Debug)]
pub enum Kind {
    /// No schema: values are what their JSON is.
    Dyn,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
    Bool,
    Int,
    Double,
    String,
    /// `format: byte`, base64.
    Bytes,
    /// `format: duration`.
    Duration,
    /// `format: date`.
    Date,
    /// `format: date-time`.
    DateTime,
    List(Arc<DeclType>, ListType),
    /// From strings to values of this type.
    Map(Arc<DeclType>),
    Object(ObjectType),
}

/// An object's fields under their escaped names.
#[derive(Clone, Debug)]
pub struct ObjectType {
    pub name: String,
    pub fields: BTreeMap<String, Field>,
}

/// One field of an object.
#[derive(Clone, Debug)]
pub struct Field {
    /// The name of the property in JSON.
    pub property: String,
    pub decl: Arc<DeclType>,
}

impl DeclType {
    /// Data of which nothing is known.
    pub fn dynamic() -> DeclType {
        DeclType { kind: Kind::Dyn, max_elements: 0, min_serialized_size: 0, nullable: true }
    }

    /// What expressions see of data with this schema, or `None` where they see nothing of it. Objects are named after
    /// where they stand: `name`, `name.spec`, `name.list.@idx`, `name.map.@elem`. `root` says that it is a resource.
    pub fn of(schema: &Schema, root: bool, name: &str) -> Option<DeclType> {
        let mut decl = if schema.int_or_string {
            let longest =
                schema.max_length.map_or(MAX_REQUEST_BYTES - 2, |length| count(length).saturating_mul(4));
            simple(Kind::IntOrString, longest, 1)
        } else if root || schema.embedded_resource {
            Self::of_kind(&schema.with_type_and_object_meta(), name)?
        } else {
            Self::of_kind(schema, name)?
        };
        decl.nullable = schema.nullable;
        Some(decl)
    }

    fn of_kind(schema: &Schema, name: &str) -> Option<DeclType> {
        match schema.kind.as_str() {
            "array" => {
                let item = Arc::new(Self::of(schema.items.as_ref()?, false, &format!("{name}.@idx"))?);
                let most = (MAX_REQUEST_BYTES - 2) / (item.min_serialized_size + 1);
                Some(simple(
                    Kind::List(item, schema.list_type.clone()),
                    schema.max_items.map_or(most, count),
                    2,
                ))
            }
            "object" => match &schema.additional_properties {
                Some(values) => {
                    let value = Arc::new(Self::of(values, false, &format!("{name}.@elem"))?);
                    let most = (MAX_REQUEST_BYTES - 2) / (value.min_serialized_size + 6);
                    Some(simple(Kind::Map(value), schema.max_properties.map_or(most, count), 2))
                }
                None => Some(Self::of_object(schema, name)),
            },
            "string" => Some(Self::of_string(schema)),
            "boolean" => Some(simple(Kind::Bool, 0, 4)),
            "number" => Some(simple(Kind::Double, 0, 1)),
            "integer" => Some(simple(Kind::Int, 0, 1)),
            _ => None,
        }
    }

    fn of_object(schema: &Schema, name: &str) -> DeclType {
        let mut fields = BTreeMap::new();
        // An object is at least `{}`, and holds what is required of it and not defaulted.
        let mut least = 2;
        for (property, inner) in &schema.properties {
            let escaped = escape(property);
            let path = format!("{name}.{}", escaped.as_deref().unwrap_or(property));
            let Some(decl) = Self::of(inner, false, &path) else { continue };
            if schema.required.contains(property) && !inner.has_default {
                least += property.len() as u64 + decl.min_serialized_size + 4;
            }
            if let Some(escaped) = escaped {
                let field = Field { property: property.clone(), decl: Arc::new(decl) };
                fields.insert(escaped.into_owned(), field);
            }
        }
        simple(Kind::Object(ObjectType { name: name.to_owned(), fields }), 0, least)
    }

    fn of_string(schema: &Schema) -> DeclType {
        match schema.format.as_str() {
            "byte" => simple(Kind::Bytes, schema.max_length.map_or(MAX_REQUEST_BYTES - 2, count), 2),
            "duration" => simple(Kind::Duration, 32, 3),
            "date" => simple(Kind::Date, 12, 12),
            "date-time" => simple(Kind::DateTime, 32, 21),
            _ => {
                // The bound counts characters, and one takes up to four bytes.
                let longest = match (schema.max_length, schema.enum_lengths.iter().max()) {
                    (Some(length), _) => count(length).saturating_mul(4),
                    (None, Some(longest)) => *longest,
                    (None, None) => MAX_REQUEST_BYTES - 2,
                };
                simple(Kind::String, longest, 2)
            }
        }
    }

    /// The type that the checker sees.
    pub fn cel_type(&self) -> Type {
        match &self.kind {
            Kind::Dyn | Kind::IntOrString => Type::Dyn,
            Kind::Bool => Type::Bool,
            Kind::Int => Type::Int,
            Kind::Double => Type::Double,
            Kind::String => Type::String,
            Kind::Bytes => Type::Bytes,
            Kind::Duration => Type::Duration,
            Kind::Date | Kind::DateTime => Type::Timestamp,
            Kind::List(item, _) => Type::list(item.cel_type()),
            Kind::Map(value) => Type::map(Type::String, value.cel_type()),
            Kind::Object(object) => {
                let fields = object.fields.iter().map(|(name, field)| (name.clone(), field.decl.cel_type()));
                Type::object(object.name.clone(), fields)
            }
        }
    }

    /// How often data of this type fits into one request: the bound for rules on it under unbounded lists and maps.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST_BYTES / (self.min_serialized_size + 1)
    }
}

fn simple(kind: Kind, max_elements: u64, min_serialized_size: u64) -> DeclType {
    DeclType { kind, max_elements, min_serialized_size, nullable: false }
}

fn count(bound: i64) -> u64 {
    u64::try_from(bound).unwrap_or(0)
}
