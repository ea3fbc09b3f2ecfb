//! Priority and fairness over the wire: classes, refusals, and a level that is full while others are not.

mod common;

use common::far;
use common::wire;
use common::{ADMIN_TOKEN, Fixture, JANE_TOKEN, create, get, send, serve_with};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn uid(fixture: &Fixture, plural: &str, name: &str) -> String {
    let object = get(&fixture.admin, &format!("{FLOW}/{plural}/{name}")).await;
    object["metadata"]["uid"].as_str().unwrap().to_string()
}

/// Whose class an answer tells: names of the flow schema and the level.
async fn class(fixture: &Fixture, headers: &http::HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut names = Vec::new();
    for (plural, header) in [
        ("flowschemas", "x-kubernetes-pf-flowschema-uid"),
        ("prioritylevelconfigurations", "x-kubernetes-pf-prioritylevel-uid"),
    ] {
        let list = get(&fixture.admin, &format!("{FLOW}/{plural}")).await;
        let found =
            list["items"].as_array().unwrap().iter().find(|item| item["metadata"]["uid"] == text(header));
        names.push(found.map_or("?", |item| item["metadata"]["name"].as_str().unwrap()).to_string());
    }
    names.join("/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_classified_and_shown() {
    let fixture = serve_with(|_| {}).await;
    let (_, headers, _) = wire::send(&fixture, ADMIN_TOKEN, "GET", "/api/v1/pods", "").await;
    assert_eq!(class(&fixture, &headers).await, "exempt/exempt");
    let (code, headers, _) = wire::send(&fixture, JANE_TOKEN, "GET", "/api/v1/pods", "").await;
    assert_eq!((code, class(&fixture, &headers).await.as_str()), (403, "global-default/global-default"));
    let (_, headers, _) = wire::send(&fixture, JANE_TOKEN, "GET", "/livez", "").await;
    assert_eq!(class(&fixture, &headers).await, "probes/exempt");
    let (_, text) =
        send(&fixture.admin, "GET", "/debug/api_priority_and_fairness/dump_priority_levels", &[], "").await;
    assert!(text.starts_with("PriorityLevelName, ActiveQueues, IsIdle, "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("workload-low, ")), "{text}");
    let (_, text) =
        send(&fixture.admin, "GET", "/debug/api_priority_and_fairness/dump_queues", &[], "").await;
    assert!(text.lines().filter(|line| line.starts_with("workload-low,")).count() == 128, "{text}");
    let (_, text) = send(&fixture.admin, "GET", "/metrics", &[], "").await;
    for wanted in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_lower_limit_seats{priority_level=\"workload-low\"} 24",
        "apiserver_flowcontrol_upper_limit_seats{priority_level=\"workload-low\"} 845",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\"}",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
    let schema = get(&fixture.admin, &format!("{FLOW}/flowschemas/service-accounts")).await;
    let condition = &schema["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("Dangling"), &json!("False"), &json!("Found"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mandatory_objects_come_back() {
    let fixture = serve_with(|_| {}).await;
    let path = format!("{FLOW}/flowschemas/catch-all");
    let before = uid(&fixture, "flowschemas", "catch-all").await;
    assert_eq!(send(&fixture.admin, "DELETE", &path, &[], "").await.0, 200);
    for _ in 0..200 {
        let (code, text) = send(&fixture.admin, "GET", &path, &[], "").await;
        if code == 200 && !text.contains(&before) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a mandatory flow schema stays away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_full_level_refuses_or_queues_and_harms_no_other() {
    let fixture = Arc::new(
        serve_with(|options| {
            (options.max_requests_inflight, options.max_mutating_requests_inflight) = (10, 10);
        })
        .await,
    );
    // Writes of config maps take as long as a webhook lets them.
    let slow = far::serve(&[], |asked| {
        let review: Value = serde_json::from_slice(&asked.body).unwrap();
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": {"uid": review["request"]["uid"], "allowed": true}});
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            far::json(200, &answer)
        })
    })
    .await;
    let hook = json!({"metadata": {"name": "slow"}, "webhooks": [{
        "name": "slow.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": slow.url("/"), "caBundle": slow.ca_bundle()},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]});
    create(
        &fixture.admin,
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        &hook.to_string(),
    )
    .await;
    let binding = json!({"metadata": {"name": "jane"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    create(&fixture.admin, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding.to_string())
        .await;
    let level = |response: Value| {
        json!({"metadata": {"name": "tiny"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response}}})
    };
    create(
        &fixture.admin,
        &format!("{FLOW}/prioritylevelconfigurations"),
        &level(json!({"type": "Reject"})).to_string(),
    )
    .await;
    let schema = json!({"metadata": {"name": "tiny"}, "spec": {"priorityLevelConfiguration": {"name": "tiny"},
        "matchingPrecedence": 50, "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["create"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["*"]}]}]}});
    create(&fixture.admin, &format!("{FLOW}/flowschemas"), &schema.to_string()).await;
    let map = |name: String| json!({"metadata": {"name": name}}).to_string();
    // Until the schema and the webhook are in force.
    for attempt in 0..100 {
        let began = std::time::Instant::now();
        let (code, headers, _) =
            wire::send(&fixture, JANE_TOKEN, "POST", MAPS, &map(format!("probe{attempt}"))).await;
        if code == 201
            && began.elapsed() > Duration::from_millis(500)
            && class(&fixture, &headers).await == "tiny/tiny"
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let burst = |prefix: &'static str| {
        let fixture = Arc::clone(&fixture);
        async move {
            let all = (0..3).map(|at| {
                let fixture = Arc::clone(&fixture);
                tokio::spawn(async move {
                    wire::send(
                        &fixture,
                        JANE_TOKEN,
                        "POST",
                        MAPS,
                        &json!({"metadata": {"name": format!("{prefix}{at}")}}).to_string(),
                    )
                    .await
                })
            });
            let all: Vec<_> = all.collect();
            tokio::time::sleep(Duration::from_millis(100)).await;
            // Others are not kept waiting meanwhile: this is another flow of another level.
            let (code, ..) = wire::send(&fixture, JANE_TOKEN, "GET", "/api/v1/namespaces/default", "").await;
            assert_eq!(code, 200);
            let mut codes = Vec::new();
            for request in all {
                let (code, headers, text) = request.await.unwrap();
                if code == 429 {
                    assert_eq!(headers["retry-after"], "1");
                    assert_eq!(text, "Too many requests, please try again later.\n");
                }
                codes.push(code);
            }
            codes.sort_unstable();
            codes
        }
    };
    assert_eq!(burst("r").await, [201, 429, 429]);
    let (_, text) = send(&fixture.admin, "GET", "/metrics", &[], "").await;
    let wanted = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"tiny\",priority_level=\"tiny\",reason=\"concurrency-limit\"} 2";
    assert!(text.contains(wanted), "{text}");
    let queue = json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 2, "queueLengthLimit": 10}});
    let merge = [("content-type", "application/merge-patch+json")];
    let path = format!("{FLOW}/prioritylevelconfigurations/tiny");
    let (code, text) = send(&fixture.admin, "PATCH", &path, &merge, level(queue).to_string()).await;
    assert_eq!(code, 200, "{text}");
    for attempt in ["a", "b", "c", "d", "e"] {
        if burst(attempt).await == [201, 201, 201] {
            return;
        }
    }
    panic!("requests are refused though there are queues");
}
