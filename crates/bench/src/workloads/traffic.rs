//! What a cluster of N nodes does all day, on a schedule: leases, node status, pod status, events.
//!
//! Latency counts from the time at which a request was due; a server that cannot keep up shows it there.

use crate::args::Common;
use crate::clean;
use crate::drive::{Load, drive};
use crate::objects::{self, Sort};
use crate::process::Processes;
use crate::run::Row;
use crate::target::{Call, Encoding, Target};
use crate::workloads::verbs::json_revision;
use anyhow::Result;
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

#[derive(clap::Args, Clone, Debug)]
pub struct TrafficArgs {
    /// Nodes, each with a lease
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "500,5000")]
    pub nodes: Vec<u64>,
    /// How often each renews its lease, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub lease_seconds: f64,
    /// How often each reports its status, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0)]
    pub status_seconds: f64,
    /// Pod status patches a second, of all nodes together
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub pod_rate: f64,
    /// Events a second, of all nodes together
    #[arg(long, value_name = "N", default_value_t = 50.0)]
    pub event_rate: f64,
    /// Requests under way at a time, of each sort
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub clients: usize,
}

/// Pods whose status changes.
const PODS: u64 = 200;

pub async fn run(target: &Target, common: &Common, args: &TrafficArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for nodes in &args.nodes {
        let namespace = clean::namespace(target, "bench-traffic").await?;
        let target = target.with_clients(common, args.clients)?;
        let result = cluster(&target, common, args, &namespace, *nodes).await;
        clean::remove_nodes(&target, "bench%3Dnode").await?;
        clean::remove(&target, &namespace).await?;
        rows.extend(result?);
    }
    Ok(rows)
}

async fn cluster(
    target: &Target,
    common: &Common,
    args: &TrafficArgs,
    namespace: &str,
    nodes: u64,
) -> Result<Vec<Row>> {
    let revisions = fill(target, namespace, nodes).await?;
    let load =
        |rate| Load { clients: args.clients, count: u64::MAX, length: common.length(), rate: Some(rate) };
    let none = Processes::default();
    let cpu = target.processes.cpu_micros();
    let begun = std::time::Instant::now();
    let (renewals, reports) =
        (load(nodes as f64 / args.lease_seconds), load(nodes as f64 / args.status_seconds));
    let (changes, happenings) = (load(args.pod_rate), load(args.event_rate));
    let (leases, status, pods, events) = tokio::join!(
        drive(&renewals, &none, "leases", lease(target, namespace, revisions)),
        drive(&reports, &none, "node status", node_status(target, nodes)),
        drive(&changes, &none, "pod status", pod_status(target, namespace)),
        drive(&happenings, &none, "events", event(target, namespace)),
    );
    let elapsed = begun.elapsed();
    let used = target.processes.cpu_micros().saturating_sub(cpu);
    let all = leases.count + status.count + pods.count + events.count;
    let mut rows = Vec::new();
    for (what, measured) in
        [("lease updates", &leases), ("node status", &status), ("pod status", &pods), ("events", &events)]
    {
        let mut row = Row::of("traffic", format!("{what} of {nodes} nodes"), target, measured);
        // Its processor time is that of all four together.
        row.cpu_micros = None;
        rows.push(row);
    }
    let mut whole = Row {
        workload: "traffic".into(),
        case: format!("all traffic of {nodes} nodes"),
        server: target.label.clone(),
        count: all,
        seconds: elapsed.as_secs_f64(),
        per_second: all as f64 / elapsed.as_secs_f64(),
        ..Row::default()
    };
    if !target.processes.is_empty() {
        whole.cpu_micros = Some(used as f64 / all.max(1) as f64);
        whole.facts.insert("server_cores_percent".into(), used as f64 / elapsed.as_micros() as f64 * 100.0);
    }
    rows.push(whole.with_memory(&target.processes));
    Ok(rows)
}

/// The revision of each node's lease: who holds a lease knows it.
type Revisions = Arc<Vec<Mutex<String>>>;

async fn fill(target: &Target, namespace: &str, nodes: u64) -> Result<Revisions> {
    let revisions: Revisions = Arc::new((0..nodes).map(|_| Mutex::default()).collect());
    let load = |count| Load { clients: 32, count, length: Duration::from_secs(3600), rate: None };
    let none = Processes::default();
    let (made, space, held): (_, Arc<str>, _) = (target.clone(), namespace.into(), revisions.clone());
    let joined = drive(&load(nodes), &none, "creating nodes", move |number| {
        let (target, namespace, held) = (made.clone(), space.clone(), held.clone());
        async move {
            let name = node_name(number);
            let node = Sort::Node.encode(&objects::node(&name, number), Encoding::Protobuf)?;
            target.send(Call::post("/api/v1/nodes", Encoding::Protobuf, node)).await?;
            let lease = Sort::Lease.encode(&objects::lease(&namespace, &name, ""), Encoding::Json)?;
            let body =
                target.send(Call::post(&Sort::Lease.collection(&namespace), Encoding::Json, lease)).await?;
            *held[usize::try_from(number)?].lock().await = json_revision(&body)?;
            Ok(())
        }
    })
    .await;
    let (made, space): (_, Arc<str>) = (target.clone(), namespace.into());
    let pods = drive(&load(PODS), &none, "creating pods", move |number| {
        let (target, namespace) = (made.clone(), space.clone());
        async move {
            let pod = objects::pod(&namespace, &format!("pod-{number}"), &node_name(number % nodes));
            let body = Sort::Pod.encode(&pod, Encoding::Protobuf)?;
            target
                .send(Call::post(&Sort::Pod.collection(&namespace), Encoding::Protobuf, body))
                .await
                .map(drop)
        }
    })
    .await;
    for measured in [joined, pods] {
        anyhow::ensure!(measured.failed == 0, "nodes could not be created: {:?}", measured.failures);
    }
    Ok(revisions)
}

fn node_name(number: u64) -> String {
    format!("bench-node-{number}")
}

type Doing = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Renews a lease on its revision, as a node does that holds it.
fn lease(
    target: &Target,
    namespace: &str,
    held: Revisions,
) -> impl Fn(u64) -> Doing + Clone + Send + Sync + 'static {
    let (target, namespace): (_, Arc<str>) = (target.clone(), namespace.into());
    move |number| {
        let (target, namespace, held) = (target.clone(), namespace.clone(), held.clone());
        Box::pin(async move {
            let number = number % held.len() as u64;
            let name = node_name(number);
            let mut revision = held[usize::try_from(number)?].lock().await;
            let body =
                Sort::Lease.encode(&objects::lease(&namespace, &name, &revision), Encoding::Protobuf)?;
            let path = format!("{}/{name}", Sort::Lease.collection(&namespace));
            let body = target.send(Call::put(&path, Encoding::Protobuf, body)).await?;
            *revision =
                api::codec::from_protobuf::<api::coordination::v1::Lease>(&body)?.metadata.resource_version;
            Ok(())
        })
    }
}

fn node_status(target: &Target, nodes: u64) -> impl Fn(u64) -> Doing + Clone + Send + Sync + 'static {
    let target = target.clone();
    move |number| {
        let target = target.clone();
        Box::pin(async move {
            let time = objects::now();
            let patch = json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "lastHeartbeatTime": time},
                {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": time},
            ]}});
            let path = format!("/api/v1/nodes/{}/status", node_name(number % nodes));
            let body = Bytes::from(patch.to_string());
            target.send(Call::patch(&path, Encoding::Protobuf, "strategic-merge", body)).await.map(drop)
        })
    }
}

fn pod_status(target: &Target, namespace: &str) -> impl Fn(u64) -> Doing + Clone + Send + Sync + 'static {
    let (target, collection): (_, Arc<str>) = (target.clone(), Sort::Pod.collection(namespace).into());
    move |number| {
        let (target, collection) = (target.clone(), collection.clone());
        Box::pin(async move {
            let path = format!("{collection}/pod-{}/status", number % PODS);
            let body = Bytes::from(objects::pod_status(number).to_string());
            target.send(Call::patch(&path, Encoding::Protobuf, "strategic-merge", body)).await.map(drop)
        })
    }
}

fn event(target: &Target, namespace: &str) -> impl Fn(u64) -> Doing + Clone + Send + Sync + 'static {
    let (target, namespace): (_, Arc<str>) = (target.clone(), namespace.into());
    let run = clean::unique("event");
    move |number| {
        let (target, namespace, run) = (target.clone(), namespace.clone(), run.clone());
        Box::pin(async move {
            let event =
                objects::event(&namespace, &format!("{run}.{number}"), &format!("pod-{}", number % PODS));
            let path = format!("/api/v1/namespaces/{namespace}/events");
            target.send(Call::post(&path, Encoding::Json, Bytes::from(event.to_string()))).await.map(drop)
        })
    }
}
