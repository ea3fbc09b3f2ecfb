//! DaemonSets: one pod on each node that fits, replaced by a new template node by node.

use crate::controller::{Context, Controller, Watch};
use crate::nodefit;
use crate::ownership::claim;
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use crate::replicas::{candidates, owners_of_pod, pod_from_template};
use crate::revisions::{self, History, REVISION_HASH, Subject};
use api::Typed;
use api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use meta::IntOrString;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Taints that a daemon bears without end: it is what makes nodes fit again.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";
/// Pods created or deleted in one plan, as upstream's burst.
const BURST: usize = 250;
/// A pod that a node refuses at once is replaced no sooner than this: the node would refuse the next one too.
const FAILED_SECONDS: i64 = 10;

pub struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn component(&self) -> &'static str {
        "daemonset-controller"
    }

    fn account(&self) -> &'static str {
        "daemon-set-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<DaemonSet>(),
            Watch::new::<Pod>(|view, old, new| {
                owners_of_pod::<DaemonSet>(view, old, new, |set, pod| {
                    api::optional_selector(set.spec.selector.as_deref())
                        .is_ok_and(|selector| selector.matches(&pod.metadata.labels))
                })
            }),
            Watch::new::<Node>(|view, old, new| {
                let placed = |node: Option<&Node>| {
                    node.map(|node| (node.metadata.labels.clone(), node.spec.taints.clone()))
                };
                if placed(old) == placed(new) {
                    return Vec::new();
                }
                view.list::<DaemonSet>().map(|set| view::key_of(set.as_ref())).collect()
            }),
            Watch::new::<ControllerRevision>(|_, old, new| {
                let Some(revision) = new.or(old) else { return Vec::new() };
                crate::ownership::controller_key::<DaemonSet>(&revision.metadata).into_iter().collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(set) = context.view.get::<DaemonSet>(context.key) else { return plan };
        let Ok(selector) = api::optional_selector(set.spec.selector.as_deref()) else { return plan };
        if selector.is_everything() || set.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let pods = candidates(context.view, &set.metadata.namespace, &set.metadata.uid);
        let claimed = claim(&set.metadata, DaemonSet::gvk(), &selector, pods);
        for action in claimed.actions {
            plan.push(action);
        }
        let subject = Subject {
            owner: &set.metadata,
            gvk: DaemonSet::gvk(),
            template: &set.spec.template,
            collisions: set.status.collision_count,
        };
        let history = revisions::sync(context.view, &subject, &mut plan);
        let daemons = Daemons::new(&set, claimed.objects, context, &history);
        daemons.place(&mut plan);
        daemons.write_status(&history, &mut plan);
        let used = |name: &str| {
            let hash = |pod: &Arc<Pod>| pod.metadata.labels.get(REVISION_HASH).cloned();
            daemons.by_node.values().flatten().filter_map(hash).any(|hash| name.ends_with(&hash))
        };
        revisions::clean_up(&history, set.spec.revision_history_limit, used, &mut plan);
        plan
    }
}

/// The nodes with the set's pods on them, oldest first.
struct Daemons<'a> {
    set: &'a DaemonSet,
    context: &'a Context<'a>,
    hash: String,
    nodes: Vec<Arc<Node>>,
    by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    spec: PodSpec,
}

/// What a node is to this set.
#[derive(Clone, Copy, PartialEq)]
enum Fit {
    /// A pod belongs here.
    Wanted,
    /// None would be made here, but one that runs may stay.
    Kept,
    Unfit,
}

impl<'a> Daemons<'a> {
    fn new(set: &'a DaemonSet, mut pods: Vec<Arc<Pod>>, context: &'a Context<'a>, history: &History) -> Self {
        pods.sort_by_key(|pod| (pod.metadata.creation_timestamp, pod.metadata.name.clone()));
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in pods {
            by_node.entry(node_of(&pod)).or_default().push(pod);
        }
        let mut spec = set.spec.template.spec.clone();
        tolerate(&mut spec);
        let nodes = context.view.list::<Node>().collect();
        Daemons { set, context, hash: history.hash().to_string(), nodes, by_node, spec }
    }

    fn fit(&self, node: &Node) -> Fit {
        if !nodefit::selects(&self.spec, node) {
            Fit::Unfit
        } else if nodefit::tolerates_all(&self.spec, node, &["NoSchedule", "NoExecute"]) {
            Fit::Wanted
        } else if nodefit::tolerates_all(&self.spec, node, &["NoExecute"]) {
            Fit::Kept
        } else {
            Fit::Unfit
        }
    }

    fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn is_updated(&self, pod: &Pod) -> bool {
        pod.metadata.labels.get(REVISION_HASH) == Some(&self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_available(pod, self.set.spec.min_ready_seconds, self.context.now)
    }

    /// Surge and unavailability as numbers of nodes.
    fn paces(&self) -> (usize, usize) {
        let wanted = self.nodes.iter().filter(|node| self.fit(node) == Fit::Wanted).count();
        let total = i32::try_from(wanted).unwrap_or(i32::MAX);
        let rolling = self.set.spec.update_strategy.rolling_update.as_deref();
        let number = |value: Option<&IntOrString>, default: i32| {
            let value = value.map_or(Some(default), |value| value.scaled(total, true));
            usize::try_from(value.unwrap_or(default)).unwrap_or(0)
        };
        let surge = number(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
        let unavailable = number(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), 1);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn place(&self, plan: &mut Plan) {
        let mut creates: Vec<String> = Vec::new();
        let mut deletes: Vec<Arc<Pod>> = Vec::new();
        let (surge, unavailable) = self.paces();
        for node in &self.nodes {
            let pods = self.on(&node.metadata.name);
            match self.fit(node) {
                Fit::Wanted if pods.is_empty() => creates.push(node.metadata.name.clone()),
                Fit::Wanted | Fit::Kept => self.tend(node, surge > 0, &mut creates, &mut deletes, plan),
                Fit::Unfit => deletes.extend(pods.iter().cloned()),
            }
        }
        if self.set.spec.update_strategy.r#type != "OnDelete" {
            if surge > 0 {
                self.surge(surge, &mut creates);
            } else {
                self.roll(unavailable, &mut deletes);
            }
        }
        deletes.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        deletes.sort_by_key(|pod| pod.metadata.name.clone());
        deletes.dedup_by_key(|pod| pod.metadata.uid.clone());
        creates.dedup();
        for node in creates.into_iter().take(BURST) {
            let create = Action::Create(Box::new(self.pod(&node)));
            plan.steps.push(
                Step::new(create)
                    .done(Note::normal(self.set, "SuccessfulCreate", "Created pod: {name}"))
                    .failed(Note::warning(self.set, "FailedCreate", "Error creating: {error}")),
            );
        }
        for pod in deletes.into_iter().take(BURST) {
            let target = Target::of(pod.as_ref());
            let message = format!("Deleted pod: {}", pod.metadata.name);
            plan.steps.push(
                Step::new(Action::Delete { target, propagation: None, grace_seconds: None })
                    .done(Note::normal(self.set, "SuccessfulDelete", message))
                    .failed(Note::warning(self.set, "FailedDelete", "Error deleting: {error}")),
            );
        }
    }

    /// One node that may have a pod: finished ones go, and so do surplus ones.
    fn tend(
        &self,
        node: &Node,
        surging: bool,
        creates: &mut Vec<String>,
        deletes: &mut Vec<Arc<Pod>>,
        plan: &mut Plan,
    ) {
        let name = &node.metadata.name;
        let mut running: Vec<Arc<Pod>> = Vec::new();
        for pod in self.on(name).iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let key = view::key_of(pod.as_ref());
            match pod.status.phase.as_str() {
                "Failed" => {
                    let made = pod.metadata.creation_timestamp.unwrap_or_default().seconds();
                    let left = made + FAILED_SECONDS - self.context.now.seconds();
                    if left > 0 {
                        plan.again_after_seconds(left);
                        continue;
                    }
                    let text = format!("Found failed daemon pod {key} on node {name}, will try to kill it");
                    plan.events.push(Note::warning(self.set, "FailedDaemonPod", text));
                    deletes.push(pod.clone());
                }
                "Succeeded" => {
                    let text =
                        format!("Found succeeded daemon pod {key} on node {name}, will try to delete it");
                    plan.events.push(Note::normal(self.set, "SucceededDaemonPod", text));
                    deletes.push(pod.clone());
                }
                _ => running.push(pod.clone()),
            }
        }
        if !surging {
            deletes.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() && self.fit(node) == Fit::Wanted {
            creates.push(name.clone());
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| self.is_updated(pod));
        // Old and new stand together until one of them settles it.
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pod::is_ready(old) || self.is_available(new))
        {
            deletes.push(old.clone());
        }
        deletes.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)));
    }

    /// Without surge: old pods go as long as enough nodes are served. What is not available goes freely.
    fn roll(&self, unavailable: usize, deletes: &mut Vec<Arc<Pod>>) {
        let mut missing = 0;
        let mut old: Vec<Arc<Pod>> = Vec::new();
        for node in self.nodes.iter().filter(|node| self.fit(node) == Fit::Wanted) {
            let alive = self.on(&node.metadata.name).iter();
            let mut alive = alive.filter(|pod| pod.metadata.deletion_timestamp.is_none());
            match alive.next() {
                None => missing += 1,
                Some(pod) if self.is_updated(pod) => missing += usize::from(!self.is_available(pod)),
                Some(pod) if !self.is_available(pod) => {
                    missing += 1;
                    deletes.push(pod.clone());
                }
                Some(pod) => old.push(pod.clone()),
            }
        }
        deletes.extend(old.into_iter().take(unavailable.saturating_sub(missing)));
    }

    /// With surge: new pods beside old ones, on so many nodes at once. What is not available has no claim to wait.
    fn surge(&self, surge: usize, creates: &mut Vec<String>) {
        let mut surging = 0;
        let mut waiting: Vec<String> = Vec::new();
        for node in self.nodes.iter().filter(|node| self.fit(node) == Fit::Wanted) {
            let alive = self.on(&node.metadata.name).iter().filter(|pod| pod::is_active(pod));
            let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| self.is_updated(pod));
            match (new.first(), old.first()) {
                (Some(new), Some(_)) => surging += usize::from(!self.is_available(new)),
                (None, Some(old)) if !self.is_available(old) => creates.push(node.metadata.name.clone()),
                (None, Some(_)) => waiting.push(node.metadata.name.clone()),
                _ => {}
            }
        }
        creates.extend(waiting.into_iter().take(surge.saturating_sub(surging)));
    }

    /// A pod for one node: the scheduler binds it, but nowhere else.
    fn pod(&self, node: &str) -> Pod {
        let mut pod = pod_from_template(&self.set.spec.template, &self.set.metadata, DaemonSet::gvk());
        pod.spec = self.spec.clone();
        pod.metadata.labels.insert(REVISION_HASH.into(), self.hash.clone());
        let generation = self.set.metadata.annotations.get("deprecated.daemonset.template.generation");
        if let Some(generation) = generation {
            pod.metadata.labels.insert("pod-template-generation".into(), generation.clone());
        }
        let affinity = pod.spec.affinity.get_or_insert_default();
        let required = &mut affinity.node_affinity.get_or_insert_default();
        required.required_during_scheduling_ignored_during_execution = Some(Box::new(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm {
                match_fields: vec![NodeSelectorRequirement {
                    key: "metadata.name".into(),
                    operator: "In".into(),
                    values: vec![node.into()],
                }],
                ..NodeSelectorTerm::default()
            }],
        }));
        pod
    }

    fn write_status(&self, history: &History, plan: &mut Plan) {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: self.set.status.collision_count,
            conditions: self.set.status.conditions.clone(),
            ..DaemonSetStatus::default()
        };
        if history.collided {
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        }
        for node in &self.nodes {
            let oldest = self.on(&node.metadata.name).first();
            if self.fit(node) != Fit::Wanted {
                status.number_misscheduled += i32::from(oldest.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = oldest else { continue };
            status.current_number_scheduled += 1;
            status.updated_number_scheduled += i32::from(self.is_updated(pod));
            status.number_ready += i32::from(pod::is_ready(pod));
            match pod::available_in(pod, self.set.spec.min_ready_seconds, self.context.now) {
                Some(0) => status.number_available += 1,
                Some(seconds) => plan.again_after_seconds(seconds),
                None => {}
            }
        }
        status.number_unavailable = status.desired_number_scheduled - status.number_available;
        if status != self.set.status {
            let mut next = DaemonSet::clone(self.set);
            next.status = status;
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            plan.steps.push(Step::new(update).always());
        }
    }
}

/// The node that a pod is on, or meant for.
fn node_of(pod: &Pod) -> String {
    if !pod.spec.node_name.is_empty() {
        return pod.spec.node_name.clone();
    }
    pod.spec
        .affinity
        .as_deref()
        .and_then(|affinity| affinity.node_affinity.as_deref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_deref())
        .and_then(|selector| {
            selector.node_selector_terms.first()?.match_fields.first()?.values.first().cloned()
        })
        .unwrap_or_default()
}

fn tolerate(spec: &mut PodSpec) {
    let network = spec.host_network.then_some((NETWORK_UNAVAILABLE, "NoSchedule"));
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let known = spec.tolerations.iter().any(|toleration| {
            toleration.key == key
                && toleration.effect == effect
                && toleration.operator == "Exists"
                && toleration.toleration_seconds.is_none()
        });
        if !known {
            spec.tolerations.push(Toleration {
                key: key.into(),
                operator: "Exists".into(),
                effect: effect.into(),
                ..Toleration::default()
            });
        }
    }
}
