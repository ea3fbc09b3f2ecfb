//! A watch as an answer: one frame an event, for as long as the client stays or its time lasts.

use crate::negotiate::{Encoding, Output, Shape};
use crate::respond::{self, Body, BodyError};
use crate::table::{self, ListHead};
use api::errors::ApiError;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use meta::{Time, json, proto};
use registry::{Event, Watcher};
use resources::Resource;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Events that are ready together go out as one frame, up to this size.
const FRAME_BYTES: usize = 64 * 1024;

/// A watch, what it writes, and when it ends.
pub struct Watch {
    pub resource: &'static dyn Resource,
    pub watcher: Watcher,
    pub output: Output,
    pub bookmarks: bool,
    pub lasts: Duration,
    pub shutdown: CancellationToken,
    /// Dropped with the body: counts the watch while it is open.
    pub _guard: Box<dyn Send>,
    pub now: fn() -> Time,
}

struct State {
    watch: Watch,
    ends: tokio::time::Instant,
    /// Column definitions are sent with the first table only.
    columns: bool,
    ended: bool,
}

/// The answer whose body is the watch.
pub fn answer(watch: Watch) -> Response<Body> {
    let media_type = match watch.output.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let ends = tokio::time::Instant::now() + watch.lasts;
    let state = State { watch, ends, columns: true, ended: false };
    let frames = futures::stream::unfold(state, |mut state| async move {
        let frame = state.next_frame().await?;
        Some((frame.map(Frame::data), state))
    });
    let mut response = respond::bytes(StatusCode::OK, media_type, Bytes::new());
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    response
}

impl State {
    /// The next events as one frame; `None` ends the body.
    async fn next_frame(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.ended {
            return None;
        }
        let event = tokio::select! {
            event = self.watch.watcher.recv() => event,
            () = tokio::time::sleep_until(self.ends) => self.last_bookmark(),
            () = self.watch.shutdown.cancelled() => None,
        };
        let mut out = Vec::new();
        let mut next = Some(event?);
        while let Some(event) = next {
            self.ended |= matches!(event, Event::Error(_));
            if let Err(error) = self.write(&event, &mut out) {
                self.ended = true;
                self.write_error(&error, &mut out);
            }
            next = if self.ended || out.len() >= FRAME_BYTES { None } else { self.watch.watcher.try_recv() };
        }
        Some(Ok(out.into()))
    }

    /// Before a watch's time is over, a bookmark saves its client from reading again what it has seen.
    fn last_bookmark(&mut self) -> Option<Event> {
        self.ended = true;
        if self.watch.bookmarks { self.watch.watcher.bookmark() } else { None }
    }

    fn write(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let Some(object) = event.object() else {
            if let Event::Error(error) = event {
                self.write_error(error, out);
            }
            return Ok(());
        };
        let output = self.watch.output;
        if output.encoding == Encoding::Protobuf {
            let document = match output.shape {
                Shape::Object => object.proto(),
                _ => api::codec::wrap(output.meta_version(), "PartialObjectMetadata", |out| {
                    if let Ok(object) = object.object() {
                        table::metadata_proto(object.metadata(), out);
                    }
                })
                .into(),
            };
            write_proto_frame(event.kind(), &document, out);
            return Ok(());
        }
        let start = out.len();
        open_json(event.kind(), out);
        let written = self.write_json_object(object, out);
        if written.is_err() {
            out.truncate(start);
        } else {
            out.extend_from_slice(b"}\n");
        }
        written
    }

    fn write_json_object(
        &mut self,
        object: &Arc<registry::Encoded>,
        out: &mut Vec<u8>,
    ) -> Result<(), ApiError> {
        let output = self.watch.output;
        match output.shape {
            Shape::Object => out.extend_from_slice(&object.json()?),
            Shape::Table => {
                let head = ListHead { revision: object.resource_version(), ..ListHead::default() };
                let columns = std::mem::take(&mut self.columns);
                out.extend_from_slice(&table::open(self.watch.resource, &head, output, columns));
                table::row(self.watch.resource, object, output, (self.watch.now)(), out)?;
                out.extend_from_slice(table::CLOSE);
            }
            Shape::Metadata | Shape::MetadataList => {
                table::metadata_json(&*object.object()?, output, true, out);
            }
        }
        Ok(())
    }

    fn write_error(&self, error: &ApiError, out: &mut Vec<u8>) {
        let status = error.to_status();
        if self.watch.output.encoding == Encoding::Protobuf {
            write_proto_frame("ERROR", &api::codec::to_protobuf(&status), out);
            return;
        }
        open_json("ERROR", out);
        json::encode(&status, out);
        out.extend_from_slice(b"}\n");
    }
}

fn open_json(kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(br#"","object":"#);
}

/// Four bytes of length, then a WatchEvent: type 1, and in 2 a RawExtension whose raw 1 is the whole document.
fn write_proto_frame(kind: &str, document: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    proto::write_bytes(1, kind.as_bytes(), out);
    proto::write_nested(2, out, |out| proto::write_bytes(1, document, out));
    let length = u32::try_from(out.len() - start - 4).expect("an event is far smaller than 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
