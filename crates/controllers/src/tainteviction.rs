//! Pods that do not tolerate their node's NoExecute taints: they go, at once or when their toleration runs out.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Note, Plan, Step, Target};
use api::core::v1::{Node, Pod, Taint, Toleration};
use meta::ObjectKey;

pub struct TaintEviction;

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn account(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Pod>(|_, old, new| {
                let Some(pod) = new.filter(|pod| !pod.spec.node_name.is_empty()) else { return Vec::new() };
                let same = old.is_some_and(|old| {
                    old.spec.node_name == pod.spec.node_name && old.spec.tolerations == pod.spec.tolerations
                });
                if same { Vec::new() } else { vec![view::key_of(pod)] }
            }),
            Watch::new::<Node>(|view, old, new| {
                let Some(node) = new else { return Vec::new() };
                let evicting = |node: &Node| {
                    node.spec
                        .taints
                        .iter()
                        .filter(|taint| taint.effect == "NoExecute")
                        .cloned()
                        .collect::<Vec<_>>()
                };
                if old.map(evicting).unwrap_or_default() == evicting(node) {
                    return Vec::new();
                }
                view.pods_on_node(&node.metadata.name).map(|pod| view::key_of(pod.as_ref())).collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = context.view.get::<Pod>(context.key) else { return plan };
        if pod.spec.node_name.is_empty() || pod.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let Some(node) = context.view.get::<Node>(&ObjectKey::cluster(pod.spec.node_name.clone())) else {
            return plan;
        };
        match stays(&pod, &node, context.now.seconds()) {
            Stay::Ever => {}
            Stay::Seconds(seconds) => plan.again_after_seconds(seconds),
            Stay::No => evict(&pod, &mut plan),
        }
        plan
    }
}

#[derive(Debug, PartialEq)]
enum Stay {
    Ever,
    Seconds(i64),
    No,
}

/// How long a pod may stay on its node: as long as the shortest of the tolerations that its taints need.
fn stays(pod: &Pod, node: &Node, now: i64) -> Stay {
    let mut end: Option<i64> = None;
    for taint in node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let mut used =
            pod.spec.tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if used.peek().is_none() {
            return Stay::No;
        }
        if let Some(seconds) = used.filter_map(|toleration| toleration.toleration_seconds).min() {
            let since = taint.time_added.map_or(now, |time| time.seconds());
            let until = since.saturating_add(seconds.max(0));
            end = Some(end.map_or(until, |earlier| earlier.min(until)));
        }
    }
    match end {
        None => Stay::Ever,
        Some(end) if end <= now => Stay::No,
        Some(end) => Stay::Seconds(end - now),
    }
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && toleration.effect != taint.effect {
        return false;
    }
    if !toleration.key.is_empty() && toleration.key != taint.key {
        return false;
    }
    match toleration.operator.as_str() {
        "" | "Equal" => !toleration.key.is_empty() && toleration.value == taint.value,
        "Exists" => true,
        "Lt" | "Gt" => {
            let (Ok(wanted), Ok(given)) = (toleration.value.parse::<i64>(), taint.value.parse::<i64>())
            else {
                return false;
            };
            if toleration.operator == "Lt" { given < wanted } else { given > wanted }
        }
        _ => false,
    }
}

fn evict(pod: &Pod, plan: &mut Plan) {
    let name = view::key_of(pod);
    plan.push(Action::Patch {
        target: Target::of(pod),
        subresource: "status",
        strategic: true,
        body: serde_json::json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
            }]},
        }),
    });
    let delete = Action::Delete { target: Target::of(pod), propagation: None, grace_seconds: None };
    let note = Note::normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {name}"));
    plan.steps.push(Step::new(delete).done(note).always());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: key.into(),
            operator: operator.into(),
            value: value.into(),
            effect: "NoExecute".into(),
            toleration_seconds: seconds,
        }
    }

    #[test]
    fn the_shortest_toleration_counts() {
        let mut node = Node::default();
        for key in ["a", "b"] {
            let time_added = meta::Time::from_seconds(100);
            node.spec.taints.push(Taint {
                key: key.into(),
                value: "v".into(),
                effect: "NoExecute".into(),
                time_added,
            });
        }
        let mut pod = Pod::default();
        assert_eq!(stays(&pod, &node, 100), Stay::No);
        pod.spec.tolerations = vec![toleration("a", "Exists", "", Some(300))];
        assert_eq!(stays(&pod, &node, 100), Stay::No);
        pod.spec.tolerations.push(toleration("b", "Equal", "v", Some(60)));
        assert_eq!(stays(&pod, &node, 110), Stay::Seconds(50));
        assert_eq!(stays(&pod, &node, 160), Stay::No);
        pod.spec.tolerations = vec![toleration("", "Exists", "", None)];
        assert_eq!(stays(&pod, &node, 1000), Stay::Ever);
    }
}
