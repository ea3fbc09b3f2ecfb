//! Decides how much of the past is kept and how a past revision is read: the changes since the last
//! compaction, each with what the key held before.
//!
//! Superseded values are the only memory that history costs; values that are still live are shared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::Error;
use crate::mvcc::{Commit, Live, State, answer, in_range};
use crate::range::KeyRange;
use crate::types::{KeyValue, RangeRequest, RangeResponse};

/// How many revisions lie between two kept roots of the live state: the most that a read of the past undoes.
const ROOT_EVERY: i64 = 2048;

/// How much history a local engine keeps before it compacts by itself; whichever limit is reached first.
/// Upstream's API server compacts etcd every 5 minutes, which leaves 5 to 10 minutes of history.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most revisions.
    pub revisions: usize,
    /// The most bytes of superseded keys and values.
    pub bytes: usize,
    /// Revisions older than this are given up, looked at when the store is written to.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { revisions: 100_000, bytes: 32 << 20, age: Duration::from_secs(600) }
    }
}

/// The changes since the last compaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Of revisions without a gap, up to the newest.
    commits: VecDeque<Arc<Commit>>,
    /// The live state after some of the revisions.
    roots: VecDeque<(i64, Live)>,
    /// When some of the revisions were made, for the limit of age.
    times: VecDeque<(Instant, i64)>,
    bytes: usize,
}

/// The memory that a commit costs beyond the live state.
fn cost(commit: &Commit) -> usize {
    let superseded = |kv: &Arc<KeyValue>| kv.key.len() + kv.value.len();
    commit.events.iter().map(|event| 128 + event.prev_kv.as_ref().map_or(0, superseded)).sum()
}

impl History {
    /// The revision of the oldest change kept.
    pub(crate) fn first(&self) -> Option<i64> {
        self.commits.front().map(|commit| commit.revision)
    }

    pub(crate) fn len(&self) -> usize {
        self.commits.len()
    }

    /// Adds the change that follows the newest one.
    pub(crate) fn push(&mut self, commit: Arc<Commit>) {
        self.bytes += cost(&commit);
        self.commits.push_back(commit);
    }

    /// Remembers when the newest changes were made, and now and then the state after them.
    pub(crate) fn mark(&mut self, state: &State, now: Instant) {
        let revision = state.revision;
        let last = self.roots.back().map(|(at, _)| *at).or_else(|| self.first()).unwrap_or(revision);
        if revision - last >= ROOT_EVERY {
            self.roots.push_back((revision, state.live.clone()));
        }
        if self.times.back().is_none_or(|(at, _)| now.duration_since(*at) >= Duration::from_secs(5)) {
            self.times.push_back((now, revision));
        }
    }

    /// The revision to compact to so that the limits hold, if they do not.
    pub(crate) fn surplus(&self, limits: &Limits, now: Instant) -> Option<i64> {
        let first = self.first()?;
        let mut keep_from = first;
        if self.commits.len() > limits.revisions {
            keep_from = first + (self.commits.len() - limits.revisions) as i64;
        }
        if let Some((_, revision)) =
            self.times.iter().take_while(|(at, _)| now.duration_since(*at) > limits.age).last()
        {
            keep_from = keep_from.max(*revision);
        }
        let mut bytes = self.bytes;
        for commit in &self.commits {
            if bytes <= limits.bytes {
                break;
            }
            bytes -= cost(commit);
            keep_from = keep_from.max(commit.revision + 1);
        }
        let newest = self.commits.back().map_or(first, |commit| commit.revision);
        (keep_from > first).then_some(keep_from.min(newest))
    }

    /// Forgets the changes before `revision`.
    pub(crate) fn compact(&mut self, revision: i64) {
        while let Some(commit) = self.commits.front()
            && commit.revision < revision
        {
            self.bytes -= cost(commit);
            self.commits.pop_front();
        }
        while self.roots.front().is_some_and(|(at, _)| *at < revision) {
            self.roots.pop_front();
        }
        while self.times.front().is_some_and(|(_, at)| *at < revision) {
            self.times.pop_front();
        }
        if self.commits.capacity() > 64 && self.commits.len() < self.commits.capacity() / 4 {
            self.commits.shrink_to(self.commits.len() * 2);
        }
    }

    /// The changes with revisions from `from` on, which must not be compacted; at most `limit`.
    pub(crate) fn since(&self, from: i64, limit: usize) -> impl Iterator<Item = &Arc<Commit>> {
        let skip = self.first().map_or(0, |first| usize::try_from(from - first).unwrap_or(0));
        self.commits.range(skip.min(self.commits.len())..).take(limit)
    }

    /// The changes with revisions in `(after, through]`, newest first.
    fn undoing(&self, after: i64, through: i64) -> impl Iterator<Item = &Arc<Commit>> {
        let first = self.first().unwrap_or(through + 1);
        let index =
            |revision: i64| usize::try_from(revision + 1 - first).unwrap_or(0).min(self.commits.len());
        self.commits.range(index(after)..index(through).max(index(after))).rev()
    }

    /// The nearest kept root at or after `revision`: what it stands at and the live state there.
    fn root<'a>(&'a self, state: &'a State, revision: i64) -> (i64, &'a Live) {
        let at = self.roots.partition_point(|(at, _)| *at < revision);
        self.roots.get(at).map_or((state.revision, &state.live), |(at, live)| (*at, live))
    }

    /// What is needed to read `range` at a past revision: a root, and what to put over it (`None` for a key
    /// that was not there). Cheap, so that the lock on the history is held only for this.
    pub(crate) fn past(&self, state: &State, revision: i64, range: &KeyRange) -> Past {
        let (at, live) = self.root(state, revision);
        let mut over = BTreeMap::new();
        for commit in self.undoing(revision, at) {
            for event in commit.events.iter().rev().filter(|event| range.contains(&event.kv.key)) {
                over.insert(event.kv.key.clone(), event.prev_kv.clone());
            }
        }
        Past { live: live.clone(), over }
    }

    /// The whole live state as it was at a past revision.
    pub(crate) fn live_at(&self, state: &State, revision: i64) -> Live {
        let (at, live) = self.root(state, revision);
        let mut live = live.clone();
        for event in self.undoing(revision, at).flat_map(|commit| commit.events.iter().rev()) {
            match &event.prev_kv {
                Some(kv) => live.insert(kv.key.clone(), kv.clone()),
                None => live.remove(event.kv.key.as_ref()),
            };
        }
        live
    }

    /// All changes kept, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Commit>> {
        self.commits.iter().cloned().collect()
    }
}

/// A range of keys at a past revision.
pub(crate) struct Past {
    live: Live,
    over: BTreeMap<Bytes, Option<Arc<KeyValue>>>,
}

impl Past {
    pub(crate) fn answer(&self, revision: i64, request: &RangeRequest, range: &KeyRange) -> RangeResponse {
        let mut over = self.over.iter().peekable();
        let mut live = in_range(&self.live, range).peekable();
        let merged = std::iter::from_fn(|| {
            loop {
                let key = live.peek().map(|kv| &kv.key);
                match over.peek() {
                    Some((changed, _)) if key.is_none_or(|key| *changed <= key) => {
                        if key == Some(*changed) {
                            live.next();
                        }
                        if let Some((_, Some(kv))) = over.next() {
                            return Some(kv);
                        }
                    }
                    _ => return live.next(),
                }
            }
        });
        answer(revision, request, merged)
    }
}

/// What readers see: the newest state that is durable, and how it came about.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) state: State,
    pub(crate) history: History,
}

/// Enough of a [`Published`] to answer one read without it.
pub(crate) struct View {
    state: State,
    past: Option<Past>,
}

impl Published {
    /// Takes what a read needs, so that the lock around `self` is held no longer than that.
    pub(crate) fn view(&self, request: &RangeRequest) -> Result<View, Error> {
        let Published { state, history } = self;
        if request.key.is_empty() {
            return Err(Error::invalid("key is not provided"));
        }
        if request.revision > state.revision {
            return Err(Error::FutureRevision { current: state.revision });
        }
        if request.revision <= 0 || request.revision == state.revision {
            return Ok(View { state: state.clone(), past: None });
        }
        if request.revision < state.compacted {
            return Err(Error::Compacted { compact_revision: state.compacted });
        }
        let range = KeyRange::new(&request.key, &request.range_end);
        Ok(View { state: state.clone(), past: Some(history.past(state, request.revision, &range)) })
    }
}

impl View {
    /// The answer to the request that the view was made for.
    pub(crate) fn answer(&self, request: &RangeRequest) -> RangeResponse {
        let range = KeyRange::new(&request.key, &request.range_end);
        match &self.past {
            Some(past) => past.answer(self.state.revision, request, &range),
            None => answer(self.state.revision, request, in_range(&self.state.live, &range)),
        }
    }
}
