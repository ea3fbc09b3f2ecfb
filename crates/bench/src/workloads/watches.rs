//! Watch fan-out: each change to every watcher that must see it, with the time from the write's beginning until then.

use crate::args::Common;
use crate::clean;
use crate::drive::{Load, drive, histogram, record};
use crate::objects::{self, Sort};
use crate::process::Processes;
use crate::run::{Latency, Row};
use crate::target::{Call, Encoding, Target};
use anyhow::{Result, bail};
use bytes::Bytes;
use client::Body;
use hdrhistogram::Histogram;
use http_body_util::BodyExt;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After the last write, how long a watcher may lag behind before its events count as lost.
const LAG_MAX: Duration = Duration::from_secs(60);
/// Stands before the number and the time of a write, inside the object.
const MARK: &[u8] = b"@write=";
/// Digits of the number and of the time in microseconds.
const DIGITS: usize = 12;

/// Which events a watcher asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Every pod of the namespace.
    All,
    /// The pods of one node each, as kubelets do.
    Node,
}

#[derive(clap::Args, Clone, Debug)]
pub struct WatchArgs {
    /// Watchers at a time
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,100")]
    pub watchers: Vec<usize>,
    /// Which events they ask for
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all,node")]
    pub scope: Vec<Scope>,
    /// Writers, each patching pods of its own
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub writers: usize,
    /// Pods that are patched
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub pods: u64,
    /// Writes a second, on a schedule; by default as many as can be
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// No more writes than these in a case
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    pub count: u64,
    /// How objects travel
    #[arg(long, value_enum, value_delimiter = ',', default_value = "json")]
    pub encoding: Vec<Encoding>,
}

pub async fn run(target: &Target, common: &Common, args: &WatchArgs) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for encoding in &args.encoding {
        for scope in &args.scope {
            for watchers in &args.watchers {
                let namespace = clean::namespace(target, "bench-watch").await?;
                let case = Case { common, args, encoding: *encoding, scope: *scope, watchers: *watchers };
                let row = case.run(target, &namespace).await;
                clean::remove(target, &namespace).await?;
                rows.push(row?);
            }
        }
    }
    Ok(rows)
}

struct Case<'a> {
    common: &'a Common,
    args: &'a WatchArgs,
    encoding: Encoding,
    scope: Scope,
    watchers: usize,
}

/// What one watcher saw.
struct Seen {
    events: u64,
    bytes: u64,
    latency: Histogram<u64>,
}

impl Case<'_> {
    async fn run(&self, target: &Target, namespace: &str) -> Result<Row> {
        let writers = target.with_clients(self.common, self.args.writers)?;
        let nodes = if self.scope == Scope::Node { self.watchers as u64 } else { 1 };
        self.fill(&writers, namespace, nodes).await?;
        let collection = Sort::Pod.collection(namespace);
        let revision = target.revision(&collection).await?;
        let before = target.processes.memory().resident_mib;
        let watching = target.with_watches(self.watchers)?;
        let mut bodies = Vec::new();
        for watcher in 0..self.watchers {
            let selector = match self.scope {
                Scope::All => String::new(),
                Scope::Node => format!("&fieldSelector=spec.nodeName%3D{}", node_name(watcher as u64)),
            };
            let path = format!("{collection}?watch=true&resourceVersion={revision}{selector}");
            bodies.push(watching.watch(&path, self.encoding).await?);
        }
        let idle = target.processes.memory().resident_mib;
        let written: Arc<Vec<AtomicU64>> = Arc::new((0..nodes).map(|_| AtomicU64::new(0)).collect());
        let done = Arc::new(tokio::sync::watch::channel(false).0);
        let begun = Instant::now();
        let tasks: Vec<_> = bodies
            .into_iter()
            .enumerate()
            .map(|(watcher, body)| {
                let (done, written, encoding) = (done.subscribe(), written.clone(), self.encoding);
                let own = watcher % written.len();
                tokio::spawn(follow(body, encoding, begun, done, written, own))
            })
            .collect();
        let cpu = target.processes.cpu_micros();
        let measured = self.write(&writers, namespace, nodes, begun, &written).await;
        let _ = done.send(true);
        self.row(target, measured, tasks, &written, cpu, begun, (before, idle)).await
    }

    async fn fill(&self, target: &Target, namespace: &str, nodes: u64) -> Result<()> {
        let collection = Sort::Pod.collection(namespace);
        let pods = self.pods(nodes);
        let load = Load { clients: 16, count: pods, length: Duration::from_secs(600), rate: None };
        let (filled, namespace): (_, Arc<str>) = (target.clone(), namespace.into());
        let measured = drive(&load, &Processes::default(), "creating pods", move |number| {
            let (target, namespace, collection) = (filled.clone(), namespace.clone(), collection.clone());
            async move {
                let pod = objects::pod(&namespace, &format!("pod-{number}"), &node_name(number % nodes));
                let body = Sort::Pod.encode(&pod, Encoding::Protobuf)?;
                target.send(Call::post(&collection, Encoding::Protobuf, body)).await.map(drop)
            }
        })
        .await;
        anyhow::ensure!(measured.failed == 0, "pods could not be created: {:?}", measured.failures);
        Ok(())
    }

    /// Every node has a pod at least.
    fn pods(&self, nodes: u64) -> u64 {
        self.args.pods.max(nodes)
    }

    async fn write(
        &self,
        target: &Target,
        namespace: &str,
        nodes: u64,
        begun: Instant,
        written: &Arc<Vec<AtomicU64>>,
    ) -> crate::drive::Measured {
        let load = Load {
            clients: self.args.writers,
            count: self.args.count,
            length: self.common.length(),
            rate: self.args.rate,
        };
        let (target, encoding, written) = (target.clone(), self.encoding, written.clone());
        let path: Arc<str> = format!("{}/pod-", Sort::Pod.collection(namespace)).into();
        let pods = self.pods(nodes);
        drive(&load, &Processes::default(), &self.name(), move |number| {
            let (target, path, written) = (target.clone(), path.clone(), written.clone());
            async move {
                let pod = number % pods;
                let micros = begun.elapsed().as_micros();
                let mark = format!("@write={number:012}{micros:012}");
                let patch = json!({"metadata": {"annotations": {"example.com/write": mark}}});
                let path = format!("{path}{pod}");
                target.send(Call::patch(&path, encoding, "merge", Bytes::from(patch.to_string()))).await?;
                written[usize::try_from(pod % nodes)?].fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        })
        .await
    }

    fn name(&self) -> String {
        let scope = match self.scope {
            Scope::All => "all pods",
            Scope::Node => "a node's pods",
        };
        let rate = self.args.rate.map_or_else(String::new, |rate| format!(", {rate}/s"));
        format!("watch {scope}, {}, x{}{rate}", self.encoding.name(), self.watchers)
    }

    #[allow(clippy::too_many_arguments)]
    async fn row(
        &self,
        target: &Target,
        mut measured: crate::drive::Measured,
        tasks: Vec<tokio::task::JoinHandle<Result<Seen>>>,
        written: &[AtomicU64],
        cpu: u64,
        begun: Instant,
        (before, idle): (f64, f64),
    ) -> Result<Row> {
        let writes = measured.count;
        let write_latency = Latency::of(&measured.latency);
        let (mut events, mut bytes, mut latency, mut faults) = (0, 0, histogram(), Vec::new());
        for (watcher, task) in tasks.into_iter().enumerate() {
            let must = written[watcher % written.len()].load(Ordering::SeqCst);
            match task.await? {
                Ok(seen) => {
                    events += seen.events;
                    bytes += seen.bytes;
                    latency.add(&seen.latency)?;
                    if seen.events != must {
                        faults
                            .push(format!("watcher {watcher} saw {} events instead of {must}", seen.events));
                    }
                }
                Err(error) => faults.push(format!("watcher {watcher} broke off: {error:#}")),
            }
        }
        measured.elapsed = begun.elapsed();
        measured.cpu_micros = target.processes.cpu_micros().saturating_sub(cpu);
        measured.latency = latency;
        measured.count = events;
        let mut row = Row::of("watch", self.name(), target, &measured);
        faults.truncate(5);
        row.faults.extend(faults);
        row.facts.insert("writes_per_second".into(), writes as f64 / row.seconds);
        row.facts.insert("mb_per_second".into(), bytes as f64 / 1e6 / row.seconds);
        if let Some(latency) = write_latency {
            row.facts.insert("write_p50_us".into(), latency.p50 as f64);
        }
        if !target.processes.is_empty() {
            row.facts
                .insert("idle_watcher_kib".into(), (idle - before).max(0.0) * 1024.0 / self.watchers as f64);
        }
        Ok(row)
    }
}

fn node_name(number: u64) -> String {
    format!("bench-node-{number}")
}

/// Reads events until all that was written for this watcher has come, or nothing comes any more.
async fn follow(
    mut body: Body,
    encoding: Encoding,
    begun: Instant,
    mut done: tokio::sync::watch::Receiver<bool>,
    written: Arc<Vec<AtomicU64>>,
    own: usize,
) -> Result<Seen> {
    let mut seen = Seen { events: 0, bytes: 0, latency: histogram() };
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        if *done.borrow() && seen.events >= written[own].load(Ordering::SeqCst) {
            return Ok(seen);
        }
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = done.changed() => continue,
            () = tokio::time::sleep(LAG_MAX), if *done.borrow() => return Ok(seen),
        };
        let Some(frame) = frame else { bail!("the server ended the watch") };
        let frame = frame.map_err(|error| anyhow::anyhow!(error.chain()))?;
        let Some(data) = frame.data_ref() else { continue };
        let now = begun.elapsed().as_micros() as u64;
        seen.bytes += data.len() as u64;
        buffer.extend_from_slice(data);
        let mut taken = 0;
        while let Some(length) = next(&buffer[taken..], encoding) {
            let event = &buffer[taken..taken + length];
            taken += length;
            if let Some(sent) = sent(event) {
                seen.events += 1;
                record(&mut seen.latency, Duration::from_micros(now.saturating_sub(sent)));
            }
        }
        buffer.drain(..taken);
    }
}

/// How long the first whole event is, if one is there.
fn next(buffer: &[u8], encoding: Encoding) -> Option<usize> {
    match encoding {
        Encoding::Json => memchr::memchr(b'\n', buffer).map(|end| end + 1),
        Encoding::Protobuf => {
            let length = u32::from_be_bytes(buffer.get(..4)?.try_into().ok()?) as usize + 4;
            (buffer.len() >= length).then_some(length)
        }
    }
}

/// When the write that an event tells of began, in microseconds.
fn sent(event: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(event, MARK)? + MARK.len() + DIGITS;
    std::str::from_utf8(event.get(at..at + DIGITS)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_and_their_marks_read() {
        let line = b"{\"object\":{\"a\":\"@write=000000000007000000123456\"}}\n{\"half";
        assert_eq!(next(line, Encoding::Json), Some(51));
        assert_eq!(sent(&line[..51]), Some(123_456));
        assert_eq!(next(&line[51..], Encoding::Json), None);
        assert_eq!(next(&[0, 0, 0, 2, 1, 2, 0], Encoding::Protobuf), Some(6));
        assert_eq!(next(&[0, 0, 0, 2, 1], Encoding::Protobuf), None);
        assert_eq!(sent(b"nothing"), None);
    }
}
