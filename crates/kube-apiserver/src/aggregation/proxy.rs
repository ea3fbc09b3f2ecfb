//! Requests on their way to an aggregated server, in the name of the user who asked.

use super::remote::{Remote, identify};
use crate::filters::Passed;
use crate::outbound::pool;
use crate::respond::{self, Body, BodyError};
use crate::{Api, kubelet};
use api::errors::ApiError;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use std::sync::Arc;

/// Plain text, as Go's `http.Error` writes it.
fn refuse(code: StatusCode, text: &str) -> Response<Body> {
    respond::text(code, format!("{text}\n"))
}

impl Api {
    /// Hands the request on. What cannot be reached is a 503 in upstream's words.
    pub(crate) async fn proxy_aggregated(
        self: Arc<Self>,
        passed: Passed,
        remote: Arc<Remote>,
    ) -> Result<Response<Body>, ApiError> {
        if !remote.is_available() {
            return Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
        }
        let client = match &remote.way {
            Ok((_, client)) => client.clone(),
            Err(why) => return Ok(refuse(StatusCode::INTERNAL_SERVER_ERROR, why)),
        };
        let raw = passed.query.raw();
        let query = if raw.is_empty() { String::new() } else { format!("?{raw}") };
        let path = format!("{}{query}", passed.info.path);
        if kubelet::wants_upgrade(&passed.headers) {
            return upgrade(passed, remote, path).await;
        }
        let mut headers = kubelet::forwarded_headers(&passed.headers);
        without_impersonation(&mut headers);
        identify(&mut headers, &passed.request.user);
        let mut request =
            Request::builder().method(passed.method).uri(format!("https://{}{path}", remote.authority()));
        if let Some(out) = request.headers_mut() {
            *out = headers;
        }
        let request = request.body(passed.body.stream()).map_err(ApiError::internal)?;
        match client.request(request).await {
            Ok(mut response) => {
                kubelet::drop_hop_by_hop(response.headers_mut());
                Ok(response.map(|body| body.map_err(BodyError::other).boxed_unsync()))
            }
            Err(error) => {
                // Whoever does not answer is looked at again at once.
                remote.look.notify_one();
                Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, &pool::cause(&error)))
            }
        }
    }
}

fn without_impersonation(headers: &mut HeaderMap) {
    let names: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Switches protocols with the server behind, and carries bytes both ways.
async fn upgrade(passed: Passed, remote: Arc<Remote>, path: String) -> Result<Response<Body>, ApiError> {
    let mut client = Request::builder().method(passed.method.clone()).uri("/");
    if let Some(headers) = client.headers_mut() {
        *headers = passed.headers.clone();
        headers.remove(header::AUTHORIZATION);
    }
    let mut client = client.body(()).map_err(ApiError::internal)?;
    *client.extensions_mut() = passed.extensions;
    let (method, user) = (passed.method, passed.request.user);
    let connect: streaming::Connect = Box::new(move |headers| {
        Box::pin(async move {
            let (target, _) =
                remote.way.as_ref().map_err(|why| streaming::Error::Unreachable(why.clone()))?;
            let io = target.dial().await.map_err(|error| streaming::Error::Unreachable(error.to_string()))?;
            let mut request = Request::builder().method(method).uri(path);
            if let Some(out) = request.headers_mut() {
                *out = headers;
                identify(out, &user);
                if let Ok(host) = http::HeaderValue::from_str(&remote.authority()) {
                    out.insert(header::HOST, host);
                }
            }
            let request = request
                .body(http_body_util::Empty::new())
                .map_err(|error| streaming::Error::Refused(error.to_string()))?;
            streaming::request_upgrade(io, request).await
        })
    });
    let response = streaming::proxy(client, connect).await;
    Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
}
