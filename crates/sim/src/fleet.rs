//! Many simulated nodes over few connections, from joining to leaving.

use crate::api_objects::LEASE_NAMESPACE;
use crate::args::NodesArgs;
use crate::node::{self, Shared};
use crate::stats::{Snapshot, Stats};
use anyhow::{Context, Result};
use api::coordination::v1::Lease;
use api::core::v1::Node;
use client::{Client, Config, DeleteOptions, Wire};
use futures::stream::{self, StreamExt};
use meta::ObjectKey;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Calls under way of all nodes together; servers refuse at 400 reads or 200 writes by default.
const CALLS_MAX: usize = 128;
/// Nodes on one transport, whose four watch connections carry 100 streams each.
const NODES_PER_WIRE: usize = 320;
/// Nodes removed at a time.
const REMOVALS: usize = 32;

/// Nodes that live in this process.
pub struct Fleet {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts as many nodes as `args` say; they join in the background.
    pub fn start(config: &Config, args: NodesArgs, token: CancellationToken) -> Result<Self> {
        let wires = (args.count as usize).div_ceil(NODES_PER_WIRE).max(1);
        let clients: Result<Vec<Client>, client::Error> =
            (0..wires).map(|_| Ok(Client::new(Arc::new(Wire::new(config.clone())?)))).collect();
        let count = args.count;
        let shared = Arc::new(Shared {
            args: Arc::new(args),
            stats: Arc::default(),
            clients: clients?,
            calls: Semaphore::new(CALLS_MAX),
            token,
            began: Instant::now(),
        });
        let mut tasks = JoinSet::new();
        for number in 0..count {
            tasks.spawn(node::run(shared.clone(), number));
        }
        Ok(Fleet { shared, tasks })
    }

    pub fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    /// Waits until every node has joined.
    pub async fn joined(&self) {
        let count = i64::from(self.shared.args.count);
        while self.shared.stats.nodes.load(Ordering::Relaxed) < count && !self.shared.token.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the nodes' tasks; removes their objects if `args` say so.
    pub async fn stop(mut self) -> Result<()> {
        self.shared.token.cancel();
        while self.tasks.join_next().await.is_some() {}
        if self.shared.args.remove {
            self.remove().await?;
        }
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        let (client, prefix) = (&self.shared.clients[0], &self.shared.args.prefix);
        let mut removals = stream::iter(0..self.shared.args.count)
            .map(|number| async move {
                let (name, options) = (format!("{prefix}{number}"), DeleteOptions::default());
                let results = [
                    client.delete::<Node>(&ObjectKey::cluster(name.as_str()), &options).await.map(drop),
                    client.delete::<Lease>(&ObjectKey::new(LEASE_NAMESPACE, name), &options).await.map(drop),
                ];
                results.into_iter().find(|result| result.as_ref().is_err_and(|error| !error.is_not_found()))
            })
            .buffer_unordered(REMOVALS);
        while let Some(failure) = removals.next().await {
            if let Some(Err(error)) = failure {
                return Err(error).context("removing a simulated node");
            }
        }
        Ok(())
    }
}

/// Runs the command: joins the nodes, tells figures from time to time, leaves when `token` is cancelled.
pub async fn run(args: NodesArgs, token: CancellationToken) -> Result<()> {
    let kubeconfig = args.kubeconfig.clone().context("name the cluster with --kubeconfig")?;
    let config = Config::from_kubeconfig(&kubeconfig)
        .with_context(|| format!("reading the kubeconfig {}", kubeconfig.display()))?;
    let (every, json) = (args.report_every, args.json.clone());
    let end = args.length.map(|length| Instant::now() + length);
    let began = Instant::now();
    let fleet = Fleet::start(&config, args, token.child_token())?;
    let mut next = began + every;
    loop {
        let wake = if every.is_zero() { end } else { Some(end.map_or(next, |end| end.min(next))) };
        tokio::select! {
            () = token.cancelled() => break,
            () = async { match wake {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            } } => {}
        }
        println!("{:>6.0} s  {}", began.elapsed().as_secs_f64(), fleet.stats().snapshot());
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        next += every;
    }
    let last: Snapshot = fleet.stats().snapshot();
    if let Some(path) = json {
        std::fs::write(&path, serde_json::to_string_pretty(&last)? + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    fleet.stop().await
}
