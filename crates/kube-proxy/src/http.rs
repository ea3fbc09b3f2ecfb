//! Small answers over HTTP: health and metrics.

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Connections served at once; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take over its request's head.
const HEADER_SECONDS_MAX: u64 = 10;

/// An answer: status, content type, text.
pub type Answer = (u16, &'static str, String);

/// Serves GET requests on `address` by what `answer` says to a path, until the token is cancelled.
pub async fn serve(
    address: SocketAddr,
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    token: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let answer = Arc::new(answer);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = token.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors: others have to give some back first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let (answer, token) = (answer.clone(), token.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let service = service_fn(|request| {
                    let response = respond(&request, &*answer);
                    async move { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(HEADER_SECONDS_MAX))
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    result = connection => if let Err(error) = result {
                        debug!(%error, "Ended a connection");
                    },
                    () = token.cancelled() => {}
                }
            });
        }
    });
    Ok(())
}

fn respond(
    request: &Request<hyper::body::Incoming>,
    answer: &dyn Fn(&str) -> Answer,
) -> Response<Full<Bytes>> {
    let (status, kind, text) = match *request.method() {
        Method::GET | Method::HEAD => answer(request.uri().path()),
        _ => (405, "text/plain; charset=utf-8", "method not allowed\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert("X-Content-Type-Options", hyper::header::HeaderValue::from_static("nosniff"));
    response
}
