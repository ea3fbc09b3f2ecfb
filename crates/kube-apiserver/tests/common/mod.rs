//! A server in the test's own process, on a free loopback port, over the memory store.
#![allow(dead_code)]

pub mod far;
pub mod wire;

use bytes::Bytes;
use client::Transport;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube_apiserver::{Options, Server, start};
use registry::UserInfo;
use std::process::Command;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub const ADMIN_TOKEN: &str = "admin-token";
pub const JANE_TOKEN: &str = "jane-token";

/// A running server; it ends with the test.
pub struct Fixture {
    pub server: Server,
    pub admin: Arc<dyn Transport>,
    pub jane: Arc<dyn Transport>,
    pub dir: tempfile::TempDir,
    cancel: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

pub async fn serve() -> Fixture {
    serve_with(|_| {}).await
}

pub async fn serve_with(change: impl FnOnce(&mut Options)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(&tokens, format!("{ADMIN_TOKEN},admin,1,system:masters\n{JANE_TOKEN},jane,2,dev\n"))
        .unwrap();
    let key = dir.path().join("sa.key");
    std::fs::write(&key, pki::Signer::generate_pem().unwrap()).unwrap();
    let mut options = Options::defaults();
    options.data_dir = dir.path().to_path_buf();
    options.storage_backend = "memory".into();
    options.secure_port = 0;
    options.bind_address = "127.0.0.1".parse().unwrap();
    options.advertise_address = Some("192.0.2.10".parse().unwrap());
    options.token_auth_file = Some(tokens);
    options.service_account_signing_key_file = Some(key);
    change(&mut options);
    let cancel = CancellationToken::new();
    let server = start(options, cancel.clone()).await.unwrap();
    let user = |name: &str, group: &str| UserInfo {
        name: name.into(),
        groups: vec![group.into()],
        ..UserInfo::default()
    };
    let (admin, jane) =
        (server.transport(user("admin", "system:masters")), server.transport(user("jane", "dev")));
    Fixture { server, admin, jane, dir, cancel }
}

/// One request and its whole answer.
pub async fn send(
    transport: &Arc<dyn Transport>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (u16, String) {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = transport.send(request.body(body.into()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

/// The code and headers of an answer.
pub async fn send_for_headers(
    transport: &Arc<dyn Transport>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (u16, http::HeaderMap) {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = transport.send(request.body(body.into()).unwrap()).await.unwrap();
    (response.status().as_u16(), response.headers().clone())
}

pub async fn create(transport: &Arc<dyn Transport>, path: &str, body: &str) -> serde_json::Value {
    let (code, text) =
        send(transport, "POST", path, &[("content-type", "application/json")], body.to_string()).await;
    assert!(code < 300, "{path}: {code} {text}");
    serde_json::from_str(&text).unwrap()
}

pub async fn get(transport: &Arc<dyn Transport>, path: &str) -> serde_json::Value {
    let (code, text) = send(transport, "GET", path, &[], "").await;
    assert_eq!(code, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Runs the machine's kubectl against the server; `None` where there is none.
pub fn kubectl(fixture: &Fixture, token: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new("kubectl")
        .args(["--server", &format!("https://{}", fixture.server.addr), "--token", token])
        .args(["--insecure-skip-tls-verify", "--kubeconfig", "/dev/null"])
        .args(["--cache-dir".to_string(), fixture.dir.path().join("cache").display().to_string()])
        .args(arguments)
        .output()
        .ok()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some((output.status.success(), text))
}

/// An account that pods of a namespace run as; its controller is not here.
pub async fn default_account(fixture: &Fixture, namespace: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    create(&fixture.admin, &path, r#"{"metadata":{"name":"default"}}"#).await;
}
