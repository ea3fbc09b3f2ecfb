//! PodDisruptionBudgets: how many of their pods may be evicted now.

use crate::controller::{Context, Controller, Watch};
use crate::ownership::controller_of;
use crate::plan::{Action, Note, Plan};
use crate::pod;
use api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use api::core::v1::{Pod, ReplicationController};
use api::meta::v1::Condition;
use api::policy::v1::PodDisruptionBudget;
use meta::{IntOrString, ObjectKey, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use view::View;

/// An eviction that was allowed and has not happened in this time will not happen any more.
const EVICTION_SECONDS: i64 = 120;

pub struct Disruption;

impl Controller for Disruption {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn component(&self) -> &'static str {
        "controllermanager"
    }

    fn account(&self) -> &'static str {
        "disruption-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<PodDisruptionBudget>(),
            Watch::new::<Pod>(|view, old, new| {
                let pods = [old, new];
                let Some(pod) = new.or(old) else { return Vec::new() };
                view.in_namespace::<PodDisruptionBudget>(&pod.metadata.namespace)
                    .filter(|budget| pods.iter().flatten().any(|pod| selects(budget, pod)))
                    .map(|budget| view::key_of(budget.as_ref()))
                    .collect()
            }),
            // How many pods there should be is said by those who make them.
            Watch::new::<ReplicaSet>(|view, old, new| {
                of_namespace(view, old.or(new).map(|set| &set.metadata))
            }),
            Watch::new::<Deployment>(|view, old, new| {
                of_namespace(view, old.or(new).map(|set| &set.metadata))
            }),
            Watch::new::<StatefulSet>(|view, old, new| {
                of_namespace(view, old.or(new).map(|set| &set.metadata))
            }),
            Watch::new::<ReplicationController>(|view, old, new| {
                of_namespace(view, old.or(new).map(|set| &set.metadata))
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(budget) = context.view.get::<PodDisruptionBudget>(context.key) else { return plan };
        let pods: Vec<Arc<Pod>> = context
            .view
            .in_namespace::<Pod>(&budget.metadata.namespace)
            .filter(|pod| selects(&budget, pod) && !pod::is_finished(pod))
            .collect();
        let mut next = PodDisruptionBudget::clone(&budget);
        let disrupted = still_disrupted(&budget, &pods, context.now, &mut plan);
        match expected(context.view, &budget, &pods) {
            Ok((expected, desired)) => {
                let healthy = pods
                    .iter()
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none() && pod::is_ready(pod))
                    .filter(|pod| !disrupted.contains_key(&pod.metadata.name));
                let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
                let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
                let status = &mut next.status;
                status.current_healthy = healthy;
                status.desired_healthy = desired;
                status.expected_pods = expected;
                status.disruptions_allowed = allowed;
                let (truth, reason) =
                    if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
                set_condition(&mut status.conditions, truth, reason, "", &budget, context.now);
            }
            Err(message) => {
                plan.events.push(Note::warning(
                    budget.as_ref(),
                    "CalculateExpectedPodCountFailed",
                    format!("Failed to calculate the number of expected pods: {message}"),
                ));
                let status = &mut next.status;
                status.disruptions_allowed = 0;
                set_condition(&mut status.conditions, "False", "SyncFailed", &message, &budget, context.now);
            }
        }
        next.status.disrupted_pods = disrupted;
        next.status.observed_generation = budget.metadata.generation;
        if next.status != budget.status {
            plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
        } else {
            // Told once, with the change of status that it explains.
            plan.events.clear();
        }
        plan
    }
}

fn of_namespace(view: &View, metadata: Option<&api::meta::v1::ObjectMeta>) -> Vec<ObjectKey> {
    let Some(metadata) = metadata else { return Vec::new() };
    let budgets = view.in_namespace::<PodDisruptionBudget>(&metadata.namespace);
    budgets.map(|budget| view::key_of(budget.as_ref())).collect()
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    api::optional_selector(budget.spec.selector.as_deref())
        .is_ok_and(|selector| selector.matches(&pod.metadata.labels))
}

/// Evictions that the API server allowed and that are not yet seen, without those that came to nothing.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: Time,
    plan: &mut Plan,
) -> BTreeMap<String, Option<Time>> {
    let mut disrupted = BTreeMap::new();
    for (name, since) in &budget.status.disrupted_pods {
        let there =
            pods.iter().any(|pod| pod.metadata.name == *name && pod.metadata.deletion_timestamp.is_none());
        let left = since.map_or(0, |since| since.seconds() + EVICTION_SECONDS - now.seconds());
        if there && left > 0 {
            plan.again_after_seconds(left);
            disrupted.insert(name.clone(), *since);
        }
    }
    disrupted
}

/// How many pods there should be, and how many of them must be healthy.
fn expected(view: &View, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<(i32, i32), String> {
    let found = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    match (&budget.spec.max_unavailable, &budget.spec.min_available) {
        (Some(most), _) => {
            let expected = scale(view, pods)?;
            let unavailable = most.scaled(expected, true).ok_or("maxUnavailable is no percentage")?;
            Ok((expected, (expected - unavailable).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((found, *least)),
        (None, Some(least)) => {
            let expected = scale(view, pods)?;
            Ok((expected, least.scaled(expected, true).ok_or("minAvailable is no percentage")?))
        }
        (None, None) => Ok((found, 0)),
    }
}

/// The replicas of all controllers that the pods have, each counted once.
fn scale(view: &View, pods: &[Arc<Pod>]) -> Result<i32, String> {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        let name = &pod.metadata.name;
        let Some(owner) = controller_of(&pod.metadata) else {
            return Err(format!("found no controller ref for pod {name:?}"));
        };
        let key = ObjectKey::new(pod.metadata.namespace.clone(), owner.name.clone());
        let (uid, replicas) = match owner.kind.as_str() {
            "ReplicaSet" => match view.get_by_uid::<ReplicaSet>(&key, &owner.uid) {
                Some(set) => of_set(view, &set),
                None => continue,
            },
            "StatefulSet" => match view.get_by_uid::<StatefulSet>(&key, &owner.uid) {
                Some(set) => (set.metadata.uid.clone(), set.spec.replicas.unwrap_or(1)),
                None => continue,
            },
            "ReplicationController" => match view.get_by_uid::<ReplicationController>(&key, &owner.uid) {
                Some(set) => (set.metadata.uid.clone(), set.spec.replicas.unwrap_or(1)),
                None => continue,
            },
            kind => {
                return Err(format!("{} {kind} does not implement the scale subresource", owner.api_version));
            }
        };
        scales.insert(uid, replicas);
    }
    Ok(scales.values().sum())
}

/// A set of a deployment stands for it.
fn of_set(view: &View, set: &ReplicaSet) -> (String, i32) {
    let deployment = controller_of(&set.metadata).and_then(|owner| {
        let key = ObjectKey::new(set.metadata.namespace.clone(), owner.name.clone());
        view.get_by_uid::<Deployment>(&key, &owner.uid)
    });
    match deployment {
        Some(deployment) => (deployment.metadata.uid.clone(), deployment.spec.replicas.unwrap_or(1)),
        None => (set.metadata.uid.clone(), set.spec.replicas.unwrap_or(1)),
    }
}

fn set_condition(
    conditions: &mut Vec<Condition>,
    status: &str,
    reason: &str,
    message: &str,
    budget: &PodDisruptionBudget,
    now: Time,
) {
    let kind = "DisruptionAllowed";
    let next = Condition {
        r#type: kind.into(),
        status: status.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: Some(now),
        reason: reason.into(),
        message: message.into(),
    };
    match conditions.iter_mut().find(|condition| condition.r#type == kind) {
        Some(current) => {
            let since = if current.status == status { current.last_transition_time } else { Some(now) };
            *current = Condition { last_transition_time: since, ..next };
        }
        None => conditions.push(next),
    }
}
