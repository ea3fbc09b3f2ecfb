//! The keys that wait: each at most once, after its delay, behind its fence, spaced out as it fails.

use crate::fence::{FENCE_MAX, Fence};
use crate::metrics::QueueMetrics;
use controllers::Report;
use meta::{ObjectKey, Time};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use view::View;

/// The first wait of a key that failed, doubled each time up to the last (client-go's figures).
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
const BACKOFF_LAST: Duration = Duration::from_secs(1000);
/// Failed keys that are taken up again at once, and how many a second beyond that (client-go's figures).
const RETRY_BURST: f64 = 100.0;
const RETRIES_PER_SECOND: f64 = 10.0;

/// How the work on a key ended.
#[derive(Default)]
pub(crate) struct Outcome {
    pub fences: Vec<Fence>,
    pub report: Option<Report>,
    /// Something failed: try again, later each time.
    pub failed: bool,
    pub again: Option<Duration>,
    pub mark: String,
}

/// What is remembered of a key between two plans.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub report: Option<Report>,
    pub mark: String,
    /// Since when the mark has been this one.
    pub marked: Time,
}

struct Fenced {
    fences: Vec<Fence>,
    since: Instant,
}

pub(crate) struct Queue {
    ready: VecDeque<ObjectKey>,
    /// Every key that is in `ready`, or will be once its work or its fence ends.
    dirty: HashSet<ObjectKey>,
    working: HashSet<ObjectKey>,
    fenced: HashMap<ObjectKey, Fenced>,
    delayed: BTreeSet<(Instant, ObjectKey)>,
    due: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, u32>,
    memories: HashMap<ObjectKey, Memory>,
    tokens: f64,
    refilled: Instant,
    /// Since when each key of `ready` has been there.
    waiting: HashMap<ObjectKey, Instant>,
    metrics: Arc<QueueMetrics>,
}

impl Queue {
    pub(crate) fn new(now: Instant, metrics: Arc<QueueMetrics>) -> Self {
        Queue {
            waiting: HashMap::new(),
            metrics,
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            fenced: HashMap::new(),
            delayed: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            memories: HashMap::new(),
            tokens: RETRY_BURST,
            refilled: now,
        }
    }

    /// A key is to be looked at.
    pub(crate) fn add(&mut self, key: ObjectKey) {
        if self.dirty.insert(key.clone()) && !self.working.contains(&key) && !self.fenced.contains_key(&key) {
            self.make_ready(key);
        }
    }

    fn make_ready(&mut self, key: ObjectKey) {
        self.waiting.insert(key.clone(), Instant::now());
        self.ready.push_back(key);
        self.metrics.added(self.ready.len());
    }

    /// A key is to be looked at later; an earlier time stands.
    pub(crate) fn add_at(&mut self, key: ObjectKey, at: Instant) {
        match self.due.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                self.delayed.remove(&(*later, key.clone()));
            }
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// The next key, with what its last plan brought.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(ObjectKey, Memory)> {
        self.move_due(now);
        let key = self.ready.pop_front()?;
        let waited =
            self.waiting.remove(&key).map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.metrics.taken(waited, self.ready.len());
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        let memory = self.memories.get(&key).cloned().unwrap_or_default();
        Some((key, memory))
    }

    /// When the next key becomes due, if nothing else happens.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let delayed = self.delayed.first().map(|(at, _)| *at);
        let expiring = self.fenced.values().map(|fenced| fenced.since + FENCE_MAX).min();
        delayed.into_iter().chain(expiring).min()
    }

    fn move_due(&mut self, now: Instant) {
        while let Some((at, _)) = self.delayed.first()
            && *at <= now
        {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    /// The work on a key ended.
    pub(crate) fn finish(&mut self, key: ObjectKey, outcome: Outcome, view: &View, now: Instant, wall: Time) {
        self.working.remove(&key);
        // What was found out, rather than what failed, is to be acted on at once.
        let found_out = outcome.report.is_some() && !outcome.failed;
        self.remember(&key, outcome.report, outcome.mark, wall);
        if outcome.failed {
            self.metrics.retried();
            let wait = self.backoff(&key, now);
            self.add_at(key.clone(), now + wait);
        } else {
            self.failures.remove(&key);
        }
        if let Some(again) = outcome.again {
            self.add_at(key.clone(), now + again);
        }
        let wrote = !outcome.fences.is_empty();
        let fences: Vec<Fence> = outcome.fences.into_iter().filter(|fence| !fence.passed(view)).collect();
        if !fences.is_empty() {
            self.fenced.insert(key, Fenced { fences, since: now });
        } else if self.dirty.contains(&key) {
            self.make_ready(key);
        } else if (wrote || found_out) && !outcome.failed {
            // The view has it all already: see what follows from it.
            self.add(key);
        }
    }

    fn remember(&mut self, key: &ObjectKey, report: Option<Report>, mark: String, wall: Time) {
        if report.is_none() && mark.is_empty() {
            self.memories.remove(key);
            return;
        }
        let memory = self.memories.entry(key.clone()).or_default();
        memory.report = report;
        if memory.mark != mark {
            memory.mark = mark;
            memory.marked = wall;
        }
    }

    fn backoff(&mut self, key: &ObjectKey, now: Instant) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let own = BACKOFF_FIRST.saturating_mul(1u32 << (*failures).min(20)).min(BACKOFF_LAST);
        *failures = failures.saturating_add(1);
        let refill = (now - self.refilled).as_secs_f64() * RETRIES_PER_SECOND;
        self.tokens = (self.tokens + refill).min(RETRY_BURST) - 1.0;
        self.refilled = now;
        let overall = if self.tokens < 0.0 {
            Duration::from_secs_f64(-self.tokens / RETRIES_PER_SECOND)
        } else {
            Duration::ZERO
        };
        own.max(overall)
    }

    /// The view moved on: keys whose writes it shows now are looked at again.
    pub(crate) fn check_fences(&mut self, view: &View, now: Instant) {
        let mut passed = Vec::new();
        for (key, fenced) in &mut self.fenced {
            fenced.fences.retain(|fence| !fence.passed(view));
            if fenced.fences.is_empty() || now - fenced.since >= FENCE_MAX {
                passed.push(key.clone());
            }
        }
        for key in passed {
            self.fenced.remove(&key);
            // What failed beside what was written waits for its own time.
            if self.dirty.remove(&key) || !self.due.contains_key(&key) {
                self.add(key);
            }
        }
    }

    /// Keys that wait behind a fence.
    pub(crate) fn fenced(&self) -> usize {
        self.fenced.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::Pod;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::cluster(name)
    }

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|(key, _)| key.name)
    }

    fn at_revision(revision: u64) -> View {
        let mut view = View::default();
        view.advance(view::kind_id::<Pod>(), revision);
        view
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_never_worked_on_twice() {
        let now = Instant::now();
        let mut queue = Queue::new(now, Arc::default());
        queue.add(key("a"));
        queue.add(key("a"));
        queue.add(key("b"));
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
        queue.add(key("a"));
        assert_eq!(popped(&mut queue, now).as_deref(), Some("b"));
        assert_eq!(popped(&mut queue, now), None);
        queue.finish(key("a"), Outcome::default(), &View::default(), now, Time::default());
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
        queue.finish(key("a"), Outcome::default(), &View::default(), now, Time::default());
        assert_eq!(popped(&mut queue, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_holds_its_key_until_the_view_shows_it() {
        let now = Instant::now();
        let mut queue = Queue::new(now, Arc::default());
        queue.add(key("a"));
        queue.pop(now);
        let fence = Fence::Reached { kind: view::kind_id::<Pod>(), revision: 7 };
        let outcome = Outcome { fences: vec![fence.clone()], ..Outcome::default() };
        queue.finish(key("a"), outcome, &at_revision(5), now, Time::default());
        queue.add(key("a"));
        assert_eq!(popped(&mut queue, now), None);
        queue.check_fences(&at_revision(6), now);
        assert_eq!(popped(&mut queue, now), None);
        queue.check_fences(&at_revision(7), now);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
        // Unseen for too long: the key is let go.
        let outcome = Outcome { fences: vec![fence], ..Outcome::default() };
        queue.finish(key("a"), outcome, &at_revision(5), now, Time::default());
        assert_eq!(queue.next_due(), Some(now + FENCE_MAX));
        queue.check_fences(&at_revision(5), now + FENCE_MAX);
        assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_space_a_key_out_and_carry_their_report() {
        let now = Instant::now();
        let mut queue = Queue::new(now, Arc::default());
        queue.add(key("a"));
        let mut at = now;
        for expected in [5, 10, 20, 40] {
            let (key, _) = queue.pop(at).expect("it is due");
            let report = Some(Report::Failed(controllers::Failure::default()));
            let outcome = Outcome { failed: true, report, ..Outcome::default() };
            queue.finish(key, outcome, &View::default(), at, Time::default());
            assert_eq!(queue.next_due(), Some(at + Duration::from_millis(expected)));
            at += Duration::from_millis(expected);
        }
        let (key, memory) = queue.pop(at).expect("it is due");
        assert!(memory.report.is_some());
        queue.finish(key.clone(), Outcome::default(), &View::default(), at, Time::default());
        queue.add(key);
        assert!(queue.pop(at).expect("it was added").1.report.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_wish_to_look_again_stands() {
        let now = Instant::now();
        let mut queue = Queue::new(now, Arc::default());
        queue.add_at(key("a"), now + Duration::from_secs(5));
        queue.add_at(key("a"), now + Duration::from_secs(2));
        queue.add_at(key("a"), now + Duration::from_secs(9));
        assert_eq!(popped(&mut queue, now + Duration::from_secs(1)), None);
        assert_eq!(popped(&mut queue, now + Duration::from_secs(2)).as_deref(), Some("a"));
        assert_eq!(queue.next_due(), None);
    }
}
