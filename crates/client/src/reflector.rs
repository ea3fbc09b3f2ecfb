//! Keeps one kind of a view true: lists it, follows it, and comes back after every sort of failure.
//!
//! Invariant: what is delivered is a sequence of states of the collection, each at least as new as the one before;
//! a revision that the server no longer keeps leads to a new list, never to a gap.

use crate::views::{Batch, Delta, Shared, Target};
use crate::watch::{ObjectWatcher, WatchEvent};
use crate::{Client, Error, ListOptions, ResourcePath, WatchOptions};
use api::Object;
use meta::ObjectKey;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// The first wait after a failure, doubled up to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A watch that ends sooner counts as a failure, so that a server that refuses watches is not asked in a loop.
const WATCH_SHORT: Duration = Duration::from_secs(1);
/// A server that does not end its initial events in this time is asked for a plain list instead.
const INITIAL_EVENTS_MAX: Duration = Duration::from_secs(60);
/// Events taken into one step of the view.
const BATCH_MAX: usize = 1000;
/// Objects a page of a plain list.
const PAGE: i64 = 500;

/// Which objects of a kind are followed.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty for all namespaces.
    pub namespace: String,
    pub labels: String,
    pub fields: String,
}

impl Selection {
    /// Those of one namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Selection { namespace: namespace.into(), ..Selection::default() }
    }
    /// Those that a field selector matches.
    pub fn fields(fields: impl Into<String>) -> Self {
        Selection { fields: fields.into(), ..Selection::default() }
    }
    /// Those that a label selector matches.
    pub fn labels(labels: impl Into<String>) -> Self {
        Selection { labels: labels.into(), ..Selection::default() }
    }
}

/// One followed collection.
pub(crate) struct Reflector {
    pub(crate) client: Client,
    pub(crate) shared: Arc<Shared>,
    pub(crate) target: Target,
    pub(crate) path: ResourcePath,
    pub(crate) selection: Selection,
    pub(crate) new: fn() -> Box<dyn Object>,
    pub(crate) metadata_only: bool,
    pub(crate) streaming: bool,
    pub(crate) failures: u32,
}

/// What is known of the collection.
enum State {
    /// Nothing: a list is due.
    Unlisted,
    /// Everything up to this revision.
    Listed(String),
}

impl Reflector {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let work = async {
            let mut state = State::Unlisted;
            loop {
                state = self.step(state).await;
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = work => {}
        }
    }

    async fn step(&mut self, state: State) -> State {
        match state {
            State::Unlisted if self.streaming => self.stream_list().await,
            State::Unlisted => self.paged_list().await,
            State::Listed(revision) => {
                let options = WatchOptions { resource_version: revision.clone(), ..self.watch_options() };
                match self.open(&options).await {
                    Ok(watcher) => self.follow(watcher, revision).await,
                    Err(error) => self.failed(&error, "watch", State::Listed(revision)).await,
                }
            }
        }
    }

    fn watch_options(&self) -> WatchOptions {
        WatchOptions {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            // The server ends a watch in the normal course of things; spread, so that not all return at once.
            timeout_seconds: Some(rand::rng().random_range(300..600)),
            allow_bookmarks: true,
            ..WatchOptions::default()
        }
    }

    async fn open(&self, options: &WatchOptions) -> Result<ObjectWatcher, Error> {
        self.client
            .watch_objects(&self.path, &self.selection.namespace, options, self.new, self.metadata_only)
            .await
    }

    /// A list by watch: the collection's state as ADDED events up to a marked bookmark, then its changes.
    async fn stream_list(&mut self) -> State {
        let options = WatchOptions {
            send_initial_events: Some(true),
            resource_version_match: "NotOlderThan".into(),
            ..self.watch_options()
        };
        let mut watcher = match self.open(&options).await {
            Ok(watcher) => watcher,
            Err(error) => {
                if matches!(error.api().map(|error| error.code), Some(400 | 405 | 406 | 422)) {
                    self.streaming = false;
                    return State::Unlisted;
                }
                return self.failed(&error, "streaming list", State::Unlisted).await;
            }
        };
        match tokio::time::timeout(INITIAL_EVENTS_MAX, initial_events(&mut watcher)).await {
            Ok(Ok((objects, revision))) => {
                self.failures = 0;
                self.replace(objects, &revision);
                self.follow(watcher, revision).await
            }
            // A server that knows the way may still be unable to go it, over an old etcd for one.
            Ok(Err(error)) if error.api().is_some_and(|status| status.code == 500) => {
                debug!(resource = %self.path.plural, cause = error.chain(), "Fell back to lists");
                self.streaming = false;
                State::Unlisted
            }
            Ok(Err(error)) => self.failed(&error, "streaming list", State::Unlisted).await,
            Err(_) => {
                self.streaming = false;
                State::Unlisted
            }
        }
    }

    async fn paged_list(&mut self) -> State {
        let mut options = ListOptions {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            limit: Some(PAGE),
            ..ListOptions::default()
        };
        let mut objects: Vec<Arc<dyn Object>> = Vec::new();
        loop {
            let namespace = &self.selection.namespace;
            match self
                .client
                .list_objects(&self.path, namespace, &options, self.new, self.metadata_only)
                .await
            {
                Ok(page) => {
                    objects.extend(page.items.into_iter().map(Arc::from));
                    if page.continue_token.is_empty() {
                        self.failures = 0;
                        self.replace(objects, &page.resource_version);
                        return State::Listed(page.resource_version);
                    }
                    options.continue_token = page.continue_token;
                }
                Err(error) => return self.failed(&error, "list", State::Unlisted).await,
            }
        }
    }

    fn replace(&self, objects: Vec<Arc<dyn Object>>, revision: &str) {
        debug!(resource = self.path.plural, objects = objects.len(), revision, "Listed");
        self.shared.apply(
            &self.target,
            Batch {
                replace: true,
                deltas: objects.into_iter().map(Delta::Put).collect(),
                revision: number(revision),
            },
        );
    }

    /// Delivers changes until the watch ends; answers with what is known then.
    async fn follow(&mut self, mut watcher: ObjectWatcher, mut revision: String) -> State {
        let begun = Instant::now();
        let mut heard = false;
        loop {
            let Some(first) = watcher.next().await else {
                if !heard && begun.elapsed() < WATCH_SHORT {
                    self.wait().await;
                }
                return State::Listed(revision);
            };
            let mut batch = Batch { replace: false, deltas: Vec::new(), revision: 0 };
            let mut next = Some(first);
            let mut failure = None;
            while let Some(event) = next {
                match event {
                    Ok(event) => take(event, &mut batch, &mut revision),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
                next = if batch.deltas.len() < BATCH_MAX { watcher.buffered() } else { None };
            }
            batch.revision = number(&revision);
            self.shared.apply(&self.target, batch);
            if let Some(error) = failure {
                return self.failed(&error, "watch", State::Listed(revision)).await;
            }
            heard = true;
            self.failures = 0;
        }
    }

    /// Waits as the failures so far demand; answers with the state to go on from.
    async fn failed(&mut self, error: &Error, doing: &str, state: State) -> State {
        if error.is_expired() {
            debug!(resource = self.path.plural, "Revision was compacted, listing again");
            return State::Unlisted;
        }
        let state = if matches!(error, Error::Decode(_)) { State::Unlisted } else { state };
        let cause = error.chain();
        if self.failures >= 3 {
            warn!(resource = self.path.plural, failures = self.failures + 1, cause, "Failed to {doing}");
        } else {
            debug!(resource = self.path.plural, cause, "Failed to {doing}");
        }
        self.wait().await;
        state
    }

    async fn wait(&mut self) {
        let longest = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_LAST);
        self.failures = self.failures.saturating_add(1);
        let part = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(longest.mul_f64(part)).await;
    }
}

fn number(revision: &str) -> u64 {
    revision.parse().unwrap_or(0)
}

fn take(event: WatchEvent<Box<dyn Object>>, batch: &mut Batch, revision: &mut String) {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            revision.clone_from(&object.metadata().resource_version);
            batch.deltas.push(Delta::Put(Arc::from(object)));
        }
        WatchEvent::Deleted(object) => {
            revision.clone_from(&object.metadata().resource_version);
            let metadata = object.metadata();
            batch
                .deltas
                .push(Delta::Remove(ObjectKey::new(metadata.namespace.clone(), metadata.name.clone())));
        }
        WatchEvent::Bookmark { resource_version, .. } => *revision = resource_version,
    }
}

async fn initial_events(watcher: &mut ObjectWatcher) -> Result<(Vec<Arc<dyn Object>>, String), Error> {
    let mut objects: std::collections::BTreeMap<ObjectKey, Arc<dyn Object>> = Default::default();
    loop {
        match watcher.next().await {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                objects.insert(view::key_of(object.as_ref()), Arc::from(object));
            }
            Some(Ok(WatchEvent::Deleted(object))) => {
                objects.remove(&view::key_of(object.as_ref()));
            }
            Some(Ok(WatchEvent::Bookmark { resource_version, initial_events_end: true })) => {
                return Ok((objects.into_values().collect(), resource_version));
            }
            Some(Ok(WatchEvent::Bookmark { .. })) => {}
            Some(Err(error)) => return Err(error),
            None => {
                return Err(Error::Transport {
                    context: "the watch ended before its initial events did".into(),
                    source: None,
                });
            }
        }
    }
}
