//! What every decider reads: an immutable, indexed snapshot of objects, cheap to clone and to change by one object.
//!
//! Invariants: an object is in its kind's table under its namespace and name, and in each index exactly where its own
//! fields say; a kind's revision never goes back; nothing here waits, reads a clock, or speaks to a server.
#![forbid(unsafe_code)]

mod graph;
mod table;

pub use graph::{Graph, ResourceId, Vertex};
use imbl::HashMap;
use meta::ObjectKey;
use std::any::TypeId;
use std::sync::Arc;
use table::Table;

use api::Object;
use api::core::v1::Pod;

/// Which kind: the identity of its Rust type.
pub type KindId = TypeId;

/// The identity of a typed kind.
pub fn kind_id<T: Object>() -> KindId {
    TypeId::of::<T>()
}

/// The identity of an object's kind.
pub fn kind_of(object: &dyn Object) -> KindId {
    object.as_any().type_id()
}

/// The key of an object.
pub fn key_of(object: &dyn Object) -> ObjectKey {
    ObjectKey::new(object.metadata().namespace.clone(), object.metadata().name.clone())
}

/// A resourceVersion as a number; revisions of one cluster are comparable (KEP-5504). 0 where there is none.
pub fn revision_of(object: &dyn Object) -> u64 {
    object.metadata().resource_version.parse().unwrap_or(0)
}

/// Objects of several kinds at one moment.
#[derive(Clone, Default)]
pub struct View {
    tables: HashMap<KindId, Arc<Table>>,
    graph: Graph,
}

impl View {
    /// The object of this name.
    pub fn get<T: Object>(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.get_object(kind_id::<T>(), key).and_then(typed)
    }

    /// The object of this name and this uid: what a reference with a uid means.
    pub fn get_by_uid<T: Object>(&self, key: &ObjectKey, uid: &str) -> Option<Arc<T>> {
        self.get::<T>(key).filter(|object| object.metadata().uid == uid)
    }

    /// The object of this name, of a kind known at run time only.
    pub fn get_object(&self, kind: KindId, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        self.tables.get(&kind)?.get(key).cloned()
    }

    /// All objects of a kind, by namespace and name.
    pub fn list<T: Object>(&self) -> impl Iterator<Item = Arc<T>> + '_ {
        self.list_objects(kind_id::<T>()).filter_map(|object| typed(object.clone()))
    }

    /// All objects of a kind known at run time only, by namespace and name.
    pub fn list_objects(&self, kind: KindId) -> impl Iterator<Item = &Arc<dyn Object>> + '_ {
        self.tables.get(&kind).into_iter().flat_map(|table| table.all())
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace<'a, T: Object>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = Arc<T>> + use<'a, T> {
        self.tables
            .get(&kind_id::<T>())
            .into_iter()
            .flat_map(move |table| table.in_namespace(namespace))
            .filter_map(|object| typed(object.clone()))
    }

    /// The objects that name this uid among their ownerReferences, by namespace and name.
    pub fn owned_by<'a, T: Object>(&'a self, uid: &'a str) -> impl Iterator<Item = Arc<T>> + use<'a, T> {
        self.tables
            .get(&kind_id::<T>())
            .into_iter()
            .flat_map(move |table| table.owned_by(uid))
            .filter_map(|object| typed(object.clone()))
    }

    /// The objects of a namespace that no controller owns, by name: what may be adopted.
    pub fn orphans_in<'a, T: Object>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = Arc<T>> + use<'a, T> {
        self.tables
            .get(&kind_id::<T>())
            .into_iter()
            .flat_map(move |table| table.orphans_in(namespace))
            .filter_map(|object| typed(object.clone()))
    }

    /// The pods whose spec.nodeName is this node, by namespace and name.
    pub fn pods_on_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = Arc<Pod>> + use<'a> {
        self.tables
            .get(&kind_id::<Pod>())
            .into_iter()
            .flat_map(move |table| table.on_node(node))
            .filter_map(|object| typed(object.clone()))
    }

    /// How many objects of a kind there are.
    pub fn len<T: Object>(&self) -> usize {
        self.tables.get(&kind_id::<T>()).map_or(0, |table| table.len())
    }

    /// Whether there is none of a kind.
    pub fn is_empty<T: Object>(&self) -> bool {
        self.len::<T>() == 0
    }

    /// Owners and dependents over all kinds, where they are followed.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub fn graph_mut(&mut self) -> &mut Graph {
        &mut self.graph
    }

    /// Puts an object in, in place of the one of its name; answers with that one. The kind's revision follows.
    pub fn insert<T: Object>(&mut self, object: Arc<T>) -> Option<Arc<T>> {
        self.insert_object(object).and_then(typed)
    }

    pub fn insert_object(&mut self, object: Arc<dyn Object>) -> Option<Arc<dyn Object>> {
        let table = self.table_mut(kind_of(object.as_ref()));
        table.advance(revision_of(object.as_ref()));
        table.insert(object)
    }

    pub fn remove<T: Object>(&mut self, key: &ObjectKey) -> Option<Arc<T>> {
        self.remove_object(kind_id::<T>(), key).and_then(typed)
    }

    pub fn remove_object(&mut self, kind: KindId, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        self.table_mut(kind).remove(key)
    }

    /// The view of this kind holds everything up to this revision.
    pub fn advance(&mut self, kind: KindId, revision: u64) {
        self.table_mut(kind).advance(revision);
    }

    /// The kind has been listed in full at least once.
    pub fn mark_synced(&mut self, kind: KindId) {
        self.table_mut(kind).synced = true;
    }

    pub fn synced(&self, kind: KindId) -> bool {
        self.tables.get(&kind).is_some_and(|table| table.synced)
    }

    /// The revision up to which this kind is known; 0 for a kind that is not followed.
    pub fn revision(&self, kind: KindId) -> u64 {
        self.tables.get(&kind).map_or(0, |table| table.revision)
    }

    /// Whether this kind is followed at all.
    pub fn follows(&self, kind: KindId) -> bool {
        self.tables.contains_key(&kind)
    }

    /// Whether no object of this kind, name and uid is left.
    pub fn gone(&self, kind: KindId, key: &ObjectKey, uid: &str) -> bool {
        self.get_object(kind, key).is_none_or(|object| object.metadata().uid != uid)
    }

    fn table_mut(&mut self, kind: KindId) -> &mut Table {
        Arc::make_mut(self.tables.entry(kind).or_default())
    }
}

fn typed<T: Object>(object: Arc<dyn Object>) -> Option<Arc<T>> {
    let object: Arc<dyn std::any::Any + Send + Sync> = object;
    object.downcast::<T>().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::{ConfigMap, Pod};
    use api::meta::v1::OwnerReference;

    fn pod(namespace: &str, name: &str, uid: &str, node: &str, owner: &str, revision: u64) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.namespace = namespace.into();
        pod.metadata.name = name.into();
        pod.metadata.uid = uid.into();
        pod.metadata.resource_version = revision.to_string();
        pod.spec.node_name = node.into();
        if !owner.is_empty() {
            pod.metadata.owner_references.push(OwnerReference { uid: owner.into(), ..Default::default() });
        }
        Arc::new(pod)
    }

    fn names(pods: impl Iterator<Item = Arc<Pod>>) -> String {
        pods.map(|pod| pod.metadata.name.clone()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn indexes_follow_the_fields_of_the_object() {
        let mut view = View::default();
        view.insert(pod("a", "one", "1", "n1", "rs", 5));
        view.insert(pod("a", "two", "2", "", "rs", 6));
        view.insert(pod("b", "one", "3", "n1", "", 7));
        view.insert(Arc::new(ConfigMap::default()));
        assert_eq!(names(view.in_namespace("a")), "one two");
        assert_eq!(names(view.owned_by("rs")), "one two");
        assert_eq!(names(view.orphans_in("b")), "one");
        assert_eq!(names(view.pods_on_node("n1")), "one one");
        assert_eq!(names(view.list::<Pod>()), "one two one");

        let before = view.clone();
        view.insert(pod("a", "one", "1", "n2", "", 8));
        assert_eq!(names(view.owned_by("rs")), "two");
        assert_eq!(names(view.pods_on_node("n1")), "one");
        assert_eq!(names(view.pods_on_node("n2")), "one");
        view.remove::<Pod>(&ObjectKey::new("b", "one"));
        assert_eq!(names(view.pods_on_node("n1")), "");
        assert_eq!(view.len::<Pod>(), 2);
        // A clone taken earlier is not touched.
        assert_eq!(names(before.pods_on_node("n1")), "one one");
        assert_eq!(before.len::<Pod>(), 3);
    }

    #[test]
    fn fences_see_revisions_and_uids() {
        let mut view = View::default();
        let kind = kind_id::<Pod>();
        assert_eq!(view.revision(kind), 0);
        view.insert(pod("a", "one", "1", "", "", 5));
        assert_eq!(view.revision(kind), 5);
        view.advance(kind, 9);
        view.advance(kind, 7);
        assert_eq!(view.revision(kind), 9);
        let key = ObjectKey::new("a", "one");
        assert!(!view.gone(kind, &key, "1"));
        assert!(view.gone(kind, &key, "2"));
        view.remove::<Pod>(&key);
        assert!(view.gone(kind, &key, "1"));
        assert!(!view.synced(kind));
        view.mark_synced(kind);
        assert!(view.synced(kind));
    }
}
