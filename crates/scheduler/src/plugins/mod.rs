//! The plugins: two tables, a file each. Names, reasons, order and weights are those of upstream's default profile.

pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources;
pub mod node_unschedulable;
pub mod node_volume_limits;
pub mod pod_topology_spread;
pub mod scheduling_gates;
pub mod taint_toleration;
pub mod volume_binding;
pub mod volume_restrictions;
pub mod volume_zone;

use crate::cycle::Cycle;
use crate::hints::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The best score, to which plugins scale theirs.
pub const SCORE_MAX: i64 = 100;

/// Why a node was rejected, in upstream's words.
pub type Reasons = Vec<Cow<'static, str>>;

/// What a filter says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// Fewer pods on the node could help.
    Rejected,
    /// Nothing that preemption does could help.
    Unresolvable,
}

/// What a filter says before any node is looked at.
pub enum Prepared {
    Run,
    /// It has nothing to say about this pod.
    Skip,
    /// It runs, and only these nodes can fit.
    Only(BTreeSet<String>),
    /// No node can fit, with the reason.
    Reject(String),
}

/// A plugin that rules nodes out.
pub struct Filter {
    pub name: &'static str,
    pub prepare: fn(&mut Cycle<'_>) -> Prepared,
    pub check: fn(&Cycle<'_>, &NodeInfo, &mut Reasons) -> Verdict,
    /// Whether an event may make a pod fit that this plugin has rejected.
    pub hint: fn(&Event<'_>, &PodInfo) -> bool,
}

/// A plugin that compares nodes.
pub struct Score {
    pub name: &'static str,
    pub weight: i64,
    /// Works out what it needs over the feasible nodes; `false` where it has nothing to say about this pod.
    pub prepare: fn(&mut Cycle<'_>, &[&NodeInfo]) -> bool,
    pub score: fn(&Cycle<'_>, &NodeInfo) -> i64,
    /// Scales the raw scores (in the order of the nodes) to 0..=[`SCORE_MAX`].
    pub normalize: fn(&Cycle<'_>, &[&NodeInfo], &mut [i64]),
}

pub static FILTERS: [Filter; 12] = [
    node_unschedulable::FILTER,
    node_name::FILTER,
    taint_toleration::FILTER,
    node_affinity::FILTER,
    node_ports::FILTER,
    node_resources::FILTER,
    volume_restrictions::FILTER,
    node_volume_limits::FILTER,
    volume_binding::FILTER,
    volume_zone::FILTER,
    pod_topology_spread::FILTER,
    inter_pod_affinity::FILTER,
];

pub static SCORES: [Score; 7] = [
    taint_toleration::SCORE,
    node_affinity::SCORE,
    node_resources::LEAST_ALLOCATED,
    pod_topology_spread::SCORE,
    inter_pod_affinity::SCORE,
    node_resources::BALANCED,
    image_locality::SCORE,
];

pub(crate) fn reject(reasons: &mut Reasons, reason: &'static str, verdict: Verdict) -> Verdict {
    reasons.push(Cow::Borrowed(reason));
    verdict
}

pub(crate) fn as_is(_: &Cycle<'_>, _: &[&NodeInfo], _: &mut [i64]) {}

/// Scales so that the largest becomes [`SCORE_MAX`].
pub(crate) fn to_maximum(scores: &mut [i64]) {
    let most = scores.iter().copied().max().unwrap_or(0);
    if most > 0 {
        for score in scores {
            *score = SCORE_MAX * *score / most;
        }
    }
}
