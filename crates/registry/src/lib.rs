//! The one read and write path of the API: a store, the table of resources, and a cache that hands out shared bytes.
//!
//! What the API server calls, in short:
//!
//! * [`Registry::new`] takes the store and the admission chain ([`Registry::set_admission`] exchanges it, for chains
//!   that themselves read through the registry). It must be called inside a tokio runtime: it follows the store.
//! * Every verb takes the *served* row of the table; objects go in and come out in that row's version.
//!   [`Registry::get`], [`Registry::list`], [`Registry::watch`], [`Registry::create`], [`Registry::update`],
//!   [`Registry::patch`], [`Registry::delete`], [`Registry::delete_collection`], and [`Registry::modify`] for
//!   subresources that change an object in place (binding, scale, approval, finalize, token requests' owners).
//! * The caller decodes and defaults; from there on the registry keeps upstream's order: managed fields, mutating
//!   admission, metadata, preparation, validation, validating admission, transaction.
//! * [`Encoded`] is an object at a revision. Whole bodies: `json()`, `proto()`; items of lists: `json_item()` (the
//!   list writes the opening brace) and `append_proto_message()`; watch frames put `json()` after
//!   `{"type":"ADDED","object":`. `object()` is the shared decoded object for in-process readers.
//! * [`Watcher`] gives [`Event`]s; dropping it ends it; `None` means that the client must list again. `bookmark()`
//!   makes the bookmark before a watch's time is up.
//! * [`Deleted`] says whether the object is gone; `status()` is the Status that most kinds answer with.
//! * Warnings for the answer's headers gather in [`Request::warnings`]. Dry run is [`Request::dry_run`].
//!
//! Invariants: documents in the store are upstream's; a reader never decodes what it does not look into; no lock is
//! held over an await; a slow watcher is closed and never waited for; every cache counts its bytes.
#![forbid(unsafe_code)]

mod budget;
mod cache;
mod conversion;
mod delete;
mod encoded;
mod feed;
mod leases;
mod ownership;
mod patching;
mod read;
mod request;
mod selection;
mod splice;
mod token;
mod watch;
mod write;

pub use budget::{Budget, DERIVED_BYTES_MAX};
pub use conversion::Converter;
pub use delete::Deleted;
pub use encoded::Encoded;
pub use read::ListResult;
pub use request::{
    Admission, AlwaysAdmit, AnnotationLevel, Annotations, Attributes, DeleteOptions, FieldValidation,
    ListOptions, MAX_FIELD_MANAGER, Operation, Patch, PatchType, Propagation, Request, UpdateKind, UserInfo,
    Warnings,
};
pub use watch::{BOOKMARK_EVERY, Event, INITIAL_EVENTS_END, QUEUE_MAX, Watcher};
pub use write::{Change, Updated};

use api::errors::{ApiError, Reason};
use feed::Caches;
use leases::Leases;
use parking_lot::RwLock;
use resources::Resource;
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// How long events live, unless told otherwise: upstream's `--event-ttl`.
pub const EVENT_TTL_SECONDS: i64 = 3600;

/// What a registry may be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// 0 or less: events stay.
    pub event_ttl_seconds: i64,
    /// Bytes that derived encodings may hold.
    pub derived_bytes_max: usize,
    /// How often the store's history is compacted to what it was one such time before: upstream's
    /// `--etcd-compaction-interval`, 5 minutes. `None` where the store limits its history by itself, as the embedded
    /// one does.
    pub compact_every: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            event_ttl_seconds: EVENT_TTL_SECONDS,
            derived_bytes_max: DERIVED_BYTES_MAX,
            compact_every: None,
        }
    }
}

/// What the caches hold, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub objects: usize,
    /// Bytes of their documents; an embedded store shares them.
    pub document_bytes: usize,
    /// Bytes of encodings made from them.
    pub derived_bytes: usize,
    pub watchers: usize,
}

/// The one read and write path over a store.
pub struct Registry {
    caches: Arc<Caches>,
    admission: RwLock<Arc<dyn Admission>>,
    leases: Leases,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Registry {
    pub fn new(store: Arc<dyn Store>, admission: Arc<dyn Admission>) -> Arc<Self> {
        Self::with_options(store, admission, &Options::default())
    }

    pub fn with_options(
        store: Arc<dyn Store>,
        admission: Arc<dyn Admission>,
        options: &Options,
    ) -> Arc<Self> {
        let caches = Caches::new(store, Budget::new(options.derived_bytes_max));
        let mut tasks = vec![tokio::spawn(Arc::clone(&caches).follow())];
        if let Some(every) = options.compact_every {
            tasks.push(tokio::spawn(compact(Arc::clone(&caches.store), every)));
        }
        Arc::new(Registry {
            caches,
            admission: RwLock::new(admission),
            leases: Leases::new(options.event_ttl_seconds),
            tasks,
        })
    }

    /// Exchanges the admission chain for the requests that come.
    pub fn set_admission(&self, admission: Arc<dyn Admission>) {
        *self.admission.write() = admission;
    }

    pub(crate) fn admission(&self) -> Arc<dyn Admission> {
        Arc::clone(&self.admission.read())
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.caches.store
    }

    /// The budget that objects encoded outside the registry count against.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.caches.budget
    }

    /// Whether the caches follow the store: part of being ready.
    pub fn is_following(&self) -> bool {
        self.caches.applied() > 0
    }

    /// Loads the cache of a resource before anyone asks for it.
    pub async fn warm(&self, resource: &'static dyn Resource) -> Result<(), ApiError> {
        self.caches.cache(resource).await.map(|_| ())
    }

    /// Says who converts objects of kinds that do not by themselves; once, before the first request.
    pub fn set_converter(&self, converter: Arc<dyn Converter>) {
        if self.caches.converter.set(converter).is_err() {
            tracing::warn!("Kept the converter that was set first");
        }
    }

    /// Drops what is cached of a resource and ends its watches: its definition has changed, or is gone.
    pub fn forget(&self, resource: &dyn Resource) {
        self.caches.forget(resource);
    }

    /// How many objects each loaded resource has, by `plural.group`, or `plural` in the core group.
    pub fn object_counts(&self) -> Vec<(String, usize)> {
        let all = self.caches.all();
        let count = |cache: &Arc<cache::Cache>| {
            let resource = cache.resource;
            (api::errors::qualified(resource.group(), resource.plural()), cache.sizes().0)
        };
        all.iter().map(count).collect()
    }

    /// Objects, bytes of their documents, and watchers of a resource whose cache is loaded.
    pub fn sizes_of(&self, resource: &'static dyn Resource) -> Option<(usize, usize, usize)> {
        self.caches.loaded(resource).map(|cache| cache.sizes())
    }

    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes { derived_bytes: self.caches.budget.used(), ..Sizes::default() };
        for cache in self.caches.all() {
            let (objects, bytes, watchers) = cache.sizes();
            sizes.objects += objects;
            sizes.document_bytes += bytes;
            sizes.watchers += watchers;
        }
        sizes
    }
}

/// Compacts the store again and again, to the revision that it had one interval before.
async fn compact(store: Arc<dyn Store>, every: Duration) {
    let mut last = None;
    loop {
        let now = store.revision().await.ok();
        if let Some(revision) = last.filter(|last| now.is_some_and(|now| now > *last)) {
            match store.compact(revision).await {
                // Another server was first.
                Ok(()) | Err(store::Error::Compacted { .. }) => {
                    tracing::debug!(revision, "Compacted the store");
                }
                Err(error) => tracing::warn!(revision, %error, "Failed to compact the store"),
            }
        }
        last = now.or(last);
        tokio::time::sleep(every).await;
    }
}

/// A failure of the store, as the API tells it.
pub(crate) fn store_error(error: store::Error) -> ApiError {
    match error {
        store::Error::Unavailable(_) | store::Error::Closed => {
            ApiError::service_unavailable(error.to_string()).retry_after(2)
        }
        store::Error::Transform { .. }
        | store::Error::NoSpace(_)
        | store::Error::Corrupt { .. }
        | store::Error::Io(_) => ApiError::internal(error.to_string()),
        other => ApiError::new(Reason::Unknown, other.to_string()),
    }
}
