//! Stock kubectl against the server, where the machine has one.

mod common;

use common::{ADMIN_TOKEN, Fixture, JANE_TOKEN, default_account, kubectl, serve};

/// Runs a command that must succeed; skips the test where there is no kubectl.
macro_rules! run {
    ($fixture:expr, $($argument:expr),+) => {
        match ask($fixture, ADMIN_TOKEN, &[$($argument),+]).await {
            Some((true, text)) => text,
            Some((false, text)) => panic!("kubectl {:?}: {text}", [$($argument),+]),
            None => {
                eprintln!("skipped: no kubectl on this machine");
                return;
            }
        }
    };
}

async fn ask(fixture: &Fixture, token: &str, arguments: &[&str]) -> Option<(bool, String)> {
    // A thread of its own may block: the server's run on.
    tokio::task::block_in_place(|| kubectl(fixture, token, arguments))
}

const SHOP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn apply_edit_and_apply_again() {
    let fixture = serve().await;
    default_account(&fixture, "default").await;
    let file = fixture.dir.path().join("shop.yaml");
    std::fs::write(&file, SHOP).unwrap();
    let file = file.display().to_string();
    let text = run!(&fixture, "apply", "-f", &file);
    assert!(text.contains("deployment.apps/web created"), "{text}");
    let text = run!(&fixture, "apply", "-f", &file);
    assert_eq!(text.matches("unchanged").count(), 3, "{text}");
    std::fs::write(&file, SHOP.replace("replicas: 3", "replicas: 5")).unwrap();
    let text = run!(&fixture, "apply", "-f", &file);
    assert!(text.contains("deployment.apps/web configured"), "{text}");
    let text = run!(&fixture, "get", "deployment", "web", "-o", "jsonpath={.spec.replicas}");
    assert_eq!(text, "5");
    let text = run!(&fixture, "scale", "deployment", "web", "--replicas", "2");
    assert!(text.contains("scaled"), "{text}");
    let text = run!(&fixture, "set", "image", "deployment/web", "c=nginx:2");
    assert!(text.contains("image updated"), "{text}");
    let answer = ask(&fixture, ADMIN_TOKEN, &["apply", "--server-side", "-f", &file]).await.unwrap();
    assert!(answer.1.contains("conflict"), "{answer:?}");
    run!(&fixture, "apply", "--server-side", "--force-conflicts", "-f", &file);
    run!(&fixture, "label", "deployment", "web", "tier=front");
    run!(
        &fixture,
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        r#"[{"op":"remove","path":"/metadata/labels/tier"}]"#
    );
    run!(&fixture, "patch", "deployment", "web", "--type=merge", "-p", r#"{"spec":{"paused":true}}"#);
    let text = run!(&fixture, "delete", "-f", &file);
    assert!(text.contains("service \"web\" deleted"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn look_around() {
    let fixture = serve().await;
    default_account(&fixture, "default").await;
    let text = run!(&fixture, "api-resources");
    assert!(text.contains("deployments") && text.contains("deploy "), "{text}");
    let text = run!(&fixture, "explain", "deployment.spec.template.spec.containers.ports", "--recursive");
    assert!(text.contains("containerPort"), "{text}");
    run!(&fixture, "create", "deployment", "web", "--image=nginx");
    let text = run!(&fixture, "get", "deployments", "-o", "wide");
    assert!(text.contains("UP-TO-DATE") && text.contains("nginx"), "{text}");
    let text = run!(&fixture, "describe", "deployment", "web");
    assert!(text.contains("StrategyType:"), "{text}");
    let text = run!(&fixture, "get", "services");
    assert!(text.contains("10.96.0.1"), "{text}");
    let text = run!(&fixture, "auth", "can-i", "delete", "nodes");
    assert!(text.contains("yes"), "{text}");
    let (allowed, text) = ask(&fixture, JANE_TOKEN, &["auth", "can-i", "list", "pods"]).await.unwrap();
    assert!(!allowed && text.contains("no"), "{text}");
    let (allowed, text) = ask(&fixture, JANE_TOKEN, &["get", "pods"]).await.unwrap();
    assert!(!allowed);
    let wanted = r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default""#;
    assert!(text.contains(wanted), "{text}");
    let (allowed, text) = ask(&fixture, "forged", &["get", "pods"]).await.unwrap();
    assert!(!allowed && text.contains("Unauthorized"), "{text}");
    let text = run!(&fixture, "get", "--raw", "/version");
    assert!(text.contains("\"minor\": \"36\""), "{text}");
}
