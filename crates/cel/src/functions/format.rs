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

/// A piece of a template.
pub(crate) enum Piece<'t> {
    Text(&'t str),
    Clause { verb: char, precision: Option<usize> },
}

/// Takes the next piece off a template, which must not be empty; `more` says whether a value is left for a clause.
pub(crate) fn next_piece<'t>(
    rest: &mut &'t str,
    more: impl FnOnce() -> Result<(), String>,
) -> Result<Piece<'t>, String> {
    let Some(after) = rest.strip_prefix('%') else {
        let (text, after) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
        *rest = after;
        return Ok(Piece::Text(text));
    };
    if let Some(after) = after.strip_prefix('%') {
        *rest = after;
        return Ok(Piece::Text("%"));
    }
    if after.is_empty() {
        return Err("unexpected end of string".into());
    }
    more()?;
    *rest = after;
    let precision = precision(rest)?;
    let mut chars = rest.chars();
    let verb = chars.next().ok_or("could not parse formatting clause: unexpected end of string")?;
    *rest = chars.as_str();
    if !"sdfebxXo".contains(verb) {
        return Err(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\""));
    }
    Ok(Piece::Clause { verb, precision })
}

pub(super) fn format<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(template), Value::List(list)] = args else { return no_overload() };
    let mut out = String::with_capacity(template.len());
    let mut rest: &str = template;
    let mut next = 0;
    while !rest.is_empty() {
        let more = || match next < list.len() {
            true => Ok(()),
            false => Err(format!("index {next} out of range")),
        };
        match next_piece(&mut rest, more).map_err(EvalError::new)? {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause { verb, precision } => {
                let value = list.get(next).unwrap_or_else(no_overload)?;
                next += 1;
                let clause = clause(verb, precision, &value)
                    .map_err(|error| EvalError::new(format!("error during formatting: {}", error.message)))?;
                out.push_str(&clause);
            }
        }
    }
    Ok(Value::text(out))
}

/// Reads `.3` before a verb.
fn precision(rest: &mut &str) -> Result<Option<usize>, String> {
    let Some(after) = rest.strip_prefix('.') else { return Ok(None) };
    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    let precision = after[..digits].parse::<usize>().ok().filter(|precision| *precision <= MAX_PRECISION);
    *rest = &after[digits..];
    match precision {
        Some(precision) => Ok(Some(precision)),
        None => Err("could not parse formatting clause: error while parsing precision: could not convert \
                     precision to integer"
            .into()),
    }
}

/// Why a value of this type cannot stand for a clause, where it cannot.
pub(crate) fn unfit(verb: char, of: &str) -> String {
    let (name, takes) = match verb {
        's' => {
            ("string", "strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps")
        }
        'd' => ("decimal", "integers"),
        'f' => ("fixed-point", "doubles"),
        'e' => ("scientific", "doubles"),
        'o' => ("octal", "integers"),
        'b' => return format!("only integers and bools can be formatted as binary, was given {of}"),
        _ => {
            let takes = "integers, byte buffers, and strings";
            return format!("only {takes} can be formatted as hex, was given {of}");
        }
    };
    format!("{name} clause can only be used on {takes}, was given {of}")
}

fn clause(verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, EvalError> {
    let shown = match (verb, value) {
        ('s', value) => text(value),
        ('d', Value::Int(value)) => Some(value.to_string()),
        ('d', Value::Uint(value)) => Some(value.to_string()),
        ('f', value) => double(value).map(|number| fixed(number, precision.unwrap_or(DEFAULT_PRECISION))),
        ('e', value) => double(value).map(|number| {
            // Upstream takes the precision for a width.
            format!("{:>1$}", scientific(number, DEFAULT_PRECISION), precision.unwrap_or(0))
        }),
        ('b', Value::Int(value)) => Some(signed(*value, |size| format!("{size:b}"))),
        ('b', Value::Uint(value)) => Some(format!("{value:b}")),
        ('b', Value::Bool(value)) => Some(u8::from(*value).to_string()),
        ('x' | 'X', value) => hex(value).map(|hex| if verb == 'X' { hex.to_uppercase() } else { hex }),
        ('o', Value::Int(value)) => Some(signed(*value, |size| format!("{size:o}"))),
        ('o', Value::Uint(value)) => Some(format!("{value:o}")),
        _ => None,
    };
    shown.ok_or_else(|| EvalError::new(unfit(verb, &value.type_of().name())))
}

fn hex(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Int(value) => signed(*value, |size| format!("{size:x}")),
        Value::Uint(value) => format!("{value:x}"),
        Value::String(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => return None,
    })
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
    format!("{digits}\u{d7}10{sign}{raised}")
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
