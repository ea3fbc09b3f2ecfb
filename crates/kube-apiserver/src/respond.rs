//! How answers are written: bodies, media types, Status objects, headers.

use crate::negotiate::{Encoding, Output};
use api::codec;
use api::errors::{ApiError, Reason};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use meta::Message;

pub type BodyError = std::io::Error;
/// What every answer's body is: whole, or a stream that is never gathered.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The longest warning text in a header, and of all warnings of an answer, in bytes.
const MAX_WARNING: usize = 256;
const MAX_WARNINGS: usize = 4 * 1024;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with a whole body.
pub fn bytes(code: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    if let Ok(value) = HeaderValue::from_str(media_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", body);
    response.headers_mut().insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    response
}

/// A message in the form that was negotiated.
pub fn message(code: StatusCode, message: &dyn Message, output: Output) -> Response<Body> {
    let body = match output.encoding {
        Encoding::Protobuf => Bytes::from(codec::to_protobuf(message)),
        Encoding::Json => json_text(codec::to_json(message).into(), output.pretty),
        Encoding::Yaml => yaml_text(&codec::to_json(message)),
    };
    bytes(code, output.encoding.media_type(), body)
}

/// JSON text as it goes out: indented, or as it is.
pub fn json_text(text: Bytes, pretty: bool) -> Bytes {
    if pretty { indent(&text).into() } else { text }
}

/// JSON text as YAML. What cannot be turned is sent as JSON, which is YAML too.
pub fn yaml_text(json: &[u8]) -> Bytes {
    serde_json::from_slice::<serde_json::Value>(json)
        .ok()
        .and_then(|value| codec::value_to_yaml(&value).ok())
        .map_or_else(|| Bytes::copy_from_slice(json), Bytes::from)
}

/// A failure as a Status in the form that was negotiated.
pub fn failure(error: &ApiError, output: Output) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = message(code, &error.to_status(), output);
    let seconds = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.reason == Reason::Forbidden {
        response.headers_mut().insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    }
    response
}

/// Adds `Warning` headers, cut to their limits.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut total = 0;
    for text in warnings {
        let mut end = text.len().min(MAX_WARNING);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let clean: String = text[..end].chars().filter(|character| !character.is_control()).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        total += quoted.len();
        if total > MAX_WARNINGS {
            return;
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append("Warning", value);
        }
    }
}

/// Indents JSON by two spaces as Go does, keeping the order of fields.
pub fn indent(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth * 2, b' ');
    };
    for (at, &byte) in text.iter().enumerate() {
        if in_string {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if !matches!(text.get(at + 1), Some(b'}' | b']')) {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(text.get(at.wrapping_sub(1)), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\t' | b'\r' => {}
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indents_like_go() {
        let text = br#"{"b":[1,{"c":"x:{,\" }"}],"a":{},"e":[]}"#;
        let wanted = "{\n  \"b\": [\n    1,\n    {\n      \"c\": \"x:{,\\\" }\"\n    }\n  ],\n  \"a\": {},\n  \"e\": []\n}";
        assert_eq!(String::from_utf8(indent(text)).unwrap(), wanted);
    }
}
