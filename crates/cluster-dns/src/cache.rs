//! What the host's resolvers answered, for as long as it may be used, in bounded memory.
//!
//! Two generations: entries are written to the young one; when that is full it becomes the old one, and the former
//! old one is forgotten. What is asked for moves to the young one, so what is used stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of both generations together, names and answers counted.
const BYTES_MAX: usize = 4 << 20;
/// Longest time an answer is remembered, whatever its records say.
const POSITIVE_MAX: Duration = Duration::from_secs(300);
/// Longest time an absence is remembered: a name that was just made should be found soon.
const NEGATIVE_MAX: Duration = Duration::from_secs(30);
/// How long beyond its time an answer may be used when nobody can be asked (RFC 8767).
const STALE_MAX: Duration = Duration::from_secs(3600);
/// Cost of an entry besides its bytes.
const ENTRY_BYTES: usize = 128;

/// What was asked: the name in wire form and lower case, the type, and the flags that change an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub name: Box<[u8]>,
    pub qtype: u16,
    pub qclass: u16,
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

/// An answer without header, question and OPT record.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub rcode: u8,
    pub authentic: bool,
    /// Records per section: answer, authority, additional.
    pub counts: [u16; 3],
    /// The records, their compression pointers counting from a message with this question.
    pub records: Vec<u8>,
    pub ttl: Duration,
}

struct Entry {
    reply: Arc<Reply>,
    stored: Instant,
    expires: Instant,
}

/// An answer from the cache, with its age.
pub struct Hit {
    pub reply: Arc<Reply>,
    pub age: Duration,
    pub stale: bool,
}

#[derive(Default)]
pub struct Cache {
    young: HashMap<Key, Entry>,
    old: HashMap<Key, Entry>,
    young_bytes: usize,
}

fn cost(key: &Key, reply: &Reply) -> usize {
    key.name.len() + reply.records.len() + ENTRY_BYTES
}

impl Cache {
    pub fn get(&mut self, key: &Key, now: Instant) -> Option<Hit> {
        if !self.young.contains_key(key) {
            let entry = self.old.remove(key)?;
            self.put(key.clone(), entry);
        }
        let entry = self.young.get(key)?;
        if now > entry.expires + STALE_MAX {
            return None;
        }
        let age = now.saturating_duration_since(entry.stored);
        Some(Hit { reply: entry.reply.clone(), age, stale: now >= entry.expires })
    }

    /// Remembers a reply, unless it may not be.
    pub fn insert(&mut self, key: Key, reply: Arc<Reply>, now: Instant) {
        let negative = reply.rcode != 0 || reply.counts[0] == 0;
        let ttl = reply.ttl.min(if negative { NEGATIVE_MAX } else { POSITIVE_MAX });
        if !ttl.is_zero() {
            self.put(key, Entry { reply, stored: now, expires: now + ttl });
        }
    }

    fn put(&mut self, key: Key, entry: Entry) {
        self.old.remove(&key);
        let bytes = cost(&key, &entry.reply);
        if self.young_bytes + bytes > BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        let freed = self.young.get(&key).map(|entry| cost(&key, &entry.reply));
        self.young_bytes -= freed.unwrap_or(0);
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        let name = number.to_be_bytes().into();
        Key { name, qtype: 1, qclass: 1, dnssec_ok: false, checking_disabled: false }
    }

    fn reply(bytes: usize, ttl: u64) -> Arc<Reply> {
        let ttl = Duration::from_secs(ttl);
        Arc::new(Reply { rcode: 0, authentic: false, counts: [1, 0, 0], records: vec![0; bytes], ttl })
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for number in 0..20_000 {
            cache.insert(key(number), reply(1000, 60), now);
            assert!(cache.get(&key(0), now).is_some(), "used all the time: {number}");
        }
        let bytes: usize =
            cache.young.iter().chain(&cache.old).map(|(key, entry)| cost(key, &entry.reply)).sum();
        assert!(bytes <= BYTES_MAX && bytes > BYTES_MAX / 4, "{bytes}");
        assert!(cache.get(&key(1), now).is_none());
    }

    #[test]
    fn answers_age_grow_stale_and_end() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let later = |seconds: u64| now + Duration::from_secs(seconds);
        cache.insert(key(1), reply(10, 100_000), now);
        cache.insert(key(2), reply(10, 0), now);
        assert!(cache.get(&key(2), now).is_none(), "may not be remembered");
        assert!(!cache.get(&key(1), later(299)).unwrap().stale);
        assert!(cache.get(&key(1), later(300)).unwrap().stale);
        assert_eq!(cache.get(&key(1), later(300)).unwrap().age, Duration::from_secs(300));
        assert!(cache.get(&key(1), later(300 + 3601)).is_none());
    }
}
