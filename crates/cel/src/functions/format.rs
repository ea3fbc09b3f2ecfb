//! `"...".format([...])`: clauses such as `%s`, `%d`, `%.3f`, `%x`.

use super::no_overload;
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::functions::conversions;
use crate::value::{List, Map, Object, Value};

/// Decimals where a clause names none.
const DEFAULT_PRECISION: usize = 6;
/// The most decimals that a clause may ask for.
const MAX_PRECISION: usize = 1000;

pub(super) fn format<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(template), Value::List(list)] = args else { return no_overload() };
    let mut out = String::with_capacity(template.len());
    let mut rest: &str = template;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Err(EvalError::new("unexpected end of string"));
        }
        let value = argument(list, next)?;
        next += 1;
        let precision = precision(&mut rest)?;
        let Some(verb) = rest.chars().next() else {
            return Err(EvalError::new("could not parse formatting clause: unexpected end of string"));
        };
        rest = &rest[verb.len_utf8()..];
        let clause = clause(verb, precision, &value)
            .map_err(|error| EvalError::new(format!("error during formatting: {}", error.message)))?;
        out.push_str(&clause);
    }
    out.push_str(rest);
    Ok(Value::text(out))
}

fn argument<'a>(list: &List<'a>, at: usize) -> Evaluated<'a> {
    list.get(at).unwrap_or_else(|| Err(EvalError::new(format!("index {at} out of range"))))
}

/// Reads `.3` before a verb.
fn precision(rest: &mut &str) -> Result<Option<usize>, EvalError> {
    let Some(after) = rest.strip_prefix('.') else { return Ok(None) };
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let precision = after[..digits].parse::<usize>().ok().filter(|precision| *precision <= MAX_PRECISION);
    *rest = &after[digits..];
    match precision {
        Some(precision) => Ok(Some(precision)),
        None => Err(EvalError::new(
            "could not parse formatting clause: error while parsing precision: could not convert precision to integer",
        )),
    }
}

fn clause(verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, EvalError> {
    let unfit = |name: &str, takes: &str| {
        let of = value.type_of().name();
        EvalError::new(format!("{name} clause can only be used on {takes}, was given {of}"))
    };
    match (verb, value) {
        ('s', value) => text(value).ok_or_else(|| {
            unfit(
                "string",
                "strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps",
            )
        }),
        ('d', Value::Int(value)) => Ok(value.to_string()),
        ('d', Value::Uint(value)) => Ok(value.to_string()),
        ('d', _) => Err(unfit("decimal", "integers")),
        ('f', value) => match double(value) {
            Some(number) => Ok(fixed(number, precision.unwrap_or(DEFAULT_PRECISION))),
            None => Err(unfit("fixed-point", "doubles")),
        },
        ('e', value) => match double(value) {
            Some(number) => Ok(scientific(number, precision.unwrap_or(DEFAULT_PRECISION))),
            None => Err(unfit("scientific", "doubles")),
        },
        ('b', Value::Int(value)) => Ok(signed(*value, |size| format!("{size:b}"))),
        ('b', Value::Uint(value)) => Ok(format!("{value:b}")),
        ('b', Value::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => Err(unfit("binary", "integers and bools")),
        ('x' | 'X', value) => {
            let hex = match value {
                Value::Int(value) => signed(*value, |size| format!("{size:x}")),
                Value::Uint(value) => format!("{value:x}"),
                Value::String(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                _ => return Err(unfit("hex", "integers, byte buffers, and strings")),
            };
            Ok(if verb == 'X' { hex.to_uppercase() } else { hex })
        }
        ('o', Value::Int(value)) => Ok(signed(*value, |size| format!("{size:o}"))),
        ('o', Value::Uint(value)) => Ok(format!("{value:o}")),
        ('o', _) => Err(unfit("octal", "integers")),
        (verb, _) => Err(EvalError::new(format!(
            "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
        ))),
    }
}

fn signed(value: i64, of: fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", of(value.unsigned_abs()))
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(value) => Some(*value),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn special(value: f64) -> Option<String> {
    match value {
        value if value.is_nan() => Some("NaN".into()),
        f64::INFINITY => Some("\u{221e}".into()),
        f64::NEG_INFINITY => Some("-\u{221e}".into()),
        _ => None,
    }
}

/// A number in English: groups of three digits, parted by commas.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(text) = special(value) {
        return text;
    }
    let text = format!("{:.precision$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let mut out = String::new();
    if value.is_sign_negative() {
        out.push('-');
    }
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// A number times a power of ten, with raised digits.
fn scientific(value: f64, precision: usize) -> String {
    if let Some(text) = special(value) {
        return text;
    }
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("\u{207b}", exponent),
        None => ("", exponent),
    };
    const RAISED: [char; 10] = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
        '\u{2079}',
    ];
    let raised: String = format!("{exponent:0>2}")
        .chars()
        .filter_map(|digit| digit.to_digit(10).and_then(|digit| RAISED.get(digit as usize)))
        .collect();
    format!("{digits}\u{202f}\u{d7}\u{202f}10{sign}{raised}")
}

/// The text that `%s` gives.
fn text(value: &Value<'_>) -> Option<String> {
    match value {
        Value::List(list) => list_text(list),
        Value::Map(map) => map_text(map),
        Value::Object(Object::Json { entries, .. }) => map_text(&Map::Json { entries, value: None }),
        Value::Null => Some("null".into()),
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Type(of) => Some(of.name()),
        Value::Ip(_) | Value::Cidr(_) => None,
        other => conversions::text(other),
    }
}

/// A value inside a list or a map.
fn inner_text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        Value::Double(value) if value.is_finite() => format!("{value:.DEFAULT_PRECISION$}"),
        Value::Double(value) => format!("{:?}", conversions::double_text(*value)),
        Value::Timestamp(time) => format!("timestamp(\"{time}\")"),
        Value::Duration(duration) => format!("duration(\"{duration}\")"),
        other => text(other)?,
    })
}

fn list_text(list: &List<'_>) -> Option<String> {
    let items: Option<Vec<String>> = list.iter().map(|item| inner_text(&item.ok()?)).collect();
    Some(format!("[{}]", items?.join(", ")))
}

fn map_text(map: &Map<'_>) -> Option<String> {
    let mut entries = Vec::with_capacity(map.len());
    for (key, value) in map.to_vec().ok()? {
        entries.push((inner_text(&key)?, inner_text(&value)?));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Some(format!("{{{}}}", entries.join(", ")))
}
