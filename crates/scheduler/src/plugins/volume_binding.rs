//! VolumeBinding: a pod's claims must exist and be bound, and its volumes reachable from the node.
//!
//! Absent on purpose, so far: choosing or provisioning volumes for claims whose class waits for the first consumer.
//! Such a claim keeps its pod waiting, with upstream's reason, until something else binds it.

use super::{Filter, Prepared, Reasons, Verdict, reject};
use crate::cycle::Cycle;
use crate::hints::Event;
use crate::node::NodeInfo;
use crate::pod::{ClaimReference, PodInfo};
use crate::selectors::RequiredNodes;
use api::core::v1::{Affinity, NodeAffinity, PersistentVolume, PersistentVolumeClaim, PodSpec};
use std::sync::Arc;

pub const NAME: &str = "VolumeBinding";

/// Marks a claim as bound for good, once the binder is done with it.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// A claim's class, before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub const FILTER: Filter = Filter { name: NAME, prepare, check, hint };

/// What the pod's claims come to.
#[derive(Clone, Default)]
pub(crate) struct Bound {
    /// Where each bound volume can be reached from; empty means anywhere.
    reach: Vec<RequiredNodes>,
    /// A bound claim names a volume that is not there.
    lost: bool,
    /// A claim waits for its first consumer.
    waiting: bool,
}

fn prepare(cycle: &mut Cycle<'_>) -> Prepared {
    let (pod, facts) = (cycle.pod, &cycle.snapshot.facts);
    if pod.claims.is_empty() {
        return Prepared::Skip;
    }
    let mut claims = Vec::new();
    for reference in &pod.claims {
        match usable(pod, reference, facts.claim(pod.namespace(), &reference.name)) {
            Ok(claim) => claims.push(claim.clone()),
            Err(message) => return Prepared::Reject(message),
        }
    }
    let mut state = Bound::default();
    for claim in claims {
        let bound =
            !claim.spec.volume_name.is_empty() && claim.metadata.annotations.contains_key(BIND_COMPLETED);
        if bound {
            match facts.volume(&claim.spec.volume_name) {
                Some(volume) => state.reach.push(reach(volume)),
                None => state.lost = true,
            }
        } else if claim.spec.volume_name.is_empty() && waits_for_consumer(cycle, &claim) {
            state.waiting = true;
        } else {
            return Prepared::Reject("pod has unbound immediate PersistentVolumeClaims".into());
        }
    }
    cycle.volumes = state;
    Prepared::Run
}

/// A claim that a pod can use, or upstream's words for why not.
fn usable<'a>(
    pod: &PodInfo,
    reference: &ClaimReference,
    claim: Option<&'a Arc<PersistentVolumeClaim>>,
) -> Result<&'a Arc<PersistentVolumeClaim>, String> {
    let name = &reference.name;
    let Some(claim) = claim else {
        return Err(if reference.ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    if claim.status.phase == "Lost" {
        let volume = &claim.spec.volume_name;
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let owner = || claim.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
    if reference.ephemeral && owner().is_none_or(|owner| owner.uid != pod.uid()) {
        let (namespace, pod) = (pod.namespace(), &pod.pod.metadata.name);
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        ));
    }
    Ok(claim)
}

fn waits_for_consumer(cycle: &Cycle<'_>, claim: &PersistentVolumeClaim) -> bool {
    let by_annotation = claim.metadata.annotations.get(CLASS_ANNOTATION);
    let class = by_annotation.or(claim.spec.storage_class_name.as_ref());
    let class = class.and_then(|name| cycle.snapshot.facts.class(name));
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// Which nodes can reach a volume: a volume's node affinity reads as a pod's required one.
fn reach(volume: &PersistentVolume) -> RequiredNodes {
    let required = volume.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.clone());
    let affinity = Affinity {
        node_affinity: Some(Box::new(NodeAffinity {
            required_during_scheduling_ignored_during_execution: required,
            ..Default::default()
        })),
        ..Default::default()
    };
    RequiredNodes::new(&PodSpec { affinity: Some(Box::new(affinity)), ..Default::default() })
}

fn check(cycle: &Cycle<'_>, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    let state = &cycle.volumes;
    let mut verdict = Verdict::Fits;
    if state.reach.iter().any(|reach| !reach.matches(&node.node)) {
        verdict =
            reject(reasons, "node(s) didn't match PersistentVolume's node affinity", Verdict::Unresolvable);
    }
    if state.waiting {
        let reason = "node(s) didn't find available persistent volumes to bind";
        verdict = reject(reasons, reason, Verdict::Unresolvable);
    }
    if state.lost {
        let reason = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
        verdict = reject(reasons, reason, Verdict::Unresolvable);
    }
    verdict
}

fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    match event {
        Event::ClaimChanged(claim) => {
            claim.metadata.namespace == pod.namespace()
                && pod.claims.iter().any(|reference| reference.name == claim.metadata.name)
        }
        Event::VolumeChanged | Event::ClassChanged | Event::NodeAdded(_) => true,
        Event::NodeChanged { old, new } => old.metadata.labels != new.metadata.labels,
        _ => false,
    }
}
