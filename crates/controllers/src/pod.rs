//! What the state of a pod means to those who count pods: active, ready, available, and which one goes first.

use api::core::v1::{Pod, PodCondition};
use meta::Time;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

/// The annotation by which a user says which pods are cheap to delete.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.conditions.iter().find(|condition| condition.r#type == kind)
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// Neither finished nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// On its way out, and not finished yet.
pub fn is_terminating(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_some()
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Ready, and so for long enough.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Time) -> bool {
    available_in(pod, min_ready_seconds, now) == Some(0)
}

/// In how many seconds a ready pod becomes available if it stays ready; `None` where it is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Time) -> Option<i64> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status == "True")?;
    if min_ready_seconds == 0 {
        return Some(0);
    }
    let since = ready.last_transition_time?;
    Some((since.seconds() + i64::from(min_ready_seconds) - now.seconds()).max(0))
}

/// The cost that the annotation states; 0 where it states none, or nonsense.
fn deletion_cost(pod: &Pod) -> i32 {
    let Some(text) = pod.metadata.annotations.get(DELETION_COST) else { return 0 };
    // As upstream: no leading plus, no leading zero.
    let digits = text.strip_prefix('-').unwrap_or(text);
    if text.starts_with('+') || (digits.len() > 1 && digits.starts_with('0')) {
        return 0;
    }
    text.parse().unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = &pod.status.container_statuses;
    statuses.iter().map(|status| status.restart_count).max().unwrap_or(0)
}

fn phase_rank(pod: &Pod) -> u8 {
    match pod.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

/// The power of two that an age falls in: ages within one are not told apart (KEP-2185), so that a scale-down
/// does not always hit the newest.
fn age_rank(since: Option<Time>, now: Time) -> i64 {
    match since {
        None => 0,
        Some(since) => {
            let age = (now.seconds() - since.seconds()).max(0);
            if age == 0 { 0 } else { i64::from(age.ilog2()) }
        }
    }
}

/// The pods, those first that should be deleted first.
///
/// `related` are all pods of the same purpose, which tell on how many of a node a pod is one; unassigned before
/// assigned, pending before running, unready before ready, cheap before dear, crowded before lonely, ready lately
/// before ready long, restarted often before rarely, new before old.
pub fn deletion_order(mut pods: Vec<Arc<Pod>>, related: &[Arc<Pod>], now: Time) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(pod.spec.node_name.as_str()).or_default() += 1;
    }
    let crowd = |pod: &Pod| on_node.get(pod.spec.node_name.as_str()).copied().unwrap_or(0);
    pods.sort_by(|a, b| {
        let assigned = |pod: &Pod| !pod.spec.node_name.is_empty();
        assigned(a)
            .cmp(&assigned(b))
            .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
            .then_with(|| is_ready(a).cmp(&is_ready(b)))
            .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| by_age(ready_since(a), ready_since(b), a, b, now))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| by_age(a.metadata.creation_timestamp, b.metadata.creation_timestamp, a, b, now))
            .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
    });
    pods
}

fn ready_since(pod: &Pod) -> Option<Time> {
    condition(pod, "Ready")
        .filter(|condition| condition.status == "True")
        .and_then(|condition| condition.last_transition_time)
}

fn by_age(a: Option<Time>, b: Option<Time>, pod_a: &Pod, pod_b: &Pod, now: Time) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    match (a, b) {
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        _ => {
            age_rank(a, now).cmp(&age_rank(b, now)).then_with(|| pod_a.metadata.uid.cmp(&pod_b.metadata.uid))
        }
    }
}
