//! Pods that have a node and wait for their volumes there: what was assumed, what was asked for, whether it came.
//!
//! Bounded by the pods there are: each assumed pod waits once, and no longer than [`WAIT_MAX`].

use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use client::Client;
use scheduler::plugins::volume_binding::{Progress, VolumePlan, progress};
use scheduler::{Fact, PodInfo, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a pod waits for its volumes: upstream's bindTimeoutSeconds.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What one pod needs on its node.
pub(crate) struct Binding {
    pub pod: Arc<PodInfo>,
    pub node: String,
    /// Each as it was and as it is assumed to be.
    volumes: Vec<(Arc<PersistentVolume>, Arc<PersistentVolume>)>,
    claims: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolumeClaim>)>,
    awaited: Vec<String>,
}

impl Binding {
    /// Lets later decisions see what this one takes.
    pub(crate) fn assume(snapshot: &mut Snapshot, pod: Arc<PodInfo>, node: String, plan: VolumePlan) -> Self {
        let volumes: Vec<_> = plan.bind.into_iter().map(|(old, new)| (old, Arc::new(new))).collect();
        let claims: Vec<_> = plan.provision.into_iter().map(|(old, new)| (old, Arc::new(new))).collect();
        for (_, volume) in &volumes {
            snapshot.set_fact(Fact::Volume(volume.clone()));
        }
        for (_, claim) in &claims {
            snapshot.set_fact(Fact::Claim(claim.clone()));
        }
        Binding { pod, node, volumes, claims, awaited: plan.awaited }
    }

    /// Keeps the volumes for their claims and names the node on the others. What was decided on must not have changed.
    pub(crate) async fn write(&self, client: &Client) -> Result<(), client::Error> {
        for (_, volume) in &self.volumes {
            client.update(volume.as_ref()).await?;
        }
        for (_, claim) in &self.claims {
            client.update(claim.as_ref()).await?;
        }
        Ok(())
    }

    /// Takes back what was assumed, where nothing newer has been seen.
    pub(crate) fn revert(&self, snapshot: &mut Snapshot) {
        for (old, assumed) in &self.volumes {
            if snapshot.facts.volume(&old.metadata.name).is_some_and(|own| Arc::ptr_eq(own, assumed)) {
                snapshot.set_fact(Fact::Volume(old.clone()));
            }
        }
        for (old, assumed) in &self.claims {
            let own = snapshot.facts.claim(&old.metadata.namespace, &old.metadata.name);
            if own.is_some_and(|own| Arc::ptr_eq(own, assumed)) {
                snapshot.set_fact(Fact::Claim(old.clone()));
            }
        }
    }
}

/// The pods that wait.
#[derive(Default)]
pub(crate) struct Volumes {
    waiting: HashMap<String, (Instant, Binding)>,
    /// Something changed since they were looked at.
    stale: bool,
}

impl Volumes {
    pub(crate) fn wait(&mut self, binding: Binding, now: Instant) {
        self.stale = true;
        self.waiting.insert(binding.pod.uid().to_owned(), (now + WAIT_MAX, binding));
    }

    pub(crate) fn forget(&mut self, uid: &str) {
        self.waiting.remove(uid);
    }

    pub(crate) fn changed(&mut self, fact: &Fact) {
        self.stale |= matches!(fact, Fact::Claim(_) | Fact::Volume(_));
    }

    /// When the first of them has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|(deadline, _)| *deadline).min()
    }

    /// Takes out those whose volumes are bound, and those for which that will not happen, with the reason.
    pub(crate) fn settled(
        &mut self,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Vec<(Binding, Result<(), String>)> {
        let overdue = self.next_deadline().is_some_and(|deadline| deadline <= now);
        if self.waiting.is_empty() || !(std::mem::take(&mut self.stale) || overdue) {
            return Vec::new();
        }
        let mut results = Vec::new();
        for (uid, (deadline, binding)) in &self.waiting {
            let kept: Vec<String> =
                binding.volumes.iter().map(|(old, _)| old.metadata.name.clone()).collect();
            let result = match progress(snapshot, &binding.pod, &binding.node, &binding.awaited, &kept) {
                Progress::Bound => Ok(()),
                Progress::Failed(message) => Err(message),
                Progress::Waiting if *deadline <= now => Err("context deadline exceeded".into()),
                Progress::Waiting => continue,
            };
            results.push((uid.clone(), result));
        }
        results.into_iter().filter_map(|(uid, result)| Some((self.waiting.remove(&uid)?.1, result))).collect()
    }
}
