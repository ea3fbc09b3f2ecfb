//! One decision under way: the pod, the cluster, and what each plugin has worked out once for all nodes.

use crate::node::NodeInfo;
use crate::plugins::{Filter, Prepared, Reasons, Verdict};
use crate::plugins::{
    image_locality, inter_pod_affinity, node_volume_limits, pod_topology_spread, volume_binding,
    volume_restrictions, volume_zone,
};
use crate::pod::PodInfo;
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use std::collections::BTreeSet;

/// The state of a decision.
#[derive(Clone)]
pub struct Cycle<'a> {
    pub snapshot: &'a Snapshot,
    pub profile: &'a Profile,
    pub pod: &'a PodInfo,
    pub(crate) spread: Option<pod_topology_spread::Hard>,
    pub(crate) affinity: Option<inter_pod_affinity::Required>,
    pub(crate) claims: volume_binding::Claims,
    pub(crate) restricted: volume_restrictions::Restricted,
    pub(crate) limited: node_volume_limits::Volumes,
    pub(crate) zones: Vec<volume_zone::Wanted>,
    pub(crate) spread_score: Option<pod_topology_spread::Soft>,
    pub(crate) affinity_score: inter_pod_affinity::Preferred,
    pub(crate) image_score: image_locality::Spread,
}

/// What the plugins say before any node is looked at.
pub(crate) struct Start {
    /// The filters that have something to say about this pod.
    pub filters: Vec<&'static Filter>,
    /// The only nodes that can fit, where plugins know them, and which plugins those are.
    pub only: Option<(BTreeSet<String>, Vec<&'static str>)>,
    pub rejection: Option<Rejection>,
}

/// No node will do.
pub(crate) struct Rejection {
    pub message: String,
    pub plugins: Vec<&'static str>,
}

impl<'a> Cycle<'a> {
    pub fn new(snapshot: &'a Snapshot, profile: &'a Profile, pod: &'a PodInfo) -> Self {
        Cycle {
            snapshot,
            profile,
            pod,
            spread: None,
            affinity: None,
            claims: Default::default(),
            restricted: Default::default(),
            limited: Default::default(),
            zones: Vec::new(),
            spread_score: None,
            affinity_score: Default::default(),
            image_score: Default::default(),
        }
    }

    /// Lets each filter prepare.
    pub(crate) fn start(&mut self) -> Start {
        let mut start = Start { filters: Vec::new(), only: None, rejection: None };
        for filter in &self.profile.filters {
            match (filter.prepare)(self) {
                Prepared::Skip => {}
                Prepared::Run => start.filters.push(filter),
                Prepared::Only(names) => {
                    start.filters.push(filter);
                    let (only, mut plugins) =
                        start.only.take().unwrap_or_else(|| (names.clone(), Vec::new()));
                    plugins.push(filter.name);
                    let both: BTreeSet<String> = only.intersection(&names).cloned().collect();
                    if both.is_empty() {
                        let message = match plugins.as_slice() {
                            [one] => format!("node(s) didn't satisfy plugin {one}"),
                            more => format!(
                                "node(s) didn't satisfy plugin(s) [{}] simultaneously",
                                more.join(" ")
                            ),
                        };
                        start.rejection = Some(Rejection { message, plugins });
                        return start;
                    }
                    start.only = Some((both, plugins));
                }
                Prepared::Reject(message) => {
                    start.rejection = Some(Rejection { message, plugins: vec![filter.name] });
                    return start;
                }
            }
        }
        start
    }

    /// Runs the filters on a node, in order, until one rejects it; its reasons are left in `reasons`. Pods nominated
    /// to the node that matter as much are counted as there: the pod must fit with them, and, as it may itself rely on
    /// none of them, without them.
    pub(crate) fn check(
        &self,
        filters: &[&'static Filter],
        node: &NodeInfo,
        reasons: &mut Reasons,
    ) -> (Verdict, &'static str) {
        if self.snapshot.has_nominations() {
            let before: Vec<_> = self
                .snapshot
                .nominated_to(node.name())
                .filter(|other| other.uid() != self.pod.uid() && other.priority() >= self.pod.priority())
                .collect();
            if !before.is_empty() {
                let (mut with, mut crowded) = (self.clone(), node.clone());
                for other in before {
                    with.change(other, &crowded, 1);
                    crowded.add(other.clone());
                }
                let outcome = with.check_once(filters, &crowded, reasons);
                if outcome.0 != Verdict::Fits {
                    return outcome;
                }
            }
        }
        self.check_once(filters, node, reasons)
    }

    fn check_once(
        &self,
        filters: &[&'static Filter],
        node: &NodeInfo,
        reasons: &mut Reasons,
    ) -> (Verdict, &'static str) {
        reasons.clear();
        for filter in filters {
            let verdict = (filter.check)(self, node, reasons);
            if verdict != Verdict::Fits {
                return (verdict, filter.name);
            }
        }
        (Verdict::Fits, "")
    }

    /// Counts a pod as come to (1) or gone from (-1) a node, where counts were worked out before.
    pub(crate) fn change(&mut self, other: &PodInfo, node: &NodeInfo, delta: i64) {
        let (pod, snapshot) = (self.pod, self.snapshot);
        self.restricted.change(pod, other, delta);
        if let Some(state) = &mut self.spread {
            state.change(pod, other, node, delta);
        }
        if let Some(state) = &mut self.affinity {
            state.change(snapshot, pod, other, node, delta);
        }
    }
}
