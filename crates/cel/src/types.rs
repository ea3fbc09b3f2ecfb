//! The types of expressions, and how upstream's error texts spell them.
//!
//! A type is cheap to clone. Object types are equal when their names are: a name stands for one set of fields.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The type of an expression or a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any type at all; checks are put off until the program runs.
    Dyn,
    /// What an expression has after an error was already reported for it.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    /// Keys and values.
    Map(Arc<(Type, Type)>),
    /// The type of types.
    Type(Option<Arc<Type>>),
    Optional(Arc<Type>),
    /// A type that only functions know the inside of, with a name such as `net.IP`.
    Opaque(&'static str),
    /// An object with fields.
    Struct(Arc<StructType>),
    /// A variable of the type checker, or a parameter in a function's declaration.
    Param(Arc<str>),
}

/// An object type: its name, and which fields it has.
#[derive(Debug)]
pub struct StructType {
    pub name: String,
    pub fields: Fields,
}

/// The fields of an object type.
#[derive(Debug)]
pub enum Fields {
    /// These and no others.
    Known(BTreeMap<String, Type>),
    /// Every name is a field, whose type this gives from the object's name and the field's.
    Any(fn(&str, &str) -> Type),
}

impl PartialEq for StructType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for StructType {}

impl StructType {
    /// The type of a field, where there is one.
    pub fn field(&self, name: &str) -> Option<Type> {
        match &self.fields {
            // A property named like a reserved word is reached under its own name too, where the grammar lets it.
            Fields::Known(fields) => match fields.get(name) {
                None if crate::escape::is_reserved(name) => fields.get(&format!("__{name}__")).cloned(),
                found => found.cloned(),
            },
            Fields::Any(of) => Some(of(&self.name, name)),
        }
    }
}

impl Type {
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    /// An object type with these fields.
    pub fn object(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Type)>) -> Type {
        let fields = Fields::Known(fields.into_iter().collect());
        Type::Struct(Arc::new(StructType { name: name.into(), fields }))
    }

    /// The name that a value of this type gives for `type(value)`.
    pub fn name(&self) -> String {
        match self {
            Type::Dyn => "dyn".into(),
            Type::Error => "!error!".into(),
            Type::Null => "null_type".into(),
            Type::Bool => "bool".into(),
            Type::Int => "int".into(),
            Type::Uint => "uint".into(),
            Type::Double => "double".into(),
            Type::String => "string".into(),
            Type::Bytes => "bytes".into(),
            Type::Duration => "google.protobuf.Duration".into(),
            Type::Timestamp => "google.protobuf.Timestamp".into(),
            Type::List(_) => "list".into(),
            Type::Map(_) => "map".into(),
            Type::Type(_) => "type".into(),
            Type::Optional(_) => "optional_type".into(),
            Type::Opaque(name) => (*name).into(),
            Type::Struct(object) => object.name.clone(),
            Type::Param(name) => name.to_string(),
        }
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The inner type of an optional, or the type itself.
    pub(crate) fn unwrap_optional(&self) -> (&Type, bool) {
        match self {
            Type::Optional(inner) => (inner, true),
            other => (other, false),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(element) => write!(f, "list({element})"),
            Type::Map(of) => write!(f, "map({}, {})", of.0, of.1),
            Type::Type(Some(inner)) => write!(f, "type({inner})"),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            other => f.write_str(&other.name()),
        }
    }
}

/// How a call looks in an error: `(int, string)`, or `list(int).(string)` for a member call.
pub(crate) fn signature(arguments: &[Type], member: bool) -> String {
    let (target, rest) = match arguments.split_first() {
        Some((target, rest)) if member => (format!("{target}."), rest),
        _ => (String::new(), arguments),
    };
    let rest: Vec<String> = rest.iter().map(Type::to_string).collect();
    format!("{target}({})", rest.join(", "))
}
