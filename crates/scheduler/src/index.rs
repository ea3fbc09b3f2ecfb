//! What makes counting pods cheap: pods with the same labels counted together, node by node, and nodes numbered by
//! the value of a topology label. Counting the pods of a selector over topology domains then costs a selector match
//! per *kind* of pod and an addition per node that has one, however many pods there are.

use crate::pod::PodInfo;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// A node without the label has no domain.
pub const NO_DOMAIN: u32 = u32::MAX;

/// The domains of one topology key.
#[derive(Debug)]
pub struct Topology {
    pub key: String,
    /// The domain of each slot, or [`NO_DOMAIN`].
    domain_of: Vec<u32>,
    /// How many domains there are; they are numbered from 0.
    pub domains: usize,
}

impl Topology {
    /// Numbers the domains of `(slot, value)` pairs.
    pub fn new<'a>(key: &str, slots: usize, values: impl Iterator<Item = (u32, &'a str)>) -> Self {
        let mut domain_of = vec![NO_DOMAIN; slots];
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        for (slot, value) in values {
            let next = numbers.len() as u32;
            domain_of[slot as usize] = *numbers.entry(value).or_insert(next);
        }
        Topology { key: key.into(), domains: numbers.len(), domain_of }
    }

    /// The domain of a node, `None` where it lacks the label.
    pub fn domain(&self, slot: u32) -> Option<usize> {
        let domain = self.domain_of.get(slot as usize).copied().unwrap_or(NO_DOMAIN);
        (domain != NO_DOMAIN).then_some(domain as usize)
    }
}

/// How many pods of a group a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub all: u32,
    /// Those of them that are being deleted: spreading leaves them out.
    pub terminating: u32,
}

impl Count {
    pub fn live(self) -> u32 {
        self.all - self.terminating
    }
}

/// Pods that are alike in some respect.
#[derive(Debug)]
pub struct Group {
    /// One of them, which answers for all.
    pub sample: Arc<PodInfo>,
    pub nodes: HashMap<u32, Count>,
}

impl Group {
    fn add(&mut self, pod: &PodInfo, slot: u32) {
        let count = self.nodes.entry(slot).or_default();
        count.all += 1;
        count.terminating += u32::from(pod.is_terminating());
    }

    fn remove(&mut self, pod: &PodInfo, slot: u32) {
        if let Some(count) = self.nodes.get_mut(&slot) {
            count.all -= 1;
            count.terminating -= u32::from(pod.is_terminating());
            if count.all == 0 {
                self.nodes.remove(&slot);
            }
        }
    }
}

/// Placed pods, by labels within each namespace and by the affinities they state.
#[derive(Debug, Default)]
pub struct Groups {
    by_labels: HashMap<String, HashMap<BTreeMap<String, String>, Group>>,
    by_affinity: HashMap<String, Group>,
    /// Pods with required anti-affinity: without any, no pod can be kept away by another.
    anti_affine: usize,
}

impl Groups {
    pub fn add(&mut self, pod: &Arc<PodInfo>, slot: u32) {
        let namespace = self.by_labels.entry(pod.namespace().to_owned()).or_default();
        insert(namespace, pod.labels(), pod, slot);
        if !pod.affinity_text.is_empty() {
            insert(&mut self.by_affinity, &pod.affinity_text, pod, slot);
            self.anti_affine += usize::from(!pod.anti_affinity.is_empty());
        }
    }

    pub fn remove(&mut self, pod: &PodInfo, slot: u32) {
        if let Some(namespace) = self.by_labels.get_mut(pod.namespace()) {
            take(namespace, pod.labels(), pod, slot);
            if namespace.is_empty() {
                self.by_labels.remove(pod.namespace());
            }
        }
        if !pod.affinity_text.is_empty() {
            take(&mut self.by_affinity, &pod.affinity_text, pod, slot);
            self.anti_affine -= usize::from(!pod.anti_affinity.is_empty());
        }
    }

    /// The groups of one namespace, by labels.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Group> {
        self.by_labels.get(namespace).into_iter().flat_map(HashMap::values)
    }
    /// Each namespace that has placed pods, with its groups by labels.
    pub fn by_namespace(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Group>)> {
        self.by_labels.iter().map(|(namespace, groups)| (namespace.as_str(), groups.values()))
    }
    /// The groups of pods that state affinities.
    pub fn affine(&self) -> impl Iterator<Item = &Group> {
        self.by_affinity.values()
    }
    pub fn has_affine(&self) -> bool {
        !self.by_affinity.is_empty()
    }
    pub fn has_anti_affine(&self) -> bool {
        self.anti_affine > 0
    }
}

fn insert<K: Hash + Eq + Clone>(groups: &mut HashMap<K, Group>, key: &K, pod: &Arc<PodInfo>, slot: u32) {
    if !groups.contains_key(key) {
        groups.insert(key.clone(), Group { sample: pod.clone(), nodes: HashMap::new() });
    }
    if let Some(group) = groups.get_mut(key) {
        group.add(pod, slot);
    }
}

fn take<K: Hash + Eq>(groups: &mut HashMap<K, Group>, key: &K, pod: &PodInfo, slot: u32) {
    if let Some(group) = groups.get_mut(key) {
        group.remove(pod, slot);
        if group.nodes.is_empty() {
            groups.remove(key);
        }
    }
}
