//! Who owns whom, over all kinds: what the garbage collector reads. Holds identities only, never a spec or a status.
//!
//! Invariant: `dependents` has (owner, dependent) for each ownerReference of each vertex, whether or not the owner is known.

use api::meta::v1::{ObjectMeta, OwnerReference};
use imbl::{HashMap, HashSet, OrdMap, OrdSet, Vector};
use meta::ObjectKey;
use std::sync::Arc;

/// Vertices that left are remembered, up to this many: an owner among them is gone for good.
const BURIED_MAX: usize = 10_000;

/// A resource as discovery names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
}

impl ResourceId {
    /// `v1` for the core group, `apps/v1` for the others.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`: how messages name it.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// One object of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Vertex {
    pub resource: Arc<ResourceId>,
    pub key: ObjectKey,
    pub uid: String,
    pub resource_version: String,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Vertex {
    pub fn new(resource: Arc<ResourceId>, metadata: &ObjectMeta) -> Self {
        Vertex {
            resource,
            key: ObjectKey::new(metadata.namespace.clone(), metadata.name.clone()),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            owners: metadata.owner_references.clone(),
            finalizers: metadata.finalizers.clone(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }
}

/// How far one resource is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    revision: u64,
    synced: bool,
}

#[derive(Clone, Default)]
pub struct Graph {
    vertices: HashMap<String, Arc<Vertex>>,
    dependents: OrdSet<(String, String)>,
    by_key: OrdMap<(Arc<ResourceId>, ObjectKey), String>,
    progress: HashMap<Arc<ResourceId>, Progress>,
    buried: HashSet<String>,
    burials: Vector<String>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Arc<Vertex>> {
        self.vertices.get(uid)
    }

    pub fn find(&self, resource: &Arc<ResourceId>, key: &ObjectKey) -> Option<&Arc<Vertex>> {
        self.vertices.get(self.by_key.get(&(resource.clone(), key.clone()))?)
    }

    /// The known objects that name this uid among their owners, in order of uid.
    pub fn dependents<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = &'a Arc<Vertex>> {
        self.dependents
            .range((owner.to_string(), String::new())..)
            .take_while(move |(named, _)| named == owner)
            .filter_map(|(_, uid)| self.vertices.get(uid))
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Vertex>> {
        self.vertices.values()
    }

    /// The objects of one resource, by key.
    pub fn of_resource<'a>(&'a self, resource: &Arc<ResourceId>) -> impl Iterator<Item = &'a Arc<Vertex>> {
        let resource = resource.clone();
        self.by_key
            .range((resource.clone(), ObjectKey::default())..)
            .take_while(move |((of, _), _)| *of == resource)
            .filter_map(|(_, uid)| self.vertices.get(uid))
    }

    /// The objects of one resource in one namespace, by name.
    pub fn in_namespace<'a>(
        &'a self,
        resource: &Arc<ResourceId>,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Vertex>> {
        let resource = resource.clone();
        self.by_key
            .range((resource.clone(), ObjectKey::new(namespace, ""))..)
            .take_while(move |((of, key), _)| *of == resource && key.namespace == namespace)
            .filter_map(|(_, uid)| self.vertices.get(uid))
    }

    /// The resources that are followed.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<ResourceId>> {
        self.progress.keys()
    }

    /// The followed resource of a kind, whichever version of its group is followed.
    pub fn resource_of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<ResourceId>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.progress.keys().find(|resource| resource.group == group && resource.kind == kind)
    }

    /// Whether a resource has been listed in full at least once.
    pub fn synced(&self, resource: &Arc<ResourceId>) -> bool {
        self.progress.get(resource).is_some_and(|progress| progress.synced)
    }

    pub fn revision(&self, resource: &Arc<ResourceId>) -> u64 {
        self.progress.get(resource).map_or(0, |progress| progress.revision)
    }

    pub fn advance(&mut self, resource: &Arc<ResourceId>, revision: u64) {
        let progress = self.progress.entry(resource.clone()).or_default();
        progress.revision = progress.revision.max(revision);
    }

    pub fn mark_synced(&mut self, resource: &Arc<ResourceId>) {
        self.progress.entry(resource.clone()).or_default().synced = true;
    }

    /// Stops following a resource: its objects leave the graph.
    pub fn forget(&mut self, resource: &Arc<ResourceId>) {
        let keys: Vec<_> = self.of_resource(resource).map(|vertex| vertex.key.clone()).collect();
        for key in keys {
            // Its objects may live on, unseen: they are not buried.
            self.take(resource, &key);
        }
        self.progress.remove(resource);
    }

    /// Whether an object of this uid was seen to go.
    pub fn is_buried(&self, uid: &str) -> bool {
        self.buried.contains(uid)
    }

    fn bury(&mut self, uid: &str) {
        if self.buried.insert(uid.to_string()).is_none() {
            self.burials.push_back(uid.to_string());
        }
        if self.burials.len() > BURIED_MAX
            && let Some(oldest) = self.burials.pop_front()
        {
            self.buried.remove(&oldest);
        }
    }

    /// Puts a vertex in; answers with the one that had its name.
    pub fn insert(&mut self, vertex: Arc<Vertex>) -> Option<Arc<Vertex>> {
        let old = self.take(&vertex.resource, &vertex.key);
        if let Some(old) = &old
            && old.uid != vertex.uid
        {
            self.bury(&old.uid);
        }
        self.advance(&vertex.resource, vertex.resource_version.parse().unwrap_or(0));
        self.by_key.insert((vertex.resource.clone(), vertex.key.clone()), vertex.uid.clone());
        for owner in &vertex.owners {
            self.dependents.insert((owner.uid.clone(), vertex.uid.clone()));
        }
        self.vertices.insert(vertex.uid.clone(), vertex);
        old
    }

    pub fn remove(&mut self, resource: &Arc<ResourceId>, key: &ObjectKey) -> Option<Arc<Vertex>> {
        let old = self.take(resource, key)?;
        self.bury(&old.uid);
        Some(old)
    }

    fn take(&mut self, resource: &Arc<ResourceId>, key: &ObjectKey) -> Option<Arc<Vertex>> {
        let uid = self.by_key.remove(&(resource.clone(), key.clone()))?;
        let old = self.vertices.remove(&uid)?;
        for owner in &old.owners {
            self.dependents.remove(&(owner.uid.clone(), uid.clone()));
        }
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(resource: &Arc<ResourceId>, name: &str, owner: &str) -> Arc<Vertex> {
        let mut metadata =
            ObjectMeta { name: name.into(), uid: format!("uid-{name}"), ..ObjectMeta::default() };
        if !owner.is_empty() {
            metadata.owner_references =
                vec![OwnerReference { uid: format!("uid-{owner}"), ..OwnerReference::default() }];
        }
        Arc::new(Vertex::new(resource.clone(), &metadata))
    }

    #[test]
    fn dependents_are_found_before_and_after_their_owner() {
        let pods = Arc::new(ResourceId { plural: "pods".into(), kind: "Pod".into(), ..Default::default() });
        let mut graph = Graph::default();
        graph.insert(vertex(&pods, "child", "parent"));
        let children = |graph: &Graph| {
            graph.dependents("uid-parent").map(|vertex| vertex.key.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(children(&graph), ["child"]);
        graph.insert(vertex(&pods, "parent", ""));
        graph.insert(vertex(&pods, "child", ""));
        assert!(children(&graph).is_empty());
        graph.insert(vertex(&pods, "child", "parent"));
        assert_eq!(graph.of_resource(&pods).count(), 2);
        assert_eq!(graph.in_namespace(&pods, "").count(), 2);
        assert_eq!(graph.in_namespace(&pods, "other").count(), 0);
        assert!(!graph.is_buried("uid-child"));
        graph.remove(&pods, &ObjectKey::cluster("child"));
        assert!(graph.is_buried("uid-child"));
        graph.forget(&pods);
        assert_eq!(graph.all().count(), 0);
        assert!(children(&graph).is_empty());
    }
}
