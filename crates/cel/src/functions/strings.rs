//! Functions of strings; places in them count characters.

use super::{Implementation, no_overload};
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::pattern::{Pattern, compile_pattern};
use crate::value::{List, Text, Value};

/// The function of this name, where it is one of strings.
pub(super) fn function(name: &str) -> Option<Implementation> {
    Some(match name {
        "contains" => |args, _| two(&args, |a, b| Ok(Value::Bool(a.contains(b)))),
        "startsWith" => |args, _| two(&args, |a, b| Ok(Value::Bool(a.starts_with(b)))),
        "endsWith" => |args, _| two(&args, |a, b| Ok(Value::Bool(a.ends_with(b)))),
        "matches" => |args, pattern| {
            two(&args, |text, given| search(pattern, given, "", |p| Value::Bool(p.0.is_match(text))))
        },
        "find" => |args, pattern| {
            two(&args, |text, given| {
                search(pattern, given, "Illegal regex: ", |p| {
                    Value::text(p.0.find(text).map_or("", |found| found.as_str()))
                })
            })
        },
        "findAll" => |args, pattern| find_all(&args, pattern),
        "charAt" => |args, _| char_at(&args),
        "indexOf" => |args, _| match args.first() {
            Some(Value::String(_)) => index_of(&args),
            _ => super::lists::index_of(&args),
        },
        "lastIndexOf" => |args, _| match args.first() {
            Some(Value::String(_)) => last_index_of(&args),
            _ => super::lists::last_index_of(&args),
        },
        "lowerAscii" => |args, _| one(&args, |text| Value::text(text.to_ascii_lowercase())),
        "upperAscii" => |args, _| one(&args, |text| Value::text(text.to_ascii_uppercase())),
        "trim" => |args, _| one(&args, |text| Value::text(text.trim())),
        "replace" => |args, _| replace(&args),
        "split" => |args, _| split(&args),
        "substring" => |args, _| substring(&args),
        "join" => |args, _| join(&args),
        "format" => |args, _| super::format::format(&args),
        // What a JSON pointer may not hold as it is.
        "jsonpatch.escapeKey" => {
            |args, _| one(&args, |text| Value::text(text.replace('~', "~0").replace('/', "~1")))
        }
        "strings.quote" => |args, _| one(&args, |text| Value::text(quote(text))),
        _ => return None,
    })
}

fn one<'a>(args: &[Value<'a>], of: impl FnOnce(&str) -> Value<'a>) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => Ok(of(text)),
        _ => no_overload(),
    }
}

fn two<'a>(args: &[Value<'a>], of: impl FnOnce(&str, &str) -> Evaluated<'a>) -> Evaluated<'a> {
    match args {
        [Value::String(a), Value::String(b)] => of(a, b),
        _ => no_overload(),
    }
}

fn search<'a>(
    compiled: Option<&Pattern>,
    given: &str,
    prefix: &str,
    of: impl FnOnce(&Pattern) -> Value<'a>,
) -> Evaluated<'a> {
    if let Some(pattern) = compiled {
        return Ok(of(pattern));
    }
    match compile_pattern(given) {
        Ok(pattern) => Ok(of(&pattern)),
        Err(message) => Err(EvalError::new(format!("{prefix}{message}"))),
    }
}

fn find_all<'a>(args: &[Value<'a>], pattern: Option<&Pattern>) -> Evaluated<'a> {
    let (text, given, limit) = match args {
        [Value::String(text), Value::String(given)] => (text, given, usize::MAX),
        [Value::String(text), Value::String(given), Value::Int(limit)] => {
            (text, given, usize::try_from(*limit).unwrap_or(usize::MAX))
        }
        _ => return no_overload(),
    };
    search(pattern, given, "Illegal regex: ", |pattern| {
        let found = pattern.0.find_iter(text).take(limit);
        Value::list(found.map(|found| Value::text(found.as_str())).collect())
    })
}

fn out_of_range<'a>(at: i64) -> Evaluated<'a> {
    Err(EvalError::new(format!("index out of range: {at}")))
}

/// The byte at which a character starts; the text's length is behind the last one.
fn byte_of(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    text.char_indices().map(|(byte, _)| byte).chain([text.len()]).nth(at)
}

fn char_at<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::Int(at)] = args else { return no_overload() };
    match byte_of(text, *at) {
        Some(byte) => Ok(Value::text(text[byte..].chars().next().map(String::from).unwrap_or_default())),
        None => out_of_range(*at),
    }
}

fn index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, from) = match args {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return no_overload(),
    };
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    if from < 0 {
        return out_of_range(from);
    }
    let found = byte_of(text, from).and_then(|byte| {
        let found = text[byte..].find(&**part)?;
        Some(from + text[byte..byte + found].chars().count() as i64)
    });
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, from) = match args {
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, Some(*from)),
        _ => return no_overload(),
    };
    let length = text.chars().count() as i64;
    if part.is_empty() {
        return Ok(Value::Int(from.unwrap_or(length)));
    }
    let from = from.unwrap_or(length - 1);
    if from < 0 && args.len() == 3 {
        return out_of_range(from);
    }
    if from >= length {
        return Ok(Value::Int(-1));
    }
    let last_byte = byte_of(text, from).unwrap_or(0);
    let found = text.char_indices().enumerate().filter(|(_, (byte, _))| *byte <= last_byte);
    let found = found.filter(|(_, (byte, _))| text[*byte..].starts_with(&**part)).last();
    Ok(Value::Int(found.map_or(-1, |(at, _)| at as i64)))
}

fn replace<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(from), Value::String(to)] => {
            Ok(Value::text(text.replace(&**from, to)))
        }
        [Value::String(text), Value::String(from), Value::String(to), Value::Int(limit)] => {
            Ok(Value::text(match usize::try_from(*limit) {
                Ok(limit) => text.replacen(&**from, to, limit),
                Err(_) => text.replace(&**from, to),
            }))
        }
        _ => no_overload(),
    }
}

fn split<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, usize::MAX),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => {
            (text, separator, usize::try_from(*limit).unwrap_or(usize::MAX))
        }
        _ => return no_overload(),
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let parts: Vec<Value<'a>> = if separator.is_empty() {
        // An empty separator parts all characters; what the limit leaves is the last part.
        let cuts: Vec<usize> = text.char_indices().map(|(byte, _)| byte).take(limit).collect();
        let ends = cuts.iter().skip(1).copied().chain([text.len()]);
        cuts.iter().zip(ends).map(|(from, to)| Value::text(&text[*from..to])).collect()
    } else {
        text.splitn(limit, &**separator).map(Value::text).collect()
    };
    Ok(Value::list(parts))
}

fn substring<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, from, to) = match args {
        [Value::String(text), Value::Int(from)] => (text, *from, None),
        [Value::String(text), Value::Int(from), Value::Int(to)] => (text, *from, Some(*to)),
        _ => return no_overload(),
    };
    if let Some(to) = to
        && from > to
    {
        return Err(EvalError::new(format!("invalid substring range. start: {from}, end: {to}")));
    }
    let Some(start) = byte_of(text, from) else { return out_of_range(from) };
    let end = match to {
        Some(to) => match byte_of(text, to) {
            Some(end) => end,
            None => return out_of_range(to),
        },
        None => text.len(),
    };
    Ok(match text {
        Text::Borrowed(text) => Value::String(Text::Borrowed(&text[start..end])),
        text => Value::text(&text[start..end]),
    })
}

fn join<'a>(args: &[Value<'a>]) -> Evaluated<'a> {
    let (list, separator): (&List<'a>, &str) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, separator),
        _ => return no_overload(),
    };
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        match item? {
            Value::String(text) => out.push_str(&text),
            other => {
                let shown = super::conversions::text(&other).unwrap_or_default();
                return Err(EvalError::new(format!("join: invalid input: {shown}")));
            }
        }
    }
    Ok(Value::text(out))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
