//! VolumeBinding: a pod's claims must exist and be bound, or be such that volumes for them can be found or made for the
//! node; and its volumes must be reachable from the node.
//!
//! [`plan`] says what has to be written for the node that was chosen, [`progress`] whether that has come about.

use super::{Filter, Prepared, Reasons, Verdict, reject};
use crate::cycle::Cycle;
use crate::facts::Facts;
use crate::hints::Event;
use crate::node::NodeInfo;
use crate::pod::{ClaimReference, PodInfo};
use crate::selectors::RequiredNodes;
use crate::snapshot::Snapshot;
use api::core::v1::{
    Affinity, Node, NodeAffinity, PersistentVolume, PersistentVolumeClaim, PodSpec, TopologySelectorTerm,
};
use api::storage::v1::StorageClass;
use meta::labels::Selector;
use std::sync::Arc;
use volumes::{SELECTED_NODE, Suit};

pub const NAME: &str = "VolumeBinding";

const UNREACHABLE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NOT_FOUND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const LOST: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

pub const FILTER: Filter = Filter { name: NAME, prepare, check, hint };

/// What the pod's claims come to.
#[derive(Clone, Default)]
pub(crate) struct Claims {
    /// Where each bound volume can be reached from; empty means anywhere.
    reach: Vec<RequiredNodes>,
    /// A bound claim names a volume that is not there.
    lost: bool,
    /// Claims that wait for their first consumer, those that ask for least first.
    waiting: Arc<Vec<Waiting>>,
}

/// A claim that gets its volume when the node is known.
struct Waiting {
    claim: Arc<PersistentVolumeClaim>,
    /// Chosen by an earlier decision: its volume is being made there.
    selected: Option<String>,
    /// The volumes it could have, the best first.
    candidates: Vec<Candidate>,
    /// Where a volume can be made for it; `None` where none can be made.
    provision: Option<Vec<TopologySelectorTerm>>,
    /// The nodes with enough free storage, each by the labels that it must have; `None` where nobody counts it.
    room: Option<Vec<Selector>>,
}

struct Candidate {
    suit: Suit,
    volume: Arc<PersistentVolume>,
    reach: RequiredNodes,
}

/// What a node means for the claims that wait.
#[derive(Default)]
struct Choice {
    bind: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    provision: Vec<Arc<PersistentVolumeClaim>>,
}

fn prepare(cycle: &mut Cycle<'_>) -> Prepared {
    let (pod, facts) = (cycle.pod, &cycle.snapshot.facts);
    if pod.claims.is_empty() {
        return Prepared::Skip;
    }
    match claims(facts, pod) {
        Ok(claims) => {
            cycle.claims = claims;
            Prepared::Run
        }
        Err(message) => Prepared::Reject(message),
    }
}

fn claims(facts: &Facts, pod: &PodInfo) -> Result<Claims, String> {
    let mut claims = Vec::new();
    for reference in &pod.claims {
        claims.push(usable(pod, reference, facts.claim(pod.namespace(), &reference.name))?.clone());
    }
    let mut state = Claims::default();
    let mut waiting = Vec::new();
    for claim in claims {
        let class = facts.class(volumes::class_of_claim(&claim)).map(Arc::as_ref);
        if volumes::is_bound(&claim) {
            match facts.volume(&claim.spec.volume_name) {
                Some(volume) => state.reach.push(reach(volume)),
                None => state.lost = true,
            }
        } else if claim.spec.volume_name.is_empty() && volumes::waits_for_consumer(class) {
            waiting.push(Waiting::new(facts, claim, class));
        } else {
            return Err("pod has unbound immediate PersistentVolumeClaims".into());
        }
    }
    waiting.sort_by_key(|own| volumes::requested(&own.claim));
    state.waiting = Arc::new(waiting);
    Ok(state)
}

impl Waiting {
    fn new(facts: &Facts, claim: Arc<PersistentVolumeClaim>, class: Option<&StorageClass>) -> Self {
        let selected = claim.metadata.annotations.get(SELECTED_NODE).cloned();
        let mut candidates: Vec<Candidate> = Vec::new();
        if selected.is_none() {
            for volume in facts.volumes() {
                if let Some(suit) = volumes::suits(&claim, volume) {
                    candidates.push(Candidate { suit, volume: volume.clone(), reach: reach(volume) });
                }
            }
            candidates.sort_by(|a, b| {
                let size = |own: &Candidate| volumes::storage(&own.volume.spec.capacity);
                a.suit
                    .cmp(&b.suit)
                    .then_with(|| size(a).cmp(&size(b)))
                    .then_with(|| a.volume.metadata.name.cmp(&b.volume.metadata.name))
            });
        }
        let provision = class
            .filter(|class| !matches!(class.provisioner.as_str(), "" | "kubernetes.io/no-provisioner"))
            .map(|class| class.allowed_topologies.clone());
        let room = match class.filter(|_| !claim.spec.resources.requests.is_empty()) {
            Some(class) if facts.counts_capacity(&class.provisioner) => {
                let size = volumes::requested(&claim);
                let enough = facts.capacities().filter(|own| {
                    own.storage_class_name == class.metadata.name
                        && own.maximum_volume_size.or(own.capacity).is_some_and(|limit| limit >= size)
                });
                Some(enough.filter_map(|own| api::selector(own.node_topology.as_deref()?).ok()).collect())
            }
            _ => None,
        };
        Waiting { claim, selected, candidates, provision, room }
    }

    /// The volume that the claim would have from this node, beside those that the pod's other claims have.
    fn volume_for(&self, node: &Node, choice: &Choice) -> Result<Option<&Arc<PersistentVolume>>, ()> {
        let taken = |volume: &PersistentVolume| {
            choice.bind.iter().any(|(own, _)| own.metadata.name == volume.metadata.name)
        };
        let mut free = self.candidates.iter().filter(|own| !taken(&own.volume));
        let Some(first) = free.next() else { return Ok(None) };
        if first.suit == Suit::Reserved {
            // What is kept for the claim is what it gets: from elsewhere it gets nothing.
            return if first.reach.matches(node) { Ok(Some(&first.volume)) } else { Err(()) };
        }
        let mut reachable = std::iter::once(first).chain(free).filter(|own| own.reach.matches(node));
        Ok(reachable.next().map(|own| &own.volume))
    }

    /// Whether a volume can be made for the claim on a node, or upstream's words for why not.
    fn makes_on(&self, node: &Node) -> Result<(), &'static str> {
        if !self.is_allowed_on(node) {
            return Err(NOT_FOUND);
        }
        let room = |nodes: &Vec<Selector>| nodes.iter().any(|own| own.matches(&node.metadata.labels));
        if self.room.as_ref().is_none_or(room) { Ok(()) } else { Err(NO_SPACE) }
    }

    fn is_allowed_on(&self, node: &Node) -> bool {
        self.provision.as_ref().is_some_and(|terms| {
            terms.is_empty()
                || terms.iter().any(|term| {
                    term.match_label_expressions.iter().all(|wanted| {
                        let value = node.metadata.labels.get(&wanted.key);
                        value.is_some_and(|value| wanted.values.contains(value))
                    })
                })
        })
    }
}

impl Claims {
    /// What to bind and what to make for a node, or why a claim would remain without a volume.
    fn choose(&self, node: &Node) -> Result<Choice, &'static str> {
        let mut choice = Choice::default();
        for own in self.waiting.iter() {
            if let Some(selected) = &own.selected {
                if *selected != node.metadata.name {
                    return Err(NOT_FOUND);
                }
                own.makes_on(node)?;
                choice.provision.push(own.claim.clone());
                continue;
            }
            match own.volume_for(node, &choice) {
                Err(()) => return Err(NOT_FOUND),
                Ok(Some(volume)) => choice.bind.push((volume.clone(), own.claim.clone())),
                Ok(None) => {
                    own.makes_on(node)?;
                    choice.provision.push(own.claim.clone());
                }
            }
        }
        Ok(choice)
    }
}

/// What has to be written before a pod can be bound to its node.
#[derive(Debug, Default)]
pub struct VolumePlan {
    /// Volumes as they are once kept for their claims, with what they were.
    pub bind: Vec<(Arc<PersistentVolume>, PersistentVolume)>,
    /// Claims as they are once the node is named on them, with what they were.
    pub provision: Vec<(Arc<PersistentVolumeClaim>, PersistentVolumeClaim)>,
    /// The claims that have to be bound before the pod is.
    pub awaited: Vec<String>,
}

impl VolumePlan {
    pub fn is_empty(&self) -> bool {
        self.awaited.is_empty()
    }
}

/// What a pod's claims need for the node that was chosen. `Err` where they changed since: upstream's words.
pub fn plan(snapshot: &Snapshot, pod: &PodInfo, node: &str) -> Result<VolumePlan, String> {
    if pod.claims.is_empty() {
        return Ok(VolumePlan::default());
    }
    let state = claims(&snapshot.facts, pod)?;
    let node = snapshot.node(node).ok_or_else(|| format!("node {node:?} not found"))?;
    let choice = state.choose(&node.node)?;
    let mut plan = VolumePlan::default();
    for (volume, claim) in choice.bind {
        plan.awaited.push(claim.metadata.name.clone());
        if let Some(next) = volumes::bound_to(&volume, &claim) {
            plan.bind.push((volume, next));
        }
    }
    for claim in choice.provision {
        plan.awaited.push(claim.metadata.name.clone());
        if claim.metadata.annotations.get(SELECTED_NODE).is_none_or(|own| own != node.name()) {
            let mut next = PersistentVolumeClaim::clone(&claim);
            next.metadata.annotations.insert(SELECTED_NODE.into(), node.name().into());
            plan.provision.push((claim, next));
        }
    }
    Ok(plan)
}

/// Whether what was written for a pod has come about.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Bound,
    Waiting,
    /// It will not: upstream's words.
    Failed(String),
}

/// How far the claims are that a pod waits for on its node. `planned` are those whose node was named, `kept` the
/// volumes that were kept for others.
pub fn progress(
    snapshot: &Snapshot,
    pod: &PodInfo,
    node: &str,
    awaited: &[String],
    kept: &[String],
) -> Progress {
    let facts = &snapshot.facts;
    let Some(info) = snapshot.node(node) else { return Progress::Failed(format!("node {node:?} not found")) };
    for name in kept {
        let Some(volume) = facts.volume(name) else {
            return Progress::Failed(format!("failed to check binding: persistentvolume {name:?} not found"));
        };
        if volume.spec.claim_ref.as_ref().is_none_or(|reference| reference.uid.is_empty()) {
            return Progress::Failed(format!("ClaimRef got reset for pv {name:?}"));
        }
    }
    let mut bound = true;
    for name in awaited {
        let Some(claim) = facts.claim(pod.namespace(), name) else {
            return Progress::Failed(format!("failed to check provisioning pvc: {name:?} not found"));
        };
        let volume = facts.volume(&claim.spec.volume_name);
        if let Some(volume) = volume
            && !reach(volume).matches(&info.node)
        {
            let volume = &volume.metadata.name;
            return Progress::Failed(format!(
                "pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"
            ));
        }
        if volumes::is_bound(claim) && volume.is_some() {
            continue;
        }
        bound = false;
        let selected = claim.metadata.annotations.get(SELECTED_NODE);
        // A volume kept for the claim needs no node on it.
        let given = facts.volumes().any(|volume| volumes::is_bound_to(volume, claim));
        if selected.is_none_or(|selected| selected != node) && !given {
            return Progress::Failed(format!("provisioning failed for PVC {name:?}"));
        }
    }
    if bound { Progress::Bound } else { Progress::Waiting }
}

/// A claim that a pod can use, or upstream's words for why not.
fn usable<'a>(
    pod: &PodInfo,
    reference: &ClaimReference,
    claim: Option<&'a Arc<PersistentVolumeClaim>>,
) -> Result<&'a Arc<PersistentVolumeClaim>, String> {
    let name = &reference.name;
    let Some(claim) = claim else {
        return Err(if reference.ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    if claim.status.phase == "Lost" {
        let volume = &claim.spec.volume_name;
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let owner = || claim.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
    if reference.ephemeral && owner().is_none_or(|owner| owner.uid != pod.uid()) {
        let (namespace, pod) = (pod.namespace(), &pod.pod.metadata.name);
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        ));
    }
    Ok(claim)
}

/// Which nodes can reach a volume: a volume's node affinity reads as a pod's required one.
fn reach(volume: &PersistentVolume) -> RequiredNodes {
    let required = volume.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.clone());
    let affinity = Affinity {
        node_affinity: Some(Box::new(NodeAffinity {
            required_during_scheduling_ignored_during_execution: required,
            ..Default::default()
        })),
        ..Default::default()
    };
    RequiredNodes::new(&PodSpec { affinity: Some(Box::new(affinity)), ..Default::default() })
}

fn check(cycle: &Cycle<'_>, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    let state = &cycle.claims;
    let mut verdict = Verdict::Fits;
    if state.reach.iter().any(|reach| !reach.matches(&node.node)) {
        verdict = reject(reasons, UNREACHABLE, Verdict::Unresolvable);
    }
    if let Err(reason) = state.choose(&node.node) {
        verdict = reject(reasons, reason, Verdict::Unresolvable);
    }
    if state.lost {
        verdict = reject(reasons, LOST, Verdict::Unresolvable);
    }
    verdict
}

fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    match event {
        Event::ClaimChanged(claim) => {
            claim.metadata.namespace == pod.namespace()
                && pod.claims.iter().any(|reference| reference.name == claim.metadata.name)
        }
        Event::VolumeChanged | Event::ClassChanged | Event::CapacityChanged | Event::NodeAdded(_) => true,
        Event::NodeChanged { old, new } => old.metadata.labels != new.metadata.labels,
        _ => false,
    }
}
