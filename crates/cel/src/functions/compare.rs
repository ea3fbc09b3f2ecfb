//! Equality, order and membership, over numbers of all types.

use super::no_overload;
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::schema::{DeclType, Kind, ListType};
use crate::value::{List, Map, Object, Value};
use serde_json::Value as Json;
use std::cmp::Ordering;

/// Whether two values are equal. Values of different types are not, save that numbers are by their value.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
        ) => numbers(a, b) == Some(Ordering::Equal),
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a.order(*b).is_eq(),
        (Value::List(a), Value::List(b)) => return lists(a, b),
        (Value::Map(a), Value::Map(b)) => return maps(a, b),
        (Value::Object(a), Value::Object(b)) => return objects(a, b),
        (Value::Object(Object::Json { entries, .. }), Value::Map(b)) => {
            return maps(&Map::Json { entries, value: None }, b);
        }
        (Value::Map(a), Value::Object(Object::Json { entries, .. })) => {
            return maps(a, &Map::Json { entries, value: None });
        }
        (Value::Type(a), Value::Type(b)) => a.name() == b.name(),
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => return equal(a, b),
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a == b,
        (Value::Quantity(a), Value::Quantity(b)) => a == b,
        (Value::Semver(a), Value::Semver(b)) => a.order(b).is_eq(),
        (Value::Format(a), Value::Format(b)) => a == b,
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        _ => false,
    })
}

fn lists(a: &List<'_>, b: &List<'_>) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let List::Json { kind, elements, item } = a {
        match (kind, b) {
            (ListType::Set, _) => return sets(a, b),
            (ListType::Map(keys), List::Json { elements: others, .. }) => {
                return Ok(keyed(elements, others, keys, *item));
            }
            _ => {}
        }
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !equal(&a?, &b?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lists of the same length whose elements differ from each other.
fn sets(a: &List<'_>, b: &List<'_>) -> Result<bool, EvalError> {
    let known = a.to_vec()?;
    for item in b.iter() {
        let item = item?;
        let mut found = false;
        for other in &known {
            found |= equal(other, &item)?;
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lists of the same length whose elements some of their properties identify.
fn keyed(a: &[Json], b: &[Json], keys: &[String], item: Option<&DeclType>) -> bool {
    let same_key = |a: &Json, b: &Json| keys.iter().all(|key| a.get(key) == b.get(key));
    b.iter().all(|b| a.iter().any(|a| same_key(a, b) && typed_json(a, b, item)))
}

/// Whether JSON of one type is equal, given how its lists tell their elements apart.
fn typed_json(a: &Json, b: &Json, decl: Option<&DeclType>) -> bool {
    let kind = decl.map(|decl| &decl.kind);
    match (a, b, kind) {
        (Json::Object(x), Json::Object(y), Some(Kind::Object(object))) => {
            x.len() == y.len()
                && x.iter().all(|(name, value)| {
                    let field = object.fields.values().find(|field| field.property == *name);
                    y.get(name).is_some_and(|other| typed_json(value, other, field.map(|field| &*field.decl)))
                })
        }
        (Json::Object(x), Json::Object(y), Some(Kind::Map(inner))) => {
            x.len() == y.len()
                && x.iter().all(|(name, value)| {
                    y.get(name).is_some_and(|other| typed_json(value, other, Some(inner)))
                })
        }
        (Json::Array(x), Json::Array(y), Some(Kind::List(item, list))) => {
            x.len() == y.len()
                && match list {
                    ListType::Atomic => x.iter().zip(y).all(|(x, y)| typed_json(x, y, Some(item))),
                    ListType::Set => y.iter().all(|y| x.iter().any(|x| typed_json(x, y, Some(item)))),
                    ListType::Map(keys) => keyed(x, y, keys, Some(item)),
                }
        }
        (Json::Number(x), Json::Number(y), _) => x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

fn maps(a: &Map<'_>, b: &Map<'_>) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (key, value) in a.to_vec()? {
        let Some(other) = b.get(&key) else { return Ok(false) };
        if !equal(&value, &other?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn objects(a: &Object<'_>, b: &Object<'_>) -> Result<bool, EvalError> {
    match (a, b) {
        (Object::Json { entries: a, decl }, Object::Json { entries: b, .. }) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            Ok(a.iter().all(|(name, value)| {
                let field = decl.fields.values().find(|field| field.property == *name);
                b.get(name).is_some_and(|other| typed_json(value, other, field.map(|field| &*field.decl)))
            }))
        }
        (Object::Built(a), Object::Built(b)) => {
            if a.type_name != b.type_name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for (name, value) in &a.fields {
                match b.fields.iter().find(|(known, _)| known == name) {
                    Some((_, other)) if equal(value, other)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The order of two numbers, whichever their types; nothing where one is not a number.
fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), other) => double_and_whole(*a, whole(other)?),
        (other, Value::Double(b)) => double_and_whole(*b, whole(other)?).map(Ordering::reverse),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some((*value).into()),
        Value::Uint(value) => Some((*value).into()),
        _ => None,
    }
}

fn double_and_whole(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond what whole numbers reach, the sign decides.
    if double.abs() >= 1e20 {
        return Some(if double > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let truncated = double.trunc() as i128;
    Some(truncated.cmp(&whole).then_with(|| double.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal)))
}

/// The order of two values of one type that has an order.
pub(crate) fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Ok((**a).cmp(&**b)),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.order(*b)),
        (
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
        ) => numbers(a, b).ok_or_else(|| EvalError::new("NaN values cannot be ordered")),
        _ => no_overload(),
    }
}

/// `value in container`: an element of a list, or a key of a map.
pub(super) fn contains<'a>(value: &Value<'a>, container: &Value<'a>) -> Evaluated<'a> {
    match container {
        Value::List(list) => {
            for item in list.iter() {
                if equal(&item?, value)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        Value::Map(map) => match map.get(value) {
            Some(Err(error)) if error == EvalError::no_such_overload() => Err(error),
            found => Ok(Value::Bool(found.is_some())),
        },
        Value::Object(object) => match value {
            Value::String(name) => Ok(Value::Bool(object.field(name).is_some())),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}
