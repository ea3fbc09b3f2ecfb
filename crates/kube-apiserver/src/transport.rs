//! The way of the process's own components to the server: the same service, called without a socket.

use crate::filters::Caller;
use crate::respond::BodyError;
use crate::{Api, body::RequestBody};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use registry::UserInfo;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Sends requests as one fixed user. Filters, authorization first, apply as on the wire.
pub struct InProcess {
    api: Arc<Api>,
    user: UserInfo,
}

impl InProcess {
    pub fn new(api: Arc<Api>, mut user: UserInfo) -> Self {
        let everyone = "system:authenticated";
        if !user.groups.iter().any(|group| group == everyone) {
            user.groups.push(everyone.into());
        }
        InProcess { api, user }
    }
}

impl client::Transport for InProcess {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<client::Response, client::Error>> {
        let api = Arc::clone(&self.api);
        let caller = Caller::InProcess(self.user.clone());
        Box::pin(async move {
            let response = api.handle(caller, request.map(RequestBody::Whole)).await;
            Ok(response.map(|body| {
                let body = body.map_err(|error: BodyError| client::Error::transport("in process", error));
                // The client's body must be shareable between threads; only one of them ever polls it.
                SyncBody(Mutex::new(body)).boxed()
            }))
        })
    }
}

/// Makes a body shareable that is only ever polled by its one owner, so the lock is never taken.
struct SyncBody<B>(Mutex<B>);

impl<B: http_body::Body + Unpin> http_body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(self.0.get_mut()).poll_frame(context)
    }
}
