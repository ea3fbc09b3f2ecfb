//! The client against scripted answers, and against a real TLS server.

mod following;
mod over_tls;

use crate::{Client, Error, Response, Transport, full};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Answers requests by a function.
struct Scripted<F>(F);

impl<F> Transport for Scripted<F>
where
    F: Fn(http::Request<Bytes>) -> Result<Response, Error> + Send + Sync + 'static,
{
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<Response, Error>> {
        let answer = (self.0)(request);
        Box::pin(async move { answer })
    }
}

fn scripted(
    answer: impl Fn(http::Request<Bytes>) -> Result<Response, Error> + Send + Sync + 'static,
) -> Client {
    Client::new(Arc::new(Scripted(answer)))
}

fn json(code: u16, body: impl Into<Bytes>) -> Response {
    http::Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(full(body))
        .expect("the parts are valid")
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message
    });
    json(code, body.to_string())
}
