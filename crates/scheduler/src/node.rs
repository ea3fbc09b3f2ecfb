//! A node as the scheduler sees it: what it has, and what its pods take of it.

use crate::pod::{HostPort, PodInfo};
use crate::resources::Resources;
use crate::selectors;
use api::core::v1::{Node, Taint};
use std::collections::HashMap;
use std::sync::Arc;

/// A node, its pods, and their sums.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its place in the snapshot, the same for as long as it is there.
    pub slot: u32,
    pub node: Arc<Node>,
    pub allocatable: Resources,
    pub requested: Resources,
    /// What its pods count for when nodes are compared.
    pub scored_milli_cpu: i64,
    pub scored_memory: i64,
    pub pods: Vec<Arc<PodInfo>>,
    pub used_ports: Vec<HostPort>,
    /// Taints that keep pods away, and taints that only make the node less liked.
    pub hard_taints: Vec<Taint>,
    pub soft_taints: Vec<Taint>,
    /// Bytes of each image it holds.
    pub images: HashMap<String, i64>,
}

impl NodeInfo {
    pub fn new(slot: u32, node: Arc<Node>) -> Self {
        let mut info = NodeInfo {
            slot,
            allocatable: Resources::default(),
            requested: Resources::default(),
            scored_milli_cpu: 0,
            scored_memory: 0,
            pods: Vec::new(),
            used_ports: Vec::new(),
            hard_taints: Vec::new(),
            soft_taints: Vec::new(),
            images: HashMap::new(),
            node: node.clone(),
        };
        info.set_node(node);
        info
    }

    /// Takes a newer state of the node, keeping its pods.
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = Resources::from_list(&node.status.allocatable);
        let taints =
            |keep: fn(&Taint) -> bool| node.spec.taints.iter().filter(|taint| keep(taint)).cloned().collect();
        self.hard_taints = taints(selectors::is_hard);
        self.soft_taints = taints(|taint| taint.effect == "PreferNoSchedule");
        let images = node.status.images.iter();
        self.images = images
            .flat_map(|image| image.names.iter().map(|name| (name.clone(), image.size_bytes)))
            .collect();
        self.node = node;
    }

    pub fn name(&self) -> &str {
        &self.node.metadata.name
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.metadata.labels.get(key).map(String::as_str)
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored_milli_cpu += pod.scored_milli_cpu;
        self.scored_memory += pod.scored_memory;
        self.used_ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(pod);
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid() == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.scored_milli_cpu -= pod.scored_milli_cpu;
        self.scored_memory -= pod.scored_memory;
        for port in &pod.host_ports {
            if let Some(at) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(at);
            }
        }
        Some(pod)
    }
}
