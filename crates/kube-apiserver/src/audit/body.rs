//! Bodies as the audit log tells them: JSON, whatever they came as.

use super::Record;
use super::policy::Stage;
use crate::respond::{self, Body, BodyError};
use bytes::Bytes;
use http::{Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::Value;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A body as JSON; `None` for what is no object.
pub fn value(body: &Bytes, content_type: &str) -> Option<Value> {
    if content_type.contains("protobuf") {
        let object = api::codec::from_stored(body).ok()?;
        return Some(api::codec::to_value(object.as_dyn()));
    }
    if content_type.contains("yaml") {
        let text = api::codec::yaml_to_json(body).ok()?;
        return serde_json::from_slice(&text).ok();
    }
    serde_json::from_slice(body).ok()
}

/// Reads an answer's body, and gives the answer back whole.
pub async fn read(response: Response<Body>) -> (Response<Body>, Option<Value>) {
    let (parts, body) = response.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return (Response::from_parts(parts, respond::full(Bytes::new())), None);
    };
    let kind =
        parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let object = if kind.contains("json") || kind.contains("protobuf") || kind.contains("yaml") {
        value(&body, kind).filter(Value::is_object)
    } else {
        None
    };
    (Response::from_parts(parts, respond::full(body)), object)
}

/// A long answer, whose end is told.
pub fn until_end(response: Response<Body>, record: Arc<Record>) -> Response<Body> {
    let (parts, inner) = response.into_parts();
    Response::from_parts(parts, Watched { inner, end: End(Some(record)) }.boxed_unsync())
}

struct Watched {
    inner: Body,
    end: End,
}

/// Tells the end once, however it comes.
struct End(Option<Arc<Record>>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(record) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { record.tell(Stage::ResponseComplete).await });
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            drop(std::mem::replace(&mut self.end, End(None)));
        }
        polled
    }
}
