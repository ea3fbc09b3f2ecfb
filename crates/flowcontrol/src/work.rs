//! How wide a request is: the seats it takes, and for how long it keeps some of them after its answer.

use crate::Nanos;

/// Upstream's numbers.
const BYTES_PER_SEAT: u64 = 100_000;
const LIST_BYTES_MAX: u64 = 1_000_000;
const LIST_SEATS_MAX: u64 = 100;
const MUTATING_SEATS_MAX: u64 = 10;
const WATCHES_PER_SEAT: u64 = 10;
const EVENT_NANOS: Nanos = 5_000_000;

/// The seats of a request: while it runs, and while what it did is told to watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub initial_seats: u64,
    pub final_seats: u64,
    pub lingers: Nanos,
}

impl Work {
    pub const ONE: Work = Work { initial_seats: 1, final_seats: 0, lingers: 0 };

    /// What is taken while it runs: both phases' width is reserved from the start.
    pub fn max_seats(&self) -> u64 {
        self.initial_seats.max(self.final_seats)
    }
}

/// What a list, or the first part of a watch, will read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListFacts {
    pub objects: u64,
    /// Of all objects together.
    pub bytes: u64,
    /// 0 for none.
    pub limit: u64,
    /// One object is asked for by its name.
    pub single: bool,
    /// A watch that begins with what happens from now on.
    pub only_news: bool,
}

fn bounded(seats: u64, most: u64, level_most: u64) -> u64 {
    let most = if level_most == 0 { most } else { most.min(level_most) };
    seats.clamp(1, most.max(1))
}

/// Lists are written from the cache as they are read: they hold no more than a share of memory at a time.
pub fn list(facts: &ListFacts, level_most: u64) -> Work {
    if facts.only_news || facts.objects == 0 {
        return Work::ONE;
    }
    let objects = if facts.single {
        1
    } else if facts.limit > 0 {
        facts.limit.min(facts.objects)
    } else {
        facts.objects
    };
    let bytes = (objects * (facts.bytes / facts.objects).max(1)).min(LIST_BYTES_MAX);
    let seats = bounded(bytes.div_ceil(BYTES_PER_SEAT), LIST_SEATS_MAX, level_most);
    Work { initial_seats: seats, ..Work::ONE }
}

/// A write costs one seat, and afterwards a share for each watcher that hears of it.
pub fn mutating(watchers: u64, level_most: u64) -> Work {
    if watchers < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let wanted = watchers.div_ceil(WATCHES_PER_SEAT);
    let seats = bounded(wanted, MUTATING_SEATS_MAX, level_most);
    // Narrower, it lasts longer: the work stays the same.
    Work { initial_seats: 1, final_seats: seats, lingers: wanted * EVENT_NANOS / seats }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_wide_as_what_they_read() {
        let facts = ListFacts { objects: 1000, bytes: 2_000_000, ..ListFacts::default() };
        assert_eq!(list(&facts, 0).initial_seats, 10);
        assert_eq!(list(&facts, 4).initial_seats, 4);
        assert_eq!(list(&ListFacts { limit: 100, ..facts }, 0).initial_seats, 2);
        assert_eq!(list(&ListFacts { single: true, ..facts }, 0), Work::ONE);
        assert_eq!(list(&ListFacts { only_news: true, ..facts }, 0), Work::ONE);
    }

    #[test]
    fn writes_linger_for_their_watchers() {
        assert_eq!(mutating(9, 0), Work::ONE);
        assert_eq!(mutating(40, 0), Work { initial_seats: 1, final_seats: 4, lingers: 5_000_000 });
        assert_eq!(mutating(1000, 0), Work { initial_seats: 1, final_seats: 10, lingers: 50_000_000 });
    }
}
