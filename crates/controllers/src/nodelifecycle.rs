//! Nodes that fall silent: their conditions become Unknown, their taints keep pods away and let go those that run there.

use crate::controller::{Context, Controller, Watch};
use crate::ownership;
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use api::coordination::v1::Lease;
use api::core::v1::{Node, NodeCondition, Pod, Taint};
use meta::{ObjectKey, Time};
use std::sync::Arc;
use view::View;

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taints that follow a condition: type, the status that sets it, key.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// What a silent kubelet no longer vouches for.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub struct NodeLifecycle {
    /// A node that was not heard of for so long is Unknown.
    pub grace_seconds: i64,
    /// The same for a node that has never been ready.
    pub startup_grace_seconds: i64,
    pub eviction: EvictionRate,
}

/// How fast the nodes of a zone may lose their pods: where many fall silent at once, the fault may not be theirs.
#[derive(Clone, Copy, Debug)]
pub struct EvictionRate {
    /// Nodes a second while the zone is healthy, or has no node left that is.
    pub normal: f64,
    /// Nodes a second while it is not, in a zone larger than `large_zone`; in smaller ones nothing is evicted then.
    pub secondary: f64,
    pub large_zone: usize,
    /// From which part of its nodes on, and at least three, a zone is unhealthy.
    pub unhealthy: f64,
}

impl Default for EvictionRate {
    fn default() -> Self {
        EvictionRate { normal: 0.1, secondary: 0.01, large_zone: 50, unhealthy: 0.55 }
    }
}

impl EvictionRate {
    /// Nodes a second, by the health of a zone.
    fn of(&self, nodes: usize, unready: usize) -> f64 {
        let partly = unready > 2 && unready < nodes && unready as f64 / nodes as f64 >= self.unhealthy;
        match (partly, nodes > self.large_zone) {
            (false, _) => self.normal,
            (true, true) => self.secondary,
            (true, false) => 0.0,
        }
    }

    /// In how many seconds the pods of a node may be let go; `None` while they may not. Nodes take turns, those first
    /// that have been unready longest, each so long after the last as the rate says.
    fn wait(&self, node: &Node, view: &View, now: Time) -> Option<i64> {
        let zone = zone(node);
        let nodes: Vec<Arc<Node>> = view.list::<Node>().filter(|other| self::zone(other) == zone).collect();
        let unready: Vec<&Arc<Node>> = nodes.iter().filter(|node| !is_ready(node)).collect();
        let rate = self.of(nodes.len(), unready.len());
        if rate <= 0.0 {
            return None;
        }
        let pause = (1.0 / rate).ceil() as i64;
        let last = nodes.iter().filter_map(|node| evicted_at(node)).max();
        let order =
            |node: &Node| (ready(node).and_then(|c| c.last_transition_time), node.metadata.name.clone());
        let own = order(node);
        let ahead = unready.iter().filter(|other| evicted_at(other).is_none() && order(other) < own).count();
        let turn = i64::try_from(ahead).unwrap_or(i64::MAX).saturating_mul(pause);
        let first = last.map_or(0, |last| (last.seconds() + pause - now.seconds()).max(0));
        Some(first.saturating_add(turn))
    }
}

/// Region and zone; nodes without them are in one of their own.
fn zone(node: &Node) -> (String, String) {
    let label = |name: &str| node.metadata.labels.get(name).cloned().unwrap_or_default();
    (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

fn is_ready(node: &Node) -> bool {
    ready(node).is_some_and(|condition| condition.status == "True")
}

fn is_evicting(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

/// When the pods of a node were let go, where they were.
fn evicted_at(node: &Node) -> Option<Time> {
    node.spec.taints.iter().filter(|taint| is_evicting(taint)).filter_map(|taint| taint.time_added).max()
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn component(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Node>(|view, old, new| {
                let ready = |node: Option<&Node>| node.and_then(ready).map(|c| c.status.clone());
                if ready(old) == ready(new) {
                    return new.map(|node| view::key_of(node)).into_iter().collect();
                }
                // Whether all nodes are unready concerns every node.
                view.list::<Node>().map(|node| view::key_of(node.as_ref())).collect()
            }),
            Watch::new::<Lease>(|_, old, new| match new.or(old) {
                Some(lease) if lease.metadata.namespace == LEASES => {
                    vec![ObjectKey::cluster(lease.metadata.name.clone())]
                }
                _ => Vec::new(),
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = context.view.get::<Node>(context.key) else { return plan };
        if self.judge_silence(&node, context, &mut plan) {
            return plan;
        }
        set_taints(&node, context, &self.eviction, &mut plan);
        unready_pods(&node, context, &mut plan);
        plan
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.conditions.iter().find(|condition| condition.r#type == "Ready")
}

impl NodeLifecycle {
    /// Whether the node's conditions are being set to Unknown.
    fn judge_silence(&self, node: &Node, context: &Context<'_>, plan: &mut Plan) -> bool {
        let lease = context.view.get::<Lease>(&ObjectKey::new(LEASES, context.key.name.clone()));
        let renewed = lease.as_ref().and_then(|lease| lease.spec.renew_time);
        let heard = ready(node).and_then(|condition| condition.last_heartbeat_time);
        let status = ready(node).map(|condition| condition.status.as_str());
        // What changes with every sign of life. Our own writes change neither.
        plan.mark = format!(
            "{} {}",
            renewed.map(|time| time.to_string()).unwrap_or_default(),
            heard.map(|time| time.to_string()).unwrap_or_default()
        );
        if status == Some("Unknown") {
            return false;
        }
        let grace = if status.is_some() { self.grace_seconds } else { self.startup_grace_seconds };
        let silent = context.seconds_marked(&plan.mark);
        if silent < grace {
            plan.again_after_seconds(grace - silent);
            return false;
        }
        let mut next = node.clone();
        for kind in VOUCHED {
            silence(&mut next.status.conditions, kind, context.now);
        }
        let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
        let mut step = Step::new(update);
        if status == Some("True") {
            step = step.done(Note::normal(
                node,
                "NodeNotReady",
                format!("Node {} status is now: NodeNotReady", node.metadata.name),
            ));
        }
        plan.steps.push(step);
        true
    }
}

fn silence(conditions: &mut Vec<NodeCondition>, kind: &str, now: Time) {
    match conditions.iter_mut().find(|condition| condition.r#type == kind) {
        Some(condition) => {
            if condition.status != "Unknown" {
                condition.status = "Unknown".into();
                condition.reason = "NodeStatusUnknown".into();
                condition.message = "Kubelet stopped posting node status.".into();
                condition.last_transition_time = Some(now);
            }
        }
        None => conditions.push(NodeCondition {
            r#type: kind.into(),
            status: "Unknown".into(),
            last_heartbeat_time: None,
            last_transition_time: Some(now),
            reason: "NodeStatusNeverUpdated".into(),
            message: "Kubelet never posted node status.".into(),
        }),
    }
}

/// Where every node is unready, the fault lies with the network or with us, not with the nodes: nothing is evicted.
fn all_unready(view: &View) -> bool {
    view.list::<Node>().all(|node| ready(&node).is_none_or(|condition| condition.status != "True"))
}

fn set_taints(node: &Node, context: &Context<'_>, rate: &EvictionRate, plan: &mut Plan) {
    let mut wanted: Vec<(&str, &str)> = BY_CONDITION
        .iter()
        .filter(|(kind, status, _)| {
            node.status.conditions.iter().any(|c| c.r#type == *kind && c.status == *status)
        })
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let unready = ready(node).map(|condition| condition.status.as_str());
    let evicting = match unready {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    };
    let evicting = evicting.filter(|_| !all_unready(context.view)).filter(|_| {
        // One reason in place of the other lets nothing more go.
        if node.spec.taints.iter().any(is_evicting) {
            return true;
        }
        let wait = rate.wait(node, context.view, context.now);
        if let Some(wait) = wait.filter(|wait| *wait > 0) {
            plan.again_after_seconds(wait);
        }
        wait == Some(0)
    });
    wanted.extend(evicting.map(|key| (key, "NoExecute")));

    let ours = |taint: &Taint| {
        let by_condition = BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key);
        (taint.effect == "NoSchedule" && (by_condition || taint.key == UNSCHEDULABLE))
            || (taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE))
    };
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut taints: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|taint| !ours(taint) || wanted.iter().any(|wish| is(taint, *wish)))
        .cloned()
        .collect();
    for wish in wanted {
        if !taints.iter().any(|taint| is(taint, wish)) {
            taints.push(Taint {
                key: wish.0.into(),
                value: String::new(),
                effect: wish.1.into(),
                time_added: Some(context.now),
            });
        }
    }
    if taints != node.spec.taints {
        let taints: Vec<serde_json::Value> = taints.iter().map(|taint| api::codec::to_value(taint)).collect();
        plan.push(Action::Patch {
            target: Target::at_revision(node),
            subresource: "",
            strategic: false,
            body: serde_json::json!({
                "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            }),
        });
    }
}

/// Pods that were ready before their node became unready are no longer known to be: services must not count on them.
fn unready_pods(node: &Node, context: &Context<'_>, plan: &mut Plan) {
    let Some(condition) = ready(node).filter(|condition| condition.status != "True") else { return };
    let since = condition.last_transition_time;
    for pod in context.view.pods_on_node(&node.metadata.name) {
        let daemon = ownership::controller_of(&pod.metadata).is_some_and(|owner| owner.kind == "DaemonSet");
        let Some(ready) = pod::condition(&pod, "Ready").filter(|ready| ready.status == "True") else {
            continue;
        };
        if daemon || ready.last_transition_time > since {
            continue;
        }
        let mut next = Pod::clone(&pod);
        for condition in &mut next.status.conditions {
            if condition.r#type == "Ready" {
                condition.status = "False".into();
                condition.last_transition_time = Some(context.now);
            }
        }
        plan.steps.push(
            Step::new(Action::UpdateSub { object: Box::new(next), subresource: "status" })
                .done(Note::warning(pod.as_ref(), "NodeNotReady", "Node is not ready"))
                .always(),
        );
    }
}
