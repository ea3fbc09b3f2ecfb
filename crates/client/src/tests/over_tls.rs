//! The wire: TLS by a private authority, HTTP/2 and HTTP/1.1, client certificates, tokens, errors from Status.

use crate::{Auth, Client, Config, Error, Wire};
use api::codec;
use api::core::v1::ConfigMap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meta::ObjectKey;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::sync::Arc;
use tokio::net::TcpListener;

/// A server that answers with what it was sent: the path as the name, protocol and credentials as data.
async fn echo(
    request: http::Request<hyper::body::Incoming>,
    certified: bool,
) -> Result<http::Response<Full<Bytes>>, std::convert::Infallible> {
    let mut map = ConfigMap::default();
    map.metadata.name = request.uri().path().into();
    map.data.insert("version".into(), format!("{:?}", request.version()));
    map.data.insert("certified".into(), certified.to_string());
    let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    map.data.insert("token".into(), token.unwrap_or("none").into());
    let missing = request.uri().path().ends_with("missing");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if let Ok(sent) = codec::from_protobuf::<ConfigMap>(&body) {
        map.data.extend(sent.data);
    }
    let answer = if missing {
        let error = api::errors::ApiError::not_found("", "configmaps", "missing");
        http::Response::builder().status(404).body(Full::new(codec::to_protobuf(&error.to_status()).into()))
    } else {
        http::Response::builder().body(Full::new(codec::to_protobuf(&map).into()))
    };
    let mut answer = answer.expect("the parts are valid");
    answer
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/vnd.kubernetes.protobuf"));
    Ok(answer)
}

struct Served {
    port: u16,
    ca_pem: String,
    client: pki::CertifiedKey,
    _folder: tempfile::TempDir,
}

async fn serve(protocols: &[&[u8]]) -> Served {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let authority =
        pki::Authority::open_or_create(folder.path(), "ca", "test-ca").expect("an authority can be made");
    let request = |name: &str, client: bool| pki::CertRequest {
        common_name: name.into(),
        organizations: vec![],
        sans: if client { vec![] } else { vec!["localhost".into(), "127.0.0.1".into()] },
        client,
        server: !client,
        days: 1,
    };
    let server = authority.issue(&request("localhost", false)).expect("a certificate can be issued");
    let client = authority.issue(&request("someone", true)).expect("a certificate can be issued");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(authority.cert_pem().as_bytes()) {
        roots.add(cert.expect("it is PEM")).expect("it is a certificate");
    }
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .expect("the roots are not empty");
    let certs =
        CertificateDer::pem_slice_iter(server.cert_pem.as_bytes()).map(|cert| cert.expect("it is PEM"));
    let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).expect("it is a key");
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_client_cert_verifier(verifier)
        .with_single_cert(certs.collect(), key)
        .expect("the key is the certificate's");
    tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let certified = stream.get_ref().1.peer_certificates().is_some();
                let service = hyper::service::service_fn(move |request| echo(request, certified));
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Served { port, ca_pem: authority.cert_pem().to_string(), client, _folder: folder }
}

fn client(served: &Served, auth: Auth) -> Client {
    let config = Config {
        server: format!("https://127.0.0.1:{}", served.port),
        ca_pem: served.ca_pem.clone(),
        auth,
        ..Config::default()
    };
    Client::new(Arc::new(Wire::new(config).expect("the configuration is whole")))
}

#[tokio::test]
async fn http2_with_a_client_certificate() {
    let served = serve(&[b"h2", b"http/1.1"]).await;
    let auth = Auth::Certificate {
        cert_pem: served.client.cert_pem.clone(),
        key_pem: served.client.key_pem.clone(),
    };
    let client = client(&served, auth);
    let map: ConfigMap = client.get(&ObjectKey::new("shop", "a")).await.expect("it answers");
    assert_eq!(map.metadata.name, "/api/v1/namespaces/shop/configmaps/a");
    assert_eq!((map.data["version"].as_str(), map.data["certified"].as_str()), ("HTTP/2.0", "true"));

    let mut sent = ConfigMap::default();
    sent.metadata.namespace = "shop".into();
    sent.data.insert("sent".into(), "yes".into());
    let map = client.create(&sent).await.expect("it answers");
    assert_eq!(map.data["sent"], "yes");

    let missing =
        client.get::<ConfigMap>(&ObjectKey::new("shop", "missing")).await.expect_err("it is not there");
    assert!(missing.is_not_found() && !missing.retryable());
    assert_eq!(missing.to_string(), "configmaps \"missing\" not found");
}

#[tokio::test]
async fn http1_with_a_token_file() {
    let served = serve(&[b"http/1.1"]).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("token");
    std::fs::write(&path, "secret\n").expect("the file can be written");
    let client = client(&served, Auth::TokenFile(path));
    let map: ConfigMap = client.get(&ObjectKey::new("shop", "a")).await.expect("it answers");
    assert_eq!((map.data["version"].as_str(), map.data["token"].as_str()), ("HTTP/1.1", "Bearer secret"));
    assert_eq!(map.data["certified"], "false");
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let served = serve(&[b"h2"]).await;
    let other = serve(&[b"h2"]).await;
    let config = Config {
        server: format!("https://127.0.0.1:{}", served.port),
        ca_pem: other.ca_pem.clone(),
        ..Config::default()
    };
    let client = Client::new(Arc::new(Wire::new(config).expect("the configuration is whole")));
    let refused = client.get::<ConfigMap>(&ObjectKey::new("shop", "a")).await.expect_err("it is not trusted");
    assert!(matches!(refused, Error::Transport { .. }) && refused.retryable());
    assert!(refused.chain().contains("certificate"), "{}", refused.chain());
}
