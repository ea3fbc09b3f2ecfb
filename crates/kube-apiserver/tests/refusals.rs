//! Bad input: upstream's code, reason and words each time, and the server goes on.

mod common;

use common::{Fixture, create, send, serve};
use expect_test::{Expect, expect};

const JSON: &str = "application/json";

/// `code reason: message` of a Status, or `code text`.
fn short(code: u16, text: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(status) if status["kind"] == "Status" => format!(
            "{code} {}: {}",
            status["reason"].as_str().unwrap_or("-"),
            status["message"].as_str().unwrap_or("-")
        ),
        Ok(other) => format!("{code} {}", other["kind"].as_str().unwrap_or("?")),
        Err(_) => format!("{code} {}", text.trim()),
    }
}

async fn check(fixture: &Fixture, cases: &[(&str, &str, &str, &str)], expected: Expect) {
    let mut lines = Vec::new();
    for (method, path, kind, body) in cases {
        let headers: &[(&str, &str)] = if kind.is_empty() { &[] } else { &[("content-type", kind)] };
        let (code, text) = send(&fixture.admin, method, path, headers, body.to_string()).await;
        lines.push(format!("{method} {path} {body}\n  {}", short(code, &text)));
    }
    expected.assert_eq(&lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_fit() {
    let fixture = serve().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    check(
        &fixture,
        &[
            ("POST", maps, JSON, "{\"metadata\": "),
            ("POST", maps, JSON, ""),
            ("POST", maps, "application/yaml", "a: [b"),
            ("POST", maps, "application/vnd.kubernetes.protobuf", "nonsense"),
            ("POST", maps, "text/html", "<p>"),
            ("POST", maps, JSON, r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#),
            ("POST", maps, JSON, r#"{"kind":"ConfigMap","apiVersion":"v9","metadata":{"name":"a"}}"#),
            ("POST", maps, JSON, r#"{"metadata":{"name":"Bad_Name"}}"#),
            ("POST", maps, JSON, r#"{"metadata":{"name":"a","namespace":"other"}}"#),
            ("POST", maps, JSON, r#"{"metadata":{"name":"a","labels":{"x":"not valid"}}}"#),
            ("POST", maps, JSON, r#"{"metadata":{"name":"a"},"data":{"k":5}}"#),
            ("POST", deployments, JSON, r#"{"metadata":{"name":"a"},"spec":{"replicas":"three"}}"#),
            (
                "POST",
                "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
                JSON,
                r#"{"metadata":{"name":"a"},"dota":{},"data":{"k":"1","k":"2"}}"#,
            ),
            ("POST", "/api/v1/namespaces/default/configmaps?fieldValidation=Maybe", JSON, "{}"),
            ("POST", "/api/v1/namespaces/default/configmaps?dryRun=Some", JSON, "{}"),
            ("POST", "/api/v1/namespaces/nowhere/configmaps", JSON, r#"{"metadata":{"name":"a"}}"#),
        ],
        expect![[r#"
            POST /api/v1/namespaces/default/configmaps {"metadata": 
              400 BadRequest: the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ("{\"metadata\": ")
            POST /api/v1/namespaces/default/configmaps 
              400 BadRequest: the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)
            POST /api/v1/namespaces/default/configmaps a: [b
              400 BadRequest: the object provided is unrecognized (must be of type ConfigMap): error converting YAML to JSON: error: line 1 column 4: unclosed bracket '[' (613a205b62)
            POST /api/v1/namespaces/default/configmaps nonsense
              400 BadRequest: the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (6e6f6e73656e7365)
            POST /api/v1/namespaces/default/configmaps <p>
              415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf
            POST /api/v1/namespaces/default/configmaps {"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}
              400 BadRequest: Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (v1.ConfigMap): unknown conversion
            POST /api/v1/namespaces/default/configmaps {"kind":"ConfigMap","apiVersion":"v9","metadata":{"name":"a"}}
              400 BadRequest: ConfigMap in version "v9" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v9" in scheme "pkg/api/legacyscheme/scheme.go:30"
            POST /api/v1/namespaces/default/configmaps {"metadata":{"name":"Bad_Name"}}
              422 Invalid: ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            POST /api/v1/namespaces/default/configmaps {"metadata":{"name":"a","namespace":"other"}}
              400 BadRequest: the namespace of the provided object does not match the namespace sent on the request
            POST /api/v1/namespaces/default/configmaps {"metadata":{"name":"a","labels":{"x":"not valid"}}}
              422 Invalid: ConfigMap "a" is invalid: metadata.labels: Invalid value: "not valid": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            POST /api/v1/namespaces/default/configmaps {"metadata":{"name":"a"},"data":{"k":5}}
              400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data.k of type string
            POST /apis/apps/v1/namespaces/default/deployments {"metadata":{"name":"a"},"spec":{"replicas":"three"}}
              400 BadRequest: Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32
            POST /api/v1/namespaces/default/configmaps?fieldValidation=Strict {"metadata":{"name":"a"},"dota":{},"data":{"k":"1","k":"2"}}
              400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dota", duplicate field "data.k"
            POST /api/v1/namespaces/default/configmaps?fieldValidation=Maybe {}
              422 Invalid: CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Maybe": supported values: "Ignore", "Strict", "Warn"
            POST /api/v1/namespaces/default/configmaps?dryRun=Some {}
              422 Invalid: CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "Some": supported values: "All"
            POST /api/v1/namespaces/nowhere/configmaps {"metadata":{"name":"a"}}
              404 NotFound: namespaces "nowhere" not found"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense() {
    let fixture = serve().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    create(&fixture.admin, maps, r#"{"metadata":{"name":"here"}}"#).await;
    check(
        &fixture,
        &[
            ("GET", "/api/v1/namespaces/default/configmaps/gone", "", ""),
            ("GET", "/api/v1/namespaces/default/nonsense", "", ""),
            ("GET", "/apis/nonsense/v1/things", "", ""),
            ("PUT", maps, JSON, "{}"),
            ("POST", "/api/v1/configmaps", JSON, r#"{"metadata":{"name":"a"}}"#),
            ("POST", maps, JSON, r#"{"metadata":{"name":"here"}}"#),
            ("GET", "/api/v1/configmaps?labelSelector=a%20in%20b", "", ""),
            ("GET", "/api/v1/configmaps?fieldSelector=spec.x%3Dy", "", ""),
            ("GET", "/api/v1/configmaps?limit=many", "", ""),
            ("GET", "/api/v1/configmaps?resourceVersion=old", "", ""),
            ("GET", "/api/v1/configmaps?continue=junk", "", ""),
            ("PATCH", "/api/v1/namespaces/default/configmaps/here", JSON, "{}"),
            ("PATCH", "/api/v1/namespaces/default/configmaps/here", "application/merge-patch+json", "[1"),
            ("PATCH", "/api/v1/namespaces/default/configmaps/here", "application/apply-patch+yaml", "a: b"),
            (
                "PATCH",
                "/api/v1/namespaces/default/configmaps/here?force=true",
                "application/merge-patch+json",
                "{}",
            ),
            (
                "PUT",
                "/api/v1/namespaces/default/configmaps/here",
                JSON,
                r#"{"metadata":{"name":"here","resourceVersion":"1"}}"#,
            ),
            ("PUT", "/api/v1/namespaces/default/configmaps/here", JSON, r#"{"metadata":{"name":"there"}}"#),
            ("DELETE", "/api/v1/namespaces/kube-system", "", ""),
            (
                "DELETE",
                "/api/v1/namespaces/default/configmaps/here?propagationPolicy=Sometimes",
                "",
                "",
            ),
        ],
        expect![[r#"
            GET /api/v1/namespaces/default/configmaps/gone 
              404 NotFound: configmaps "gone" not found
            GET /api/v1/namespaces/default/nonsense 
              404 404 page not found
            GET /apis/nonsense/v1/things 
              404 404 page not found
            PUT /api/v1/namespaces/default/configmaps {}
              405 405: Method Not Allowed
            POST /api/v1/configmaps {"metadata":{"name":"a"}}
              405 405: Method Not Allowed
            POST /api/v1/namespaces/default/configmaps {"metadata":{"name":"here"}}
              409 AlreadyExists: configmaps "here" already exists
            GET /api/v1/configmaps?labelSelector=a%20in%20b 
              400 BadRequest: unable to parse requirement: found 'b' expected: '('
            GET /api/v1/configmaps?fieldSelector=spec.x%3Dy 
              400 BadRequest: "spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"
            GET /api/v1/configmaps?limit=many 
              400 BadRequest: strconv.ParseInt: parsing "many": invalid syntax
            GET /api/v1/configmaps?resourceVersion=old 
              500 -: resourceVersion: Invalid value: "old": strconv.ParseUint: parsing "old": invalid syntax
            GET /api/v1/configmaps?continue=junk 
              400 BadRequest: invalid continue token: continue key is not valid: expected value at line 1 column 1
            PATCH /api/v1/namespaces/default/configmaps/here {}
              415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml
            PATCH /api/v1/namespaces/default/configmaps/here [1
              400 BadRequest: error decoding patch: EOF while parsing a list at line 1 column 2
            PATCH /api/v1/namespaces/default/configmaps/here a: b
              422 Invalid: PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch
            PATCH /api/v1/namespaces/default/configmaps/here?force=true {}
              422 Invalid: PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch
            PUT /api/v1/namespaces/default/configmaps/here {"metadata":{"name":"here","resourceVersion":"1"}}
              409 Conflict: Operation cannot be fulfilled on configmaps "here": the object has been modified; please apply your changes to the latest version and try again
            PUT /api/v1/namespaces/default/configmaps/here {"metadata":{"name":"there"}}
              400 BadRequest: the name of the object (there) does not match the name on the URL (here)
            DELETE /api/v1/namespaces/kube-system 
              403 Forbidden: namespaces "kube-system" is forbidden: this namespace may not be deleted
            DELETE /api/v1/namespaces/default/configmaps/here?propagationPolicy=Sometimes 
              422 Invalid: DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sometimes": supported values: "Background", "Foreground", "Orphan", "nil""#]],
    )
    .await;
    let (code, text) = send(&fixture.admin, "GET", maps, &[("accept", "text/html")], "").await;
    expect!["406 NotAcceptable: only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"].assert_eq(&short(code, &text));
    let large = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    let (code, text) = send(&fixture.admin, "POST", maps, &[("content-type", JSON)], large).await;
    expect!["413 RequestEntityTooLarge: Request entity too large: limit is 3145728"]
        .assert_eq(&short(code, &text));
    let (code, _) = send(&fixture.admin, "GET", maps, &[], "").await;
    assert_eq!(code, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_without_permission() {
    let fixture = serve().await;
    let ask = |method: &'static str, path: &'static str| {
        let jane = fixture.jane.clone();
        async move {
            let (code, text) = send(&jane, method, path, &[("content-type", JSON)], "{}").await;
            short(code, &text)
        }
    };
    expect![[r#"403 Forbidden: pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#]].assert_eq(&ask("GET", "/api/v1/namespaces/default/pods").await);
    expect![[r#"403 Forbidden: pods "web" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "default""#]].assert_eq(&ask("GET", "/api/v1/namespaces/default/pods/web/log").await);
    expect![[r#"403 Forbidden: deployments.apps "web" is forbidden: User "jane" cannot delete resource "deployments" in API group "apps" in the namespace "default""#]].assert_eq(&ask("DELETE", "/apis/apps/v1/namespaces/default/deployments/web").await);
    expect![[r#"403 Forbidden: nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope"#]].assert_eq(&ask("GET", "/api/v1/nodes").await);
    expect![[r#"403 Forbidden: forbidden: User "jane" cannot get path "/metrics""#]]
        .assert_eq(&ask("GET", "/metrics").await);
    expect!["200"].assert_eq(&ask("GET", "/version").await.replace("200 ?", "200"));
    let granting =
        r#"{"metadata":{"name":"r"},"rules":[{"verbs":["get"],"apiGroups":[""],"resources":["secrets"]}]}"#;
    create(
        &fixture.admin,
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        r#"{"metadata":{"name":"jane"},"subjects":[{"kind":"User","name":"jane","apiGroup":"rbac.authorization.k8s.io"}],
            "roleRef":{"kind":"ClusterRole","name":"system:aggregate-to-admin","apiGroup":"rbac.authorization.k8s.io"}}"#,
    )
    .await;
    let mut answer = (0, String::new());
    // The policy is fed by a watch: it takes a moment.
    for _ in 0..100 {
        let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
        answer = send(&fixture.jane, "POST", path, &[("content-type", JSON)], granting).await;
        if answer.1.contains("attempting to grant") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    expect![[r#"
        403 Forbidden: roles.rbac.authorization.k8s.io "r" is forbidden: user "jane" (groups=["dev" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:
        {APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#]].assert_eq(&short(answer.0, &answer.1));
}
