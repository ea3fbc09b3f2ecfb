//! Deployments: ReplicaSets of successive templates, exchanged at the pace that surge and unavailability allow.

mod history;
mod rollout;
mod scaling;
mod status;

pub(crate) use history::template_hash;

use crate::controller::{Context, Controller, Watch};
use crate::ownership::{claim, controller_key, controller_of, is_controlled_by};
use crate::plan::{Action, Note, Plan, Step};
use api::Typed;
use api::apps::v1::{Deployment, ReplicaSet};
use api::core::v1::Pod;
use meta::labels::Selector;
use meta::{IntOrString, ObjectKey, Time};
use std::sync::Arc;

/// On ReplicaSets and their Deployment: which template this is, counted up.
pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
/// On ReplicaSets: the revisions they were before, comma-separated.
pub(crate) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// On ReplicaSets: the Deployment's replicas when it was last scaled.
pub(crate) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// On ReplicaSets: replicas and surge when it was last scaled.
pub(crate) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// The label that tells the pods of one template from those of another.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";
/// What says in which state a rollout's progress is not watched.
const NO_DEADLINE: i32 = i32::MAX;

pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<Deployment>(),
            Watch::new::<ReplicaSet>(|view, old, new| {
                let mut keys: Vec<ObjectKey> = [old, new]
                    .into_iter()
                    .flatten()
                    .filter_map(|set| controller_key::<Deployment>(&set.metadata))
                    .collect();
                if let Some(set) = new.filter(|set| controller_of(&set.metadata).is_none()) {
                    let deployments = view.in_namespace::<Deployment>(&set.metadata.namespace);
                    keys.extend(deployments.filter_map(|deployment| {
                        let matches = selector(&deployment)?.matches(&set.metadata.labels);
                        matches.then(|| view::key_of(deployment.as_ref()))
                    }));
                }
                keys
            }),
            // A pod that is gone may let a Recreate go on.
            Watch::new::<Pod>(|view, old, new| {
                let (Some(pod), None) = (old, new) else { return Vec::new() };
                let set =
                    controller_key::<ReplicaSet>(&pod.metadata).and_then(|key| view.get::<ReplicaSet>(&key));
                let key = set.and_then(|set| controller_key::<Deployment>(&set.metadata));
                key.into_iter().collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(deployment) = context.view.get::<Deployment>(context.key) else { return plan };
        let Some(selector) = selector(&deployment) else { return plan };
        if selector.is_everything() {
            selects_everything(&deployment, &mut plan);
            return plan;
        }
        let metadata = &deployment.metadata;
        let owned = context.view.owned_by::<ReplicaSet>(&metadata.uid);
        let owned = owned.filter(|set| is_controlled_by(&set.metadata, &metadata.uid));
        let orphans = context.view.orphans_in::<ReplicaSet>(&metadata.namespace);
        let claimed = claim(metadata, Deployment::gvk(), &selector, owned.chain(orphans));
        for action in claimed.actions {
            plan.push(action);
        }
        let sets = claimed.objects.iter().map(|set| ReplicaSet::clone(set)).collect();
        let mut rollout = Rollout::new(&deployment, sets, context);
        rollout.run();
        plan.steps.append(&mut rollout.plan.steps);
        plan.events.append(&mut rollout.plan.events);
        plan.again = rollout.plan.again;
        plan
    }
}

fn selector(deployment: &Deployment) -> Option<Selector> {
    api::selector(deployment.spec.selector.as_deref()?).ok()
}

fn selects_everything(deployment: &Arc<Deployment>, plan: &mut Plan) {
    plan.events.push(Note::warning(
        deployment.as_ref(),
        "SelectingAll",
        "This deployment is selecting all pods. A non-empty selector is required.",
    ));
    if deployment.status.observed_generation < deployment.metadata.generation {
        let mut next = Deployment::clone(deployment);
        next.status.observed_generation = next.metadata.generation;
        plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
    } else {
        plan.events.clear();
    }
}

/// One look at a Deployment and its ReplicaSets. The sets are changed here as the plan changes them, so that each
/// decision counts on those before it.
pub(crate) struct Rollout<'a> {
    deployment: &'a Deployment,
    /// Every set but the new one, oldest first.
    old: Vec<ReplicaSet>,
    /// The set of the Deployment's own template.
    new: Option<ReplicaSet>,
    context: &'a Context<'a>,
    replicas: i32,
    max_surge: i32,
    max_unavailable: i32,
    /// The status to come, conditions first.
    status: api::apps::v1::DeploymentStatus,
    plan: Plan,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, mut sets: Vec<ReplicaSet>, context: &'a Context<'a>) -> Self {
        sets.sort_by(|a, b| {
            let key = |set: &ReplicaSet| (set.metadata.creation_timestamp, set.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        let new =
            sets.iter().position(|set| history::same_template(&set.spec.template, &deployment.spec.template));
        let new = new.map(|at| sets.remove(at));
        let replicas = deployment.spec.replicas.unwrap_or(1);
        let (max_surge, max_unavailable) = fenceposts(deployment, replicas);
        Rollout {
            deployment,
            old: sets,
            new,
            context,
            replicas,
            max_surge,
            max_unavailable,
            status: deployment.status.clone(),
            plan: Plan::default(),
        }
    }

    fn now(&self) -> Time {
        self.context.now
    }

    fn is_rolling(&self) -> bool {
        is_rolling(self.deployment)
    }

    /// All sets, the new one last.
    fn sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(self.new.as_ref())
    }

    fn has_deadline(&self) -> bool {
        self.deployment.spec.progress_deadline_seconds.is_some_and(|seconds| seconds != NO_DEADLINE)
    }

    fn run(&mut self) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            self.sync_revision();
            self.update_status();
            return;
        }
        self.note_pause();
        if self.deployment.spec.paused {
            self.sync_revision();
            self.scale();
            self.clean_up();
            self.update_status();
        } else if self.is_scaling() {
            self.sync_revision();
            self.scale();
            self.update_status();
        } else if self.is_rolling() {
            self.roll();
        } else {
            self.recreate();
        }
    }

    /// Plans a set's new size; answers whether the size changes.
    fn resize(&mut self, which: Which, size: i32, force: bool) -> bool {
        let (desired, limit) = (self.replicas, self.replicas + self.max_surge);
        let set = match which {
            Which::Old(at) => &mut self.old[at],
            Which::New => match &mut self.new {
                Some(set) => set,
                None => return false,
            },
        };
        let before = size_of(set);
        if before == size && !force {
            return false;
        }
        let annotations = &mut set.metadata.annotations;
        let marked = mark(annotations, DESIRED_REPLICAS, desired) | mark(annotations, MAX_REPLICAS, limit);
        if before == size && !marked {
            return false;
        }
        set.spec.replicas = Some(size);
        let mut step = Step::new(Action::Update(Box::new(set.clone())));
        if before != size {
            let way = if before < size { "up" } else { "down" };
            let name = &set.metadata.name;
            step = step.done(Note::normal(
                self.deployment,
                "ScalingReplicaSet",
                format!("Scaled {way} replica set {name} from {before} to {size}"),
            ));
        }
        // A second change to the same set within this plan takes the first one's place.
        let uid = &set.metadata.uid;
        self.plan.steps.retain(|step| {
            !matches!(&step.action, Action::Update(object) if object.metadata().uid == *uid && !uid.is_empty())
        });
        self.plan.steps.push(step);
        before != size
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Which {
    Old(usize),
    New,
}

fn mark(annotations: &mut std::collections::BTreeMap<String, String>, name: &str, value: i32) -> bool {
    let value = value.to_string();
    if annotations.get(name) == Some(&value) {
        return false;
    }
    annotations.insert(name.into(), value);
    true
}

/// The replicas a set is to have.
pub(crate) fn size_of(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.strategy.r#type != "Recreate"
}

/// Surge and unavailability as numbers of pods. Both zero would stand still: then one pod may be unavailable.
fn fenceposts(deployment: &Deployment, replicas: i32) -> (i32, i32) {
    if !is_rolling(deployment) {
        return (0, 0);
    }
    let rolling = deployment.spec.strategy.rolling_update.as_deref();
    let scaled = |value: Option<&IntOrString>, up: bool| {
        value.map_or(0, |value| value.scaled(replicas, up).unwrap_or(0).max(0))
    };
    let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
    let mut unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    (surge, if replicas == 0 { 0 } else { unavailable.min(replicas) })
}
