//! What all simulated nodes together do: counters, and how long the API server takes.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Latencies are kept up to ten minutes.
const MICROS_MAX: u64 = 600_000_000;

/// Counters that every node adds to.
pub struct Stats {
    pub nodes: AtomicI64,
    /// Pods that nodes know of, and those of them that run.
    pub pods: AtomicI64,
    pub running: AtomicI64,
    pub leases: AtomicU64,
    pub statuses: AtomicU64,
    pub deletions: AtomicU64,
    pub events: AtomicU64,
    /// Lists made, the first of each node among them.
    pub lists: AtomicU64,
    pub watch_events: AtomicU64,
    pub failures: AtomicU64,
    latencies: Mutex<Latencies>,
}

struct Latencies {
    lease: Histogram<u64>,
    status: Histogram<u64>,
    /// From a status write's beginning to its event in the node's own watch.
    echo: Histogram<u64>,
}

/// Which call took so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    Lease,
    Status,
    Echo,
}

impl Default for Stats {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, MICROS_MAX, 2)
                .expect("the bounds are in order and 2 digits are few enough")
        };
        Stats {
            nodes: AtomicI64::new(0),
            pods: AtomicI64::new(0),
            running: AtomicI64::new(0),
            leases: AtomicU64::new(0),
            statuses: AtomicU64::new(0),
            deletions: AtomicU64::new(0),
            events: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            watch_events: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            latencies: Mutex::new(Latencies { lease: histogram(), status: histogram(), echo: histogram() }),
        }
    }
}

/// All counters at one moment; times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub nodes: i64,
    pub pods: i64,
    pub running: i64,
    pub leases: u64,
    pub statuses: u64,
    pub deletions: u64,
    pub events: u64,
    pub lists: u64,
    pub watch_events: u64,
    pub failures: u64,
    pub lease_p50: u64,
    pub lease_p99: u64,
    pub status_p50: u64,
    pub status_p99: u64,
    pub echo_p50: u64,
    pub echo_p99: u64,
}

impl Stats {
    pub(crate) fn time(&self, what: Timed, time: Duration) {
        let mut latencies = self.latencies.lock();
        let histogram = match what {
            Timed::Lease => &mut latencies.lease,
            Timed::Status => &mut latencies.status,
            Timed::Echo => &mut latencies.echo,
        };
        histogram.saturating_record(time.as_micros().clamp(1, u128::from(MICROS_MAX)) as u64);
    }

    pub fn snapshot(&self) -> Snapshot {
        let latencies = self.latencies.lock();
        let at = |histogram: &Histogram<u64>, quantile| {
            if histogram.is_empty() { 0 } else { histogram.value_at_quantile(quantile) }
        };
        Snapshot {
            nodes: self.nodes.load(Ordering::Relaxed),
            pods: self.pods.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
            leases: self.leases.load(Ordering::Relaxed),
            statuses: self.statuses.load(Ordering::Relaxed),
            deletions: self.deletions.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            watch_events: self.watch_events.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            lease_p50: at(&latencies.lease, 0.5),
            lease_p99: at(&latencies.lease, 0.99),
            status_p50: at(&latencies.status, 0.5),
            status_p99: at(&latencies.status, 0.99),
            echo_p50: at(&latencies.echo, 0.5),
            echo_p99: at(&latencies.echo, 0.99),
        }
    }

    /// Forgets latencies so far, so that the next snapshot tells of what comes from here on.
    pub fn forget_latencies(&self) {
        let mut latencies = self.latencies.lock();
        latencies.lease.reset();
        latencies.status.reset();
        latencies.echo.reset();
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |micros: u64| micros as f64 / 1e3;
        write!(
            f,
            "nodes {} pods {} running {} leases {} statuses {} deletions {} watch events {} failures {} | p50/p99 ms: lease {:.1}/{:.1} status {:.1}/{:.1} own event {:.1}/{:.1}",
            self.nodes,
            self.pods,
            self.running,
            self.leases,
            self.statuses,
            self.deletions,
            self.watch_events,
            self.failures,
            ms(self.lease_p50),
            ms(self.lease_p99),
            ms(self.status_p50),
            ms(self.status_p99),
            ms(self.echo_p50),
            ms(self.echo_p99)
        )
    }
}
