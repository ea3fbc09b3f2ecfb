//! One watch on the whole store that feeds every cache, in order, and says how far it has come.
//!
//! One stream rather than one for each resource: the revision it has applied holds for all caches at once, so a
//! consistent read waits for one number and needs no progress mark while the store is being written to.

use crate::budget::Budget;
use crate::cache::{Cache, Objects, Pending};
use crate::encoded::Encoded;
use api::Object;
use api::errors::ApiError;
use arc_swap::ArcSwap;
use bytes::Bytes;
use meta::ObjectKey;
use parking_lot::Mutex;
use resources::Resource;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::{EventKind, RangeRequest, Store, Txn, WatchRequest, WatchResponse};
use tokio::sync::watch;

/// What everything is kept under.
pub(crate) const ROOT: &str = "/registry/";
/// Objects read at once while a cache is loaded.
const LOAD_PAGE: i64 = 10_000;
/// Wait after a failed watch: doubled from the first to the last.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long changes are waited for before a store without marks is written to.
const WITHOUT_MARKS: Duration = Duration::from_millis(50);
/// Written where the store's own marks cannot be relied on: the feed hears of it after all that came before.
const MARK: &str = "/registry/timonel.dev/mark";
/// How long a read waits for the caches to catch up.
pub(crate) const CATCH_UP_MAX: Duration = Duration::from_secs(3);

/// A write on its way, so that writer and feed make one `Encoded` between them and decode nothing.
pub(crate) struct InFlight {
    document: Bytes,
    object: Mutex<Option<Box<dyn Object>>>,
    encoded: OnceLock<Arc<Encoded>>,
}

impl InFlight {
    pub fn encoded(
        &self,
        resource: &'static dyn Resource,
        key: &ObjectKey,
        revision: i64,
        budget: &Arc<Budget>,
    ) -> Result<Arc<Encoded>, ApiError> {
        // An earlier write of the very same document may still be on its way to the feed.
        if let Some(known) = self.encoded.get().filter(|known| known.revision() == revision) {
            return Ok(Arc::clone(known));
        }
        let made = Encoded::from_document(resource, key.clone(), revision, self.document.clone(), budget)?;
        if self.encoded.set(Arc::clone(&made)).is_ok()
            && let Some(object) = self.object.lock().take()
        {
            made.adopt(object);
        }
        // Where another thread made it meanwhile, that one is shared.
        Ok(self.encoded.get().filter(|known| known.revision() == revision).cloned().unwrap_or(made))
    }
}

/// The caches and the feed's place.
pub(crate) struct Caches {
    pub store: Arc<dyn Store>,
    pub budget: Arc<Budget>,
    by_prefix: ArcSwap<HashMap<String, Arc<Cache>>>,
    making: Mutex<()>,
    /// Everything up to this revision is in the caches.
    applied: AtomicI64,
    reached: watch::Sender<i64>,
    in_flight: Mutex<HashMap<Bytes, Arc<InFlight>>>,
    pub converter: OnceLock<Arc<dyn crate::conversion::Converter>>,
}

/// The hub's row of a resource: the version in which objects are stored and cached.
pub(crate) fn hub(resource: &'static dyn Resource) -> &'static dyn Resource {
    let gvk = resource.storage_gvk();
    if gvk == resource.gvk() {
        return resource;
    }
    let row = match resource.custom() {
        Some(custom) => custom.version_row(gvk.version),
        None => resources::find(gvk.group, gvk.version, resource.plural()),
    };
    row.unwrap_or(resource)
}

/// The row of the version that a document of JSON says it is in.
fn stated_row(resource: &'static dyn Resource, document: &[u8]) -> Result<&'static dyn Resource, ApiError> {
    let api_version = crate::splice::json_api_version(document)
        .map_err(|error| ApiError::internal(format!("unable to decode a stored object: {error}")))?;
    let version = api_version.rsplit('/').next().unwrap_or_default();
    // What was stored in a version that is no longer known is read by the rules of the one that is stored now.
    Ok(resource.version_row(version).unwrap_or(resource))
}

/// Reads a key below a resource's prefix.
pub(crate) fn object_key(namespaced: bool, below: &str) -> ObjectKey {
    match below.split_once('/') {
        Some((namespace, name)) if namespaced => ObjectKey::new(namespace, name),
        _ => ObjectKey::cluster(below),
    }
}

impl Caches {
    pub fn new(store: Arc<dyn Store>, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Caches {
            store,
            budget,
            by_prefix: ArcSwap::default(),
            making: Mutex::default(),
            applied: AtomicI64::new(0),
            reached: watch::Sender::new(0),
            in_flight: Mutex::default(),
            converter: OnceLock::new(),
        })
    }

    pub fn applied(&self) -> i64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Waits until everything up to `revision` is in the caches; `false` after three seconds.
    pub async fn caught_up(&self, revision: i64) -> bool {
        if self.applied() >= revision {
            return true;
        }
        let mut reached = self.reached.subscribe();
        let wait = async {
            match self.store.request_progress().await {
                Ok(true) => {}
                Ok(false) => {
                    let changed = reached.wait_for(|reached| *reached >= revision);
                    if tokio::time::timeout(WITHOUT_MARKS, changed).await.is_err() {
                        self.mark().await;
                    }
                }
                Err(error) => tracing::debug!(%error, "Failed to ask the store for its progress"),
            }
            reached.wait_for(|reached| *reached >= revision).await.is_ok()
        };
        tokio::time::timeout(CATCH_UP_MAX, wait).await.unwrap_or(false)
    }

    /// The revision was made by a write that the feed does not see: somebody else's, outside of our keys.
    async fn mark(&self) {
        if let Err(error) = self.store.txn(Txn::put(MARK, "")).await {
            tracing::debug!(%error, "Failed to write a mark of progress");
        }
    }

    /// Announces a write; the guard takes it back.
    pub fn announce(self: &Arc<Self>, key: Bytes, document: Bytes, object: Box<dyn Object>) -> Announced {
        let write =
            Arc::new(InFlight { document, object: Mutex::new(Some(object)), encoded: OnceLock::new() });
        self.in_flight.lock().insert(key.clone(), Arc::clone(&write));
        Announced { caches: Arc::clone(self), key, write }
    }

    fn announced(&self, key: &[u8], document: &Bytes) -> Option<Arc<InFlight>> {
        let known = self.in_flight.lock().get(key).cloned()?;
        (known.document == *document).then_some(known)
    }

    pub fn all(&self) -> Vec<Arc<Cache>> {
        self.by_prefix.load().values().cloned().collect()
    }

    fn find(&self, key: &str) -> Option<(Arc<Cache>, usize)> {
        let caches = self.by_prefix.load();
        let mut end = ROOT.len();
        // Prefixes have one segment, or two (`services/specs`).
        for _ in 0..2 {
            end += key.get(end..)?.find('/')? + 1;
            if let Some(cache) = caches.get(&key[..end]) {
                return Some((Arc::clone(cache), end));
            }
        }
        None
    }

    /// The cache of a resource, loaded.
    pub async fn cache(&self, resource: &'static dyn Resource) -> Result<Arc<Cache>, ApiError> {
        let cache = self.entry(resource);
        if cache.is_loaded() {
            return Ok(cache);
        }
        let _one = cache.load.lock().await;
        while !cache.is_loaded() {
            // Only what is read after the feed has its watch misses no change.
            if !self.caught_up(1).await {
                return Err(ApiError::service_unavailable("storage is (re)initializing").retry_after(1));
            }
            self.load(&cache).await?;
        }
        drop(_one);
        Ok(cache)
    }

    /// The cache of a resource if something has loaded it.
    pub fn loaded(&self, resource: &'static dyn Resource) -> Option<Arc<Cache>> {
        let prefix = format!("{}/", resource.storage_prefix());
        self.by_prefix.load().get(&prefix).filter(|cache| cache.is_loaded()).cloned()
    }

    fn entry(&self, resource: &'static dyn Resource) -> Arc<Cache> {
        let prefix = format!("{}/", resource.storage_prefix());
        // A kind that was made anew with another scope has other keys.
        let fits = |cache: &&Arc<Cache>| cache.resource.namespaced() == resource.namespaced();
        if let Some(cache) = self.by_prefix.load().get(&prefix).filter(fits) {
            return Arc::clone(cache);
        }
        let _one = self.making.lock();
        if let Some(cache) = self.by_prefix.load().get(&prefix).filter(fits) {
            return Arc::clone(cache);
        }
        let cache = Arc::new(Cache::new(hub(resource)));
        let mut caches = HashMap::clone(&self.by_prefix.load());
        let stale = caches.insert(prefix, Arc::clone(&cache));
        self.by_prefix.store(Arc::new(caches));
        if let Some(stale) = stale {
            stale.close();
        }
        cache
    }

    /// Drops the cache of a resource and ends its watches; the next who asks loads it again.
    pub fn forget(&self, resource: &dyn Resource) {
        let prefix = format!("{}/", resource.storage_prefix());
        let _one = self.making.lock();
        let mut caches = HashMap::clone(&self.by_prefix.load());
        let Some(cache) = caches.remove(&prefix) else { return };
        self.by_prefix.store(Arc::new(caches));
        cache.close();
    }

    async fn load(&self, cache: &Arc<Cache>) -> Result<(), ApiError> {
        let epoch = cache.begin_load();
        let mut objects = Objects::new();
        let mut request = RangeRequest { limit: LOAD_PAGE, ..RangeRequest::prefix(cache.prefix.clone()) };
        loop {
            let page = self.store.range(request.clone()).await.map_err(crate::store_error)?;
            if request.revision == 0 {
                request.revision = page.revision;
            }
            for entry in &page.kvs {
                let Some(below) = below(&entry.key, cache.prefix.len()) else { continue };
                let object = self.encode(cache.resource, &below, entry)?;
                objects.insert(below, object);
            }
            let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
            let mut next = last.key.to_vec();
            next.push(0);
            request.key = next.into();
        }
        // The feed may be behind: what it has yet to tell of older revisions is passed over.
        if cache.finish_load(epoch, request.revision, objects) {
            tracing::debug!(prefix = cache.prefix, revision = request.revision, "Loaded a cache");
        }
        Ok(())
    }

    /// An entry of the store as the object that readers share.
    pub fn encode(
        &self,
        resource: &'static dyn Resource,
        below: &str,
        entry: &store::KeyValue,
    ) -> Result<Arc<Encoded>, ApiError> {
        let key = object_key(resource.namespaced(), below);
        if let Some(write) = self.announced(&entry.key, &entry.value) {
            return write.encoded(resource, &key, entry.mod_revision, &self.budget);
        }
        if resource.custom().is_some() {
            let (row, document) = (stated_row(resource, &entry.value)?, entry.value.clone());
            return Encoded::from_document(row, key, entry.mod_revision, document, &self.budget);
        }
        let document = in_hub_version(resource, &entry.value)?;
        Encoded::from_document(resource, key, entry.mod_revision, document, &self.budget)
    }

    /// Applies what the store told.
    fn apply(&self, response: &WatchResponse) {
        let mut batch: Option<(Arc<Cache>, Vec<Arc<Pending>>)> = None;
        for event in &response.events {
            let Ok(key) = std::str::from_utf8(&event.kv.key) else { continue };
            let Some((cache, prefix)) = self.find(key) else { continue };
            let below: Arc<str> = key[prefix..].into();
            let object = match event.kind {
                EventKind::Delete => None,
                EventKind::Put => match self.encode(cache.resource, &below, &event.kv) {
                    Ok(object) => Some(object),
                    Err(error) => {
                        tracing::error!(key, %error, "Failed to read an object from the store");
                        None
                    }
                },
            };
            let pending = Arc::new(Pending { revision: event.kv.mod_revision, key: below, object });
            match &mut batch {
                Some((current, changes)) if Arc::ptr_eq(current, &cache) => changes.push(pending),
                _ => {
                    if let Some((cache, changes)) = batch.replace((cache, vec![pending])) {
                        cache.apply(&changes);
                    }
                }
            }
        }
        if let Some((cache, changes)) = batch {
            cache.apply(&changes);
        }
        self.advance(response.revision);
    }

    fn advance(&self, revision: i64) {
        if revision > self.applied.fetch_max(revision, Ordering::AcqRel) {
            self.reached.send_replace(revision);
        }
    }

    /// Follows the store for as long as the registry lives.
    pub async fn follow(self: Arc<Self>) {
        let mut backoff = BACKOFF_MIN;
        loop {
            match self.follow_once(&mut backoff).await {
                Ok(()) | Err(store::Error::Closed) => return,
                Err(store::Error::Compacted { .. }) => {
                    tracing::warn!("The store's history was compacted past the caches; reloading them");
                    for cache in self.all() {
                        cache.reset();
                    }
                    self.applied.store(0, Ordering::Release);
                }
                Err(error) => {
                    tracing::warn!(%error, "Lost the watch on the store");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    async fn follow_once(&self, backoff: &mut Duration) -> Result<(), store::Error> {
        let from = match self.applied() {
            0 => self.store.revision().await?,
            applied => applied,
        };
        let request = WatchRequest { progress: true, ..WatchRequest::prefix(ROOT, from + 1) };
        let mut watch = self.store.watch(request).await?;
        self.advance(from);
        while let Some(response) = watch.recv().await {
            self.apply(&response?);
            *backoff = BACKOFF_MIN;
        }
        Ok(())
    }
}

/// A key below a prefix, as text.
pub(crate) fn below(key: &[u8], prefix: usize) -> Option<Arc<str>> {
    std::str::from_utf8(key.get(prefix..)?).ok().map(Into::into)
}

/// A document in the hub's version. What an older or another server stored in another version is converted.
fn in_hub_version(resource: &'static dyn Resource, document: &Bytes) -> Result<Bytes, ApiError> {
    let broken = |error: &dyn std::fmt::Display| {
        ApiError::internal(format!("unable to decode a stored object: {error}"))
    };
    if document.first() == Some(&b'{') {
        // Upstream keeps a few kinds as JSON: APIServices, definitions of custom resources.
        let object = from_json(document).map_err(|error| broken(&error))?;
        return in_hub_version(resource, &api::codec::to_stored(&*object).into());
    }
    let (api_version, kind) = crate::splice::type_meta(document).map_err(|error| broken(&error))?;
    let gvk = resource.gvk();
    let same = kind == gvk.kind
        && match api_version.split_once('/') {
            Some((group, version)) => group == gvk.group && version == gvk.version,
            None => gvk.group.is_empty() && api_version == gvk.version,
        };
    if same {
        return Ok(document.clone());
    }
    let object = api::codec::from_stored(document).map_err(|error| broken(&error))?;
    let from = object.gvk();
    let row = resources::find(from.group, from.version, resource.plural())
        .ok_or_else(|| broken(&format!("no version {api_version} of {kind} is served")))?;
    let object = row.to_storage(object).map_err(|error| broken(&error))?;
    Ok(api::codec::to_stored(&*object).into())
}

fn from_json(document: &[u8]) -> Result<Box<dyn Object>, String> {
    let tree: serde_json::Value = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let text = |name: &str| tree[name].as_str().unwrap_or_default();
    let kind = api::codec::find_kind(text("apiVersion"), text("kind")).map_err(|error| error.to_string())?;
    let mut notes = meta::json::Notes::default();
    api::codec::decode_object(kind, document, api::codec::MediaType::Json, &mut notes)
        .map_err(|error| error.to_string())
}

/// A write that the feed knows of until this is dropped.
pub(crate) struct Announced {
    caches: Arc<Caches>,
    key: Bytes,
    pub write: Arc<InFlight>,
}

impl Drop for Announced {
    fn drop(&mut self) {
        let mut in_flight = self.caches.in_flight.lock();
        if in_flight.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.write)) {
            in_flight.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_not_taken_for_an_earlier_one_of_the_same_document() {
        let resource = resources::find("", "v1", "configmaps").expect("in the table");
        let object = resource.new_object();
        let document: Bytes = api::codec::to_stored(&*object).into();
        let write = InFlight { document, object: Mutex::new(Some(object)), encoded: OnceLock::new() };
        let (key, budget) = (ObjectKey::new("default", "a"), Budget::new(1 << 20));
        // The feed, behind, meets the earlier write first.
        for revision in [5, 9, 5, 9] {
            let encoded = write.encoded(resource, &key, revision, &budget).expect("encodes");
            assert_eq!(encoded.revision(), revision);
        }
    }
}
