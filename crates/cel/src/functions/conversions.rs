//! Conversions between types: `int("5")`, `string(1.5)`, `timestamp("...")`.

use super::{Implementation, no_overload};
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::time::{Duration, Timestamp};
use crate::value::{Text, Value};

/// The conversion to the type of this name.
pub(super) fn function(name: &str) -> Option<Implementation> {
    Some(match name {
        "dyn" => |args, _| one(args, Ok),
        "type" => |args, _| one(args, |value| Ok(Value::Type(value.type_of()))),
        "bool" => |args, _| one(args, to_bool),
        "bytes" => |args, _| one(args, to_bytes),
        "double" => |args, _| one(args, to_double),
        "int" => |args, _| one(args, to_int),
        "uint" => |args, _| one(args, to_uint),
        "string" => |args, _| one(args, to_string),
        "duration" => |args, _| one(args, to_duration),
        "timestamp" => |args, _| one(args, to_timestamp),
        _ => return None,
    })
}

fn one<'a>(mut args: Vec<Value<'a>>, of: fn(Value<'a>) -> Evaluated<'a>) -> Evaluated<'a> {
    match args.pop() {
        Some(value) if args.is_empty() => of(value),
        _ => no_overload(),
    }
}

fn unconvertible<'a>(from: &str, to: &str) -> Evaluated<'a> {
    Err(EvalError::new(format!("type conversion error from '{from}' to '{to}'")))
}

fn to_bool(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Bool(_) => Ok(value),
        Value::String(text) => match &*text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => unconvertible("string", "bool"),
        },
        _ => no_overload(),
    }
}

fn to_bytes(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Bytes(_) => Ok(value),
        Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
        _ => no_overload(),
    }
}

fn to_double(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Double(_) => Ok(value),
        Value::Int(value) => Ok(Value::Double(value as f64)),
        Value::Uint(value) => Ok(Value::Double(value as f64)),
        Value::String(text) => match text.parse() {
            Ok(value) => Ok(Value::Double(value)),
            Err(_) => unconvertible("string", "double"),
        },
        _ => no_overload(),
    }
}

fn to_int(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Int(_) => Ok(value),
        Value::Uint(value) => i64::try_from(value).map(Value::Int).map_err(|_| overflow()),
        // The largest double below 2^63 and the smallest above -2^63.
        Value::Double(value)
            if value > -9_223_372_036_854_775_808.0 && value < 9_223_372_036_854_775_808.0 =>
        {
            Ok(Value::Int(value as i64))
        }
        Value::Double(_) => Err(overflow()),
        Value::String(text) => match text.parse() {
            Ok(value) => Ok(Value::Int(value)),
            Err(_) => unconvertible("string", "int"),
        },
        Value::Duration(duration) => Ok(Value::Int(duration.nanos)),
        Value::Timestamp(time) => Ok(Value::Int(time.seconds)),
        _ => no_overload(),
    }
}

fn overflow() -> EvalError {
    EvalError::new("integer overflow")
}

fn to_uint(value: Value<'_>) -> Evaluated<'_> {
    let overflow = || EvalError::new("unsigned integer overflow");
    match value {
        Value::Uint(_) => Ok(value),
        Value::Int(value) => u64::try_from(value).map(Value::Uint).map_err(|_| overflow()),
        Value::Double(value) if (0.0..18_446_744_073_709_551_616.0).contains(&value) => {
            Ok(Value::Uint(value as u64))
        }
        Value::Double(_) => Err(overflow()),
        Value::String(text) if !text.starts_with('+') => match text.parse() {
            Ok(value) => Ok(Value::Uint(value)),
            Err(_) => unconvertible("string", "uint"),
        },
        Value::String(_) => unconvertible("string", "uint"),
        _ => no_overload(),
    }
}

fn to_string(value: Value<'_>) -> Evaluated<'_> {
    if matches!(value, Value::String(_)) {
        return Ok(value);
    }
    if let Value::Bytes(bytes) = &value {
        return match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        };
    }
    match text(&value) {
        Some(text) => Ok(Value::text(text)),
        None => no_overload(),
    }
}

/// The text of a value that `string()` takes, bytes aside.
pub(super) fn text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => double_text(*value),
        Value::Duration(duration) => duration.to_string(),
        Value::Timestamp(time) => time.to_string(),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        _ => return None,
    })
}

/// A double as Go prints it with the fewest digits: with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let size = value.abs();
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if size != 0.0 && !(-4..6).contains(&power) {
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}

fn to_duration(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Duration(_) => Ok(value),
        Value::Int(nanos) => Ok(Value::Duration(Duration { nanos })),
        Value::String(text) => match Duration::parse(&text) {
            Some(duration) => Ok(Value::Duration(duration)),
            None => unconvertible("string", "google.protobuf.Duration"),
        },
        _ => no_overload(),
    }
}

fn to_timestamp(value: Value<'_>) -> Evaluated<'_> {
    match value {
        Value::Timestamp(_) => Ok(value),
        Value::Int(seconds) => Timestamp::from_seconds(seconds)
            .map(Value::Timestamp)
            .ok_or_else(|| EvalError::new("timestamp overflow")),
        Value::String(text @ (Text::Borrowed(_) | Text::Shared(_))) => match Timestamp::parse(&text) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => unconvertible("string", "google.protobuf.Timestamp"),
        },
        _ => no_overload(),
    }
}
