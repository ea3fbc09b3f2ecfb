//! Which events are worth a write: repeats become a count, storms of similar ones become one, a flood is dropped.
//!
//! The rules and their figures are those of client-go's event correlator.

use api::core::v1::{Event, ObjectReference};
use meta::Time;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Entries that each of the memories keeps.
const ENTRIES_MAX: usize = 4096;
/// Events about one object that are taken at once, and how many seconds bring back one more.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// From this many different messages of one reason on, they are written as one.
const SIMILAR_MAX: usize = 10;
/// How long similar messages are counted together.
const SIMILAR_SECONDS: i64 = 600;

/// What to do with an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Write it as it stands.
    Create(Box<Event>),
    /// Bring the earlier event up to this: same name, more of them.
    Count(Box<Event>),
    /// One too many about this object.
    Drop,
}

type AggregateKey = (String, String, String, String, String, String, String);

fn object_key(object: &ObjectReference) -> (String, String, String, String, String) {
    (
        object.kind.clone(),
        object.namespace.clone(),
        object.name.clone(),
        object.uid.clone(),
        object.field_path.clone(),
    )
}

struct Aggregate {
    messages: HashSet<String>,
    seen: i64,
}

struct Written {
    name: String,
    first: Option<Time>,
    count: i32,
    seen: i64,
}

struct Bucket {
    tokens: f64,
    seen: i64,
}

#[derive(Default)]
pub(crate) struct Correlator {
    aggregates: HashMap<AggregateKey, Aggregate>,
    written: HashMap<(AggregateKey, String), Written>,
    buckets: HashMap<(String, String, String, String, String), Bucket>,
}

impl Correlator {
    pub(crate) fn judge(&mut self, mut event: Event, now: Time) -> Verdict {
        let now_seconds = now.seconds();
        let (kind, namespace, name, uid, field) = object_key(&event.involved_object);
        let key = (kind, namespace, name, uid, field, event.r#type.clone(), event.reason.clone());
        let combined = self.combine(&key, &event.message, now_seconds);
        let text = if combined { String::new() } else { event.message.clone() };
        if combined {
            event.message = format!("(combined from similar events): {}", event.message);
        }
        let repeat = self.observe((key, text), &mut event, now_seconds);
        if !self.admit(object_key(&event.involved_object), now_seconds) {
            return Verdict::Drop;
        }
        if repeat { Verdict::Count(Box::new(event)) } else { Verdict::Create(Box::new(event)) }
    }

    /// Forgets that an event was written: the server no longer has it.
    pub(crate) fn forget(&mut self, name: &str) {
        self.written.retain(|_, written| written.name != name);
    }

    fn combine(&mut self, key: &AggregateKey, message: &str, now: i64) -> bool {
        bound(&mut self.aggregates, |aggregate| aggregate.seen);
        let aggregate = self
            .aggregates
            .entry(key.clone())
            .or_insert_with(|| Aggregate { messages: HashSet::new(), seen: now });
        if now - aggregate.seen > SIMILAR_SECONDS {
            aggregate.messages.clear();
        }
        aggregate.seen = now;
        if aggregate.messages.len() < SIMILAR_MAX {
            aggregate.messages.insert(message.to_string());
        }
        aggregate.messages.len() >= SIMILAR_MAX
    }

    fn observe(&mut self, key: (AggregateKey, String), event: &mut Event, now: i64) -> bool {
        bound(&mut self.written, |written| written.seen);
        if let Some(written) = self.written.get_mut(&key) {
            written.count += 1;
            written.seen = now;
            event.metadata.name.clone_from(&written.name);
            event.first_timestamp = written.first;
            event.count = written.count;
            return true;
        }
        let written =
            Written { name: event.metadata.name.clone(), first: event.first_timestamp, count: 1, seen: now };
        self.written.insert(key, written);
        false
    }

    fn admit(&mut self, object: (String, String, String, String, String), now: i64) -> bool {
        bound(&mut self.buckets, |bucket| bucket.seen);
        let bucket = self.buckets.entry(object).or_insert(Bucket { tokens: BURST, seen: now });
        let refill = (now - bucket.seen).max(0) as f64 / REFILL_SECONDS;
        bucket.tokens = (bucket.tokens + refill).min(BURST);
        bucket.seen = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// Keeps a memory within its limit: at the limit the older half goes.
fn bound<K: Eq + Hash, V>(memory: &mut HashMap<K, V>, seen: impl Fn(&V) -> i64) {
    if memory.len() < ENTRIES_MAX {
        return;
    }
    let mut times: Vec<i64> = memory.values().map(&seen).collect();
    let middle = times.len() / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    let median = *median;
    let mut excess = memory.len() / 2;
    memory.retain(|_, value| {
        let goes = excess > 0 && seen(value) <= median;
        excess -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, message: &str) -> Event {
        let mut event = Event::default();
        event.metadata.name = name.into();
        event.involved_object.name = "web".into();
        event.reason = "Failed".into();
        event.message = message.into();
        event.count = 1;
        event
    }

    fn at(seconds: i64) -> Time {
        Time::from_seconds(seconds).expect("it is in range")
    }

    #[test]
    fn repeats_are_counted_on_the_first() {
        let mut correlator = Correlator::default();
        assert!(matches!(correlator.judge(event("a", "no"), at(0)), Verdict::Create(_)));
        let Verdict::Count(second) = correlator.judge(event("b", "no"), at(1)) else {
            panic!("not a repeat")
        };
        assert_eq!((second.metadata.name.as_str(), second.count), ("a", 2));
        correlator.forget("a");
        assert!(matches!(correlator.judge(event("c", "no"), at(2)), Verdict::Create(_)));
    }

    #[test]
    fn storms_of_similar_events_become_one() {
        let mut correlator = Correlator::default();
        for number in 0..9 {
            let verdict = correlator.judge(event(&format!("e{number}"), &format!("m{number}")), at(0));
            assert!(matches!(verdict, Verdict::Create(_)), "{number}");
        }
        let Verdict::Create(first) = correlator.judge(event("e9", "m9"), at(1)) else { panic!("no event") };
        assert_eq!(first.message, "(combined from similar events): m9");
        let Verdict::Count(next) = correlator.judge(event("e10", "m10"), at(2)) else { panic!("no count") };
        assert_eq!((next.metadata.name.as_str(), next.count), ("e9", 2));
    }

    #[test]
    fn a_flood_is_dropped_and_ebbs() {
        let mut correlator = Correlator::default();
        let mut dropped = 0;
        for _ in 0..40 {
            dropped += usize::from(correlator.judge(event("a", "no"), at(0)) == Verdict::Drop);
        }
        assert_eq!(dropped, 15);
        assert!(matches!(correlator.judge(event("a", "no"), at(300)), Verdict::Count(_)));
        assert_eq!(correlator.judge(event("a", "no"), at(300)), Verdict::Drop);
    }

    #[test]
    fn memories_are_bounded() {
        let mut correlator = Correlator::default();
        for number in 0..3 * ENTRIES_MAX {
            let mut event = event(&format!("e{number}"), "no");
            event.involved_object.name = format!("pod-{number}");
            correlator.judge(event, at(number as i64));
        }
        assert!(correlator.written.len() <= ENTRIES_MAX);
        assert!(correlator.buckets.len() <= ENTRIES_MAX);
        assert!(correlator.aggregates.len() <= ENTRIES_MAX);
    }
}
