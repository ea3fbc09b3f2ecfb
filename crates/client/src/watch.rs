//! A watch's answer, cut into events: length-prefixed protobuf frames, or one JSON document a line.

use crate::Error;
use crate::transport::Body;
use api::codec;
use api::errors::ApiError;
use api::meta::v1::Status;
use api::{Object, Typed};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use meta::{json, proto};
use std::marker::PhantomData;

/// The largest event taken: an object is at most about 1.5 MiB at rest, and JSON can be several times that.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// The annotation of the bookmark that ends the initial events of a streaming list.
pub const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One change to the watched collection.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    /// Everything up to this revision has been delivered.
    Bookmark {
        resource_version: String,
        initial_events_end: bool,
    },
}

/// How events are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    pub(crate) fn of(content_type: &str) -> Self {
        if content_type.starts_with("application/vnd.kubernetes.protobuf") {
            Encoding::Protobuf
        } else {
            Encoding::Json
        }
    }
}

/// Decodes one object of the watched kind.
pub(crate) fn decode_into(
    object: &mut dyn meta::Message,
    bytes: &[u8],
    encoding: Encoding,
) -> Result<(), Error> {
    match encoding {
        Encoding::Json => json::decode(object, bytes, &mut json::Notes::default())
            .map_err(|error| Error::Decode(error.to_string())),
        Encoding::Protobuf => {
            let envelope = codec::open(bytes).map_err(|error| Error::Decode(error.to_string()))?;
            proto::merge(object, envelope.raw).map_err(|error| Error::Decode(error.to_string()))
        }
    }
}

/// Events not yet decoded.
pub(crate) struct Frames {
    body: Body,
    buffer: BytesMut,
    encoding: Encoding,
    /// How far the buffer has been searched for the end of a line.
    searched: usize,
}

impl Frames {
    pub(crate) fn new(body: Body, encoding: Encoding) -> Self {
        Frames { body, buffer: BytesMut::new(), encoding, searched: 0 }
    }

    /// The next frame that has arrived in full already.
    fn buffered(&mut self) -> Result<Option<Bytes>, Error> {
        let frame = match self.encoding {
            Encoding::Protobuf => {
                if self.buffer.len() < 4 {
                    return Ok(None);
                }
                let length =
                    u32::from_be_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]])
                        as usize;
                if length > FRAME_BYTES_MAX {
                    return Err(Error::TooLarge { limit: FRAME_BYTES_MAX });
                }
                if self.buffer.len() < 4 + length {
                    self.buffer.reserve(4 + length - self.buffer.len());
                    return Ok(None);
                }
                self.buffer.advance(4);
                self.buffer.split_to(length).freeze()
            }
            Encoding::Json => loop {
                let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                    self.searched = self.buffer.len();
                    if self.searched > FRAME_BYTES_MAX {
                        return Err(Error::TooLarge { limit: FRAME_BYTES_MAX });
                    }
                    return Ok(None);
                };
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    break line;
                }
            },
        };
        Ok(Some(frame))
    }

    /// The next frame; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                None => {
                    let rest = std::mem::take(&mut self.buffer);
                    let whole = self.encoding == Encoding::Json && !rest.trim_ascii().is_empty();
                    return Ok(whole.then(|| rest.freeze()));
                }
                Some(Err(error)) => return Err(error),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

/// An event whose object is not decoded.
struct RawEvent {
    kind: String,
    object: Bytes,
}

fn raw_event(frame: &Bytes, encoding: Encoding) -> Result<RawEvent, Error> {
    match encoding {
        Encoding::Json => {
            #[derive(serde::Deserialize)]
            struct Shape<'a> {
                r#type: String,
                #[serde(borrow)]
                object: &'a serde_json::value::RawValue,
            }
            let shape: Shape<'_> =
                serde_json::from_slice(frame).map_err(|error| Error::Decode(error.to_string()))?;
            Ok(RawEvent { kind: shape.r#type, object: frame.slice_ref(shape.object.get().as_bytes()) })
        }
        Encoding::Protobuf => {
            let mut event = RawEvent { kind: String::new(), object: Bytes::new() };
            proto::fields(frame, |tag, wire| {
                match tag {
                    1 => event.kind = wire.string()?,
                    2 => proto::fields(wire.bytes()?, |tag, wire| {
                        if tag == 1 {
                            event.object = frame.slice_ref(wire.bytes()?);
                        }
                        Ok(())
                    })?,
                    _ => {}
                }
                Ok(())
            })
            .map_err(|error| Error::Decode(error.to_string()))?;
            Ok(event)
        }
    }
}

/// A running watch of objects of one kind, made by `new`.
pub(crate) struct ObjectWatcher {
    frames: Frames,
    new: fn() -> Box<dyn Object>,
    /// After an error nothing more is read: what follows cannot be trusted.
    failed: bool,
}

impl ObjectWatcher {
    pub(crate) fn new(frames: Frames, new: fn() -> Box<dyn Object>) -> Self {
        ObjectWatcher { frames, new, failed: false }
    }

    /// The next event; `None` when the server ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Result<WatchEvent<Box<dyn Object>>, Error>> {
        if self.failed {
            return None;
        }
        let frame = self.frames.next().await;
        self.settle(frame)
    }

    fn settle(
        &mut self,
        frame: Result<Option<Bytes>, Error>,
    ) -> Option<Result<WatchEvent<Box<dyn Object>>, Error>> {
        let event = frame.and_then(|frame| frame.map(|frame| self.event(&frame)).transpose()).transpose();
        self.failed = matches!(event, Some(Err(_)));
        event
    }

    /// The next event that needs no waiting.
    pub(crate) fn buffered(&mut self) -> Option<Result<WatchEvent<Box<dyn Object>>, Error>> {
        if self.failed {
            return None;
        }
        let frame = self.frames.buffered();
        self.settle(frame)
    }

    fn event(&self, frame: &Bytes) -> Result<WatchEvent<Box<dyn Object>>, Error> {
        let encoding = self.frames.encoding;
        let raw = raw_event(frame, encoding)?;
        if raw.kind == "ERROR" {
            let mut status = Status::default();
            decode_into(&mut status, &raw.object, encoding)?;
            return Err(Error::Api(ApiError::from_status(&status)));
        }
        let mut object = (self.new)();
        decode_into(object.as_dyn_mut(), &raw.object, encoding)?;
        match raw.kind.as_str() {
            "ADDED" => Ok(WatchEvent::Added(object)),
            "MODIFIED" => Ok(WatchEvent::Modified(object)),
            "DELETED" => Ok(WatchEvent::Deleted(object)),
            "BOOKMARK" => Ok(WatchEvent::Bookmark {
                resource_version: object.metadata().resource_version.clone(),
                initial_events_end: object
                    .metadata()
                    .annotations
                    .get(INITIAL_EVENTS_END)
                    .is_some_and(|value| value == "true"),
            }),
            other => Err(Error::Decode(format!("watch event of unknown type {other:?}"))),
        }
    }
}

/// A running watch of one kind.
pub struct Watcher<T> {
    inner: ObjectWatcher,
    kind: PhantomData<fn() -> T>,
}

impl<T: Typed + Object> Watcher<T> {
    pub(crate) fn new(frames: Frames) -> Self {
        Watcher { inner: ObjectWatcher::new(frames, || Box::new(T::default())), kind: PhantomData }
    }

    /// The next event; `None` when the server ended the watch, which it does in the normal course of things.
    pub async fn next(&mut self) -> Option<Result<WatchEvent<T>, Error>> {
        let event = self.inner.next().await?;
        Some(event.and_then(|event| {
            Ok(match event {
                WatchEvent::Added(object) => WatchEvent::Added(own(object)?),
                WatchEvent::Modified(object) => WatchEvent::Modified(own(object)?),
                WatchEvent::Deleted(object) => WatchEvent::Deleted(own(object)?),
                WatchEvent::Bookmark { resource_version, initial_events_end } => {
                    WatchEvent::Bookmark { resource_version, initial_events_end }
                }
            })
        }))
    }
}

fn own<T: Object>(object: Box<dyn Object>) -> Result<T, Error> {
    let object = object.into_any().downcast::<T>();
    object.map(|object| *object).map_err(|_| Error::Decode("an object of another kind".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::full;
    use api::core::v1::ConfigMap;

    fn map(name: &str, revision: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = name.into();
        map.metadata.resource_version = revision.into();
        map
    }

    async fn names(body: Vec<u8>, encoding: Encoding) -> Vec<String> {
        let mut watcher = Watcher::<ConfigMap>::new(Frames::new(full(body), encoding));
        let mut seen = Vec::new();
        while let Some(event) = watcher.next().await {
            seen.push(match event {
                Ok(WatchEvent::Added(map)) => format!("added {}", map.metadata.name),
                Ok(WatchEvent::Modified(map)) => format!("modified {}", map.metadata.name),
                Ok(WatchEvent::Deleted(map)) => format!("deleted {}", map.metadata.name),
                Ok(WatchEvent::Bookmark { resource_version, initial_events_end }) => {
                    format!("bookmark {resource_version} {initial_events_end}")
                }
                Err(error) => format!("error {error}"),
            });
        }
        seen
    }

    #[tokio::test]
    async fn json_lines_are_events() {
        let mut bookmark = map("", "9");
        bookmark.metadata.annotations.insert(INITIAL_EVENTS_END.into(), "true".into());
        let mut body = Vec::new();
        for (kind, map) in [("ADDED", map("a", "1")), ("DELETED", map("b", "2")), ("BOOKMARK", bookmark)] {
            body.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
            body.extend_from_slice(&codec::to_json(&map));
            body.extend_from_slice(b"}\n\n");
        }
        body.extend_from_slice(
            br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version: 1 (2)","reason":"Expired","code":410}}"#,
        );
        assert_eq!(
            names(body, Encoding::Json).await,
            ["added a", "deleted b", "bookmark 9 true", "error too old resource version: 1 (2)"]
        );
    }

    #[tokio::test]
    async fn protobuf_frames_are_events() {
        let mut body = Vec::new();
        for (kind, map) in [("ADDED", map("a", "1")), ("MODIFIED", map("a", "2"))] {
            let mut frame = Vec::new();
            proto::write_bytes(1, kind.as_bytes(), &mut frame);
            proto::write_nested(2, &mut frame, |out| {
                proto::write_bytes(1, &codec::to_protobuf(&map), out);
            });
            body.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            body.extend_from_slice(&frame);
        }
        body.extend_from_slice(&[0, 0]);
        assert_eq!(names(body, Encoding::Protobuf).await, ["added a", "modified a"]);
        let refused = names(vec![0xff, 0xff, 0xff, 0xff, 0], Encoding::Protobuf).await;
        assert!(refused[0].contains("exceeds"), "{refused:?}");
    }
}
