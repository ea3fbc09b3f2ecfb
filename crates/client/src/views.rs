//! Several kinds in one view, kept fed by reflectors, with every change told to every subscriber.
//!
//! Invariants: the published view only moves forward; a subscriber misses no changed key. Changes to one key that
//! wait are joined into one (its first old state, its last new one), so that what waits is bounded by the keys there are.

use crate::reflector::{Reflector, Selection};
use crate::{Client, Error, ResourcePath};
use api::meta::v1::PartialObjectMetadata;
use api::{Kind, Object, Typed};
use arc_swap::ArcSwap;
use meta::ObjectKey;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use view::{KindId, ResourceId, Vertex, View};

/// One object that changed: since the subscriber last looked, from `old` to `new`.
#[derive(Clone)]
pub struct Change {
    pub kind: KindId,
    pub key: ObjectKey,
    /// `None` where it did not exist.
    pub old: Option<Arc<dyn Object>>,
    /// `None` where it is gone.
    pub new: Option<Arc<dyn Object>>,
}

impl Change {
    /// The old and new states, where the change is of this kind.
    pub fn of<T: Object>(&self) -> Option<(Option<&T>, Option<&T>)> {
        (self.kind == view::kind_id::<T>()).then(|| {
            (
                self.old.as_deref().and_then(|object| object.downcast::<T>()),
                self.new.as_deref().and_then(|object| object.downcast::<T>()),
            )
        })
    }
}

/// One vertex of the graph of owners that changed.
#[derive(Clone, Debug)]
pub struct VertexChange {
    pub uid: String,
    pub old: Option<Arc<Vertex>>,
    pub new: Option<Arc<Vertex>>,
}

/// What changed since the subscriber last looked. Both lists are empty where only revisions moved on.
#[derive(Default)]
pub struct Changes {
    pub objects: Vec<Change>,
    pub vertices: Vec<VertexChange>,
}

/// A change to one kind of the view.
pub(crate) enum Delta {
    Put(Arc<dyn Object>),
    Remove(ObjectKey),
}

pub(crate) struct Batch {
    /// The deltas are the whole collection: what is not among them is gone.
    pub(crate) replace: bool,
    pub(crate) deltas: Vec<Delta>,
    pub(crate) revision: u64,
}

/// Where a reflector's objects go.
#[derive(Clone)]
pub(crate) enum Target {
    /// Into the kind's table, and into the graph of owners where that is followed.
    Objects { kind: KindId, graph: Option<Arc<ResourceId>> },
    /// Into the graph of owners only.
    Metadata { resource: Arc<ResourceId> },
}

#[derive(Default)]
struct Pending {
    objects: HashMap<(KindId, ObjectKey), Change>,
    vertices: HashMap<String, VertexChange>,
    moved: bool,
}

#[derive(Default)]
struct Subscriber {
    pending: Mutex<Pending>,
    notify: Notify,
}

pub(crate) struct Shared {
    view: ArcSwap<View>,
    subscribers: Mutex<Vec<Weak<Subscriber>>>,
    /// What must have been listed before `synced` answers.
    kinds: Vec<KindId>,
    listed: Notify,
}

/// Several followed kinds.
pub struct Views {
    shared: Arc<Shared>,
    client: Client,
    metadata: Mutex<HashMap<Arc<ResourceId>, CancellationToken>>,
    token: CancellationToken,
}

struct Feed {
    kind: KindId,
    path: ResourcePath,
    resource: Arc<ResourceId>,
    selection: Selection,
    new: fn() -> Box<dyn Object>,
}

/// Says which kinds a view has.
pub struct ViewsBuilder {
    client: Client,
    feeds: Vec<Feed>,
    graph: bool,
}

impl Views {
    pub fn builder(client: &Client) -> ViewsBuilder {
        ViewsBuilder { client: client.clone(), feeds: Vec::new(), graph: false }
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Tells of every change from now on; what is there already comes first, as new.
    pub fn subscribe(&self) -> Subscription {
        let subscriber = Arc::new(Subscriber::default());
        let mut subscribers = self.shared.subscribers.lock();
        let view = self.shared.view.load_full();
        {
            let mut pending = subscriber.pending.lock();
            for kind in &self.shared.kinds {
                for object in view.list_objects(*kind) {
                    pending.object(*kind, view::key_of(object.as_ref()), None, Some(object.clone()));
                }
            }
            for vertex in view.graph().all() {
                pending.vertex(None, Some(vertex.clone()));
            }
            pending.moved = true;
        }
        subscriber.notify.notify_one();
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(&subscriber));
        Subscription { subscriber, token: self.token.clone() }
    }

    /// Waits until every kind of the builder has been listed; false where the views were cancelled first.
    pub async fn synced(&self) -> bool {
        loop {
            let listed = self.shared.listed.notified();
            let view = self.view();
            if self.shared.kinds.iter().all(|kind| view.synced(*kind)) {
                return true;
            }
            tokio::select! {
                () = listed => {}
                () = self.token.cancelled() => return false,
            }
        }
    }

    /// Follows the metadata of one more resource, for the graph of owners; no-op where it is followed already.
    pub fn follow_metadata(&self, resource: Arc<ResourceId>) {
        let mut metadata = self.metadata.lock();
        if metadata.contains_key(&resource) || self.view().graph().resources().any(|known| *known == resource)
        {
            return;
        }
        let token = self.token.child_token();
        metadata.insert(resource.clone(), token.clone());
        let reflector = Reflector {
            client: self.client.clone(),
            shared: self.shared.clone(),
            path: ResourcePath {
                group: resource.group.clone(),
                version: resource.version.clone(),
                plural: resource.plural.clone(),
                namespaced: resource.namespaced,
            },
            target: Target::Metadata { resource },
            selection: Selection::default(),
            new: || Box::new(PartialObjectMetadata::default()),
            metadata_only: true,
            streaming: true,
            failures: 0,
        };
        tokio::spawn(reflector.run(token));
    }

    /// The resources whose metadata is followed.
    pub fn followed_metadata(&self) -> Vec<Arc<ResourceId>> {
        self.metadata.lock().keys().cloned().collect()
    }

    /// Stops following a resource that is no longer served; its objects leave the graph.
    pub fn forget_metadata(&self, resource: &Arc<ResourceId>) {
        if let Some(token) = self.metadata.lock().remove(resource) {
            token.cancel();
            self.shared.forget(resource);
        }
    }
}

impl ViewsBuilder {
    /// Follows all objects of a kind.
    pub fn watch<T: Typed + Object>(self) -> Result<Self, Error> {
        self.watch_selected::<T>(Selection::default())
    }

    /// Follows some objects of a kind.
    pub fn watch_selected<T: Typed + Object>(self, selection: Selection) -> Result<Self, Error> {
        let gvk = T::gvk();
        let kind = api::kind(gvk.group, gvk.version, gvk.kind)
            .ok_or_else(|| Error::Request(format!("kind {} is not in the table", gvk.kind)))?;
        self.watch_kind(kind, selection)
    }

    /// Follows objects of a kind that is known at run time only.
    pub fn watch_kind(mut self, kind: &'static Kind, selection: Selection) -> Result<Self, Error> {
        let gvk = kind
            .descriptor
            .gvk
            .ok_or_else(|| Error::Request(format!("{} is no kind", kind.descriptor.name)))?;
        let new = kind.object.ok_or_else(|| Error::Request(format!("{} is no object", gvk.kind)))?;
        let id = view::kind_of(new().as_ref());
        if self.feeds.iter().any(|feed| feed.kind == id) {
            return Ok(self);
        }
        let path = ResourcePath::of_kind(gvk.group, gvk.version, gvk.kind)?;
        let resource = Arc::new(ResourceId {
            group: path.group.clone(),
            version: path.version.clone(),
            plural: path.plural.clone(),
            kind: gvk.kind.into(),
            namespaced: path.namespaced,
        });
        self.feeds.push(Feed { kind: id, path, resource, selection, new });
        Ok(self)
    }

    /// Builds the graph of owners from the kinds that are followed, for `follow_metadata` to add to.
    pub fn graph(mut self) -> Self {
        self.graph = true;
        self
    }

    /// Begins to follow, until the token is cancelled.
    pub fn start(self, token: &CancellationToken) -> Arc<Views> {
        let mut view = View::default();
        for feed in &self.feeds {
            view.advance(feed.kind, 0);
            if self.graph {
                view.graph_mut().advance(&feed.resource, 0);
            }
        }
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(view),
            subscribers: Mutex::new(Vec::new()),
            kinds: self.feeds.iter().map(|feed| feed.kind).collect(),
            listed: Notify::new(),
        });
        let token = token.child_token();
        for feed in self.feeds {
            let reflector = Reflector {
                client: self.client.clone(),
                shared: shared.clone(),
                target: Target::Objects { kind: feed.kind, graph: self.graph.then(|| feed.resource.clone()) },
                path: feed.path,
                selection: feed.selection,
                new: feed.new,
                metadata_only: false,
                streaming: true,
                failures: 0,
            };
            tokio::spawn(reflector.run(token.clone()));
        }
        Arc::new(Views { shared, client: self.client, metadata: Mutex::default(), token })
    }
}

impl Shared {
    /// Moves the view on by one batch and tells the subscribers. The lock orders batches of different kinds.
    pub(crate) fn apply(&self, target: &Target, batch: Batch) {
        let mut subscribers = self.subscribers.lock();
        let mut view = View::clone(&self.view.load());
        let mut told = Told::default();
        let replaced = batch.replace;
        match target {
            Target::Objects { kind, graph } => {
                apply_objects(&mut view, *kind, graph.as_ref(), batch, &mut told)
            }
            Target::Metadata { resource } => apply_metadata(&mut view, resource, batch, &mut told),
        }
        self.view.store(Arc::new(view));
        tell(&mut subscribers, told);
        drop(subscribers);
        if replaced {
            self.listed.notify_waiters();
        }
    }

    fn forget(&self, resource: &Arc<ResourceId>) {
        let mut subscribers = self.subscribers.lock();
        let mut view = View::clone(&self.view.load());
        let told = Told {
            vertices: view.graph().of_resource(resource).map(|vertex| (Some(vertex.clone()), None)).collect(),
            ..Told::default()
        };
        view.graph_mut().forget(resource);
        self.view.store(Arc::new(view));
        tell(&mut subscribers, told);
    }
}

/// Before and after.
type Moved<T> = (Option<T>, Option<T>);
type MovedObject = (KindId, ObjectKey, Moved<Arc<dyn Object>>);

#[derive(Default)]
struct Told {
    objects: Vec<MovedObject>,
    vertices: Vec<Moved<Arc<Vertex>>>,
}

fn tell(subscribers: &mut Vec<Weak<Subscriber>>, told: Told) {
    subscribers.retain(|subscriber| {
        let Some(subscriber) = subscriber.upgrade() else { return false };
        {
            let mut pending = subscriber.pending.lock();
            for (kind, key, (old, new)) in &told.objects {
                pending.object(*kind, key.clone(), old.clone(), new.clone());
            }
            for (old, new) in &told.vertices {
                pending.vertex(old.clone(), new.clone());
            }
            pending.moved = true;
        }
        subscriber.notify.notify_one();
        true
    });
}

fn apply_objects(
    view: &mut View,
    kind: KindId,
    graph: Option<&Arc<ResourceId>>,
    batch: Batch,
    told: &mut Told,
) {
    let mut vanished = HashSet::new();
    if batch.replace {
        vanished = view.list_objects(kind).map(|object| view::key_of(object.as_ref())).collect();
    }
    let mut deltas = batch.deltas;
    if batch.replace {
        for delta in &deltas {
            if let Delta::Put(object) = delta {
                vanished.remove(&view::key_of(object.as_ref()));
            }
        }
        deltas.extend(vanished.into_iter().map(Delta::Remove));
    }
    for delta in deltas {
        match delta {
            Delta::Put(object) => {
                let key = view::key_of(object.as_ref());
                let old = view.get_object(kind, &key);
                if old.as_ref().is_some_and(|old| same(old.as_ref(), object.as_ref())) {
                    continue;
                }
                if let Some(resource) = graph {
                    let vertex = Arc::new(Vertex::new(resource.clone(), object.metadata()));
                    put_vertex(view, vertex, told);
                }
                view.insert_object(object.clone());
                told.objects.push((kind, key, (old, Some(object))));
            }
            Delta::Remove(key) => {
                if let Some(resource) = graph
                    && let Some(old) = view.graph_mut().remove(resource, &key)
                {
                    told.vertices.push((Some(old), None));
                }
                if let Some(old) = view.remove_object(kind, &key) {
                    told.objects.push((kind, key, (Some(old), None)));
                }
            }
        }
    }
    view.advance(kind, batch.revision);
    if let Some(resource) = graph {
        view.graph_mut().advance(resource, batch.revision);
    }
    if batch.replace {
        view.mark_synced(kind);
        if let Some(resource) = graph {
            view.graph_mut().mark_synced(resource);
        }
    }
}

fn apply_metadata(view: &mut View, resource: &Arc<ResourceId>, batch: Batch, told: &mut Told) {
    let mut vanished = HashSet::new();
    if batch.replace {
        vanished = view.graph().of_resource(resource).map(|vertex| vertex.key.clone()).collect();
    }
    for delta in batch.deltas {
        match delta {
            Delta::Put(object) => {
                let vertex = Vertex::new(resource.clone(), object.metadata());
                vanished.remove(&vertex.key);
                put_vertex(view, Arc::new(vertex), told);
            }
            Delta::Remove(key) => {
                vanished.insert(key);
            }
        }
    }
    for key in vanished {
        if let Some(old) = view.graph_mut().remove(resource, &key) {
            told.vertices.push((Some(old), None));
        }
    }
    view.graph_mut().advance(resource, batch.revision);
    if batch.replace {
        view.graph_mut().mark_synced(resource);
    }
}

fn put_vertex(view: &mut View, vertex: Arc<Vertex>, told: &mut Told) {
    let old = view.graph_mut().insert(vertex.clone());
    let (old, replaced) = match old {
        Some(old) if old.uid != vertex.uid => (None, Some(old)),
        old => (old, None),
    };
    if let Some(replaced) = replaced {
        told.vertices.push((Some(replaced), None));
    }
    // A vertex that differs by its revision only changes nothing that the graph says.
    let unchanged = old.as_ref().is_some_and(|old| {
        old.owners == vertex.owners && old.finalizers == vertex.finalizers && old.deleting == vertex.deleting
    });
    if !unchanged {
        told.vertices.push((old, Some(vertex)));
    }
}

fn same(old: &dyn Object, new: &dyn Object) -> bool {
    let (old, new) = (old.metadata(), new.metadata());
    old.uid == new.uid && old.resource_version == new.resource_version && !old.resource_version.is_empty()
}

impl Pending {
    fn object(
        &mut self,
        kind: KindId,
        key: ObjectKey,
        old: Option<Arc<dyn Object>>,
        new: Option<Arc<dyn Object>>,
    ) {
        self.objects
            .entry((kind, key.clone()))
            .and_modify(|change| change.new.clone_from(&new))
            .or_insert(Change { kind, key, old, new });
    }

    fn vertex(&mut self, old: Option<Arc<Vertex>>, new: Option<Arc<Vertex>>) {
        let Some(uid) = new.as_ref().or(old.as_ref()).map(|vertex| vertex.uid.clone()) else { return };
        self.vertices
            .entry(uid.clone())
            .and_modify(|change| change.new.clone_from(&new))
            .or_insert(VertexChange { uid, old, new });
    }
}

/// One subscriber's end.
pub struct Subscription {
    subscriber: Arc<Subscriber>,
    token: CancellationToken,
}

impl Subscription {
    /// What changed since the last call; waits until something did. `None` once the views are cancelled.
    pub async fn recv(&mut self) -> Option<Changes> {
        loop {
            if let Some(changes) = self.take() {
                return Some(changes);
            }
            tokio::select! {
                () = self.subscriber.notify.notified() => {}
                () = self.token.cancelled() => return None,
            }
        }
    }

    fn take(&self) -> Option<Changes> {
        let mut pending = self.subscriber.pending.lock();
        if !pending.moved {
            return None;
        }
        let taken = std::mem::take(&mut *pending);
        Some(Changes {
            objects: taken.objects.into_values().collect(),
            vertices: taken.vertices.into_values().collect(),
        })
    }
}
