//! Which images go: those that no container uses, the longest unused first, and none that came lately.

use crate::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// An image that the runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub size_bytes: u64,
    /// The runtime needs it itself.
    pub pinned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    found: Millis,
    used: Millis,
}

/// When collection begins, where it ends, and what it spares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub high_percent: u64,
    pub low_percent: u64,
    pub min_age_seconds: i64,
    /// Images unused for longer go even where there is room; 0 for never.
    pub max_age_seconds: i64,
}

/// Remembers when images were found and used.
#[derive(Debug, Default)]
pub struct Collector {
    records: BTreeMap<String, Record>,
}

impl Collector {
    /// Takes note of what there is and what is used. `used`: ids or names, as containers state them.
    pub fn note(&mut self, now: Millis, images: &[Image], used: &BTreeSet<String>) {
        let known: BTreeSet<&String> = images.iter().map(|image| &image.id).collect();
        self.records.retain(|id, _| known.contains(id));
        for image in images {
            let record = self.records.entry(image.id.clone()).or_insert(Record { found: now, used: 0 });
            if used.contains(&image.id) {
                record.used = now;
            }
        }
    }

    /// How many bytes are to be freed; 0 where the disk is not full enough.
    pub fn wanted(policy: &Policy, capacity: u64, available: u64) -> u64 {
        if capacity == 0 {
            return 0;
        }
        let used_percent = 100 - (available.min(capacity) * 100 / capacity);
        if used_percent < policy.high_percent {
            return 0;
        }
        (capacity * (100 - policy.low_percent) / 100).saturating_sub(available)
    }

    /// The images that go, in order, until enough is freed.
    pub fn choose(
        &self,
        now: Millis,
        policy: &Policy,
        images: &[Image],
        used: &BTreeSet<String>,
        wanted_bytes: u64,
    ) -> Vec<String> {
        let mut free: Vec<(&Image, Record)> = images
            .iter()
            .filter(|image| !image.pinned && !used.contains(&image.id))
            .filter_map(|image| Some((image, *self.records.get(&image.id)?)))
            .collect();
        free.sort_by_key(|(image, record)| (record.used, record.found, image.id.clone()));
        let (mut freed, mut chosen) = (0, Vec::new());
        for (image, record) in free {
            let idle_seconds = (now - record.used.max(record.found)) / 1000;
            let old = policy.max_age_seconds > 0 && idle_seconds > policy.max_age_seconds;
            let young = (now - record.found) / 1000 < policy.min_age_seconds || record.used >= now;
            if old || (freed < wanted_bytes && !young) {
                freed += image.size_bytes;
                chosen.push(image.id.clone());
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, size_bytes: u64) -> Image {
        Image { id: id.into(), size_bytes, pinned: id == "pause" }
    }

    #[test]
    fn the_longest_unused_go_until_there_is_room() {
        let policy = Policy { high_percent: 85, low_percent: 80, min_age_seconds: 120, max_age_seconds: 0 };
        assert_eq!(Collector::wanted(&policy, 1000, 200), 0);
        assert_eq!(Collector::wanted(&policy, 1000, 100), 100);
        let images = [image("a", 60), image("b", 60), image("c", 60), image("pause", 60)];
        let used = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect::<BTreeSet<_>>();
        let mut collector = Collector::default();
        collector.note(1000, &images, &used(&["a", "b"]));
        collector.note(10_000, &images, &used(&["b"]));
        let now = 200_000;
        collector.note(now, &images, &used(&["b"]));
        assert_eq!(collector.choose(now, &policy, &images, &used(&["b"]), 100), ["c", "a"]);
        assert_eq!(collector.choose(now, &policy, &images, &used(&["b"]), 50), ["c"]);
        // Too young to go, however full the disk is.
        assert!(collector.choose(60_000, &policy, &images, &used(&[]), 100).is_empty());
        let aged = Policy { max_age_seconds: 60, ..policy };
        assert_eq!(collector.choose(now, &aged, &images, &used(&["b"]), 0), ["c", "a"]);
    }
}
