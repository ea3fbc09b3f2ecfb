//! VolumeRestrictions: disks that only one pod of a node may mount, and claims that only one pod of the cluster may use.

use super::{Filter, Prepared, Reasons, Verdict, reject};
use crate::cycle::Cycle;
use crate::hints::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use api::core::v1::{Pod, VolumeSource};
use std::collections::BTreeSet;

pub const NAME: &str = "VolumeRestrictions";

pub const FILTER: Filter = Filter { name: NAME, prepare, check, hint };

/// The pod's claims for a single pod, and how many placed pods use them.
#[derive(Clone, Default)]
pub(crate) struct Restricted {
    claims: BTreeSet<String>,
    conflicts: i64,
}

impl Restricted {
    /// Counts a pod as come to (1) or gone from (-1) a node.
    pub(crate) fn change(&mut self, pod: &PodInfo, other: &PodInfo, delta: i64) {
        if pod.namespace() == other.namespace() {
            let used = other.claims.iter().filter(|own| !own.ephemeral && self.claims.contains(&own.name));
            self.conflicts += delta * used.count() as i64;
        }
    }
}

fn prepare(cycle: &mut Cycle<'_>) -> Prepared {
    let pod = cycle.pod;
    if pod.pod.spec.volumes.is_empty() {
        return Prepared::Skip;
    }
    let mut state = Restricted::default();
    for reference in pod.claims.iter().filter(|own| !own.ephemeral) {
        let Some(claim) = cycle.snapshot.facts.claim(pod.namespace(), &reference.name) else {
            return Prepared::Reject(format!("persistentvolumeclaim {:?} not found", reference.name));
        };
        if claim.spec.access_modes.iter().any(|mode| mode == "ReadWriteOncePod") {
            state.conflicts += i64::from(cycle.snapshot.users_of(pod.namespace(), &reference.name) > 0);
            state.claims.insert(reference.name.clone());
        }
    }
    let disks = pod.pod.spec.volumes.iter().any(|volume| is_disk(&volume.volume_source));
    if !disks && state.conflicts == 0 {
        return Prepared::Skip;
    }
    cycle.restricted = state;
    Prepared::Run
}

fn check(cycle: &Cycle<'_>, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    let pod = &cycle.pod.pod;
    if node.pods.iter().any(|other| disks_collide(pod, &other.pod)) {
        return reject(reasons, "node(s) had no available disk", Verdict::Rejected);
    }
    if cycle.restricted.conflicts > 0 {
        let reason = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use \
                      by another pod";
        return reject(reasons, reason, Verdict::Rejected);
    }
    Verdict::Fits
}

fn is_disk(source: &VolumeSource) -> bool {
    source.gce_persistent_disk.is_some()
        || source.aws_elastic_block_store.is_some()
        || source.rbd.is_some()
        || source.iscsi.is_some()
}

/// Whether two pods name the same disk, and not both only to read, where the disk allows that.
fn disks_collide(pod: &Pod, other: &Pod) -> bool {
    let own = || pod.spec.volumes.iter().map(|volume| &volume.volume_source).filter(|source| is_disk(source));
    let theirs = || other.spec.volumes.iter().map(|volume| &volume.volume_source);
    own().any(|a| theirs().any(|b| same_disk(a, b)))
}

fn same_disk(a: &VolumeSource, b: &VolumeSource) -> bool {
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk)
        && a.pd_name == b.pd_name
        && !(a.read_only && b.read_only)
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store)
        && a.volume_id == b.volume_id
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi)
        && a.iqn == b.iqn
        && !(a.read_only && b.read_only)
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&a.rbd, &b.rbd) {
        let shared = a.monitors.iter().any(|monitor| b.monitors.contains(monitor));
        return shared && a.pool == b.pool && a.image == b.image && !(a.read_only && b.read_only);
    }
    false
}

fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    match event {
        Event::PodRemoved(other) => {
            let shared = other.namespace() == pod.namespace()
                && other.claims.iter().any(|claim| pod.claims.iter().any(|own| own.name == claim.name));
            shared || disks_collide(&pod.pod, &other.pod)
        }
        Event::ClaimChanged(claim) => {
            claim.metadata.namespace == pod.namespace()
                && pod.claims.iter().any(|own| own.name == claim.metadata.name)
        }
        Event::NodeAdded(_) => true,
        _ => false,
    }
}
