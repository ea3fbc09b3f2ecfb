//! The node's object in the API: registration, status, and the lease that shows that the node lives.

use crate::Context;
use api::coordination::v1::Lease;
use api::core::v1::*;
use client::{EventType, Patch, PatchOptions};
use container_runtime::cri::messages::*;
use meta::{MicroTime, ObjectKey, Time};
use pods::eviction::Condition;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Upstream reports an unchanged status every five minutes; changes at once.
const REPORT: Duration = Duration::from_secs(300);
/// Between tries to register, and to write a status that changed.
const RETRY: Duration = Duration::from_secs(1);
/// While the node is not ready its state is looked at this often: the runtime's network comes without an event.
const UNREADY_LOOK: Duration = Duration::from_millis(500);
/// Images that the status lists; upstream's limit.
const IMAGES_MAX: usize = 50;
const NAMES_PER_IMAGE_MAX: usize = 5;

fn now() -> Option<Time> {
    Time::truncated(jiff::Timestamp::now())
}

/// Registers the node if told to, then keeps its status and lease until cancelled.
pub async fn run(ctx: &Context) {
    if ctx.settings.register_node {
        while let Err(error) = register(ctx).await {
            tracing::warn!(error = %error.chain(), "Failed to register the node");
            tokio::time::sleep(RETRY).await;
        }
        tracing::info!(node = ctx.settings.node_name, "Registered node");
    }
    tokio::join!(keep_lease(ctx), keep_status(ctx));
}

fn own_labels(ctx: &Context) -> BTreeMap<String, String> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let name = ctx.settings.node_name.as_str();
    let mut labels: BTreeMap<String, String> = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .into();
    labels.extend(ctx.settings.node_labels.clone());
    labels
}

fn own_annotations(ctx: &Context) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([(
        "volumes.kubernetes.io/controller-managed-attach-detach".to_string(),
        "true".to_string(),
    )]);
    if let Some(directory) = &ctx.settings.local_path_dir {
        annotations.insert(volumes::local_path::DIRECTORY.into(), directory.display().to_string());
    }
    annotations
}

async fn register(ctx: &Context) -> Result<(), client::Error> {
    let mut node = Node::default();
    node.metadata.name = ctx.settings.node_name.clone();
    node.metadata.labels = own_labels(ctx);
    node.metadata.annotations = own_annotations(ctx);
    node.spec.taints = ctx.settings.taints.clone();
    node.status = status(ctx, None).await;
    match ctx.client.create(&node).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => {
            let patch =
                json!({ "metadata": { "labels": own_labels(ctx), "annotations": own_annotations(ctx) } });
            let key = ObjectKey::cluster(ctx.settings.node_name.as_str());
            ctx.client.patch::<Node>(&key, &Patch::Strategic(patch), &PatchOptions::default()).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

async fn keep_status(ctx: &Context) {
    let key = ObjectKey::cluster(ctx.settings.node_name.as_str());
    let node = ctx.views.view().get::<Node>(&key);
    let mut last = node.map(|node| node.status.clone());
    if let Some(node) = ctx.views.view().get::<Node>(&key) {
        ctx.recorder.event(&*node, EventType::Normal, "Starting", "Starting kubelet.");
    }
    loop {
        let next = status(ctx, last.as_ref()).await;
        let ready = is_ready(&next);
        match write_status(ctx, &key, &next).await {
            Ok(()) => {
                tell_transition(ctx, &key, last.as_ref(), &next);
                last = Some(next);
                let wait = if ready { REPORT } else { UNREADY_LOOK };
                wait_for_change(ctx, last.as_ref(), wait).await;
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Failed to write the node's status");
                if error.is_not_found() && ctx.settings.register_node {
                    let _ = register(ctx).await;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Waits until the status is due again: the time is over, or something in it changed.
async fn wait_for_change(ctx: &Context, last: Option<&NodeStatus>, limit: Duration) {
    let end = tokio::time::Instant::now() + limit;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => {
                // Not ready: nothing is written while nothing changes.
                if limit > UNREADY_LOOK || last.is_none_or(is_ready) {
                    return;
                }
            }
            () = ctx.node_changed.notified() => {}
        }
        let next = status(ctx, last).await;
        if last.is_none_or(|last| differs(last, &next)) {
            return;
        }
        if limit <= UNREADY_LOOK {
            tokio::time::sleep(UNREADY_LOOK).await;
        }
    }
}

/// Whether two statuses differ in more than their heartbeats.
fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let strip = |status: &NodeStatus| {
        let mut status = status.clone();
        status.conditions.iter_mut().for_each(|one| one.last_heartbeat_time = None);
        api::codec::to_json(&status)
    };
    strip(old) != strip(new)
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True")
}

fn tell_transition(ctx: &Context, key: &ObjectKey, old: Option<&NodeStatus>, new: &NodeStatus) {
    let (was, is) = (old.map(is_ready), is_ready(new));
    if was == Some(is) {
        return;
    }
    let event = if is { "NodeReady" } else { "NodeNotReady" };
    if let Some(node) = ctx.views.view().get::<Node>(key) {
        let message = format!("Node {} status is now: {event}", ctx.settings.node_name);
        ctx.recorder.event(&*node, EventType::Normal, event, &message);
    }
    tracing::info!(ready = is, "Node changed its readiness");
}

async fn write_status(ctx: &Context, key: &ObjectKey, status: &NodeStatus) -> Result<(), client::Error> {
    let mut value = api::codec::to_value(status);
    // The addresses are merged by type: the list is replaced instead.
    if let Some(list) = value.get_mut("addresses").and_then(|list| list.as_array_mut()) {
        list.insert(0, json!({ "$patch": "replace" }));
    }
    // An empty list has to be said, or the old one stays.
    value["volumesInUse"] = json!(status.volumes_in_use);
    let patch = json!({ "status": value });
    ctx.client.patch_status::<Node>(key, &Patch::Strategic(patch), &PatchOptions::default()).await.map(drop)
}

async fn status(ctx: &Context, last: Option<&NodeStatus>) -> NodeStatus {
    let mut status = NodeStatus {
        capacity: ctx.machine.capacity(&ctx.settings),
        allocatable: ctx.machine.allocatable(&ctx.settings),
        addresses: addresses(ctx),
        node_info: ctx.machine.system_info(&ctx.runtime_version),
        images: images(ctx).await,
        volumes_in_use: ctx.volumes_in_use(),
        ..NodeStatus::default()
    };
    status.daemon_endpoints.kubelet_endpoint.port = i32::from(ctx.settings.port);
    status.conditions = conditions(ctx).await;
    for condition in &mut status.conditions {
        let old = last.and_then(|last| last.conditions.iter().find(|one| one.r#type == condition.r#type));
        let kept = old.filter(|old| old.status == condition.status).and_then(|old| old.last_transition_time);
        condition.last_transition_time = kept.or_else(now);
    }
    status.runtime_handlers =
        vec![NodeRuntimeHandler::default(), NodeRuntimeHandler { name: "runc".into(), ..Default::default() }];
    status
}

fn addresses(ctx: &Context) -> Vec<NodeAddress> {
    let of = |kind: &str, address: String| NodeAddress { r#type: kind.into(), address };
    let mut list: Vec<NodeAddress> =
        ctx.settings.node_ips.iter().map(|ip| of("InternalIP", ip.to_string())).collect();
    list.push(of("Hostname", ctx.settings.node_name.clone()));
    list
}

async fn conditions(ctx: &Context) -> Vec<NodeCondition> {
    let of = |kind: &str, value: bool, reason: &str, message: &str| NodeCondition {
        r#type: kind.into(),
        status: if value { "True" } else { "False" }.into(),
        reason: reason.into(),
        message: message.into(),
        last_heartbeat_time: now(),
        last_transition_time: None,
    };
    let pressure = ctx.pressure();
    let memory = pressure.contains(&Condition::Memory);
    let disk = pressure.contains(&Condition::Disk);
    let pid = pressure.contains(&Condition::Pid);
    let mut list = vec![
        match memory {
            true => of(
                "MemoryPressure",
                true,
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            false => of(
                "MemoryPressure",
                false,
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        },
        match disk {
            true => of("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure"),
            false => of("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        },
        match pid {
            true => {
                of("PIDPressure", true, "KubeletHasInsufficientPID", "kubelet has insufficient PID available")
            }
            false => {
                of("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available")
            }
        },
    ];
    list.push(match unready(ctx).await {
        None => of("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        Some(why) => of("Ready", false, "KubeletNotReady", &why),
    });
    list
}

/// Why pods cannot run now; upstream's words.
pub async fn unready(ctx: &Context) -> Option<String> {
    let answer = match ctx.runtime.status(StatusRequest { verbose: false }).await {
        Ok(answer) => answer,
        Err(error) => return Some(format!("container runtime is down: {error}")),
    };
    let mut faults = vec![];
    for condition in answer.status.unwrap_or_default().conditions.iter().filter(|one| !one.status) {
        let name = match condition.type_.as_str() {
            "RuntimeReady" => "container runtime not ready",
            "NetworkReady" => "container runtime network not ready",
            _ => continue,
        };
        let (kind, reason, message) = (&condition.type_, &condition.reason, &condition.message);
        faults.push(format!("{name}: {kind}=false reason:{reason} message:{message}"));
    }
    (!faults.is_empty()).then(|| format!("[{}]", faults.join(", ")).trim_matches(['[', ']']).to_string())
}

async fn images(ctx: &Context) -> Vec<ContainerImage> {
    let Ok(answer) = ctx.runtime.list_images(ListImagesRequest::default()).await else { return vec![] };
    let mut list: Vec<ContainerImage> = answer
        .images
        .into_iter()
        .map(|image| {
            let mut names: Vec<String> = image.repo_digests;
            names.extend(image.repo_tags);
            names.truncate(NAMES_PER_IMAGE_MAX);
            ContainerImage { names, size_bytes: i64::try_from(image.size).unwrap_or(i64::MAX) }
        })
        .filter(|image| !image.names.is_empty())
        .collect();
    list.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    list.truncate(IMAGES_MAX);
    list
}

async fn keep_lease(ctx: &Context) {
    let period = Duration::from_millis(ctx.settings.lease_seconds.unsigned_abs() as u64 * 250);
    let mut held: Option<Lease> = None;
    loop {
        match renew(ctx, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                tokio::time::sleep(period).await;
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "Failed to renew the node's lease");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew(ctx: &Context, held: Option<Lease>) -> Result<Lease, client::Error> {
    let key = ObjectKey::new("kube-node-lease", ctx.settings.node_name.as_str());
    let (mut lease, new) = match held {
        Some(lease) => (lease, false),
        None => match ctx.client.get::<Lease>(&key).await {
            Ok(lease) => (lease, false),
            Err(error) if error.is_not_found() => (Lease::default(), true),
            Err(error) => return Err(error),
        },
    };
    lease.spec.holder_identity = Some(ctx.settings.node_name.clone());
    lease.spec.lease_duration_seconds = Some(ctx.settings.lease_seconds);
    lease.spec.renew_time = MicroTime::truncated(jiff::Timestamp::now());
    if lease.metadata.owner_references.is_empty() {
        let node = ctx.views.view().get::<Node>(&ObjectKey::cluster(ctx.settings.node_name.as_str()));
        if let Some(node) = node {
            lease.metadata.owner_references.push(api::meta::v1::OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.metadata.name.clone(),
                uid: node.metadata.uid.clone(),
                ..Default::default()
            });
        }
    }
    if new {
        lease.metadata.namespace = key.namespace.clone();
        lease.metadata.name = key.name.clone();
        ctx.client.create(&lease).await
    } else {
        ctx.client.update(&lease).await
    }
}
