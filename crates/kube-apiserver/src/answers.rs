//! Stored objects as answers: one, or a list that is spliced from the bytes all readers share.

use crate::chunks::{self, Pieces};
use crate::negotiate::{Encoding, Output, Shape};
use crate::respond::{self, Body, BodyError};
use crate::table::{self, ListHead};
use api::errors::ApiError;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use meta::{Time, json, proto};
use registry::{Encoded, ListResult};
use resources::Resource;
use std::sync::Arc;

/// Answers of at least this many bytes are compressed for who accepts it; upstream's threshold.
const GZIP_FROM: usize = 128 * 1024;
/// How much longer JSON is than the stored protobuf, for reckoning whether a list is worth compressing.
const JSON_FACTOR: usize = 2;

/// One stored object.
pub fn object(
    code: StatusCode,
    resource: &'static dyn Resource,
    found: &Arc<Encoded>,
    output: Output,
    gzip: bool,
    now: Time,
) -> Result<Response<Body>, ApiError> {
    let text = match output.shape {
        Shape::Object if output.encoding == Encoding::Protobuf => {
            return Ok(maybe_gzip(code, Encoding::Protobuf, found.proto(), gzip));
        }
        Shape::Object => found.json()?,
        Shape::Table => {
            let head = ListHead { revision: found.resource_version(), ..ListHead::default() };
            let mut out = table::open(resource, &head, output, true);
            table::row(resource, found, output, now, &mut out)?;
            out.extend_from_slice(table::CLOSE);
            out.into()
        }
        Shape::Metadata if output.encoding == Encoding::Protobuf => {
            let object = found.object()?;
            let out = api::codec::wrap(output.meta_version(), "PartialObjectMetadata", |out| {
                table::metadata_proto(object.metadata(), out);
            });
            return Ok(maybe_gzip(code, Encoding::Protobuf, out.into(), gzip));
        }
        Shape::Metadata => {
            let mut out = Vec::new();
            table::metadata_json(&*found.object()?, output, true, &mut out);
            out.into()
        }
        Shape::MetadataList => {
            return Err(ApiError::not_acceptable(&[crate::negotiate::JSON, crate::negotiate::PROTOBUF]));
        }
    };
    let body = match output.encoding {
        Encoding::Yaml => respond::yaml_text(&text),
        _ => respond::json_text(text, output.pretty),
    };
    Ok(maybe_gzip(code, output.encoding, body, gzip))
}

fn maybe_gzip(code: StatusCode, encoding: Encoding, body: Bytes, gzip: bool) -> Response<Body> {
    if !gzip || body.len() < GZIP_FROM {
        return respond::bytes(code, encoding.media_type(), body);
    }
    let mut response = respond::bytes(code, encoding.media_type(), Bytes::new());
    *response.body_mut() = chunks::body(Box::new(std::iter::once(Ok(body))), true);
    mark_gzip(&mut response);
    response
}

fn mark_gzip(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// A list, in whatever form; streamed unless it has to be indented or turned into YAML.
pub fn list(
    resource: &'static dyn Resource,
    found: ListResult,
    output: Output,
    gzip: bool,
    now: Time,
) -> Result<Response<Body>, ApiError> {
    if output.shape == Shape::Metadata {
        return Err(ApiError::not_acceptable(&[crate::negotiate::JSON, crate::negotiate::PROTOBUF]));
    }
    let head = ListHead {
        revision: found.revision.to_string(),
        continue_token: found.continue_token,
        remaining: found.remaining,
    };
    let size: usize = found.items.iter().map(|item| item.size()).sum();
    let size = if output.encoding == Encoding::Protobuf { size } else { size * JSON_FACTOR };
    let pieces: Pieces = match output.encoding {
        Encoding::Protobuf => protobuf_list(resource, &head, &found.items, output)?,
        _ => match output.shape {
            Shape::Table => json_table(resource, head, found.items, output, now),
            _ => json_list(resource, head, found.items, output),
        },
    };
    let media_type = output.encoding.media_type();
    let small = size < chunks::FRAME_BYTES;
    if small || output.pretty || output.encoding == Encoding::Yaml {
        let mut whole = Vec::with_capacity(size + 256);
        for piece in pieces {
            whole.extend_from_slice(&piece.map_err(ApiError::internal)?);
        }
        let whole = match output.encoding {
            Encoding::Yaml => respond::yaml_text(&whole),
            Encoding::Json => respond::json_text(whole.into(), output.pretty),
            Encoding::Protobuf => whole.into(),
        };
        return Ok(maybe_gzip(StatusCode::OK, output.encoding, whole, gzip));
    }
    let gzip = gzip && size >= GZIP_FROM;
    let mut response = respond::bytes(StatusCode::OK, media_type, Bytes::new());
    *response.body_mut() = chunks::body(pieces, gzip);
    if gzip {
        mark_gzip(&mut response);
    }
    Ok(response)
}

/// Head, items with commas between, and tail.
fn joined(
    head: Vec<u8>,
    items: Vec<Arc<Encoded>>,
    mut item: impl FnMut(&Arc<Encoded>, &mut Vec<u8>) -> Result<(), ApiError> + Send + 'static,
    tail: &'static [u8],
) -> Pieces {
    let middle = items.into_iter().enumerate().map(move |(at, encoded)| {
        let mut out = Vec::with_capacity(encoded.size() * JSON_FACTOR);
        if at > 0 {
            out.push(b',');
        }
        item(&encoded, &mut out).map_err(BodyError::other)?;
        Ok(Bytes::from(out))
    });
    let head = std::iter::once(Ok(Bytes::from(head)));
    Box::new(head.chain(middle).chain(std::iter::once(Ok(Bytes::from_static(tail)))))
}

fn json_table(
    resource: &'static dyn Resource,
    head: ListHead,
    items: Vec<Arc<Encoded>>,
    output: Output,
    now: Time,
) -> Pieces {
    let open = table::open(resource, &head, output, true);
    joined(open, items, move |item, out| table::row(resource, item, output, now, out), table::CLOSE)
}

fn json_list(
    resource: &'static dyn Resource,
    head: ListHead,
    items: Vec<Arc<Encoded>>,
    output: Output,
) -> Pieces {
    let (kind, api_version) = list_kind(resource, output);
    let mut open = Vec::with_capacity(256);
    open.extend_from_slice(br#"{"kind":"#);
    json::write_string(&kind, &mut open);
    open.extend_from_slice(br#","apiVersion":"#);
    json::write_string(&api_version, &mut open);
    open.extend_from_slice(br#","metadata":"#);
    head.write_json(&mut open);
    open.extend_from_slice(br#","items":["#);
    if output.shape == Shape::MetadataList {
        return joined(
            open,
            items,
            move |item, out| {
                table::metadata_json(&*item.object()?, output, false, out);
                Ok(())
            },
            b"]}",
        );
    }
    joined(
        open,
        items,
        |item, out| {
            out.push(b'{');
            out.extend_from_slice(&item.json_item()?);
            Ok(())
        },
        b"]}",
    )
}

fn list_kind(resource: &dyn Resource, output: Output) -> (String, String) {
    if output.shape == Shape::MetadataList {
        return ("PartialObjectMetadataList".into(), output.meta_version().into());
    }
    (resource.list_kind(), resource.gvk().api_version())
}

/// The envelope needs the length of all that follows, so the items are measured before the first byte goes out; each
/// piece is dropped as it is sent.
fn protobuf_list(
    resource: &'static dyn Resource,
    head: &ListHead,
    items: &[Arc<Encoded>],
    output: Output,
) -> Result<Pieces, ApiError> {
    let (kind, api_version) = list_kind(resource, output);
    let metadata = output.shape == Shape::MetadataList;
    let mut body: Vec<Bytes> = Vec::new();
    let mut buffer = Vec::with_capacity(chunks::FRAME_BYTES);
    let mut message = Vec::new();
    proto::write_nested(1, &mut buffer, |out| head.write_proto(out));
    for item in items {
        message.clear();
        if metadata {
            table::metadata_proto(item.object()?.metadata(), &mut message);
        } else {
            item.append_proto_message(&mut message);
        }
        proto::write_bytes(2, &message, &mut buffer);
        if buffer.len() >= chunks::FRAME_BYTES {
            body.push(std::mem::replace(&mut buffer, Vec::with_capacity(chunks::FRAME_BYTES)).into());
        }
    }
    body.push(buffer.into());
    let length: usize = body.iter().map(Bytes::len).sum();
    let mut open = api::codec::MAGIC.to_vec();
    proto::write_nested(1, &mut open, |out| {
        proto::write_bytes(1, api_version.as_bytes(), out);
        proto::write_bytes(2, kind.as_bytes(), out);
    });
    // Field 2, length-delimited.
    proto::write_varint(2 << 3 | 2, &mut open);
    proto::write_varint(length as u64, &mut open);
    let mut close = Vec::new();
    proto::write_bytes(3, b"", &mut close);
    proto::write_bytes(4, b"", &mut close);
    let pieces = std::iter::once(Bytes::from(open)).chain(body).chain(std::iter::once(close.into()));
    Ok(Box::new(pieces.map(Ok)))
}
