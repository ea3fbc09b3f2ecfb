//! What the scheduler writes: bindings, conditions, nominations, evictions of victims.

use api::Object;
use api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use client::{Client, DeleteOptions, Error, EventType, Patch, PatchOptions, Recorder};
use jiff::Timestamp;
use meta::{ObjectKey, Time};
use scheduler::PodInfo;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::{debug, warn};

/// The longest text of an event.
const MESSAGE_BYTES_MAX: usize = 1024;
const CUT: &str = " ...";

pub fn key_of(pod: &Pod) -> ObjectKey {
    ObjectKey::new(pod.metadata.namespace.clone(), pod.metadata.name.clone())
}

/// Asks the server to put a pod on a node.
pub async fn bind(client: &Client, pod: &Pod, node: &str) -> Result<(), Error> {
    let mut binding = Binding {
        target: ObjectReference { kind: "Node".into(), name: node.into(), ..Default::default() },
        ..Default::default()
    };
    let metadata = binding.metadata_mut();
    metadata.namespace.clone_from(&pod.metadata.namespace);
    metadata.name.clone_from(&pod.metadata.name);
    // The server refuses another pod that has meanwhile taken the name.
    metadata.uid.clone_from(&pod.metadata.uid);
    client
        .create_subresource::<Pod, Binding, api::meta::v1::Status>(&key_of(pod), "binding", &binding)
        .await
        .map(drop)
}

/// What becomes of a pod's nomination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nomination {
    Keep,
    Set(String),
    Clear,
}

/// Why a pod is not scheduled.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// `Unschedulable` or `SchedulerError`.
    pub reason: &'static str,
    pub message: String,
    pub nomination: Nomination,
}

/// The patch that says a pod is not scheduled; `None` where its status says so already.
pub fn refusal_patch(pod: &Pod, refusal: &Refusal, now: Timestamp) -> Option<Value> {
    let nominated = &pod.status.nominated_node_name;
    let nomination = match &refusal.nomination {
        Nomination::Set(node) if node != nominated => Some(json!(node)),
        Nomination::Clear if !nominated.is_empty() => Some(Value::Null),
        _ => None,
    };
    let condition = condition(pod, "PodScheduled", "False", refusal.reason, &refusal.message, now);
    if nomination.is_none() && condition.is_none() {
        return None;
    }
    let mut status = json!({});
    if let Some(condition) = condition {
        status["conditions"] = json!([condition]);
    }
    if let Some(nomination) = nomination {
        status["nominatedNodeName"] = nomination;
    }
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

/// A condition to merge into a status; `None` where the status has it as it is.
fn condition(
    pod: &Pod,
    sort: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Option<Value> {
    let old = pod.status.conditions.iter().find(|condition| condition.r#type == sort);
    let same = |old: &PodCondition| old.status == status && old.reason == reason && old.message == message;
    if old.is_some_and(same) {
        return None;
    }
    let since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time);
    let since = since.or_else(|| Time::truncated(now)).unwrap_or_default();
    Some(json!({
        "type": sort,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since.to_string(),
        "observedGeneration": pod.metadata.generation,
    }))
}

/// Writes that a pod is not scheduled. A failure is only logged: the next try writes again.
pub async fn refuse(client: &Client, pod: &Pod, refusal: &Refusal) {
    let Some(patch) = refusal_patch(pod, refusal, Timestamp::now()) else { return };
    if let Err(error) = patch_status(client, pod, patch).await {
        debug!(pod = %key_of(pod), cause = error.chain(), "Could not write the pod's condition");
    }
}

async fn patch_status(client: &Client, pod: &Pod, patch: Value) -> Result<(), Error> {
    let (key, patch) = (key_of(pod), Patch::Strategic(patch));
    client.patch_status::<Pod>(&key, &patch, &PatchOptions::default()).await.map(drop)
}

/// Deletes the victims of a preemption, each marked first with why it goes. Victims that are gone already are fine.
pub async fn evict(
    client: &Client,
    recorder: &Recorder,
    pod: &Pod,
    node: &str,
    victims: &[Arc<PodInfo>],
) -> Result<(), Error> {
    let scheduler = &pod.spec.scheduler_name;
    let message = format!("{scheduler}: preempting to accommodate a higher priority pod");
    for victim in victims {
        let victim = &*victim.pod;
        let reason = "PreemptionByScheduler";
        let condition = condition(victim, "DisruptionTarget", "True", reason, &message, Timestamp::now());
        if let Some(condition) = condition {
            let patch =
                json!({"metadata": {"uid": victim.metadata.uid}, "status": {"conditions": [condition]}});
            match patch_status(client, victim, patch).await {
                Err(error) if error.is_not_found() => continue,
                written => written?,
            }
        }
        let options = DeleteOptions::of_uid(victim.metadata.uid.clone());
        match client.delete::<Pod>(&key_of(victim), &options).await {
            Err(error) if error.is_not_found() => continue,
            Err(error) => {
                warn!(victim = %key_of(victim), cause = error.chain(), "Could not evict a pod");
                return Err(error);
            }
            Ok(_) => {}
        }
        let text = format!("Preempted by pod {} on node {node}", pod.metadata.uid);
        recorder.event(victim, EventType::Normal, "Preempted", &text);
    }
    Ok(())
}

/// A text cut to what an event takes.
pub fn cut(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let mut end = MESSAGE_BYTES_MAX - CUT.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &message[..end])
}
