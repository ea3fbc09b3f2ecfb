//! Aggregated API servers over real TLS: found, looked at, asked in the name of the user, and shown as our own.

mod common;

use common::far::{self, Asked, Far};
use common::{ADMIN_TOKEN, Fixture, create, get, kubectl, send, serve, serve_with};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";

/// What a metrics server answers; whoever asks is repeated in the item.
fn metrics(asked: &Asked) -> far::Answer {
    let path = asked.path.split('?').next().unwrap();
    let text = |name: &str| {
        let all: Vec<&str> =
            asked.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        all.join(",")
    };
    match path {
        ROOT => far::json(
            200,
            &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1",
                "resources": [{"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]}]}),
        ),
        "/apis/metrics.k8s.io/v1beta1/nodes" => far::json(
            200,
            &json!({"kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": [{
                "metadata": {"name": "n1", "labels": {
                    "user": text("x-remote-user"), "groups": text("x-remote-group"), "uid": text("x-remote-uid"),
                    "client": text("client-name"), "authorization": text("authorization"),
                    "path": asked.path, "method": asked.method}},
                "timestamp": "2026-01-01T00:00:00Z", "window": "30s", "usage": {"cpu": "1", "memory": "1Mi"}}]}),
        ),
        "/openapi/v3" => far::json(
            200,
            &json!({"paths": {"apis/metrics.k8s.io/v1beta1": {"serverRelativeURL": "/openapi/v3/apis/metrics.k8s.io/v1beta1?hash=AB"},
                "version": {"serverRelativeURL": "/openapi/v3/version?hash=CD"}}}),
        ),
        "/openapi/v3/apis/metrics.k8s.io/v1beta1" => {
            far::json(200, &json!({"openapi": "3.0.0", "theirs": true}))
        }
        "/openapi/v2" => far::json(
            200,
            &json!({"swagger": "2.0", "definitions": {"io.NodeMetrics": {"type": "object"}},
                "paths": {"/apis/metrics.k8s.io/v1beta1/nodes": {"get": {}}, "/version/": {"get": {"theirs": 1}}}}),
        ),
        _ => far::json(404, &json!({"kind": "Status", "code": 404})),
    }
}

async fn register(fixture: &Fixture, far: &Far, spec: Value) {
    // An alias is the one Service whose address a test can choose freely.
    let alias = json!({"metadata": {"name": "metrics"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    create(&fixture.admin, "/api/v1/namespaces/kube-system/services", &alias.to_string()).await;
    let mut service = json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {
        "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": {"namespace": "kube-system", "name": "metrics", "port": far.addr.port()}}});
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    create(&fixture.admin, SERVICES, &service.to_string()).await;
}

/// Waits for the condition of the APIService: `status reason: message`.
async fn condition(fixture: &Fixture, wanted: &str) {
    let mut last = String::new();
    for _ in 0..250 {
        let service = get(&fixture.admin, &format!("{SERVICES}/v1beta1.metrics.k8s.io")).await;
        let known = &service["status"]["conditions"][0];
        let text = |name: &str| known[name].as_str().unwrap_or_default().to_string();
        last = format!("{} {}: {}", text("status"), text("reason"), text("message"));
        if last.starts_with(wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregated_server_answers_as_if_it_were_this_one() {
    let front = pki::Authority::generate("front").unwrap();
    let pair = front.issue(&pki::CertRequest::client("front-proxy-client", &[])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (ca, cert, key) =
        (file("ca", front.cert_pem()), file("cert", &pair.cert_pem), file("key", &pair.key_pem));
    let fixture = serve_with(|options| {
        options.requestheader_client_ca_file = Some(ca);
        (options.proxy_client_cert_file, options.proxy_client_key_file) = (Some(cert), Some(key));
    })
    .await;
    let far = far::serve_clients(&["metrics.kube-system.svc"], Some(front.cert_pem()), |asked| {
        let answer = metrics(&asked);
        Box::pin(async move { answer })
    })
    .await;
    register(&fixture, &far, json!({"caBundle": far.ca_bundle()})).await;
    condition(&fixture, "True Passed: all checks passed").await;
    let forged = [("x-remote-user", "root"), ("x-remote-group", "system:masters")];
    let path = format!("{ROOT}/nodes?labelSelector=a%3Db");
    let (code, text) = send(&fixture.admin, "GET", &path, &forged, "").await;
    assert_eq!(code, 200, "{text}");
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        list["items"][0]["metadata"]["labels"],
        json!({"user": "admin", "groups": "system:masters,system:authenticated", "uid": "", "client": "front-proxy-client",
            "authorization": "", "path": path, "method": "GET"})
    );
    let (code, _) = send(&fixture.jane, "GET", &path, &[], "").await;
    assert_eq!(code, 403);
    shown_as_our_own(&fixture).await;
    let answer = tokio::task::block_in_place(|| kubectl(&fixture, ADMIN_TOKEN, &["api-resources"]));
    if let Some((_, text)) = answer {
        assert!(text.contains("metrics.k8s.io/v1beta1") && text.contains("NodeMetrics"), "{text}");
        let (_, text) =
            tokio::task::block_in_place(|| kubectl(&fixture, ADMIN_TOKEN, &["top", "nodes"])).unwrap();
        assert!(text.contains("n1") || text.contains("metrics not available"), "{text}");
    }
    upgraded(&fixture).await;
}

/// Discovery in both forms, and OpenAPI in both versions.
async fn shown_as_our_own(fixture: &Fixture) {
    let groups = get(&fixture.admin, "/apis").await;
    let last = groups["groups"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["preferredVersion"]["groupVersion"], "metrics.k8s.io/v1beta1");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let mut resource = Value::Null;
    for _ in 0..100 {
        let (_, text) = send(&fixture.admin, "GET", "/apis", &accept, "").await;
        let list: Value = serde_json::from_str(&text).unwrap();
        let group = list["items"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(group["metadata"]["name"], "metrics.k8s.io");
        resource = group["versions"][0]["resources"][0].clone();
        if !resource.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        (&resource["resource"], &resource["responseKind"]["kind"]),
        (&json!("nodes"), &json!("NodeMetrics"))
    );
    let index = get(&fixture.admin, "/openapi/v3").await;
    assert_eq!(
        index["paths"]["apis/metrics.k8s.io/v1beta1"]["serverRelativeURL"],
        "/openapi/v3/apis/metrics.k8s.io/v1beta1?hash=AB"
    );
    assert!(index["paths"]["apis/apps/v1"].is_object() && index["paths"]["version"].is_null());
    let document = get(&fixture.admin, "/openapi/v3/apis/metrics.k8s.io/v1beta1").await;
    assert_eq!(document["theirs"], true);
    let document = get(&fixture.admin, "/openapi/v2").await;
    assert!(document["definitions"]["io.NodeMetrics"].is_object());
    assert!(document["paths"]["/apis/metrics.k8s.io/v1beta1/nodes"].is_object());
    assert!(document["paths"]["/version/"]["get"]["theirs"].is_null());
}

/// An upgrade goes through to the server behind, with the user's name.
async fn upgraded(fixture: &Fixture) {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(fixture.dir.path().join("apiserver/apiserver-ca.crt")).unwrap();
    use rustls_pki_types::pem::PemObject;
    for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(fixture.server.addr).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream =
        tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap();
    let head = format!(
        "GET {ROOT}/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).ends_with("adminhello") {
        let mut buffer = [0; 1024];
        let read =
            tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..read]);
    }
    assert!(got.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&got));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_versions_are_registered_and_a_missing_server_is_missed_alone() {
    let fixture = serve().await;
    let local = get(&fixture.admin, &format!("{SERVICES}/v1.apps")).await;
    assert_eq!(local["status"]["conditions"][0]["reason"], "Local");
    assert_eq!(local["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    assert_eq!(
        local["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
    );
    let service = json!({"metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {
        "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "insecureSkipTLSVerify": true, "service": {"namespace": "kube-system", "name": "metrics"}}});
    create(&fixture.admin, SERVICES, &service.to_string()).await;
    condition(&fixture, "False ServiceNotFound: service/metrics in \"kube-system\" is not present").await;
    let (code, text) = send(&fixture.admin, "GET", &format!("{ROOT}/nodes"), &[], "").await;
    assert_eq!((code, text.as_str()), (503, "service unavailable\n"));
    get(&fixture.admin, "/apis/apps/v1/deployments").await;
    let plain = json!({"metadata": {"name": "metrics"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
    create(&fixture.admin, "/api/v1/namespaces/kube-system/services", &plain.to_string()).await;
    condition(&fixture, "False EndpointsNotFound").await;
    let (_, text) = send(&fixture.admin, "GET", "/metrics", &[], "").await;
    assert!(text.contains("aggregator_unavailable_apiservice{name=\"v1beta1.metrics.k8s.io\"} 1"), "{text}");
    let path = format!("{SERVICES}/v1beta1.metrics.k8s.io");
    assert_eq!(send(&fixture.admin, "DELETE", &path, &[], "").await.0, 200);
    for _ in 0..100 {
        if send(&fixture.admin, "GET", &format!("{ROOT}/nodes"), &[], "").await.0 == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a server that is gone is still asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_strange_certificate_is_not_believed() {
    let fixture = serve().await;
    let far = far::serve(&["other.kube-system.svc"], |asked| {
        let answer = metrics(&asked);
        Box::pin(async move { answer })
    })
    .await;
    register(&fixture, &far, json!({"caBundle": far.ca_bundle()})).await;
    condition(
        &fixture,
        "False FailedDiscoveryCheck: failing or missing response from https://metrics.kube-system.svc:",
    )
    .await;
    let patch = r#"{"spec":{"caBundle":null,"insecureSkipTLSVerify":true}}"#;
    let merge = [("content-type", "application/merge-patch+json")];
    let path = format!("{SERVICES}/v1beta1.metrics.k8s.io");
    assert_eq!(send(&fixture.admin, "PATCH", &path, &merge, patch).await.0, 200);
    condition(&fixture, "True Passed").await;
}
