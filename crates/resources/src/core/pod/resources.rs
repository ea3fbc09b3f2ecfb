//! What a pod asks for as a whole: the sum over its containers, its class of service, and what pod-level resources default to.

use super::defaults::ResourceList;
use api::core::v1::{Container, ContainerStatus, Pod, PodSpec};
use std::collections::BTreeSet;

pub(crate) fn is_restartable(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Resources that can be stated for the pod as a whole.
fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = if sum.is_zero() { *amount } else { sum.plus(*amount) };
    }
}

fn raise(total: &mut ResourceList, floor: &ResourceList) {
    for (name, amount) in floor {
        let held = total.entry(name.clone()).or_insert(*amount);
        *held = (*held).max(*amount);
    }
}

/// The most that is used at any moment: all containers and sidecars together, or one init container beside the sidecars before it.
fn aggregate(spec: &PodSpec, part: &dyn Fn(&Container) -> ResourceList) -> ResourceList {
    let mut total = ResourceList::new();
    for container in &spec.containers {
        add(&mut total, &part(container));
    }
    let (mut sidecars, mut peak) = (ResourceList::new(), ResourceList::new());
    for container in &spec.init_containers {
        let own = part(container);
        if is_restartable(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut now = own;
            add(&mut now, &sidecars);
            raise(&mut peak, &now);
        }
    }
    raise(&mut total, &peak);
    total
}

/// Requests of all containers together, without the pod's own and without overhead.
pub fn container_requests(spec: &PodSpec) -> ResourceList {
    aggregate(spec, &|container| container.resources.requests.clone())
}

/// Limits of all containers together, likewise.
pub fn container_limits(spec: &PodSpec) -> ResourceList {
    aggregate(spec, &|container| container.resources.limits.clone())
}

/// The container's status, where it counts besides what is wanted: of all but init containers that end.
fn counted_status<'p>(pod: &'p Pod, container: &Container) -> Option<&'p ContainerStatus> {
    let of = |statuses: &'p [ContainerStatus]| statuses.iter().find(|known| known.name == container.name);
    of(&pod.status.container_statuses)
        .or_else(|| of(&pod.status.init_container_statuses).filter(|_| is_restartable(container)))
        .filter(|status| status.resources.is_some())
}

fn resize_is_infeasible(pod: &Pod) -> bool {
    let mut conditions = pod.status.conditions.iter();
    conditions.any(|known| known.r#type == "PodResizePending" && known.reason == "Infeasible")
}

/// What a pod asks for in all: during a resize the larger of what is wanted, allocated and in force, with what the pod
/// states for itself, and with its overhead (KEP-753, KEP-1287, KEP-2837).
pub fn pod_requests(pod: &Pod) -> ResourceList {
    let infeasible = resize_is_infeasible(pod);
    let mut total = aggregate(&pod.spec, &|container| {
        let wanted = &container.resources.requests;
        let Some(status) = counted_status(pod, container) else { return wanted.clone() };
        let mut sum = status.allocated_resources.clone();
        if let Some(actual) = &status.resources {
            raise(&mut sum, &actual.requests);
        }
        if !infeasible {
            raise(&mut sum, wanted);
        }
        sum
    });
    if let Some(own) = &pod.spec.resources {
        total.extend(own.requests.clone().into_iter().filter(|(name, _)| is_pod_level(name)));
    }
    add(&mut total, &pod.spec.overhead);
    total
}

/// What a pod may use in all, likewise; overhead counts only beside a limit.
pub fn pod_limits(pod: &Pod) -> ResourceList {
    let infeasible = resize_is_infeasible(pod);
    let mut total = aggregate(&pod.spec, &|container| {
        let wanted = &container.resources.limits;
        let Some(status) = counted_status(pod, container) else { return wanted.clone() };
        let mut sum = status.resources.as_ref().map(|actual| actual.limits.clone()).unwrap_or_default();
        if !infeasible {
            raise(&mut sum, wanted);
        }
        sum
    });
    if let Some(own) = &pod.spec.resources {
        total.extend(own.limits.clone().into_iter().filter(|(name, _)| is_pod_level(name)));
    }
    for (name, amount) in &pod.spec.overhead {
        if let Some(limit) = total.get_mut(name).filter(|limit| !limit.is_zero()) {
            *limit = limit.plus(*amount);
        }
    }
    total
}

/// Pod-level huge page limits and requests that follow from what is stated elsewhere in the pod.
pub(crate) fn default_pod_level(spec: &mut PodSpec) {
    let (requested, limited) = (container_requests(spec), container_limits(spec));
    let Some(resources) = &mut spec.resources else { return };
    if resources.limits.is_empty() && resources.requests.is_empty() {
        return;
    }
    for (name, amount) in limited {
        if name.starts_with("hugepages-") && !resources.requests.contains_key(&name) {
            resources.limits.entry(name).or_insert(amount);
        }
    }
    if resources.limits.is_empty() {
        return;
    }
    for (name, amount) in requested {
        if name == "cpu" || name == "memory" {
            resources.requests.entry(name).or_insert(amount);
        }
    }
    for (name, limit) in &resources.limits {
        if is_pod_level(name) {
            resources.requests.entry(name.clone()).or_insert(*limit);
        }
    }
}

fn positive_compute(list: &ResourceList) -> ResourceList {
    list.iter()
        .filter(|(name, amount)| {
            (*name == "cpu" || *name == "memory") && !amount.is_zero() && !amount.is_negative()
        })
        .map(|(name, amount)| (name.clone(), *amount))
        .collect()
}

/// The class by which the node decides who is evicted first: `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut requests, mut limits) = (ResourceList::new(), ResourceList::new());
    let mut all_limited = true;
    let mut take = |asked: &ResourceList, capped: &ResourceList| {
        add(&mut requests, &positive_compute(asked));
        let capped = positive_compute(capped);
        add(&mut limits, &capped);
        capped.len() == 2
    };
    match &spec.resources {
        Some(resources) => {
            let limited = take(&resources.requests, &resources.limits);
            all_limited = limited || resources.limits.is_empty();
        }
        None => {
            for container in spec.containers.iter().chain(&spec.init_containers) {
                all_limited &= take(&container.resources.requests, &container.resources.limits);
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let names = |list: &ResourceList| list.keys().cloned().collect::<BTreeSet<_>>();
    if all_limited && names(&requests) == names(&limits) && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> PodSpec {
        api::codec::from_json(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn service_class_follows_requests_and_limits() {
        assert_eq!(qos_class(&spec("{containers: [{name: a}]}")), "BestEffort");
        assert_eq!(
            qos_class(&spec("{containers: [{name: a, resources: {requests: {cpu: 100m}}}]}")),
            "Burstable"
        );
        let both = "{containers: [{name: a, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1000m, memory: 1Gi}}}]}";
        assert_eq!(qos_class(&spec(both)), "Guaranteed");
        let one = "{containers: [{name: a, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}}, {name: b}]}";
        assert_eq!(qos_class(&spec(one)), "Burstable");
    }

    #[test]
    fn sidecars_count_beside_init_containers() {
        let text = "{initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: 1}}}, \
                    {name: i, resources: {requests: {cpu: 4}}}], containers: [{name: a, resources: {requests: {cpu: 2}}}]}";
        assert_eq!(container_requests(&spec(text))["cpu"].to_string(), "5");
    }
}
