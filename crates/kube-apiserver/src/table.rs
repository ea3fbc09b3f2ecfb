//! Objects as rows of a table, and as bare metadata: what `kubectl get` and metadata informers read.

use crate::negotiate::{IncludeObject, Output};
use api::Object;
use api::errors::ApiError;
use api::meta::v1::ObjectMeta;
use meta::{Time, json, proto};
use registry::Encoded;
use resources::Resource;
use std::sync::Arc;

/// What stands in the metadata of lists and tables.
#[derive(Clone, Debug, Default)]
pub struct ListHead {
    pub revision: String,
    pub continue_token: String,
    pub remaining: Option<i64>,
}

impl ListHead {
    /// The JSON of a ListMeta.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{");
        let mut separate = "";
        let mut text = |out: &mut Vec<u8>, name: &str, value: &str| {
            if !value.is_empty() {
                out.extend_from_slice(format!("{separate}\"{name}\":").as_bytes());
                json::write_string(value, out);
                separate = ",";
            }
        };
        text(out, "resourceVersion", &self.revision);
        text(out, "continue", &self.continue_token);
        if let Some(remaining) = self.remaining {
            out.extend_from_slice(format!("{separate}\"remainingItemCount\":{remaining}").as_bytes());
        }
        out.push(b'}');
    }

    /// The protobuf of a ListMeta: selfLink 1, resourceVersion 2, continue 3, remainingItemCount 4.
    pub fn write_proto(&self, out: &mut Vec<u8>) {
        proto::write_bytes(1, b"", out);
        proto::write_bytes(2, self.revision.as_bytes(), out);
        proto::write_bytes(3, self.continue_token.as_bytes(), out);
        if let Some(remaining) = self.remaining {
            proto::write_varint_field(4, remaining as u64, out);
        }
    }
}

/// The start of a table up to the rows' opening bracket; `columns` are left out in later events of a watch.
pub fn open(resource: &dyn Resource, head: &ListHead, output: Output, columns: bool) -> Vec<u8> {
    let mut out =
        format!(r#"{{"kind":"Table","apiVersion":"{}","metadata":"#, output.meta_version()).into_bytes();
    head.write_json(&mut out);
    out.extend_from_slice(br#","columnDefinitions":["#);
    if columns {
        for (at, column) in resource.columns().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            for (name, value) in [
                (r#"{"name":"#, column.name),
                (r#","type":"#, column.ty),
                (r#","format":"#, column.format),
                (r#","description":"#, column.description),
            ] {
                out.extend_from_slice(name.as_bytes());
                json::write_string(value, &mut out);
            }
            out.extend_from_slice(format!(r#","priority":{}}}"#, column.priority).as_bytes());
        }
    }
    out.extend_from_slice(br#"],"rows":["#);
    out
}

pub const CLOSE: &[u8] = b"]}";

/// One row: its cells, and as much of the object as was asked for.
pub fn row(
    resource: &dyn Resource,
    item: &Arc<Encoded>,
    output: Output,
    now: Time,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    let object = item.object()?;
    out.extend_from_slice(br#"{"cells":["#);
    for (at, cell) in resource.row(&*object, now).iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(cell.to_string().as_bytes());
    }
    out.extend_from_slice(br#"],"object":"#);
    match output.include_object {
        IncludeObject::None => out.extend_from_slice(b"null"),
        IncludeObject::Metadata => metadata_json(&*object, output, true, out),
        IncludeObject::Object => out.extend_from_slice(&item.json()?),
    }
    out.push(b'}');
    Ok(())
}

/// The object as a PartialObjectMetadata; items of a list do not state their kind.
pub fn metadata_json(object: &dyn Object, output: Output, with_kind: bool, out: &mut Vec<u8>) {
    out.push(b'{');
    if with_kind {
        let kind = format!(r#""kind":"PartialObjectMetadata","apiVersion":"{}","#, output.meta_version());
        out.extend_from_slice(kind.as_bytes());
    }
    out.extend_from_slice(br#""metadata":"#);
    json::write_message(object.metadata(), out);
    out.push(b'}');
}

/// The message of a PartialObjectMetadata: metadata is its field 1.
pub fn metadata_proto(metadata: &ObjectMeta, out: &mut Vec<u8>) {
    proto::write_nested(1, out, |out| proto::write_fields(metadata, out));
}
