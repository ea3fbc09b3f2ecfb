//! NodeVolumeLimits: no more volumes of a CSI driver on a node than the driver has said that the node takes.

use super::{Filter, Prepared, Reasons, Verdict, reject};
use crate::cycle::Cycle;
use crate::facts::Facts;
use crate::hints::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use std::collections::{BTreeMap, BTreeSet};

pub const NAME: &str = "NodeVolumeLimits";

pub const FILTER: Filter = Filter { name: NAME, prepare, check, hint };

/// The pod's volumes by driver: handles, or the claim's name for a volume that is yet to be made.
pub(crate) type Volumes = BTreeSet<(String, String)>;

fn prepare(cycle: &mut Cycle<'_>) -> Prepared {
    let (pod, facts) = (cycle.pod, &cycle.snapshot.facts);
    if pod.claims.is_empty() || !facts.has_volume_limits() {
        return Prepared::Skip;
    }
    let volumes = volumes_of(facts, pod);
    if volumes.is_empty() {
        return Prepared::Skip;
    }
    cycle.limited = volumes;
    Prepared::Run
}

fn volumes_of(facts: &Facts, pod: &PodInfo) -> Volumes {
    let mut out = Volumes::new();
    for reference in &pod.claims {
        let Some(claim) = facts.claim(pod.namespace(), &reference.name) else { continue };
        match facts.volume(&claim.spec.volume_name) {
            Some(volume) => {
                if let Some(csi) = &volume.spec.persistent_volume_source.csi {
                    out.insert((csi.driver.clone(), csi.volume_handle.clone()));
                }
            }
            None => {
                if let Some(class) = facts.class(volumes::class_of_claim(claim)) {
                    let name = format!("{}/{}", pod.namespace(), reference.name);
                    out.insert((class.provisioner.clone(), name));
                }
            }
        }
    }
    out
}

fn check(cycle: &Cycle<'_>, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    let facts = &cycle.snapshot.facts;
    let Some(limits) = facts.volume_limits(node.name()) else { return Verdict::Fits };
    let mut there = facts.attached(node.name());
    for other in &node.pods {
        there.extend(volumes_of(facts, other));
    }
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for (driver, _) in there.union(&cycle.limited) {
        *counts.entry(driver).or_default() += 1;
    }
    let full =
        cycle.limited.iter().filter(|own| !there.contains(*own)).any(|(driver, _)| {
            limits.get(driver).is_some_and(|limit| counts.get(driver.as_str()) > Some(limit))
        });
    if full {
        return reject(reasons, "node(s) exceed max volume count", Verdict::Rejected);
    }
    Verdict::Fits
}

fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    match event {
        Event::PodRemoved(other) => !other.claims.is_empty(),
        Event::ClaimChanged(claim) => {
            claim.metadata.namespace == pod.namespace()
                && pod.claims.iter().any(|own| own.name == claim.metadata.name)
        }
        Event::LimitsChanged | Event::AttachmentRemoved | Event::VolumeChanged | Event::NodeAdded(_) => true,
        _ => false,
    }
}
