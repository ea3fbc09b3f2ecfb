//! Regular expressions as upstream's Go reads them, for an engine whose dialect differs in a few places.
//!
//! Both are linear in the text. Go's `\d`, `\w`, `\s` and `\b` know ASCII only; a bracket inside a class is a bracket,
//! and a brace that begins no repetition is a brace.

use regex::Regex;

/// Bytes that a compiled pattern may take.
const SIZE_MAX: usize = 4 << 20;

/// Compiles a pattern of Go's syntax; an error is one line.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&translate(pattern)).size_limit(SIZE_MAX).build().map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        format!("error parsing regexp: {}: `{pattern}`", last.trim_start_matches("error: "))
    })
}

fn translate(pattern: &str) -> String {
    let characters: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut at = 0;
    let mut class = false;
    while at < characters.len() {
        let character = characters[at];
        let next = characters.get(at + 1).copied();
        match character {
            '\\' => {
                at += 1;
                let Some(escaped) = next else {
                    out.push('\\');
                    break;
                };
                escape(escaped, class, &mut out);
                // A class or code point by name: `\p{Lu}`, `\x{2028}`.
                if matches!(escaped, 'p' | 'P' | 'x') && characters.get(at + 1) == Some(&'{') {
                    at = copy_braces(&characters, at + 1, &mut out);
                }
            }
            '[' if class && next == Some(':') => out.push('['),
            '[' if class => out.push_str("\\["),
            '[' => {
                class = true;
                out.push('[');
                if characters.get(at + 1) == Some(&'^') {
                    out.push('^');
                    at += 1;
                }
                // A closing bracket that comes first is one of the class.
                if characters.get(at + 1) == Some(&']') {
                    out.push_str("\\]");
                    at += 1;
                }
            }
            ':' if class && next == Some(']') && named_class(&out) => {
                out.push_str(":]");
                at += 1;
            }
            ']' => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(character);
            }
            // Two in a row would take one class from another.
            '-' if class && next == Some('-') => out.push_str("\\-"),
            '{' if !class && repetition(&characters[at..]) => at = copy_braces(&characters, at, &mut out),
            '{' | '}' if !class => {
                out.push('\\');
                out.push(character);
            }
            _ => out.push(character),
        }
        at += 1;
    }
    out
}

fn escape(escaped: char, class: bool, out: &mut String) {
    let text = match (escaped, class) {
        ('d', false) => "[0-9]",
        ('d', true) => "0-9",
        ('D', false) => "[^0-9]",
        ('D', true) => "[^0-9]",
        ('w', false) => "[0-9A-Za-z_]",
        ('w', true) => "0-9A-Za-z_",
        ('W', _) => "[^0-9A-Za-z_]",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('s', true) => "\\t\\n\\f\\r ",
        ('S', _) => "[^\\t\\n\\f\\r ]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        _ => {
            out.push('\\');
            out.push(escaped);
            return;
        }
    };
    out.push_str(text);
}

/// Whether what was written ends inside `[:name`.
fn named_class(out: &str) -> bool {
    out.rfind("[:").is_some_and(|start| out[start + 2..].chars().all(|c| c.is_ascii_alphabetic() || c == '^'))
}

/// Whether a brace begins `{2}`, `{2,}` or `{2,3}`.
fn repetition(from: &[char]) -> bool {
    let Some(end) = from.iter().position(|character| *character == '}') else { return false };
    let inside: String = from[1..end].iter().collect();
    let number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match inside.split_once(',') {
        None => number(&inside),
        Some((least, most)) => number(least) && (most.is_empty() || number(most)),
    }
}

/// Copies from an opening brace to the closing one: where that stands.
fn copy_braces(characters: &[char], from: usize, out: &mut String) -> usize {
    let length = characters[from..].iter().position(|character| *character == '}').unwrap_or(0);
    out.extend(&characters[from..=from + length]);
    from + length
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn patterns_mean_what_they_mean_to_go() {
        for (pattern, text, matches) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "web-1", true),
            (r"^[[]x]$", "[x]", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^{a}$", "{a}", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^\p{Lu}+$", "ÄB", true),
            (r"^\$\{\w+\}$", "${x}", true),
            (r"^[a&&b]+$", "&&a", true),
            (r"^(?i)ABC$", "abc", true),
            (r"^\S+$", "a b", false),
            (r"\bfoo\b", "a foo b", true),
        ] {
            let compiled = compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(compiled.is_match(text), matches, "{pattern} on {text}");
        }
        assert!(compile("(").is_err());
    }
}
