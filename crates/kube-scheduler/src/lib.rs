//! The scheduler as a process: watches the cluster, queues pods that wait for a node, decides, binds.
//!
//! What is decided is `scheduler`'s; here are the queue, the wires and the clock. Invariants: a pod is in one place of
//! the queue at a time; a decision's pod is on its node in the snapshot before the next decision is made; nothing is
//! tried again without an event, a backoff that ran out, or the flush that stands behind both.
#![forbid(unsafe_code)]

mod actor;
mod config;
mod metrics;
mod options;
mod queue;
mod volumes;
mod writes;

#[cfg(test)]
mod tests;

pub use options::Options;

use anyhow::Context;
use api::apps::v1::{ReplicaSet, StatefulSet};
use api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use api::policy::v1::PodDisruptionBudget;
use api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use client::{Client, Election, Selection, Views};
use meta::ObjectKey;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Runs the scheduler until the token is cancelled. With leader election it waits until it leads, and stands by again
/// after it has lost the lease.
pub async fn run(options: Options, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let config = config::Config::load(&options)?;
    let views = follow(&client, &token).context("following the cluster")?;
    let metrics = Arc::new(metrics::Metrics::default());
    let serving = config.serving.clone().map(|endpoint| {
        let counted = metrics.clone();
        let text: serving::Metrics = Arc::new(move || counted.text());
        tokio::spawn(serving::serve(endpoint, "kube-scheduler", client.clone(), text, token.child_token()))
    });
    while !token.is_cancelled() {
        let Some(election) = &config.election else {
            lead(&config, &client, &views, &metrics, &token).await;
            break;
        };
        let lease = ObjectKey::new(election.namespace.clone(), election.name.clone());
        let own = options.identity.clone().unwrap_or_else(identity);
        let candidate = Election::new(client.clone(), lease, own, election.timing);
        let Some(leadership) = candidate.acquire(&token).await else { break };
        let (lost, term) = (leadership.lost(), token.child_token());
        tokio::select! {
            () = lead(&config, &client, &views, &metrics, &term) => {}
            () = lost.cancelled() => warn!("Lost the lease and stopped scheduling"),
        }
        // Whatever was started for this term ends with it.
        term.cancel();
        metrics.lead(false);
        leadership.release().await;
    }
    match serving {
        Some(serving) => serving.await.context("serving health and metrics")?,
        None => Ok(()),
    }
}

async fn lead(
    config: &config::Config,
    client: &Client,
    views: &Arc<Views>,
    metrics: &Arc<metrics::Metrics>,
    token: &CancellationToken,
) {
    if !views.synced().await {
        return;
    }
    info!(profiles = config.profiles.len(), "Started scheduling");
    metrics.lead(true);
    actor::Actor::new(config, client, metrics.clone(), token).run(views.subscribe(), token).await;
}

/// What decisions depend on. Pods that have ended take no room: the server leaves them out.
fn follow(client: &Client, token: &CancellationToken) -> Result<Arc<Views>, client::Error> {
    let running = Selection::fields("status.phase!=Succeeded,status.phase!=Failed");
    let builder = Views::builder(client)
        .watch_selected::<Pod>(running)?
        .watch::<Node>()?
        .watch::<Namespace>()?
        .watch::<Service>()?
        .watch::<ReplicationController>()?
        .watch::<ReplicaSet>()?
        .watch::<StatefulSet>()?
        .watch::<PersistentVolumeClaim>()?
        .watch::<PersistentVolume>()?
        .watch::<StorageClass>()?
        .watch::<CSINode>()?
        .watch::<CSIDriver>()?
        .watch::<CSIStorageCapacity>()?
        .watch::<VolumeAttachment>()?
        .watch::<PodDisruptionBudget>()?;
    Ok(builder.start(token))
}

/// Unique among candidates: the host's name and a random number, as upstream's.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:016x}{:016x}", host.trim(), rand::random::<u64>(), rand::random::<u64>())
}
