//! The transport over the network: TLS with HTTP/2 where the server offers it, pooled HTTP/1.1 otherwise.

use crate::transport::{Response, Transport};
use crate::{Auth, Config, Error, Protocol, RenewedToken};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, header};
use http_body_util::{BodyExt, Full};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A connection that does not come about in this time is given up.
const CONNECT_SECONDS_MAX: u64 = 10;
/// A silent connection is pinged after this time and dropped when the answer stays out, as upstream's client does:
/// a watch that nothing arrives on must not hang on a dead peer.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a token from a file is used before the file is read again.
const TOKEN_FRESH: Duration = Duration::from_secs(60);
/// Connections that watches are spread over: servers allow some 100 streams on each.
const WATCH_CONNECTIONS: usize = 4;

/// A transport over TCP and TLS.
pub struct Wire {
    scheme: Scheme,
    authority: Authority,
    /// A path in front of every request, for servers behind a proxy.
    prefix: String,
    credentials: Credentials,
    calls: Pool<Connector, Full<Bytes>>,
    watches: Vec<Pool<Connector, Full<Bytes>>>,
    turn: AtomicUsize,
}

impl Wire {
    /// Prepares the transport; connections are made when the first request needs one.
    pub fn new(config: Config) -> Result<Self, Error> {
        let uri: Uri = config.server.parse().map_err(|error| {
            Error::Request(format!("the server address {:?} is no URL: {error}", config.server))
        })?;
        let authority = uri
            .authority()
            .cloned()
            .ok_or_else(|| Error::Request(format!("the server address {:?} names no host", config.server)))?;
        let scheme = uri.scheme().cloned().unwrap_or(Scheme::HTTPS);
        let tls = if scheme == Scheme::HTTP { None } else { Some(Arc::new(tls_config(&config)?)) };
        let host = config.server_name.as_deref().unwrap_or(authority.host()).trim_matches(['[', ']']);
        let connector = Connector {
            name: ServerName::try_from(host.to_string())
                .map_err(|error| Error::Request(format!("{host:?} is no server name: {error}")))?,
            host: authority.host().trim_matches(['[', ']']).to_string(),
            port: authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 }),
            tls,
        };
        Ok(Wire {
            prefix: uri.path().trim_end_matches('/').to_string(),
            scheme,
            authority,
            credentials: Credentials::new(config.auth),
            calls: pool(&connector),
            watches: (0..WATCH_CONNECTIONS).map(|_| pool(&connector)).collect(),
            turn: AtomicUsize::new(0),
        })
    }

    fn prepare(&self, request: http::Request<Bytes>) -> Result<http::Request<Full<Bytes>>, Error> {
        let (mut parts, body) = request.into_parts();
        let mut path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        if !self.prefix.is_empty() {
            path = format!("{}{path}", self.prefix)
                .parse()
                .map_err(|error| Error::Request(format!("the request's path cannot be sent: {error}")))?;
        }
        parts.uri = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|error| Error::Request(error.to_string()))?;
        if let Some(value) = self.credentials.header()? {
            parts.headers.insert(header::AUTHORIZATION, value);
        }
        Ok(http::Request::from_parts(parts, Full::new(body)))
    }
}

fn pool(connector: &Connector) -> Pool<Connector, Full<Bytes>> {
    Pool::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(90))
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector.clone())
}

impl Transport for Wire {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<Response, Error>> {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let pool = if watch {
            &self.watches[self.turn.fetch_add(1, Ordering::Relaxed) % WATCH_CONNECTIONS]
        } else {
            &self.calls
        };
        match self.prepare(request) {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(request) => {
                let authority = self.authority.clone();
                let (pool, awaited) = (pool.clone(), self.credentials.awaited());
                Box::pin(async move {
                    let mut request = request;
                    if let Some(token) = awaited {
                        token.given().await;
                        request
                            .headers_mut()
                            .extend(bearer(&token.get()).map(|v| (header::AUTHORIZATION, v)));
                    }
                    let response = pool.request(request).await.map_err(|error| {
                        Error::transport(format!("the API server at {authority} cannot be reached"), error)
                    })?;
                    Ok(response.map(|body| {
                        body.map_err(|error| Error::transport("the connection was cut", error)).boxed()
                    }))
                })
            }
        }
    }
}

/// The Authorization header, from a token that may change.
enum Credentials {
    None,
    Fixed(HeaderValue),
    File { path: PathBuf, cached: Mutex<Option<(Instant, HeaderValue)>> },
    Renewed(RenewedToken),
}

impl Credentials {
    fn new(auth: Auth) -> Self {
        match auth {
            Auth::Anonymous | Auth::Certificate { .. } => Credentials::None,
            Auth::Token(token) => bearer(&token).map_or(Credentials::None, Credentials::Fixed),
            Auth::TokenFile(path) => Credentials::File { path, cached: Mutex::new(None) },
            Auth::Renewed(token) => Credentials::Renewed(token),
        }
    }

    /// The token that requests wait for, while there is none yet.
    fn awaited(&self) -> Option<RenewedToken> {
        match self {
            Credentials::Renewed(token) if token.get().is_empty() => Some(token.clone()),
            _ => None,
        }
    }

    fn header(&self) -> Result<Option<HeaderValue>, Error> {
        match self {
            Credentials::None => Ok(None),
            Credentials::Fixed(value) => Ok(Some(value.clone())),
            Credentials::Renewed(token) => Ok(bearer(&token.get())),
            Credentials::File { path, cached } => {
                let mut cached = cached.lock();
                if let Some((read, value)) = &*cached
                    && read.elapsed() < TOKEN_FRESH
                {
                    return Ok(Some(value.clone()));
                }
                let token = std::fs::read_to_string(path);
                match token.ok().and_then(|token| bearer(&token)) {
                    Some(value) => {
                        *cached = Some((Instant::now(), value.clone()));
                        Ok(Some(value))
                    }
                    // The file may be between two versions: the last token is good for a while yet.
                    None => match &*cached {
                        Some((_, value)) => Ok(Some(value.clone())),
                        None => Err(Error::Request(format!("no token can be read from {}", path.display()))),
                    },
                }
            }
        }
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn tls_config(config: &Config) -> Result<rustls::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::transport("TLS cannot be set up", error))?;
    let builder = if config.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
    } else {
        let mut roots = rustls::RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(config.ca_pem.as_bytes()) {
            let cert =
                cert.map_err(|error| Error::Request(format!("the CA certificate cannot be read: {error}")))?;
            roots
                .add(cert)
                .map_err(|error| Error::Request(format!("the CA certificate cannot be used: {error}")))?;
        }
        if roots.is_empty() {
            return Err(Error::Request("no CA certificate is given to check the server by".into()));
        }
        builder.with_root_certificates(roots)
    };
    let mut tls = match &config.auth {
        Auth::Certificate { cert_pem, key_pem } => {
            let certs: Vec<_> = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| Error::Request(format!("the client certificate cannot be read: {error}")))?;
            let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
                .map_err(|error| Error::Request(format!("the client key cannot be read: {error}")))?;
            builder
                .with_client_auth_cert(certs, key)
                .map_err(|error| Error::Request(format!("the client certificate cannot be used: {error}")))?
        }
        Auth::Anonymous | Auth::Token(_) | Auth::TokenFile(_) | Auth::Renewed(_) => {
            builder.with_no_client_auth()
        }
    };
    tls.alpn_protocols = match config.protocol {
        Protocol::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
    };
    Ok(tls)
}

/// Accepts any certificate, for a kubeconfig with insecure-skip-tls-verify.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes connections for the pool.
#[derive(Clone)]
struct Connector {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Connector {
    async fn connect(self) -> std::io::Result<Stream> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        match self.tls {
            None => Ok(Stream::Plain(TokioIo::new(tcp))),
            Some(tls) => {
                let tls = tokio_rustls::TlsConnector::from(tls).connect(self.name, tcp).await?;
                Ok(Stream::Tls(Box::new(TokioIo::new(tls))))
            }
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<Stream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let limit = Duration::from_secs(CONNECT_SECONDS_MAX);
            tokio::time::timeout(limit, connector.connect())
                .await
                .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
        })
    }
}

enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Stream::Plain(_) => Connected::new(),
            Stream::Tls(io) => {
                let connected = Connected::new();
                if io.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
                    connected.negotiated_h2()
                } else {
                    connected
                }
            }
        }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Stream::Tls(io) => Pin::new(io.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Stream::Tls(io) => Pin::new(io.as_mut()).poll_write(cx, bytes),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_flush(cx),
            Stream::Tls(io) => Pin::new(io.as_mut()).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Stream::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(cx),
        }
    }
}
