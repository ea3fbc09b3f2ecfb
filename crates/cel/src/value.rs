//! Values: JSON trees looked at where they lie, and what expressions make of them.
//!
//! A value borrows what it was bound to. Cloning one copies no data: lists, maps and texts are borrowed or shared.

use crate::authorizer::Check;
use crate::error::EvalError;
use crate::network::{Cidr, Url};
use crate::schema::{DeclType, ListType, ObjectType};
use crate::semver::Semver;
use crate::time::{Duration, Timestamp};
use crate::types::Type;
use meta::Quantity;
use serde_json::{Map as JsonMap, Value as Json};
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

/// Any value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Duration(Duration),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Object(Object<'a>),
    Type(Type),
    Optional(Option<Arc<Value<'a>>>),
    Ip(IpAddr),
    Cidr(Cidr),
    Url(Arc<Url>),
    Quantity(Quantity),
    Semver(Arc<Semver>),
    /// A named format, such as `dns1123Label`.
    Format(&'static str),
    /// The authorizer, or a check on its way to a decision.
    Check(Arc<Check<'a>>),
    /// Data without a schema inside data with one: it can only be compared.
    Opaque(&'a Json),
}

/// A string, borrowed from the data or made by an expression.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Elements in JSON; the type is that of an element, where a schema says one.
    Json {
        elements: &'a [Json],
        item: Option<&'a DeclType>,
        kind: &'a ListType,
    },
    Values(Arc<Vec<Value<'a>>>),
}

/// A map.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// Entries in JSON; the type is that of a value, where a schema says one.
    Json {
        entries: &'a JsonMap<String, Json>,
        value: Option<&'a DeclType>,
    },
    Values(Arc<Entries<'a>>),
}

/// An object with fields.
#[derive(Clone, Debug)]
pub enum Object<'a> {
    /// JSON with a schema.
    Json { entries: &'a JsonMap<String, Json>, decl: &'a ObjectType },
    /// One that an expression constructed: its type's name, and its fields in the order they were written.
    Built(Arc<Built<'a>>),
}

/// An object that an expression constructed.
#[derive(Clone, Debug)]
pub struct Built<'a> {
    pub type_name: String,
    pub fields: Vec<(String, Value<'a>)>,
}

/// The entries of a map that an expression made, in the order they were made.
#[derive(Clone, Debug, Default)]
pub struct Entries<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    index: HashMap<Key, usize>,
}

/// What identifies an entry: numbers of all types that are equal are one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Bool(bool),
    Number(i128),
    Text(Arc<str>),
}

impl Key {
    /// The key that a value is, where it can be one.
    pub fn of(value: &Value<'_>) -> Option<Key> {
        match value {
            Value::Bool(value) => Some(Key::Bool(*value)),
            Value::Int(value) => Some(Key::Number((*value).into())),
            Value::Uint(value) => Some(Key::Number((*value).into())),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 1.9e19 => {
                Some(Key::Number(*value as i128))
            }
            Value::String(Text::Shared(text)) => Some(Key::Text(text.clone())),
            Value::String(text) => Some(Key::Text((&**text).into())),
            _ => None,
        }
    }
}

impl<'a> Entries<'a> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Value<'a>, Value<'a>)> {
        self.entries.iter()
    }

    pub fn get(&self, key: &Key) -> Option<&Value<'a>> {
        self.index.get(key).map(|at| &self.entries[*at].1)
    }

    /// Adds an entry; `false` where the key is there already, whose value is then replaced.
    pub fn insert(&mut self, key: Key, entry: (Value<'a>, Value<'a>)) -> bool {
        if let Some(at) = self.index.get(&key) {
            self.entries[*at] = entry;
            return false;
        }
        self.index.insert(key, self.entries.len());
        self.entries.push(entry);
        true
    }
}

/// How the elements of lists without a schema are told apart.
pub(crate) static ATOMIC: ListType = ListType::Atomic;

impl<'a> Value<'a> {
    pub fn text(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::String(Text::Shared(text.into()))
    }

    pub fn list(values: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Values(Arc::new(values)))
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    /// The name of the value's type, for errors.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::List(_) => "list",
            Value::Map(_) | Value::Object(Object::Json { .. }) => "map",
            Value::Object(_) => "object",
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Check(check) => check.type_name(),
            Value::Opaque(_) => "unknown",
        }
    }

    /// The type that `type(value)` gives.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) => Type::list(Type::Dyn),
            // Upstream's schema-typed objects are maps when the program runs.
            Value::Map(_) | Value::Object(Object::Json { .. }) => Type::map(Type::Dyn, Type::Dyn),
            Value::Object(Object::Built(built)) => Type::object(built.type_name.clone(), []),
            Value::Type(_) => Type::Type(None),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Ip(_) => Type::Opaque("net.IP"),
            Value::Cidr(_) => Type::Opaque("net.CIDR"),
            Value::Url(_) => Type::object("kubernetes.URL", []),
            Value::Quantity(_) => Type::object("kubernetes.Quantity", []),
            Value::Semver(_) => Type::object("kubernetes.Semver", []),
            Value::Format(_) => Type::object("kubernetes.NamedFormat", []),
            Value::Check(check) => Type::object(check.type_name(), []),
            Value::Opaque(_) => Type::Opaque("unknown"),
        }
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json { elements, .. } => elements.len(),
            List::Values(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at a place. An error says that the data does not fit its schema.
    pub fn get(&self, at: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            List::Json { elements, item, .. } => {
                elements.get(at).map(|element| Value::from_json(element, *item))
            }
            List::Values(values) => values.get(at).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + use<'a> {
        let list = self.clone();
        (0..self.len()).map_while(move |at| list.get(at))
    }

    /// All elements.
    pub fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        match self {
            List::Values(values) => Ok(values.to_vec()),
            List::Json { .. } => self.iter().collect(),
        }
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json { entries, .. } => entries.len(),
            Map::Values(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key; an error where the key is of a type that no map has, or the data does not fit its schema.
    pub fn get(&self, key: &Value<'_>) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Map::Json { entries, value } => {
                let Value::String(name) = key else {
                    return match key {
                        // A map with a schema has strings for keys; one without may be asked for anything.
                        _ if value.is_some() => Some(Err(EvalError::no_such_overload())),
                        _ => None,
                    };
                };
                entries.get(&**name).map(|found| Value::from_json(found, *value))
            }
            Map::Values(entries) => match Key::of(key) {
                Some(key) => entries.get(&key).cloned().map(Ok),
                None => None,
            },
        }
    }

    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Json { entries, .. } => {
                entries.keys().map(|name| Value::String(Text::Borrowed(name))).collect()
            }
            Map::Values(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    /// All entries.
    pub fn to_vec(&self) -> Result<Vec<(Value<'a>, Value<'a>)>, EvalError> {
        match self {
            Map::Json { entries, value } => entries
                .iter()
                .map(|(name, found)| {
                    Ok((Value::String(Text::Borrowed(name)), Value::from_json(found, *value)?))
                })
                .collect(),
            Map::Values(entries) => Ok(entries.iter().cloned().collect()),
        }
    }
}

impl<'a> Object<'a> {
    /// A field by the name that expressions use. `None`: it is not set.
    pub fn field(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Object::Json { entries, decl } => {
                let field = match decl.fields.get(name) {
                    None if crate::escape::is_reserved(name) => decl.fields.get(&format!("__{name}__"))?,
                    field => field?,
                };
                match entries.get(&field.property)? {
                    Json::Null => None,
                    found => Some(Value::from_json(found, Some(&field.decl))),
                }
            }
            Object::Built(built) => {
                built.fields.iter().find(|(known, _)| known == name).map(|(_, value)| Ok(value.clone()))
            }
        }
    }

    /// The names of the fields that are set.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Object::Json { entries, decl } => decl
                .fields
                .iter()
                .filter(|(_, field)| entries.contains_key(&field.property))
                .map(|(name, _)| name.as_str())
                .collect(),
            Object::Built(built) => built.fields.iter().map(|(name, _)| name.as_str()).collect(),
        }
    }
}
