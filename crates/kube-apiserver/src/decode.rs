//! Bodies into objects: the kind they must be of, what is wrong with them in upstream's words, and unknown fields as the
//! request wants them treated.

use crate::filters::Passed;
use crate::negotiate::{self, Encoding};
use api::errors::ApiError;
use api::{Object, codec};
use bytes::Bytes;
use meta::json::Notes;
use meta::{Gvk, Message};
use registry::FieldValidation;
use resources::Resource;

/// How much of a body an error repeats.
const SUMMARY: usize = 30;

/// kind and apiVersion as a body states them; empty where it does not.
#[derive(Default, Debug, PartialEq)]
struct Stated {
    kind: String,
    api_version: String,
}

impl Stated {
    fn version(&self) -> &str {
        self.api_version.rsplit('/').next().unwrap_or_default()
    }
}

/// Reads the body as an object of this resource.
pub fn object(passed: &Passed, resource: &dyn Resource, body: &Bytes) -> Result<Box<dyn Object>, ApiError> {
    let mut object = resource.new_object();
    into(passed, object.as_dyn_mut(), resource.gvk(), body)?;
    resource.default(&mut *object);
    Ok(object)
}

/// Reads the body into a message that must be of the kind `wanted`.
pub fn into(passed: &Passed, target: &mut dyn Message, wanted: Gvk, body: &Bytes) -> Result<(), ApiError> {
    let content_type = passed.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let encoding = negotiate::input(content_type)?;
    let mut notes = Notes::default();
    let stated = match encoding {
        Encoding::Protobuf => protobuf(target, wanted, body)?,
        Encoding::Json => json(target, wanted, body, &mut notes)?,
        Encoding::Yaml => {
            let text =
                codec::yaml_to_json(body).map_err(|error| unrecognized(wanted, &error.to_string(), body))?;
            json(target, wanted, &text, &mut notes)?
        }
    };
    report(passed, &stated, wanted, notes)
}

fn json(target: &mut dyn Message, wanted: Gvk, text: &[u8], notes: &mut Notes) -> Result<Stated, ApiError> {
    let stated = peek(text).map_err(|error| {
        unrecognized(wanted, &format!("couldn't get version/kind; json parse error: {error}"), text)
    })?;
    check(&stated, wanted)?;
    meta::json::decode(target, text, notes)
        .map_err(|error| unfit(&stated, wanted, &error.to_string(), text))?;
    Ok(stated)
}

fn protobuf(target: &mut dyn Message, wanted: Gvk, body: &[u8]) -> Result<Stated, ApiError> {
    let envelope = codec::open(body).map_err(|error| unrecognized(wanted, &error.to_string(), body))?;
    let stated = Stated { kind: envelope.kind, api_version: envelope.api_version };
    check(&stated, wanted)?;
    meta::proto::merge(target, envelope.raw)
        .map_err(|error| unfit(&stated, wanted, &error.to_string(), body))?;
    Ok(stated)
}

/// Reads only kind and apiVersion, and the syntax of the rest.
fn peek(text: &[u8]) -> Result<Stated, String> {
    #[derive(Default)]
    struct Sink(Stated);
    let mut notes = Notes::default();
    let mut reader = meta::json::Reader::new(text, &mut notes);
    let mut sink = Sink::default();
    let read = reader.object("struct { APIVersion string; Kind string }", |reader, key| {
        match key {
            "kind" if reader.at_string() => sink.0.kind = reader.string()?,
            "apiVersion" if reader.at_string() => sink.0.api_version = reader.string()?,
            _ => reader.skip()?,
        }
        Ok(())
    });
    read.and_then(|()| reader.end()).map_err(|error| error.to_string())?;
    Ok(sink.0)
}

/// The kind that a body states must be the one that belongs here.
fn check(stated: &Stated, wanted: Gvk) -> Result<(), ApiError> {
    let kind_fits = stated.kind.is_empty() || stated.kind == wanted.kind;
    let wanted_version = wanted.api_version();
    // Options and other messages of meta are read under any group's version.
    let version_fits = stated.api_version.is_empty()
        || stated.api_version == wanted_version
        || (wanted.group == "meta.k8s.io" && stated.api_version == "v1");
    if kind_fits && version_fits {
        return Ok(());
    }
    let known = codec::find_kind(&stated.api_version, &stated.kind).is_ok();
    let why = if !known && !stated.kind.is_empty() && !stated.api_version.is_empty() {
        format!(
            "no kind {:?} is registered for version {:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            stated.kind, stated.api_version
        )
    } else if !kind_fits {
        let version = if stated.api_version.is_empty() { &wanted_version } else { &stated.api_version };
        let short = version.rsplit('/').next().unwrap_or_default();
        format!(
            "converting ({short}.{}) to ({}.{}): unknown conversion",
            stated.kind, wanted.version, wanted.kind
        )
    } else {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({wanted_version})",
            stated.api_version
        )));
    };
    Err(unfit(stated, wanted, &why, b""))
}

fn unfit(stated: &Stated, wanted: Gvk, why: &str, body: &[u8]) -> ApiError {
    if stated.kind.is_empty() && stated.api_version.is_empty() && !body.is_empty() {
        // The kind was filled in from the path, as upstream does before it complains.
        return ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            wanted.kind, wanted.version, wanted.kind
        ));
    }
    let kind = if stated.kind.is_empty() { wanted.kind } else { &stated.kind };
    let version = if stated.api_version.is_empty() { wanted.version } else { stated.version() };
    ApiError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {}: {why}",
        wanted.kind
    ))
}

fn unrecognized(wanted: Gvk, why: &str, body: &[u8]) -> ApiError {
    // Some parsers draw a picture of the place below their first line.
    let why = why.lines().next().unwrap_or_default();
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
        wanted.kind,
        summary(body)
    ))
}

/// The start of a body: as text where it is text, else in hex.
fn summary(body: &[u8]) -> String {
    let head = &body[..body.len().min(SUMMARY)];
    let rest = if body.len() > SUMMARY { " ..." } else { "" };
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if body.is_empty() {
        return "<empty>".into();
    }
    if first == Some(&b'{') {
        return format!("{:?}{rest}", String::from_utf8_lossy(head));
    }
    let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}{rest}")
}

/// Unknown and duplicate fields: refused, told, or passed over.
fn report(passed: &Passed, stated: &Stated, wanted: Gvk, notes: Notes) -> Result<(), ApiError> {
    if notes.0.is_empty() {
        return Ok(());
    }
    match passed.request.field_validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            for note in notes.0 {
                passed.request.warnings.add(note);
            }
            Ok(())
        }
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", notes.0.join(", "));
            Err(unfit(stated, wanted, &why, b"{"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_must_fit_their_place() {
        let wanted = Gvk { group: "apps", version: "v1", kind: "Deployment" };
        let text = |kind: &str, version: &str| {
            check(&Stated { kind: kind.into(), api_version: version.into() }, wanted)
                .map_or_else(|error| error.message, |()| "fits".into())
        };
        assert_eq!(text("", ""), "fits");
        assert_eq!(text("Deployment", "apps/v1"), "fits");
        assert_eq!(
            text("Deployment", "apps/v9"),
            "Deployment in version \"v9\" cannot be handled as a Deployment: no kind \"Deployment\" is registered for version \"apps/v9\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        assert_eq!(
            text("Service", "v1"),
            "Service in version \"v1\" cannot be handled as a Deployment: converting (v1.Service) to (v1.Deployment): unknown conversion"
        );
        assert_eq!(summary(b"{\"a\": 1}"), r#""{\"a\": 1}""#);
    }
}
