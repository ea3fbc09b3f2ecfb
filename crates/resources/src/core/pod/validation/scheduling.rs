//! Where a pod may run: selectors, affinity, tolerations, spreading, and gates.

use super::choice;
use crate::object_meta::validate_selector;
use api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSchedulingGate, PodSpec,
    Toleration, TopologySelectorTerm, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use meta::field::{Errors, Path};
use meta::validation;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(crate) fn taint_effect(effect: &str, allow_empty: bool, path: &Path, errors: &mut Errors) {
    if effect.is_empty() && !allow_empty {
        errors.required(path, "");
    } else if !EFFECTS.contains(&effect) {
        errors.not_supported(path, effect, EFFECTS);
    }
}

pub(super) fn tolerations(tolerations: &[Toleration], path: &Path, errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let operator = path.child("operator");
        if !toleration.key.is_empty() {
            let faults = validation::qualified_name(&toleration.key);
            errors.invalid_each(&path.child("key"), &toleration.key, faults);
        }
        if toleration.key.is_empty() && toleration.operator != "Exists" {
            errors.invalid(
                &operator,
                &toleration.operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.toleration_seconds.is_some() && toleration.effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), &toleration.effect, detail);
        }
        match toleration.operator.as_str() {
            "Equal" | "" => {
                let faults = validation::label_value(&toleration.value);
                if !faults.is_empty() {
                    errors.invalid(&operator, &toleration.value, faults.join(";"));
                }
            }
            "Exists" => {
                if !toleration.value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.invalid(&operator, &toleration.value, detail);
                }
            }
            // Comparisons are behind a gate that is off.
            "Lt" | "Gt" => {
                errors.not_supported(&operator, &toleration.operator, &["Equal", "Exists", "Lt", "Gt"]);
            }
            other => errors.not_supported(&operator, other, &["Equal", "Exists"]),
        }
        if !toleration.effect.is_empty() {
            taint_effect(&toleration.effect, true, &path.child("effect"), errors);
        }
    }
}

pub(super) fn gates(gates: &[PodSchedulingGate], path: &Path, errors: &mut Errors) {
    for (index, gate) in gates.iter().enumerate() {
        let path = path.index(index);
        errors.invalid_each(&path, &gate.name, validation::qualified_name(&gate.name));
        if gates[..index].iter().any(|other| other.name == gate.name) {
            errors.duplicate(&path, &gate.name);
        }
    }
}

pub(super) fn affinity(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(affinity) = &spec.affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(selector, &path.child(REQUIRED), errors);
        }
        let terms = &node.preferred_during_scheduling_ignored_during_execution;
        for (index, term) in terms.iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(term.weight, &path, errors);
            // A wish with values that no label can have is merely never fulfilled.
            node_term(&term.preference, true, &path.child("preference"), errors);
        }
    }
    if let Some(pod) = &affinity.pod_affinity {
        pod_terms(
            &pod.required_during_scheduling_ignored_during_execution,
            &pod.preferred_during_scheduling_ignored_during_execution,
            &path.child("podAffinity"),
            errors,
        );
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        pod_terms(
            &pod.required_during_scheduling_ignored_during_execution,
            &pod.preferred_during_scheduling_ignored_during_execution,
            &path.child("podAntiAffinity"),
            errors,
        );
    }
}

fn weight(weight: i32, path: &Path, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn pod_terms(
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
    path: &Path,
    errors: &mut Errors,
) {
    for (index, term) in required.iter().enumerate() {
        pod_term(term, &path.child(REQUIRED).index(index), errors);
    }
    for (index, term) in preferred.iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        weight(term.weight, &path, errors);
        pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    validate_selector(term.label_selector.as_deref(), &path.child("labelSelector"), errors);
    validate_selector(term.namespace_selector.as_deref(), &path.child("namespaceSelector"), errors);
    for namespace in &term.namespaces {
        errors.invalid_each(&path.child("namespace"), namespace, validation::dns1123_label(namespace));
    }
    let selector = term.label_selector.is_some();
    label_keys(&term.match_label_keys, selector, &path.child("matchLabelKeys"), errors);
    label_keys(&term.mismatch_label_keys, selector, &path.child("mismatchLabelKeys"), errors);
    for (index, key) in term.match_label_keys.iter().enumerate() {
        if term.mismatch_label_keys.contains(key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.invalid(&path.child("matchLabelKeys").index(index), key, detail);
        }
    }
    let topology = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&topology, "can not be empty");
    }
    errors.invalid_each(&topology, &term.topology_key, validation::qualified_name(&term.topology_key));
}

fn label_keys(keys: &[String], selector: bool, path: &Path, errors: &mut Errors) {
    if keys.is_empty() {
        return;
    }
    if !selector {
        errors.forbidden(path, "must not be specified when labelSelector is not set");
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        errors.invalid_each(&path.index(index), key, validation::qualified_name(key));
    }
}

pub(crate) fn node_selector(selector: &NodeSelector, path: &Path, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(term, false, &path.index(index), errors);
    }
}

fn node_term(term: &NodeSelectorTerm, any_value: bool, path: &Path, errors: &mut Errors) {
    for (index, requirement) in term.match_expressions.iter().enumerate() {
        node_requirement(requirement, any_value, &path.child("matchExpressions").index(index), errors);
    }
    for (index, requirement) in term.match_fields.iter().enumerate() {
        node_field(requirement, &path.child("matchFields").index(index), errors);
    }
}

fn node_requirement(
    requirement: &NodeSelectorRequirement,
    any_value: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let values = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if requirement.values.is_empty() {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !requirement.values.is_empty() {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&values, detail);
            }
        }
        "Gt" | "Lt" => {
            if requirement.values.len() != 1 {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.required(&values, detail);
            }
        }
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.invalid_each(&path.child("key"), &requirement.key, validation::qualified_name(&requirement.key));
    if any_value {
        return;
    }
    for (index, value) in requirement.values.iter().enumerate() {
        errors.invalid_each(&values.index(index), value, validation::label_value(value));
    }
}

fn node_field(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if requirement.values.len() != 1 {
                let detail =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&values, detail);
            }
        }
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if requirement.key != "metadata.name" {
        errors.invalid(&path.child("key"), &requirement.key, "not a valid field selector key");
        return;
    }
    for (index, value) in requirement.values.iter().enumerate() {
        errors.invalid_each(&values.index(index), value, validation::dns1123_subdomain(value));
    }
}

pub(super) fn spread(constraints: &[TopologySpreadConstraint], path: &Path, errors: &mut Errors) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        if constraint.max_skew <= 0 {
            errors.invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero");
        }
        if constraint.topology_key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        let action = &constraint.when_unsatisfiable;
        if !actions.contains(&action.as_str()) {
            errors.not_supported(&path.child("whenUnsatisfiable"), action, &actions);
        }
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == *action
        };
        if constraints[index + 1..].iter().any(same) {
            let pair = format!("{{{}, {action}}}", constraint.topology_key);
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), pair);
        }
        if let Some(domains) = constraint.min_domains {
            let field = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&field, domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&field, domains, detail);
            }
        }
        for (policy, field) in [
            (&constraint.node_affinity_policy, "nodeAffinityPolicy"),
            (&constraint.node_taints_policy, "nodeTaintsPolicy"),
        ] {
            if let Some(policy) = policy {
                choice(policy, &["Honor", "Ignore"], &path.child(field), errors);
            }
        }
        let selector = constraint.label_selector.as_deref();
        label_keys(&constraint.match_label_keys, selector.is_some(), &path.child("matchLabelKeys"), errors);
        validate_selector(selector, &path.child("labelSelector"), errors);
    }
}

/// Topologies in which a storage class provisions.
pub(crate) fn topology_terms(terms: &[TopologySelectorTerm], path: &Path, errors: &mut Errors) {
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index).child("matchLabelExpressions");
        let all = &term.match_label_expressions;
        for (index, expression) in all.iter().enumerate() {
            let path = path.index(index);
            if expression.values.is_empty() {
                errors.required(&path.child("values"), "");
            }
            for (index, value) in expression.values.iter().enumerate() {
                if expression.values[..index].contains(value) {
                    errors.duplicate(&path.child("values").index(index), value);
                }
            }
            let faults = validation::qualified_name(&expression.key);
            errors.invalid_each(&path.child("key"), &expression.key, faults);
            if all[..index].iter().any(|other| other.key == expression.key) {
                errors.duplicate(&path.child("key"), &expression.key);
            }
        }
        if terms[..index].contains(term) {
            errors.duplicate(&path, "");
        }
    }
}
