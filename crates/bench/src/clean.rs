//! Namespaces to work in, and their removal: with a controller manager or without.

use crate::objects::Sort;
use crate::target::{Call, Encoding, Target};
use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a controller manager is given to remove a namespace that is empty but for what controllers put there.
const NAMESPACE_WAIT: Duration = Duration::from_secs(20);
/// Where a controller manager shows that it runs.
const CONTROLLERS: &str =
    "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
/// How long deleted nodes or pods are waited for.
const OBJECTS_WAIT: Duration = Duration::from_secs(120);

/// A name that no other run has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::random::<u32>())
}

/// Makes a namespace in which pods can be created: with the default account, which a controller makes elsewhere.
pub async fn namespace(target: &Target, prefix: &str) -> Result<String> {
    let name = unique(prefix);
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    create(target, "/api/v1/namespaces", &body)
        .await
        .with_context(|| format!("making the namespace {name}"))?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(target, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
    Ok(name)
}

/// Creates an object; that it exists already is no failure.
pub async fn create(target: &Target, collection: &str, object: &Value) -> Result<()> {
    let call = Call::post(collection, Encoding::Json, Bytes::from(object.to_string()));
    let (code, body) = target.ask(call).await?;
    anyhow::ensure!(
        (200..300).contains(&code) || code == 409,
        "{code}: {}",
        String::from_utf8_lossy(&body[..body.len().min(300)])
    );
    Ok(())
}

/// Removes a namespace and what the workloads put into it.
pub async fn remove(target: &Target, namespace: &str) -> Result<()> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}).to_string();
    let core = ["pods", "configmaps", "services", "events", "serviceaccounts"];
    let mut collections: Vec<String> =
        core.iter().map(|plural| format!("/api/v1/namespaces/{namespace}/{plural}")).collect();
    collections.push(Sort::Lease.collection(namespace));
    for workload in ["deployments", "replicasets"] {
        collections.insert(0, format!("/apis/apps/v1/namespaces/{namespace}/{workload}"));
    }
    for collection in &collections {
        let call = Call {
            body: Some(("application/json", Bytes::from(options.clone()))),
            ..Call::delete(collection, Encoding::Json)
        };
        // A collection that cannot be deleted at once is left to the namespace's own deletion.
        let _ = target.ask(call).await?;
    }
    let path = format!("/api/v1/namespaces/{namespace}");
    target.ask(Call::delete(&path, Encoding::Json)).await?;
    let begun = Instant::now();
    while target.ask(Call::get(CONTROLLERS, Encoding::Json)).await?.0 == 200
        && begun.elapsed() < NAMESPACE_WAIT
    {
        if target.ask(Call::get(&path, Encoding::Json)).await?.0 == 404 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // No controller does it here.
    let (code, body) = target.ask(Call::get(&path, Encoding::Json)).await?;
    if code == 404 {
        return Ok(());
    }
    let mut object: Value = serde_json::from_slice(&body)?;
    object["spec"]["finalizers"] = json!([]);
    let finalize = format!("{path}/finalize");
    target.ask(Call::put(&finalize, Encoding::Json, Bytes::from(object.to_string()))).await?;
    Ok(())
}

/// Removes the nodes that a workload made, and their leases.
pub async fn remove_nodes(target: &Target, selector: &str) -> Result<()> {
    let path = format!("/api/v1/nodes?labelSelector={selector}");
    target.send(Call::delete(&path, Encoding::Json)).await?;
    Ok(())
}

/// Waits until a collection is empty, which it must become.
pub async fn until_empty(target: &Target, collection: &str) -> Result<()> {
    let begun = Instant::now();
    while target.count(collection).await? > 0 {
        anyhow::ensure!(begun.elapsed() < OBJECTS_WAIT, "{collection} is not empty after {OBJECTS_WAIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
