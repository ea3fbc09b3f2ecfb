//! Decides how an upgrade is asked for, and how one is passed through.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{Connect, Error, Io, PROTOCOL_HEADER, Response, Upstream, plain};

/// How much of an answer that is no upgrade is read.
const MAX_BODY: usize = 64 << 10;
/// How much is carried at a time in each direction of a passed-through connection.
const COPY: usize = 32 << 10;

/// Whether a request asks for an upgrade to a protocol, such as `websocket` or `SPDY/3.1`.
#[must_use]
pub fn is_upgrade<B>(request: &Request<B>, protocol: &str) -> bool {
    asks_for(request.headers(), protocol)
}

pub(crate) fn asks_for(headers: &HeaderMap, protocol: &str) -> bool {
    let lists = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    lists(CONNECTION, "upgrade") && lists(UPGRADE, protocol)
}

/// Whether a request asks for any upgrade.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("upgrade")))
}

/// The headers that ask for SPDY/3.1 with these protocols, the preferred one first.
pub(crate) fn spdy_headers<'a>(protocols: impl IntoIterator<Item = &'a str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, http::HeaderValue::from_static("SPDY/3.1"));
    for protocol in protocols {
        if let Ok(value) = http::HeaderValue::from_str(protocol) {
            headers.append(PROTOCOL_HEADER, value);
        }
    }
    headers
}

/// Asks for an upgrade over a connection (TCP, TLS, a Unix socket) by HTTP/1.1. The request needs `host` and
/// the headers that a [`Connect`] is given; its URI is sent as it is.
///
/// # Errors
/// `Unreachable` if the connection breaks or no HTTP is spoken there.
pub async fn request_upgrade<T>(io: T, request: Request<Empty<Bytes>>) -> Result<Upstream, Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: hyper::Error| Error::Unreachable(format!("error dialing backend: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    let driver = tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(request).await.map_err(broken)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(broken)?;
        let (head, _) = response.into_parts();
        return Ok(Upstream::Switched { head, io: Box::new(TokioIo::new(upgraded)) });
    }
    let (head, mut rest) = response.into_parts();
    let mut body = BytesMut::new();
    while body.len() < MAX_BODY
        && let Some(Ok(frame)) = rest.frame().await
    {
        if let Ok(data) = frame.into_data() {
            body.extend_from_slice(&data[..data.len().min(MAX_BODY - body.len())]);
        }
    }
    driver.abort();
    Ok(Upstream::Answered { head, body: body.freeze() })
}

/// Passes an upgrade through: the server behind is asked with the client's own headers, and if it switches
/// protocols the bytes are carried both ways until both sides have ended. Whatever it answers is the answer.
pub async fn proxy<B>(mut request: Request<B>, connect: Connect) -> Response {
    if !wants_upgrade(request.headers()) {
        return plain(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    let headers = forwarded(request.headers());
    let (head, upstream) = match connect(headers).await {
        Ok(Upstream::Switched { head, io }) => (head, io),
        Ok(Upstream::Answered { head, body }) => return answer(head, body),
        Err(error) => return plain(StatusCode::BAD_GATEWAY, &error.to_string()),
    };
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match client.await {
            Ok(client) => carry(TokioIo::new(client), upstream).await,
            Err(error) => tracing::debug!(%error, "a client did not follow its upgrade"),
        }
    });
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = head.headers;
    response
}

/// The headers of a request that the server behind is to see: all that the upgrade is about.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let about = |name: &HeaderName| {
        *name == CONNECTION
            || *name == UPGRADE
            || name.as_str() == PROTOCOL_HEADER
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str() == "origin"
    };
    headers
        .iter()
        .filter(|(name, _)| about(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// An answer that is no upgrade, as it came.
pub(crate) fn answer(head: http::response::Parts, body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    // The body was read to its end or cut off: it has the length that it has now.
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
        response.headers_mut().remove(name);
    }
    response
}

/// Carries bytes both ways; a side that ends only ends its own direction.
pub(crate) async fn carry(mut client: impl Io, mut upstream: impl Io) {
    match tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, COPY, COPY).await {
        Ok((sent, received)) => tracing::debug!(sent, received, "an upgraded connection ended"),
        Err(error) => tracing::debug!(%error, "an upgraded connection was lost"),
    }
    let _ = client.shutdown().await;
    let _ = upstream.shutdown().await;
}
