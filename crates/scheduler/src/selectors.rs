//! What a pod says about nodes: required and preferred terms, and which taints it tolerates.

use api::core::v1::{Node, NodeSelectorTerm, PodSpec, Taint, Toleration};
use meta::labels::{Operator, Requirement, Selector};
use std::collections::BTreeSet;

/// The only field of a node that terms may name.
const NAME_FIELD: &str = "metadata.name";

/// One term: all its requirements must hold.
#[derive(Debug, Clone)]
pub struct NodeTerm {
    /// `None` where it could not be read: such a term matches nothing (upstream's leniency toward old objects).
    parsed: Option<Parsed>,
}

#[derive(Debug, Clone)]
struct Parsed {
    labels: Selector,
    /// Required name (`true`) or excluded name.
    names: Vec<(bool, String)>,
}

impl NodeTerm {
    /// `None` for an empty term, which selects nothing.
    fn new(term: &NodeSelectorTerm) -> Option<Self> {
        (!term.match_expressions.is_empty() || !term.match_fields.is_empty())
            .then(|| NodeTerm { parsed: Self::parse(term) })
    }

    fn parse(term: &NodeSelectorTerm) -> Option<Parsed> {
        let mut requirements = Vec::new();
        for wanted in &term.match_expressions {
            let operator = match wanted.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                "Gt" => Operator::GreaterThan,
                "Lt" => Operator::LessThan,
                _ => return None,
            };
            requirements.push(Requirement::new(&wanted.key, operator, wanted.values.clone()).ok()?);
        }
        let mut names = Vec::new();
        for wanted in &term.match_fields {
            let [name] = wanted.values.as_slice() else { return None };
            match wanted.operator.as_str() {
                "In" if wanted.key == NAME_FIELD => names.push((true, name.clone())),
                "NotIn" if wanted.key == NAME_FIELD => names.push((false, name.clone())),
                _ => return None,
            }
        }
        Some(Parsed { labels: Selector::new(requirements), names })
    }

    pub fn matches(&self, node: &Node) -> bool {
        self.parsed.as_ref().is_some_and(|parsed| {
            parsed.labels.matches(&node.metadata.labels)
                && parsed.names.iter().all(|(wanted, name)| (*name == node.metadata.name) == *wanted)
        })
    }
}

/// `nodeSelector` and the required half of the node affinity together.
#[derive(Debug, Clone, Default)]
pub struct RequiredNodes {
    selector: Option<Selector>,
    /// Any of them suffices; `None` where the pod has no such affinity.
    terms: Option<Vec<NodeTerm>>,
    /// The only nodes that could match, where every term names its nodes.
    pub names: Option<BTreeSet<String>>,
}

impl RequiredNodes {
    pub fn new(spec: &PodSpec) -> Self {
        let selector = (!spec.node_selector.is_empty()).then(|| Selector::from_map(&spec.node_selector));
        let affinity = spec.affinity.as_ref().and_then(|own| own.node_affinity.as_ref());
        let required =
            affinity.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
        let Some(required) = required else { return RequiredNodes { selector, ..Default::default() } };
        let terms = &required.node_selector_terms;
        let named: Option<Vec<BTreeSet<String>>> = terms.iter().map(named).collect();
        RequiredNodes {
            selector,
            names: named.filter(|sets| !sets.is_empty()).map(|sets| sets.into_iter().flatten().collect()),
            terms: Some(terms.iter().filter_map(NodeTerm::new).collect()),
        }
    }

    /// Whether the pod says nothing about nodes.
    pub fn is_empty(&self) -> bool {
        self.selector.is_none() && self.terms.is_none()
    }

    pub fn matches(&self, node: &Node) -> bool {
        self.selector.as_ref().is_none_or(|selector| selector.matches(&node.metadata.labels))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }
}

/// The names a term requires, `None` where it requires none.
fn named(term: &NodeSelectorTerm) -> Option<BTreeSet<String>> {
    let mut out: Option<BTreeSet<String>> = None;
    for wanted in &term.match_fields {
        if wanted.key == NAME_FIELD && wanted.operator == "In" {
            let names: BTreeSet<String> = wanted.values.iter().cloned().collect();
            out = Some(match out {
                None => names,
                Some(before) => before.intersection(&names).cloned().collect(),
            });
        }
    }
    out
}

/// The preferred half of the node affinity: a weight for each term that matches.
pub fn preferred_nodes(spec: &PodSpec) -> Vec<(i64, NodeTerm)> {
    let affinity = spec.affinity.as_ref().and_then(|own| own.node_affinity.as_ref());
    let Some(affinity) = affinity else { return Vec::new() };
    let preferred = &affinity.preferred_during_scheduling_ignored_during_execution;
    let weighted = preferred.iter().filter(|term| term.weight != 0);
    weighted.filter_map(|term| Some((i64::from(term.weight), NodeTerm::new(&term.preference)?))).collect()
}

/// Whether one of the tolerations tolerates a taint.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        (toleration.effect.is_empty() || toleration.effect == taint.effect)
            && (toleration.key.is_empty() || toleration.key == taint.key)
            && match toleration.operator.as_str() {
                "" | "Equal" => toleration.value == taint.value,
                "Exists" => true,
                // Lt and Gt are alpha in 1.36 and off by default: they tolerate nothing.
                _ => false,
            }
    })
}

/// Whether a taint keeps pods from being scheduled.
pub fn is_hard(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}
