//! ReplicationControllers: ReplicaSets' elder, with a selector of plain labels.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Step};
use crate::replicas::{Owner, Trouble, candidates, owners_of_pod};
use api::Typed;
use api::core::v1::{Pod, ReplicationController, ReplicationControllerCondition};
use meta::labels::Selector;

pub struct ReplicationControllers;

impl Controller for ReplicationControllers {
    fn name(&self) -> &'static str {
        "replicationcontroller-controller"
    }

    fn component(&self) -> &'static str {
        "replication-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<ReplicationController>(),
            Watch::new::<Pod>(|view, old, new| {
                owners_of_pod::<ReplicationController>(view, old, new, |controller, pod| {
                    !controller.spec.selector.is_empty()
                        && Selector::from_map(&controller.spec.selector).matches(&pod.metadata.labels)
                })
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(controller) = context.view.get::<ReplicationController>(context.key) else { return plan };
        let Some(template) = &controller.spec.template else { return plan };
        if controller.spec.selector.is_empty() {
            return plan;
        }
        let metadata = &controller.metadata;
        let owner = Owner {
            object: controller.as_ref(),
            gvk: ReplicationController::gvk(),
            selector: &Selector::from_map(&controller.spec.selector),
            template,
            replicas: controller.spec.replicas.unwrap_or(1),
            min_ready_seconds: controller.spec.min_ready_seconds,
            related: &|| candidates(context.view, &metadata.namespace, &metadata.uid).collect(),
        };
        let counts = owner.manage(context, &mut plan);
        let mut next = ReplicationController::clone(&controller);
        let conditions = &mut next.status.conditions;
        let failing = conditions.iter().any(|condition| condition.r#type == "ReplicaFailure");
        match owner.trouble(context, &plan) {
            Trouble::Failed(reason, message) if !failing => {
                conditions.push(ReplicationControllerCondition {
                    r#type: "ReplicaFailure".into(),
                    status: "True".into(),
                    last_transition_time: Some(context.now),
                    reason: reason.into(),
                    message,
                });
            }
            Trouble::None if failing => {
                conditions.retain(|condition| condition.r#type != "ReplicaFailure");
            }
            _ => {}
        }
        next.status.replicas = counts.replicas;
        next.status.fully_labeled_replicas = counts.fully_labeled;
        next.status.ready_replicas = counts.ready;
        next.status.available_replicas = counts.available;
        next.status.observed_generation = metadata.generation;
        if next.status != controller.status {
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            plan.steps.push(Step::new(update).always());
        }
        plan
    }
}
