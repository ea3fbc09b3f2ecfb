//! One kind's objects with their indexes, as persistent maps: a change copies a path, never the table.

use api::Object;
use api::core::v1::Pod;
use imbl::OrdMap;
use meta::ObjectKey;
use std::ops::Bound;
use std::sync::Arc;

/// An index entry: the indexed value, then the object's key, so that one value's entries stand together.
type Index = OrdMap<(String, ObjectKey), Arc<dyn Object>>;

#[derive(Clone, Default)]
pub(crate) struct Table {
    objects: OrdMap<ObjectKey, Arc<dyn Object>>,
    by_owner: Index,
    by_node: Index,
    pub(crate) revision: u64,
    pub(crate) synced: bool,
}

impl Table {
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<dyn Object>> {
        self.objects.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<dyn Object>> {
        self.objects.values()
    }

    pub(crate) fn in_namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<dyn Object>> {
        self.objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    pub(crate) fn owned_by<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<dyn Object>> {
        indexed(&self.by_owner, uid)
    }

    /// Those of one namespace that no controller owns: they stand under the empty uid.
    pub(crate) fn orphans_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<dyn Object>> {
        self.by_owner
            .range((String::new(), ObjectKey::new(namespace, ""))..)
            .take_while(move |((uid, key), _)| uid.is_empty() && key.namespace == namespace)
            .map(|(_, object)| object)
    }

    pub(crate) fn on_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<dyn Object>> {
        indexed(&self.by_node, node)
    }

    pub(crate) fn advance(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    pub(crate) fn insert(&mut self, object: Arc<dyn Object>) -> Option<Arc<dyn Object>> {
        let key = crate::key_of(object.as_ref());
        let old = self.objects.insert(key.clone(), object.clone());
        if let Some(old) = &old {
            self.unindex(&key, old.as_ref());
        }
        if is_orphan(object.as_ref()) {
            self.by_owner.insert((String::new(), key.clone()), object.clone());
        }
        for owner in &object.metadata().owner_references {
            self.by_owner.insert((owner.uid.clone(), key.clone()), object.clone());
        }
        if let Some(node) = node_of(object.as_ref()) {
            self.by_node.insert((node.to_string(), key), object);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        let old = self.objects.remove(key)?;
        self.unindex(key, old.as_ref());
        Some(old)
    }

    fn unindex(&mut self, key: &ObjectKey, old: &dyn Object) {
        if is_orphan(old) {
            self.by_owner.remove(&(String::new(), key.clone()));
        }
        for owner in &old.metadata().owner_references {
            self.by_owner.remove(&(owner.uid.clone(), key.clone()));
        }
        if let Some(node) = node_of(old) {
            self.by_node.remove(&(node.to_string(), key.clone()));
        }
    }
}

fn indexed<'a>(index: &'a Index, value: &'a str) -> impl Iterator<Item = &'a Arc<dyn Object>> {
    let from = (value.to_string(), ObjectKey::default());
    index
        .range((Bound::Included(from), Bound::Unbounded))
        .take_while(move |((indexed, _), _)| indexed == value)
        .map(|(_, object)| object)
}

fn is_orphan(object: &dyn Object) -> bool {
    !object.metadata().owner_references.iter().any(|owner| owner.controller == Some(true))
}

fn node_of(object: &dyn Object) -> Option<&str> {
    object.downcast::<Pod>().map(|pod| pod.spec.node_name.as_str()).filter(|node| !node.is_empty())
}
