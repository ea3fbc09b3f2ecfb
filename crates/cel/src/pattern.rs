//! Regular expressions in RE2's syntax, matched in linear time.
//!
//! The engine is the `regex` crate's. Where its syntax differs from RE2's, the pattern is rewritten: classes such as
//! `\d` are ASCII, brackets inside a class are characters, and a brace that counts nothing is itself.

use regex::Regex;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(pub Regex);

/// The most memory that a compiled pattern may take, in bytes.
const MAX_PROGRAM_BYTES: usize = 4 * 1024 * 1024;

/// Compiles a pattern; the error is in the words of upstream's engine as far as they are known.
pub(crate) fn compile_pattern(text: &str) -> Result<Pattern, String> {
    let compiled = regex::RegexBuilder::new(&rewrite(text)).size_limit(MAX_PROGRAM_BYTES).build();
    compiled.map(Pattern).map_err(|error| match error {
        regex::Error::Syntax(why) => format!("error parsing regexp: {}", reason(&why, text)),
        _ => format!("error parsing regexp: expression too large: `{text}`"),
    })
}

/// The engine's reason in the words of upstream's.
fn reason(why: &str, text: &str) -> String {
    let known = [
        ("unclosed group", "missing closing )"),
        ("unopened group", "unexpected )"),
        ("unclosed character class", "missing closing ]"),
        ("repetition operator missing expression", "missing argument to repetition operator"),
        ("unrecognized escape sequence", "invalid escape sequence"),
        ("incomplete escape sequence", "trailing backslash at end of expression"),
        ("look-around", "invalid or unsupported Perl syntax"),
        ("invalid character class range", "invalid character class range"),
    ];
    let said =
        known.iter().find(|(engine, _)| why.contains(engine)).map_or("invalid pattern", |(_, said)| said);
    let part = match said {
        "missing closing ]" => &text[text.rfind('[').unwrap_or(0)..],
        "missing argument to repetition operator" => {
            let at = text.find(['*', '+', '?']).unwrap_or(0);
            text.get(at..=at).unwrap_or(text)
        }
        "trailing backslash at end of expression" => "",
        _ => text,
    };
    format!("{said}: `{part}`")
}

fn rewrite(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len() + 16);
    let mut in_class = false;
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        match (c, next) {
            ('\\', Some('Q')) if !in_class => {
                let from = at + 2;
                let end = (from..chars.len()).find(|end| chars[*end..].starts_with(&['\\', 'E']));
                let quoted: String = chars[from..end.unwrap_or(chars.len())].iter().collect();
                out.push_str(&regex::escape(&quoted));
                at = end.map_or(chars.len(), |end| end + 2);
                continue;
            }
            ('\\', Some(escaped)) => {
                push_escape(&mut out, escaped, in_class);
                at += 2;
                continue;
            }
            ('[', _) if !in_class => {
                in_class = true;
                out.push('[');
                at += 1;
                if chars.get(at) == Some(&'^') {
                    out.push('^');
                    at += 1;
                }
                // A closing bracket in the first place is a character.
                if chars.get(at) == Some(&']') {
                    out.push_str("\\]");
                    at += 1;
                }
                continue;
            }
            ('[', Some(':')) => out.push('['),
            ('[' | '&' | '~', _) if in_class => {
                out.push('\\');
                out.push(c);
            }
            (']', _) if in_class => {
                // `[:alpha:]` closes itself before the class does.
                in_class = at > 0 && chars[at - 1] == ':' && class_name_before(&chars, at);
                out.push(']');
            }
            ('{', _) if !in_class && !counts(&chars[at + 1..]) => out.push_str("\\{"),
            _ => out.push(c),
        }
        at += 1;
    }
    out
}

fn push_escape(out: &mut String, escaped: char, in_class: bool) {
    let (inner, negated) = match escaped {
        'd' => ("0-9", false),
        'D' => ("0-9", true),
        'w' => ("0-9A-Za-z_", false),
        'W' => ("0-9A-Za-z_", true),
        's' => ("\\t\\n\\f\\r ", false),
        'S' => ("\\t\\n\\f\\r ", true),
        'b' if !in_class => return out.push_str("(?-u:\\b)"),
        other => {
            out.push('\\');
            return out.push(other);
        }
    };
    match (in_class, negated) {
        (true, false) => out.push_str(inner),
        (_, true) => out.push_str(&format!("[^{inner}]")),
        (false, false) => out.push_str(&format!("[{inner}]")),
    }
}

/// Whether what follows a brace is a count: `3}`, `3,}`, `3,5}`.
fn counts(rest: &[char]) -> bool {
    let Some(end) = rest.iter().position(|c| *c == '}') else { return false };
    let body: String = rest[..end].iter().collect();
    let (least, most) = body.split_once(',').unwrap_or((&body, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// Whether the bracket at `at` ends a class with a name, such as `[:alpha:]`.
fn class_name_before(chars: &[char], at: usize) -> bool {
    let name = chars[..at - 1].iter().rev().take_while(|c| c.is_ascii_alphabetic() || **c == '^').count();
    let open = (at - 1).checked_sub(name + 2);
    open.is_some_and(|open| chars[open] == '[' && chars[open + 1] == ':')
}
