//! One watch: what it starts with, then every change that it selects, then bookmarks that say how far it has come.

use crate::cache::{Cache, Change, Objects, Registration, Replay, Snapshot};
use crate::encoded::Encoded;
use crate::feed::{CATCH_UP_MAX, Caches, below};
use crate::selection::{Scope, Selection};
use api::errors::{ApiError, Cause};
use resources::Resource;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::{EventKind, RangeRequest, WatchRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Events that wait for a slow reader; a watch whose queue is full is closed.
pub const QUEUE_MAX: usize = 1024;
/// How often a watch that allows bookmarks gets one while revisions advance.
pub const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Changes read from the store's history for a watch that starts before the cache's own.
const REPLAY_MAX: usize = 20_000;
/// Marks the bookmark after the last of the initial events.
pub const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Event {
    Added(Arc<Encoded>),
    Modified(Arc<Encoded>),
    /// The object's last state, at the revision at which it went or left the selection.
    Deleted(Arc<Encoded>),
    /// An object with nothing but its resourceVersion (and perhaps the annotation that ends the initial events).
    Bookmark(Arc<Encoded>),
    /// The watch ends after it.
    Error(Box<ApiError>),
}

impl Event {
    /// The type on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Added(_) => "ADDED",
            Event::Modified(_) => "MODIFIED",
            Event::Deleted(_) => "DELETED",
            Event::Bookmark(_) => "BOOKMARK",
            Event::Error(_) => "ERROR",
        }
    }

    pub fn object(&self) -> Option<&Arc<Encoded>> {
        match self {
            Event::Added(object)
            | Event::Modified(object)
            | Event::Deleted(object)
            | Event::Bookmark(object) => Some(object),
            Event::Error(_) => None,
        }
    }

    fn map(
        self,
        with: impl FnOnce(&Arc<Encoded>) -> Result<Arc<Encoded>, ApiError>,
    ) -> Result<Self, ApiError> {
        Ok(match self {
            Event::Added(object) => Event::Added(with(&object)?),
            Event::Modified(object) => Event::Modified(with(&object)?),
            Event::Deleted(object) => Event::Deleted(with(&object)?),
            other => other,
        })
    }
}

/// What a watch begins with.
pub(crate) enum Start {
    /// Only what comes after now.
    Now,
    /// The objects as they are, as ADDED events, then what comes after. `bookmark`: and a mark between the two.
    Objects { bookmark: bool },
    /// What came after this revision.
    After(i64),
}

enum Initial {
    Objects(std::vec::IntoIter<Arc<Encoded>>),
    Events(VecDeque<Event>),
}

/// A watch in progress; dropping it ends it.
pub struct Watcher {
    resource: &'static dyn Resource,
    caches: Arc<Caches>,
    cache: Arc<Cache>,
    id: u64,
    scope: Scope,
    initial: Initial,
    /// The mark after the initial objects, at the revision of their snapshot.
    mark: Option<i64>,
    queue: mpsc::Receiver<Event>,
    /// Changes up to here are in `initial`; the queue may hold some of them again after a read of history.
    seen: i64,
    bookmark_at: Option<Instant>,
    ended: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.cache.unregister(&self.scope, self.id);
    }
}

/// The objects of a snapshot that a selection may match: all, one namespace's, or one.
pub(crate) fn candidates<'a>(
    objects: &'a Objects,
    selection: &Selection,
    namespaced: bool,
    from: &str,
) -> Box<dyn Iterator<Item = (&'a Arc<str>, &'a Arc<Encoded>)> + Send + 'a> {
    if let Some(key) = selection.only_key(namespaced) {
        let found = objects.get_key_value(key.as_str()).filter(|(key, _)| ***key >= *from);
        return Box::new(found.into_iter());
    }
    let namespace = selection.only_namespace().filter(|_| namespaced);
    match namespace {
        Some(namespace) => {
            let prefix = format!("{namespace}/");
            let end: Arc<str> = format!("{namespace}0").into();
            let start: Arc<str> = if *from > *prefix { from.into() } else { prefix.into() };
            if start >= end {
                return Box::new(std::iter::empty());
            }
            Box::new(objects.range(start..end))
        }
        None if from.is_empty() => Box::new(objects.iter()),
        None => {
            let start: Arc<str> = from.into();
            Box::new(objects.range(start..))
        }
    }
}

impl Watcher {
    pub(crate) async fn open(
        resource: &'static dyn Resource,
        caches: &Arc<Caches>,
        selection: Selection,
        start: Start,
        bookmarks: bool,
    ) -> Result<Self, ApiError> {
        let cache = caches.cache(resource).await?;
        let selection = Arc::new(selection);
        let from = match start {
            Start::After(revision) => Some(revision),
            _ => None,
        };
        let applied = caches.applied();
        let registration = cache.register(&selection, from);
        let Registration { id, scope, queue, snapshot, replay } = registration;
        let mut watcher = Watcher {
            resource,
            caches: Arc::clone(caches),
            cache: Arc::clone(&cache),
            id,
            scope,
            initial: Initial::Events(VecDeque::new()),
            mark: None,
            queue,
            seen: from.unwrap_or(snapshot.revision),
            bookmark_at: bookmarks.then(|| Instant::now() + BOOKMARK_EVERY),
            ended: false,
        };
        match start {
            Start::Now => {}
            Start::Objects { bookmark } => {
                let namespaced = cache.resource.namespaced();
                let all: Vec<_> = candidates(&snapshot.objects, &selection, namespaced, "")
                    .filter(|(_, object)| selection.matches(object))
                    .map(|(_, object)| Arc::clone(object))
                    .collect();
                watcher.initial = Initial::Objects(all.into_iter());
                watcher.mark = bookmark.then(|| applied.max(snapshot.revision));
            }
            Start::After(revision) => {
                let changes = match replay {
                    Replay::Changes(changes) => changes,
                    Replay::TooOld(oldest) => {
                        watcher.seen = snapshot.revision;
                        replay_history(caches, &cache, revision, &snapshot)
                            .await
                            .ok_or_else(|| too_old(revision, oldest))?
                    }
                };
                let events = changes.iter().filter_map(|change| change.event(&selection)).collect();
                watcher.initial = Initial::Events(events);
            }
        }
        Ok(watcher)
    }

    /// Waits for the next event. `None`: the watch has ended, by an error before it or because it was read too slowly.
    /// It may be cancelled without loss.
    pub async fn recv(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        if let Some(event) = self.next_initial() {
            return Some(self.told(event).await);
        }
        loop {
            let event = match self.bookmark_at {
                None => self.queue.recv().await,
                Some(at) => match tokio::time::timeout_at(at, self.queue.recv()).await {
                    Ok(event) => event,
                    Err(_) => {
                        self.bookmark_at = Some(Instant::now() + BOOKMARK_EVERY);
                        match self.bookmark() {
                            Some(event) => Some(event),
                            None => continue,
                        }
                    }
                },
            };
            let Some(event) = event else {
                self.ended = true;
                return None;
            };
            if let Some(event) = self.fresh(event) {
                return Some(self.told(event).await);
            }
        }
    }

    /// The event in the watched version, whoever has to be asked for it.
    async fn told(&mut self, event: Event) -> Event {
        let Some(object) = event.object().filter(|_| self.resource.converts_elsewhere()).cloned() else {
            return self.converted(event);
        };
        if matches!(event, Event::Bookmark(_)) {
            return event;
        }
        match self.caches.in_version(&object, self.resource).await {
            // It is remembered now.
            Ok(converted) => {
                event.map(|_| Ok(converted)).unwrap_or_else(|error| Event::Error(Box::new(error)))
            }
            Err(error) => {
                self.ended = true;
                Event::Error(Box::new(error))
            }
        }
    }

    /// The next event if there is one now, for writers that gather several into one frame.
    pub fn try_recv(&mut self) -> Option<Event> {
        // Asking somebody else takes its time.
        if self.ended || self.resource.converts_elsewhere() {
            return None;
        }
        if let Some(event) = self.next_initial() {
            return Some(self.converted(event));
        }
        while let Ok(event) = self.queue.try_recv() {
            if let Some(event) = self.fresh(event) {
                return Some(self.converted(event));
            }
        }
        None
    }

    /// A bookmark at the revision up to which this watch has told everything, if that has moved: also for the moment
    /// before the server ends the watch.
    pub fn bookmark(&mut self) -> Option<Event> {
        let pending = match &self.initial {
            Initial::Objects(objects) => !objects.as_slice().is_empty(),
            Initial::Events(events) => !events.is_empty(),
        };
        let waits = self.resource.converts_elsewhere() && !self.queue.is_empty();
        if pending || waits || self.mark.is_some() {
            return None;
        }
        // Changes are queued before the revision is said to be applied: if the queue is empty after the revision
        // was read, everything up to it has been told.
        let applied = self.caches.applied();
        match self.queue.try_recv() {
            Ok(event) => return self.fresh(event).map(|event| self.converted(event)),
            Err(mpsc::error::TryRecvError::Disconnected) => return None,
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        if applied <= self.seen {
            return None;
        }
        self.seen = applied;
        self.bookmark_object(applied, false)
    }

    fn next_initial(&mut self) -> Option<Event> {
        let next = match &mut self.initial {
            Initial::Objects(objects) => objects.next().map(Event::Added),
            Initial::Events(events) => events.pop_front(),
        };
        if let Some(event) = next {
            return Some(event);
        }
        let revision = self.mark.take()?;
        self.initial = Initial::Events(VecDeque::new());
        self.bookmark_object(revision, true)
    }

    /// Passes over what was told before.
    fn fresh(&mut self, event: Event) -> Option<Event> {
        if let Some(object) = event.object() {
            if object.revision() <= self.seen {
                return if matches!(event, Event::Bookmark(_)) { Some(event) } else { None };
            }
        } else {
            self.ended = true;
        }
        Some(event)
    }

    fn converted(&mut self, event: Event) -> Event {
        if let Event::Bookmark(_) = event {
            return event;
        }
        match event.map(|object| object.in_version(self.resource)) {
            Ok(event) => event,
            Err(error) => {
                self.ended = true;
                Event::Error(Box::new(error))
            }
        }
    }

    fn bookmark_object(&self, revision: i64, ends_initial: bool) -> Option<Event> {
        let mut object = self.resource.new_object();
        if ends_initial {
            object.metadata_mut().annotations.insert(INITIAL_EVENTS_END.into(), "true".into());
        }
        Encoded::from_object(self.resource, object, revision, &self.caches.budget).ok().map(Event::Bookmark)
    }
}

fn too_old(revision: i64, oldest: i64) -> ApiError {
    ApiError::expired(format!("too old resource version: {revision} ({oldest})"))
}

/// The error of a revision that has not been reached.
pub(crate) fn too_large(revision: i64, current: i64) -> ApiError {
    let text = format!("Too large resource version: {revision}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    ApiError::timeout(text, 1).with_causes(vec![cause])
}

/// The changes of a resource between `from` and a snapshot, out of the store's own history; `None` where it no longer
/// has them all, or where they are too many.
///
/// They are complete when they lead from what was there at `from` to what the snapshot holds. A mark of progress would
/// say it sooner, but etcd before 3.4.25 may send that ahead of a watch's older events.
async fn replay_history(
    caches: &Arc<Caches>,
    cache: &Arc<Cache>,
    from: i64,
    snapshot: &Snapshot,
) -> Option<Vec<Arc<Change>>> {
    let store = &caches.store;
    let prefix = cache.prefix.len();
    let then = RangeRequest { revision: from, keys_only: true, ..RangeRequest::prefix(cache.prefix.clone()) };
    let wanted = |key: &str| snapshot.objects.get(key).map(|object| object.revision());
    let mut different: HashSet<Arc<str>> = snapshot.objects.keys().cloned().collect();
    for entry in store.range(then).await.ok()?.kvs {
        let key = below(&entry.key, prefix)?;
        if wanted(&key) == Some(entry.mod_revision) {
            different.remove(&key);
        } else {
            different.insert(key);
        }
    }
    let request = WatchRequest { prev_kv: true, ..WatchRequest::prefix(cache.prefix.clone(), from + 1) };
    let mut watch = store.watch(request).await.ok()?;
    let mut changes = Vec::new();
    while !different.is_empty() {
        let response = tokio::time::timeout(CATCH_UP_MAX, watch.recv()).await.ok()??.ok()?;
        for event in response.events.iter().filter(|event| event.kv.mod_revision <= snapshot.revision) {
            let key = below(&event.kv.key, prefix)?;
            let encode = |entry: &store::KeyValue| caches.encode(cache.resource, &key, entry).ok();
            let object = match event.kind {
                EventKind::Put => Some(encode(&event.kv)?),
                EventKind::Delete => None,
            };
            let previous = match &event.prev_kv {
                Some(entry) => Some(encode(entry)?),
                None => None,
            };
            if wanted(&key) == object.as_ref().map(|object| object.revision()) {
                different.remove(&key);
            } else {
                different.insert(Arc::clone(&key));
            }
            changes.push(Arc::new(Change::new(event.kv.mod_revision, key, object, previous)));
        }
        if changes.len() > REPLAY_MAX {
            return None;
        }
    }
    Some(changes)
}
