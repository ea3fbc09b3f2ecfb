//! Arithmetic. What does not fit its type is an error, never another number.

use super::no_overload;
use crate::error::EvalError;
use crate::eval::{Evaluated, concat};
use crate::schema::ListType;
use crate::time::Duration;
use crate::value::{List, Value};

fn whole<'a>(result: Option<i64>) -> Evaluated<'a> {
    result.map(Value::Int).ok_or_else(|| EvalError::new("integer overflow"))
}

fn unsigned<'a>(result: Option<u64>) -> Evaluated<'a> {
    result.map(Value::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

fn duration<'a>(nanos: Option<i64>) -> Evaluated<'a> {
    let nanos = nanos.ok_or_else(|| EvalError::new("integer overflow"))?;
    Ok(Value::Duration(Duration { nanos }))
}

pub(super) fn not<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => no_overload(),
    }
}

pub(super) fn negate<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(value)] => whole(value.checked_neg()),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        _ => no_overload(),
    }
}

pub(super) fn add<'a>(args: Vec<Value<'a>>) -> Evaluated<'a> {
    let Ok([left, right]) = <[Value<'a>; 2]>::try_from(args) else { return no_overload() };
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_add(b)),
        (Value::Uint(a), Value::Uint(b)) => unsigned(a.checked_add(b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            let mut all = String::with_capacity(a.len() + b.len());
            all.push_str(&a);
            all.push_str(&b);
            Ok(Value::text(all))
        }
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&*a, &*b].concat().into())),
        (Value::List(a), Value::List(b)) => add_lists(a, b),
        (Value::Duration(a), Value::Duration(b)) => duration(a.nanos.checked_add(b.nanos)),
        (Value::Timestamp(time), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(time)) => {
            time.plus(by).map(Value::Timestamp).ok_or_else(|| EvalError::new("timestamp overflow"))
        }
        _ => no_overload(),
    }
}

/// Lists one behind the other; lists whose elements are told apart take in only what they lack.
fn add_lists<'a>(left: List<'a>, right: List<'a>) -> Evaluated<'a> {
    let List::Json { kind, .. } = &left else { return concat(left, right) };
    let kind = *kind;
    if *kind == ListType::Atomic {
        return concat(left, right);
    }
    let mut all = left.to_vec()?;
    for item in right.iter() {
        let item = item?;
        let mut place = None;
        for (at, known) in all.iter().enumerate() {
            let same = match kind {
                ListType::Map(keys) => same_keys(known, &item, keys)?,
                _ => super::equal(known, &item)?,
            };
            if same {
                place = Some(at);
                break;
            }
        }
        match place {
            Some(at) => all[at] = item,
            None => all.push(item),
        }
    }
    Ok(Value::list(all))
}

fn same_keys(a: &Value<'_>, b: &Value<'_>, keys: &[String]) -> Result<bool, EvalError> {
    let key = |value: &Value<'_>, name: &str| -> Result<serde_json::Value, EvalError> {
        let json = value.to_json()?;
        Ok(json.get(name).cloned().unwrap_or_default())
    };
    for name in keys {
        if key(a, name)? != key(b, name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn subtract<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => whole(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.nanos.checked_sub(b.nanos)),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            a.minus(*b).map(Value::Duration).ok_or_else(|| EvalError::new("timestamp overflow"))
        }
        [Value::Timestamp(a), Value::Duration(b)] => b
            .nanos
            .checked_neg()
            .and_then(|nanos| a.plus(Duration { nanos }))
            .map(Value::Timestamp)
            .ok_or_else(|| EvalError::new("timestamp overflow")),
        _ => no_overload(),
    }
}

pub(super) fn multiply<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => whole(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => no_overload(),
    }
}

pub(super) fn divide<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(EvalError::new("division by zero"))
        }
        [Value::Int(a), Value::Int(b)] => whole(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => no_overload(),
    }
}

pub(super) fn modulo<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(EvalError::new("modulus by zero"))
        }
        [Value::Int(a), Value::Int(b)] => whole(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => no_overload(),
    }
}
