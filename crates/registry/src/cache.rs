//! One resource in memory: its objects as shared bytes in an ordered map whose snapshots are free, its recent changes,
//! and the watchers that each change concerns.
//!
//! Invariants: `objects` and `ring` are changed only by the feed, in the order of revisions; a watcher registered
//! together with a snapshot at revision R is sent exactly the changes after R; sending never waits.

use crate::encoded::Encoded;
use crate::selection::{INDEXED_FIELD, Scope, Selection};
use crate::watch::{Event, QUEUE_MAX};
use api::errors::ApiError;
use imbl::OrdMap;
use parking_lot::Mutex;
use resources::Resource;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Changes kept for watches that start in the past; older ones are read from the store's own history.
const RING_MAX: usize = 4096;
/// Bytes of documents that the ring may keep alive.
const RING_BYTES_MAX: usize = 16 << 20;
/// Snapshots kept for the next page of a paged list.
const SNAPSHOTS_MAX: usize = 8;

/// The objects of a resource by their key below its prefix, in the order of the store.
pub(crate) type Objects = OrdMap<Arc<str>, Arc<Encoded>>;

/// One object went from `previous` to `object`.
pub(crate) struct Change {
    pub revision: i64,
    pub key: Arc<str>,
    /// Absent when the object was deleted.
    pub object: Option<Arc<Encoded>>,
    pub previous: Option<Arc<Encoded>>,
    last: OnceLock<Arc<Encoded>>,
}

impl Change {
    pub fn new(
        revision: i64,
        key: Arc<str>,
        object: Option<Arc<Encoded>>,
        previous: Option<Arc<Encoded>>,
    ) -> Self {
        Change { revision, key, object, previous, last: OnceLock::new() }
    }

    /// What a watcher with this selection hears of the change.
    pub fn event(&self, selection: &Selection) -> Option<Event> {
        let before = self.previous.as_ref().filter(|object| selection.matches(object));
        let after = self.object.as_ref().filter(|object| selection.matches(object));
        match (before, after) {
            (None, Some(object)) => Some(Event::Added(Arc::clone(object))),
            (Some(_), Some(object)) => Some(Event::Modified(Arc::clone(object))),
            // The last state that was selected, as of the revision at which it no longer is.
            (Some(object), None) => {
                Some(Event::Deleted(Arc::clone(self.last.get_or_init(|| object.at_revision(self.revision)))))
            }
            (None, None) => None,
        }
    }

    fn bytes(&self) -> usize {
        self.previous.as_ref().map_or(0, |object| object.size())
    }
}

struct Registered {
    id: u64,
    selection: Arc<Selection>,
    queue: mpsc::Sender<Event>,
}

#[derive(Default)]
struct Watchers {
    next: u64,
    by_scope: HashMap<Scope, Vec<Registered>>,
    /// How many watchers are registered under a field; while there are none, no object is decoded for it.
    by_field: usize,
}

impl Watchers {
    fn send(&mut self, scope: &Scope, change: &Change) {
        let Some(registered) = self.by_scope.get_mut(scope) else { return };
        let before = registered.len();
        registered.retain(|watcher| match change.event(&watcher.selection) {
            // A watcher whose queue is full reads too slowly: it is closed, and its client lists again.
            Some(event) => watcher.queue.try_send(event).is_ok(),
            None => true,
        });
        if matches!(scope, Scope::Field(_)) {
            self.by_field -= before - registered.len();
        }
        if registered.is_empty() {
            self.by_scope.remove(scope);
        }
    }

    fn dispatch(&mut self, change: &Change) {
        if self.by_scope.is_empty() {
            return;
        }
        self.send(&Scope::All, change);
        if let Some((namespace, _)) = change.key.split_once('/') {
            self.send(&Scope::Namespace(namespace.to_string()), change);
        }
        self.send(&Scope::Key(change.key.to_string()), change);
        if self.by_field > 0 {
            let value = |object: &Option<Arc<Encoded>>| {
                object.as_ref().map(|object| object.field(INDEXED_FIELD).unwrap_or_default())
            };
            let (before, after) = (value(&change.previous), value(&change.object));
            if let Some(value) = &after {
                self.send(&Scope::Field(value.clone()), change);
            }
            if let Some(value) = before.filter(|value| after.as_ref() != Some(value)) {
                self.send(&Scope::Field(value), change);
            }
        }
    }
}

#[derive(Default)]
struct State {
    /// Stepped by each reset, so that a load that began before it is not taken for one that came after.
    epoch: u64,
    /// Changes that came while the objects were being loaded; `None` once they are.
    loading: Option<Vec<Arc<Pending>>>,
    loaded: bool,
    objects: Objects,
    bytes: usize,
    /// The revision of the load, or of the newest change.
    revision: i64,
    ring: VecDeque<Arc<Change>>,
    ring_bytes: usize,
    /// All changes after this revision are in the ring.
    oldest: i64,
    /// Keys by the value of the indexed field, from the first time that somebody selects by it.
    by_field: Option<HashMap<String, BTreeSet<Arc<str>>>>,
    snapshots: VecDeque<(i64, Objects)>,
    watchers: Watchers,
}

/// A change as the feed heard it: what was there before is looked up when it is applied.
pub(crate) struct Pending {
    pub revision: i64,
    pub key: Arc<str>,
    pub object: Option<Arc<Encoded>>,
}

pub(crate) struct Cache {
    pub resource: &'static dyn Resource,
    /// `/registry/pods/`.
    pub prefix: String,
    /// Held by the one who loads.
    pub load: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// A moment of a resource.
pub(crate) struct Snapshot {
    pub revision: i64,
    pub objects: Objects,
}

/// What a new watcher gets.
pub(crate) struct Registration {
    pub id: u64,
    pub scope: Scope,
    pub queue: mpsc::Receiver<Event>,
    pub snapshot: Snapshot,
    pub replay: Replay,
}

pub(crate) enum Replay {
    /// The changes after the revision asked for.
    Changes(Vec<Arc<Change>>),
    /// The ring starts after this revision.
    TooOld(i64),
}

impl Cache {
    pub fn new(resource: &'static dyn Resource) -> Self {
        Cache {
            resource,
            prefix: format!("{}/", resource.storage_prefix()),
            load: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    pub fn is_loaded(&self) -> bool {
        self.state.lock().loaded
    }

    /// From now on changes are kept until `finish_load`, which wants the answer back.
    pub fn begin_load(&self) -> u64 {
        let mut state = self.state.lock();
        state.loading = Some(Vec::new());
        state.loaded = false;
        state.epoch
    }

    /// `false` when the cache was reset meanwhile: what was loaded may have missed changes.
    #[must_use]
    pub fn finish_load(&self, epoch: u64, revision: i64, objects: Objects) -> bool {
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return false;
        }
        state.bytes = objects.values().map(|object| object.size()).sum();
        state.objects = objects;
        (state.revision, state.oldest) = (revision, revision);
        state.ring.clear();
        state.ring_bytes = 0;
        for pending in state.loading.take().unwrap_or_default() {
            if pending.revision > revision {
                state.apply(&pending);
            }
        }
        state.loaded = true;
        true
    }

    /// Takes changes of one or more revisions, in order.
    pub fn apply(&self, changes: &[Arc<Pending>]) {
        let mut state = self.state.lock();
        if let Some(loading) = &mut state.loading {
            loading.extend_from_slice(changes);
            return;
        }
        if !state.loaded {
            return;
        }
        for change in changes {
            // What was loaded has it: a feed that is behind must not take objects back to older states.
            if change.revision > state.oldest {
                state.apply(change);
            }
        }
    }

    /// Forgets everything and ends every watch: the store no longer tells what happened in between.
    pub fn reset(&self) {
        let watchers = {
            let mut state = self.state.lock();
            let (next, epoch) = (state.watchers.next, state.epoch);
            let watchers = std::mem::take(&mut state.watchers);
            *state = State { epoch: epoch + 1, ..State::default() };
            state.watchers.next = next;
            watchers
        };
        for registered in watchers.by_scope.into_values().flatten() {
            let gone = ApiError::expired("The resourceVersion for the provided watch is too old.");
            let _ = registered.queue.try_send(Event::Error(Box::new(gone)));
        }
    }

    /// Forgets everything and ends every watch as if its time were up: what the objects are has changed, or is gone.
    pub fn close(&self) {
        let mut state = self.state.lock();
        let (next, epoch) = (state.watchers.next, state.epoch);
        *state = State { epoch: epoch + 1, ..State::default() };
        state.watchers.next = next;
    }

    pub fn get(&self, key: &str) -> Option<Arc<Encoded>> {
        self.state.lock().objects.get(key).cloned()
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        Snapshot { revision: state.revision, objects: state.objects.clone() }
    }

    /// The objects that a selection may match, where an index knows them: those with one value of the indexed field.
    pub fn indexed(&self, selection: &Selection) -> Option<Snapshot> {
        let value = selection.required(INDEXED_FIELD)?;
        let unindexed = {
            let state = self.state.lock();
            state.by_field.is_none().then(|| state.objects.clone())
        };
        // Objects keep the values of their fields: what is decoded here need not be under the lock.
        for object in unindexed.iter().flat_map(|objects| objects.values()) {
            object.field(INDEXED_FIELD);
        }
        let mut state = self.state.lock();
        state.index();
        Some(Snapshot { revision: state.revision, objects: state.objects_by_field(value) })
    }

    /// Keeps a snapshot for the pages that follow.
    pub fn keep_snapshot(&self, revision: i64, objects: &Objects) {
        let mut state = self.state.lock();
        if state.snapshots.iter().any(|(known, _)| *known == revision) {
            return;
        }
        if state.snapshots.len() == SNAPSHOTS_MAX {
            state.snapshots.pop_front();
        }
        state.snapshots.push_back((revision, objects.clone()));
    }

    pub fn kept_snapshot(&self, revision: i64) -> Option<Objects> {
        let state = self.state.lock();
        state.snapshots.iter().find(|(known, _)| *known == revision).map(|(_, objects)| objects.clone())
    }

    /// Registers a watcher and takes, at the same moment, the snapshot or the changes that its stream starts with.
    pub fn register(&self, selection: &Arc<Selection>, from: Option<i64>) -> Registration {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let scope = selection.scope(self.resource.namespaced());
        // Makes the index, where it takes making. A replay needs to see all objects.
        let indexed = from.is_none() && self.indexed(selection).is_some();
        let mut state = self.state.lock();
        let objects = match selection.required(INDEXED_FIELD).filter(|_| indexed) {
            Some(value) => state.objects_by_field(value),
            None => state.objects.clone(),
        };
        let snapshot = Snapshot { revision: state.revision, objects };
        let replay = match from {
            Some(from) if from < state.oldest => Replay::TooOld(state.oldest),
            Some(from) => {
                let at = state.ring.partition_point(|change| change.revision <= from);
                Replay::Changes(state.ring.range(at..).cloned().collect())
            }
            None => Replay::Changes(Vec::new()),
        };
        let id = state.watchers.next;
        state.watchers.next += 1;
        if matches!(scope, Scope::Field(_)) {
            state.watchers.by_field += 1;
        }
        let registered = Registered { id, selection: Arc::clone(selection), queue: sender };
        state.watchers.by_scope.entry(scope.clone()).or_default().push(registered);
        Registration { id, scope, queue, snapshot, replay }
    }

    pub fn unregister(&self, scope: &Scope, id: u64) {
        let mut state = self.state.lock();
        let watchers = &mut state.watchers;
        let Some(registered) = watchers.by_scope.get_mut(scope) else { return };
        let Some(at) = registered.iter().position(|watcher| watcher.id == id) else { return };
        registered.swap_remove(at);
        if registered.is_empty() {
            watchers.by_scope.remove(scope);
        }
        if matches!(scope, Scope::Field(_)) {
            watchers.by_field -= 1;
        }
    }

    /// How many objects, bytes of documents and watchers there are.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.objects.len(), state.bytes, state.watchers.by_scope.values().map(Vec::len).sum())
    }
}

impl State {
    fn index(&mut self) {
        if self.by_field.is_some() {
            return;
        }
        let mut by_field: HashMap<String, BTreeSet<Arc<str>>> = HashMap::new();
        for (key, object) in &self.objects {
            let value = object.field(INDEXED_FIELD).unwrap_or_default();
            by_field.entry(value).or_default().insert(Arc::clone(key));
        }
        self.by_field = Some(by_field);
    }

    /// All objects where there is no index, which a reset may have dropped.
    fn objects_by_field(&self, value: &str) -> Objects {
        let Some(by_field) = &self.by_field else { return self.objects.clone() };
        let keys = by_field.get(value).into_iter().flatten();
        keys.filter_map(|key| Some((Arc::clone(key), Arc::clone(self.objects.get(key)?)))).collect()
    }

    fn reindex(&mut self, key: &Arc<str>, before: Option<&Arc<Encoded>>, after: Option<&Arc<Encoded>>) {
        let Some(by_field) = &mut self.by_field else { return };
        let value = |object: &Arc<Encoded>| object.field(INDEXED_FIELD).unwrap_or_default();
        let (before, after) = (before.map(value), after.map(value));
        if before == after {
            return;
        }
        if let Some(value) = before
            && let Some(keys) = by_field.get_mut(&value)
        {
            keys.remove(key);
            if keys.is_empty() {
                by_field.remove(&value);
            }
        }
        if let Some(value) = after {
            by_field.entry(value).or_default().insert(Arc::clone(key));
        }
    }

    fn apply(&mut self, pending: &Pending) {
        let previous = match &pending.object {
            Some(object) => self.objects.insert(Arc::clone(&pending.key), Arc::clone(object)),
            None => self.objects.remove(&pending.key),
        };
        let size = |object: &Option<Arc<Encoded>>| object.as_ref().map_or(0, |object| object.size());
        self.bytes = self.bytes + size(&pending.object) - size(&previous);
        self.reindex(&pending.key, previous.as_ref(), pending.object.as_ref());
        self.revision = self.revision.max(pending.revision);
        if pending.object.is_none() && previous.is_none() {
            return;
        }
        let change =
            Change::new(pending.revision, Arc::clone(&pending.key), pending.object.clone(), previous);
        self.watchers.dispatch(&change);
        self.ring_bytes += change.bytes();
        self.ring.push_back(Arc::new(change));
        while self.ring.len() > RING_MAX || (self.ring_bytes > RING_BYTES_MAX && self.ring.len() > 1) {
            let Some(gone) = self.ring.pop_front() else { break };
            self.ring_bytes -= gone.bytes();
            self.oldest = gone.revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn pending(revision: i64) -> Arc<Pending> {
        let resource = resources::find("", "v1", "configmaps").expect("in the table");
        let object = resource.new_object();
        let encoded = Encoded::from_object(resource, object, revision, &Budget::new(1 << 20));
        Arc::new(Pending { revision, key: "default/a".into(), object: Some(encoded.expect("encodes")) })
    }

    #[test]
    fn a_feed_that_is_behind_takes_nothing_back() {
        let cache = Cache::new(resources::find("", "v1", "configmaps").expect("in the table"));
        let epoch = cache.begin_load();
        let loaded = pending(9);
        let objects = Objects::unit(loaded.key.clone(), loaded.object.clone().expect("put"));
        assert!(cache.finish_load(epoch, 10, objects));
        let revision = || cache.get("default/a").expect("there").revision();
        cache.apply(&[pending(7)]);
        assert_eq!((revision(), cache.snapshot().revision), (9, 10));
        cache.apply(&[pending(9), pending(11)]);
        assert_eq!((revision(), cache.snapshot().revision), (11, 11));
    }
}
