//! PodTopologySpread: pods of a kind spread over zones, nodes or any other topology; strictly where asked for,
//! otherwise as a preference. Pods that ask for nothing prefer to spread over nodes and zones with those that their
//! Services and controller select.

use super::{Filter, Prepared, Reasons, SCORE_MAX, Score, Verdict, reject};
use crate::cycle::Cycle;
use crate::hints::Event;
use crate::index::Topology;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::selectors::tolerated;
use api::core::v1::{Node, TopologySpreadConstraint};
use meta::labels::{Operator, Requirement, Selector};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const NAME: &str = "PodTopologySpread";

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub const FILTER: Filter = Filter { name: NAME, prepare, check, hint };
pub const SCORE: Score = Score { name: NAME, weight: 2, prepare: prepare_score, score, normalize };

/// A constraint, read.
#[derive(Clone)]
struct Constraint {
    max_skew: i64,
    min_domains: usize,
    selector: Selector,
    honor_affinity: bool,
    honor_taints: bool,
    topology: Arc<Topology>,
}

impl Constraint {
    /// `None` where its selector cannot be read.
    fn new(cycle: &Cycle<'_>, from: &TopologySpreadConstraint) -> Option<Self> {
        Some(Constraint {
            max_skew: i64::from(from.max_skew),
            min_domains: from.min_domains.unwrap_or(1).max(0) as usize,
            selector: selector(from, cycle.pod.labels())?,
            honor_affinity: from.node_affinity_policy.as_deref().unwrap_or("Honor") == "Honor",
            honor_taints: from.node_taints_policy.as_deref() == Some("Honor"),
            topology: cycle.snapshot.topology(&from.topology_key),
        })
    }

    /// Whether a node takes part: its pods are counted, and its domain may be the emptiest.
    fn counts(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honor_affinity || pod.required_nodes.matches(&node.node))
            && (!self.honor_taints
                || node.hard_taints.iter().all(|taint| tolerated(taint, &pod.pod.spec.tolerations)))
    }

    fn is_hostname(&self) -> bool {
        self.topology.key == HOSTNAME
    }
}

/// The constraint's selector, with the pod's own values of `matchLabelKeys`.
fn selector(from: &TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Option<Selector> {
    let own = api::optional_selector(from.label_selector.as_deref()).ok()?;
    let keys = from.match_label_keys.iter().filter_map(|key| Some((key, labels.get(key)?)));
    let mut requirements: Vec<Requirement> = keys
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        })
        .collect();
    if requirements.is_empty() || (own.requirements().is_empty() && !own.is_everything()) {
        return Some(own);
    }
    requirements.extend_from_slice(own.requirements());
    Some(Selector::new(requirements))
}

fn constraints(cycle: &Cycle<'_>, action: &str) -> Vec<Constraint> {
    let own = cycle.pod.pod.spec.topology_spread_constraints.iter();
    own.filter(|from| from.when_unsatisfiable == action)
        .filter_map(|from| Constraint::new(cycle, from))
        .collect()
}

/// Whether a node has a domain for every constraint.
fn has_all(constraints: &[Constraint], slot: u32) -> bool {
    constraints.iter().all(|constraint| constraint.topology.domain(slot).is_some())
}

/// How many live pods of a constraint's kind each node has, by slot.
fn per_node<'a>(cycle: &'a Cycle<'_>, selector: &'a Selector) -> impl Iterator<Item = (u32, i64)> + 'a {
    let groups = cycle.snapshot.groups.in_namespace(cycle.pod.namespace());
    groups
        .filter(|group| !selector.is_everything() && selector.matches(group.sample.labels()))
        .flat_map(|group| group.nodes.iter().map(|(slot, count)| (*slot, i64::from(count.live()))))
}

/// What strict constraints come to.
#[derive(Clone)]
pub(crate) struct Hard {
    constraints: Vec<Constraint>,
    /// For each constraint, the pods in each domain; `None` for a domain in which no node takes part.
    counts: Vec<Vec<Option<i64>>>,
    /// For each constraint, the pods in its emptiest domain.
    least: Vec<i64>,
    /// For each constraint, whether the pod itself is of its kind.
    own: Vec<i64>,
}

fn prepare(cycle: &mut Cycle<'_>) -> Prepared {
    let constraints = constraints(cycle, "DoNotSchedule");
    if constraints.is_empty() {
        return Prepared::Skip;
    }
    let own = constraints.iter().map(|one| i64::from(one.selector.matches(cycle.pod.labels()))).collect();
    let counts: Vec<_> = constraints.iter().map(|one| count_domains(cycle, &constraints, one)).collect();
    let mut state = Hard { least: vec![0; constraints.len()], constraints, counts, own };
    state.settle();
    cycle.spread = Some(state);
    Prepared::Run
}

fn count_domains(cycle: &Cycle<'_>, all: &[Constraint], one: &Constraint) -> Vec<Option<i64>> {
    // Without a say of affinity, taints or other keys every node with the label takes part: no need to ask each.
    let everyone =
        all.len() == 1 && !one.honor_taints && (!one.honor_affinity || cycle.pod.required_nodes.is_empty());
    let takes_part = |node: &NodeInfo| has_all(all, node.slot) && one.counts(cycle.pod, node);
    let mut counts = vec![everyone.then_some(0); one.topology.domains];
    if !everyone {
        for node in cycle.snapshot.nodes().filter(|node| takes_part(node)) {
            if let Some(domain) = one.topology.domain(node.slot) {
                counts[domain] = Some(0);
            }
        }
    }
    for (slot, pods) in per_node(cycle, &one.selector) {
        let Some(domain) = one.topology.domain(slot) else { continue };
        if everyone || cycle.snapshot.at(slot).is_some_and(takes_part) {
            counts[domain] = Some(counts[domain].unwrap_or(0) + pods);
        }
    }
    counts
}

impl Hard {
    fn settle(&mut self) {
        for (index, constraint) in self.constraints.iter().enumerate() {
            let known = self.counts[index].iter().flatten();
            // No domain at all: any skew is allowed, as upstream's starting value of the minimum allows it.
            let least = known.clone().copied().min().unwrap_or(i64::from(i32::MAX));
            self.least[index] = if known.count() < constraint.min_domains { 0 } else { least };
        }
    }

    pub(crate) fn change(&mut self, pod: &PodInfo, other: &PodInfo, node: &NodeInfo, delta: i64) {
        if other.namespace() != pod.namespace() || !has_all(&self.constraints, node.slot) {
            return;
        }
        for (constraint, counts) in self.constraints.iter().zip(&mut self.counts) {
            if constraint.selector.matches(other.labels())
                && constraint.counts(pod, node)
                && let Some(domain) = constraint.topology.domain(node.slot)
            {
                counts[domain] = Some(counts[domain].unwrap_or(0) + delta);
            }
        }
        self.settle();
    }
}

fn check(cycle: &Cycle<'_>, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    let Some(state) = &cycle.spread else { return Verdict::Fits };
    for (index, constraint) in state.constraints.iter().enumerate() {
        let Some(domain) = constraint.topology.domain(node.slot) else {
            return reject(reasons, NO_LABEL, Verdict::Unresolvable);
        };
        let there = state.counts[index][domain].unwrap_or(0);
        if there + state.own[index] - state.least[index] > constraint.max_skew {
            return reject(reasons, MISMATCH, Verdict::Rejected);
        }
    }
    Verdict::Fits
}

/// What preferences come to.
#[derive(Clone)]
pub(crate) struct Soft {
    constraints: Vec<Constraint>,
    /// For each constraint, pods by domain, or by slot for the hostname.
    counts: Vec<Vec<i64>>,
    /// For each constraint, what a pod weighs: more the more domains there are, or a few zones would outweigh nodes.
    weights: Vec<f64>,
    /// Nodes without all labels are left out, unless the constraints are our own defaults.
    all_required: bool,
}

impl Soft {
    fn ignores(&self, slot: u32) -> bool {
        self.all_required && !has_all(&self.constraints, slot)
    }
}

/// What pods without constraints prefer: upstream's system defaults.
fn default_constraints(cycle: &Cycle<'_>) -> Vec<Constraint> {
    let Some(selector) = cycle.snapshot.facts.default_selector(cycle.pod) else { return Vec::new() };
    let constraint = |key: &str, max_skew| Constraint {
        max_skew,
        min_domains: 1,
        selector: selector.clone(),
        honor_affinity: true,
        honor_taints: false,
        topology: cycle.snapshot.topology(key),
    };
    vec![constraint(HOSTNAME, 3), constraint(ZONE, 5)]
}

fn prepare_score(cycle: &mut Cycle<'_>, nodes: &[&NodeInfo]) -> bool {
    let all_required = !cycle.pod.pod.spec.topology_spread_constraints.is_empty();
    let constraints =
        if all_required { constraints(cycle, "ScheduleAnyway") } else { default_constraints(cycle) };
    if constraints.is_empty() {
        return false;
    }
    let mut state = Soft { constraints, counts: Vec::new(), weights: Vec::new(), all_required };
    let scored: Vec<u32> = nodes.iter().map(|node| node.slot).filter(|slot| !state.ignores(*slot)).collect();
    for constraint in &state.constraints {
        let (counts, domains) = if constraint.is_hostname() {
            let mut counts = vec![0; cycle.snapshot.slots()];
            for (slot, pods) in per_node(cycle, &constraint.selector) {
                counts[slot as usize] += pods;
            }
            (counts, scored.len())
        } else {
            // Nodes without the label make one domain more, which only our own defaults can meet.
            let domains: BTreeSet<_> = scored.iter().map(|slot| constraint.topology.domain(*slot)).collect();
            (count_preferred(cycle, &state, constraint, &domains), domains.len())
        };
        state.counts.push(counts);
        state.weights.push(((domains + 2) as f64).ln());
    }
    cycle.spread_score = Some(state);
    true
}

fn count_preferred(
    cycle: &Cycle<'_>,
    state: &Soft,
    constraint: &Constraint,
    domains: &BTreeSet<Option<usize>>,
) -> Vec<i64> {
    let mut counts = vec![0; constraint.topology.domains];
    let everyone =
        !constraint.honor_taints && (!constraint.honor_affinity || cycle.pod.required_nodes.is_empty());
    for (slot, pods) in per_node(cycle, &constraint.selector) {
        let domain = constraint.topology.domain(slot);
        let (Some(at), true) = (domain, domains.contains(&domain)) else { continue };
        let counted =
            everyone || cycle.snapshot.at(slot).is_some_and(|node| constraint.counts(cycle.pod, node));
        if counted && !state.ignores(slot) {
            counts[at] += pods;
        }
    }
    counts
}

fn score(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let Some(state) = &cycle.spread_score else { return 0 };
    if state.ignores(node.slot) {
        return 0;
    }
    let mut sum = 0.0;
    for (index, constraint) in state.constraints.iter().enumerate() {
        if let Some(domain) = constraint.topology.domain(node.slot) {
            let at = if constraint.is_hostname() { node.slot as usize } else { domain };
            sum += state.counts[index][at] as f64 * state.weights[index] + (constraint.max_skew - 1) as f64;
        }
    }
    f64::round(sum) as i64
}

/// The fewer pods the better.
fn normalize(cycle: &Cycle<'_>, nodes: &[&NodeInfo], scores: &mut [i64]) {
    let Some(state) = &cycle.spread_score else { return };
    let ignored: Vec<bool> = nodes.iter().map(|node| state.ignores(node.slot)).collect();
    let counted = || scores.iter().zip(&ignored).filter(|(_, ignored)| !**ignored).map(|(score, _)| *score);
    let (least, most) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0).max(0));
    for (score, ignored) in scores.iter_mut().zip(&ignored) {
        *score = match (ignored, most) {
            (true, _) => 0,
            (false, 0) => SCORE_MAX,
            (false, most) => SCORE_MAX * (most + least - *score) / most,
        };
    }
}

/// Whether a pod waiting for a better spread may fit now.
fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    let strict = || {
        let own = pod.pod.spec.topology_spread_constraints.iter();
        own.filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
    };
    let selects = |other: &PodInfo| {
        other.namespace() == pod.namespace()
            && strict().any(|one| selector(one, pod.labels()).is_some_and(|own| own.matches(other.labels())))
    };
    let has_keys = |node: &Node| strict().all(|one| node.metadata.labels.contains_key(&one.topology_key));
    match event {
        Event::PodPlaced(other) | Event::PodRemoved(other) => selects(other),
        Event::PodChanged { old, new } => {
            old.labels() != new.labels() && selects(old) != selects(new)
                || old.is_terminating() != new.is_terminating() && selects(new)
        }
        Event::SelfChanged { .. } => true,
        Event::NodeAdded(node) | Event::NodeRemoved(node) => has_keys(node),
        Event::NodeChanged { old, new } => {
            let moved = strict().any(|one| {
                old.metadata.labels.get(&one.topology_key) != new.metadata.labels.get(&one.topology_key)
            });
            has_keys(old) != has_keys(new) || has_keys(new) && (moved || old.spec.taints != new.spec.taints)
        }
        _ => false,
    }
}
