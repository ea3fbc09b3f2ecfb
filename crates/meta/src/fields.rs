//! Field selectors: `metadata.name=web,status.phase!=Running`. Which fields a kind offers is the table's matter.

use std::fmt;

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub field: String,
    pub value: String,
    /// `!=` rather than `=` or `==`.
    pub negated: bool,
}

/// All terms must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

impl Selector {
    pub fn everything() -> Self {
        Selector::default()
    }

    /// A selector of one exact value.
    pub fn exact(field: &str, value: &str) -> Self {
        Selector { terms: vec![Term { field: field.into(), value: value.into(), negated: false }] }
    }

    /// Reads upstream's syntax: commas separate terms, a backslash keeps `,`, `=` and `\` literal.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (field, negated, value) = split_term(&part)
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(Term { field: field.to_string(), value: unescape(value)?, negated });
        }
        Ok(Selector { terms })
    }

    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object whose fields `value_of` gives is selected; a field it does not know counts as empty.
    pub fn matches(&self, value_of: impl Fn(&str) -> Option<String>) -> bool {
        self.terms
            .iter()
            .all(|term| (value_of(&term.field).unwrap_or_default() == term.value) != term.negated)
    }

    /// The value that `field` must have for an object to be selected, where the selector demands one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| !term.negated && term.field == field).map(|term| term.value.as_str())
    }
}

fn split_terms(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        let last = parts.len() - 1;
        match c {
            ',' if !escaped => parts.push(String::new()),
            _ => parts[last].push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

/// Splits at the first operator that no backslash guards.
fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    let bytes = part.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'!' if bytes.get(at + 1) == Some(&b'=') => return Some((&part[..at], true, &part[at + 2..])),
            b'=' if bytes.get(at + 1) == Some(&b'=') => return Some((&part[..at], false, &part[at + 2..])),
            b'=' => return Some((&part[..at], false, &part[at + 1..])),
            _ => {}
        }
        at += 1;
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            '=' => return Err(format!("invalid field selector: unescaped rune in value: {value}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{}{value}", term.field, if term.negated { "!=" } else { "=" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_matches() {
        let selector = Selector::parse("metadata.name=web,status.phase!=Running").unwrap();
        let phase = |value: &'static str| {
            move |field: &str| match field {
                "metadata.name" => Some("web".to_string()),
                "status.phase" => Some(value.to_string()),
                _ => None,
            }
        };
        assert!(selector.matches(phase("Pending")));
        assert!(!selector.matches(phase("Running")));
        assert_eq!(selector.required("metadata.name"), Some("web"));
        assert_eq!(selector.required("status.phase"), None);
        assert_eq!(selector.to_string(), "metadata.name=web,status.phase!=Running");
        assert_eq!(Selector::parse("a==b\\,c").unwrap().terms()[0].value, "b,c");
        assert!(Selector::parse("nonsense").is_err());
        assert!(Selector::parse("").unwrap().is_everything());
    }
}
