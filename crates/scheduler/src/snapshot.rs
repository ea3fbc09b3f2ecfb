//! The cluster as decisions see it, changed in place as nodes, pods and facts change.
//!
//! Invariants: a node's sums are those of its pods; every placed pod is in exactly one node, or waits for its node to
//! appear; caches made on demand are dropped by the change that would falsify them.

use crate::facts::{Fact, Facts};
use crate::index::{Groups, Topology};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use api::core::v1::{Node, Pod};
use meta::ObjectKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

/// Zone and region, by which nodes take turns.
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Nodes, the pods on them, and what else decides.
#[derive(Debug, Default)]
pub struct Snapshot {
    slots: Vec<Option<NodeInfo>>,
    free: Vec<u32>,
    by_name: HashMap<String, u32>,
    /// Placed pods, by uid: which node.
    pods: HashMap<String, Arc<str>>,
    /// Pods whose node is not known, by its name.
    strays: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    pub(crate) groups: Groups,
    /// How many nodes hold each image.
    images: HashMap<String, usize>,
    /// Pods that wait for room on a node, made by preemption: node and pod, by uid.
    nominated: HashMap<String, (String, Arc<PodInfo>)>,
    /// How many placed pods use each claim.
    claim_users: HashMap<ObjectKey, usize>,
    pub facts: Facts,
    order: OnceLock<Vec<u32>>,
    topologies: Mutex<HashMap<String, Arc<Topology>>>,
}

impl Snapshot {
    pub fn new() -> Self {
        Snapshot::default()
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.slots[*self.by_name.get(name)? as usize].as_ref()
    }
    pub(crate) fn at(&self, slot: u32) -> Option<&NodeInfo> {
        self.slots.get(slot as usize)?.as_ref()
    }
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.slots.iter().flatten()
    }
    /// The node of a placed pod.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.pods.get(uid).map(|name| &**name)
    }

    /// Adds a node or takes its newer state. Answers the state before.
    pub fn set_node(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let name = node.metadata.name.clone();
        if let Some(slot) = self.by_name.get(&name).copied() {
            let info = self.slots[slot as usize].as_mut().expect("a named slot is filled");
            let before = info.node.clone();
            if before.status.images != node.status.images {
                count_images(&mut self.images, info, false);
                info.set_node(node.clone());
                count_images(&mut self.images, info, true);
            } else {
                info.set_node(node.clone());
            }
            if before.metadata.labels != node.metadata.labels {
                self.forget_topologies();
            }
            return Some(before);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let mut info = NodeInfo::new(slot, node);
        for pod in self.strays.remove(name.as_str()).unwrap_or_default() {
            self.groups.add(&pod, slot);
            info.add(pod);
        }
        count_images(&mut self.images, &info, true);
        self.slots[slot as usize] = Some(info);
        self.by_name.insert(name, slot);
        self.forget_topologies();
        None
    }

    /// Removes a node. Its pods stay known: the node may come back before they go.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<Node>> {
        let slot = self.by_name.remove(name)?;
        let info = self.slots[slot as usize].take().expect("a named slot is filled");
        self.free.push(slot);
        count_images(&mut self.images, &info, false);
        for pod in &info.pods {
            self.groups.remove(pod, slot);
        }
        if !info.pods.is_empty() {
            self.strays.insert(name.into(), info.pods);
        }
        self.forget_topologies();
        Some(info.node)
    }

    /// Places a pod on a node, or takes its newer state. A pod of the same uid elsewhere leaves there.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove_pod(pod.uid());
        self.nominated.remove(pod.uid());
        let name: Arc<str> = node.into();
        self.pods.insert(pod.uid().to_owned(), name.clone());
        for claim in &pod.claims {
            *self.claim_users.entry(ObjectKey::new(pod.namespace(), claim.name.clone())).or_default() += 1;
        }
        match self.by_name.get(node) {
            Some(slot) => {
                self.groups.add(&pod, *slot);
                self.slots[*slot as usize].as_mut().expect("a named slot is filled").add(pod);
            }
            None => self.strays.entry(name).or_default().push(pod),
        }
    }

    /// [`Self::set_pod`] for a pod that says where it is; pods that do not are left alone.
    pub fn with(&mut self, pod: Arc<Pod>) {
        if !pod.spec.node_name.is_empty() {
            let node = pod.spec.node_name.clone();
            self.set_pod(Arc::new(PodInfo::new(pod)), &node);
        }
    }

    /// Takes a placed pod away.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.take_pod(uid)?;
        for claim in &pod.claims {
            let key = ObjectKey::new(pod.namespace(), claim.name.clone());
            if let Some(users) = self.claim_users.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.claim_users.remove(&key);
                }
            }
        }
        Some(pod)
    }

    /// How many placed pods use a claim.
    pub(crate) fn users_of(&self, namespace: &str, claim: &str) -> usize {
        self.claim_users.get(&ObjectKey::new(namespace, claim)).copied().unwrap_or(0)
    }

    fn take_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let name = self.pods.remove(uid)?;
        if let Some(slot) = self.by_name.get(&*name).copied() {
            let info = self.slots[slot as usize].as_mut().expect("a named slot is filled");
            let pod = info.remove(uid)?;
            self.groups.remove(&pod, slot);
            return Some(pod);
        }
        let strays = self.strays.get_mut(&name)?;
        let at = strays.iter().position(|pod| pod.uid() == uid)?;
        let pod = strays.swap_remove(at);
        if strays.is_empty() {
            self.strays.remove(&name);
        }
        Some(pod)
    }

    /// Remembers that a pod waits for room on a node; `None` forgets it.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        match node {
            Some(node) => drop(self.nominated.insert(pod.uid().to_owned(), (node.to_owned(), pod.clone()))),
            None => drop(self.nominated.remove(pod.uid())),
        }
    }
    pub fn forget_nomination(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }
    pub fn nominated_node(&self, uid: &str) -> Option<&str> {
        self.nominated.get(uid).map(|(node, _)| node.as_str())
    }
    pub(crate) fn has_nominations(&self) -> bool {
        !self.nominated.is_empty()
    }
    /// The pods that wait for room on a node.
    pub fn nominated_to(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nominated.values().filter(move |(on, _)| on == node).map(|(_, pod)| pod)
    }

    pub fn set_fact(&mut self, fact: Fact) {
        self.facts.set(fact);
    }
    pub fn remove_fact(&mut self, fact: &Fact) {
        self.facts.remove(fact);
    }

    /// How many nodes hold an image.
    pub(crate) fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// Slots in the order in which nodes are looked at: the zones take turns, so that the first few hundred nodes of a
    /// large cluster are not all of one zone.
    pub(crate) fn order(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let mut zones: Vec<Vec<u32>> = Vec::new();
            let mut numbers: HashMap<(Option<&str>, Option<&str>), usize> = HashMap::new();
            for info in self.nodes() {
                let zone = *numbers.entry((info.label(REGION), info.label(ZONE))).or_insert_with(|| {
                    zones.push(Vec::new());
                    zones.len() - 1
                });
                zones[zone].push(info.slot);
            }
            let longest = zones.iter().map(Vec::len).max().unwrap_or(0);
            let turn = |turn: usize| zones.iter().filter_map(move |zone| zone.get(turn)).copied();
            (0..longest).flat_map(turn).collect()
        })
    }

    /// The domains of a topology key.
    pub(crate) fn topology(&self, key: &str) -> Arc<Topology> {
        let mut known = self.topologies.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(topology) = known.get(key) {
            return topology.clone();
        }
        // Keys come from pods' specs: past this many, start over rather than keep what nobody asks for again.
        const KEYS_MAX: usize = 64;
        if known.len() >= KEYS_MAX {
            known.clear();
        }
        let values = self.nodes().filter_map(|info| Some((info.slot, info.label(key)?)));
        let topology = Arc::new(Topology::new(key, self.slots.len(), values));
        known.insert(key.to_owned(), topology.clone());
        topology
    }

    fn forget_topologies(&mut self) {
        self.order.take();
        self.topologies.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }
}

fn count_images(images: &mut HashMap<String, usize>, info: &NodeInfo, there: bool) {
    for name in info.images.keys() {
        if there {
            *images.entry(name.clone()).or_default() += 1;
        } else if let Some(nodes) = images.get_mut(name) {
            *nodes -= 1;
            if *nodes == 0 {
                images.remove(name);
            }
        }
    }
}
