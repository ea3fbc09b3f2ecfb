//! Pods that no kubelet will ever finish: of vanished nodes, terminating before they had one, and too many finished ones.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Step, Target};
use crate::pod;
use api::core::v1::{Node, Pod};
use meta::ObjectKey;
use std::sync::Arc;

/// A node that is missing for less than this may be registering anew.
const QUARANTINE_SECONDS: i64 = 40;
/// The key under which finished pods are counted; no pod can have it, as every pod has a namespace.
const FINISHED: &str = "finished-pods";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub struct PodGc {
    /// How many finished pods may stay; 0 for any number.
    pub terminated_threshold: usize,
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn component(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Pod>(|_, _, new| {
                let Some(pod) = new else { return Vec::new() };
                let mut keys = vec![view::key_of(pod)];
                if pod::is_finished(pod) {
                    keys.push(ObjectKey::cluster(FINISHED));
                }
                keys
            }),
            Watch::new::<Node>(|view, old, new| {
                let Some(node) = new.or(old) else { return Vec::new() };
                let left = new.is_none();
                let out_of_service = node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
                if !left && !out_of_service {
                    return Vec::new();
                }
                view.pods_on_node(&node.metadata.name).map(|pod| view::key_of(pod.as_ref())).collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        if context.key.namespace.is_empty() {
            self.drop_finished(context, &mut plan);
            return plan;
        }
        let Some(pod) = context.view.get::<Pod>(context.key) else { return plan };
        let leaving = pod.metadata.deletion_timestamp.is_some();
        let node_name = &pod.spec.node_name;
        if node_name.is_empty() {
            if leaving {
                force_delete(&pod, None, &mut plan);
            }
            return plan;
        }
        match context.view.get::<Node>(&ObjectKey::cluster(node_name.clone())) {
            Some(node) => {
                let ready = node.status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True");
                let out = node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
                if leaving && out && !ready {
                    force_delete(&pod, None, &mut plan);
                }
            }
            None => {
                plan.mark = format!("{node_name} is missing");
                let missing = context.seconds_marked(&plan.mark);
                // The view of nodes must be as new as the binding, or the node may merely not be seen yet.
                let seen = context.view.revision(view::kind_id::<Node>()) >= view::revision_of(pod.as_ref());
                if missing >= QUARANTINE_SECONDS && seen {
                    force_delete(&pod, Some("PodGC: node no longer exists"), &mut plan);
                } else {
                    plan.again_after_seconds((QUARANTINE_SECONDS - missing).max(5));
                }
            }
        }
        plan
    }
}

impl PodGc {
    fn drop_finished(&self, context: &Context<'_>, plan: &mut Plan) {
        if self.terminated_threshold == 0 || context.view.len::<Pod>() <= self.terminated_threshold {
            return;
        }
        let mut finished: Vec<Arc<Pod>> =
            context.view.list::<Pod>().filter(|pod| pod::is_finished(pod)).collect();
        let surplus = finished.len().saturating_sub(self.terminated_threshold);
        // Evicted pods first, then the oldest.
        finished.sort_by_key(|pod| {
            let evicted = pod.status.reason == "Evicted";
            (!evicted, pod.metadata.creation_timestamp, view::key_of(pod.as_ref()))
        });
        for pod in finished.into_iter().take(surplus) {
            force_delete(&pod, None, plan);
        }
    }
}

/// Marks a pod failed, since nobody else will say so, and deletes it at once.
fn force_delete(pod: &Pod, why: Option<&str>, plan: &mut Plan) {
    if !pod::is_finished(pod) {
        let mut status = serde_json::json!({"phase": "Failed"});
        if let Some(why) = why {
            status["conditions"] = serde_json::json!([{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": why,
            }]);
        }
        plan.steps.push(Step::new(Action::Patch {
            target: Target::of(pod),
            subresource: "status",
            strategic: true,
            body: serde_json::json!({"metadata": {"uid": pod.metadata.uid}, "status": status}),
        }));
    }
    plan.push(Action::Delete { target: Target::of(pod), propagation: None, grace_seconds: Some(0) });
}
