//! What of a pod may change once it exists: images, deadlines and tolerations; through `resize` its cpu and memory.

use super::{MIRROR, metadata_and_spec};
use crate::core::addresses;
use crate::core::pod::resources;
use crate::difference;
use crate::object_meta::immutable;
use api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements, Toleration};
use meta::field::{Errors, Json, Path};
use meta::validation;
use std::collections::{BTreeMap, BTreeSet};

const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const CPU_AND_MEMORY: &str = "only cpu and memory resources are mutable";

pub(crate) fn update(new: &Pod, old: &Pod, errors: &mut Errors) {
    metadata_and_spec(new, errors);
    annotations(new, old, errors);
    let path = Path::new("spec");
    for (is, was, field) in [
        (&new.spec.containers, &old.spec.containers, "containers"),
        (&new.spec.init_containers, &old.spec.init_containers, "initContainers"),
    ] {
        if is.len() != was.len() {
            errors.forbidden(&path.child(field), "pod updates may not add or remove containers");
            return;
        }
    }
    if !deadline(&new.spec, &old.spec, &path.child("activeDeadlineSeconds"), errors) {
        return;
    }
    tolerations(&new.spec.tolerations, &old.spec.tolerations, &path.child("tolerations"), errors);
    let known: BTreeSet<&str> = old.spec.scheduling_gates.iter().map(|gate| gate.name.as_str()).collect();
    for (index, gate) in new.spec.scheduling_gates.iter().enumerate() {
        if !known.contains(gate.name.as_str()) {
            let field = path.child("schedulingGates").index(index).child("name");
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.forbidden(&field, detail);
        }
    }
    if new.spec == old.spec {
        return;
    }
    let rest = without_updatable(new, old, &path, errors);
    if rest != old.spec {
        errors.forbidden(&path, difference::describe(UPDATABLE, &old.spec, &rest));
    }
}

/// The new spec with everything that may change put back.
fn without_updatable(new: &Pod, old: &Pod, path: &Path, errors: &mut Errors) -> PodSpec {
    let (mut rest, was) = (new.spec.clone(), &old.spec);
    let containers = rest.containers.iter_mut().zip(&was.containers);
    for (container, before) in containers.chain(rest.init_containers.iter_mut().zip(&was.init_containers)) {
        container.image = before.image.clone();
    }
    rest.active_deadline_seconds = was.active_deadline_seconds;
    rest.scheduling_gates = was.scheduling_gates.clone();
    rest.tolerations = was.tolerations.clone();
    let negative = was.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0);
    if negative && rest.termination_grace_period_seconds == Some(1) {
        rest.termination_grace_period_seconds = was.termination_grace_period_seconds;
    }
    if !was.scheduling_gates.is_empty() {
        narrowed(&mut rest, was, path, errors);
    }
    rest
}

/// While it is gated, a pod may be bound to fewer nodes, never to others.
fn narrowed(rest: &mut PodSpec, was: &PodSpec, path: &Path, errors: &mut Errors) {
    let kept = was.node_selector.iter().all(|(key, value)| rest.node_selector.get(key) == Some(value));
    if !kept {
        let field = path.child("nodeSelector");
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&field, Json(&rest.node_selector), detail);
    }
    rest.node_selector = was.node_selector.clone();
    let node_affinity =
        |spec: &PodSpec| spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let (is, before) = (node_affinity(rest), node_affinity(was));
    if is == before {
        return;
    }
    let terms = |affinity: &Option<Box<api::core::v1::NodeAffinity>>| {
        let required = affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
        Some(required.node_selector_terms.clone())
    };
    if let Some(old_terms) = terms(&before) {
        let new_terms = terms(&is).unwrap_or_default();
        let same_length = new_terms.len() == old_terms.len();
        let only_added = same_length
            && new_terms.iter().zip(&old_terms).all(|(new, old)| {
                old.match_expressions.iter().all(|term| new.match_expressions.contains(term))
                    && old.match_fields.iter().all(|term| new.match_fields.contains(term))
            });
        if !only_added {
            let field = path
                .child("affinity")
                .child("nodeAffinity")
                .child("requiredDuringSchedulingIgnoredDuringExecution")
                .child("nodeSelectorTerms");
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&field, Json(&new_terms), detail);
        }
    }
    match (&mut rest.affinity, before) {
        (Some(affinity), before) => affinity.node_affinity = before,
        (None, Some(_)) => rest.affinity = was.affinity.clone(),
        (None, None) => {}
    }
    let nothing = Default::default();
    if was.affinity.is_none() && rest.affinity.as_deref() == Some(&nothing) {
        rest.affinity = None;
    }
}

fn annotations(new: &Pod, old: &Pod, errors: &mut Errors) {
    let path = Path::new("metadata").child("annotations");
    let (is, was) = (&new.metadata.annotations, &old.metadata.annotations);
    for (key, _) in was.iter().filter(|(key, value)| is.get(*key) != Some(value)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for key in is.keys().filter(|key| !was.contains_key(*key)) {
        if key.starts_with(APP_ARMOR_PREFIX) {
            errors.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not add mirror pod annotation");
        }
    }
}

/// A deadline may be set and shortened; false when nothing more need be said.
fn deadline(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(is), _) if !(0..=i64::from(i32::MAX)).contains(&is) => {
            errors.invalid(path, is, validation::range_error(0, i64::from(i32::MAX)));
            false
        }
        (Some(is), Some(was)) if was < is => {
            errors.invalid(path, is, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.invalid(path, None::<i64>, detail);
            true
        }
        _ => true,
    }
}

fn tolerations(new: &[Toleration], old: &[Toleration], path: &Path, errors: &mut Errors) {
    let kept = |before: &Toleration| {
        new.iter().any(|after| {
            Toleration { toleration_seconds: after.toleration_seconds, ..before.clone() } == *after
        })
    };
    if !old.iter().all(kept) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

pub(crate) fn status(new: &Pod, old: &Pod, errors: &mut Errors) {
    annotations(new, old, errors);
    let (is, was, path) = (&new.status, &old.status, Path::new("status"));
    for (index, condition) in is.conditions.iter().enumerate() {
        let path = path.child("conditions").index(index);
        if condition.observed_generation < 0 {
            let field = path.child("observedGeneration");
            errors.invalid(&field, condition.observed_generation, "must be a non-negative integer");
        }
    }
    if new.spec.node_name != old.spec.node_name {
        errors.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let nominated = path.child("nominatedNodeName");
    if is.nominated_node_name != was.nominated_node_name && !is.nominated_node_name.is_empty() {
        let faults = validation::dns1123_subdomain(&is.nominated_node_name);
        errors.invalid_each(&nominated, &is.nominated_node_name, faults);
        if !old.spec.node_name.is_empty() {
            errors.forbidden(&nominated, "may not be set on pods that are already bound to a node");
        }
    }
    if is.observed_generation < 0 {
        let field = path.child("observedGeneration");
        errors.invalid(&field, is.observed_generation, "must be a non-negative integer");
    }
    immutable(&is.qos_class, &was.qos_class, &path.child("qosClass"), errors);
    restarted(&is.container_statuses, &was.container_statuses, old, &path.child("containerStatuses"), errors);
    let field = path.child("podIPs");
    let before: Vec<String> = was.pod_ips.iter().map(|address| address.ip.clone()).collect();
    for (index, address) in is.pod_ips.iter().enumerate() {
        addresses::validate(&address.ip, &before, &field.index(index), errors);
    }
    let families: BTreeSet<bool> = is.pod_ips.iter().filter_map(|it| addresses::is_v6(&it.ip)).collect();
    if is.pod_ips.len() > 1 && families.len() != is.pod_ips.len() {
        errors.invalid(&field, Json(&is.pod_ips), "may specify no more than one IP for each IP family");
    }
    let hosts = path.child("hostIPs");
    if let Some(first) = is.host_ips.first().filter(|first| first.ip != is.host_ip) {
        errors.invalid(&hosts.index(0).child("ip"), &first.ip, "must be equal to `hostIP`");
    }
}

/// What has ended for good does not run again.
fn restarted(new: &[ContainerStatus], old: &[ContainerStatus], pod: &Pod, path: &Path, errors: &mut Errors) {
    let runs_again = |container: &Container| {
        container.restart_policy.is_some() || !container.restart_policy_rules.is_empty()
    };
    for (index, before) in old.iter().enumerate() {
        let Some(ended) = &before.state.terminated else { continue };
        let allowed = match pod.spec.restart_policy.as_str() {
            "Always" => true,
            "OnFailure" => ended.exit_code != 0,
            _ => false,
        };
        let own = pod.spec.containers.iter().find(|container| container.name == before.name);
        if allowed || own.is_some_and(runs_again) {
            continue;
        }
        let running =
            new.iter().any(|status| status.name == before.name && status.state.terminated.is_none());
        if running {
            let detail = "may not be transitioned to non-terminated state";
            errors.forbidden(&path.index(index).child("state"), detail);
        }
    }
}

pub(crate) fn ephemeral_containers(new: &Pod, old: &Pod, errors: &mut Errors) {
    if old.metadata.annotations.contains_key(MIRROR) {
        errors.forbidden(&Path::root(), "static pods do not support ephemeral containers");
        return;
    }
    metadata_and_spec(new, errors);
    annotations(new, old, errors);
    let path = Path::new("spec").child("ephemeralContainers");
    let by_name: BTreeMap<&str, _> = new
        .spec
        .ephemeral_containers
        .iter()
        .map(|container| (container.ephemeral_container_common.name.as_str(), container))
        .collect();
    for before in &old.spec.ephemeral_containers {
        let name = &before.ephemeral_container_common.name;
        match by_name.get(name.as_str()) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.forbidden(&path, detail);
            }
            Some(after) if *after != before => {
                let rule = format!("existing ephemeral containers {name:?} may not be changed");
                errors.forbidden(&path, difference::describe(&rule, before, *after));
            }
            Some(_) => {}
        }
    }
}

pub(crate) fn resize(new: &Pod, old: &Pod, errors: &mut Errors) {
    if old.metadata.annotations.contains_key(MIRROR) {
        errors.forbidden(&Path::root(), "static pods cannot be resized");
        return;
    }
    if old.spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(&Path::root(), "windows pods cannot be resized");
        return;
    }
    metadata_and_spec(new, errors);
    let path = Path::new("spec");
    if resources::qos_class(&old.spec) != resources::qos_class(&new.spec) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(&path, &new.status.qos_class, detail);
    }
    for (is, was, field, same) in [
        (
            &new.spec.containers,
            &old.spec.containers,
            "containers",
            "containers may not be added or removed on resize",
        ),
        (
            &new.spec.init_containers,
            &old.spec.init_containers,
            "initContainers",
            "initContainers may not be added or removed on resize",
        ),
    ] {
        let path = path.child(field);
        if is.len() != was.len() {
            errors.forbidden(&path, same);
            return;
        }
        for (index, (is, was)) in is.iter().zip(was).enumerate() {
            if is.name != was.name {
                let detail = "containers may not be renamed or reordered on resize";
                errors.forbidden(&path.index(index).child("name"), detail);
                return;
            }
            one_resize(is, was, &path.index(index).child("resources"), errors);
            if without_cpu_and_memory(is) != without_cpu_and_memory(was) {
                errors.forbidden(&Path::new("spec"), CPU_AND_MEMORY);
            }
        }
    }
}

fn without_cpu_and_memory(container: &Container) -> Container {
    let mut rest = container.clone();
    rest.resize_policy.clear();
    let ResourceRequirements { limits, requests, .. } = &mut rest.resources;
    for list in [limits, requests] {
        list.retain(|name, _| name != "cpu" && name != "memory");
    }
    rest
}

fn one_resize(new: &Container, old: &Container, path: &Path, errors: &mut Errors) {
    for (is, was, field, detail) in [
        (&new.resources.requests, &old.resources.requests, "requests", "resource requests cannot be removed"),
        (&new.resources.limits, &old.resources.limits, "limits", "resource limits cannot be removed"),
    ] {
        if was.keys().any(|name| !is.contains_key(name)) {
            errors.forbidden(&path.child(field), detail);
        }
    }
}
