//! Text into tokens. Positions count characters, as the places in error texts do.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An operator or bracket, or one of the words `in`, `true`, `false`, `null`.
    Symbol,
    Ident,
    /// A name in backquotes.
    EscapedIdent,
    Int,
    Uint,
    Float,
    String,
    Bytes,
    End,
}

/// One token: its kind, its text as written, and where it starts in characters.
#[derive(Clone, Debug)]
pub(crate) struct Token<'t> {
    pub kind: Kind,
    pub text: &'t str,
    pub at: usize,
}

/// A character, or more, that begin no token: the text and where it starts.
pub(crate) type Unknown = (usize, String);

const SYMBOLS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%",
];

/// All tokens, the last of which is [`Kind::End`], and what was skipped because it begins none.
pub(crate) fn tokens(text: &str) -> (Vec<Token<'_>>, Vec<Unknown>) {
    let mut tokens = Vec::new();
    let mut unknown = Vec::new();
    let mut byte = 0;
    let mut at = 0;
    while byte < text.len() {
        let rest = &text[byte..];
        let skipped = hidden(rest);
        if skipped > 0 {
            at += rest[..skipped].chars().count();
            byte += skipped;
            continue;
        }
        let taken = match token(rest) {
            Ok((kind, length)) => {
                tokens.push(Token { kind, text: &rest[..length], at });
                length
            }
            Err(length) => {
                unknown.push((at, rest[..length].to_owned()));
                length
            }
        };
        at += rest[..taken].chars().count();
        byte += taken;
    }
    tokens.push(Token { kind: Kind::End, text: "<EOF>", at });
    (tokens, unknown)
}

/// The length of the white space or comment that the text starts with.
fn hidden(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    text.len() - text.trim_start_matches(['\t', ' ', '\r', '\n', '\u{c}']).len()
}

/// The kind and length of the token that the text starts with, or how much of it is no token.
fn token(text: &str) -> Result<(Kind, usize), usize> {
    let first = text.chars().next().unwrap_or(' ');
    let bytes = text.as_bytes();
    if let Some((prefix, raw)) = string_prefix(text) {
        let kind = match text[..prefix].contains(['b', 'B']) {
            true => Kind::Bytes,
            false => Kind::String,
        };
        match quoted(&text[prefix..], raw) {
            Ok(length) => return Ok((kind, prefix + length)),
            // Letters before an unfinished string are a name of their own.
            Err(length) if prefix == 0 => return Err(length),
            Err(_) => {}
        }
    }
    if first.is_ascii_alphabetic() || first == '_' {
        let length = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let kind = match &text[..length] {
            "in" | "true" | "false" | "null" => Kind::Symbol,
            _ => Kind::Ident,
        };
        return Ok((kind, length));
    }
    if first == '`' {
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' ');
        let inner = text[1..].find(|c: char| !name(c)).unwrap_or(text.len() - 1);
        let closed = inner > 0 && text[1 + inner..].starts_with('`');
        return if closed {
            Ok((Kind::EscapedIdent, inner + 2))
        } else {
            Err((inner + 2).min(text.len()).max(1))
        }
        .map_err(|length| floor_boundary(text, length));
    }
    if first.is_ascii_digit() || (first == '.' && bytes.get(1).is_some_and(u8::is_ascii_digit)) {
        return Ok(number(text));
    }
    match SYMBOLS.iter().find(|symbol| text.starts_with(**symbol)) {
        Some(symbol) => Ok((Kind::Symbol, symbol.len())),
        None => Err(unknown_length(text, first)),
    }
}

/// How much is reported as unknown: a lone `&`, `|` or `=` is read together with what follows it.
fn unknown_length(text: &str, first: char) -> usize {
    let second = text.chars().nth(1).map_or(0, char::len_utf8);
    match first {
        '&' | '|' | '=' => first.len_utf8() + second,
        _ => first.len_utf8(),
    }
}

fn floor_boundary(text: &str, mut length: usize) -> usize {
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    length
}

/// The length of `r`, `b`, `br` before a quote, and whether the string is raw.
fn string_prefix(text: &str) -> Option<(usize, bool)> {
    let quote = text.bytes().take(3).position(|c| matches!(c, b'"' | b'\''))?;
    match &text[..quote] {
        "" | "b" | "B" => Some((quote, false)),
        "r" | "R" | "br" | "bR" | "Br" | "BR" => Some((quote, true)),
        _ => None,
    }
}

/// The length of a quoted string with its quotes, or of what is wrong.
fn quoted(text: &str, raw: bool) -> Result<usize, usize> {
    let quote = &text[..1];
    let triple = quote.repeat(3);
    let long = text.starts_with(&triple) && closes(text, &triple, raw, true).is_ok();
    if long {
        return closes(text, &triple, raw, true);
    }
    closes(text, quote, raw, false)
}

fn closes(text: &str, quote: &str, raw: bool, many_lines: bool) -> Result<usize, usize> {
    let mut at = quote.len();
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(quote) {
            return Ok(at + quote.len());
        }
        let c = rest.chars().next().unwrap_or(' ');
        if matches!(c, '\n' | '\r') && !many_lines {
            return Err(at + 1);
        }
        at += match c {
            '\\' if !raw => match escape_length(rest) {
                Some(length) => length,
                None => return Err((at + 2).min(text.len())).map_err(|length| floor_boundary(text, length)),
            },
            c => c.len_utf8(),
        };
    }
    Err(text.len())
}

/// The length of the escape that the text starts with, where it is one.
fn escape_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let hex = |digits: usize| {
        bytes
            .get(2..2 + digits)
            .is_some_and(|all| all.iter().all(u8::is_ascii_hexdigit))
            .then_some(2 + digits)
    };
    match bytes.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(2),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => {
            bytes.get(2..4).is_some_and(|all| all.iter().all(|c| matches!(c, b'0'..=b'7'))).then_some(4)
        }
        _ => None,
    }
}

fn number(text: &str) -> (Kind, usize) {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|c| c.is_ascii_digit()).count();
    let unsigned = |length: usize| match bytes.get(length) {
        Some(b'u' | b'U') => (Kind::Uint, length + 1),
        _ => (Kind::Int, length),
    };
    if text.starts_with("0x") {
        let hex = bytes[2..].iter().take_while(|c| c.is_ascii_hexdigit()).count();
        if hex > 0 {
            return unsigned(2 + hex);
        }
    }
    let whole = digits(0);
    let mut length = whole;
    let mut float = false;
    if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
        float = true;
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = bytes.get(length + 1 + sign..).map_or(0, |_| digits(length + 1 + sign));
        if exponent > 0 {
            length += 1 + sign + exponent;
            float = true;
        }
    }
    if float { (Kind::Float, length) } else { unsigned(whole) }
}
