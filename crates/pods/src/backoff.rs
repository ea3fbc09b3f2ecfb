//! Waits that double: after a crash, and after a failed pull.

use crate::Millis;

/// Upstream's crash and pull backoff: 10 s, doubled to 5 min, forgotten after twice that.
pub const INITIAL: Millis = 10_000;
pub const MAX: Millis = 300_000;

/// The wait of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    delay: Millis,
    updated: Millis,
}

impl Backoff {
    /// What remains to wait for something that failed at `since`; `None` where nothing does.
    pub fn remaining(entry: Option<&Backoff>, since: Millis, now: Millis) -> Option<(Millis, Millis)> {
        let entry = entry?;
        if since - entry.updated > 2 * MAX {
            return None;
        }
        let until = since + entry.delay;
        (now < until).then_some((entry.delay, until))
    }

    /// The entry after one more try, for something that failed at `since`.
    pub fn next(entry: Option<&Backoff>, since: Millis, now: Millis) -> Backoff {
        let delay = match entry {
            Some(entry) if since - entry.updated <= 2 * MAX => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        Backoff { delay, updated: now }
    }
}

/// `10s`, `1m20s`, `5m0s`.
pub fn text(delay: Millis) -> String {
    meta::Duration { nanos: delay * 1_000_000 }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes() {
        let mut entry = None;
        let mut delays = vec![];
        let mut now = 0;
        for _ in 0..7 {
            let wait = Backoff::remaining(entry.as_ref(), now, now).map_or(0, |(delay, _)| delay);
            delays.push(text(wait));
            entry = Some(Backoff::next(entry.as_ref(), now, now + wait));
            now += wait;
        }
        assert_eq!(delays, ["0s", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s"]);
    }

    #[test]
    fn ten_minutes_of_health_forgive() {
        let entry = Backoff::next(None, 0, 0);
        assert!(Backoff::remaining(Some(&entry), 5_000, 5_000).is_some());
        assert_eq!(Backoff::remaining(Some(&entry), 600_001, 600_001), None);
    }
}
