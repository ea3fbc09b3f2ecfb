//! Admission policies over the wire: what their expressions see, refuse, warn of and change.

mod common;

use common::{Fixture, create, send, serve};
use serde_json::{Value, json};
use std::time::Duration;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";

async fn post(fixture: &Fixture, path: &str, body: &Value) -> (u16, Value) {
    let (code, text) = send(&fixture.admin, "POST", path, JSON, body.to_string()).await;
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Posts until the answer is as wanted: a policy takes hold a moment after it was written.
async fn until(fixture: &Fixture, path: &str, body: &Value, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..250 {
        let (code, answer) = post(fixture, &format!("{path}?dryRun=All"), body).await;
        if wanted(code, &answer) {
            return answer;
        }
        last = answer;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the policy never took hold: {last}");
}

async fn message(fixture: &Fixture, path: &str, body: &Value) -> String {
    let refused = until(fixture, path, body, |code, _| code >= 400).await;
    let text = |name: &str| refused[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}: {}", refused["code"], text("reason"), text("message"))
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn constraints(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{
        "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource],
    }]})
}

async fn validating(fixture: &Fixture, name: &str, spec: Value, bindings: &[Value]) {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    create(&fixture.admin, &format!("{POLICIES}/validatingadmissionpolicies"), &body.to_string()).await;
    for (index, spec) in bindings.iter().enumerate() {
        let mut spec = spec.clone();
        spec["policyName"] = json!(name);
        let body = json!({"metadata": {"name": format!("{name}-{index}")}, "spec": spec});
        create(&fixture.admin, &format!("{POLICIES}/validatingadmissionpolicybindings"), &body.to_string())
            .await;
    }
}

async fn mutating(fixture: &Fixture, name: &str, spec: Value) {
    let body = json!({"metadata": {"name": name}, "spec": spec});
    create(&fixture.admin, &format!("{POLICIES}/mutatingadmissionpolicies"), &body.to_string()).await;
    let body = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    create(&fixture.admin, &format!("{POLICIES}/mutatingadmissionpolicybindings"), &body.to_string()).await;
}

#[tokio::test]
async fn a_parameter_limits_replicas() {
    let fixture = serve().await;
    let params = json!({"metadata": {"name": "limits"}, "data": {"max": "3"}});
    create(&fixture.admin, MAPS, &params.to_string()).await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": constraints("apps", "deployments"),
        "variables": [{"name": "max", "expression": "int(params.data.max)"}],
        "validations": [{
            "expression": "object.spec.replicas <= variables.max",
            "messageExpression": "'at most ' + string(variables.max) + ' replicas'",
            "reason": "Forbidden",
        }],
    });
    let reference = json!({"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"});
    validating(&fixture, "replicas", spec, &[json!({"paramRef": reference, "validationActions": ["Deny"]})])
        .await;
    let refused = until(&fixture, DEPLOYMENTS, &deployment("web", 5), |code, _| code == 403).await;
    assert_eq!(
        refused["message"],
        "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'replicas-0' \
         denied request: at most 3 replicas"
    );
    assert_eq!(refused["reason"], "Forbidden");
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "ValidatingAdmissionPolicy 'replicas' with binding 'replicas-0' denied request: at most 3 replicas"
    );
    let (code, answer) = post(&fixture, DEPLOYMENTS, &deployment("web", 3)).await;
    assert_eq!(code, 201, "{answer}");
    let more = json!({"spec": {"replicas": 4}});
    let headers = &[("content-type", "application/merge-patch+json")];
    let path = format!("{DEPLOYMENTS}/web");
    let (code, text) = send(&fixture.admin, "PATCH", &path, headers, more.to_string()).await;
    assert_eq!(code, 403, "{text}");
}

#[tokio::test]
async fn actions_and_failures_read_as_upstream() {
    let fixture = serve().await;
    let rules = |expression: &str| {
        json!({
            "matchConstraints": constraints("", "configmaps"), "validations": [{"expression": expression}],
        })
    };
    let deny = json!({"validationActions": ["Deny"]});
    validating(&fixture, "plain", rules("object.data.a != '1'"), std::slice::from_ref(&deny)).await;
    assert_eq!(
        message(&fixture, MAPS, &map("m")).await,
        "422 Invalid: configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'plain' with binding 'plain-0' \
         denied request: failed expression: object.data.a != '1'"
    );
    let path = format!("{POLICIES}/validatingadmissionpolicies/plain");
    send(&fixture.admin, "DELETE", &path, &[], String::new()).await;
    until(&fixture, MAPS, &map("m"), |code, _| code == 201).await;

    validating(&fixture, "missing", rules("object.data.nope == '1'"), std::slice::from_ref(&deny)).await;
    assert_eq!(
        message(&fixture, MAPS, &map("m")).await,
        "422 Invalid: configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'missing' with binding 'missing-0' \
         denied request: expression 'object.data.nope == '1'' resulted in error: no such key: nope"
    );
    let path = format!("{POLICIES}/validatingadmissionpolicies/missing");
    send(&fixture.admin, "DELETE", &path, &[], String::new()).await;
    until(&fixture, MAPS, &map("m"), |code, _| code == 201).await;

    let mut open = rules("object.data.nope == '1'");
    open["failurePolicy"] = json!("Ignore");
    validating(&fixture, "open", open, std::slice::from_ref(&deny)).await;
    let bad =
        json!({"paramRef": {"name": "x", "parameterNotFoundAction": "Deny"}, "validationActions": ["Deny"]});
    let mut params = rules("true");
    params["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    validating(&fixture, "unbound", params, &[bad]).await;
    assert_eq!(
        message(&fixture, MAPS, &map("m")).await,
        "422 Invalid: configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'unbound' with binding 'unbound-0' \
         denied request: failed to configure binding: no params found for policy binding with `Deny` \
         parameterNotFoundAction"
    );
}

#[tokio::test]
async fn warnings_reach_the_client_and_conditions_narrow() {
    let fixture = serve().await;
    let spec = json!({
        "matchConstraints": constraints("", "configmaps"),
        "matchConditions": [{"name": "watched", "expression": "object.metadata.name.startsWith('watched')"}],
        "validations": [{"expression": "has(object.metadata.labels)", "message": "labels are wanted"}],
    });
    validating(&fixture, "labels", spec, &[json!({"validationActions": ["Warn", "Audit"]})]).await;
    let mut warned = String::new();
    for _ in 0..250 {
        let path = format!("{MAPS}?dryRun=All");
        let (code, headers) =
            common::send_for_headers(&fixture.admin, "POST", &path, JSON, map("watched").to_string()).await;
        assert_eq!(code, 201);
        if let Some(text) = headers.get("warning") {
            warned = text.to_str().unwrap().to_owned();
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        warned,
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'labels' with binding 'labels-0': labels are wanted\""
    );
    let path = format!("{MAPS}?dryRun=All");
    let (_, headers) =
        common::send_for_headers(&fixture.admin, "POST", &path, JSON, map("other").to_string()).await;
    assert!(!headers.contains_key("warning"));
}

#[tokio::test]
async fn selectors_exclusions_and_the_authorizer() {
    let fixture = serve().await;
    let mut constraints = constraints("", "configmaps");
    constraints["excludeResourceRules"] = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"],
        "resourceNames": ["spared"],
    }]);
    constraints["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "default"}});
    let spec = json!({
        "matchConstraints": constraints,
        "validations": [
            {"expression": "authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()"},
            {"expression": "authorizer.requestResource.check('get').allowed()"},
            {"expression": "!authorizer.serviceAccount('default', 'nobody').path('/secret').check('get').allowed()"},
            {"expression": "namespaceObject.metadata.name == 'default' && request.namespace == 'default'"},
            {"expression": "request.userInfo.username == 'admin' && 'system:masters' in request.userInfo.groups"},
            {"expression": "request.kind.kind == 'ConfigMap' && request.operation == 'CREATE' && oldObject == null"},
            {"expression": "!request.dryRun", "message": "all the rest holds"},
        ],
    });
    validating(&fixture, "sight", spec, &[json!({"validationActions": ["Deny"]})]).await;
    assert_eq!(
        message(&fixture, MAPS, &map("m")).await,
        "422 Invalid: configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'sight' with binding 'sight-0' denied \
         request: all the rest holds"
    );
    let (code, _) = post(&fixture, &format!("{MAPS}?dryRun=All"), &map("spared")).await;
    assert_eq!(code, 201);
    let elsewhere = "/api/v1/namespaces/kube-system/configmaps?dryRun=All";
    let (code, _) = post(&fixture, elsewhere, &map("m")).await;
    assert_eq!(code, 201);
}

#[tokio::test]
async fn expressions_are_checked_when_they_are_written() {
    let fixture = serve().await;
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": constraints("apps", "deployments"),
        "matchConditions": [{"name": "a", "expression": "1"}],
        "variables": [{"name": "in", "expression": "object."}, {"name": "ok", "expression": "'a'"}],
        "validations": [
            {"expression": "variables.ok == 1"},
            {"expression": "object.foo < 'a' && params.x == 1", "messageExpression": "1"},
        ],
        "auditAnnotations": [{"key": "k", "valueExpression": "1"}],
    });
    let body = json!({"metadata": {"name": "p"}, "spec": spec});
    let (code, answer) = post(&fixture, &format!("{POLICIES}/validatingadmissionpolicies"), &body).await;
    assert_eq!(code, 422);
    let causes = answer["details"]["causes"].as_array().unwrap();
    let causes: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause["field"].as_str().unwrap(), cause["message"].as_str().unwrap()))
        .collect();
    expect_test::expect![[r#"
        spec.matchConditions[0].expression: Invalid value: "1": must evaluate to bool but got int
        spec.variables[0].name: Invalid value: "in": must be a valid CEL identifier
        spec.variables[0].expression: Invalid value: "object.": compilation failed: ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'
         | object.
         | .......^
        spec.validations[0].expression: Invalid value: "variables.ok == 1": compilation failed: ERROR: <input>:1:14: found no matching overload for '_==_' applied to '(string, int)'
         | variables.ok == 1
         | .............^
        spec.validations[1].expression: Invalid value: "object.foo < 'a' && params.x == 1": compilation failed: ERROR: <input>:1:21: undeclared reference to 'params' (in container '')
         | object.foo < 'a' && params.x == 1
         | ....................^
        spec.validations[1].messageExpression: Invalid value: "1": must evaluate to string but got int
        spec.auditAnnotations[0].valueExpression: Invalid value: "1": must evaluate to one of [string null_type] but got int"#]]
    .assert_eq(&causes.join("\n"));
}

#[tokio::test]
async fn mutating_policies_change_objects() {
    let fixture = serve().await;
    mutating(&fixture, "apply", json!({
        "reinvocationPolicy": "Never",
        "matchConstraints": constraints("apps", "deployments"),
        "variables": [{"name": "team", "expression": "'blue'"}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'team': variables.team}}, spec: Object.spec{template: \
             Object.spec.template{spec: Object.spec.template.spec{initContainers: \
             [Object.spec.template.spec.initContainers{name: 'init', image: 'i'}]}}}}"}}],
    })).await;
    mutating(&fixture, "patch", json!({
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": constraints("apps", "deployments"),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/spec/replicas', value: object.spec.replicas}, \
             JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: 'y'}]"}}],
    })).await;
    let wanted = |_: u16, answer: &Value| {
        answer["metadata"]["labels"]["team"] == "blue" && answer["metadata"]["labels"]["example.com/x"] == "y"
    };
    let answer = until(&fixture, DEPLOYMENTS, &deployment("web", 1), wanted).await;
    assert_eq!(answer["metadata"]["labels"]["app"], "web");
    assert_eq!(answer["spec"]["template"]["spec"]["initContainers"][0]["name"], "init");
    assert_eq!(answer["spec"]["template"]["spec"]["containers"][0]["name"], "c");

    mutating(
        &fixture,
        "wrong",
        json!({
            "reinvocationPolicy": "Never",
            "matchConstraints": constraints("apps", "deployments"),
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{spec: Object.other{replicas: 1}}"}}],
        }),
    )
    .await;
    assert_eq!(
        message(&fixture, DEPLOYMENTS, &deployment("web", 1)).await,
        "403 Invalid: policy 'wrong' with binding 'wrong' denied request: type mismatch: unexpected type name \
         \"Object.other\", expected \"Object.spec\", which matches field name path from root Object type"
    );
}

#[tokio::test]
async fn parameters_may_be_custom_resources() {
    let fixture = serve().await;
    let spec = json!({
        "paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"},
        "matchConstraints": constraints("", "configmaps"),
        "validations": [{"expression": "size(object.data) > params.spec.least"}],
    });
    let reference = json!({"selector": {}, "parameterNotFoundAction": "Allow"});
    validating(&fixture, "sizes", spec, &[json!({"paramRef": reference, "validationActions": ["Deny"]})])
        .await;
    assert_eq!(
        message(&fixture, MAPS, &map("m")).await,
        "422 Invalid: configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'sizes' denied request: failed to \
         configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Limit'"
    );
    let names = json!({"plural": "limits", "singular": "limit", "kind": "Limit", "listKind": "LimitList"});
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"metadata": {"name": "limits.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": names,
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    create(&fixture.admin, definitions, &definition.to_string()).await;
    // Without parameters, and none demanded, nothing is looked at.
    until(&fixture, MAPS, &map("m"), |code, _| code == 201).await;
    let limit = json!({
        "apiVersion": "example.com/v1", "kind": "Limit", "metadata": {"name": "l"}, "spec": {"least": 1},
    });
    create(&fixture.admin, "/apis/example.com/v1/namespaces/default/limits", &limit.to_string()).await;
    assert_eq!(
        message(&fixture, MAPS, &map("m")).await,
        "422 Invalid: configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'sizes' with binding 'sizes-0' denied \
         request: failed expression: size(object.data) > params.spec.least"
    );
}
