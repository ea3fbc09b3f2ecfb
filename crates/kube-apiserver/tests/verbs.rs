//! The verbs and what belongs to them, over the in-process transport.

mod common;

use common::{create, default_account, get, send, serve};
use expect_test::expect;
use http_body_util::BodyExt;
use serde_json::json;
use std::time::Duration;

const JSON: &str = "application/json";
const NAMESPACE: &str = "/api/v1/namespaces/default";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_get_addresses_and_ports_that_nobody_else_has() {
    let fixture = serve().await;
    let path = format!("{NAMESPACE}/services");
    let body = |name: &str, more: &str| {
        format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":80}}]{more}}}}}"#)
    };
    let first = create(&fixture.admin, &path, &body("a", r#","type":"NodePort""#)).await;
    let address = first["spec"]["clusterIP"].as_str().unwrap().to_string();
    let port = first["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!(address.starts_with("10.96."), "{address}");
    assert!((30000..=32767).contains(&port), "{port}");
    assert_eq!(first["spec"]["ipFamilies"], json!(["IPv4"]));
    let taken = body("b", &format!(r#","clusterIP":"{address}""#));
    let (code, text) = send(&fixture.admin, "POST", &path, &[("content-type", JSON)], taken).await;
    assert_eq!(code, 422);
    assert!(text.contains("provided IP is already allocated"), "{text}");
    let taken = format!(
        r#"{{"metadata":{{"name":"b"}},"spec":{{"type":"NodePort","ports":[{{"port":80,"nodePort":{port}}}]}}}}"#
    );
    let (code, text) = send(&fixture.admin, "POST", &path, &[("content-type", JSON)], taken.clone()).await;
    assert_eq!(code, 422);
    assert!(text.contains("provided port is already allocated"), "{text}");
    let headless = create(&fixture.admin, &path, &body("h", r#","clusterIP":"None""#)).await;
    assert_eq!(headless["spec"]["clusterIP"], "None");
    let held = get(&fixture.admin, "/apis/networking.k8s.io/v1/ipaddresses").await;
    assert_eq!(held["items"].as_array().unwrap().len(), 2);
    send(&fixture.admin, "DELETE", &format!("{path}/a"), &[], "").await;
    let mut code = 0;
    for _ in 0..200 {
        code = send(&fixture.admin, "POST", &path, &[("content-type", JSON)], taken.clone()).await.0;
        if code == 201 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(code, 201, "the port of a deleted service is free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_their_account_and_bind_once() {
    let fixture = serve().await;
    default_account(&fixture, "default").await;
    let path = format!("{NAMESPACE}/pods");
    let pod = r#"{"metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"x"}]}}"#;
    let made = create(&fixture.admin, &path, pod).await;
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["priority"], 0);
    let mount = &made["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    let binding = r#"{"metadata":{"name":"web"},"target":{"kind":"Node","name":"n1"}}"#;
    create(&fixture.admin, &format!("{path}/web/binding"), binding).await;
    let bound = get(&fixture.admin, &format!("{path}/web")).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, text) =
        send(&fixture.admin, "POST", &format!("{path}/web/binding"), &[("content-type", JSON)], binding)
            .await;
    assert_eq!(code, 409);
    assert!(text.contains("is already assigned to node \\\"n1\\\""), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_its_accounts_while_that_lives() {
    let fixture = serve().await;
    default_account(&fixture, "default").await;
    let path = format!("{NAMESPACE}/serviceaccounts/default/token");
    let answer = create(&fixture.admin, &path, "{}").await;
    let token = answer["status"]["token"].as_str().unwrap().to_string();
    let review = format!(r#"{{"spec":{{"token":"{token}"}}}}"#);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let judged = create(&fixture.admin, reviews, &review).await;
    assert_eq!(judged["status"]["user"]["username"], "system:serviceaccount:default:default");
    send(&fixture.admin, "DELETE", &format!("{NAMESPACE}/serviceaccounts/default"), &[], "").await;
    let mut authenticated = json!(true);
    for _ in 0..200 {
        authenticated = create(&fixture.admin, reviews, &review).await["status"]["authenticated"].clone();
        if authenticated != json!(true) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(authenticated, json!(true), "a token dies with its account");
    let (code, text) = send(
        &fixture.admin,
        "POST",
        &path,
        &[("content-type", JSON)],
        r#"{"spec":{"expirationSeconds":10}}"#,
    )
    .await;
    assert!(matches!(code, 404 | 422), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_tell_changes_in_every_form() {
    let fixture = serve().await;
    let path = format!("{NAMESPACE}/configmaps");
    let watch = |accept: &'static str| {
        let request = http::Request::get(format!(
            "{NAMESPACE}/configmaps?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        ))
        .header("accept", accept)
        .body(bytes::Bytes::new())
        .unwrap();
        fixture.admin.send(request)
    };
    create(&fixture.admin, &path, r#"{"metadata":{"name":"a"}}"#).await;
    let plain = watch(JSON).await.unwrap();
    let table = watch("application/json;as=Table;v=v1;g=meta.k8s.io").await.unwrap();
    let (mut plain, mut table) = (plain.into_body(), table.into_body());
    create(&fixture.admin, &path, r#"{"metadata":{"name":"b"},"data":{"k":"v"}}"#).await;
    let gather = async |body: &mut client::Body, until: &str| {
        let mut text = String::new();
        while !text.contains(until) {
            let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await;
            let data = frame.expect("the watch goes on").unwrap().unwrap().into_data().unwrap();
            text.push_str(&String::from_utf8_lossy(&data));
        }
        text
    };
    let text = gather(&mut plain, "\"name\":\"b\"").await;
    let kinds: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|event| {
            let metadata = &event["object"]["metadata"];
            format!("{} {} {}", event["type"], metadata["name"], metadata["annotations"])
        })
        .collect();
    expect![[r#"
        "ADDED" "a" null
        "BOOKMARK" null {"k8s.io/initial-events-end":"true"}
        "ADDED" "b" null"#]]
    .assert_eq(&kinds.join("\n"));
    let text = gather(&mut table, "\"name\":\"b\"").await;
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["object"]["columnDefinitions"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_every_form_and_in_pages() {
    let fixture = serve().await;
    let path = format!("{NAMESPACE}/configmaps");
    for name in ["a", "b", "c"] {
        create(&fixture.admin, &path, &format!(r#"{{"metadata":{{"name":"{name}"}}}}"#)).await;
    }
    let page = get(&fixture.admin, &format!("{path}?limit=2")).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = get(&fixture.admin, &format!("{path}?limit=2&continue={token}")).await;
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    let accept = |value: &'static str| [("accept", value)];
    let partial = accept("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let (_, text) = send(&fixture.admin, "GET", &path, &partial, "").await;
    assert!(
        text.starts_with(r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1""#),
        "{text}"
    );
    let (_, yaml) = send(&fixture.admin, "GET", &path, &accept("application/yaml"), "").await;
    assert!(yaml.contains("kind: ConfigMapList"), "{yaml}");
    let (_, pretty) = send(&fixture.admin, "GET", &format!("{path}?pretty=true"), &[], "").await;
    assert!(pretty.starts_with("{\n  \"kind\": \"ConfigMapList\""), "{pretty}");
    let request = http::Request::get(path.as_str())
        .header("accept", "application/vnd.kubernetes.protobuf")
        .body(bytes::Bytes::new())
        .unwrap();
    let body = fixture.admin.send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let envelope = api::codec::open(&body).unwrap();
    assert_eq!(envelope.kind, "ConfigMapList");
    let mut items = 0;
    meta::proto::fields(envelope.raw, |tag, _| {
        items += usize::from(tag == 2);
        Ok(())
    })
    .unwrap();
    assert_eq!(items, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_tells_what_it_is() {
    let fixture = serve().await;
    assert!(fixture.server.is_ready());
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd"] {
        assert_eq!(send(&fixture.admin, "GET", path, &[], "").await, (200, "ok".into()), "{path}");
    }
    let metrics = send(&fixture.admin, "GET", "/metrics", &[], "").await.1;
    assert!(metrics.contains("apiserver_request_total{code=\"200\""), "{metrics}");
    let groups = get(&fixture.admin, "/apis").await;
    assert_eq!(groups["kind"], "APIGroupList");
    let index = get(&fixture.admin, "/openapi/v3").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = get(&fixture.admin, url).await;
    let path = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(path["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let schema = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(schema["x-kubernetes-patch-merge-key"], "name");
    let keys = get(&fixture.admin, "/openid/v1/jwks").await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}
