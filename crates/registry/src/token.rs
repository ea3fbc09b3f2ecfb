//! Continue tokens, in upstream's form: base64 of `{"v":"meta.k8s.io/v1","rv":N,"start":"key"}`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

const VERSION: &str = "meta.k8s.io/v1";

/// Where a paged list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The revision of the list; -1 to go on with the newest state.
    pub revision: i64,
    /// The first key, below the prefix of what is listed.
    pub start: String,
}

impl Token {
    pub fn encode(&self) -> String {
        let start = Value::String(self.start.clone());
        URL_SAFE_NO_PAD.encode(format!(r#"{{"v":"{VERSION}","rv":{},"start":{start}}}"#, self.revision))
    }

    /// Reads a token; errors are upstream's.
    pub fn decode(text: &str) -> Result<Self, String> {
        let invalid = |why: &str| format!("continue key is not valid: {why}");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(&error.to_string()))?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        let version = value["v"].as_str().unwrap_or_default();
        if version != VERSION {
            let why = "server does not recognize this encoded version";
            return Err(format!("{} {version}", invalid(why)));
        }
        let revision = value["rv"].as_i64().unwrap_or_default();
        if revision == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        let start = value["start"].as_str().unwrap_or_default();
        if start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        let below = start.strip_prefix('/').unwrap_or(start);
        let climbs = below.split('/').any(|part| matches!(part, "" | "." | ".."));
        if climbs {
            return Err(invalid(start));
        }
        Ok(Token { revision, start: below.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_there_and_back() {
        let token = Token { revision: 42, start: "default/web\0".into() };
        assert_eq!(Token::decode(&token.encode()), Ok(token.clone()));
        let bytes = URL_SAFE_NO_PAD.decode(token.encode()).expect("base64");
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(text, r#"{"v":"meta.k8s.io/v1","rv":42,"start":"default/web\u0000"}"#);
    }

    #[test]
    fn bad_tokens_are_refused() {
        let token = |text: &str| Token::decode(&URL_SAFE_NO_PAD.encode(text)).expect_err("refused");
        assert!(Token::decode("***").is_err());
        token("{}");
        token(r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a"}"#);
        token(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#);
        token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#);
        token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../../secrets/x"}"#);
        token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a//b"}"#);
    }
}
