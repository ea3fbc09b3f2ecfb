//! JSON as values, with and without a schema, and values as JSON.

use crate::error::EvalError;
use crate::schema::{DeclType, Kind};
use crate::time::{Duration, Timestamp};
use crate::value::{ATOMIC, List, Map, Object, Text, Value};
use base64::Engine as _;
use serde_json::Value as Json;

impl<'a> Value<'a> {
    /// The value that JSON stands for, given its declared type; without one (or with [`DeclType::dynamic`]) it is what
    /// the JSON says. Fails where the data does not fit its schema.
    pub fn from_json(json: &'a Json, decl: Option<&'a DeclType>) -> Result<Value<'a>, EvalError> {
        let Some(decl) = decl else { return Ok(Self::untyped(json)) };
        if json.is_null() && !matches!(decl.kind, Kind::Dyn) {
            return match decl.nullable {
                true => Ok(Value::Null),
                false => Err(EvalError::new("invalid data, got null for schema with nullable=false")),
            };
        }
        match (&decl.kind, json) {
            (Kind::Dyn, json) => Ok(Self::untyped(json)),
            (Kind::IntOrString, Json::String(text)) => Ok(Value::String(Text::Borrowed(text))),
            (Kind::IntOrString, Json::Number(_)) if json.is_i64() => Ok(Self::untyped(json)),
            (Kind::IntOrString, _) => Err(EvalError::new(
                "invalid data, expected XIntOrString value to be either a string or integer",
            )),
            (Kind::Bool, Json::Bool(value)) => Ok(Value::Bool(*value)),
            (Kind::Int, Json::Number(number)) => match number.as_i64() {
                Some(value) => Ok(Value::Int(value)),
                None => Err(EvalError::new("invalid data, expected int, got float64")),
            },
            (Kind::Double, Json::Number(number)) => Ok(Value::Double(number.as_f64().unwrap_or(f64::NAN))),
            (Kind::List(item, kind), Json::Array(elements)) => {
                Ok(Value::List(List::Json { elements, item: Some(item), kind }))
            }
            (Kind::Map(value), Json::Object(entries)) => {
                Ok(Value::Map(Map::Json { entries, value: Some(value) }))
            }
            (Kind::Object(decl), Json::Object(entries)) => Ok(Value::Object(Object::Json { entries, decl })),
            (Kind::List(..), _) => {
                Err(EvalError::new("invalid data, expected an array for the provided schema with type=array"))
            }
            (Kind::Map(_) | Kind::Object(_), _) => {
                Err(EvalError::new("invalid data, expected a map for the provided schema with type=object"))
            }
            (kind, Json::String(text)) => Self::from_text(text, kind),
            (Kind::Bool, other) => Err(unfit("bool", other)),
            (Kind::Int, other) => Err(unfit("int", other)),
            (Kind::Double, other) => Err(unfit("float", other)),
            (_, other) => Err(unfit("string", other)),
        }
    }

    fn from_text(text: &'a str, kind: &Kind) -> Result<Value<'a>, EvalError> {
        match kind {
            Kind::Duration => match Duration::parse(text) {
                Some(duration) => Ok(Value::Duration(duration)),
                None => Err(EvalError::new(format!(
                    "Invalid duration {text}: unable to parse {text} as duration"
                ))),
            },
            Kind::Date => match Timestamp::parse(&format!("{text}T00:00:00Z")) {
                Some(date) => Ok(Value::Timestamp(date)),
                None => Err(EvalError::new(format!("Invalid date formatted string {text}"))),
            },
            Kind::DateTime => match Timestamp::parse(text) {
                Some(time) => Ok(Value::Timestamp(time)),
                None => Err(EvalError::new(format!("Invalid date-time formatted string {text}"))),
            },
            Kind::Bytes => match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(bytes) => Ok(Value::Bytes(bytes.into())),
                Err(error) => Err(EvalError::new(format!("Invalid byte formatted string {text}: {error}"))),
            },
            Kind::String => Ok(Value::String(Text::Borrowed(text))),
            Kind::Bool => Err(EvalError::new("invalid data, expected bool, got string")),
            Kind::Int => Err(EvalError::new("invalid data, expected int, got string")),
            _ => Err(EvalError::new("invalid data, expected float, got string")),
        }
    }

    fn untyped(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Value::Int(value),
                None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::String(Text::Borrowed(text)),
            Json::Array(elements) => Value::List(List::Json { elements, item: None, kind: &ATOMIC }),
            Json::Object(entries) => Value::Map(Map::Json { entries, value: None }),
        }
    }

    /// The JSON that a value stands for. Times and durations are text, bytes base64; an optional is its value or
    /// null. Fails for what has no JSON: types, checks, and maps whose keys are not strings.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => (*value).into(),
            Value::Uint(value) => (*value).into(),
            Value::Double(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Value::Duration(duration) => Json::String(duration.to_string()),
            Value::Timestamp(time) => Json::String(time.to_string()),
            Value::List(list) => {
                Json::Array(list.iter().map(|item| item?.to_json()).collect::<Result<_, _>>()?)
            }
            Value::Map(Map::Json { entries, .. }) | Value::Object(Object::Json { entries, .. }) => {
                Json::Object((*entries).clone())
            }
            Value::Map(map) => {
                let mut out = serde_json::Map::new();
                for (key, value) in map.to_vec()? {
                    let Value::String(key) = key else {
                        return Err(EvalError::new("unsupported map key: only strings are keys in JSON"));
                    };
                    out.insert(key.to_string(), value.to_json()?);
                }
                Json::Object(out)
            }
            Value::Object(Object::Built(built)) => {
                let mut out = serde_json::Map::new();
                for (name, value) in &built.fields {
                    let name = crate::escape::unescape(name).unwrap_or(name.into());
                    out.insert(name.into_owned(), value.to_json()?);
                }
                Json::Object(out)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Quantity(quantity) => Json::String(quantity.to_string()),
            Value::Ip(ip) => Json::String(ip.to_string()),
            Value::Cidr(cidr) => Json::String(cidr.to_string()),
            Value::Opaque(json) => (*json).clone(),
            other => {
                let name = other.type_of().name();
                return Err(EvalError::new(format!("type conversion error from '{name}' to JSON")));
            }
        })
    }
}

fn unfit(expected: &str, got: &Json) -> EvalError {
    let got = match got {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_i64() => "int64",
        Json::Number(_) => "float64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    };
    EvalError::new(format!("invalid data, expected {expected}, got {got}"))
}
