//! The formats of strings and numbers that schemas may name, and which texts have them.
//!
//! The set is that of upstream's 1.36; a format it does not know is no check at all.

use crate::schema::Type;
use base64::Engine;
use std::net::{Ipv4Addr, Ipv6Addr};

const STRINGS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// The format as it is checked: without dashes, `None` where it is not known for the type.
pub fn effective(format: &str, ty: Option<Type>) -> Option<String> {
    if format.is_empty() {
        return None;
    }
    let known = match ty {
        None | Some(Type::String) => {
            let plain = format.replace('-', "");
            return STRINGS.contains(&plain.as_str()).then_some(plain);
        }
        Some(Type::Integer) => matches!(format, "int32" | "int64"),
        Some(Type::Number) => matches!(format, "float" | "double"),
        Some(_) => false,
    };
    known.then(|| format.to_string())
}

/// Whether a text has a format, as `effective` names it.
pub fn has(format: &str, text: &str) -> bool {
    match format {
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.contains('/') && text.parse::<ipnet::IpNet>().is_ok(),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => is_ssn(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && is_hex(digits)
        }
        "rgbcolor" => is_rgb(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "k8sshortname" => meta::validation::dns1123_label(text).is_empty(),
        "k8slongname" => meta::validation::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A request URI: absolute, or a path from the root.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == b' ') {
        return false;
    }
    if text.starts_with('/') || text == "*" {
        return escapes_hold(text);
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut letters = scheme.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.'))
        && rest.starts_with('/')
        && escapes_hold(rest)
}

fn escapes_hold(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| {
        *byte != b'%' || bytes.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
    })
}

/// An address of RFC 5322, with or without a name before it.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(start), Some(inner)) => &inner[start + 1..],
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |text: &str| {
        !text.is_empty()
            && text.split('.').all(|part| {
                !part.is_empty()
                    && part.chars().all(|c| {
                        !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
                    })
            })
    };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (atom(local) || quoted) && (atom(domain) || literal)
}

fn is_hostname(text: &str) -> bool {
    let symbol = |c: char| c.is_ascii_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    let parts: Vec<&str> = text.split('.').collect();
    let label = |part: &&str| {
        !part.is_empty()
            && part.len() <= 63
            && part.chars().all(|c| symbol(c) || c == '-')
            && part.chars().next().is_some_and(symbol)
            && part.chars().last().is_some_and(symbol)
    };
    if !parts.iter().all(label) {
        return false;
    }
    match parts.as_slice() {
        [_] => true,
        [.., last] => {
            last.chars().count() >= 3 - usize::from(last.len() == 2) && last.chars().all(char::is_alphabetic)
        }
        [] => false,
    }
}

fn is_mac(text: &str) -> bool {
    let separator = text.chars().find(|c| matches!(c, ':' | '-' | '.'));
    let Some(separator) = separator else { return false };
    let size = if separator == '.' { 4 } else { 2 };
    let parts: Vec<&str> = text.split(separator).collect();
    let octets = parts.len() * size / 2;
    matches!(octets, 6 | 8 | 20) && parts.iter().all(|part| part.len() == size && is_hex(part))
}

/// 32 hexadecimal digits, with or without a dash between the groups.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut plain = String::with_capacity(32);
    let mut rest = text;
    for (index, size) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(group) = rest.get(..size).filter(|group| is_hex(group)) else { return false };
        plain.push_str(group);
        rest = &rest[size..];
    }
    let variant = plain.as_bytes()[16].to_ascii_lowercase();
    rest.is_empty()
        && version.is_none_or(|version| {
            plain.chars().nth(12) == Some(version)
                && (version == '3' || matches!(variant, b'8' | b'9' | b'a' | b'b'))
        })
}

fn without_separators(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = without_separators(text);
    let Some((body, last)) = text.split_at_checked(9) else { return false };
    if !digits(body) || last.len() != 1 {
        return false;
    }
    let sum: u32 =
        body.bytes().enumerate().map(|(at, digit)| (at as u32 + 1) * u32::from(digit - b'0')).sum();
    let check = match last {
        "X" => 10,
        digit if digits(digit) => u32::from(digit.as_bytes()[0] - b'0'),
        _ => return false,
    };
    (sum + 10 * check).is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = without_separators(text);
    if text.len() != 13 || !digits(&text) {
        return false;
    }
    let weighed = |(at, digit): (usize, u8)| (if at % 2 == 0 { 1 } else { 3 }) * u32::from(digit - b'0');
    text.bytes().enumerate().map(weighed).sum::<u32>().is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| number.starts_with(prefix));
    let known = match number.len() {
        13 => starts(&["4"]),
        14 => starts(&["300", "301", "302", "303", "304", "305", "36", "38"]),
        15 => starts(&["34", "37", "2131", "1800"]),
        16 => starts(&["4", "51", "52", "53", "54", "55", "6011", "65", "35"]),
        _ => false,
    };
    let luhn: u32 = number
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let value = u32::from(digit - b'0') * (1 + u32::from(at % 2 == 1));
            value / 10 + value % 10
        })
        .sum();
    known && luhn.is_multiple_of(10)
}

fn is_ssn(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    let dashes = text.len() - plain.len();
    plain.len() == 9 && digits(&plain) && (dashes == 0 || matches!(text.as_bytes().get(3), Some(b' ' | b'-')))
        || text.len() == 10 && plain.len() == 9 && digits(&plain)
}

fn is_rgb(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| digits(part) && part.parse::<u8>().is_ok())
}

/// RFC 3339, a `T` or a blank between date and time.
fn is_date_time(text: &str) -> bool {
    let Some(date) = text.get(..10) else { return false };
    let Some(time) = text.get(11..) else { return false };
    let between = matches!(text.as_bytes()[10], b'T' | b't' | b' ');
    let zoned = time.ends_with(['Z', 'z'])
        || time.len() >= 6
            && matches!(time.as_bytes()[time.len() - 6], b'+' | b'-')
            && time.as_bytes()[time.len() - 3] == b':';
    between && zoned && format!("{date}T{time}").parse::<jiff::Timestamp>().is_ok()
}

/// Go's durations, and words as in `22 ns` and `3 weeks`.
fn is_duration(text: &str) -> bool {
    go_duration(text) || word_duration(text)
}

fn go_duration(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text == "0" {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return false;
        }
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        if !units.contains(&unit) {
            return false;
        }
        rest = next;
    }
    !text.is_empty()
}

/// Upstream takes any text in which a number is followed by a unit.
fn word_duration(text: &str) -> bool {
    let characters: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < characters.len() {
        if !characters[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        while characters.get(at).is_some_and(char::is_ascii_digit) {
            at += 1;
        }
        while characters.get(at).is_some_and(|c| c.is_whitespace()) {
            at += 1;
        }
        let word: String =
            characters[at..].iter().take_while(|c| c.is_ascii_alphabetic() || **c == 'µ').collect();
        let word = word.to_lowercase();
        let exact = ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"];
        let prefixes = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
        if exact.contains(&word.as_str()) || prefixes.iter().any(|prefix| word.starts_with(prefix)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_formats() {
        for (format, good, bad) in [
            ("date-time", "2024-02-29T10:00:00Z", "2024-02-30T10:00:00Z"),
            ("date-time", "2024-02-29T10:00:00.123+02:00", "2024-02-29"),
            ("date", "2024-02-29", "2024-2-9"),
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("hostname", "a.example.com", "-a.example.com"),
            ("uri", "https://example.com/x?y=z", "example.com"),
            ("email", "a.b@example.com", "a@@"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("byte", "aGVsbG8=", "a"),
            ("duration", "1h30m", "1 parsec"),
            ("duration", "22 ns", ""),
            ("mac", "00:1a:2b:3c:4d:5e", "00:1a"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("hexcolor", "#FFFFFF", "#FFFF"),
            ("rgbcolor", "rgb(255,255,0)", "rgb(256,0,0)"),
            ("ssn", "111-22-3333", "11-22"),
            ("k8s-short-name", "web-1", "Web"),
            ("k8s-long-name", "a.b", "a..b"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
        ] {
            let format = effective(format, Some(Type::String)).unwrap();
            assert!(has(&format, good), "{format}: {good}");
            assert!(!has(&format, bad), "{format}: {bad}");
        }
        assert_eq!(effective("unheard-of", Some(Type::String)), None);
        assert_eq!(effective("int32", Some(Type::Number)), None);
        assert_eq!(effective("int32", Some(Type::Integer)).as_deref(), Some("int32"));
    }
}
