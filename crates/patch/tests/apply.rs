//! Server-side apply as users meet it: owners, conflicts, removal, takeover.

use api::meta::v1::ManagedFieldsEntry;
use expect_test::{Expect, expect};
use meta::{Descriptor, Time};
use patch::managed::{Applied, ApplyError, Claim, apply, update};
use serde_json::{Value, json};

struct Object {
    empty: Value,
    live: Value,
    entries: Vec<ManagedFieldsEntry>,
    second: i64,
    descriptor: &'static Descriptor,
}

impl Object {
    fn deployment() -> Self {
        let empty = api::codec::to_value(&api::apps::v1::Deployment::default());
        let descriptor = &api::apps::v1::DEPLOYMENT;
        Object { live: empty.clone(), empty, entries: Vec::new(), second: 0, descriptor }
    }

    fn claim<T>(&mut self, manager: &str, sub: &str, with: impl FnOnce(&Self, &Claim<'_>) -> T) -> T {
        self.second += 1;
        let now = Time::from_seconds(self.second).expect("a time");
        let reset: &[&str] = if sub == "status" { &["spec"] } else { &["status"] };
        let (api_version, subresource) = ("apps/v1", sub);
        let shape = patch::Shape::Struct(self.descriptor);
        let empty = &self.empty;
        with(self, &Claim { manager, api_version, subresource, now, shape, empty, reset })
    }

    fn apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), ApplyError> {
        let Applied { object, entries } = self.claim(manager, "", |object, claim| {
            apply(&object.live, &config, &object.entries, claim, force)
        })?;
        (self.live, self.entries) = (object, entries);
        Ok(())
    }

    fn update(&mut self, manager: &str, sub: &str, change: impl FnOnce(&mut Value)) {
        let mut new = self.live.clone();
        change(&mut new);
        self.entries =
            self.claim(manager, sub, |object, claim| update(&object.live, &new, &object.entries, claim));
        self.live = new;
    }

    fn check(&self, expected: Expect) {
        let mut text = String::new();
        for entry in &self.entries {
            let fields = entry.fields_v1.as_ref().map_or(&b""[..], |fields| fields.as_bytes());
            let time = entry.time.map_or(-1, |time| time.seconds());
            text += &format!(
                "{} {} {:?} at {time}: {}\n",
                entry.manager,
                entry.operation,
                entry.subresource,
                String::from_utf8_lossy(fields)
            );
        }
        text += &format!("{:#}\n", self.live);
        expected.assert_eq(&text);
    }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image})
}

#[test]
fn an_apply_creates_and_owns() {
    let mut object = Object::deployment();
    let template = json!({"spec": {"containers": [container("web", "web:1")]}});
    object.apply("me", config(json!({"replicas": 3, "template": template})), false).expect("applied");
    object.check(expect![[r#"
        me Apply "" at 1: {"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:name":{}}}}}}}
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "name": "web"
          },
          "spec": {
            "replicas": 3,
            "selector": null,
            "strategy": {},
            "template": {
              "metadata": {},
              "spec": {
                "containers": [
                  {
                    "image": "web:1",
                    "name": "web"
                  }
                ]
              }
            }
          },
          "status": {}
        }
    "#]]);
}

#[test]
fn others_fields_conflict_unless_forced() {
    let mut object = Object::deployment();
    object.apply("me", config(json!({"replicas": 3, "paused": true})), false).expect("applied");
    object.update("kubectl-edit", "", |object| object["spec"]["replicas"] = json!(5));
    let error =
        object.apply("me", config(json!({"replicas": 3, "paused": true})), false).expect_err("conflict");
    expect![[r#"Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.replicas"#]]
        .assert_eq(&error.to_string());
    object.apply("other", config(json!({"minReadySeconds": 1})), false).expect("applied");
    let both = config(json!({"replicas": 3, "minReadySeconds": 2}));
    let error = object.apply("me", both.clone(), false).expect_err("conflicts");
    expect![[r#"
        Apply failed with 2 conflicts: conflicts with "kubectl-edit" using apps/v1:
        - .spec.replicas
        conflicts with "other":
        - .spec.minReadySeconds"#]]
    .assert_eq(&error.to_string());
    object.apply("me", both, true).expect("forced");
    object.check(expect![[r#"
        me Apply "" at 6: {"f:spec":{"f:minReadySeconds":{},"f:replicas":{}}}
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "name": "web"
          },
          "spec": {
            "minReadySeconds": 2,
            "replicas": 3,
            "selector": null,
            "strategy": {},
            "template": {
              "metadata": {},
              "spec": {
                "containers": null
              }
            }
          },
          "status": {}
        }
    "#]]);
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_owns_it() {
    let mut object = Object::deployment();
    let spec =
        |containers: Value| config(json!({"replicas": 3, "template": {"spec": {"containers": containers}}}));
    object.apply("me", spec(json!([container("a", "a:1"), container("b", "b:1")])), false).expect("applied");
    object.apply("other", config(json!({"replicas": 3})), false).expect("the same value is no conflict");
    let only = json!({"template": {"spec": {"containers": [container("b", "b:1")]}}});
    object.apply("me", config(only), false).expect("applied");
    object.check(expect![[r#"
        other Apply "" at -1: {"f:spec":{"f:replicas":{}}}
        me Apply "" at 3: {"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"b\"}":{".":{},"f:image":{},"f:name":{}}}}}}}
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "name": "web"
          },
          "spec": {
            "replicas": 3,
            "selector": null,
            "strategy": {},
            "template": {
              "metadata": {},
              "spec": {
                "containers": [
                  {
                    "image": "b:1",
                    "name": "b"
                  }
                ]
              }
            }
          },
          "status": {}
        }
    "#]]);
}

#[test]
fn keys_with_defaults_tell_ports_apart() {
    let mut object = Object::deployment();
    let ports =
        |ports: Value| config(json!({"template": {"spec": {"containers": [{"name": "a", "ports": ports}]}}}));
    object
        .apply("me", ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}])), false)
        .expect("applied");
    object.apply("me", ports(json!([{"containerPort": 53, "protocol": "UDP"}])), false).expect("applied");
    object.check(expect![[r#"
        me Apply "" at 2: {"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"a\"}":{".":{},"f:name":{},"f:ports":{"k:{\"containerPort\":53,\"protocol\":\"UDP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}}}}}}}}
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "name": "web"
          },
          "spec": {
            "selector": null,
            "strategy": {},
            "template": {
              "metadata": {},
              "spec": {
                "containers": [
                  {
                    "name": "a",
                    "ports": [
                      {
                        "containerPort": 53,
                        "protocol": "UDP"
                      }
                    ]
                  }
                ]
              }
            }
          },
          "status": {}
        }
    "#]]);
    let twice = ports(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "TCP"}]));
    let error = object.apply("me", twice, false).expect_err("duplicate");
    expect![[r#".spec.template.spec.containers[name="a"].ports: duplicate entries for key [containerPort=53,protocol="TCP"]"#]].assert_eq(&error.to_string());
    let unknown = config(json!({"replica": 1}));
    let error = object.apply("me", unknown, false).expect_err("unknown");
    expect![".spec.replica: field not declared in schema"].assert_eq(&error.to_string());
}

#[test]
fn updates_own_what_they_change_and_status_apart() {
    let mut object = Object::deployment();
    object.update("kubectl-create", "", |object| {
        object["metadata"] = json!({"name": "web", "uid": "1", "labels": {"a": "b"}});
        object["spec"] = json!({"replicas": 1});
    });
    object.update("controller", "status", |object| {
        object["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    });
    object.update("controller", "status", |object| object["status"]["replicas"] = json!(2));
    object.update("kubectl-edit", "", |object| object["spec"]["replicas"] = json!(2));
    object.check(expect![[r#"
        kubectl-create Update "" at 1: {"f:metadata":{"f:labels":{".":{},"f:a":{}}}}
        controller Update "status" at 3: {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}
        kubectl-edit Update "" at 4: {"f:spec":{"f:replicas":{}}}
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "labels": {
              "a": "b"
            },
            "name": "web",
            "uid": "1"
          },
          "spec": {
            "replicas": 2
          },
          "status": {
            "conditions": [
              {
                "status": "True",
                "type": "Available"
              }
            ],
            "replicas": 2
          }
        }
    "#]]);
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_clients_side() {
    let mut object = Object::deployment();
    let applied = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {}}, "spec": {"replicas": 1, "paused": true},
    });
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    object.update("kubectl-client-side-apply", "", |object| {
        object["metadata"] = json!({"name": "web", "annotations": {annotation: applied.to_string()}});
        object["spec"] = json!({"replicas": 1, "paused": true, "minReadySeconds": 7});
    });
    let wanted = config(json!({"replicas": 2}));
    object.apply("somebody", wanted.clone(), false).expect_err("not theirs to take");
    object.apply("kubectl", wanted, false).expect("taken over");
    object.check(expect![[r#"
        kubectl Apply "" at 3: {"f:spec":{"f:replicas":{}}}
        kubectl-client-side-apply Update "" at 1: {"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}}},"f:spec":{"f:minReadySeconds":{},"f:paused":{}}}
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "annotations": {
              "kubectl.kubernetes.io/last-applied-configuration": "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"web\"},\"spec\":{\"replicas\":2}}\n"
            },
            "name": "web"
          },
          "spec": {
            "minReadySeconds": 7,
            "paused": true,
            "replicas": 2
          },
          "status": {}
        }
    "#]]);
    let error =
        object.apply("kubectl", config(json!({"minReadySeconds": 8})), false).expect_err("never applied");
    expect![[r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.minReadySeconds"#]].assert_eq(&error.to_string());
}

#[test]
fn the_first_apply_finds_what_was_there() {
    let mut object = Object::deployment();
    object.live = config(json!({"replicas": 1, "paused": true}));
    let error = object.apply("me", config(json!({"replicas": 2})), false).expect_err("conflict");
    expect![[
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using apps/v1: .spec.replicas"#
    ]]
    .assert_eq(&error.to_string());
    object.apply("me", config(json!({"replicas": 1})), false).expect("the same");
    object.check(expect![[r#"
        me Apply "" at -1: {"f:spec":{"f:replicas":{}}}
        before-first-apply Update "" at 2: {"f:spec":{"f:paused":{},"f:replicas":{}}}
        {
          "apiVersion": "apps/v1",
          "kind": "Deployment",
          "metadata": {
            "name": "web"
          },
          "spec": {
            "paused": true,
            "replicas": 1
          }
        }
    "#]]);
}

#[test]
fn only_so_many_updaters_are_kept() {
    let mut object = Object::deployment();
    object.update("u00", "", |object| object["metadata"] = json!({"labels": {"u00": "x"}}));
    for number in 1..14 {
        let name = format!("u{number:02}");
        object.update(&name, "", |object| object["metadata"]["labels"][&name] = json!("x"));
    }
    let managers: Vec<_> = object.entries.iter().map(|entry| entry.manager.as_str()).collect();
    expect!["ancient-changes u05 u06 u07 u08 u09 u10 u11 u12 u13"].assert_eq(&managers.join(" "));
}
