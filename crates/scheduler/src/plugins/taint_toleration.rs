//! TaintToleration: a pod stays off nodes with taints it does not tolerate, and prefers those with fewer soft ones.

use super::{Filter, Prepared, SCORE_MAX, Score, Verdict, reject, to_maximum};
use crate::hints::Event;
use crate::selectors::{is_hard, tolerated};
use api::core::v1::{Node, Toleration};

pub const NAME: &str = "TaintToleration";

pub const FILTER: Filter = Filter {
    name: NAME,
    prepare: |_| Prepared::Run,
    check: |cycle, node, reasons| {
        let tolerations = &cycle.pod.pod.spec.tolerations;
        if node.hard_taints.iter().all(|taint| tolerated(taint, tolerations)) {
            return Verdict::Fits;
        }
        reject(reasons, "node(s) had untolerated taint(s)", Verdict::Unresolvable)
    },
    hint: |event, pod| {
        let tolerations = &pod.pod.spec.tolerations;
        match event {
            Event::NodeAdded(new) => admits(new, tolerations),
            Event::NodeChanged { old, new } => !admits(old, tolerations) && admits(new, tolerations),
            Event::SelfChanged { .. } => true,
            _ => false,
        }
    },
};

fn admits(node: &Node, tolerations: &[Toleration]) -> bool {
    node.spec.taints.iter().filter(|taint| is_hard(taint)).all(|taint| tolerated(taint, tolerations))
}

pub const SCORE: Score = Score {
    name: NAME,
    weight: 3,
    prepare: |_, _| true,
    score: |cycle, node| {
        let tolerations = &cycle.pod.pod.spec.tolerations;
        node.soft_taints.iter().filter(|taint| !tolerated(taint, tolerations)).count() as i64
    },
    // The fewer the better.
    normalize: |_, _, scores| {
        to_maximum(scores);
        for score in scores {
            *score = SCORE_MAX - *score;
        }
    },
};
