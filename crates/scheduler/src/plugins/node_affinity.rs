//! NodeAffinity: `nodeSelector`, and the affinity of a pod to nodes.

use super::{Filter, Prepared, Score, Verdict, reject, to_maximum};
use crate::hints::Event;

pub const NAME: &str = "NodeAffinity";

pub const FILTER: Filter = Filter {
    name: NAME,
    prepare: |cycle| {
        let required = &cycle.pod.required_nodes;
        match &required.names {
            _ if required.is_empty() => Prepared::Skip,
            Some(names) if names.is_empty() => Prepared::Reject("pod affinity terms conflict".into()),
            Some(names) => Prepared::Only(names.clone()),
            None => Prepared::Run,
        }
    },
    check: |cycle, node, reasons| {
        if cycle.pod.required_nodes.matches(&node.node) {
            return Verdict::Fits;
        }
        reject(reasons, "node(s) didn't match Pod's node affinity/selector", Verdict::Unresolvable)
    },
    hint: |event, pod| match event {
        Event::NodeAdded(new) => pod.required_nodes.matches(new),
        Event::NodeChanged { old, new } => {
            !pod.required_nodes.matches(old) && pod.required_nodes.matches(new)
        }
        _ => false,
    },
};

pub const SCORE: Score = Score {
    name: NAME,
    weight: 2,
    prepare: |cycle, _| !cycle.pod.preferred_nodes.is_empty(),
    score: |cycle, node| {
        let terms = cycle.pod.preferred_nodes.iter();
        terms.filter(|(_, term)| term.matches(&node.node)).map(|(weight, _)| weight).sum()
    },
    normalize: |_, _, scores| to_maximum(scores),
};
