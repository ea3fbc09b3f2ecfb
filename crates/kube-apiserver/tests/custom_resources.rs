//! Custom resources over the wire: defined, served, changed, taken away.

mod common;

use common::far::{self, Far};
use common::{ADMIN_TOKEN, Fixture, create, get, kubectl, send, serve};
use serde_json::{Value, json};
use std::time::Duration;

const DATABASES: &str = include_str!("data/databases.yaml");
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ITEMS: &str = "/apis/shop.example.com/v1/namespaces/default/databases";
/// How often something that is about to happen is looked for, and how many times at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS_MAX: usize = 1000;

fn definition() -> Value {
    serde_json::from_slice(&api::codec::yaml_to_json(DATABASES.as_bytes()).unwrap()).unwrap()
}

fn condition<'a>(definition: &'a Value, ty: &str) -> Option<&'a Value> {
    definition["status"]["conditions"].as_array()?.iter().find(|it| it["type"] == ty)
}

/// Waits until a path answers as wanted.
async fn until(fixture: &Fixture, path: &str, holds: impl Fn(u16, &Value) -> bool) -> Value {
    let mut last = (0, Value::Null);
    for _ in 0..LOOKS_MAX {
        let (code, text) = send(&fixture.admin, "GET", path, &[], "").await;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if holds(code, &value) {
            return value;
        }
        last = (code, value);
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("{path}: {last:?}");
}

async fn define(fixture: &Fixture, definition: &Value) {
    create(&fixture.admin, CRDS, &definition.to_string()).await;
    let name = definition["metadata"]["name"].as_str().unwrap();
    until(fixture, &format!("{CRDS}/{name}"), |_, it| {
        condition(it, "Established").is_some_and(|it| it["status"] == "True")
    })
    .await;
    let spec = &definition["spec"];
    for version in spec["versions"].as_array().unwrap().iter().filter(|version| version["served"] == true) {
        let (group, version) = (spec["group"].as_str().unwrap(), version["name"].as_str().unwrap());
        let plural = spec["names"]["plural"].as_str().unwrap();
        until(fixture, &format!("/apis/{group}/{version}/{plural}"), |code, _| code == 200).await;
    }
}

async fn ask(fixture: &Fixture, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let media = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let (code, text) = send(&fixture.admin, method, path, &[("content-type", media)], body.to_string()).await;
    (code, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn database(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "shop.example.com/v1", "kind": "Database", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_kind_comes_to_life_and_dies() {
    let fixture = serve().await;
    let (code, _) = send(&fixture.admin, "GET", ITEMS, &[], "").await;
    assert_eq!(code, 404);
    define(&fixture, &definition()).await;
    let found = get(&fixture.admin, &format!("{CRDS}/databases.shop.example.com")).await;
    assert_eq!(found["status"]["acceptedNames"]["listKind"], "DatabaseList");
    assert_eq!(found["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(condition(&found, "NamesAccepted").unwrap()["reason"], "NoConflicts");

    let list = get(&fixture.admin, "/apis/shop.example.com/v1").await;
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["databases", "databases/scale", "databases/status"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["db"]));

    let made =
        create(&fixture.admin, ITEMS, &database("main", json!({"engine": "postgres"})).to_string()).await;
    assert_eq!(
        made["spec"],
        json!({
            "engine": "postgres", "replicas": 1, "port": 5432, "backup": {"schedule": "0 3 * * *", "keep": 7}
        })
    );
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:engine"].is_object(), "{made}");

    let items = get(&fixture.admin, ITEMS).await;
    assert_eq!(
        (items["kind"].as_str(), items["items"][0]["kind"].as_str()),
        (Some("DatabaseList"), Some("Database"))
    );

    let (code, _) = ask(&fixture, "DELETE", &format!("{CRDS}/databases.shop.example.com"), &json!({})).await;
    assert_eq!(code, 200);
    until(&fixture, &format!("{CRDS}/databases.shop.example.com"), |code, _| code == 404).await;
    until(&fixture, ITEMS, |code, _| code == 404).await;
    // Made anew, it is empty: its objects went with it.
    define(&fixture, &definition()).await;
    assert_eq!(get(&fixture.admin, ITEMS).await["items"], json!([]));
}

#[tokio::test]
async fn objects_are_what_their_schema_wants() {
    let fixture = serve().await;
    define(&fixture, &definition()).await;
    let spec = json!({
        "engine": "oracle", "replicas": 10, "image": "Not This", "port": 1.5,
        "hosts": ["a.example.com", "a.example.com", "-"], "users": [{"name": "a"}, {"name": "a"}, {}],
        "parameters": {"x": 1}, "template": {"kind": "Pod"},
    });
    let (code, refused) = ask(&fixture, "POST", ITEMS, &database("bad", spec)).await;
    assert_eq!(code, 422, "{refused}");
    let mut causes: Vec<String> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{}: {}", it["field"].as_str().unwrap(), it["message"].as_str().unwrap()))
        .collect();
    causes.sort();
    expect_test::expect![[r#"
        spec.engine: Unsupported value: "oracle": supported values: "postgres", "mysql"
        spec.hosts[1]: Duplicate value: "a.example.com"
        spec.hosts[2]: Invalid value: "-": spec.hosts[2] in body must be of type hostname: "-"
        spec.image: Invalid value: "Not This": spec.image in body should match '^[a-z0-9./:-]+$'
        spec.parameters.x: Invalid value: "integer": spec.parameters.x in body must be of type string: "integer"
        spec.port: Invalid value: "number": spec.port in body must be of type integer,string: "number"
        spec.replicas: Invalid value: 10: spec.replicas in body should be less than or equal to 9
        spec.template.apiVersion: Required value
        spec.users[1]: Duplicate value: {"name":"a"}
        spec.users[2].name: Required value"#]]
    .assert_eq(&causes.join("\n"));

    let unknown = database(
        "odd",
        json!({"engine": "mysql", "colour": "red", "extra": {"any": {"thing": [1]}}, "note": null}),
    );
    let strict = format!("{ITEMS}?fieldValidation=Strict");
    let (code, refused) = ask(&fixture, "POST", &strict, &unknown).await;
    assert_eq!(code, 400);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains(r#"strict decoding error: unknown field "spec.colour""#),
        "{refused}"
    );
    let (code, made) = ask(&fixture, "POST", ITEMS, &unknown).await;
    assert_eq!(code, 201);
    assert_eq!(made["spec"]["colour"], Value::Null, "pruned");
    assert_eq!(made["spec"]["extra"], json!({"any": {"thing": [1]}}), "preserved");
    assert_eq!(made["spec"].as_object().unwrap().get("note"), Some(&Value::Null), "nullable");
}

#[tokio::test]
async fn writes_keep_to_their_part() {
    let fixture = serve().await;
    define(&fixture, &definition()).await;
    let mut whole = database("main", json!({"engine": "mysql"}));
    whole["status"] = json!({"replicas": 3});
    let made = create(&fixture.admin, ITEMS, &whole.to_string()).await;
    assert_eq!(made["status"], Value::Null, "status is for its subresource");
    let main = format!("{ITEMS}/main");
    let (code, changed) =
        ask(&fixture, "PATCH", &main, &json!({"spec": {"replicas": 2}, "status": {"replicas": 9}})).await;
    assert_eq!((code, &changed["metadata"]["generation"]), (200, &json!(2)));
    assert_eq!(changed["status"], Value::Null);
    let status = json!({"spec": {"replicas": 7}, "status": {"replicas": 2, "selector": "a=b", "conditions": [{"type": "Ready", "status": "True"}]}});
    let (code, changed) = ask(&fixture, "PATCH", &format!("{main}/status"), &status).await;
    assert_eq!((code, &changed["spec"]["replicas"]), (200, &json!(2)), "{changed}");
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["status"]["replicas"], 2);
    let scale = get(&fixture.admin, &format!("{main}/scale")).await;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(2), &json!({"replicas": 2, "selector": "a=b"}))
    );
    let (code, scale) =
        ask(&fixture, "PATCH", &format!("{main}/scale"), &json!({"spec": {"replicas": 5}})).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(5)), "{scale}");
    let (code, refused) =
        ask(&fixture, "PATCH", &format!("{main}/scale"), &json!({"spec": {"replicas": 50}})).await;
    assert_eq!(code, 422, "{refused}");
    // Without a resourceVersion there is no replacing.
    let (code, refused) = ask(&fixture, "PUT", &main, &database("main", json!({"engine": "mysql"}))).await;
    assert_eq!(code, 422);
    assert!(
        refused["message"].as_str().unwrap().contains("metadata.resourceVersion: Invalid value"),
        "{refused}"
    );
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let (code, text) = send(&fixture.admin, "PATCH", &main, &strategic, "{}").await;
    assert_eq!(code, 415, "{text}");
}

#[tokio::test]
async fn managers_share_lists_by_their_keys() {
    let fixture = serve().await;
    define(&fixture, &definition()).await;
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{ITEMS}/main?fieldManager={manager}");
        let media = [("content-type", "application/apply-patch+yaml")];
        let (code, text) =
            send(&fixture.admin, "PATCH", &path, &media, database("main", spec).to_string()).await;
        (code, serde_json::from_str::<Value>(&text).unwrap())
    };
    let (code, _) =
        apply("one", json!({"engine": "mysql", "users": [{"name": "ann", "role": "owner"}]})).await;
    assert_eq!(code, 201);
    let (code, made) = apply("two", json!({"users": [{"name": "bob"}], "extra": {"deep": {"x": 1}}})).await;
    assert_eq!(code, 200, "{made}");
    let users = json!([{"name": "ann", "role": "owner"}, {"name": "bob", "role": "reader"}]);
    assert_eq!(made["spec"]["users"], users);
    let owned = &made["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"];
    assert!(owned["f:users"]["k:{\"name\":\"bob\"}"]["f:name"].is_object(), "{owned}");
    assert!(owned["f:extra"]["f:deep"]["f:x"].is_object(), "{owned}");
    let (code, refused) = apply("two", json!({"users": [{"name": "ann", "role": "guest"}]})).await;
    assert_eq!(code, 409, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["field"], ".spec.users[name=\"ann\"].role");
    let (_, made) = apply("two", json!({})).await;
    assert_eq!(
        made["spec"]["users"],
        json!([{"name": "ann", "role": "owner"}]),
        "what it no longer wants is gone"
    );
    let (code, refused) = apply("two", json!({"unheard": 1})).await;
    assert!(code >= 400, "{refused}");
}

#[tokio::test]
async fn versions_show_the_same_objects() {
    let fixture = serve().await;
    define(&fixture, &definition()).await;
    create(&fixture.admin, ITEMS, &database("main", json!({"engine": "mysql"})).to_string()).await;
    let old = ITEMS.replace("/v1/", "/v1alpha1/");
    let seen = get(&fixture.admin, &format!("{old}/main")).await;
    assert_eq!(seen["apiVersion"], "shop.example.com/v1alpha1");
    assert_eq!(seen["spec"], json!({"engine": "mysql", "replicas": 1, "old": "yes-it-is"}));
    let second = json!({"apiVersion": "shop.example.com/v1alpha1", "kind": "Database", "metadata": {"name": "second"}, "spec": {"engine": "postgres", "replicas": 4}});
    create(&fixture.admin, &old, &second.to_string()).await;
    let seen = get(&fixture.admin, &format!("{ITEMS}/second")).await;
    assert_eq!(seen["spec"]["replicas"], 4);
    assert_eq!(seen["spec"]["backup"]["keep"], 7);
    assert_eq!(seen["spec"]["old"], Value::Null, "the stored version does not know it");
    let chosen = get(&fixture.admin, &format!("{ITEMS}?fieldSelector=spec.engine%3Dpostgres")).await;
    assert_eq!(chosen["items"].as_array().unwrap().len(), 1);
    let (code, text) =
        send(&fixture.admin, "GET", &format!("{ITEMS}?fieldSelector=spec.image%3Dx"), &[], "").await;
    assert_eq!(code, 400);
    assert!(text.contains("field label not supported: spec.image"), "{text}");
}

#[tokio::test]
async fn rules_are_kept() {
    let fixture = serve().await;
    let mut ruled = definition();
    let spec = &mut ruled["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.engine != 'mysql' || self.replicas < 3", "message": "mysql has two replicas at most"},
        {"rule": "self.engine == oldSelf.engine", "message": "the engine stays"},
    ]);
    define(&fixture, &ruled).await;
    let (code, refused) =
        ask(&fixture, "POST", ITEMS, &database("main", json!({"engine": "mysql", "replicas": 3}))).await;
    assert_eq!(code, 422);
    assert_eq!(
        refused["message"],
        "Database.shop.example.com \"main\" is invalid: spec: Invalid value: mysql has two replicas at most"
    );
    create(&fixture.admin, ITEMS, &database("main", json!({"engine": "mysql"})).to_string()).await;
    let main = format!("{ITEMS}/main");
    let (code, refused) = ask(&fixture, "PATCH", &main, &json!({"spec": {"engine": "postgres"}})).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("the engine stays"), "{refused}");
    let (code, _) = ask(&fixture, "PATCH", &main, &json!({"spec": {"replicas": 2}})).await;
    assert_eq!(code, 200);
    ruled["metadata"]["name"] = "others.shop.example.com".into();
    ruled["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    ruled["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
        json!([{"rule": "self.nothing == 1"}]);
    let (code, refused) = ask(&fixture, "POST", CRDS, &ruled).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("undefined field 'nothing'"), "{refused}");
}

/// Turns `spec.engine` into `spec.motor` for the old version, and back.
async fn converter() -> Far {
    far::serve(&[], |asked| {
        let review: Value = serde_json::from_slice(&asked.body).unwrap();
        let request = &review["request"];
        let wanted = &request["desiredAPIVersion"];
        let (from, to) =
            if wanted == "shop.example.com/v1" { ("motor", "engine") } else { ("engine", "motor") };
        let turned = request["objects"].as_array().unwrap().iter().map(|object| {
            let mut object = object.clone();
            object["apiVersion"] = wanted.clone();
            let spec = object["spec"].as_object_mut().unwrap();
            if let Some(value) = spec.remove(from) {
                spec.insert(to.into(), value);
            }
            object
        });
        let turned: Vec<Value> = turned.collect();
        let refused = turned.iter().any(|object| object["metadata"]["name"] == "stubborn");
        let result = match refused {
            true => json!({"status": "Failure", "message": "it will not turn"}),
            false => json!({"status": "Success"}),
        };
        let answer = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": request["uid"], "result": result, "convertedObjects": turned},
        });
        Box::pin(async move { far::json(200, &answer) })
    })
    .await
}

#[tokio::test]
async fn webhooks_convert_between_versions() {
    let (fixture, far) = (serve().await, converter().await);
    let mut turning = definition();
    turning["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": far.url("/convert"), "caBundle": far.ca_bundle()},
    }});
    turning["spec"]["versions"][1]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] =
        json!({"motor": {"type": "string"}, "replicas": {"type": "integer"}});
    define(&fixture, &turning).await;
    create(&fixture.admin, ITEMS, &database("main", json!({"engine": "mysql"})).to_string()).await;
    let old = ITEMS.replace("/v1/", "/v1alpha1/");
    let seen = get(&fixture.admin, &format!("{old}/main")).await;
    assert_eq!(seen["spec"], json!({"motor": "mysql", "replicas": 1}));
    let second = json!({"apiVersion": "shop.example.com/v1alpha1", "kind": "Database", "metadata": {"name": "second"}, "spec": {"motor": "postgres"}});
    let made = create(&fixture.admin, &old, &second.to_string()).await;
    assert_eq!(
        (&made["apiVersion"], &made["spec"]["motor"]),
        (&"shop.example.com/v1alpha1".into(), &"postgres".into())
    );
    let seen = get(&fixture.admin, &format!("{ITEMS}/second")).await;
    assert_eq!(seen["spec"]["engine"], "postgres");
    let all = get(&fixture.admin, &old).await;
    let motors: Vec<&Value> =
        all["items"].as_array().unwrap().iter().map(|it| &it["spec"]["motor"]).collect();
    assert_eq!(motors, ["mysql", "postgres"]);
    let (code, changed) =
        ask(&fixture, "PATCH", &format!("{old}/main"), &json!({"spec": {"replicas": 4}})).await;
    assert_eq!((code, &changed["spec"]["motor"]), (200, &json!("mysql")), "{changed}");
    assert_eq!(get(&fixture.admin, &format!("{ITEMS}/main")).await["spec"]["replicas"], 4);
    let watched = format!("{old}?watch=1&resourceVersion=0&timeoutSeconds=1");
    let (_, text) = send(&fixture.admin, "GET", &watched, &[], "").await;
    assert_eq!(text.matches(r#""motor":"#).count(), 2, "{text}");
    create(&fixture.admin, ITEMS, &database("stubborn", json!({"engine": "mysql"})).to_string()).await;
    let (code, text) = send(&fixture.admin, "GET", &format!("{old}/stubborn"), &[], "").await;
    assert_eq!(code, 500);
    assert!(
        text.contains("conversion webhook for shop.example.com/v1, Kind=Database failed: it will not turn"),
        "{text}"
    );
    let (code, _) = ask(&fixture, "DELETE", &format!("{old}/main"), &json!({})).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn names_are_given_once() {
    let fixture = serve().await;
    define(&fixture, &definition()).await;
    let mut other = definition();
    other["metadata"]["name"] = "stores.shop.example.com".into();
    other["spec"]["names"] = json!({"plural": "stores", "kind": "Database", "shortNames": ["db"]});
    create(&fixture.admin, CRDS, &other.to_string()).await;
    let path = format!("{CRDS}/stores.shop.example.com");
    let refused = until(&fixture, &path, |_, it| condition(it, "NamesAccepted").is_some()).await;
    let naming = condition(&refused, "NamesAccepted").unwrap();
    assert_eq!(
        (naming["status"].as_str(), naming["reason"].as_str()),
        (Some("False"), Some("ListKindConflict"))
    );
    assert_eq!(condition(&refused, "Established").unwrap()["status"], "False");
    let (code, _) = ask(&fixture, "DELETE", &format!("{CRDS}/databases.shop.example.com"), &json!({})).await;
    assert_eq!(code, 200);
    until(&fixture, &path, |_, it| condition(it, "Established").is_some_and(|it| it["status"] == "True"))
        .await;
    until(&fixture, "/apis/shop.example.com/v1/stores", |code, _| code == 200).await;
}

#[tokio::test]
async fn bad_schemas_are_refused() {
    let fixture = serve().await;
    let mut bad = definition();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({
        "type": "object",
        "properties": {
            "a": {},
            "b": {"type": "string", "pattern": "("},
            "c": {"type": "integer", "default": "x"},
            "d": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}},
            "e": {"type": "string", "anyOf": [{"type": "string"}]},
        },
    });
    bad["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.none"}]);
    let (code, refused) = ask(&fixture, "POST", CRDS, &bad).await;
    assert_eq!(code, 422);
    let mut causes: Vec<String> = refused["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let field =
                it["field"].as_str().unwrap().replace("spec.versions[0].schema.openAPIV3Schema", "..");
            format!("{field}: {}", it["message"].as_str().unwrap())
        })
        .collect();
    causes.sort();
    expect_test::expect![[r#"
        ...properties[spec].properties[a].type: Required value: must not be empty for specified object fields
        ...properties[spec].properties[b].pattern: Invalid value: "(": must be a valid regular expression, but isn't: error parsing regexp: unclosed group: `(`
        ...properties[spec].properties[d].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map
        ...properties[spec].properties[e].anyOf[0].type: Forbidden: must be empty to be structural"#]].assert_eq(&causes.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn kubectl_takes_them_for_its_own() {
    let fixture = serve().await;
    let run = |arguments: &[&str]| {
        let answer = tokio::task::block_in_place(|| kubectl(&fixture, ADMIN_TOKEN, arguments));
        answer.map(|(good, text)| {
            assert!(good, "kubectl {arguments:?}: {text}");
            text
        })
    };
    let file = |name: &str, text: &str| {
        let path = fixture.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let crd = file("crd.yaml", DATABASES);
    let main = file(
        "main.yaml",
        "---\n{apiVersion: shop.example.com/v1, kind: Database, metadata: {name: main}, spec: {engine: mysql, users: [{name: ann, role: owner}]}}",
    );
    if run(&["apply", "-f", &crd]).is_none() {
        eprintln!("skipped: no kubectl on this machine");
        return;
    }
    run(&["wait", "--for=condition=Established", "crd/databases.shop.example.com", "--timeout=30s"]);
    let text = run(&["apply", "-f", &main]).unwrap();
    assert!(text.contains("database.shop.example.com/main created"), "{text}");
    let text = run(&["apply", "-f", &main]).unwrap();
    assert!(text.contains("unchanged"), "{text}");
    let text = run(&["get", "db"]).unwrap();
    assert!(text.contains("ENGINE") && text.contains("mysql") && !text.contains("IMAGE"), "{text}");
    let text = run(&["explain", "db.spec.backup"]).unwrap();
    assert!(text.contains("schedule") && text.contains("Database"), "{text}");
    let text = run(&["explain", "databases.spec.engine"]).unwrap();
    assert!(text.contains("Which database it is."), "{text}");
    run(&["scale", "db/main", "--replicas=3"]);
    run(&["patch", "db", "main", "--type=merge", "-p", r#"{"spec":{"image":"mysql:8"}}"#]);
    run(&[
        "patch",
        "db",
        "main",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
    ]);
    run(&["wait", "--for=condition=Ready", "db/main", "--timeout=30s"]);
    let text = run(&["get", "shop", "-o", "wide"]).unwrap();
    assert!(text.contains("IMAGE") && text.contains("mysql:8") && text.contains("True"), "{text}");
    let more = file(
        "more.yaml",
        "---\n{apiVersion: shop.example.com/v1, kind: Database, metadata: {name: main}, spec: {engine: mysql, users: [{name: bob}]}}",
    );
    run(&["apply", "--server-side", "--field-manager=second", "-f", &more]);
    let text = run(&["get", "db", "main", "-o", "jsonpath={.spec.users[*].name}"]).unwrap();
    assert_eq!(text, "bob", "kubectl makes what it applied from its own side its new manager's");
    run(&["label", "db", "main", "tier=back"]);
    let text = run(&["get", "db", "-l", "tier=back", "-o", "name"]).unwrap();
    assert_eq!(text.trim(), "database.shop.example.com/main");
    let text = run(&["describe", "db", "main"]).unwrap();
    assert!(text.contains("Engine:"), "{text}");
    let text = run(&["delete", "crd", "databases.shop.example.com"]).unwrap();
    assert!(text.contains("deleted"), "{text}");
}
