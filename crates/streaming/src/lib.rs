//! Decides how a terminal or a port reaches a container: WebSocket and SPDY/3.1 connections are accepted from
//! clients, translated or passed through, and bridged to a kubelet's or a runtime's SPDY server.
//!
//! * [`remotecommand`]: exec and attach.
//! * [`portforward`]: forwarded ports.
//! * [`proxy`]: any upgrade, passed through as it is.
//! * [`spdy`]: connections and streams, for both sides.
//!
//! Each of the first three takes the client's request and a way to reach the server behind ([`Connect`]), and
//! answers with the response to send; a task that it starts carries the bytes. Every buffer is bounded: whoever
//! is slow makes the other side wait.

mod channels;
pub mod portforward;
pub mod remotecommand;
pub mod spdy;
mod upgrade;
mod websocket;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

pub use crate::upgrade::{is_upgrade, proxy, request_upgrade};

/// The header that names the protocol spoken over SPDY.
pub const PROTOCOL_HEADER: &str = "x-stream-protocol-version";

/// Why a stream ended or was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream or its connection was closed by the other side, or lost.
    #[error("the connection was closed")]
    Closed,
    /// The server behind does not do what it was asked for.
    #[error("{0}")]
    Refused(String),
    /// The server behind cannot be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What a server behind answered to a request for an upgrade.
pub enum Upstream {
    /// It switched protocols.
    Switched {
        /// The head of its answer, status 101.
        head: http::response::Parts,
        /// The connection.
        io: Box<dyn Io>,
    },
    /// It did not.
    Answered {
        /// The head of its answer.
        head: http::response::Parts,
        /// The body, cut off at 64 KiB.
        body: Bytes,
    },
}

/// Reaches the server behind: called once with the headers that ask for the upgrade (`connection`, `upgrade`,
/// protocol versions); method (`POST` unless the client's is passed through), address, host and credentials are
/// the caller's to set. [`request_upgrade`] does the HTTP over any connection.
pub type Connect = Box<dyn FnOnce(HeaderMap) -> BoxFuture<'static, Result<Upstream, Error>> + Send>;

/// What is sent back to the client.
pub type Response = http::Response<http_body_util::Full<Bytes>>;

fn plain(status: http::StatusCode, text: &str) -> Response {
    let mut response = http::Response::new(Bytes::copy_from_slice(text.as_bytes()).into());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}
