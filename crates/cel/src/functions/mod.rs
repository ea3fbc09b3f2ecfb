//! What the functions do. Each takes values of any type and refuses those that it has no overload for.

mod compare;
mod conversions;
mod format;
mod kubernetes;
mod lists;
mod numbers;
mod strings;
mod times;

pub(crate) use compare::{equal, order};
pub(crate) use format::{Piece, next_piece, unfit};
pub(crate) use lists::empty_sum;

use crate::ast::op;
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::pattern::Pattern;
use crate::value::{Key, Map, Value};
use std::sync::Arc;

/// A function: its arguments, the target first, and the pattern that is its second argument where that is constant.
pub(crate) type Implementation = for<'a> fn(Vec<Value<'a>>, Option<&Pattern>) -> Evaluated<'a>;

/// The function of a name, with the name as it lives in the program.
pub(crate) fn implementation(name: &str) -> Option<(&'static str, Implementation)> {
    let known = crate::declarations::function(name)?.name;
    let found: Implementation = match known {
        op::NOT => |args, _| numbers::not(&args),
        op::NEGATE => |args, _| numbers::negate(&args),
        op::NOT_STRICTLY_FALSE => |mut args, _| match args.pop() {
            Some(value @ Value::Bool(_)) => Ok(value),
            _ => Ok(Value::Bool(true)),
        },
        op::ADD => |args, _| numbers::add(args),
        "_-_" => |args, _| numbers::subtract(&args),
        "_*_" => |args, _| numbers::multiply(&args),
        "_/_" => |args, _| numbers::divide(&args),
        "_%_" => |args, _| numbers::modulo(&args),
        op::EQUALS => |args, _| pair(&args, |a, b| equal(a, b).map(Value::Bool)),
        op::NOT_EQUALS => |args, _| pair(&args, |a, b| equal(a, b).map(|same| Value::Bool(!same))),
        "_<_" => |args, _| pair(&args, |a, b| order(a, b).map(|order| Value::Bool(order.is_lt()))),
        "_<=_" => |args, _| pair(&args, |a, b| order(a, b).map(|order| Value::Bool(order.is_le()))),
        "_>_" => |args, _| pair(&args, |a, b| order(a, b).map(|order| Value::Bool(order.is_gt()))),
        "_>=_" => |args, _| pair(&args, |a, b| order(a, b).map(|order| Value::Bool(order.is_ge()))),
        op::IN => |args, _| pair(&args, compare::contains),
        op::MAP_INSERT => |args, _| map_insert(args),
        "size" => |args, _| size(&args),
        "bool" | "bytes" | "double" | "dyn" | "int" | "string" | "type" | "uint" | "duration"
        | "timestamp" => conversions::function(known)?,
        _ => strings::function(known)
            .or_else(|| lists::function(known))
            .or_else(|| times::function(known))
            .or_else(|| optional(known))
            .or_else(|| kubernetes::function(known))?,
    };
    Some((known, found))
}

/// The error of a call that no overload takes.
pub(crate) fn no_overload<T>() -> Result<T, EvalError> {
    Err(EvalError::no_such_overload())
}

fn pair<'a>(args: &[Value<'a>], of: impl FnOnce(&Value<'a>, &Value<'a>) -> Evaluated<'a>) -> Evaluated<'a> {
    match args {
        [a, b] => of(a, b),
        _ => no_overload(),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let count = match args {
        [Value::String(text)] => text.chars().count(),
        [Value::Bytes(bytes)] => bytes.len(),
        [Value::List(list)] => list.len(),
        [Value::Map(map)] => map.len(),
        [Value::Object(crate::value::Object::Json { entries, .. })] => entries.len(),
        _ => return no_overload(),
    };
    Ok(Value::Int(count as i64))
}

/// Puts one entry, or all of a map, into the map that a comprehension makes.
fn map_insert<'a>(args: Vec<Value<'a>>) -> Evaluated<'a> {
    let mut args = args.into_iter();
    let (Some(Value::Map(target)), Some(first)) = (args.next(), args.next()) else { return no_overload() };
    let added = match (first, args.next()) {
        (key, Some(value)) => vec![(key, value)],
        (Value::Map(more), None) => more.to_vec()?,
        _ => return no_overload(),
    };
    let mut all = match target {
        Map::Values(entries) => entries,
        json => {
            let mut entries = crate::value::Entries::default();
            for (key, value) in json.to_vec()? {
                if let Some(name) = Key::of(&key) {
                    entries.insert(name, (key, value));
                }
            }
            Arc::new(entries)
        }
    };
    let entries = Arc::make_mut(&mut all);
    for (key, value) in added {
        let name = Key::of(&key).ok_or_else(|| EvalError::new("unsupported key type"))?;
        if entries.get(&name).is_some() {
            let shown = conversions::text(&key).unwrap_or_default();
            return Err(EvalError::new(format!("insert failed: key {shown} already exists")));
        }
        entries.insert(name, (key, value));
    }
    Ok(Value::Map(Map::Values(all)))
}

fn optional(name: &str) -> Option<Implementation> {
    Some(match name {
        "optional.of" => |mut args, _| match args.pop() {
            Some(value) => Ok(Value::some(value)),
            None => no_overload(),
        },
        "optional.ofNonZeroValue" => |mut args, _| match args.pop() {
            Some(value) if is_zero(&value) => Ok(Value::Optional(None)),
            Some(value) => Ok(Value::some(value)),
            None => no_overload(),
        },
        "optional.none" => |_, _| Ok(Value::Optional(None)),
        "value" => |args, _| match args.as_slice() {
            [Value::Optional(Some(value))] => Ok((**value).clone()),
            [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
            _ => no_overload(),
        },
        "hasValue" => |args, _| match args.as_slice() {
            [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
            _ => no_overload(),
        },
        "optional.unwrap" | "unwrapOpt" => |args, _| {
            let [Value::List(list)] = args.as_slice() else { return no_overload() };
            let mut out = Vec::new();
            for item in list.iter() {
                match item? {
                    Value::Optional(Some(value)) => out.push((*value).clone()),
                    Value::Optional(None) => {}
                    _ => return Err(EvalError::new("value is not optional")),
                }
            }
            Ok(Value::list(out))
        },
        _ => return None,
    })
}

/// Whether a value is what nothing was put into.
fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(value) => !value,
        Value::Int(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Object(crate::value::Object::Built(built)) => built.fields.is_empty(),
        Value::Duration(duration) => duration.nanos == 0,
        _ => false,
    }
}
