//! A URL's query: parsed once, and turned into the options of each verb with upstream's complaints.

use api::errors::ApiError;

/// Longest query that is looked at, in parameters.
const MAX_PARAMETERS: usize = 1000;

/// The parameters in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
    raw: String,
}

impl Query {
    /// Parses `a=b&c=d`. A pair that is not well encoded is dropped, as upstream drops it.
    pub fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
            .take(MAX_PARAMETERS)
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((percent_decode(key, true)?, percent_decode(value, true)?))
            })
            .collect();
        Query { pairs, raw: text.to_string() }
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// A boolean as upstream converts it: absent is false, `false` and `0` in any case are false, anything else is true.
    pub fn boolean(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    pub fn optional_boolean(&self, name: &str) -> Option<bool> {
        self.first(name).map(|_| self.boolean(name))
    }

    /// An integer; anything else is a 400 with Go's words.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.first(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

/// Undoes percent encoding; `None` for a broken escape or what is not UTF-8.
pub fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let encoded = text.contains('%') || (plus_is_space && text.contains('+'));
    if !encoded {
        return Some(text.to_string());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = (bytes.next()? as char).to_digit(16)?;
                let low = (bytes.next()? as char).to_digit(16)?;
                out.push((high * 16 + low) as u8);
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

/// Encodes one value for a query.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_browsers_and_clients_write() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+%28a%29&watch&limit=5&bad=%zz");
        assert_eq!(query.first("labelSelector"), Some("app=web,tier in (a)"));
        assert_eq!(query.first("watch"), Some(""));
        assert!(query.boolean("watch"));
        assert_eq!(query.integer("limit").unwrap(), Some(5));
        assert_eq!(query.first("bad"), None);
        assert_eq!(percent_encode("a b/ü"), "a%20b%2F%C3%BC");
    }
}
