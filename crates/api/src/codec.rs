//! Whole documents: JSON, YAML, and protobuf in upstream's envelope.

use crate::generated::kinds::KINDS;
use crate::{Kind, Object, Typed};
use meta::json::Notes;
use meta::{Message, json, proto};

/// What every protobuf document starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Json(#[from] json::Error),
    #[error(transparent)]
    Proto(#[from] proto::Error),
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind { api_version: String, kind: String },
}

/// The envelope around a protobuf document.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

/// Opens the envelope, leaving the message inside undecoded.
pub fn open(input: &[u8]) -> Result<Envelope<'_>, Error> {
    let body = input.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let mut envelope = Envelope::default();
    proto::fields(body, |tag, wire| {
        match tag {
            1 => proto::fields(wire.bytes()?, |tag, wire| {
                match tag {
                    1 => envelope.api_version = wire.string()?,
                    2 => envelope.kind = wire.string()?,
                    _ => {}
                }
                Ok(())
            })?,
            2 => envelope.raw = wire.bytes()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(envelope)
}

/// Wraps encoded fields: magic, type, bytes, and the two empty encoding fields that upstream always writes.
pub fn wrap(api_version: &str, kind: &str, raw: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(MAGIC);
    proto::write_nested(1, &mut out, |out| {
        proto::write_bytes(1, api_version.as_bytes(), out);
        proto::write_bytes(2, kind.as_bytes(), out);
    });
    proto::write_nested(2, &mut out, raw);
    proto::write_bytes(3, b"", &mut out);
    proto::write_bytes(4, b"", &mut out);
    out
}

/// A typed message as a protobuf document.
pub fn to_protobuf(message: &dyn Message) -> Vec<u8> {
    let (api_version, kind) =
        message.descriptor().gvk.map_or_else(Default::default, |gvk| (gvk.api_version(), gvk.kind));
    wrap(&api_version, kind, |out| proto::write_fields(message, out))
}

/// Reads a protobuf document of a type known beforehand.
pub fn from_protobuf<T: Typed>(input: &[u8]) -> Result<T, Error> {
    let mut message = T::default();
    proto::merge(&mut message, open(input)?.raw)?;
    Ok(message)
}

pub fn to_json(message: &dyn Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    json::encode(message, &mut out);
    out
}

/// Reads JSON of a type known beforehand, passing over unknown fields.
pub fn from_json<T: Message + Default>(input: &[u8]) -> Result<T, Error> {
    let mut message = T::default();
    json::decode(&mut message, input, &mut Notes::default())?;
    Ok(message)
}

/// A message as a JSON tree, for patches.
pub fn to_value(message: &dyn Message) -> serde_json::Value {
    // What the encoder writes is JSON: there is nothing to refuse.
    serde_json::from_slice(&to_json(message)).unwrap_or_default()
}

pub fn from_value<T: Message + Default>(value: &serde_json::Value) -> Result<T, Error> {
    from_json(value.to_string().as_bytes())
}

/// One YAML document as JSON text.
pub fn yaml_to_json(input: &[u8]) -> Result<Vec<u8>, Error> {
    let text = std::str::from_utf8(input).map_err(|error| Error::Yaml(error.to_string()))?;
    let value: serde_json::Value =
        serde_saphyr::from_str(text).map_err(|error| Error::Yaml(error.to_string()))?;
    Ok(value.to_string().into_bytes())
}

/// A typed message as YAML.
pub fn to_yaml(message: &dyn Message) -> Result<String, Error> {
    value_to_yaml(&to_value(message))
}

/// A JSON tree as YAML.
pub fn value_to_yaml(value: &serde_json::Value) -> Result<String, Error> {
    serde_saphyr::to_string(value).map_err(|error| Error::Yaml(error.to_string()))
}

/// The kind that `apiVersion` and `kind` name.
pub fn find_kind(api_version: &str, kind: &str) -> Result<&'static Kind, Error> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    KINDS
        .iter()
        .find(|known| {
            known
                .descriptor
                .gvk
                .is_some_and(|gvk| gvk.kind == kind && gvk.group == group && gvk.version == version)
        })
        .ok_or_else(|| Error::UnknownKind { api_version: api_version.into(), kind: kind.into() })
}

/// The text forms in which a whole object travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    Json,
    Yaml,
    Protobuf,
}

impl MediaType {
    /// The media type without parameters, as `Content-Type` names it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split(';').next().unwrap_or_default().trim() {
            "application/json" => Some(MediaType::Json),
            "application/yaml" => Some(MediaType::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(MediaType::Protobuf),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            MediaType::Json => "application/json",
            MediaType::Yaml => "application/yaml",
            MediaType::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// Reads a message of a known kind; `notes` gets unknown and duplicate fields of the text forms.
pub fn decode(
    message: &mut dyn Message,
    input: &[u8],
    media: MediaType,
    notes: &mut Notes,
) -> Result<(), Error> {
    match media {
        MediaType::Json => json::decode(message, input, notes)?,
        MediaType::Yaml => json::decode(message, &yaml_to_json(input)?, notes)?,
        MediaType::Protobuf => proto::merge(message, open(input)?.raw)?,
    }
    Ok(())
}

/// Reads an object of a known kind. Kinds without metadata are refused as unknown.
pub fn decode_object(
    kind: &Kind,
    input: &[u8],
    media: MediaType,
    notes: &mut Notes,
) -> Result<Box<dyn Object>, Error> {
    let make = kind.object.ok_or_else(|| Error::UnknownKind {
        api_version: kind.descriptor.gvk.map_or_else(String::new, |gvk| gvk.api_version()),
        kind: kind.descriptor.name.into(),
    })?;
    let mut object = make();
    decode(object.as_dyn_mut(), input, media, notes)?;
    Ok(object)
}

pub fn encode(message: &dyn Message, media: MediaType) -> Result<Vec<u8>, Error> {
    Ok(match media {
        MediaType::Json => to_json(message),
        MediaType::Yaml => to_yaml(message)?.into_bytes(),
        MediaType::Protobuf => to_protobuf(message),
    })
}

/// An object as the store keeps it: upstream's envelope around protobuf; JSON where the kind has no protobuf.
pub fn to_stored(object: &dyn Object) -> Vec<u8> {
    if object.descriptor().wire_order.is_empty() {
        to_json(object.as_dyn())
    } else {
        to_protobuf(object.as_dyn())
    }
}

/// Reads what the store keeps, finding the kind in the envelope.
pub fn from_stored(input: &[u8]) -> Result<Box<dyn Object>, Error> {
    let envelope = open(input)?;
    let kind = find_kind(&envelope.api_version, &envelope.kind)?;
    let make = kind.object.ok_or_else(|| Error::UnknownKind {
        api_version: envelope.api_version.clone(),
        kind: envelope.kind.clone(),
    })?;
    let mut object = make();
    proto::merge(object.as_dyn_mut(), envelope.raw)?;
    Ok(object)
}
