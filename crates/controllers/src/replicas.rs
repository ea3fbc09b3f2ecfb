//! Keeping a number of like pods: what ReplicaSets and ReplicationControllers share.

use crate::controller::Context;
use crate::ownership::{Claimed, claim, controller_of, controller_reference};
use crate::plan::{Action, Note, Plan, Report, Step, Target};
use crate::pod;
use api::core::v1::{Pod, PodTemplateSpec};
use api::meta::v1::ObjectMeta;
use api::{Object, Typed};
use meta::labels::Selector;
use meta::{Gvk, ObjectKey};
use std::sync::Arc;
use view::View;

/// Pods created or deleted in one plan, as upstream's burst.
const BURST: usize = 500;

/// An owner of like pods.
pub(crate) struct Owner<'a> {
    pub object: &'a dyn Object,
    pub gvk: Gvk,
    pub selector: &'a Selector,
    pub template: &'a PodTemplateSpec,
    pub replicas: i32,
    pub min_ready_seconds: i32,
    /// The pods of the same purpose, owned by siblings too, by which crowded nodes are told.
    pub related: &'a dyn Fn() -> Vec<Arc<Pod>>,
}

/// How many pods are in which state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
}

/// What became of the last attempt to reach the number.
pub(crate) enum Trouble {
    None,
    Unknown,
    /// reason and message of a ReplicaFailure condition.
    Failed(&'static str, String),
}

impl Owner<'_> {
    fn metadata(&self) -> &ObjectMeta {
        self.object.metadata()
    }

    /// Plans towards the number of replicas and counts the pods as they are now.
    pub(crate) fn manage(&self, context: &Context<'_>, plan: &mut Plan) -> Counts {
        let metadata = self.metadata();
        let candidates: Vec<Arc<Pod>> =
            candidates(context.view, &metadata.namespace, &metadata.uid).collect();
        let active = candidates.iter().filter(|pod| pod::is_active(pod)).cloned();
        let Claimed { objects: active, actions } = claim(metadata, self.gvk, self.selector, active);
        for action in actions {
            plan.push(action);
        }
        if metadata.deletion_timestamp.is_none() {
            self.reach(&active, context, plan);
        }
        let terminating = candidates.iter().filter(|pod| {
            pod::is_terminating(pod)
                && controller_of(&pod.metadata).is_some_and(|owner| owner.uid == metadata.uid)
                && self.selector.matches(&pod.metadata.labels)
        });
        let mut counts = self.count(&active, context, plan);
        counts.terminating = i32::try_from(terminating.count()).unwrap_or(i32::MAX);
        counts
    }

    fn reach(&self, active: &[Arc<Pod>], context: &Context<'_>, plan: &mut Plan) {
        let wanted = usize::try_from(self.replicas).unwrap_or(0);
        if active.len() < wanted {
            for _ in 0..(wanted - active.len()).min(BURST) {
                let pod = Box::new(self.pod());
                plan.steps.push(
                    Step::new(Action::Create(pod))
                        .done(Note::normal(self.object, "SuccessfulCreate", "Created pod: {name}"))
                        .failed(Note::warning(self.object, "FailedCreate", "Error creating: {error}")),
                );
            }
        } else if active.len() > wanted {
            let surplus = (active.len() - wanted).min(BURST);
            let order = if surplus < active.len() {
                pod::deletion_order(active.to_vec(), &(self.related)(), context.now)
            } else {
                active.to_vec()
            };
            for pod in order.into_iter().take(surplus) {
                let name = &pod.metadata.name;
                let delete = Action::Delete {
                    target: Target::of(pod.as_ref()),
                    propagation: None,
                    grace_seconds: None,
                };
                plan.steps.push(
                    Step::new(delete)
                        .done(Note::normal(self.object, "SuccessfulDelete", format!("Deleted pod: {name}")))
                        .failed(Note::warning(self.object, "FailedDelete", "Error deleting: {error}")),
                );
            }
        }
    }

    /// A pod after the template.
    fn pod(&self) -> Pod {
        pod_from_template(self.template, self.metadata(), self.gvk)
    }

    fn count(&self, active: &[Arc<Pod>], context: &Context<'_>, plan: &mut Plan) -> Counts {
        let labels = Selector::from_map(&self.template.metadata.labels);
        let mut counts =
            Counts { replicas: i32::try_from(active.len()).unwrap_or(i32::MAX), ..Counts::default() };
        for pod in active {
            counts.fully_labeled += i32::from(labels.matches(&pod.metadata.labels));
            counts.ready += i32::from(pod::is_ready(pod));
            match pod::available_in(pod, self.min_ready_seconds, context.now) {
                Some(0) => counts.available += 1,
                Some(seconds) => plan.again_after_seconds(seconds),
                None => {}
            }
        }
        counts
    }

    /// What the last plan's report says of the number. While new writes towards it are planned, nothing is known.
    pub(crate) fn trouble(&self, context: &Context<'_>, plan: &Plan) -> Trouble {
        let busy =
            plan.steps.iter().any(|step| matches!(step.action, Action::Create(_) | Action::Delete { .. }));
        match context.report {
            Some(Report::Failed(failure)) if failure.verb == "create" => {
                Trouble::Failed("FailedCreate", failure.message.clone())
            }
            Some(Report::Failed(failure)) if failure.verb == "delete" => {
                Trouble::Failed("FailedDelete", failure.message.clone())
            }
            _ if busy => Trouble::Unknown,
            _ => Trouble::None,
        }
    }
}

/// A pod after a template: its labels, annotations and finalizers, named after its owner.
pub(crate) fn pod_from_template(template: &PodTemplateSpec, owner: &ObjectMeta, gvk: Gvk) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace.clone_from(&owner.namespace);
    pod.metadata.generate_name = format!("{}-", owner.name);
    pod.metadata.labels.clone_from(&template.metadata.labels);
    pod.metadata.annotations.clone_from(&template.metadata.annotations);
    pod.metadata.finalizers.clone_from(&template.metadata.finalizers);
    pod.metadata.owner_references.push(controller_reference(gvk, owner));
    pod.spec = template.spec.clone();
    pod
}

/// The pods that an owner has or may adopt.
pub(crate) fn candidates<'a>(
    view: &'a View,
    namespace: &'a str,
    uid: &'a str,
) -> impl Iterator<Item = Arc<Pod>> + use<'a> {
    let owned = view.owned_by::<Pod>(uid).filter(move |pod| pod.metadata.namespace == namespace);
    owned.filter(|pod| controller_of(&pod.metadata).is_some()).chain(view.orphans_in::<Pod>(namespace))
}

/// The owners that a changed pod concerns: its controllers before and after, and where it has none, those that
/// might adopt it.
pub(crate) fn owners_of_pod<T: Typed + Object>(
    view: &View,
    old: Option<&Pod>,
    new: Option<&Pod>,
    might_adopt: impl Fn(&T, &Pod) -> bool,
) -> Vec<ObjectKey> {
    let mut keys: Vec<ObjectKey> = [old, new]
        .into_iter()
        .flatten()
        .filter_map(|pod| crate::ownership::controller_key::<T>(&pod.metadata))
        .collect();
    if let Some(pod) = new
        && controller_of(&pod.metadata).is_none()
        && pod.metadata.deletion_timestamp.is_none()
    {
        keys.extend(
            view.in_namespace::<T>(&pod.metadata.namespace)
                .filter(|owner| might_adopt(owner, pod))
                .map(|owner| view::key_of(owner.as_ref())),
        );
    }
    keys.dedup();
    keys
}
