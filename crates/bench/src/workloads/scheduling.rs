//! Pods from creation to bound, in the cases of upstream's scheduler benchmark. A scheduler must run.

use crate::args::Common;
use crate::clean;
use crate::drive::{Load, drive, histogram, record};
use crate::objects::{self, Sort};
use crate::process::Processes;
use crate::run::{Latency, Row};
use crate::target::{Call, Encoding, Target};
use anyhow::{Context, Result, bail};
use api::core::v1::Pod;
use bytes::Bytes;
use client::{WatchEvent, WatchOptions};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// When nothing was bound for this long, what is left counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What the pods ask of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Case {
    /// Requests of CPU and memory only.
    Basic,
    /// Nodes of two zones of three.
    NodeAffinity,
    /// A zone in which another of them runs.
    PodAffinity,
    /// A node on which none of them runs; no more pods than nodes.
    PodAntiAffinity,
    /// Evenly over the zones.
    TopologySpread,
    /// Every node is full of pods that matter less.
    Preemption,
    /// As basic, behind as many pods that fit nowhere.
    Unschedulable,
    /// As basic, while nodes, pods and services come and go.
    Churn,
}

#[derive(clap::Args, Clone, Debug)]
pub struct SchedulingArgs {
    /// What the pods ask for
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "basic,node-affinity,pod-affinity,pod-anti-affinity,topology-spread,preemption,unschedulable,churn"
    )]
    pub cases: Vec<Case>,
    /// Nodes of 32 processors, in three zones
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "500")]
    pub nodes: Vec<u64>,
    /// Pods that are measured
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub pods: u64,
    /// Clients that create them
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub clients: usize,
}

pub async fn run(target: &Target, common: &Common, args: &SchedulingArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let target = target.with_clients(common, args.clients)?;
    for nodes in &args.nodes {
        join(&target, *nodes).await?;
        for case in &args.cases {
            let namespace = clean::namespace(&target, "bench-scheduling").await?;
            let row =
                Run { target: &target, args, case: *case, nodes: *nodes, namespace: &namespace }.run().await;
            clean::remove(&target, &namespace).await?;
            if row.is_err() {
                clean::remove_nodes(&target, "bench%3Dnode").await?;
            }
            rows.push(row.with_context(|| format!("case {case:?} on {nodes} nodes"))?);
        }
        clean::remove_nodes(&target, "bench%3Dnode").await?;
        clean::until_empty(&target, "/api/v1/nodes").await?;
    }
    Ok(rows)
}

/// Creates nodes, and takes off the taint that a new node gets until a controller has seen it.
async fn join(target: &Target, nodes: u64) -> Result<()> {
    let load = Load { clients: 32, count: nodes, length: Duration::from_secs(3600), rate: None };
    let made = target.clone();
    let measured = drive(&load, &Processes::default(), "creating nodes", move |number| {
        let target = made.clone();
        async move {
            let name = format!("bench-node-{number}");
            let node = Sort::Node.encode(&objects::node(&name, number), Encoding::Protobuf)?;
            target.send(Call::post("/api/v1/nodes", Encoding::Protobuf, node)).await?;
            let patch = Bytes::from_static(br#"{"spec":{"taints":null}}"#);
            target
                .send(Call::patch(&format!("/api/v1/nodes/{name}"), Encoding::Protobuf, "merge", patch))
                .await
                .map(drop)
        }
    })
    .await;
    anyhow::ensure!(measured.failed == 0, "nodes could not be created: {:?}", measured.failures);
    Ok(())
}

struct Run<'a> {
    target: &'a Target,
    args: &'a SchedulingArgs,
    case: Case,
    nodes: u64,
    namespace: &'a str,
}

impl Run<'_> {
    async fn run(&self) -> Result<Row> {
        let pods = match self.case {
            Case::PodAntiAffinity => self.args.pods.min(self.nodes),
            _ => self.args.pods,
        };
        self.prepare(pods).await?;
        let created: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let revision = self.target.revision(&Sort::Pod.collection(self.namespace)).await?;
        let watching = tokio::spawn(bound(
            self.target.clone(),
            self.namespace.to_string(),
            revision,
            pods,
            created.clone(),
        ));
        let churning = (self.case == Case::Churn)
            .then(|| tokio::spawn(churn(self.target.clone(), self.namespace.to_string())));
        let cpu = self.target.processes.cpu_micros();
        let begun = Instant::now();
        self.create("measured", pods, move |number| measured_pod(self.case, number), Some(created)).await?;
        let (latency, seen, faults) = watching.await??;
        let elapsed = begun.elapsed();
        let used = self.target.processes.cpu_micros().saturating_sub(cpu);
        if let Some(churning) = churning {
            churning.abort();
        }
        let mut row = Row {
            workload: "scheduling".into(),
            case: format!("{:?}, {pods} pods on {} nodes", self.case, self.nodes),
            server: self.target.label.clone(),
            count: seen,
            seconds: elapsed.as_secs_f64(),
            per_second: seen as f64 / elapsed.as_secs_f64(),
            latency: Latency::of(&latency),
            faults,
            ..Row::default()
        };
        row.check("pods bound", seen, pods);
        if !self.target.processes.is_empty() {
            row.cpu_micros = Some(used as f64 / seen.max(1) as f64);
        }
        Ok(row.with_memory(&self.target.processes))
    }

    /// What stands before the measured pods come.
    async fn prepare(&self, pods: u64) -> Result<()> {
        match self.case {
            Case::Preemption => {
                let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                    "metadata": {"name": "bench-high"}, "value": 1000});
                clean::create(self.target, "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await?;
                let nodes = self.nodes;
                // Four pods of 8 processors fill each node.
                self.create("low", nodes * 4, move |number| low(number % nodes), None).await
            }
            Case::Unschedulable => self.create("stuck", pods, |_| stuck(), None).await,
            Case::PodAffinity => {
                self.create(
                    "first",
                    3,
                    |number| {
                        let mut pod = measured_pod(Case::Basic, number);
                        pod["metadata"]["labels"]["color"] = "blue".into();
                        pod["spec"]["nodeName"] = format!("bench-node-{number}").into();
                        pod
                    },
                    None,
                )
                .await
            }
            _ => Ok(()),
        }
    }

    async fn create(
        &self,
        prefix: &'static str,
        count: u64,
        pod: impl Fn(u64) -> Value + Clone + Send + Sync,
        times: Option<Arc<Mutex<HashMap<String, Instant>>>>,
    ) -> Result<()> {
        // Encoded before the clock counts: a pod costs the client more than it costs some servers.
        let mut bodies = Vec::new();
        for number in 0..count {
            let mut pod = pod(number);
            pod["metadata"]["name"] = format!("{prefix}-{number}").into();
            pod["metadata"]["namespace"] = self.namespace.into();
            bodies.push(Sort::Pod.encode(&pod, Encoding::Protobuf)?);
        }
        let bodies = Arc::new(bodies);
        let collection: Arc<str> = Sort::Pod.collection(self.namespace).into();
        let target = self.target.clone();
        let load = Load { clients: self.args.clients, count, length: Duration::from_secs(3600), rate: None };
        let measured = drive(&load, &Processes::default(), "creating pods", move |number| {
            let (target, bodies, collection, times) =
                (target.clone(), bodies.clone(), collection.clone(), times.clone());
            async move {
                if let Some(times) = times {
                    let name = format!("{prefix}-{number}");
                    times.lock().expect("no holder panics").insert(name, Instant::now());
                }
                let body = bodies[usize::try_from(number)?].clone();
                target.send(Call::post(&collection, Encoding::Protobuf, body)).await.map(drop)
            }
        })
        .await;
        anyhow::ensure!(measured.failed == 0, "pods could not be created: {:?}", measured.failures);
        Ok(())
    }
}

type Bound = (Histogram<u64>, u64, Vec<String>);

/// Watches until so many measured pods are bound, or nothing happens any more.
async fn bound(
    target: Target,
    namespace: String,
    revision: String,
    pods: u64,
    created: Arc<Mutex<HashMap<String, Instant>>>,
) -> Result<Bound> {
    let options = WatchOptions { resource_version: revision, ..WatchOptions::default() };
    let mut watcher = target.client().watch::<Pod>(&namespace, &options).await?;
    let (mut latency, mut seen) = (histogram(), 0);
    let mut last = Instant::now();
    while seen < pods {
        let event =
            match tokio::time::timeout(SILENCE_MAX.saturating_sub(last.elapsed()), watcher.next()).await {
                Err(_) => return Ok((latency, seen, vec![format!("nothing was bound for {SILENCE_MAX:?}")])),
                Ok(None) => bail!("the server ended the watch"),
                Ok(Some(event)) => event?,
            };
        let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
        if pod.spec.node_name.is_empty() {
            continue;
        }
        if let Some(start) = created.lock().expect("no holder panics").remove(&pod.metadata.name) {
            record(&mut latency, start.elapsed());
            seen += 1;
            last = Instant::now();
        }
    }
    Ok((latency, seen, Vec::new()))
}

fn measured_pod(case: Case, number: u64) -> Value {
    let mut pod = objects::pod("", &format!("pod-{number}"), "");
    let zone = "topology.kubernetes.io/zone";
    let blue = json!({"matchLabels": {"color": "blue"}});
    match case {
        Case::NodeAffinity => {
            let term = json!({"matchExpressions": [{"key": zone, "operator": "In", "values": ["zone-0", "zone-1"]}]});
            pod["spec"]["affinity"] = json!({"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
        }
        Case::PodAffinity => {
            pod["metadata"]["labels"]["color"] = "blue".into();
            pod["spec"]["affinity"] = json!({"podAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": blue, "topologyKey": zone}]}});
        }
        Case::PodAntiAffinity => {
            pod["metadata"]["labels"]["color"] = "blue".into();
            let term = json!({"labelSelector": blue, "topologyKey": "kubernetes.io/hostname"});
            pod["spec"]["affinity"] =
                json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        }
        Case::TopologySpread => {
            pod["metadata"]["labels"]["color"] = "blue".into();
            pod["spec"]["topologySpreadConstraints"] = json!([
                {"maxSkew": 5, "topologyKey": zone, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": blue}]);
        }
        Case::Preemption => {
            pod["spec"]["priorityClassName"] = "bench-high".into();
            pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "8"}});
        }
        Case::Basic | Case::Unschedulable | Case::Churn => {}
    }
    pod
}

/// A pod that fills a quarter of a node and matters little.
fn low(node: u64) -> Value {
    let mut pod = objects::pod("", "low", &format!("bench-node-{node}"));
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "8"}});
    pod
}

/// A pod that no node can take.
fn stuck() -> Value {
    let mut pod = objects::pod("", "stuck", "");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1000"}});
    pod
}

/// Makes and removes a node, a pod that fits nowhere, and a service, ten times a second, until it is ended.
async fn churn(target: Target, namespace: String) {
    let mut number: u64 = 0;
    loop {
        let name = format!("churn-{number}");
        let mut pod = stuck();
        pod["metadata"]["name"] = name.as_str().into();
        let objects = [
            ("/api/v1/nodes".to_string(), objects::node(&name, number)),
            (Sort::Pod.collection(&namespace), pod),
            (Sort::Service.collection(&namespace), objects::service(&namespace, &name)),
        ];
        for (collection, object) in &objects {
            // What fails here shows in nothing that is measured.
            let _ = clean::create(&target, collection, object).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (collection, _) in &objects {
            let path = format!("{collection}/{name}?gracePeriodSeconds=0");
            let _ = target.ask(Call::delete(&path, Encoding::Json)).await;
        }
        number += 1;
    }
}
