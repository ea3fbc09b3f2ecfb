//! How the name of a JSON property becomes a name that an expression may use, and back.
//!
//! The rules are upstream's: `__` is `__underscores__`, `.` is `__dot__`, `-` is `__dash__`, `/` is `__slash__`, and a
//! property named like a reserved word `x` is `__x__`.

use std::borrow::Cow;

const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether the word may not be a variable's name.
pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The name under which an expression reaches a property; `None` where it cannot.
pub fn escape(property: &str) -> Option<Cow<'_, str>> {
    if property.is_empty() || property.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(property) {
        return Some(Cow::Owned(format!("__{property}__")));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !property.chars().all(|c| plain(c) || matches!(c, '.' | '-' | '/')) {
        return None;
    }
    if property.chars().all(plain) && !property.contains("__") {
        return Some(Cow::Borrowed(property));
    }
    let mut out = String::with_capacity(property.len() + 16);
    let mut rest = property;
    while let Some(first) = rest.chars().next() {
        let (text, taken) = match first {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            _ => (&rest[..1], 1),
        };
        out.push_str(text);
        rest = &rest[taken..];
    }
    Some(Cow::Owned(out))
}

/// The property that an escaped name stands for; `None` where the name holds an unknown escape.
pub fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains("__") {
        return Some(Cow::Borrowed(name));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("__") {
        let body = &rest[at + 2..];
        let end = body.find('_').unwrap_or(body.len());
        if end == 0 || !body[end..].starts_with("__") {
            // Not the start of an escape: one underscore is itself, and the search goes on behind it.
            out.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        }
        out.push_str(&rest[..at]);
        let word = &body[..end];
        match word {
            "underscores" => out.push_str("__"),
            "dot" => out.push('.'),
            "dash" => out.push('-'),
            "slash" => out.push('/'),
            word if is_reserved(word) && word.len() + 4 == name.len() => out.push_str(word),
            _ => return None,
        }
        rest = &body[end + 2..];
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}
