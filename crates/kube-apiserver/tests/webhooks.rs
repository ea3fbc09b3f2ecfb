//! Admission webhooks over real TLS: who is asked, what the answers do, and what silence does.

mod common;

use base64::Engine;
use common::far::{self, Far};
use common::{Fixture, create, get, send, serve};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A webhook that remembers what it was asked and answers by a function of the request.
async fn webhook(
    names: &[&str],
    decide: impl Fn(&Value) -> Value + Send + Sync + 'static,
) -> (Far, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let far = far::serve(names, move |request| {
        let review: Value = serde_json::from_slice(&request.body).unwrap();
        let mut response = decide(&review["request"]);
        response["uid"] = review["request"]["uid"].clone();
        let answer =
            json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response});
        let mut kept = review["request"].clone();
        kept["url"] = json!(request.path);
        seen.lock().push(kept);
        Box::pin(async move { far::json(200, &answer) })
    })
    .await;
    (far, asked)
}

fn patch(steps: Value) -> Value {
    let patch = base64::prelude::BASE64_STANDARD.encode(steps.to_string());
    json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})
}

fn hook(name: &str, far: &Far, more: Value) -> Value {
    let mut hook = json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "clientConfig": {"url": far.url("/hook"), "caBundle": far.ca_bundle()},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        hook[key] = value.clone();
    }
    hook
}

async fn install(fixture: &Fixture, kind: &str, name: &str, hooks: Value) {
    let plural = kind.to_ascii_lowercase();
    let body = json!({"metadata": {"name": name}, "webhooks": hooks});
    create(&fixture.admin, &format!("{HOOKS}/{plural}s"), &body.to_string()).await;
}

/// Waits until the server acts by a configuration that was just written.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never came true: {what}");
}

async fn post(fixture: &Fixture, path: &str, body: Value) -> (u16, Value) {
    let (code, text) = send(&fixture.admin, "POST", path, JSON, body.to_string()).await;
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validating_webhook_refuses_warns_and_hears_what_upstream_tells() {
    let fixture = serve().await;
    let (far, asked) = webhook(&[], |request| {
        if request["name"] == "bad" {
            json!({"allowed": false, "status": {"message": "not here", "code": 403, "reason": "Forbidden"}})
        } else {
            json!({"allowed": true, "warnings": ["mind the gap"]})
        }
    })
    .await;
    install(
        &fixture,
        "ValidatingWebhookConfiguration",
        "v",
        json!([hook("deny.example.com", &far, json!({}))]),
    )
    .await;
    until("the webhook refuses", async || post(&fixture, MAPS, map("bad")).await.0 == 403).await;
    let (code, status) = post(&fixture, MAPS, map("bad")).await;
    assert_eq!(code, 403);
    assert_eq!(status["message"], "admission webhook \"deny.example.com\" denied the request: not here");
    assert_eq!(status["reason"], "Forbidden");
    asked.lock().clear();
    let (code, _) = post(&fixture, &format!("{MAPS}?fieldManager=me"), map("good")).await;
    assert_eq!(code, 201);
    let heard = asked.lock().pop().unwrap();
    assert_eq!(heard["operation"], "CREATE");
    assert_eq!(heard["url"], "/hook?timeout=10s");
    assert_eq!(heard["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(heard["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(heard["object"]["data"]["a"], "1");
    assert_eq!(heard["oldObject"], Value::Null);
    assert_eq!(heard["options"]["fieldManager"], "me");
    assert_eq!(heard["options"]["kind"], "CreateOptions");
    assert_eq!(heard["userInfo"]["username"], "admin");
    assert_eq!(heard["dryRun"], false);
    let (code, _) = send(&fixture.admin, "DELETE", &format!("{MAPS}/good"), &[], "").await;
    assert_eq!(code, 200);
    let heard = asked.lock().pop().unwrap();
    assert_eq!((&heard["operation"], &heard["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(heard["oldObject"]["metadata"]["name"], "good");
    let (_, text) = send(&fixture.admin, "GET", "/metrics", &[], "").await;
    assert!(
        text.contains("apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"deny.example.com\",operation=\"CREATE\",rejection_code=\"403\",type=\"validating\"}"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutating_webhooks_patch_in_order_and_are_asked_again() {
    let fixture = serve().await;
    // The first adds a label only once the second has set the data: that takes a second round.
    let (first, first_asked) = webhook(&[], |request| {
        if request["object"]["data"]["b"] == "2" {
            patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}]))
        } else {
            json!({"allowed": true})
        }
    })
    .await;
    let (second, second_asked) =
        webhook(&[], |_| patch(json!([{"op": "add", "path": "/data/b", "value": "2"}]))).await;
    install(
        &fixture,
        "MutatingWebhookConfiguration",
        "m",
        json!([
            hook("first.example.com", &first, json!({"reinvocationPolicy": "IfNeeded"})),
            hook("second.example.com", &second, json!({})),
        ]),
    )
    .await;
    until("the webhooks change objects", async || {
        let (_, made) = post(&fixture, &format!("{MAPS}?dryRun=All"), map("probe")).await;
        made["data"]["b"] == "2"
    })
    .await;
    first_asked.lock().clear();
    second_asked.lock().clear();
    let (code, made) = post(&fixture, MAPS, map("x")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["data"], json!({"a": "1", "b": "2"}));
    assert_eq!(made["metadata"]["labels"], json!({"seen": "yes"}));
    assert_eq!((first_asked.lock().len(), second_asked.lock().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_webhook_harms_only_what_it_matches() {
    let fixture = serve().await;
    let (far, asked) = webhook(&[], |_| json!({"allowed": true})).await;
    let dead = json!({"url": "https://127.0.0.1:9/x", "caBundle": far.ca_bundle()});
    let labelled = json!({"matchLabels": {"strict": "yes"}});
    install(
        &fixture,
        "ValidatingWebhookConfiguration",
        "v",
        json!([
            hook("closed.example.com", &far, json!({"clientConfig": dead, "objectSelector": labelled})),
            hook("open.example.com", &far, json!({"clientConfig": dead, "failurePolicy": "Ignore"})),
            hook(
                "elsewhere.example.com",
                &far,
                json!({"namespaceSelector": {"matchLabels": {"no": "such"}}})
            ),
        ]),
    )
    .await;
    let strict = json!({"metadata": {"name": "s", "labels": {"strict": "yes"}}});
    until("the webhook matters", async || {
        post(&fixture, &format!("{MAPS}?dryRun=All"), strict.clone()).await.0 == 500
    })
    .await;
    let (_, status) = post(&fixture, MAPS, strict).await;
    assert_eq!(
        status["message"],
        "Internal error occurred: failed calling webhook \"closed.example.com\": failed to call webhook: Post \
         \"https://127.0.0.1:9/x?timeout=10s\": dial tcp 127.0.0.1:9: connect: connection refused"
    );
    assert_eq!(post(&fixture, MAPS, map("plain")).await.0, 201);
    assert!(asked.lock().is_empty());
    let secret = json!({"metadata": {"name": "s", "labels": {"strict": "yes"}}});
    assert_eq!(post(&fixture, "/api/v1/namespaces/default/secrets", secret).await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_runs_out_certificates_are_checked_and_dry_runs_need_no_side_effects() {
    let fixture = serve().await;
    let slow = far::serve(&[], |_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            far::json(200, &json!({}))
        })
    })
    .await;
    let other = pki::Authority::generate("other").unwrap();
    let other = base64::prelude::BASE64_STANDARD.encode(other.cert_pem());
    let select = |name: &str| json!({"matchLabels": {"case": name}});
    install(
        &fixture,
        "ValidatingWebhookConfiguration",
        "v",
        json!([
            hook("slow.example.com", &slow, json!({"timeoutSeconds": 1, "objectSelector": select("slow")})),
            hook("unknown.example.com", &slow, json!({
                "clientConfig": {"url": slow.url("/"), "caBundle": other}, "objectSelector": select("ca")})),
            hook("dry.example.com", &slow, json!({
                "sideEffects": "NoneOnDryRun", "failurePolicy": "Ignore", "timeoutSeconds": 1, "objectSelector": select("dry")})),
        ]),
    )
    .await;
    let labelled = |case: &str| json!({"metadata": {"name": case, "labels": {"case": case}}});
    until("the webhooks matter", async || post(&fixture, MAPS, labelled("ca")).await.0 == 500).await;
    let (_, status) = post(&fixture, MAPS, labelled("ca")).await;
    let text = status["message"].as_str().unwrap();
    assert!(
        text.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{text}"
    );
    let (code, status) = post(&fixture, MAPS, labelled("slow")).await;
    let text = status["message"].as_str().unwrap();
    assert!(code == 500 && text.ends_with("?timeout=1s\": context deadline exceeded"), "{text}");
    assert_eq!(post(&fixture, &format!("{MAPS}?dryRun=All"), labelled("dry")).await.0, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_found_scales_and_bindings_are_shown_and_configurations_are_out_of_reach() {
    let fixture = serve().await;
    let (far, asked) = webhook(&["hook.default.svc"], |request| {
        json!({"allowed": request["object"]["spec"]["replicas"] != 7, "status": {"message": "seven"}})
    })
    .await;
    // An alias is the one Service whose address a test can choose freely.
    let alias =
        json!({"metadata": {"name": "hook"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    create(&fixture.admin, "/api/v1/namespaces/default/services", &alias.to_string()).await;
    let config = json!({
        "service": {"namespace": "default", "name": "hook", "path": "/p", "port": far.addr.port()},
        "caBundle": far.ca_bundle(),
    });
    let rules =
        json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]);
    let all = json!({"clientConfig": config, "rules": rules});
    install(&fixture, "ValidatingWebhookConfiguration", "v", json!([hook("all.example.com", &far, all)]))
        .await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    create(&fixture.admin, "/apis/apps/v1/namespaces/default/deployments", &deployment.to_string()).await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d/scale?dryRun=All";
    let merge = &[("content-type", "application/merge-patch+json")];
    until("the webhook is asked", async || {
        send(&fixture.admin, "PATCH", path, merge, r#"{"spec":{"replicas":7}}"#).await.0 == 400
    })
    .await;
    let heard = asked.lock().pop().unwrap();
    assert_eq!(heard["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(
        (&heard["subResource"], &heard["oldObject"]["spec"]["replicas"]),
        (&json!("scale"), &json!(1))
    );
    asked.lock().clear();
    let configuration = get(&fixture.admin, &format!("{HOOKS}/validatingwebhookconfigurations/v")).await;
    assert_eq!(configuration["webhooks"][0]["timeoutSeconds"], 10);
    let path = format!("{HOOKS}/validatingwebhookconfigurations/v");
    assert_eq!(send(&fixture.admin, "DELETE", &path, &[], "").await.0, 200);
    let none = asked.lock().iter().all(|heard| heard["kind"]["kind"] != "ValidatingWebhookConfiguration");
    assert!(none);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_patched_and_refused_like_any_other() {
    let fixture = serve().await;
    let crd = json!({"metadata": {"name": "gadgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}, "colour": {"type": "string"}}}}}}}]}});
    create(&fixture.admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd.to_string()).await;
    let (far, asked) = webhook(&[], |request| {
        if request["object"]["spec"]["size"] == 7 {
            json!({"allowed": false, "status": {"message": "seven"}})
        } else {
            patch(json!([{"op": "add", "path": "/spec/colour", "value": "red"}]))
        }
    })
    .await;
    let rules = json!([{"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["gadgets"]}]);
    let hooks = json!([hook("gadgets.example.com", &far, json!({"rules": rules}))]);
    install(&fixture, "MutatingWebhookConfiguration", "m", hooks).await;
    let path = "/apis/example.com/v1/namespaces/default/gadgets";
    let gadget = |name: &str, size: i32| json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": {"size": size}});
    until("the webhook changes custom objects", async || {
        let (_, made) = post(&fixture, &format!("{path}?dryRun=All"), gadget("probe", 1)).await;
        made["spec"]["colour"] == "red"
    })
    .await;
    let (code, made) = post(&fixture, path, gadget("a", 2)).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"size": 2, "colour": "red"})));
    let heard = asked.lock().pop().unwrap();
    assert_eq!(heard["kind"], json!({"group": "example.com", "version": "v1", "kind": "Gadget"}));
    assert_eq!(heard["object"]["apiVersion"], "example.com/v1");
    let (code, status) = post(&fixture, path, gadget("b", 7)).await;
    assert_eq!(
        (code, &status["message"]),
        (400, &json!("admission webhook \"gadgets.example.com\" denied the request: seven"))
    );
    assert_eq!(get(&fixture.admin, &format!("{path}/a")).await["spec"]["colour"], "red");
}
