//! What the scheduler counts, under upstream's names.

use crate::queue::Depth;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters and gauges. Each is exact; together they are as of slightly different moments.
#[derive(Debug, Default)]
pub struct Metrics {
    scheduled: AtomicU64,
    unschedulable: AtomicU64,
    errors: AtomicU64,
    preemptions: AtomicU64,
    victims: AtomicU64,
    active: AtomicU64,
    backoff: AtomicU64,
    waiting: AtomicU64,
    gated: AtomicU64,
    leading: AtomicU64,
}

impl Metrics {
    pub fn scheduled(&self) {
        self.scheduled.fetch_add(1, Relaxed);
    }
    pub fn unschedulable(&self) {
        self.unschedulable.fetch_add(1, Relaxed);
    }
    pub fn error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }
    pub fn preempted(&self, victims: usize) {
        self.preemptions.fetch_add(1, Relaxed);
        self.victims.fetch_add(victims as u64, Relaxed);
    }
    pub fn pending(&self, depth: Depth) {
        self.active.store(depth.active as u64, Relaxed);
        self.backoff.store(depth.backoff as u64, Relaxed);
        self.waiting.store(depth.unschedulable as u64, Relaxed);
        self.gated.store(depth.gated as u64, Relaxed);
    }
    pub fn lead(&self, leading: bool) {
        self.leading.store(u64::from(leading), Relaxed);
    }

    /// The text form that Prometheus reads.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut family = |name: &str, sort: &str, help: &str, values: &[(&str, &AtomicU64)]| {
            // Writing into a String cannot fail.
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {sort}\n");
            for (labels, value) in values {
                let _ = writeln!(out, "{name}{labels} {}", value.load(Relaxed));
            }
        };
        family(
            "scheduler_schedule_attempts_total",
            "counter",
            "Tries to schedule a pod, by result.",
            &[
                ("{result=\"scheduled\"}", &self.scheduled),
                ("{result=\"unschedulable\"}", &self.unschedulable),
                ("{result=\"error\"}", &self.errors),
            ],
        );
        family(
            "scheduler_pending_pods",
            "gauge",
            "Pods that wait, by where they wait.",
            &[
                ("{queue=\"active\"}", &self.active),
                ("{queue=\"backoff\"}", &self.backoff),
                ("{queue=\"unschedulable\"}", &self.waiting),
                ("{queue=\"gated\"}", &self.gated),
            ],
        );
        family(
            "scheduler_preemption_attempts_total",
            "counter",
            "Preemptions carried out.",
            &[("", &self.preemptions)],
        );
        family(
            "scheduler_preemption_victims_total",
            "counter",
            "Pods evicted by preemptions.",
            &[("", &self.victims)],
        );
        family(
            "leader_election_master_status",
            "gauge",
            "Whether this instance leads.",
            &[("{name=\"kube-scheduler\"}", &self.leading)],
        );
        out
    }
}
