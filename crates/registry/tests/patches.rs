//! Patches through the whole write path.

mod common;

use common::*;
use registry::{FieldValidation, Patch, PatchType, Request, UpdateKind};
use serde_json::{Value, json};

fn value(object: &std::sync::Arc<registry::Encoded>) -> Value {
    serde_json::from_slice(&object.json().expect("encodes")).expect("json")
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

async fn apply(
    server: &Server,
    manager: &str,
    force: bool,
    body: Value,
) -> Result<registry::Updated, api::errors::ApiError> {
    let request = Request { field_manager: manager.into(), ..request() };
    let patch = Patch { kind: PatchType::Apply, body: body.to_string().into(), force };
    let name = body["metadata"]["name"].as_str().expect("a name").to_string();
    server.registry.patch(&request, deployments(), &key(&name), UpdateKind::Spec, &patch).await
}

#[tokio::test]
async fn each_kind_of_patch_patches() {
    let server = Server::new();
    server.create(maps(), map("a", &[], &[("k", "v")])).await.expect("created");
    let patches = [
        (PatchType::Json, json!([{"op": "add", "path": "/data/j", "value": "1"}])),
        (PatchType::Merge, json!({"data": {"m": "2", "k": null}})),
        (PatchType::StrategicMerge, json!({"data": {"s": "3"}})),
    ];
    for (kind, body) in patches {
        server.patch(maps(), "a", kind, body).await.expect("patched");
    }
    let read = value(&server.get(maps(), "a").await.expect("there"));
    assert_eq!(read["data"], json!({"j": "1", "m": "2", "s": "3"}));

    let test = json!([{"op": "test", "path": "/data/j", "value": "9"}]);
    assert_eq!(server.patch(maps(), "a", PatchType::Json, test).await.expect_err("refused").code, 422);
    assert_eq!(server.patch(maps(), "a", PatchType::Json, json!({})).await.expect_err("refused").code, 400);
    let missing = server.patch(maps(), "b", PatchType::Merge, json!({})).await.expect_err("not there");
    assert_eq!(missing.code, 404);
    let renamed = server.patch(maps(), "a", PatchType::Merge, json!({"metadata": {"name": "z"}})).await;
    assert_eq!(renamed.expect_err("refused").code, 400);
    let stale =
        server.patch(maps(), "a", PatchType::Merge, json!({"metadata": {"resourceVersion": "1"}})).await;
    assert_eq!(stale.expect_err("refused").code, 409);
}

#[tokio::test]
async fn unknown_fields_are_judged() {
    let server = Server::new();
    server.make("a", &[]).await;
    let body = json!({"nonsense": 1});
    let with = |field_validation| Request { field_validation, ..request() };
    let patch = Patch { kind: PatchType::Merge, body: body.to_string().into(), force: false };
    let strict = with(FieldValidation::Strict);
    let error = server
        .registry
        .patch(&strict, maps(), &key("a"), UpdateKind::Spec, &patch)
        .await
        .expect_err("refused");
    assert_eq!(error.to_string(), "strict decoding error: unknown field \"nonsense\"");
    let warn = with(FieldValidation::Warn);
    server.registry.patch(&warn, maps(), &key("a"), UpdateKind::Spec, &patch).await.expect("patched");
    assert_eq!(warn.warnings.take(), ["unknown field \"nonsense\""]);
}

#[tokio::test]
async fn an_apply_creates_then_merges() {
    let server = Server::new();
    let first = apply(&server, "me", false, deployment()).await.expect("applied");
    assert!(first.created);
    let again = apply(&server, "me", false, deployment()).await.expect("applied");
    assert!(!again.created);
    assert_eq!(first.object.revision(), again.object.revision(), "the same again writes nothing");

    let mut more = deployment();
    more["spec"]["replicas"] = json!(4);
    let error = apply(&server, "other", false, more.clone()).await.expect_err("conflict");
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas");
    assert_eq!(error.code, 409);
    let cause = &error.details.expect("details").causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".spec.replicas"));
    let forced = apply(&server, "other", true, more).await.expect("forced");
    assert_eq!(value(&forced.object)["spec"]["replicas"], 4);

    let mut less = deployment();
    less["spec"].as_object_mut().expect("a spec").remove("replicas");
    let kept = apply(&server, "me", false, less).await.expect("applied");
    assert_eq!(value(&kept.object)["spec"]["replicas"], 4, "somebody else owns it");
}

#[tokio::test]
async fn updates_and_applies_share_the_books() {
    let server = Server::new();
    let client_side = serde_json::from_value::<Value>(deployment()).expect("json");
    let mut object = from_json::<api::apps::v1::Deployment>(client_side.clone());
    object
        .metadata_mut()
        .annotations
        .insert("kubectl.kubernetes.io/last-applied-configuration".into(), client_side.to_string());
    server.create(deployments(), object).await.expect("created");
    let mut wanted = deployment();
    wanted["spec"]["replicas"] = json!(2);
    let error = apply(&server, "somebody", false, wanted.clone()).await.expect_err("conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas"
    );
    let taken = apply(&server, "kubectl", false, wanted).await.expect("kubectl takes over from itself");
    let taken = value(&taken.object);
    let last = &taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(last.as_str().expect("text").contains("\"replicas\":2"));
    let owners: Vec<_> = taken["metadata"]["managedFields"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| format!("{} {}", entry["manager"], entry["operation"]).replace('"', ""))
        .collect();
    assert_eq!(owners, ["kubectl Apply", "kubectl Update"]);
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let server = Server::new();
    let mut unknown = deployment();
    unknown["spec"]["replica"] = json!(1);
    let error = apply(&server, "me", false, unknown).await.expect_err("refused");
    let text = "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.replica: field not \
                declared in schema";
    assert_eq!((error.code, error.to_string().as_str()), (500, text));
    let mut other = deployment();
    other["kind"] = json!("StatefulSet");
    let error = apply(&server, "me", false, other).await.expect_err("refused");
    assert_eq!(error.to_string(), "invalid object type: apps/v1, Kind=StatefulSet");
}
