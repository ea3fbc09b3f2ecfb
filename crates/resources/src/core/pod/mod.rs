//! Pods: what is set for the user, what only the system may set, and how long a pod lives on once it is deleted.

mod columns;
pub(crate) mod defaults;
pub mod resources;
#[cfg(test)]
mod tests;
pub(crate) mod validation;
pub(crate) mod warnings;

use crate::columns::{Cell, Column};
use crate::strategy::Strategy;
use api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};
use api::meta::v1::{LabelSelector, LabelSelectorRequirement};
use meta::Time;
use meta::field::Errors;
use std::collections::BTreeMap;

pub struct Pods;

/// Whether a pod has run to its end.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

impl Strategy for Pods {
    type Object = Pod;
    const PLURAL: &'static str = "pods";
    const COLUMNS: &'static [Column] = columns::COLUMNS;
    const GENERATION: bool = true;
    const SELECTABLE: &'static [&'static str] = &[
        "metadata.name",
        "metadata.namespace",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ];

    fn default(pod: &mut Pod) {
        defaults::pod(pod);
    }

    fn prepare_for_create(pod: &mut Pod) {
        pod.status = PodStatus {
            phase: "Pending".into(),
            qos_class: resources::qos_class(&pod.spec).into(),
            ..Default::default()
        };
        if !pod.spec.scheduling_gates.is_empty() {
            pod.status.conditions.push(PodCondition {
                r#type: "PodScheduled".into(),
                status: "False".into(),
                reason: "SchedulingGated".into(),
                message: "Scheduling is blocked due to non-empty scheduling gates".into(),
                ..Default::default()
            });
        }
        apply_match_label_keys(&mut pod.spec, &pod.metadata.labels);
    }

    fn prepare_for_status(new: &mut Pod, old: &Pod) {
        new.metadata.deletion_timestamp = old.metadata.deletion_timestamp;
        // Old kubelets write owner references they do not know whole: garbage collection must not suffer.
        new.metadata.owner_references = old.metadata.owner_references.clone();
        defaults::fill(&mut new.status.qos_class, &old.status.qos_class);
        keep_observed_generations(new, old);
    }

    fn prepare_for_subresource(subresource: &str, new: &mut Pod, old: &Pod) {
        match subresource {
            "ephemeralcontainers" => {
                let added = std::mem::take(&mut new.spec.ephemeral_containers);
                new.spec = old.spec.clone();
                new.spec.ephemeral_containers = added;
            }
            "resize" => keep_all_but_resources(new, old),
            // The server itself puts the pod on its node, labels it, and says so in its status.
            "binding" => return,
            _ => {}
        }
        new.status = old.status.clone();
        keep_metadata(new, old);
    }

    fn validate(new: &Pod, old: Option<&Pod>, errors: &mut Errors) {
        match old {
            None => validation::create(new, errors),
            Some(old) => validation::update(new, old, errors),
        }
    }
    fn validate_status(new: &Pod, old: &Pod, errors: &mut Errors) {
        validation::status(new, old, errors);
    }
    fn validate_subresource(subresource: &str, new: &Pod, old: &Pod, errors: &mut Errors) {
        match subresource {
            "ephemeralcontainers" => validation::ephemeral_containers_update(new, old, errors),
            "resize" => validation::resize(new, old, errors),
            _ => {}
        }
    }
    fn warnings(new: &Pod, old: Option<&Pod>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { warnings::create(new) }
    }

    fn selectable(pod: &Pod) -> Vec<(&'static str, String)> {
        let (spec, status) = (&pod.spec, &pod.status);
        let addresses: Vec<&str> = status.pod_ips.iter().map(|address| address.ip.as_str()).collect();
        vec![
            ("spec.nodeName", spec.node_name.clone()),
            ("spec.restartPolicy", spec.restart_policy.clone()),
            ("spec.schedulerName", spec.scheduler_name.clone()),
            ("spec.serviceAccountName", spec.service_account_name.clone()),
            ("spec.hostNetwork", spec.host_network.to_string()),
            ("status.phase", status.phase.clone()),
            ("status.podIP", addresses.first().map(ToString::to_string).unwrap_or_default()),
            ("status.podIPs", addresses.join(",")),
            ("status.nominatedNodeName", status.nominated_node_name.clone()),
        ]
    }
    fn field_alias(label: &str) -> &str {
        if label == "spec.host" { "spec.nodeName" } else { label }
    }
    fn row(pod: &Pod, now: Time) -> Vec<Cell> {
        columns::row(pod, now)
    }

    fn grace_seconds(pod: &Pod, requested: Option<i64>) -> Option<i64> {
        let wanted = requested.or(pod.spec.termination_grace_period_seconds).unwrap_or(0);
        // Nobody runs it yet, or any more: there is nothing to wait for.
        if pod.spec.node_name.is_empty() || is_finished(pod) {
            return Some(0);
        }
        Some(if wanted < 0 { 1 } else { wanted })
    }

    fn spec_changed(new: &Pod, old: &Pod) -> bool {
        new.spec != old.spec
    }
    fn wipe_status(pod: &mut Pod) {
        pod.status = PodStatus::default();
    }
    fn keep_status(new: &mut Pod, old: &Pod) {
        new.status = old.status.clone();
    }
    fn keep_all_but_status(new: &mut Pod, old: &Pod) {
        new.spec = old.spec.clone();
    }
}

/// Through the smaller subresources users change no metadata.
fn keep_metadata(new: &mut Pod, old: &Pod) {
    let metadata = &mut new.metadata;
    metadata.deletion_timestamp = old.metadata.deletion_timestamp;
    metadata.labels = old.metadata.labels.clone();
    metadata.annotations = old.metadata.annotations.clone();
    metadata.finalizers = old.metadata.finalizers.clone();
    metadata.owner_references = old.metadata.owner_references.clone();
}

/// A writer that does not know observed generations must not clear them.
fn keep_observed_generations(new: &mut Pod, old: &Pod) {
    if new.status.observed_generation == 0 {
        new.status.observed_generation = old.status.observed_generation;
    }
    // One type may have several conditions: their generations are handed out in order.
    let mut known: BTreeMap<&str, std::collections::VecDeque<i64>> = BTreeMap::new();
    for condition in &old.status.conditions {
        known.entry(&condition.r#type).or_default().push_back(condition.observed_generation);
    }
    for condition in &mut new.status.conditions {
        let before = known.get_mut(condition.r#type.as_str()).and_then(|list| list.pop_front()).unwrap_or(0);
        if condition.observed_generation == 0 {
            condition.observed_generation = before;
        }
    }
}

/// `resize` writes resources and resize policies only; a changed set of containers is left for validation to refuse.
fn keep_all_but_resources(new: &mut Pod, old: &Pod) {
    let same = |new: &[Container], old: &[Container]| {
        new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new.name == old.name)
    };
    if !same(&new.spec.containers, &old.spec.containers)
        || !same(&new.spec.init_containers, &old.spec.init_containers)
    {
        return;
    }
    let wanted = std::mem::replace(&mut new.spec, old.spec.clone());
    let containers = new.spec.containers.iter_mut().zip(wanted.containers);
    let init_containers = new.spec.init_containers.iter_mut().zip(wanted.init_containers);
    for (container, wanted) in containers.chain(init_containers) {
        container.resources = wanted.resources;
        container.resize_policy = wanted.resize_policy;
    }
    new.spec.resources = wanted.resources;
}

/// `matchLabelKeys` and `mismatchLabelKeys` become part of the selectors when the pod is created, with its own labels' values.
fn apply_match_label_keys(spec: &mut PodSpec, labels: &BTreeMap<String, String>) {
    if let Some(affinity) = &mut spec.affinity {
        if let Some(affinity) = &mut affinity.pod_affinity {
            let required = &mut affinity.required_during_scheduling_ignored_during_execution;
            required.iter_mut().for_each(|term| apply_to_term(term, labels));
            let preferred = &mut affinity.preferred_during_scheduling_ignored_during_execution;
            preferred.iter_mut().for_each(|term| apply_to_term(&mut term.pod_affinity_term, labels));
        }
        if let Some(affinity) = &mut affinity.pod_anti_affinity {
            let required = &mut affinity.required_during_scheduling_ignored_during_execution;
            required.iter_mut().for_each(|term| apply_to_term(term, labels));
            let preferred = &mut affinity.preferred_during_scheduling_ignored_during_execution;
            preferred.iter_mut().for_each(|term| apply_to_term(&mut term.pod_affinity_term, labels));
        }
    }
    for constraint in &mut spec.topology_spread_constraints {
        if let Some(selector) = &mut constraint.label_selector {
            require(selector, &constraint.match_label_keys, "In", labels);
        }
    }
}

fn apply_to_term(term: &mut api::core::v1::PodAffinityTerm, labels: &BTreeMap<String, String>) {
    if let Some(selector) = &mut term.label_selector {
        require(selector, &term.match_label_keys, "In", labels);
        require(selector, &term.mismatch_label_keys, "NotIn", labels);
    }
}

fn require(selector: &mut LabelSelector, keys: &[String], operator: &str, labels: &BTreeMap<String, String>) {
    for key in keys {
        if let Some(value) = labels.get(key) {
            selector.match_expressions.push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.into(),
                values: vec![value.clone()],
            });
        }
    }
}
