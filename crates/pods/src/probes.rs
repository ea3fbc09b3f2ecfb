//! When each probe of a running container is due, and what its results mean: thresholds, gating by the startup probe.

use crate::Millis;
use api::core::v1::{Container, Probe};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

pub const KINDS: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

impl std::fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        })
    }
}

/// How one run of a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// Counts as success, and is told: an HTTP redirect to another host.
    Warning(String),
    Failure(String),
    /// The probe itself could not be run; counts as failure.
    Error(String),
}

impl Outcome {
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Success | Outcome::Warning(_))
    }
}

pub fn spec(container: &Container, kind: ProbeKind) -> Option<&Probe> {
    match kind {
        ProbeKind::Startup => container.startup_probe.as_deref(),
        ProbeKind::Liveness => container.liveness_probe.as_deref(),
        ProbeKind::Readiness => container.readiness_probe.as_deref(),
    }
}

/// One probe of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The container that it speaks of; another id starts afresh.
    pub container_id: String,
    pub next: Millis,
    pub in_flight: bool,
    /// The settled result, once a threshold was reached.
    pub settled: Option<bool>,
    /// The last results in a row that agree: which, and how many.
    last: bool,
    run: i32,
}

impl Watch {
    pub fn start(container_id: &str, probe: &Probe, started_at: Millis) -> Self {
        Watch {
            container_id: container_id.into(),
            next: started_at + Millis::from(probe.initial_delay_seconds) * 1000,
            in_flight: false,
            settled: None,
            last: false,
            run: 0,
        }
    }

    /// Takes one result; tells whether the settled result changed.
    pub fn take(&mut self, probe: &Probe, success: bool) -> bool {
        self.in_flight = false;
        self.run = if self.run > 0 && self.last == success { self.run.saturating_add(1) } else { 1 };
        self.last = success;
        let threshold = if success { probe.success_threshold } else { probe.failure_threshold };
        if self.run < threshold.max(1) || self.settled == Some(success) {
            return false;
        }
        self.settled = Some(success);
        true
    }

    /// The probe runs now; the next is due a period later.
    pub fn begin(&mut self, probe: &Probe, now: Millis) {
        self.in_flight = true;
        self.next = now + period(probe);
    }
}

fn period(probe: &Probe) -> Millis {
    Millis::from(if probe.period_seconds > 0 { probe.period_seconds } else { 10 }) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_settles_after_its_threshold_in_a_row() {
        let probe = Probe { success_threshold: 1, failure_threshold: 3, ..Probe::default() };
        let mut watch = Watch::start("c", &probe, 0);
        let mut settled = vec![];
        for success in [true, false, false, true, false, false, false] {
            watch.take(&probe, success);
            settled.push(watch.settled == Some(true));
        }
        assert_eq!(settled, [true, true, true, true, true, true, false]);
    }
}
