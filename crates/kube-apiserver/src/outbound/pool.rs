//! Connections to one called server: found, secured and kept for the next request.

use super::services::Services;
use super::{Stream, tls};
use crate::respond::Body;
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A connection that is not made in this time is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept for one server, and how long.
const IDLE_MAX: usize = 25;
const IDLE_TIME: Duration = Duration::from_secs(90);

/// Where a server is.
#[derive(Clone)]
pub enum Place {
    Host(String, u16),
    /// A Service, looked up for each connection.
    Service {
        services: Arc<Services>,
        namespace: String,
        name: String,
        port: i32,
    },
}

/// A server, and what its certificate must say.
#[derive(Clone)]
pub struct Target {
    pub place: Place,
    /// `None` for plain HTTP.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Why there is no connection, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DialError(pub String);

impl Target {
    /// Makes a connection.
    pub async fn dial(&self) -> Result<Box<dyn Stream>, DialError> {
        let limited = tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await;
        limited.unwrap_or_else(|_| Err(DialError("dial tcp: i/o timeout".into())))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, DialError> {
        let (host, port) = match &self.place {
            Place::Host(host, port) => (host.clone(), *port),
            Place::Service { services, namespace, name, port } => {
                services.resolve(namespace, name, *port).await.map_err(|error| DialError(error.message))?
            }
        };
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| DialError(format!("dial tcp {host}:{port}: {}", connect_failure(&error))))?;
        // Small frames of a terminal must not wait for each other.
        let _ = stream.set_nodelay(true);
        let Some((config, name)) = &self.tls else { return Ok(Box::new(stream)) };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name.clone(), stream)
            .await
            .map_err(|error| DialError(tls::handshake_failure(&error)))?;
        Ok(Box::new(stream))
    }

    /// A client that keeps connections to this server.
    pub fn client(&self) -> HttpClient {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_MAX);
        builder.build(Connector(self.clone()))
    }
}

fn connect_failure(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        std::io::ErrorKind::TimedOut => "connect: connection timed out".into(),
        _ => error.to_string(),
    }
}

/// An HTTP/1.1 client of one server. Whole connections, not streams, spread over a Service's endpoints.
pub type HttpClient = Client<Connector, Body>;

/// Makes the pool's connections; the URI only names the server that the target is.
#[derive(Clone)]
pub struct Connector(Target);

impl tower::Service<Uri> for Connector {
    type Response = Conn;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Conn, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Uri) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move { target.dial().await.map(|stream| Conn(TokioIo::new(stream))) })
    }
}

/// A pooled connection.
pub struct Conn(TokioIo<Box<dyn Stream>>);

impl Connection for Conn {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The innermost cause of a failed request, which is what a person needs to read.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}
