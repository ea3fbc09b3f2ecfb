//! In-place resize (KEP-1287): what a pod's containers were given, what they should be given, and whether there is room.
//!
//! What the API asks for becomes allocated when the node takes it, and actuated when the runtime has it.

use crate::resources;
use api::core::v1::{Container, Pod, PodStatus, ResourceRequirements};
use meta::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Only these can change while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What the node says to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// There is no room now; there may be when other pods go.
    Deferred(String),
    /// There never will be.
    Infeasible(String),
}

impl Answer {
    /// The condition's reason and message, where it is not a yes.
    pub fn refusal(&self) -> Option<(&'static str, &str)> {
        match self {
            Answer::Accepted => None,
            Answer::Deferred(why) => Some(("Deferred", why)),
            Answer::Infeasible(why) => Some(("Infeasible", why)),
        }
    }
}

/// The words of an event: what became of the wish, and the wish itself, as upstream tells it.
pub fn message(what: &str, pod: &Pod, error: &str) -> String {
    let containers: Vec<serde_json::Value> = resizable(pod)
        .map(|one| serde_json::json!({"name": one.name, "resources": api::codec::to_value(&one.resources)}))
        .collect();
    let mut facts = serde_json::json!({"containers": containers, "generation": pod.metadata.generation});
    if !error.is_empty() {
        facts["error"] = error.into();
    }
    format!("Pod resize {what}: {facts}")
}

/// Resources by container.
pub type Given = BTreeMap<String, ResourceRequirements>;

/// The containers whose resources can change: all but ephemeral ones and init containers that end.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod.spec.init_containers.iter().filter(|one| crate::spec::is_sidecar(one));
    pod.spec.containers.iter().chain(sidecars)
}

/// What the containers of a pod were given: by its status, where a node has said so, else by its specification.
pub fn given(pod: &Pod) -> Given {
    resizable(pod)
        .map(|container| {
            let told = told(&pod.status, &container.name);
            (container.name.clone(), told.unwrap_or_else(|| container.resources.clone()))
        })
        .collect()
}

fn told(status: &PodStatus, name: &str) -> Option<ResourceRequirements> {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let own = all.into_iter().find(|own| own.name == name && own.state.running.is_some())?;
    own.resources.as_deref().cloned()
}

/// What the specification asks for.
pub fn wanted(pod: &Pod) -> Given {
    resizable(pod).map(|container| (container.name.clone(), container.resources.clone())).collect()
}

/// The resources whose request or limit differs.
pub fn changed(old: &ResourceRequirements, new: &ResourceRequirements) -> Vec<&'static str> {
    RESIZABLE
        .into_iter()
        .filter(|name| {
            old.requests.get(*name) != new.requests.get(*name)
                || old.limits.get(*name) != new.limits.get(*name)
        })
        .collect()
}

/// Whether a wish differs from what is given.
pub fn differs(given: &Given, wanted: &Given) -> bool {
    wanted.iter().any(|(name, new)| given.get(name).is_some_and(|old| !changed(old, new).is_empty()))
}

/// Whether a container has to start anew for its resources to change so.
pub fn needs_restart(container: &Container, old: &ResourceRequirements, new: &ResourceRequirements) -> bool {
    changed(old, new).iter().any(|name| {
        let policy = container.resize_policy.iter().find(|own| own.resource_name == *name);
        policy.is_some_and(|own| own.restart_policy == "RestartContainer")
    })
}

/// The pod with what its containers were given.
pub fn with(pod: &Pod, given: &Given) -> Pod {
    let mut pod = pod.clone();
    for container in pod.spec.containers.iter_mut().chain(&mut pod.spec.init_containers) {
        if let Some(own) = given.get(&container.name) {
            for name in RESIZABLE {
                copy(&own.requests, &mut container.resources.requests, name);
                copy(&own.limits, &mut container.resources.limits, name);
            }
        }
    }
    pod
}

fn copy(from: &BTreeMap<String, Quantity>, to: &mut BTreeMap<String, Quantity>, name: &str) {
    match from.get(name) {
        Some(amount) => drop(to.insert(name.into(), *amount)),
        None => drop(to.remove(name)),
    }
}

/// Whether the node can give what the pod asks for. `others`: the other pods, with what they were given.
pub fn judge(pod: &Pod, allocatable: &BTreeMap<String, Quantity>, others: &[Arc<Pod>]) -> Answer {
    let annotations = &pod.metadata.annotations;
    if annotations.get("kubernetes.io/config.source").is_some_and(|source| source != "api") {
        return Answer::Infeasible("In-place resize of static-pods is not supported".into());
    }
    let asked = resources::pod_requests(&pod.spec);
    let number =
        |name: &str, amount: &Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
    for name in RESIZABLE {
        let (Some(amount), Some(capacity)) = (asked.get(name), allocatable.get(name)) else { continue };
        if amount > capacity {
            return Answer::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {}, capacity: {}",
                number(name, amount),
                number(name, capacity)
            ));
        }
    }
    for name in RESIZABLE {
        let (Some(amount), Some(capacity)) = (asked.get(name), allocatable.get(name)) else { continue };
        let used = others
            .iter()
            .filter(|other| other.metadata.uid != pod.metadata.uid)
            .filter(|other| !matches!(other.status.phase.as_str(), "Succeeded" | "Failed"))
            .filter_map(|other| resources::pod_requests(&other.spec).get(name).copied())
            .fold(Quantity::default(), Quantity::plus);
        if used.plus(*amount) > *capacity {
            return Answer::Deferred(format!(
                "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                number(name, amount),
                number(name, &used),
                number(name, capacity)
            ));
        }
    }
    Answer::Accepted
}
