//! Bodies of requests: from the wire or whole, read under one limit.

use crate::respond::BodyError;
use api::errors::ApiError;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Longest body of a request, in bytes; upstream's limit for what etcd then has to take.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// A request's body that whoever answers shares with its reader.
///
/// HTTP/2 resets a stream whose request is dropped before its answer has ended, and clients then report a broken stream
/// instead of the answer. So the answer to a request that is refused unread holds on to the rest of it.
#[derive(Clone)]
pub struct Held(Arc<Mutex<Incoming>>);

/// How much of a refused request is read to its end, in bytes and in time, before its stream is cut after all.
const DRAIN_BYTES_MAX: usize = 2 * MAX_BODY;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

impl Held {
    pub fn new(body: Incoming) -> Self {
        Held(Arc::new(Mutex::new(body)))
    }

    /// Reads on what nobody will read, so that the client has sent all before it gets its refusal.
    pub async fn drain(&self) {
        let mut rest = self.clone();
        let reading = async {
            let mut read_bytes = 0;
            while let Some(Ok(frame)) = rest.frame().await {
                read_bytes += frame.data_ref().map_or(0, Bytes::len);
                if read_bytes > DRAIN_BYTES_MAX {
                    break;
                }
            }
        };
        // Past the limit the stream is reset, which most clients understand too.
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, reading).await;
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(context)
    }
    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// An answer's body that lets go of the request only when it has ended.
pub struct Answer<B> {
    body: B,
    _request: Held,
}

impl<B> Answer<B> {
    pub fn new(body: B, request: Held) -> Self {
        Answer { body, _request: request }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body, not yet read.
pub enum RequestBody {
    Wire(Held),
    Whole(Bytes),
}

impl RequestBody {
    /// Reads all of it; more than the limit is a 413, a broken body a 400.
    pub async fn read(self) -> Result<Bytes, ApiError> {
        let too_large = || ApiError::request_entity_too_large(format!("limit is {MAX_BODY}"));
        let mut body = match self {
            RequestBody::Whole(bytes) if bytes.len() > MAX_BODY => return Err(too_large()),
            RequestBody::Whole(bytes) => return Ok(bytes),
            RequestBody::Wire(body) => body,
        };
        if http_body::Body::size_hint(&body).lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let mut first: Option<Bytes> = None;
        let mut gathered = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::bad_request(format!("reading the body: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if gathered.is_empty() && first.is_none() {
                first = Some(data);
                continue;
            }
            if let Some(first) = first.take() {
                gathered.extend_from_slice(&first);
            }
            if gathered.len() + data.len() > MAX_BODY {
                return Err(too_large());
            }
            gathered.extend_from_slice(&data);
        }
        let body = first.unwrap_or_else(|| gathered.freeze());
        if body.len() > MAX_BODY { Err(too_large()) } else { Ok(body) }
    }

    /// The body as a stream without a limit, for proxies.
    pub fn stream(self) -> http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError> {
        match self {
            RequestBody::Wire(body) => body.map_err(BodyError::other).boxed_unsync(),
            RequestBody::Whole(bytes) => crate::respond::full(bytes),
        }
    }
}
