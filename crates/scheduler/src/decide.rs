//! The decision: which node a pod goes to, or why to none.

use crate::cycle::Cycle;
use crate::diagnosis::{Histogram, ruled_out};
use crate::node::NodeInfo;
use crate::plugins::{Filter, Reasons, Score, Verdict};
use crate::pod::PodInfo;
use crate::preemption;
use crate::profile::Profile;
use crate::snapshot::Snapshot;
use std::borrow::Cow;
use std::sync::Arc;

/// Where to begin and how to choose among equals: passed in, so that a decision is a function of its arguments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// How many nodes to pass over. A caller adds up [`Decision::evaluated`], so that all nodes get their turn.
    pub start: usize,
    /// A random number.
    pub tie: u64,
}

/// What became of a pod.
#[derive(Debug)]
pub enum Decision {
    Bind {
        node: String,
        /// How many nodes were looked at, and how many of them would do.
        evaluated: usize,
        feasible: usize,
    },
    Unschedulable(Unschedulable),
    /// No node has room, but one will once these pods have gone from it.
    Nominate {
        node: String,
        victims: Vec<Arc<PodInfo>>,
        why: Unschedulable,
    },
}

/// Why a pod fits nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unschedulable {
    /// Upstream's message.
    pub message: String,
    /// The plugins that rejected nodes: what may help is theirs to say.
    pub plugins: Vec<&'static str>,
    pub evaluated: usize,
    /// The pod's earlier nomination no longer stands.
    pub clear_nomination: bool,
}

impl Decision {
    pub fn evaluated(&self) -> usize {
        match self {
            Decision::Bind { evaluated, .. } => *evaluated,
            Decision::Unschedulable(why) | Decision::Nominate { why, .. } => why.evaluated,
        }
    }
}

/// Nodes that fit, and what the others said.
struct Search<'a> {
    feasible: Vec<&'a NodeInfo>,
    histogram: Histogram,
    rejected: usize,
    /// Nodes that could fit with fewer pods.
    resolvable: Vec<&'a NodeInfo>,
    plugins: Vec<&'static str>,
}

/// Decides for one pod.
pub fn decide(snapshot: &Snapshot, profile: &Profile, pod: &PodInfo, turn: Turn) -> Decision {
    let nodes = snapshot.len();
    if nodes == 0 {
        return Decision::Unschedulable(Unschedulable {
            message: "no nodes available to schedule pods".into(),
            plugins: Vec::new(),
            evaluated: 0,
            clear_nomination: false,
        });
    }
    let mut cycle = Cycle::new(snapshot, profile, pod);
    let start = cycle.start();
    if let Some(rejection) = start.rejection {
        let message = ruled_out(nodes, &rejection.message);
        return unschedulable(&cycle, &start.filters, message, rejection.plugins, 0, &[], turn);
    }
    if let Some(node) = snapshot.nominated_node(pod.uid()).and_then(|name| snapshot.node(name)) {
        // The node that was made room on is most likely the only one that fits: it is asked first.
        if cycle.check(&start.filters, node, &mut Vec::new()).0 == Verdict::Fits {
            return Decision::Bind { node: node.name().into(), evaluated: 1, feasible: 1 };
        }
    }
    let search = match &start.only {
        None => search(&cycle, &start.filters, turn),
        Some((names, plugins)) => {
            let mut search = Search::new();
            for node in names.iter().filter_map(|name| snapshot.node(name)) {
                search.look(&cycle, &start.filters, node, &mut Vec::new());
            }
            let rest = nodes - search.rejected - search.feasible.len();
            let reason = format!("node(s) didn't satisfy plugin(s) [{}]", plugins.join(" "));
            search.histogram.add(Cow::Owned(reason), rest);
            for plugin in plugins {
                search.note(plugin);
            }
            search
        }
    };
    let (evaluated, feasible) = (search.rejected + search.feasible.len(), search.feasible.len());
    match search.feasible.as_slice() {
        [] => {
            let message = search.histogram.message(nodes);
            unschedulable(
                &cycle,
                &start.filters,
                message,
                search.plugins,
                evaluated,
                &search.resolvable,
                turn,
            )
        }
        [one] => Decision::Bind { node: one.name().into(), evaluated, feasible },
        several => {
            let node = best(&mut cycle, several, turn.tie);
            Decision::Bind { node: node.name().into(), evaluated, feasible }
        }
    }
}

impl<'a> Search<'a> {
    fn new() -> Self {
        Search {
            feasible: Vec::new(),
            histogram: Histogram::default(),
            rejected: 0,
            resolvable: Vec::new(),
            plugins: Vec::new(),
        }
    }

    fn note(&mut self, plugin: &'static str) {
        if !self.plugins.contains(&plugin) {
            self.plugins.push(plugin);
        }
    }

    fn look(
        &mut self,
        cycle: &Cycle<'_>,
        filters: &[&'static Filter],
        node: &'a NodeInfo,
        reasons: &mut Reasons,
    ) {
        let (verdict, plugin) = cycle.check(filters, node, reasons);
        if verdict == Verdict::Fits {
            self.feasible.push(node);
            return;
        }
        self.rejected += 1;
        self.histogram.count(reasons);
        self.note(plugin);
        if verdict == Verdict::Rejected {
            self.resolvable.push(node);
        }
    }
}

/// Looks at nodes from the turn's start until enough fit.
fn search<'a>(cycle: &Cycle<'a>, filters: &[&'static Filter], turn: Turn) -> Search<'a> {
    let order = cycle.snapshot.order();
    let enough = cycle.profile.nodes_to_find(order.len());
    let (before, from) = order.split_at(turn.start % order.len());
    let (mut search, mut reasons) = (Search::new(), Reasons::new());
    for slot in from.iter().chain(before) {
        if search.feasible.len() >= enough {
            break;
        }
        if let Some(node) = cycle.snapshot.at(*slot) {
            search.look(cycle, filters, node, &mut reasons);
        }
    }
    search
}

/// Asks whether preemption helps, and words the refusal.
fn unschedulable(
    cycle: &Cycle<'_>,
    filters: &[&'static Filter],
    message: String,
    plugins: Vec<&'static str>,
    evaluated: usize,
    resolvable: &[&NodeInfo],
    turn: Turn,
) -> Decision {
    let mut why = Unschedulable { message, plugins, evaluated, clear_nomination: false };
    if !cycle.profile.preemption {
        return Decision::Unschedulable(why);
    }
    match preemption::attempt(cycle, filters, resolvable, turn.tie) {
        preemption::Outcome::Found { node, victims } => Decision::Nominate { node, victims, why },
        preemption::Outcome::Refused { message, clear_nomination } => {
            // Upstream's dynamic resources come before preemption and always have their word.
            why.message.push_str(&format!(" no new claims to deallocate, preemption: {message}"));
            why.clear_nomination = clear_nomination;
            Decision::Unschedulable(why)
        }
    }
}

/// Each plugin's scaled score of each node, in the profile's order; `None` for a plugin without a say.
pub(crate) fn scores(
    cycle: &mut Cycle<'_>,
    nodes: &[&NodeInfo],
) -> Vec<(&'static Score, i64, Option<Vec<i64>>)> {
    let profile = cycle.profile;
    let mut out = Vec::with_capacity(profile.scores.len());
    for (score, weight) in &profile.scores {
        let scaled = (score.prepare)(cycle, nodes).then(|| {
            let mut raw: Vec<i64> = nodes.iter().map(|node| (score.score)(cycle, node)).collect();
            (score.normalize)(cycle, nodes, &mut raw);
            raw
        });
        out.push((*score, *weight, scaled));
    }
    out
}

/// The node with the highest sum of weighted scores; among equals the tie decides.
fn best<'a>(cycle: &mut Cycle<'_>, nodes: &[&'a NodeInfo], tie: u64) -> &'a NodeInfo {
    let mut totals = vec![0_i64; nodes.len()];
    for (_, weight, scaled) in scores(cycle, nodes) {
        for (total, score) in totals.iter_mut().zip(scaled.iter().flatten()) {
            *total += weight * score;
        }
    }
    let most = totals.iter().copied().max().unwrap_or(0);
    let equals: Vec<usize> = (0..nodes.len()).filter(|at| totals[*at] == most).collect();
    nodes[equals[(tie % equals.len() as u64) as usize]]
}
