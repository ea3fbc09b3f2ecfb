//! A TLS server of the test's own, for what the API server calls: webhooks and aggregated servers.
#![allow(dead_code)]

use base64::Engine;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What is asked: method, path with query, headers, body.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

pub type Answer = http::Response<Full<Bytes>>;
type Serve = dyn Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync;

pub struct Far {
    pub addr: SocketAddr,
    pub ca_pem: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Far {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Far {
    pub fn ca_bundle(&self) -> String {
        base64::prelude::BASE64_STANDARD.encode(&self.ca_pem)
    }
    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.addr.port())
    }
}

pub fn json(code: u16, value: &Value) -> Answer {
    http::Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(value.to_string())))
        .unwrap()
}

/// Serves on a free loopback port, with a certificate for the given names besides 127.0.0.1.
pub async fn serve(
    names: &[&str],
    answer: impl Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
) -> Far {
    serve_clients(names, None, answer).await
}

/// The same, asking clients for a certificate of an authority; its name is told as the header `client-name`. Upgrades
/// are answered, and what comes over them is sent back.
pub async fn serve_clients(
    names: &[&str],
    clients: Option<&str>,
    answer: impl Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
) -> Far {
    let authority = pki::Authority::generate("far").unwrap();
    let all = names.iter().map(|name| name.to_string()).chain(["127.0.0.1".to_string(), "localhost".into()]);
    let pair = authority.issue(&pki::CertRequest::server("far", all)).unwrap();
    let (chain, key) = pair.to_rustls().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate.unwrap()).unwrap();
            }
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
    };
    let config = builder.with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer: Arc<Serve> = Arc::new(answer);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
                let client = shown.and_then(|leaf| pki::Identity::from_der(&leaf).ok());
                let client = client.map(|identity| identity.name);
                let service = hyper::service::service_fn(move |request| {
                    let (answer, client) = (Arc::clone(&answer), client.clone());
                    async move { Ok::<_, std::convert::Infallible>(respond(request, client, answer).await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    Far { addr, ca_pem: authority.cert_pem().to_string(), task }
}

async fn respond(
    request: http::Request<hyper::body::Incoming>,
    client: Option<String>,
    answer: Arc<Serve>,
) -> Answer {
    if request.headers().contains_key("upgrade") {
        return echo(request);
    }
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or(String::new(), |path| path.to_string());
    if let Some(name) = client.and_then(|name| name.parse().ok()) {
        parts.headers.insert("client-name", name);
    }
    answer(Asked { method: parts.method.to_string(), path, headers: parts.headers, body }).await
}

/// Switches protocols and sends back what comes, the user's name first.
fn echo(mut request: http::Request<hyper::body::Incoming>) -> Answer {
    let user = request.headers()["x-remote-user"].to_str().unwrap().to_string();
    let protocol = request.headers()["upgrade"].clone();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = [0; 256];
        stream.write_all(user.as_bytes()).await.unwrap();
        while let Ok(read) = stream.read(&mut buffer).await {
            if read == 0 || stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    });
    http::Response::builder()
        .status(101)
        .header("connection", "Upgrade")
        .header("upgrade", protocol)
        .body(Full::default())
        .unwrap()
}
