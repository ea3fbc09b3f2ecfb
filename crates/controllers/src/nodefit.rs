//! Whether a pod may be on a node, as far as names, labels, required affinity and taints say: what DaemonSets ask.

use api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint};

use crate::tainteviction::tolerates;

/// Whether name, selector and required affinity admit the node.
pub(crate) fn selects(spec: &PodSpec, node: &Node) -> bool {
    if !spec.node_name.is_empty() && spec.node_name != node.metadata.name {
        return false;
    }
    let labels = &node.metadata.labels;
    if !spec.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_deref()
        .and_then(|affinity| affinity.node_affinity.as_deref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let stated = !term.match_expressions.is_empty() || !term.match_fields.is_empty();
    let labels = |requirement: &NodeSelectorRequirement| {
        holds(requirement, node.metadata.labels.get(&requirement.key).map(String::as_str))
    };
    let fields = |requirement: &NodeSelectorRequirement| {
        holds(requirement, (requirement.key == "metadata.name").then_some(node.metadata.name.as_str()))
    };
    stated && term.match_expressions.iter().all(labels) && term.match_fields.iter().all(fields)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| requirement.values.iter().any(|known| known == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = requirement.values.first().and_then(|text| number(text));
    let value_number = value.and_then(number);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value_number.zip(bound).is_some_and(|(value, bound)| value > bound),
        "Lt" => value_number.zip(bound).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Whether all taints of these effects are tolerated.
pub(crate) fn tolerates_all(spec: &PodSpec, node: &Node, effects: &[&str]) -> bool {
    let concerns = |taint: &&Taint| effects.contains(&taint.effect.as_str());
    node.spec
        .taints
        .iter()
        .filter(concerns)
        .all(|taint| spec.tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}
