//! ReplicaSets: so many pods of one template, adopted, made, and deleted in the order of least harm.

use crate::controller::{Context, Controller, Watch};
use crate::ownership::controller_of;
use crate::plan::{Action, Plan, Step};
use crate::replicas::{Counts, Owner, Trouble, candidates, owners_of_pod};
use api::Typed;
use api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use api::core::v1::Pod;
use meta::Time;
use meta::labels::Selector;
use std::sync::Arc;
use view::View;

pub struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<ReplicaSet>(),
            Watch::new::<Pod>(|view, old, new| {
                owners_of_pod::<ReplicaSet>(view, old, new, |set, pod| {
                    selector(set).is_some_and(|selector| selector.matches(&pod.metadata.labels))
                })
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = context.view.get::<ReplicaSet>(context.key) else { return plan };
        let Some(selector) = selector(&set) else { return plan };
        let owner = Owner {
            object: set.as_ref(),
            gvk: ReplicaSet::gvk(),
            selector: &selector,
            template: &set.spec.template,
            replicas: set.spec.replicas.unwrap_or(1),
            min_ready_seconds: set.spec.min_ready_seconds,
            related: &|| related(context.view, &set),
        };
        let counts = owner.manage(context, &mut plan);
        let status = status(&set, &counts, owner.trouble(context, &plan), context.now);
        if status != set.status {
            let mut next = ReplicaSet::clone(&set);
            next.status = status;
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            plan.steps.push(Step::new(update).always());
        }
        plan
    }
}

fn selector(set: &ReplicaSet) -> Option<Selector> {
    api::selector(set.spec.selector.as_deref()?).ok()
}

/// The pods of all sets that the same controller owns: a rollout's old and new pods crowd a node alike.
fn related(view: &View, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    let Some(controller) = controller_of(&set.metadata) else {
        return candidates(view, &set.metadata.namespace, &set.metadata.uid)
            .filter(|pod| controller_of(&pod.metadata).is_some())
            .collect();
    };
    view.owned_by::<ReplicaSet>(&controller.uid)
        .flat_map(|sibling| view.owned_by::<Pod>(&sibling.metadata.uid).collect::<Vec<_>>())
        .collect()
}

fn status(set: &ReplicaSet, counts: &Counts, trouble: Trouble, now: Time) -> ReplicaSetStatus {
    let mut status = set.status.clone();
    let failing = status.conditions.iter().any(|condition| condition.r#type == "ReplicaFailure");
    match trouble {
        Trouble::Failed(reason, message) if !failing => status.conditions.push(ReplicaSetCondition {
            r#type: "ReplicaFailure".into(),
            status: "True".into(),
            last_transition_time: Some(now),
            reason: reason.into(),
            message,
        }),
        Trouble::None if failing => {
            status.conditions.retain(|condition| condition.r#type != "ReplicaFailure");
        }
        _ => {}
    }
    status.replicas = counts.replicas;
    status.fully_labeled_replicas = counts.fully_labeled;
    status.ready_replicas = counts.ready;
    status.available_replicas = counts.available;
    status.terminating_replicas = Some(counts.terminating);
    status.observed_generation = set.metadata.generation;
    status
}
