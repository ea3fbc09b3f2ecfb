//! Decides who hears of a change: watches on a local store, woken only by changes in their range.
//!
//! A watch has no queue. The hub notes the revision of the first change that a watch has not read, and the
//! watch reads on from there in the shared history. So a slow reader costs a writer nothing and no memory is
//! held for it; if history is compacted past it, it is told so.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};

use crate::error::Error;
use crate::history::Published;
use crate::mvcc::Commit;
use crate::range::KeyRange;
use crate::types::{Event, WatchRequest, WatchResponse};

/// How many revisions a watch looks through, and how many events it gathers, for one response.
const SCAN: usize = 512;
const GATHER: usize = 512;

/// The local engines' readers' side: published state and the watches on it.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    pub(crate) published: RwLock<Published>,
    /// Every watch has been told to look at what happened at or below this revision.
    settled: AtomicI64,
    watchers: Mutex<Watchers>,
}

/// The watches, ordered by where their range starts.
#[derive(Debug, Default)]
struct Watchers {
    sorted: Vec<Arc<Watcher>>,
    /// For each place in `sorted` the one up to it whose range reaches furthest.
    furthest: Vec<usize>,
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    progress: bool,
    turn: Mutex<Turn>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Turn {
    /// The first change in range that has not been read.
    unread: Option<i64>,
    /// The first change of the response that the reader is working on: handed out, but not yet done with.
    in_hand: Option<i64>,
    /// A progress mark was asked for.
    mark: bool,
    closed: bool,
}

impl Hub {
    /// Starts from a state read from disk.
    pub(crate) fn start(published: Published) -> Hub {
        let settled = AtomicI64::new(published.state.revision);
        Hub { published: RwLock::new(published), settled, watchers: Mutex::default() }
    }

    /// Makes changes visible: `update` publishes them and answers them; then the watches hear of them.
    pub(crate) fn publish(&self, update: impl FnOnce(&mut Published) -> Vec<Arc<Commit>>) {
        let watchers = self.watchers.lock();
        let (commits, revision) = {
            let mut published = self.published.write();
            let commits = update(&mut published);
            (commits, published.state.revision)
        };
        for commit in &commits {
            for event in &commit.events {
                watchers.tell(&event.kv.key, commit.revision);
            }
        }
        self.settled.store(revision, Ordering::Release);
    }

    pub(crate) fn watch(self: &Arc<Self>, request: &WatchRequest) -> Result<Watch, Error> {
        if request.key.is_empty() {
            return Err(Error::invalid("key is not provided"));
        }
        let mut watchers = self.watchers.lock();
        if watchers.closed {
            return Err(Error::Closed);
        }
        let (revision, compacted) = {
            let published = self.published.read();
            (published.state.revision, published.state.compacted)
        };
        let start = if request.start_revision <= 0 { revision + 1 } else { request.start_revision };
        if start < compacted {
            return Err(Error::Compacted { compact_revision: compacted });
        }
        let turn = Turn { unread: (start <= revision).then_some(start), ..Turn::default() };
        let watcher = Arc::new(Watcher {
            range: KeyRange::new(&request.key, &request.range_end),
            progress: request.progress,
            turn: Mutex::new(turn),
            wake: Notify::new(),
        });
        watchers.add(watcher.clone());
        drop(watchers);
        let local =
            LocalWatch { hub: self.clone(), watcher, next: start, prev_kv: request.prev_kv, ended: false };
        Ok(Watch::of(Source::Local(local)))
    }

    pub(crate) fn request_progress(&self) {
        for watcher in &self.watchers.lock().sorted {
            if watcher.progress {
                watcher.turn.lock().mark = true;
                watcher.wake.notify_one();
            }
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        let mut watchers = self.watchers.lock();
        watchers.closed = true;
        for watcher in &watchers.sorted {
            watcher.turn.lock().closed = true;
            watcher.wake.notify_one();
        }
    }

    fn remove(&self, watcher: &Arc<Watcher>) {
        let mut watchers = self.watchers.lock();
        watchers.sorted.retain(|other| !Arc::ptr_eq(other, watcher));
        watchers.index();
    }
}

impl Watchers {
    fn add(&mut self, watcher: Arc<Watcher>) {
        let at = self.sorted.partition_point(|other| other.range.start() <= watcher.range.start());
        self.sorted.insert(at, watcher);
        self.index();
    }

    fn index(&mut self) {
        self.furthest.clear();
        let mut best = 0;
        for (at, watcher) in self.sorted.iter().enumerate() {
            if at > 0 && watcher.range.outreaches(&self.sorted[best].range) {
                best = at;
            }
            self.furthest.push(best);
        }
    }

    /// Tells those whose range holds the key that it changed.
    fn tell(&self, key: &[u8], revision: i64) {
        let started = self.sorted.partition_point(|watcher| watcher.range.start().as_ref() <= key);
        for at in (0..started).rev() {
            if !self.sorted[self.furthest[at]].range.reaches(key) {
                break;
            }
            let watcher = &self.sorted[at];
            if watcher.range.contains(key) {
                let mut turn = watcher.turn.lock();
                if turn.unread.is_none() {
                    turn.unread = Some(revision);
                    watcher.wake.notify_one();
                }
            }
        }
    }
}

/// A watch in progress. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    source: Source,
    /// Turns values back from the form that they are kept in.
    reader: Option<Arc<crate::transform::Reader>>,
    /// Received, and not yet turned back.
    pending: Option<Result<WatchResponse, Error>>,
}

#[derive(Debug)]
enum Source {
    Local(LocalWatch),
    Remote {
        responses: mpsc::Receiver<Result<WatchResponse, Error>>,
        /// How far the reader is done.
        done: Arc<AtomicI64>,
        /// What it will be done with when it asks for more.
        in_hand: i64,
    },
}

impl Watch {
    /// A watch fed by a task that starts where everything up to `done` is known.
    pub(crate) fn remote(responses: mpsc::Receiver<Result<WatchResponse, Error>>, done: i64) -> Watch {
        Watch::of(Source::Remote { responses, done: Arc::new(AtomicI64::new(done)), in_hand: done })
    }

    fn of(source: Source) -> Watch {
        Watch { source, reader: None, pending: None }
    }

    /// The same watch, its values read by `reader`.
    pub(crate) fn read_by(self, reader: Arc<crate::transform::Reader>) -> Watch {
        Watch { reader: Some(reader), ..self }
    }

    /// Waits for the next response. `None` means that the store was closed; after an error comes `None`.
    ///
    /// Asking for the next response says that the reader is done with the last one (see [`Progress`]).
    /// It may be cancelled without loss.
    pub async fn recv(&mut self) -> Option<Result<WatchResponse, Error>> {
        let Some(reader) = self.reader.clone() else { return self.receive().await };
        if self.pending.is_none() {
            self.pending = Some(self.receive().await?);
        }
        if let Some(Ok(response)) = &mut self.pending {
            reader.open_events(response).await;
        }
        self.pending.take()
    }

    async fn receive(&mut self) -> Option<Result<WatchResponse, Error>> {
        match &mut self.source {
            Source::Local(local) => local.recv().await,
            Source::Remote { responses, done, in_hand } => {
                done.fetch_max(*in_hand, Ordering::AcqRel);
                let response = responses.recv().await?;
                if let Ok(response) = &response {
                    *in_hand = response.revision;
                    if response.progress {
                        done.fetch_max(response.revision, Ordering::AcqRel);
                    }
                }
                Some(response)
            }
        }
    }

    /// Tells, from anywhere and without waiting, how far the reader has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match &self.source {
            Source::Local(local) => Progress {
                tracked: Tracked::Local(Arc::downgrade(&local.hub), Arc::downgrade(&local.watcher)),
            },
            Source::Remote { done, .. } => Progress { tracked: Tracked::Remote(done.clone()) },
        }
    }
}

/// How far the reader of a watch has come.
///
/// On a local store this is exact without any traffic: a cache fed by a watch may serve a consistent read
/// if this is at or above the store's revision. On etcd it moves with responses and progress marks only.
#[derive(Clone, Debug)]
pub struct Progress {
    tracked: Tracked,
}

#[derive(Clone, Debug)]
enum Tracked {
    Local(Weak<Hub>, Weak<Watcher>),
    Remote(Arc<AtomicI64>),
}

impl Progress {
    /// The revision up to which the reader has heard of every change in its range and is done with it.
    /// 0 once the watch has ended.
    #[must_use]
    pub fn revision(&self) -> i64 {
        match &self.tracked {
            Tracked::Remote(done) => done.load(Ordering::Acquire),
            Tracked::Local(hub, watcher) => {
                let (Some(hub), Some(watcher)) = (hub.upgrade(), watcher.upgrade()) else { return 0 };
                let settled = hub.settled.load(Ordering::Acquire);
                let turn = watcher.turn.lock();
                let pending = turn.in_hand.into_iter().chain(turn.unread).min();
                pending.map_or(settled, |revision| settled.min(revision - 1))
            }
        }
    }
}

#[derive(Debug)]
struct LocalWatch {
    hub: Arc<Hub>,
    watcher: Arc<Watcher>,
    /// The first revision that has not been looked at.
    next: i64,
    prev_kv: bool,
    ended: bool,
}

impl LocalWatch {
    async fn recv(&mut self) -> Option<Result<WatchResponse, Error>> {
        if self.ended {
            return None;
        }
        self.watcher.turn.lock().in_hand = None;
        loop {
            let settled = self.hub.settled.load(Ordering::Acquire);
            let unread = {
                let mut turn = self.watcher.turn.lock();
                if turn.closed {
                    self.ended = true;
                    return None;
                }
                if turn.unread.is_none() && std::mem::take(&mut turn.mark) {
                    return Some(Ok(WatchResponse { revision: settled, events: Vec::new(), progress: true }));
                }
                turn.unread
            };
            if let Some(unread) = unread {
                match self.read(unread) {
                    Ok(Some(response)) => return Some(Ok(response)),
                    Ok(None) => continue,
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
            }
            self.watcher.wake.notified().await;
        }
    }

    /// Reads on in the history from the first unread change.
    fn read(&mut self, unread: i64) -> Result<Option<WatchResponse>, Error> {
        // The first write of a store makes revision 2.
        let from = unread.max(self.next).max(2);
        let mut events = Vec::new();
        let through = {
            let published = self.hub.published.read();
            let first = published.history.first().unwrap_or(published.state.revision + 1);
            if from < first && from <= published.state.revision {
                return Err(Error::Compacted { compact_revision: published.state.compacted });
            }
            let mut through = from - 1;
            for commit in published.history.since(from, SCAN) {
                through = commit.revision;
                events.extend(
                    commit.events.iter().filter(|event| self.watcher.range.contains(&event.kv.key)).cloned(),
                );
                if events.len() >= GATHER {
                    break;
                }
            }
            // What was not looked at must be looked at the next time; what comes later will be told.
            let mut turn = self.watcher.turn.lock();
            turn.unread = (through < published.state.revision).then_some(through + 1);
            turn.in_hand = events.first().map(|event: &Event| event.kv.mod_revision);
            through
        };
        self.next = through.max(self.next - 1) + 1;
        if events.is_empty() {
            return Ok(None);
        }
        if !self.prev_kv {
            events.iter_mut().for_each(|event| event.prev_kv = None);
        }
        Ok(Some(WatchResponse { revision: through, events, progress: false }))
    }
}

impl Drop for LocalWatch {
    fn drop(&mut self) {
        self.hub.remove(&self.watcher);
    }
}
