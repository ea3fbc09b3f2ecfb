//! The same documents through an independent implementation of the API, `k8s-openapi`: equal JSON comes out.

use k8s_openapi::serde_json::{self, Value};

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop","labels":{"app":"web"},
"creationTimestamp":"2026-01-02T03:04:05Z","ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-1","uid":"u","controller":true}]},
"spec":{"containers":[{"name":"a","image":"busybox:1","ports":[{"containerPort":80,"name":"http"}],"resources":{"limits":{"cpu":"100m","memory":"64Mi"}},
"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],"livenessProbe":{"httpGet":{"path":"/","port":"http"},"periodSeconds":5}}],
"tolerations":[{"key":"k","operator":"Exists","tolerationSeconds":300}],"volumes":[{"name":"v","emptyDir":{"medium":"Memory","sizeLimit":"1Gi"}}]},
"status":{"phase":"Running","podIP":"10.0.0.1","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:04:06Z"}]}}"#;

const DEPLOYMENT: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","generation":3},"spec":{"replicas":0,
"selector":{"matchExpressions":[{"key":"app","operator":"In","values":["a","b"]}]},"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},
"template":{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[{"name":"a"}]}}}}"#;

const SECRET: &str = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"a":"AAEC/w=="},"type":"Opaque","immutable":true}"#;

const LEASE: &str = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"n"},
"spec":{"holderIdentity":"n","leaseDurationSeconds":40,"renewTime":"2026-01-02T03:04:05.000006Z"}}"#;

/// Neither side's habit of writing empty values counts.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, without_empty(value)))
                .filter(|(_, value)| !value.is_null() && *value != serde_json::json!({}))
                .collect(),
        ),
        Value::Array(all) => Value::Array(all.into_iter().map(without_empty).collect()),
        other => other,
    }
}

fn same<Theirs, Ours>(text: &str)
where
    Theirs: k8s_openapi::serde::de::DeserializeOwned + k8s_openapi::serde::Serialize,
    Ours: api::Typed,
{
    let theirs: Theirs = serde_json::from_str(text).expect("the document is of this kind");
    let theirs = serde_json::to_value(&theirs).expect("what was read can be written");
    let ours: Ours = api::codec::from_json(text.as_bytes()).expect("the document is of this kind");
    let across: Ours =
        api::codec::from_protobuf(&api::codec::to_protobuf(&ours)).expect("our own protobuf can be read");
    for message in [&ours, &across] {
        let written: Value = serde_json::from_slice(&api::codec::to_json(message)).expect("we write JSON");
        pretty_equal(&without_empty(written), &without_empty(theirs.clone()));
    }
}

fn pretty_equal(left: &Value, right: &Value) {
    assert_eq!(serde_json::to_string_pretty(left).ok(), serde_json::to_string_pretty(right).ok());
}

#[test]
fn agrees_with_k8s_openapi() {
    use k8s_openapi::api as theirs;
    same::<theirs::core::v1::Pod, api::core::v1::Pod>(POD);
    same::<theirs::apps::v1::Deployment, api::apps::v1::Deployment>(DEPLOYMENT);
    same::<theirs::core::v1::Secret, api::core::v1::Secret>(SECRET);
    same::<theirs::coordination::v1::Lease, api::coordination::v1::Lease>(LEASE);
}

#[test]
fn broken_documents_are_refused_not_fatal() {
    let whole =
        api::codec::to_protobuf(&api::codec::from_json::<api::core::v1::Pod>(POD.as_bytes()).expect("a pod"));
    for cut in 0..whole.len() {
        let _ = api::codec::from_protobuf::<api::core::v1::Pod>(&whole[..cut]);
        let mut bent = whole.clone();
        bent[cut] ^= 0x55;
        let _ = api::codec::from_protobuf::<api::core::v1::Pod>(&bent);
    }
    for cut in 0..POD.len() {
        assert!(api::codec::from_json::<api::core::v1::Pod>(&POD.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
}
