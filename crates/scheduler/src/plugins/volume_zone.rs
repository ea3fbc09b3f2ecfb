//! VolumeZone: a bound volume that says in which zone or region it is wants a node there.

use super::{Filter, Prepared, Reasons, Verdict, reject};
use crate::cycle::Cycle;
use crate::hints::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use std::collections::BTreeSet;

pub const NAME: &str = "VolumeZone";

/// The labels of old, and what they are called now.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
/// Between the zones of a volume that is in several.
const SEPARATOR: &str = "__";

pub const FILTER: Filter = Filter { name: NAME, prepare, check, hint };

/// A label that a volume has, its newer name, and the values that suit.
#[derive(Clone)]
pub(crate) struct Wanted {
    key: &'static str,
    newer: &'static str,
    values: BTreeSet<String>,
}

fn prepare(cycle: &mut Cycle<'_>) -> Prepared {
    let (pod, facts) = (cycle.pod, &cycle.snapshot.facts);
    let mut zones = Vec::new();
    for reference in pod.claims.iter().filter(|own| !own.ephemeral) {
        let Some(claim) = facts.claim(pod.namespace(), &reference.name) else {
            return Prepared::Reject(format!("persistentvolumeclaim {:?} not found", reference.name));
        };
        // Claims without a volume are for VolumeBinding to speak about.
        let Some(volume) = facts.volume(&claim.spec.volume_name) else { continue };
        for (key, newer) in LABELS {
            if let Some(value) = volume.metadata.labels.get(key) {
                let values = value.split(SEPARATOR).map(|zone| zone.trim().to_string()).collect();
                zones.push(Wanted { key, newer, values });
            }
        }
    }
    if zones.is_empty() {
        return Prepared::Skip;
    }
    cycle.zones = zones;
    Prepared::Run
}

fn check(cycle: &Cycle<'_>, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    // A node without any such label is in a cluster of one zone.
    if LABELS.iter().all(|(key, _)| node.label(key).is_none()) {
        return Verdict::Fits;
    }
    let fits = cycle.zones.iter().all(|wanted| {
        let value = node.label(wanted.key).or_else(|| node.label(wanted.newer));
        value.is_some_and(|value| wanted.values.contains(value))
    });
    if fits {
        return Verdict::Fits;
    }
    reject(reasons, "node(s) had no available volume zone", Verdict::Unresolvable)
}

fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    match event {
        Event::ClaimChanged(claim) => {
            claim.metadata.namespace == pod.namespace()
                && pod.claims.iter().any(|own| own.name == claim.metadata.name)
        }
        Event::NodeChanged { old, new } => old.metadata.labels != new.metadata.labels,
        Event::VolumeChanged | Event::ClassChanged | Event::NodeAdded(_) => true,
        _ => false,
    }
}
