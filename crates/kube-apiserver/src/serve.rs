//! The listening side: TCP, TLS, HTTP/1.1 and HTTP/2, and an end that lets running requests finish.

use crate::Api;
use crate::authn::Peer;
use crate::body::{Answer, Held, RequestBody};
use crate::filters::Caller;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 20_000;
/// Streams at once on one HTTP/2 connection; upstream's.
const MAX_STREAMS: u32 = 250;
/// Bytes of all headers of a request.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
const MAX_HEADERS: usize = 200;
/// For the TLS handshake, and for the headers of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// An idle HTTP/2 peer is asked for a sign of life this often, and dropped without an answer for as long.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// What a client may send before it is read, by stream and by connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// How often the files of the serving certificate are looked at while connections come in.
const RELOAD_EVERY: Duration = Duration::from_secs(60);
/// How long running requests are waited for when the server ends.
const DRAIN: Duration = Duration::from_secs(10);

/// Lets every client certificate through the handshake and judges it afterwards, so that a bad one is a 401 with a
/// Status instead of a broken connection.
#[derive(Debug)]
struct LenientVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for LenientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The serving certificate, read again when its files change: a renewed one is shown without a restart.
#[derive(Debug)]
struct Serving {
    /// Certificate and key; `None` for one that is not in files.
    files: Option<(PathBuf, PathBuf)>,
    shown: ArcSwap<CertifiedKey>,
    /// When the files were last looked at, and how they were then.
    seen: Mutex<(Instant, Option<SystemTime>)>,
}

fn changed_at(files: &(PathBuf, PathBuf)) -> Option<SystemTime> {
    let time = |path: &PathBuf| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    time(&files.0).max(time(&files.1))
}

fn certified(pair: &pki::CertifiedKey) -> Result<CertifiedKey> {
    let (chain, key) = pair.to_rustls()?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().context("the serving certificate does not fit its key")?;
    Ok(certified)
}

impl Serving {
    fn new(pair: &pki::CertifiedKey, files: Option<(PathBuf, PathBuf)>) -> Result<Self> {
        let seen = files.as_ref().and_then(changed_at);
        Ok(Serving {
            files,
            shown: ArcSwap::from_pointee(certified(pair)?),
            seen: Mutex::new((Instant::now(), seen)),
        })
    }

    /// Looks at the files at most every so often, and only when somebody connects.
    fn refresh(&self) {
        let Some(files) = &self.files else { return };
        let mut seen = self.seen.lock();
        if seen.0.elapsed() < RELOAD_EVERY {
            return;
        }
        seen.0 = Instant::now();
        let now = changed_at(files);
        if now == seen.1 {
            return;
        }
        let read = pki::CertifiedKey::read(&files.0, &files.1).map_err(anyhow::Error::from);
        match read.and_then(|pair| certified(&pair)) {
            Ok(fresh) => {
                seen.1 = now;
                self.shown.store(Arc::new(fresh));
                tracing::info!(file = %files.0.display(), "Reloaded the serving certificate");
            }
            Err(error) => {
                tracing::warn!(%error, file = %files.0.display(), "Kept the old serving certificate");
            }
        }
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.refresh();
        Some(self.shown.load_full())
    }
}

/// The certificates the server shows and those it believes.
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    front_proxy: Option<Arc<dyn ClientCertVerifier>>,
}

fn verifier(ca_pem: &str) -> Result<Arc<dyn ClientCertVerifier>> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.context("a client CA is not a certificate")?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()?;
    Ok(built)
}

impl Tls {
    pub fn new(
        serving: &pki::CertifiedKey,
        client_ca_pem: Option<&str>,
        front_proxy_ca_pem: Option<&str>,
        files: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self> {
        let shown = Serving::new(serving, files)?;
        let clients = client_ca_pem.map(verifier).transpose()?;
        let front_proxy = front_proxy_ca_pem.map(verifier).transpose()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = match clients.as_ref().or(front_proxy.as_ref()) {
            Some(verifier) => {
                builder.with_client_cert_verifier(Arc::new(LenientVerifier(Arc::clone(verifier))))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls { config: Arc::new(config), clients, front_proxy })
    }

    /// Judges what the peer showed.
    fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Peer {
        let mut peer = Peer::default();
        let Some([leaf, rest @ ..]) = chain else { return peer };
        let now = UnixTime::now();
        let identity = || pki::Identity::from_der(leaf).map(Arc::new).map_err(|error| error.to_string());
        let holds = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(leaf, rest, now).map_err(|error| error.to_string())
        };
        if let Some(verifier) = &self.front_proxy
            && holds(verifier).is_ok()
        {
            peer.front_proxy = identity().ok();
        }
        if let Some(verifier) = &self.clients {
            match holds(verifier) {
                Ok(_) => peer.certificate = Some(identity()),
                // One of the front proxy's is no user's certificate, and no fault either.
                Err(_) if peer.front_proxy.is_some() => {}
                Err(reason) => peer.certificate = Some(Err(reason)),
            }
        }
        peer
    }
}

/// Opens the port, with a plain reason where that fails.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: choose a free port with --secure-port, or stop what uses it")
    })
}

/// Serves until the token is cancelled, then lets requests finish.
pub async fn serve(api: Arc<Api>, listener: TcpListener, tls: Tls, shutdown: CancellationToken) {
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let tls = Arc::new(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = shutdown.cancelled() => break,
        };
        let Some((stream, address, place)) = accepted else { continue };
        let (api, acceptor, tls) = (Arc::clone(&api), acceptor.clone(), Arc::clone(&tls));
        let shutdown = shutdown.clone();
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = connection(api, stream, address.ip(), acceptor, &tls, shutdown).await {
                tracing::debug!(%address, error, "Closed a connection");
            }
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "Left connections open that did not end in time");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(error) => {
            // Out of file descriptors, most likely: a pause gives others time to be closed.
            tracing::warn!(%error, "Could not accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn connection(
    api: Arc<Api>,
    stream: TcpStream,
    address: std::net::IpAddr,
    acceptor: TlsAcceptor,
    tls: &Tls,
    shutdown: CancellationToken,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
        .await
        .map_err(|_| "the TLS handshake took too long".to_string())?
        .map_err(|error| format!("the TLS handshake failed: {error}"))?;
    let peer = Peer { address: Some(address), ..tls.peer(stream.get_ref().1.peer_certificates()) };
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (api, peer) = (Arc::clone(&api), peer.clone());
        async move {
            let (parts, body) = request.into_parts();
            let held = Held::new(body);
            let request = http::Request::from_parts(parts, RequestBody::Wire(held.clone()));
            let answer = api.handle(Caller::Wire(peer), request).await;
            if answer.status().is_client_error() || answer.status().is_server_error() {
                held.drain().await;
            }
            Ok::<_, std::convert::Infallible>(answer.map(|body| Answer::new(body, held)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(1024 * 1024)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        result = serving.as_mut() => return result.map_err(|error| error.to_string()),
        () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    serving.await.map_err(|error| error.to_string())
}
