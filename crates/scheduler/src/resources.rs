//! Amounts: what a node can give, and what a pod asks for.

use api::core::v1::{Container, ContainerStatus, Pod};
use meta::Quantity;
use std::collections::BTreeMap;

/// What a container without requests counts for when nodes are compared (never when they are filtered), so that pods
/// without requests spread too. Upstream's amounts.
pub const DEFAULT_MILLI_CPU: i64 = 100;
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of each resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// A node's limit of pods.
    pub pods: i64,
    /// Extended resources, huge pages and attachable volumes, by name.
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    pub fn from_list(list: &BTreeMap<String, Quantity>) -> Self {
        let mut out = Resources::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => out.milli_cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral_storage = quantity.value(),
                "pods" => out.pods = quantity.value(),
                name if is_scalar(name) => {
                    out.scalar.insert(name.to_owned(), quantity.value());
                }
                _ => {}
            }
        }
        out
    }

    pub fn add(&mut self, other: &Resources) {
        self.merge(other, |own, theirs| own.saturating_add(theirs));
    }
    pub fn subtract(&mut self, other: &Resources) {
        self.merge(other, |own, theirs| own.saturating_sub(theirs));
    }
    /// Keeps the larger amount of each.
    pub fn raise(&mut self, other: &Resources) {
        self.merge(other, i64::max);
    }
    /// Whether nothing but a place is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalar.is_empty()
    }

    fn merge(&mut self, other: &Resources, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            match self.scalar.get_mut(name) {
                Some(own) => *own = with(*own, *amount),
                None => {
                    self.scalar.insert(name.clone(), with(0, *amount));
                }
            }
        }
    }
}

/// Whether the scheduler counts a resource by its name alone: extended resources and other prefixed names, huge pages,
/// attachable volumes.
pub fn is_scalar(name: &str) -> bool {
    name.contains('/') || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

/// Whether missing requests count as nothing or as the defaults above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Nothing,
    Default,
}

/// What a pod asks for: its containers together, or whatever a single init container needs beside the sidecars
/// started before it, if that is more; the pod's own requests in place of the sum; and its overhead.
pub fn requests(pod: &Pod, missing: Missing) -> Resources {
    let spec = &pod.spec;
    let pod_level = spec.resources.as_ref().filter(|own| own.requests.keys().any(|name| is_pod_level(name)));
    let defaults = Defaults::of(pod, missing, pod_level.is_some());
    let mut sum = Resources::default();
    for container in &spec.containers {
        let status = find(&pod.status.container_statuses, &container.name);
        sum.add(&container_requests(pod, container, status, defaults));
    }
    let (mut sidecars, mut init) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        if is_sidecar(container) {
            let status = find(&pod.status.init_container_statuses, &container.name);
            let own = container_requests(pod, container, status, defaults);
            sum.add(&own);
            sidecars.add(&own);
            init.raise(&sidecars);
        } else {
            let mut own = container_requests(pod, container, None, defaults);
            own.add(&sidecars);
            init.raise(&own);
        }
    }
    sum.raise(&init);
    if let Some(own) = pod_level {
        replace_pod_level(&mut sum, pod, &own.requests);
    }
    sum.add(&Resources::from_list(&spec.overhead));
    sum
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[derive(Clone, Copy)]
struct Defaults {
    milli_cpu: Option<i64>,
    memory: Option<i64>,
}

impl Defaults {
    /// With requests of the pod itself, only a resource that neither it nor a container names is defaulted.
    fn of(pod: &Pod, missing: Missing, pod_level: bool) -> Self {
        let applies = |name: &str| {
            missing == Missing::Default && {
                let mut containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
                let by_pod = pod.spec.resources.as_ref().is_some_and(|own| own.requests.contains_key(name));
                !pod_level || !(by_pod || containers.any(|own| own.resources.requests.contains_key(name)))
            }
        };
        Defaults {
            milli_cpu: applies("cpu").then_some(DEFAULT_MILLI_CPU),
            memory: applies("memory").then_some(DEFAULT_MEMORY),
        }
    }
}

fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

/// A container's requests. Once it runs, a resize under way counts with the larger of what is wanted, allocated and
/// in force, unless the node has called it infeasible.
fn container_requests(
    pod: &Pod,
    container: &Container,
    status: Option<&ContainerStatus>,
    defaults: Defaults,
) -> Resources {
    let wanted = &container.resources.requests;
    let mut out = match status.and_then(|status| Some((status, status.resources.as_deref()?))) {
        None => Resources::from_list(wanted),
        Some((status, in_force)) => {
            let mut out = Resources::from_list(&in_force.requests);
            out.raise(&Resources::from_list(&status.allocated_resources));
            if !resize_infeasible(pod) {
                out.raise(&Resources::from_list(wanted));
            }
            out
        }
    };
    if let Some(default) = defaults.milli_cpu.filter(|_| !wanted.contains_key("cpu")) {
        out.milli_cpu = default;
    }
    if let Some(default) = defaults.memory.filter(|_| !wanted.contains_key("memory")) {
        out.memory = default;
    }
    out
}

fn resize_infeasible(pod: &Pod) -> bool {
    let pending = pod.status.conditions.iter().find(|condition| condition.r#type == "PodResizePending");
    pending.is_some_and(|condition| condition.reason == "Infeasible")
}

fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

fn replace_pod_level(sum: &mut Resources, pod: &Pod, wanted: &BTreeMap<String, Quantity>) {
    let mut own = Resources::from_list(wanted);
    if let Some(in_force) = &pod.status.resources {
        let mut actual = Resources::from_list(&in_force.requests);
        actual.raise(&Resources::from_list(&pod.status.allocated_resources));
        if !resize_infeasible(pod) {
            actual.raise(&own);
        }
        own = actual;
    }
    for name in wanted.keys().filter(|name| is_pod_level(name)) {
        match name.as_str() {
            "cpu" => sum.milli_cpu = own.milli_cpu,
            "memory" => sum.memory = own.memory,
            name => {
                sum.scalar.insert(name.to_owned(), own.scalar.get(name).copied().unwrap_or(0));
            }
        }
    }
}
