//! A kind that its users define: from its definition to its end, as an operator and its users meet it.

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::eventually;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const DATABASES: &str = include_str!("../../../crates/kube-apiserver/tests/data/databases.yaml");
const DEFINITION: &str = "databases.shop.example.com";
/// How long a collector may take to see what it has to see.
const SECONDS: u64 = 60;

fn database(spec: &str) -> String {
    format!("apiVersion: shop.example.com/v1\nkind: Database\nmetadata: {{name: main}}\nspec: {spec}\n")
}

fn contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "no {part:?} in:\n{text}");
    }
    Ok(())
}

pub fn live_and_die(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", "custom"])?;
    let in_ns = |args: &[&str]| cluster.kubectl(&[&["-n", "custom"], args].concat());
    let apply = |yaml: &str| cluster.kubectl_with_input(&["-n", "custom", "apply", "-f", "-"], yaml);
    cluster.apply(DATABASES)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        &format!("crd/{DEFINITION}"),
        "--timeout=60s",
    ])?;
    eventually(SECONDS, || apply(&database("{engine: mysql, users: [{name: ann, role: owner}]}")))?;
    contains(&in_ns(&["get", "db"])?, &["ENGINE", "REPLICAS", "mysql"])?;
    contains(&in_ns(&["get", "shop", "-o", "wide"])?, &["IMAGE"])?;
    contains(&cluster.kubectl(&["explain", "db.spec.engine"])?, &["Which database it is."])?;
    let refused = apply(&database("{engine: oracle}"));
    let refused = refused.err().context("a value outside of its enum was taken")?.to_string();
    contains(&refused, &["supported values: \"postgres\", \"mysql\""])?;

    let mut watch = cluster
        .kubectl_command(&[
            "-n",
            "custom",
            "get",
            "db",
            "main",
            "-w",
            "-o",
            "jsonpath={.spec.replicas}{\"\\n\"}",
        ])
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(watch.stdout.take().context("the watch has no output")?);
    in_ns(&["scale", "db/main", "--replicas=4"])?;
    let seen = lines.lines().map_while(Result::ok).find(|line| line == "4");
    watch.kill()?;
    watch.wait()?;
    ensure!(seen.is_some(), "the watch did not tell of the new scale");

    let more = database("{engine: mysql, users: [{name: bob}]}");
    let server_side = ["-n", "custom", "apply", "--server-side", "--field-manager=operator", "-f", "-"];
    cluster.kubectl_with_input(&server_side, &more)?;
    let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;
    in_ns(&["patch", "db", "main", "--subresource=status", "--type=merge", "-p", ready])?;
    in_ns(&["wait", "--for=condition=Ready", "db/main", "--timeout=60s"])?;
    in_ns(&["get", "databases.v1alpha1.shop.example.com", "main"])?;
    collected_and_cleared(cluster)?;
    cluster.kubectl(&["delete", "crd", DEFINITION, "--timeout=60s"])?;
    ensure!(in_ns(&["get", "db"]).is_err(), "the kind is served without its definition");
    cluster.kubectl(&["delete", "namespace", "custom", "--timeout=60s"]).map(drop)
}

/// What an object of a custom kind owns goes with it, and it goes with its namespace.
fn collected_and_cleared(cluster: &Cluster) -> Result<()> {
    let uid = cluster.field(&["-n", "custom", "db", "main"], ".metadata.uid")?;
    let owned = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: owned\n  ownerReferences:\n  - {{apiVersion: shop.example.com/v1, kind: Database, name: main, uid: {uid}}}\n"
    );
    cluster.kubectl_with_input(&["-n", "custom", "apply", "-f", "-"], &owned)?;
    cluster.kubectl(&["-n", "custom", "delete", "db", "main"])?;
    eventually(SECONDS, || {
        let left = cluster.kubectl(&["-n", "custom", "get", "configmap", "owned", "--ignore-not-found"])?;
        ensure!(left.trim().is_empty(), "what the database owned is still there");
        Ok(())
    })?;
    cluster.kubectl(&["create", "namespace", "cleared"])?;
    let main = database("{engine: postgres}");
    cluster.kubectl_with_input(&["-n", "cleared", "apply", "-f", "-"], &main)?;
    cluster.kubectl(&["delete", "namespace", "cleared", "--timeout=60s"])?;
    let left = cluster.kubectl(&["get", "db", "--all-namespaces", "-o", "name"])?;
    ensure!(left.trim().is_empty(), "objects outlived their namespace: {left}");
    Ok(())
}
