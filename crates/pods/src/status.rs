//! The status of a pod from what the runtime has: container states, phase and conditions, as upstream derives them.

use crate::input::{Container as Seen, Failure, Observed, State};
use crate::resize::{self, Answer, Given};
use crate::{Millis, actions, resources, spec, to_time};
use api::core::v1::*;
use meta::Time;
use std::collections::BTreeMap;

/// Container states and conditions' reasons that clients compare.
mod reasons {
    pub const CONTAINER_CREATING: &str = "ContainerCreating";
    pub const POD_INITIALIZING: &str = "PodInitializing";
    pub const POD_COMPLETED: &str = "PodCompleted";
    pub const POD_FAILED: &str = "PodFailed";
    pub const CONTAINERS_NOT_READY: &str = "ContainersNotReady";
    pub const CONTAINERS_NOT_INITIALIZED: &str = "ContainersNotInitialized";
    pub const READINESS_GATES_NOT_READY: &str = "ReadinessGatesNotReady";
    pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
}

/// Conditions that the node owns; all others are kept as the API has them.
const OWNED: [&str; 6] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodResizePending",
    "PodResizeInProgress",
];

/// How far a change of resources is.
pub struct Resizing<'a> {
    pub allocated: &'a Given,
    pub actuated: &'a Given,
    pub unmet: Option<&'a Answer>,
    /// Why the runtime could not be told.
    pub fault: Option<&'a str>,
}

/// Everything a status is made from.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    /// Why containers that should run do not.
    pub waiting: &'a BTreeMap<String, Failure>,
    /// Started and ready, of running containers, by name.
    pub health: &'a BTreeMap<String, (bool, bool)>,
    /// The reason and message with which the node failed the pod.
    pub verdict: Option<(&'a str, &'a str)>,
    pub resizing: Resizing<'a>,
    /// The node ends the pod for want of resources.
    pub disrupted: bool,
    /// Its containers will not be started again, whatever the policy.
    pub ending: bool,
    /// Nothing of it runs, and nothing will.
    pub ended: bool,
    pub host_ips: &'a [String],
    /// What was said before: times of transitions are kept from it.
    pub previous: &'a PodStatus,
    pub now: Millis,
}

pub fn build(facts: &Facts<'_>) -> PodStatus {
    let pod = facts.pod;
    let spec = &pod.spec;
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        nominated_node_name: pod.status.nominated_node_name.clone(),
        resize: pod.status.resize.clone(),
        resource_claim_statuses: pod.status.resource_claim_statuses.clone(),
        extended_resource_claim_status: pod.status.extended_resource_claim_status.clone(),
        qos_class: resources::qos_class(spec).into(),
        start_time: facts.previous.start_time.or(pod.status.start_time).or(Some(to_time(facts.now))),
        ..PodStatus::default()
    };
    addresses(facts, &mut status);
    status.init_container_statuses =
        spec.init_containers.iter().map(|container| container_status(facts, container, true)).collect();
    status.container_statuses =
        spec.containers.iter().map(|container| container_status(facts, container, false)).collect();
    status.ephemeral_container_statuses = spec
        .ephemeral_containers
        .iter()
        .filter_map(|one| spec::find(spec, &one.ephemeral_container_common.name))
        .map(|container| container_status(facts, &container, false))
        .collect();
    if facts.verdict.is_some()
        && facts.observed.containers.is_empty()
        && facts.previous.container_statuses.is_empty()
    {
        // Turned away before anything of it began.
        status.init_container_statuses.clear();
        status.container_statuses.clear();
    }
    status.phase = match facts.verdict {
        Some((reason, message)) => {
            status.reason = reason.into();
            status.message = message.into();
            "Failed".into()
        }
        None => phase(facts, &status).into(),
    };
    // An end is final: what is said of a finished pod is not taken back.
    if matches!(facts.previous.phase.as_str(), "Succeeded" | "Failed") {
        status.phase = facts.previous.phase.clone();
        status.reason = facts.previous.reason.clone();
        status.message = facts.previous.message.clone();
    }
    conditions(facts, &mut status);
    status
}

fn addresses(facts: &Facts<'_>, status: &mut PodStatus) {
    status.host_ip = facts.host_ips.first().cloned().unwrap_or_default();
    status.host_ips = facts.host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect();
    let ips: Vec<String> = if facts.pod.spec.host_network {
        facts.host_ips.to_vec()
    } else {
        match actions::usable_sandbox(facts.pod, facts.observed) {
            Some(sandbox) => sandbox.ips.clone(),
            // Told once, an address is kept until another is known: it stays on a pod that has ended.
            None => facts.previous.pod_ips.iter().map(|one| one.ip.clone()).collect(),
        }
    };
    status.pod_ip = ips.first().cloned().unwrap_or_default();
    status.pod_ips = ips.into_iter().map(|ip| PodIP { ip }).collect();
}

fn previous<'a>(facts: &'a Facts<'_>, name: &str) -> Option<&'a ContainerStatus> {
    let all = [
        &facts.previous.container_statuses,
        &facts.previous.init_container_statuses,
        &facts.previous.ephemeral_container_statuses,
    ];
    all.into_iter().flatten().find(|status| status.name == name)
}

fn container_status(facts: &Facts<'_>, container: &Container, init: bool) -> ContainerStatus {
    let name = &container.name;
    let mut seen = facts.observed.containers.iter().filter(|seen| &seen.name == name);
    let newest = seen.next();
    let earlier = seen.find(|seen| seen.state == State::Exited);
    let old = previous(facts, name);
    let mut status = ContainerStatus {
        name: name.clone(),
        image: container.image.clone(),
        resources: resources_of(facts, container),
        allocated_resources: facts
            .resizing
            .allocated
            .get(name)
            .map(|own| own.requests.clone())
            .unwrap_or_default(),
        volume_mounts: container.volume_mounts.iter().map(mount_status).collect(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    match newest {
        Some(newest) => {
            describe(newest, &mut status);
            if let Some(earlier) = earlier {
                status.last_state.terminated = Some(Box::new(terminated(earlier)));
            } else if let Some(old) = old {
                status.last_state = old.last_state.clone();
            }
        }
        None => {
            status.state.waiting = Some(Box::new(default_waiting(facts)));
            if let Some(old) = old {
                status.restart_count = old.restart_count;
                status.last_state = old.last_state.clone();
                if old.state.terminated.is_some() {
                    status.state = old.state.clone();
                    status.container_id = old.container_id.clone();
                    status.image_id = old.image_id.clone();
                }
            }
        }
    }
    if let Some(failure) = facts.waiting.get(name)
        && status.state.running.is_none()
        && !facts.ending
    {
        if status.state.terminated.is_some() {
            status.last_state = std::mem::take(&mut status.state);
        }
        let waiting =
            ContainerStateWaiting { reason: failure.reason.clone(), message: failure.message.clone() };
        status.state.waiting = Some(Box::new(waiting));
    }
    if facts.ended && status.state.terminated.is_none() {
        lost(&mut status);
    }
    judge(facts, container, init, &mut status);
    status
}

/// What the runtime has of a running container; what it will have of another.
fn resources_of(facts: &Facts<'_>, container: &Container) -> Option<Box<ResourceRequirements>> {
    let running = facts.observed.newest(&container.name).is_some_and(|seen| seen.state == State::Running);
    let list = if running { facts.resizing.actuated } else { facts.resizing.allocated };
    let own = list.get(&container.name)?;
    Some(Box::new(ResourceRequirements { claims: Vec::new(), ..own.clone() }))
}

fn mount_status(mount: &VolumeMount) -> VolumeMountStatus {
    let recursive =
        mount.read_only.then(|| mount.recursive_read_only.clone().unwrap_or_else(|| "Disabled".into()));
    VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: recursive,
        ..VolumeMountStatus::default()
    }
}

fn default_waiting(facts: &Facts<'_>) -> ContainerStateWaiting {
    let initializing = !facts.pod.spec.init_containers.is_empty();
    let reason = if initializing { reasons::POD_INITIALIZING } else { reasons::CONTAINER_CREATING };
    ContainerStateWaiting { reason: reason.into(), message: String::new() }
}

fn describe(seen: &Seen, status: &mut ContainerStatus) {
    status.restart_count = i32::try_from(seen.attempt).unwrap_or(i32::MAX);
    status.container_id = format!("containerd://{}", seen.id);
    if !seen.image.is_empty() {
        status.image = seen.image.clone();
    }
    status.image_id = seen.image_id.clone();
    match seen.state {
        State::Running => {
            let running = ContainerStateRunning { started_at: Some(to_time(seen.started_at)) };
            status.state.running = Some(Box::new(running));
        }
        State::Exited | State::Unknown => status.state.terminated = Some(Box::new(terminated(seen))),
        State::Created => {
            let waiting =
                ContainerStateWaiting { reason: reasons::CONTAINER_CREATING.into(), message: String::new() };
            status.state.waiting = Some(Box::new(waiting));
        }
    }
}

fn terminated(seen: &Seen) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: seen.exit_code,
        reason: seen.reason.clone(),
        message: seen.message.clone(),
        started_at: Some(to_time(seen.started_at)),
        finished_at: Some(to_time(seen.finished_at)),
        container_id: format!("containerd://{}", seen.id),
        ..ContainerStateTerminated::default()
    }
}

/// A pod has ended, but this container's end was not seen.
fn lost(status: &mut ContainerStatus) {
    let end = ContainerStateTerminated {
        reason: reasons::STATUS_UNKNOWN.into(),
        message: "The container could not be located when the pod was terminated".into(),
        exit_code: 137,
        ..ContainerStateTerminated::default()
    };
    status.state = ContainerState { terminated: Some(Box::new(end)), ..ContainerState::default() };
}

/// Started and ready.
fn judge(facts: &Facts<'_>, container: &Container, init: bool, status: &mut ContainerStatus) {
    if init && !spec::is_sidecar(container) {
        status.ready = status.state.terminated.as_deref().is_some_and(|end| end.exit_code == 0);
        return;
    }
    if status.state.running.is_some() {
        let (started, ready) = facts.health.get(&container.name).copied().unwrap_or((true, true));
        status.started = Some(started);
        status.ready = started && ready;
    }
}

/// The end that counts for a container: its own, or the last one where it waits to start again.
fn last_end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let waited = status.state.waiting.as_ref().and(status.last_state.terminated.as_deref());
    status.state.terminated.as_deref().or(waited)
}

fn phase(facts: &Facts<'_>, status: &PodStatus) -> &'static str {
    let spec = &facts.pod.spec;
    let mut initializing = false;
    let mut failed_for_good = false;
    for (container, status) in spec.init_containers.iter().zip(&status.init_container_statuses) {
        if spec::is_sidecar(container) {
            continue;
        }
        match last_end(status) {
            Some(end) if status.state.running.is_none() => {
                failed_for_good |= end.exit_code != 0 && !spec::restarts(spec, container, end.exit_code);
                initializing |= end.exit_code != 0;
            }
            _ => initializing = true,
        }
    }
    if failed_for_good {
        return "Failed";
    }
    let begun =
        facts.observed.containers.iter().any(|seen| spec.containers.iter().any(|one| one.name == seen.name));
    let (mut running, mut waiting, mut stopped, mut finished, mut succeeded) = (0, 0, 0, 0, 0);
    for (container, status) in spec.init_containers.iter().zip(&status.init_container_statuses) {
        if !spec::is_sidecar(container) {
            continue;
        }
        if status.state.running.is_some() {
            running += 1;
            initializing |= status.started != Some(true) && !begun;
        } else if last_end(status).is_none() {
            waiting += 1;
        }
    }
    for (container, status) in spec.containers.iter().zip(&status.container_statuses) {
        if status.state.running.is_some() {
            running += 1;
        } else if let Some(end) = last_end(status) {
            stopped += 1;
            succeeded += i32::from(end.exit_code == 0);
            finished += i32::from(!spec::restarts(spec, container, end.exit_code));
        } else {
            waiting += 1;
        }
    }
    match () {
        () if initializing || waiting > 0 => "Pending",
        () if running > 0 => "Running",
        () if stopped == 0 => "Pending",
        () if !facts.ended && stopped != finished => "Running",
        () if stopped == succeeded => "Succeeded",
        () => "Failed",
    }
}

fn conditions(facts: &Facts<'_>, status: &mut PodStatus) {
    let mut own = vec![ready_to_start(facts), initialized(facts, status)];
    let containers = containers_ready(facts, status);
    own.push(ready(facts, &containers));
    own.push(containers);
    own.extend(resize_conditions(facts));
    let kept = facts.pod.status.conditions.iter().filter(|one| !OWNED.contains(&one.r#type.as_str()));
    let mut all: Vec<PodCondition> = kept.cloned().collect();
    if let (true, Some((_, message))) = (facts.disrupted, facts.verdict) {
        all.retain(|one| one.r#type != "DisruptionTarget");
        all.push(condition("DisruptionTarget", true, "TerminationByKubelet", message.to_string()));
    }
    let scheduled = all.iter_mut().find(|one| one.r#type == "PodScheduled");
    match scheduled {
        Some(scheduled) => scheduled.observed_generation = facts.pod.metadata.generation,
        // A pod that no scheduler placed: a static one, or one made with its node's name.
        None => all.push(condition("PodScheduled", true, "", String::new())),
    }
    let now: Time = to_time(facts.now);
    for mut one in own {
        one.observed_generation = facts.pod.metadata.generation;
        all.push(one);
    }
    for one in &mut all {
        if one.observed_generation == 0 {
            one.observed_generation = facts.pod.metadata.generation;
        }
        let before = |list: &[PodCondition]| {
            list.iter()
                .find(|old| old.r#type == one.r#type && old.status == one.status)
                .and_then(|old| old.last_transition_time)
        };
        let since = before(&facts.previous.conditions).or_else(|| before(&facts.pod.status.conditions));
        one.last_transition_time = since.or(one.last_transition_time).or(Some(now));
    }
    // Upstream's order of appearance: the node's own first, PodScheduled after them.
    all.sort_by_key(|one| match one.r#type.as_str() {
        "PodReadyToStartContainers" => 0,
        "Initialized" => 1,
        "Ready" => 2,
        "ContainersReady" => 3,
        "PodScheduled" => 4,
        _ => 5,
    });
    status.conditions = all;
}

/// A wish that waits, and a change under way.
fn resize_conditions(facts: &Facts<'_>) -> Vec<PodCondition> {
    if facts.ending {
        return Vec::new();
    }
    let mut list = Vec::new();
    let resizing = &facts.resizing;
    match resizing.unmet {
        Some(Answer::Deferred(why)) => {
            list.push(condition("PodResizePending", true, "Deferred", why.clone()))
        }
        Some(Answer::Infeasible(why)) => {
            list.push(condition("PodResizePending", true, "Infeasible", why.clone()));
        }
        Some(Answer::Accepted) | None => {}
    }
    let running =
        |name: &String| facts.observed.newest(name).is_some_and(|seen| seen.state == State::Running);
    let under_way = resizing.allocated.iter().any(|(name, new)| {
        let old = resizing.actuated.get(name);
        running(name) && old.is_some_and(|old| !resize::changed(old, new).is_empty())
    });
    if under_way {
        let (reason, message) = resizing.fault.map_or(("", ""), |fault| ("Error", fault));
        list.push(condition("PodResizeInProgress", true, reason, message.into()));
    }
    list
}

fn condition(kind: &str, value: bool, reason: &str, message: String) -> PodCondition {
    PodCondition {
        r#type: kind.into(),
        status: if value { "True" } else { "False" }.into(),
        reason: reason.into(),
        message,
        ..PodCondition::default()
    }
}

fn ready_to_start(facts: &Facts<'_>) -> PodCondition {
    let usable = actions::usable_sandbox(facts.pod, facts.observed).is_some();
    condition("PodReadyToStartContainers", usable, "", String::new())
}

fn initialized(facts: &Facts<'_>, status: &PodStatus) -> PodCondition {
    const KIND: &str = "Initialized";
    if status.phase == "Succeeded" {
        return condition(KIND, true, reasons::POD_COMPLETED, String::new());
    }
    let begun = |one: &ContainerStatus| {
        one.state.running.is_some() || one.state.terminated.is_some() || one.last_state.terminated.is_some()
    };
    if status.container_statuses.iter().any(begun) {
        return condition(KIND, true, "", String::new());
    }
    let pairs = facts.pod.spec.init_containers.iter().zip(&status.init_container_statuses);
    let incomplete: Vec<&str> = pairs
        .filter(
            |(container, status)| {
                if spec::is_sidecar(container) { status.started != Some(true) } else { !status.ready }
            },
        )
        .map(|(container, _)| container.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return condition(KIND, true, "", String::new());
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    condition(KIND, false, reasons::CONTAINERS_NOT_INITIALIZED, message)
}

fn containers_ready(facts: &Facts<'_>, status: &PodStatus) -> PodCondition {
    const KIND: &str = "ContainersReady";
    match status.phase.as_str() {
        "Succeeded" => return condition(KIND, false, reasons::POD_COMPLETED, String::new()),
        "Failed" => return condition(KIND, false, reasons::POD_FAILED, String::new()),
        _ => {}
    }
    let sidecars = facts.pod.spec.init_containers.iter().zip(&status.init_container_statuses);
    let sidecars = sidecars.filter(|(container, _)| spec::is_sidecar(container)).map(|(_, status)| status);
    let unready: Vec<&str> = sidecars
        .chain(&status.container_statuses)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    if unready.is_empty() {
        return condition(KIND, true, "", String::new());
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    condition(KIND, false, reasons::CONTAINERS_NOT_READY, message)
}

fn ready(facts: &Facts<'_>, containers: &PodCondition) -> PodCondition {
    const KIND: &str = "Ready";
    if containers.status != "True" {
        return condition(KIND, false, &containers.reason, containers.message.clone());
    }
    let unmet: Vec<String> = facts
        .pod
        .spec
        .readiness_gates
        .iter()
        .filter_map(|gate| {
            let gate = &gate.condition_type;
            match facts.pod.status.conditions.iter().find(|one| &one.r#type == gate) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist."))
                }
                Some(one) if one.status != "True" => Some(format!(
                    "the status of pod readiness gate {gate:?} is not \"True\", but {}",
                    one.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if unmet.is_empty() {
        return condition(KIND, true, "", String::new());
    }
    condition(KIND, false, reasons::READINESS_GATES_NOT_READY, unmet.join(", "))
}
