//! What literals stand for: escapes in strings and bytes, and numbers.

use crate::value::Value;
use std::sync::Arc;

/// The value of a string or bytes literal with its prefix and quotes.
pub(crate) fn quoted(text: &str) -> Result<Value<'static>, &'static str> {
    let quote = text.find(['"', '\'']).ok_or("unable to unescape string")?;
    let (prefix, body) = text.split_at(quote);
    let raw = prefix.contains(['r', 'R']);
    let bytes = prefix.contains(['b', 'B']);
    let long = body.len() >= 6 && (body.starts_with("\"\"\"") || body.starts_with("'''"));
    let quotes = if long { 3 } else { 1 };
    // Line ends are upstream's: every kind of them is one line feed.
    let body = body[quotes..body.len() - quotes].replace("\r\n", "\n").replace('\r', "\n");
    let out = match raw || !body.contains('\\') {
        true => body.into_bytes(),
        false => unescape(&body, bytes)?,
    };
    if bytes {
        return Ok(Value::Bytes(out.into()));
    }
    let text = String::from_utf8(out).map_err(|_| "invalid unicode code point")?;
    Ok(Value::text(Arc::<str>::from(text)))
}

fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let c = rest.chars().next().ok_or("unable to unescape string, found '\\' as last character")?;
        let digits = |from: usize, count: usize, radix: u32| {
            let digits = rest.get(from..from + count).ok_or("unable to unescape string")?;
            u32::from_str_radix(digits, radix).map_err(|_| "unable to unescape string")
        };
        let (code, taken) = match c {
            'x' | 'X' => (digits(1, 2, 16)?, 3),
            'u' if !bytes => (digits(1, 4, 16)?, 5),
            'U' if !bytes => (digits(1, 8, 16)?, 9),
            '0'..='3' => (digits(0, 3, 8)?, 3),
            'a' => (7, 1),
            'b' => (8, 1),
            'f' => (12, 1),
            'n' => (10, 1),
            'r' => (13, 1),
            't' => (9, 1),
            'v' => (11, 1),
            '\\' | '\'' | '"' | '`' | '?' => (u32::from(c), 1),
            _ => return Err("unable to unescape string"),
        };
        rest = &rest[taken..];
        if bytes {
            out.push(u8::try_from(code).map_err(|_| "unable to unescape string")?);
        } else {
            let c = char::from_u32(code).ok_or("invalid unicode code point")?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// The value of an integer literal, perhaps in hexadecimal, with a sign before it.
pub(crate) fn int(text: &str, negative: bool) -> Result<Value<'static>, &'static str> {
    let sign = if negative { "-" } else { "" };
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16),
        None => format!("{sign}{text}").parse(),
    };
    parsed.map(Value::Int).map_err(|_| "invalid int literal")
}

/// The value of a literal with a `u` at its end.
pub(crate) fn uint(text: &str) -> Result<Value<'static>, &'static str> {
    let digits = &text[..text.len() - 1];
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    parsed.map(Value::Uint).map_err(|_| "invalid uint literal")
}

/// The value of a literal with a fraction or an exponent.
pub(crate) fn double(text: &str, negative: bool) -> Result<Value<'static>, &'static str> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Value::Double(if negative { -value } else { value })),
        _ => Err("invalid double literal"),
    }
}
