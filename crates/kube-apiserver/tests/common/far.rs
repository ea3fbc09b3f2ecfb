//! A TLS server of the test's own, for what the API server calls: webhooks and aggregated servers.
#![allow(dead_code)]

use base64::Engine;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
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
    let authority = pki::Authority::generate("far").unwrap();
    let all = names.iter().map(|name| name.to_string()).chain(["127.0.0.1".to_string(), "localhost".into()]);
    let pair = authority.issue(&pki::CertRequest::server("far", all)).unwrap();
    let (chain, key) = pair.to_rustls().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer: Arc<Serve> = Arc::new(answer);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let answer = Arc::clone(&answer);
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                            let path =
                                parts.uri.path_and_query().map_or(String::new(), |path| path.to_string());
                            let asked = Asked {
                                method: parts.method.to_string(),
                                path,
                                headers: parts.headers,
                                body,
                            };
                            Ok::<_, std::convert::Infallible>(answer(asked).await)
                        }
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
