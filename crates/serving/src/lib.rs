//! What a component serves over TLS: whether it is well, to everyone; metrics, to those whom the API server lets read them.
//!
//! Invariant: a taken port costs these pages, never the component.
#![forbid(unsafe_code)]

use anyhow::Context;
use api::authentication::v1::TokenReview;
use api::authorization::v1::{NonResourceAttributes, SubjectAccessReview};
use client::Client;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Connections served at once; more of them wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take for its handshake, and for the head of a request.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Where to serve, and as whom.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// Files of the certificate and its key; `None` makes one up, as upstream does.
    pub files: Option<(String, String)>,
}

/// What is counted, in the text form that Prometheus reads.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

struct Answering {
    client: Client,
    metrics: Metrics,
}

/// Serves a component of this name until the token is cancelled.
///
/// # Errors
/// A certificate that cannot be read or used.
pub async fn serve(
    endpoint: Endpoint,
    name: &'static str,
    client: Client,
    metrics: Metrics,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&endpoint, name)?));
    let listener = match TcpListener::bind(endpoint.address).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(component = name, address = %endpoint.address, %error, "Could not serve health and metrics: choose another --secure-port");
            return Ok(());
        }
    };
    info!(component = name, address = %endpoint.address, "Serving health and metrics");
    let answering = Arc::new(Answering { client, metrics });
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit?,
            () = token.cancelled() => return Ok(()),
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "Could not accept a connection");
                    // Too many open files, most likely: others have to close theirs first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = token.cancelled() => return Ok(()),
        };
        let (acceptor, answering, token) = (acceptor.clone(), answering.clone(), token.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(acceptor, stream, answering) => {}
                () = token.cancelled() => {}
            }
            drop(permit);
        });
    }
}

fn tls(endpoint: &Endpoint, name: &str) -> anyhow::Result<ServerConfig> {
    let pair = match &endpoint.files {
        Some((cert, key)) => pki::CertifiedKey::read(cert.as_ref(), key.as_ref())?,
        None => {
            let names = ["localhost".to_owned(), "127.0.0.1".into(), endpoint.address.ip().to_string()];
            let request = pki::CertRequest::server(name, names);
            pki::Authority::generate(&format!("{name}-ca"))?.issue(&request)?
        }
    };
    let (chain, key) = pair.to_rustls()?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the serving certificate")?;
    Ok(config)
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, answering: Arc<Answering>) {
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
    let service = hyper::service::service_fn(move |request| {
        let answering = answering.clone();
        async move { Ok::<_, std::convert::Infallible>(answering.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "A connection broke off");
    }
}

impl Answering {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/healthz" | "/livez" | "/readyz" => text(StatusCode::OK, "ok".into()),
            path @ "/metrics" => match self.allowed(&request, path).await {
                Ok(()) => text(StatusCode::OK, (self.metrics)()),
                Err(refused) => text(refused, refused.canonical_reason().unwrap_or_default().into()),
            },
            _ => text(StatusCode::NOT_FOUND, "404 page not found".into()),
        }
    }

    /// Asks the API server whose token this is, and whether they may get the path.
    async fn allowed(&self, request: &Request<Incoming>, path: &str) -> Result<(), StatusCode> {
        let unavailable = |error: client::Error| {
            debug!(cause = error.chain(), "Could not ask the API server about a request");
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
        let mut review = TokenReview::default();
        review.spec.token = token.into();
        let status = self.client.create(&review).await.map_err(unavailable)?.status;
        if !status.authenticated {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let mut review = SubjectAccessReview::default();
        review.spec.user = status.user.username;
        review.spec.uid = status.user.uid;
        review.spec.groups = status.user.groups;
        review.spec.extra = status.user.extra;
        review.spec.non_resource_attributes =
            Some(Box::new(NonResourceAttributes { path: path.into(), verb: "get".into() }));
        let allowed = self.client.create(&review).await.map_err(unavailable)?.status.allowed;
        if allowed { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
