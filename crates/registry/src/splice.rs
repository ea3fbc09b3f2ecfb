//! Protobuf documents by bytes: where the message and its metadata lie, and the same document with a resourceVersion.
//!
//! Invariant: in every stored kind `metadata` is field 1, and `resourceVersion` is field 6 of the metadata. Stored
//! documents hold no resourceVersion; appending the field to the metadata and re-lengthing what is around it gives
//! the document that readers see, without decoding it.

use api::codec::MAGIC;
use meta::json::Reader;
use meta::proto::{self, Wire};
use std::collections::BTreeMap;
use std::ops::Range;

const TYPE_META: u32 = 1;
const RAW: u32 = 2;
const METADATA: u32 = 1;
const RESOURCE_VERSION: u32 = 6;
const LABELS: u32 = 11;

/// Where the parts of a document lie, as offsets into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The message inside the envelope.
    raw: (u32, u32),
    /// The payload of the message's metadata field, and where the field as a whole begins.
    metadata: (u32, u32),
    metadata_field: u32,
}

fn span(start: usize, end: usize) -> Result<(u32, u32), proto::Error> {
    let narrow = |at: usize| u32::try_from(at).map_err(|_| proto::Error::Overflow);
    Ok((narrow(start)?, narrow(end)?))
}

fn range(span: (u32, u32)) -> Range<usize> {
    span.0 as usize..span.1 as usize
}

/// The span of `part` inside `whole`, which it is a slice of.
fn within(whole: &[u8], part: &[u8]) -> (usize, usize) {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    (start, start + part.len())
}

impl Layout {
    /// Finds the parts of a document. Metadata that is absent lies, empty, at the start of the message.
    pub fn of(document: &[u8]) -> Result<Self, api::codec::Error> {
        let body = document.strip_prefix(MAGIC).ok_or(api::codec::Error::Magic)?;
        let mut raw: &[u8] = &body[body.len()..];
        proto::fields(body, |tag, wire| {
            if tag == RAW {
                raw = wire.bytes()?;
            }
            Ok(())
        })?;
        let (raw_start, raw_end) = within(document, raw);
        let mut metadata = None;
        let mut field_start = raw_start;
        let mut next = raw_start;
        proto::fields(raw, |tag, wire| {
            if let Wire::Bytes(payload) = wire {
                let (start, end) = within(document, payload);
                if tag == METADATA && metadata.is_none() {
                    metadata = Some((start, end));
                    field_start = next;
                }
                next = end;
            } else if metadata.is_none() {
                // Upstream writes metadata first; a scalar before it leaves no trace of where it ended.
                next = raw_start;
            }
            Ok(())
        })?;
        let (start, end) = metadata.unwrap_or((raw_start, raw_start));
        Ok(Layout {
            raw: span(raw_start, raw_end)?,
            metadata: span(start, end)?,
            metadata_field: span(field_start, field_start)?.0,
        })
    }

    pub fn raw<'a>(&self, document: &'a [u8]) -> &'a [u8] {
        &document[range(self.raw)]
    }

    pub fn metadata<'a>(&self, document: &'a [u8]) -> &'a [u8] {
        &document[range(self.metadata)]
    }

    /// How long `append_raw` writes.
    fn raw_len(&self, version: &str) -> usize {
        let raw = range(self.raw).len();
        if version.is_empty() {
            return raw;
        }
        let old = (self.metadata.1 - self.metadata_field) as usize;
        let payload = range(self.metadata).len() + field_len(version.len());
        raw - old + field_len(payload)
    }

    /// Appends the message, without its envelope, with `version` as resourceVersion (none where empty).
    pub fn append_raw(&self, document: &[u8], version: &str, out: &mut Vec<u8>) {
        let raw = range(self.raw);
        if version.is_empty() {
            out.extend_from_slice(&document[raw]);
            return;
        }
        let metadata = range(self.metadata);
        out.extend_from_slice(&document[raw.start..self.metadata_field as usize]);
        proto::write_varint(u64::from(METADATA) << 3 | 2, out);
        proto::write_varint((metadata.len() + field_len(version.len())) as u64, out);
        out.extend_from_slice(&document[metadata.clone()]);
        proto::write_bytes(RESOURCE_VERSION, version.as_bytes(), out);
        out.extend_from_slice(&document[metadata.end..raw.end]);
    }

    /// Appends the whole document with `version` as resourceVersion.
    pub fn append_document(&self, document: &[u8], version: &str, out: &mut Vec<u8>) {
        let raw = range(self.raw);
        let length = self.raw_len(version);
        // The key of field 2 is one byte; its length is what may change.
        let header = raw.start - varint_len(raw.len() as u64) - 1;
        out.reserve(document.len() + length.saturating_sub(raw.len()) + 8);
        out.extend_from_slice(&document[..header]);
        proto::write_varint(u64::from(RAW) << 3 | 2, out);
        proto::write_varint(length as u64, out);
        self.append_raw(document, version, out);
        out.extend_from_slice(&document[raw.end..]);
    }
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The length of a length-delimited field whose tag is below 16.
fn field_len(payload: usize) -> usize {
    1 + varint_len(payload as u64) + payload
}

/// The labels of encoded metadata, in its order.
pub fn labels(metadata: &[u8]) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    // What cannot be read selects nothing; it was refused when it was written.
    let _ = proto::fields(metadata, |tag, wire| {
        if tag == LABELS {
            let (mut key, mut value) = (String::new(), String::new());
            proto::fields(wire.bytes()?, |tag, wire| {
                match tag {
                    1 => key = wire.string()?,
                    2 => value = wire.string()?,
                    _ => {}
                }
                Ok(())
            })?;
            labels.insert(key, value);
        }
        Ok(())
    });
    labels
}

/// The apiVersion that a document of JSON states.
pub fn json_api_version(document: &[u8]) -> Result<String, meta::json::Error> {
    let mut version = String::new();
    each_field(document, |reader, key| {
        if key == "apiVersion" && reader.at_string() {
            version = reader.string()?;
            return Ok(());
        }
        reader.skip()
    })?;
    Ok(version)
}

/// The labels of a document of JSON.
pub fn json_labels(document: &[u8]) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    // What cannot be read selects nothing; it was refused when it was written.
    let _ = each_field(document, |reader, key| {
        if key != "metadata" || !reader.at_object() {
            return reader.skip();
        }
        reader.object("ObjectMeta", |reader, key| {
            if key != "labels" || !reader.at_object() {
                return reader.skip();
            }
            reader.object("map[string]string", |reader, key| {
                let value = reader.string()?;
                labels.insert(key.to_string(), value);
                Ok(())
            })
        })
    });
    labels
}

fn each_field(
    document: &[u8],
    each: impl FnMut(&mut Reader<'_, '_>, &str) -> Result<(), meta::json::Error>,
) -> Result<(), meta::json::Error> {
    let mut notes = meta::json::Notes::default();
    Reader::new(document, &mut notes).object("object", each)
}

/// The apiVersion and kind that the envelope states.
pub fn type_meta(document: &[u8]) -> Result<(String, String), api::codec::Error> {
    let body = document.strip_prefix(MAGIC).ok_or(api::codec::Error::Magic)?;
    let (mut api_version, mut kind) = (String::new(), String::new());
    proto::fields(body, |tag, wire| {
        if tag == TYPE_META {
            proto::fields(wire.bytes()?, |tag, wire| {
                match tag {
                    1 => api_version = wire.string()?,
                    2 => kind = wire.string()?,
                    _ => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    Ok((api_version, kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::{ConfigMap, Pod};

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = "web".into();
        pod.metadata.namespace = "default".into();
        pod.metadata.labels.insert("app".into(), "web".into());
        pod.spec.node_name = "n".repeat(300);
        pod
    }

    fn spliced(document: &[u8], version: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Layout::of(document).expect("a document").append_document(document, version, &mut out);
        out
    }

    #[test]
    fn a_version_is_spliced_in_without_decoding() {
        for length in [0, 1, 90, 100, 110, 120, 5_000, 17_000] {
            let mut pod = pod();
            pod.metadata.annotations.insert("long".into(), "x".repeat(length));
            let stored = api::codec::to_protobuf(&pod);
            let seen: Pod = api::codec::from_protobuf(&spliced(&stored, "12345")).expect("a pod");
            pod.metadata.resource_version = "12345".into();
            assert!(seen == pod, "annotation of {length}");
            assert_eq!(spliced(&stored, ""), stored);
        }
    }

    #[test]
    fn labels_are_read_from_the_metadata() {
        let stored = api::codec::to_protobuf(&pod());
        let layout = Layout::of(&stored).expect("a document");
        assert_eq!(labels(layout.metadata(&stored)), pod().metadata.labels);
        assert_eq!(type_meta(&stored).expect("type"), ("v1".into(), "Pod".into()));
    }

    #[test]
    fn json_tells_its_version_and_labels() {
        let document = br#"{"apiVersion":"a.b/v1","kind":"C","metadata":{"labels":{"x":"y"},"name":"n"},"spec":{"metadata":1}}"#;
        assert_eq!(json_api_version(document).expect("a document"), "a.b/v1");
        assert_eq!(json_labels(document), [("x".to_string(), "y".to_string())].into());
        assert!(json_api_version(b"k8s").is_err());
    }

    #[test]
    fn absent_metadata_is_made() {
        let stored = api::codec::wrap("v1", "ConfigMap", |out| {
            proto::write_nested(2, out, |out| {
                proto::write_bytes(1, b"k", out);
                proto::write_bytes(2, b"v", out);
            })
        });
        let seen: ConfigMap = api::codec::from_protobuf(&spliced(&stored, "7")).expect("a map");
        assert_eq!(seen.metadata.resource_version, "7");
        assert_eq!(seen.data["k"], "v");
    }

    #[test]
    fn what_is_no_document_is_an_error() {
        assert!(Layout::of(b"").is_err());
        assert!(Layout::of(b"{}").is_err());
        assert!(Layout::of(b"k8s\0\x12\x7f").is_err());
    }
}
