//! What decides beside nodes and pods: namespaces' labels, what selects a pod, storage, disruption budgets.

use crate::pod::PodInfo;
use api::apps::v1::{ReplicaSet, StatefulSet};
use api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, ReplicationController, Service};
use api::policy::v1::PodDisruptionBudget;
use api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use meta::ObjectKey;
use meta::labels::{Requirement, Selector};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// An object that decides, as it is now.
#[derive(Debug, Clone)]
pub enum Fact {
    Namespace(Arc<Namespace>),
    Service(Arc<Service>),
    ReplicationController(Arc<ReplicationController>),
    ReplicaSet(Arc<ReplicaSet>),
    StatefulSet(Arc<StatefulSet>),
    Claim(Arc<PersistentVolumeClaim>),
    Volume(Arc<PersistentVolume>),
    Class(Arc<StorageClass>),
    Budget(Arc<PodDisruptionBudget>),
    /// What a node's drivers take.
    CsiNode(Arc<CSINode>),
    Attachment(Arc<VolumeAttachment>),
    Driver(Arc<CSIDriver>),
    /// How much a driver still has somewhere.
    Capacity(Arc<CSIStorageCapacity>),
}

/// The facts of a cluster.
#[derive(Debug, Default)]
pub struct Facts {
    namespaces: HashMap<String, Arc<Namespace>>,
    /// By namespace, then name.
    services: HashMap<String, HashMap<String, Arc<Service>>>,
    /// By kind and key.
    owners: HashMap<(&'static str, ObjectKey), Selector>,
    claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    budgets: BTreeMap<ObjectKey, Arc<PodDisruptionBudget>>,
    /// By node, then driver: how many volumes. Nodes without any limit are not here.
    limits: HashMap<String, BTreeMap<String, i32>>,
    /// By node, then the attachment's name.
    attachments: HashMap<String, HashMap<String, Arc<VolumeAttachment>>>,
    /// Drivers whose free storage counts.
    counted: BTreeSet<String>,
    capacities: HashMap<ObjectKey, Arc<CSIStorageCapacity>>,
}

fn key(meta: &api::meta::v1::ObjectMeta) -> ObjectKey {
    ObjectKey::new(meta.namespace.clone(), meta.name.clone())
}

impl Facts {
    pub fn set(&mut self, fact: Fact) {
        match fact {
            Fact::Namespace(object) => {
                self.namespaces.insert(object.metadata.name.clone(), object);
            }
            Fact::Service(object) => {
                let namespace = self.services.entry(object.metadata.namespace.clone()).or_default();
                namespace.insert(object.metadata.name.clone(), object);
            }
            Fact::ReplicationController(object) => {
                let selector = Selector::from_map(&object.spec.selector);
                self.owners.insert(("ReplicationController", key(&object.metadata)), selector);
            }
            Fact::ReplicaSet(object) => {
                let selector = api::optional_selector(object.spec.selector.as_deref());
                self.owners.insert(("ReplicaSet", key(&object.metadata)), selector.unwrap_or_default());
            }
            Fact::StatefulSet(object) => {
                let selector = api::optional_selector(object.spec.selector.as_deref());
                self.owners.insert(("StatefulSet", key(&object.metadata)), selector.unwrap_or_default());
            }
            Fact::Claim(object) => {
                self.claims.insert(key(&object.metadata), object);
            }
            Fact::Volume(object) => {
                self.volumes.insert(object.metadata.name.clone(), object);
            }
            Fact::Class(object) => {
                self.classes.insert(object.metadata.name.clone(), object);
            }
            Fact::Budget(object) => {
                self.budgets.insert(key(&object.metadata), object);
            }
            Fact::CsiNode(object) => {
                let limit = |driver: &api::storage::v1::CSINodeDriver| {
                    Some((driver.name.clone(), driver.allocatable.as_ref()?.count?))
                };
                let limits: BTreeMap<String, i32> = object.spec.drivers.iter().filter_map(limit).collect();
                if limits.is_empty() {
                    self.limits.remove(&object.metadata.name);
                } else {
                    self.limits.insert(object.metadata.name.clone(), limits);
                }
            }
            Fact::Driver(object) => {
                if object.spec.storage_capacity == Some(true) {
                    self.counted.insert(object.metadata.name.clone());
                } else {
                    self.counted.remove(&object.metadata.name);
                }
            }
            Fact::Capacity(object) => {
                self.capacities.insert(key(&object.metadata), object);
            }
            Fact::Attachment(object) => {
                let node = self.attachments.entry(object.spec.node_name.clone()).or_default();
                node.insert(object.metadata.name.clone(), object);
            }
        }
    }

    pub fn remove(&mut self, fact: &Fact) {
        match fact {
            Fact::Namespace(object) => drop(self.namespaces.remove(&object.metadata.name)),
            Fact::Service(object) => {
                if let Some(namespace) = self.services.get_mut(&object.metadata.namespace) {
                    namespace.remove(&object.metadata.name);
                    if namespace.is_empty() {
                        self.services.remove(&object.metadata.namespace);
                    }
                }
            }
            Fact::ReplicationController(object) => {
                drop(self.owners.remove(&("ReplicationController", key(&object.metadata))));
            }
            Fact::ReplicaSet(object) => drop(self.owners.remove(&("ReplicaSet", key(&object.metadata)))),
            Fact::StatefulSet(object) => drop(self.owners.remove(&("StatefulSet", key(&object.metadata)))),
            Fact::Claim(object) => drop(self.claims.remove(&key(&object.metadata))),
            Fact::Volume(object) => drop(self.volumes.remove(&object.metadata.name)),
            Fact::Class(object) => drop(self.classes.remove(&object.metadata.name)),
            Fact::Budget(object) => drop(self.budgets.remove(&key(&object.metadata))),
            Fact::Driver(object) => drop(self.counted.remove(&object.metadata.name)),
            Fact::Capacity(object) => drop(self.capacities.remove(&key(&object.metadata))),
            Fact::CsiNode(object) => drop(self.limits.remove(&object.metadata.name)),
            Fact::Attachment(object) => {
                if let Some(node) = self.attachments.get_mut(&object.spec.node_name) {
                    node.remove(&object.metadata.name);
                    if node.is_empty() {
                        self.attachments.remove(&object.spec.node_name);
                    }
                }
            }
        }
    }

    /// A namespace's labels; none for a namespace not (yet) known.
    pub fn namespace_labels(&self, name: &str) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.namespaces.get(name).map_or(&NONE, |namespace| &namespace.metadata.labels)
    }
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(&ObjectKey::new(namespace, name))
    }
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }
    pub fn volumes(&self) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.volumes.values()
    }
    /// Whether a driver tells how much storage is free, and wants that heeded.
    pub fn counts_capacity(&self, driver: &str) -> bool {
        self.counted.contains(driver)
    }
    pub fn capacities(&self) -> impl Iterator<Item = &Arc<CSIStorageCapacity>> {
        self.capacities.values()
    }
    /// Whether any driver of any node has a limit.
    pub fn has_volume_limits(&self) -> bool {
        !self.limits.is_empty()
    }
    /// How many volumes of each driver a node takes; `None` where nothing limits it.
    pub fn volume_limits(&self, node: &str) -> Option<&BTreeMap<String, i32>> {
        self.limits.get(node)
    }
    /// What is attached to a node, as driver and handle.
    pub fn attached(&self, node: &str) -> BTreeSet<(String, String)> {
        let attachments = self.attachments.get(node).into_iter().flat_map(HashMap::values);
        attachments
            .filter_map(|own| {
                let volume = self.volumes.get(own.spec.source.persistent_volume_name.as_ref()?)?;
                let csi = volume.spec.persistent_volume_source.csi.as_ref()?;
                Some((csi.driver.clone(), csi.volume_handle.clone()))
            })
            .collect()
    }
    pub fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }
    pub fn budgets(&self) -> impl Iterator<Item = &Arc<PodDisruptionBudget>> {
        self.budgets.values()
    }

    /// What selects the pods that belong together with this one: its Services' selectors and its controller's.
    /// `None` where nothing does.
    pub fn default_selector(&self, pod: &PodInfo) -> Option<Selector> {
        let mut requirements: Vec<Requirement> = Vec::new();
        for service in self.services.get(pod.namespace()).into_iter().flat_map(HashMap::values) {
            let wanted = &service.spec.selector;
            if !wanted.is_empty() && wanted.iter().all(|(key, value)| pod.labels().get(key) == Some(value)) {
                requirements.extend_from_slice(Selector::from_map(wanted).requirements());
            }
        }
        let controller =
            pod.pod.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
        if let Some(owner) = controller {
            let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
                ("v1", "ReplicationController") => Some("ReplicationController"),
                ("apps/v1", "ReplicaSet") => Some("ReplicaSet"),
                ("apps/v1", "StatefulSet") => Some("StatefulSet"),
                _ => None,
            };
            let name = || ObjectKey::new(pod.namespace(), owner.name.clone());
            let selector = kind.and_then(|kind| self.owners.get(&(kind, name())));
            requirements.extend(selector.into_iter().flat_map(|own| own.requirements()).cloned());
        }
        (!requirements.is_empty()).then(|| Selector::new(requirements))
    }
}
