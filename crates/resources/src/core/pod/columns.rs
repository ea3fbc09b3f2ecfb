//! What `kubectl get pods` shows: the state of all containers boiled down to one word.

use super::resources::is_restartable;
use crate::columns::{self, AGE, Cell, Column, NAME, human_duration, or_none};
use api::core::v1::{Container, ContainerStatus, Pod, PodCondition};
use meta::Time;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready"),
    Column::string("Status"),
    Column::string("Restarts"),
    AGE,
    Column::string("IP").wide(),
    Column::string("Node").wide(),
    Column::string("Nominated Node").wide(),
    Column::string("Readiness Gates").wide(),
];

/// What is gathered over the containers' states.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    restarts: i32,
    last_restart: Option<Time>,
}

impl Summary {
    fn count_restarts(&mut self, status: &ContainerStatus) {
        self.restarts += status.restart_count;
        let finished = status.last_state.terminated.as_ref().and_then(|state| state.finished_at);
        self.last_restart = self.last_restart.max(finished);
    }
}

fn is_true(conditions: &[PodCondition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.r#type == kind && condition.status == "True")
}

/// Why a container ended: its reason, or else its signal or exit code.
fn ended(prefix: &str, state: &api::core::v1::ContainerStateTerminated) -> String {
    if !state.reason.is_empty() {
        format!("{prefix}{}", state.reason)
    } else if state.signal != 0 {
        format!("{prefix}Signal:{}", state.signal)
    } else {
        format!("{prefix}ExitCode:{}", state.exit_code)
    }
}

/// Walks init containers up to the first that has not done its part; the reason it gives, if any.
fn init_reason(pod: &Pod, summary: &mut Summary, sidecars: &mut Summary) -> Option<String> {
    let find = |name: &str| -> Option<&Container> {
        pod.spec.init_containers.iter().find(|container| container.name == name)
    };
    for (index, status) in pod.status.init_container_statuses.iter().enumerate() {
        summary.count_restarts(status);
        let sidecar = find(&status.name).is_some_and(is_restartable);
        if sidecar {
            sidecars.count_restarts(status);
        }
        match (&status.state.terminated, &status.state.waiting) {
            (Some(state), _) if state.exit_code == 0 => continue,
            _ if sidecar && status.started == Some(true) => {
                summary.ready += usize::from(status.ready);
                continue;
            }
            (Some(state), _) => return Some(ended("Init:", state)),
            (None, Some(state)) if !state.reason.is_empty() && state.reason != "PodInitializing" => {
                return Some(format!("Init:{}", state.reason));
            }
            _ => return Some(format!("Init:{index}/{}", pod.spec.init_containers.len())),
        }
    }
    None
}

/// Walks the main containers, last first, so that the first one's reason stands.
fn main_reason(pod: &Pod, summary: &mut Summary) {
    let (mut running, mut error) = (false, String::new());
    for status in pod.status.container_statuses.iter().rev() {
        summary.count_restarts(status);
        if let Some(waiting) = status.state.waiting.as_ref().filter(|state| !state.reason.is_empty()) {
            summary.reason = waiting.reason.clone();
        } else if let Some(state) = &status.state.terminated {
            summary.reason = ended("", state);
            if state.exit_code != 0 {
                error = summary.reason.clone();
            }
        } else if status.ready && status.state.running.is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        if running && is_true(&pod.status.conditions, "Ready") {
            summary.reason = "Running".into();
        } else if !error.is_empty() {
            summary.reason = error;
        } else if running {
            summary.reason = "NotReady".into();
        }
    }
}

fn summarize(pod: &Pod) -> Summary {
    let status = &pod.status;
    let reason = if status.reason.is_empty() { &status.phase } else { &status.reason };
    let mut summary = Summary { reason: reason.clone(), ..Default::default() };
    if status.conditions.iter().any(|it| it.r#type == "PodScheduled" && it.reason == "SchedulingGated") {
        summary.reason = "SchedulingGated".into();
    }
    let mut sidecars = Summary::default();
    let initializing = init_reason(pod, &mut summary, &mut sidecars);
    let waiting = initializing.is_some();
    if let Some(reason) = initializing {
        summary.reason = reason;
    }
    if !waiting || is_true(&status.conditions, "Initialized") {
        summary.restarts = sidecars.restarts;
        summary.last_restart = sidecars.last_restart;
        main_reason(pod, &mut summary);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason == "NodeLost" {
            summary.reason = "Unknown".into();
        } else if !super::is_finished(pod) {
            summary.reason = "Terminating".into();
        }
    }
    summary
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = &pod.spec.readiness_gates;
    if gates.is_empty() {
        return "<none>".into();
    }
    let first_is_true = |kind: &str| {
        let condition = pod.status.conditions.iter().find(|condition| condition.r#type == kind);
        condition.is_some_and(|condition| condition.status == "True")
    };
    let passed = gates.iter().filter(|gate| first_is_true(&gate.condition_type)).count();
    format!("{passed}/{}", gates.len())
}

pub(super) fn row(pod: &Pod, now: Time) -> Vec<Cell> {
    let summary = summarize(pod);
    let sidecars = pod.spec.init_containers.iter().filter(|it| is_restartable(it)).count();
    let total = pod.spec.containers.len() + sidecars;
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(now.seconds() - time.seconds()))
        }
        _ => summary.restarts.to_string(),
    };
    let address = pod.status.pod_ips.first().map_or("", |address| address.ip.as_str());
    vec![
        pod.metadata.name.clone().into(),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        columns::since(pod.metadata.creation_timestamp, now).into(),
        or_none(address).into(),
        or_none(&pod.spec.node_name).into(),
        or_none(&pod.status.nominated_node_name).into(),
        readiness_gates(pod).into(),
    ]
}
