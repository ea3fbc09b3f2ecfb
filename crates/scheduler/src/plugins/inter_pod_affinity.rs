//! InterPodAffinity: pods near or far from other pods, as they or the others state it.

use super::{Filter, Prepared, Reasons, SCORE_MAX, Score, Verdict, reject};
use crate::cycle::Cycle;
use crate::hints::Event;
use crate::index::{Group, Topology};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Term};
use crate::snapshot::Snapshot;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const NAME: &str = "InterPodAffinity";

pub const FILTER: Filter = Filter { name: NAME, prepare, check, hint };
pub const SCORE: Score = Score { name: NAME, weight: 2, prepare: prepare_score, score, normalize };

/// Counts by domain, for each topology key.
#[derive(Clone, Default)]
struct Counts {
    keys: Vec<(Arc<Topology>, Vec<i64>)>,
}

impl Counts {
    fn of(&mut self, snapshot: &Snapshot, key: &str) -> &mut (Arc<Topology>, Vec<i64>) {
        if let Some(at) = self.keys.iter().position(|(topology, _)| topology.key == key) {
            return &mut self.keys[at];
        }
        let topology = snapshot.topology(key);
        let counts = vec![0; topology.domains];
        self.keys.push((topology, counts));
        self.keys.last_mut().expect("one was pushed")
    }

    fn add(&mut self, snapshot: &Snapshot, key: &str, slot: u32, amount: i64) {
        let (topology, counts) = self.of(snapshot, key);
        if let Some(domain) = topology.domain(slot) {
            counts[domain] += amount;
        }
    }

    fn add_group(&mut self, snapshot: &Snapshot, key: &str, group: &Group, weight: i64) {
        let (topology, counts) = self.of(snapshot, key);
        for (slot, count) in &group.nodes {
            if let Some(domain) = topology.domain(*slot) {
                counts[domain] += weight * i64::from(count.all);
            }
        }
    }

    /// The count in a node's domain of a key; `None` where the node has none.
    fn at(&self, key: &str, slot: u32) -> Option<i64> {
        let (topology, counts) = self.keys.iter().find(|(topology, _)| topology.key == key)?;
        Some(counts[topology.domain(slot)?])
    }

    /// Whether no domain counts anything.
    fn is_zero(&self) -> bool {
        self.keys.iter().all(|(_, counts)| counts.iter().all(|count| *count == 0))
    }
}

/// What required terms come to.
#[derive(Clone, Default)]
pub(crate) struct Required {
    /// Pods that match all of this pod's affinity terms.
    near: Counts,
    /// Pods that match any of its anti-affinity terms.
    far: Counts,
    /// Anti-affinity terms of placed pods that match this pod.
    existing: Counts,
}

fn matches_all(terms: &[Term], pod: &PodInfo, namespace_labels: &BTreeMap<String, String>) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(pod, namespace_labels))
}

fn prepare(cycle: &mut Cycle<'_>) -> Prepared {
    let (pod, snapshot) = (cycle.pod, cycle.snapshot);
    let own = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
    if !own && !snapshot.groups.has_anti_affine() {
        return Prepared::Skip;
    }
    let mut state = Required::default();
    let labels = snapshot.facts.namespace_labels(pod.namespace());
    for group in snapshot.groups.affine() {
        for term in group.sample.anti_affinity.iter().filter(|term| term.matches(pod, labels)) {
            state.existing.add_group(snapshot, &term.topology_key, group, 1);
        }
    }
    if own {
        state.count_own(snapshot, pod);
    } else if state.existing.is_zero() {
        return Prepared::Skip;
    }
    cycle.affinity = Some(state);
    Prepared::Run
}

impl Required {
    fn count_own(&mut self, snapshot: &Snapshot, pod: &PodInfo) {
        // Each key is there even where nothing matches, so that a node's domain can be asked for.
        for term in &pod.affinity {
            self.near.of(snapshot, &term.topology_key);
        }
        for (namespace, groups) in snapshot.groups.by_namespace() {
            let labels = snapshot.facts.namespace_labels(namespace);
            let near = !pod.affinity.is_empty()
                && pod.affinity.iter().all(|term| term.selects_namespace(namespace, labels));
            let far: Vec<&Term> =
                pod.anti_affinity.iter().filter(|term| term.selects_namespace(namespace, labels)).collect();
            if !near && far.is_empty() {
                continue;
            }
            for group in groups {
                let labels = group.sample.labels();
                if near && pod.affinity.iter().all(|term| term.selects_labels(labels)) {
                    for term in &pod.affinity {
                        self.near.add_group(snapshot, &term.topology_key, group, 1);
                    }
                }
                for term in far.iter().filter(|term| term.selects_labels(labels)) {
                    self.far.add_group(snapshot, &term.topology_key, group, 1);
                }
            }
        }
    }

    pub(crate) fn change(
        &mut self,
        snapshot: &Snapshot,
        pod: &PodInfo,
        other: &PodInfo,
        node: &NodeInfo,
        delta: i64,
    ) {
        let labels_of = |pod: &PodInfo| snapshot.facts.namespace_labels(pod.namespace());
        for term in other.anti_affinity.iter().filter(|term| term.matches(pod, labels_of(pod))) {
            self.existing.add(snapshot, &term.topology_key, node.slot, delta);
        }
        if matches_all(&pod.affinity, other, labels_of(other)) {
            for term in &pod.affinity {
                self.near.add(snapshot, &term.topology_key, node.slot, delta);
            }
        }
        for term in pod.anti_affinity.iter().filter(|term| term.matches(other, labels_of(other))) {
            self.far.add(snapshot, &term.topology_key, node.slot, delta);
        }
    }
}

fn check(cycle: &Cycle<'_>, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    let Some(state) = &cycle.affinity else { return Verdict::Fits };
    let pod = cycle.pod;
    let mut near = true;
    for term in &pod.affinity {
        match state.near.at(&term.topology_key, node.slot) {
            None => return reject(reasons, "node(s) didn't match pod affinity rules", Verdict::Unresolvable),
            Some(count) => near &= count > 0,
        }
    }
    if !near {
        // The first of pods that want to be near each other has nobody to be near yet.
        let labels = cycle.snapshot.facts.namespace_labels(pod.namespace());
        let first = state.near.is_zero() && matches_all(&pod.affinity, pod, labels);
        if !first {
            return reject(reasons, "node(s) didn't match pod affinity rules", Verdict::Unresolvable);
        }
    }
    let near_disliked =
        |term: &Term| state.far.at(&term.topology_key, node.slot).is_some_and(|count| count > 0);
    if pod.anti_affinity.iter().any(near_disliked) {
        return reject(reasons, "node(s) didn't match pod anti-affinity rules", Verdict::Rejected);
    }
    let disliked = |(topology, counts): &(Arc<Topology>, Vec<i64>)| {
        topology.domain(node.slot).is_some_and(|domain| counts[domain] > 0)
    };
    if state.existing.keys.iter().any(disliked) {
        return reject(
            reasons,
            "node(s) didn't satisfy existing pods anti-affinity rules",
            Verdict::Rejected,
        );
    }
    Verdict::Fits
}

/// What preferences come to: weight by domain, for each topology key.
#[derive(Clone, Default)]
pub(crate) struct Preferred {
    weights: Counts,
}

fn prepare_score(cycle: &mut Cycle<'_>, _: &[&NodeInfo]) -> bool {
    let (pod, snapshot) = (cycle.pod, cycle.snapshot);
    let mut weights = Counts::default();
    let own: Vec<(i64, &Term)> = (pod.preferred_affinity.iter().map(|(weight, term)| (*weight, term)))
        .chain(pod.preferred_anti_affinity.iter().map(|(weight, term)| (-weight, term)))
        .collect();
    if !own.is_empty() {
        for (namespace, groups) in snapshot.groups.by_namespace() {
            let labels = snapshot.facts.namespace_labels(namespace);
            let own: Vec<_> =
                own.iter().filter(|(_, term)| term.selects_namespace(namespace, labels)).collect();
            if own.is_empty() {
                continue;
            }
            for group in groups {
                for (weight, term) in
                    own.iter().filter(|(_, term)| term.selects_labels(group.sample.labels()))
                {
                    weights.add_group(snapshot, &term.topology_key, group, *weight);
                }
            }
        }
    }
    let labels = snapshot.facts.namespace_labels(pod.namespace());
    let hard = cycle.profile.hard_pod_affinity_weight;
    for group in snapshot.groups.affine() {
        let theirs = &group.sample;
        let terms = (theirs.affinity.iter().map(|term| (hard, term)))
            .chain(theirs.preferred_affinity.iter().map(|(weight, term)| (*weight, term)))
            .chain(theirs.preferred_anti_affinity.iter().map(|(weight, term)| (-weight, term)));
        for (weight, term) in terms.filter(|(weight, term)| *weight != 0 && term.matches(pod, labels)) {
            weights.add_group(snapshot, &term.topology_key, group, weight);
        }
    }
    let any = !weights.keys.is_empty();
    cycle.affinity_score = Preferred { weights };
    any
}

fn score(cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
    let weights = cycle.affinity_score.weights.keys.iter();
    weights.filter_map(|(topology, counts)| Some(counts[topology.domain(node.slot)?])).sum()
}

/// Stretches least to most over the whole scale.
fn normalize(_: &Cycle<'_>, _: &[&NodeInfo], scores: &mut [i64]) {
    let least = scores.iter().copied().min().unwrap_or(0);
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let share = if most > least { (*score - least) as f64 / (most - least) as f64 } else { 0.0 };
        *score = (SCORE_MAX as f64 * share) as i64;
    }
}

/// Whether a waiting pod may fit now. Namespace labels are not at hand here: a term with a namespace selector is taken
/// to select every namespace, so the answer errs only toward trying again.
fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    let may = |term: &Term, other: &PodInfo| term.may_match(other);
    let near = |other: &PodInfo| !pod.affinity.is_empty() && pod.affinity.iter().all(|term| may(term, other));
    let far = |other: &PodInfo| pod.anti_affinity.iter().any(|term| may(term, other));
    match event {
        Event::PodPlaced(other) => near(other),
        Event::PodRemoved(other) => far(other) || other.anti_affinity.iter().any(|term| may(term, pod)),
        Event::PodChanged { old, new } => {
            old.labels() != new.labels() && (!near(old) && near(new) || far(old) && !far(new))
        }
        Event::SelfChanged { .. } => true,
        Event::NodeAdded(node) => {
            !pod.anti_affinity.is_empty()
                || pod.affinity.iter().any(|term| node.metadata.labels.contains_key(&term.topology_key))
        }
        Event::NodeChanged { old, new } => {
            let moved = |term: &Term| {
                old.metadata.labels.get(&term.topology_key) != new.metadata.labels.get(&term.topology_key)
            };
            let here = |term: &&Term| new.metadata.labels.contains_key(&term.topology_key);
            let there = |term: &&Term| old.metadata.labels.contains_key(&term.topology_key);
            pod.affinity.iter().filter(here).any(moved) || pod.anti_affinity.iter().filter(there).any(moved)
                // The pod may be kept away by others' terms, over keys that it does not know.
                || pod.affinity.is_empty() && pod.anti_affinity.is_empty()
                    && old.metadata.labels != new.metadata.labels
        }
        _ => false,
    }
}
