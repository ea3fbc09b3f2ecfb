//! Auditing over the wire: what the log says of requests, as the policy wants it, and what a server is sent.

mod common;

use common::far;
use common::{ADMIN_TOKEN, Fixture, create, kubectl, send, serve_with};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ["*"]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
- {level: RequestResponse, verbs: [create, update, patch, delete], resources: [{group: "", resources: [configmaps]}], namespaces: [default], omitManagedFields: true}
- {level: Metadata, verbs: [watch, delete], resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata, users: [jane]}
"#;

async fn serve_audited(change: impl FnOnce(&mut kube_apiserver::Options)) -> (Fixture, PathBuf) {
    let dir = tempfile::tempdir().unwrap().keep();
    let (policy, log) = (dir.join("policy.yaml"), dir.join("audit.log"));
    std::fs::write(&policy, POLICY).unwrap();
    let path = log.clone();
    let fixture = serve_with(move |options| {
        options.audit.audit_policy_file = Some(policy);
        options.audit.audit_log_path = Some(path);
        change(options);
    })
    .await;
    (fixture, log)
}

fn events(log: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last event that a test may still have to wait for.
async fn last(log: &PathBuf, fits: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..200 {
        if let Some(found) = events(log).into_iter().rev().find(&fits) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no such event among {:#?}", events(log));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_what_the_policy_wants() {
    let (fixture, log) = serve_audited(|_| {}).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    create(&fixture.admin, maps, r#"{"metadata":{"name":"m"},"data":{"a":"b"}}"#).await;
    let event = last(&log, |event| event["verb"] == "create").await;
    assert_eq!((&event["stage"], &event["level"]), (&json!("ResponseComplete"), &json!("RequestResponse")));
    assert_eq!(
        event["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"})
    );
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(event["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(event["requestObject"]["data"]["a"], "b");
    assert_eq!(event["responseObject"]["kind"], "ConfigMap");
    assert!(event["responseObject"]["metadata"]["managedFields"].is_null());
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    // A Secret's content is never told at Metadata.
    let secrets = "/api/v1/namespaces/default/secrets";
    create(&fixture.admin, secrets, r#"{"metadata":{"name":"s"},"stringData":{"k":"hidden-thing"}}"#).await;
    let event = last(&log, |event| event["objectRef"]["resource"] == "secrets").await;
    assert_eq!(event["objectRef"]["name"], "s");
    assert!(!std::fs::read_to_string(&log).unwrap().contains("hidden-thing"));
    // A refusal, with its reason.
    assert_eq!(send(&fixture.jane, "GET", secrets, &[], "").await.0, 403);
    let event = last(&log, |event| event["user"]["username"] == "jane").await;
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&event["responseStatus"]["code"], &event["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    // A watch is told when it begins and when it ends.
    send(&fixture.admin, "GET", &format!("{maps}?watch=1&timeoutSeconds=1"), &[], "").await;
    last(&log, |event| event["verb"] == "watch" && event["stage"] == "ResponseComplete").await;
    let begun = last(&log, |event| event["verb"] == "watch" && event["stage"] == "ResponseStarted").await;
    assert_eq!(begun["requestURI"], format!("{maps}?watch=1&timeoutSeconds=1"));
    // Paths that the policy passes over.
    send(&fixture.admin, "GET", "/version", &[], "").await;
    assert!(events(&log).iter().all(|event| event["requestURI"] != "/version"));
    let answer = tokio::task::block_in_place(|| {
        kubectl(
            &fixture,
            ADMIN_TOKEN,
            &["delete", "configmap", "m", "--as", "root", "--as-group", "system:masters"],
        )
    });
    if let Some((done, text)) = answer {
        assert!(done, "{text}");
        let event = last(&log, |event| event["verb"] == "delete").await;
        assert_eq!(event["impersonatedUser"]["username"], "root");
        assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
        assert!(event["userAgent"].as_str().unwrap().starts_with("kubectl/"));
    }
    let (_, text) = send(&fixture.admin, "GET", "/metrics", &[], "").await;
    assert!(text.contains("apiserver_audit_level_total{level=\"RequestResponse\"}"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_sent_lists_and_webhooks_leave_their_notes() {
    let lists = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lists);
    let server = far::serve(&[], move |asked| {
        seen.lock().push(serde_json::from_slice::<Value>(&asked.body).unwrap());
        Box::pin(async { far::json(200, &json!({})) })
    })
    .await;
    let hook = far::serve(&[], |asked| {
        let review: Value = serde_json::from_slice(&asked.body).unwrap();
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": {"uid": review["request"]["uid"], "allowed": true, "auditAnnotations": {"note": "seen"}}});
        Box::pin(async move { far::json(200, &answer) })
    })
    .await;
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": server.url("/audit"), "certificate-authority-data": server.ca_bundle()}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": ""}}], "users": []});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let (fixture, _) = serve_audited(|options| {
        options.audit.audit_webhook_config_file = Some(path);
        options.audit.audit_webhook_batch_max_wait = Duration::from_millis(50);
    })
    .await;
    let configuration = json!({"metadata": {"name": "v"}, "webhooks": [{
        "name": "note.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "clientConfig": {"url": hook.url("/"), "caBundle": hook.ca_bundle()},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]});
    let hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    create(&fixture.admin, hooks, &configuration.to_string()).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for attempt in 0..200 {
        create(&fixture.admin, maps, &json!({"metadata": {"name": format!("m{attempt}")}}).to_string()).await;
        let noted = |list: &Value| {
            list["items"]
                .as_array()
                .unwrap()
                .iter()
                .any(|event| event["annotations"]["note.example.com/note"] == "seen")
        };
        if lists.lock().iter().any(noted) {
            let list = lists.lock()[0].clone();
            assert_eq!(
                (&list["kind"], &list["apiVersion"]),
                (&json!("EventList"), &json!("audit.k8s.io/v1"))
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:#?}", lists.lock());
}
