//! StatefulSets: pods with names and claims of their own, made in order, replaced in reverse.

use crate::claimretention;
use crate::controller::{Context, Controller, Watch};
use crate::ownership::{claim, controller_key};
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use crate::replicas::{candidates, owners_of_pod, pod_from_template};
use crate::revisions::{self, History, REVISION_HASH, Subject};
use api::Typed;
use api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::sync::Arc;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<StatefulSet>(),
            Watch::new::<Pod>(|view, old, new| {
                owners_of_pod::<StatefulSet>(view, old, new, |set, pod| {
                    api::optional_selector(set.spec.selector.as_deref())
                        .is_ok_and(|selector| selector.matches(&pod.metadata.labels))
                })
            }),
            Watch::new::<ControllerRevision>(|_, old, new| {
                let Some(revision) = new.or(old) else { return Vec::new() };
                controller_key::<StatefulSet>(&revision.metadata).into_iter().collect()
            }),
            // A claim that goes while its pod waits for it has to be made again.
            Watch::new::<PersistentVolumeClaim>(|view, old, new| {
                let (Some(claim), None) = (old, new) else { return Vec::new() };
                let sets = view.in_namespace::<StatefulSet>(&claim.metadata.namespace);
                sets.filter(|set| claim.metadata.name.contains(&set.metadata.name))
                    .map(|set| view::key_of(set.as_ref()))
                    .collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = context.view.get::<StatefulSet>(context.key) else { return plan };
        let Ok(selector) = api::optional_selector(set.spec.selector.as_deref()) else { return plan };
        if selector.is_everything() {
            return plan;
        }
        let pods = candidates(context.view, &set.metadata.namespace, &set.metadata.uid)
            .filter(|pod| ordinal(&set, pod).is_some());
        let claimed = claim(&set.metadata, StatefulSet::gvk(), &selector, pods);
        for action in claimed.actions {
            plan.push(action);
        }
        let subject = Subject {
            owner: &set.metadata,
            gvk: StatefulSet::gvk(),
            template: &set.spec.template,
            collisions: set.status.collision_count,
        };
        let history = revisions::sync(context.view, &subject, &mut plan);
        let rounds = Round::new(&set, claimed.objects, context, &history);
        if set.metadata.deletion_timestamp.is_none() {
            rounds.advance(&mut plan);
        }
        rounds.write_status(&history, &mut plan);
        let used = |name: &str| {
            let revision = |pod: &Arc<Pod>| pod.metadata.labels.get(REVISION_HASH).is_some_and(|r| r == name);
            name == rounds.current || rounds.pods.values().any(revision)
        };
        revisions::clean_up(&history, set.spec.revision_history_limit, used, &mut plan);
        plan
    }
}

/// The number in a pod's name, where the rest of it is the set's.
fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let rest = pod.metadata.name.strip_prefix(&set.metadata.name)?.strip_prefix('-')?;
    let number: i32 = rest.parse().ok()?;
    (number.to_string() == rest).then_some(number)
}

/// One look at a set.
struct Round<'a> {
    set: &'a StatefulSet,
    context: &'a Context<'a>,
    pods: BTreeMap<i32, Arc<Pod>>,
    start: i32,
    end: i32,
    /// The revisions' names: that of the pods so far, and that of the template.
    current: String,
    update: String,
    current_template: Option<PodTemplateSpec>,
}

impl<'a> Round<'a> {
    fn new(set: &'a StatefulSet, pods: Vec<Arc<Pod>>, context: &'a Context<'a>, history: &History) -> Self {
        let pods = pods.into_iter().filter_map(|pod| Some((ordinal(set, &pod)?, pod))).collect();
        let start = set.spec.ordinals.as_deref().map_or(0, |ordinals| ordinals.start);
        let update = history.newest.metadata.name.clone();
        let old = history.old.iter().find(|old| old.metadata.name == set.status.current_revision);
        Round {
            set,
            context,
            pods,
            start,
            end: start + set.spec.replicas.unwrap_or(1),
            current: old.map_or(update.clone(), |old| old.metadata.name.clone()),
            current_template: old.and_then(|old| revisions::template_of(old)),
            update,
        }
    }

    fn one_by_one(&self) -> bool {
        self.set.spec.pod_management_policy != "Parallel"
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.status.phase == "Running"
            && pod.metadata.deletion_timestamp.is_none()
            && pod::is_available(pod, self.set.spec.min_ready_seconds, self.context.now)
    }

    /// Makes, waits for, removes and replaces, in this order of precedence.
    fn advance(&self, plan: &mut Plan) {
        self.assign_claims(plan);
        for number in self.start..self.end {
            let waits = match self.pods.get(&number) {
                None => {
                    self.make(number, plan);
                    true
                }
                Some(pod) if pod::is_finished(pod) => {
                    if pod.metadata.deletion_timestamp.is_none() {
                        self.delete(pod, plan);
                    }
                    true
                }
                Some(pod) => {
                    if pod.status.phase == "Pending" {
                        self.make_claims(number, plan);
                    }
                    if let Some(left) =
                        pod::available_in(pod, self.set.spec.min_ready_seconds, self.context.now)
                        && left > 0
                    {
                        plan.again_after_seconds(left);
                    }
                    !self.is_available(pod)
                }
            };
            if waits && self.one_by_one() {
                return;
            }
        }
        let wanted = self.start..self.end;
        let surplus: Vec<&Arc<Pod>> = self
            .pods
            .iter()
            .rev()
            .filter(|(number, _)| !wanted.contains(number))
            .map(|(_, pod)| pod)
            .collect();
        for pod in &surplus {
            if pod.metadata.deletion_timestamp.is_none() {
                self.delete(pod, plan);
            }
            if self.one_by_one() {
                return;
            }
        }
        if self.set.spec.update_strategy.r#type != "OnDelete" {
            self.replace(plan);
        }
    }

    /// Old pods go from the highest number down, as many at once as may be unavailable.
    fn replace(&self, plan: &mut Plan) {
        let rolling = self.set.spec.update_strategy.rolling_update.as_deref();
        let partition = rolling.and_then(|rolling| rolling.partition).unwrap_or(0);
        let replicas = self.end - self.start;
        let most = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let most = most.and_then(|most| most.scaled(replicas, false)).unwrap_or(1).max(1);
        let wanted: Vec<&Arc<Pod>> = self.pods.range(self.start..self.end).map(|(_, pod)| pod).collect();
        let missing = wanted.iter().filter(|pod| !self.is_available(pod)).count();
        let room = usize::try_from(most).unwrap_or(1).saturating_sub(missing);
        let lowest = usize::try_from(partition).unwrap_or(0);
        let old = wanted.iter().skip(lowest).rev().filter(|pod| {
            pod.metadata.labels.get(REVISION_HASH) != Some(&self.update)
                && pod.metadata.deletion_timestamp.is_none()
        });
        for pod in old.take(room) {
            self.delete(pod, plan);
        }
    }

    fn delete(&self, pod: &Pod, plan: &mut Plan) {
        let (name, set) = (&pod.metadata.name, &self.set.metadata.name);
        let target = Target::of(pod);
        plan.steps.push(
            Step::new(Action::Delete { target, propagation: None, grace_seconds: None })
                .done(Note::normal(
                    self.set,
                    "SuccessfulDelete",
                    format!("delete Pod {name} in StatefulSet {set} successful"),
                ))
                .failed(Note::warning(
                    self.set,
                    "FailedDelete",
                    format!("delete Pod {name} in StatefulSet {set} failed error: {{error}}"),
                )),
        );
    }

    fn claims(&self, number: i32) -> impl Iterator<Item = Arc<PersistentVolumeClaim>> {
        let namespace = &self.set.metadata.namespace;
        self.set.spec.volume_claim_templates.iter().filter_map(move |template| {
            let key = ObjectKey::new(namespace.clone(), self.claim_name(template, number));
            self.context.view.get::<PersistentVolumeClaim>(&key)
        })
    }

    /// Gives the claims of pods the owners that the set's retention policy wants.
    fn assign_claims(&self, plan: &mut Plan) {
        for (number, pod) in &self.pods {
            let condemned = !(self.start..self.end).contains(number);
            for claim in self.claims(*number) {
                if let Some(owners) = claimretention::owners(self.set, pod, condemned, &claim) {
                    let mut next = PersistentVolumeClaim::clone(&claim);
                    next.metadata.owner_references = owners;
                    plan.push(Action::Update(Box::new(next)));
                }
            }
        }
    }

    fn make(&self, number: i32, plan: &mut Plan) {
        let pod = self.pod(number);
        if self.claims(number).any(|claim| claimretention::is_leaving(self.set, &pod.metadata.name, &claim)) {
            // The garbage collector is at it; that the claim has gone is an event.
            return;
        }
        self.make_claims(number, plan);
        let (name, set) = (pod.metadata.name.clone(), &self.set.metadata.name);
        plan.steps.push(
            Step::new(Action::Create(Box::new(pod)))
                .done(Note::normal(
                    self.set,
                    "SuccessfulCreate",
                    format!("create Pod {name} in StatefulSet {set} successful"),
                ))
                .failed(Note::warning(
                    self.set,
                    "FailedCreate",
                    format!("create Pod {name} in StatefulSet {set} failed error: {{error}}"),
                )),
        );
    }

    fn claim_name(&self, template: &PersistentVolumeClaim, number: i32) -> String {
        format!("{}-{}-{number}", template.metadata.name, self.set.metadata.name)
    }

    fn make_claims(&self, number: i32, plan: &mut Plan) {
        for template in &self.set.spec.volume_claim_templates {
            let name = self.claim_name(template, number);
            let key = ObjectKey::new(self.set.metadata.namespace.clone(), name.clone());
            if self.context.view.get::<PersistentVolumeClaim>(&key).is_some() {
                continue;
            }
            let mut claim = template.clone();
            claim.metadata.name = name;
            claim.metadata.namespace.clone_from(&self.set.metadata.namespace);
            if let Some(selector) = self.set.spec.selector.as_deref() {
                claim.metadata.labels.extend(selector.match_labels.clone());
            }
            claim.status = Default::default();
            plan.push(Action::Create(Box::new(claim)));
        }
    }

    /// A pod of the old template below the partition, or among the first that still have it; else of the new one.
    fn pod(&self, number: i32) -> Pod {
        let rolling = self.set.spec.update_strategy.rolling_update.as_deref();
        let keep = match rolling.and_then(|rolling| rolling.partition) {
            Some(partition) => partition,
            None => self.set.status.current_replicas,
        };
        let old = self.current_template.as_ref().filter(|_| number < self.start + keep);
        let (template, revision) = match old {
            Some(template) => (template, &self.current),
            None => (&self.set.spec.template, &self.update),
        };
        let mut pod = pod_from_template(template, &self.set.metadata, StatefulSet::gvk());
        pod.metadata.generate_name.clear();
        pod.metadata.name = format!("{}-{number}", self.set.metadata.name);
        let name = pod.metadata.name.clone();
        pod.metadata.labels.insert(POD_NAME.into(), name.clone());
        pod.metadata.labels.insert(POD_INDEX.into(), number.to_string());
        pod.metadata.labels.insert(REVISION_HASH.into(), revision.clone());
        pod.spec.hostname = name;
        pod.spec.subdomain.clone_from(&self.set.spec.service_name);
        for template in &self.set.spec.volume_claim_templates {
            pod.spec.volumes.retain(|volume| volume.name != template.metadata.name);
            let mut volume = Volume { name: template.metadata.name.clone(), ..Volume::default() };
            volume.volume_source.persistent_volume_claim =
                Some(Box::new(PersistentVolumeClaimVolumeSource {
                    claim_name: self.claim_name(template, number),
                    read_only: false,
                }));
            pod.spec.volumes.push(volume);
        }
        pod
    }

    fn write_status(&self, history: &History, plan: &mut Plan) {
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            current_revision: self.current.clone(),
            update_revision: self.update.clone(),
            collision_count: Some(self.set.status.collision_count.unwrap_or(0) + i32::from(history.collided)),
            conditions: self.set.status.conditions.clone(),
            ..StatefulSetStatus::default()
        };
        for pod in self.pods.values() {
            status.replicas += 1;
            status.ready_replicas += i32::from(pod.status.phase == "Running" && pod::is_ready(pod));
            status.available_replicas += i32::from(self.is_available(pod));
            if pod.metadata.deletion_timestamp.is_none() {
                let revision = pod.metadata.labels.get(REVISION_HASH);
                status.current_replicas += i32::from(revision == Some(&self.current));
                status.updated_replicas += i32::from(revision == Some(&self.update));
            }
        }
        // Everything replaced: what was new is what there is.
        let rolled = self.set.spec.update_strategy.r#type != "OnDelete"
            && status.updated_replicas == status.replicas
            && status.ready_replicas == status.replicas
            && status.replicas == self.end - self.start;
        if rolled {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&self.update);
        }
        if status != self.set.status {
            let mut next = StatefulSet::clone(self.set);
            next.status = status;
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            plan.steps.push(Step::new(update).always());
        }
    }
}
