//! The example of the README: applied, applied again, changed in both of kubectl's ways.

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::eventually;

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/shop.yaml");

pub fn opens(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["apply", "-f", SHOP])?;
    cluster.kubectl(&["-n", "shop", "rollout", "status", "deployment/web", "--timeout=90s"]).with_context(
        || cluster.kubectl(&["-n", "shop", "get", "all,events", "-o", "yaml"]).unwrap_or_default(),
    )?;
    let ready = cluster.field(
        &["-n", "shop", "pods", "-l", "app=web"],
        ".items[*].status.conditions[?(@.type=='Ready')].status",
    )?;
    ensure!(ready == "True True True", "pods are ready: {ready}");
    let again = cluster.kubectl(&["apply", "-f", SHOP])?;
    ensure!(
        again.lines().all(|line| line.ends_with("unchanged")),
        "a second apply changed something:\n{again}"
    );
    let page = cluster.kubectl(&[
        "-n",
        "shop",
        "exec",
        "deploy/web",
        "-c",
        "web",
        "--",
        "wget",
        "-qO-",
        "http://web/",
    ])?;
    ensure!(page.contains("Welcome to the shop from web-"), "the page: {page}");
    let till = cluster.kubectl(&[
        "-n",
        "shop",
        "exec",
        "deploy/web",
        "-c",
        "web",
        "--",
        "sh",
        "-c",
        "nc 127.0.0.1 7000 </dev/null",
    ])?;
    ensure!(till.contains("a pin of 4 digits"), "the ambassador: {till}");
    let sale = "echo \"now sale\" >> /var/log/shop/sales.log";
    let pod = cluster.field(&["-n", "shop", "pods", "-l", "app=web"], ".items[0].metadata.name")?;
    cluster.kubectl(&["-n", "shop", "exec", &pod, "-c", "web", "--", "sh", "-c", sale])?;
    eventually(10, || {
        let told = cluster.kubectl(&["-n", "shop", "logs", &pod, "-c", "adapter"])?;
        ensure!(told.contains(r#"{"at":"now","event":"sale"}"#), "the adapter: {told}");
        Ok(())
    })
}

pub fn apply_merges(cluster: &Cluster) -> Result<()> {
    let config = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: merged\n  namespace: default\ndata:\n  mine: {value}\n"
        )
    };
    cluster.apply(&config("one"))?;
    let patch = r#"{"data":{"theirs":"kept"}}"#;
    cluster.kubectl(&[
        "patch",
        "configmap",
        "merged",
        "--type=merge",
        "-p",
        patch,
        "--field-manager=other",
    ])?;
    cluster.apply(&config("two"))?;
    let data = cluster.field(&["configmap", "merged"], ".data")?;
    ensure!(data == r#"{"mine":"two","theirs":"kept"}"#, "client-side apply merged to {data}");

    cluster.kubectl(&["delete", "configmap", "merged"])?;
    server_side(cluster)
}

/// Two managers of one object: the second's claim on the first's field is a conflict that names both, until forced.
fn server_side(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&[
        "create",
        "configmap",
        "shared",
        "--from-literal=mine=two",
        "--from-literal=theirs=kept",
    ])?;
    let claim = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: shared\n  namespace: default\ndata:\n  theirs: taken\n";
    let apply = ["apply", "--server-side", "--field-manager=third", "-f", "-"];
    let Err(conflict) = cluster.kubectl_with_input(&apply, claim) else {
        anyhow::bail!("a field of another manager was taken without a conflict");
    };
    let text = format!("{conflict:#}");
    ensure!(
        text.contains("conflict with \"kubectl-create\"") && text.contains(".data.theirs"),
        "the conflict is not named: {text}"
    );
    cluster.kubectl_with_input(
        &["apply", "--server-side", "--force-conflicts", "--field-manager=third", "-f", "-"],
        claim,
    )?;
    let data = cluster.field(&["configmap", "shared"], ".data")?;
    ensure!(data == r#"{"mine":"two","theirs":"taken"}"#, "server-side apply merged to {data}");
    cluster.kubectl(&["delete", "configmap", "shared"]).map(|_| ())
}
