//! Whether a volume can be reached from a node.

use api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume};

/// Whether the volume's node affinity admits the node; a volume without one is everywhere.
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let required = volume.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| matches(term, node)))
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let stated = !term.match_expressions.is_empty() || !term.match_fields.is_empty();
    let label = |wanted: &NodeSelectorRequirement| {
        holds(wanted, node.metadata.labels.get(&wanted.key).map(String::as_str))
    };
    let field = |wanted: &NodeSelectorRequirement| {
        holds(wanted, (wanted.key == "metadata.name").then_some(node.metadata.name.as_str()))
    };
    stated && term.match_expressions.iter().all(label) && term.match_fields.iter().all(field)
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| wanted.values.iter().any(|known| known == value);
    let bound = wanted.values.first().and_then(|text| text.parse::<i64>().ok());
    let numbers = value.and_then(|text| text.parse::<i64>().ok()).zip(bound);
    match wanted.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers.is_some_and(|(value, bound)| value > bound),
        "Lt" => numbers.is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}
