//! What flows and levels do, counted without locks and shown under upstream's names.

use super::Fairness;
use crate::families::{gauges, labels};
use flowcontrol::Refusal;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

const WAITS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const WIDTHS: [f64; 4] = [1.0, 2.0, 4.0, 10.0];

/// Labels and values of one family.
type Series = Vec<(String, f64)>;

/// A histogram of atomics.
pub struct Shape<const N: usize> {
    bounds: [f64; N],
    buckets: [AtomicU64; N],
    count: AtomicU64,
    /// In millionths.
    sum: AtomicU64,
}

impl<const N: usize> Shape<N> {
    fn new(bounds: [f64; N]) -> Self {
        Shape {
            bounds,
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, value: f64) {
        if let Some(at) = self.bounds.iter().position(|bound| value <= *bound) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let count = self.count.load(Ordering::Relaxed);
        if count == 0 {
            return;
        }
        let mut total = 0;
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            total += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum.load(Ordering::Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
    }
}

/// Counters of one flow schema in its level.
pub struct FlowCounts {
    pub dispatched: AtomicU64,
    pub executing: AtomicU64,
    pub seats: AtomicU64,
    pub waiting: AtomicU64,
    pub seats_waiting: AtomicU64,
    refused: [AtomicU64; 3],
    pub wait_executed: Shape<13>,
    pub wait_refused: Shape<13>,
    pub execution: Shape<13>,
    pub width: Shape<4>,
}

impl Default for FlowCounts {
    fn default() -> Self {
        FlowCounts {
            dispatched: AtomicU64::new(0),
            executing: AtomicU64::new(0),
            seats: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            seats_waiting: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            wait_executed: Shape::new(WAITS),
            wait_refused: Shape::new(WAITS),
            execution: Shape::new(WAITS),
            width: Shape::new(WIDTHS),
        }
    }
}

const REFUSALS: [Refusal; 3] = [Refusal::ConcurrencyLimit, Refusal::QueueFull, Refusal::TimeOut];

impl FlowCounts {
    pub fn refused(&self, why: Refusal) {
        if let Some(at) = REFUSALS.iter().position(|known| *known == why) {
            self.refused[at].fetch_add(1, Ordering::Relaxed);
        }
    }
    pub fn refusals(&self) -> u64 {
        self.refused.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
    pub fn timeouts(&self) -> u64 {
        self.refused[2].load(Ordering::Relaxed)
    }
}

/// Counters of one level.
#[derive(Default)]
pub struct LevelCounts {
    pub executing: AtomicU64,
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

impl Fairness {
    pub fn render(&self, out: &mut String) {
        self.render_flows(out);
        self.render_levels(out);
    }

    fn render_flows(&self, out: &mut String) {
        let state = self.state.load();
        let of: Vec<(String, &FlowCounts)> = state
            .entries
            .iter()
            .map(|entry| {
                let pairs = [("flow_schema", entry.name.as_str()), ("priority_level", &entry.level.name)];
                (labels(&pairs), &*entry.flow)
            })
            .collect();
        let prefix = "apiserver_flowcontrol_";
        let mut family = |name: &str, kind: &str, help: &str, read: &dyn Fn(&FlowCounts) -> u64| {
            head(out, &format!("{prefix}{name}"), kind, help);
            for (labels, flow) in &of {
                let value = read(flow);
                if value > 0 || kind == "gauge" {
                    let _ = writeln!(out, "{prefix}{name}{{{labels}}} {value}");
                }
            }
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        family("dispatched_requests_total", "counter", "Requests that ran.", &|flow| read(&flow.dispatched));
        family("current_executing_requests", "gauge", "Requests that run.", &|flow| read(&flow.executing));
        family("current_executing_seats", "gauge", "Seats in use.", &|flow| read(&flow.seats));
        family("current_inqueue_requests", "gauge", "Requests that wait.", &|flow| read(&flow.waiting));
        family("current_inqueue_seats", "gauge", "Seats waited for.", &|flow| read(&flow.seats_waiting));
        head(out, "apiserver_flowcontrol_rejected_requests_total", "counter", "Requests refused.");
        for (labels, flow) in &of {
            for (why, count) in REFUSALS.iter().zip(&flow.refused) {
                let (reason, count) = (why.reason(), read(count));
                if count > 0 {
                    let _ = writeln!(
                        out,
                        "apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"{reason}\"}} {count}"
                    );
                }
            }
        }
        let name = "apiserver_flowcontrol_request_wait_duration_seconds";
        head(out, name, "histogram", "Seconds that requests waited.");
        for (labels, flow) in &of {
            flow.wait_executed.render(out, name, &format!("execute=\"true\",{labels}"));
            flow.wait_refused.render(out, name, &format!("execute=\"false\",{labels}"));
        }
        let name = "apiserver_flowcontrol_request_execution_seconds";
        head(out, name, "histogram", "Seconds that requests ran.");
        of.iter().for_each(|(labels, flow)| {
            flow.execution.render(out, name, &format!("{labels},type=\"regular\""))
        });
        let name = "apiserver_flowcontrol_work_estimated_seats";
        head(out, name, "histogram", "Seats that requests were reckoned to need.");
        of.iter().for_each(|(labels, flow)| flow.width.render(out, name, labels));
    }

    fn render_levels(&self, out: &mut String) {
        let state = self.state.load();
        let mut families: [(&str, &str, Series); 10] = [
            ("nominal_limit_seats", "Seats by shares.", Vec::new()),
            ("lower_limit_seats", "Seats that are never lent.", Vec::new()),
            ("upper_limit_seats", "Seats with all that can be borrowed.", Vec::new()),
            ("current_limit_seats", "Seats now.", Vec::new()),
            ("target_seats", "Seats wanted.", Vec::new()),
            ("demand_seats_high_watermark", "Most seats that could be used in the last period.", Vec::new()),
            ("demand_seats_average", "Seats that could be used, on average.", Vec::new()),
            ("demand_seats_stdev", "Their standard deviation.", Vec::new()),
            ("demand_seats_smoothed", "What of that is expected.", Vec::new()),
            ("current_r", "Seat-seconds per queue since the beginning.", Vec::new()),
        ];
        for level in state.levels.values() {
            let Some(limited) = &level.limited else { continue };
            let inner = limited.inner.lock();
            let values = [
                inner.bounds.nominal as f64,
                inner.bounds.min as f64,
                inner.bounds.max as f64,
                inner.set.limit() as f64,
                inner.target,
                inner.demand.high_watermark,
                inner.demand.average,
                inner.demand.deviation,
                inner.demand.smoothed,
                inner.set.progress(),
            ];
            for ((.., series), value) in families.iter_mut().zip(values) {
                series.push((labels(&[("priority_level", &level.name)]), value));
            }
        }
        for (name, help, series) in &families {
            gauges(out, &format!("apiserver_flowcontrol_{name}"), help, series);
        }
        let fair = [(String::new(), *self.fair.lock())];
        let name = "apiserver_flowcontrol_seat_fair_frac";
        gauges(out, name, "Part of what is wanted that every level gets.", &fair);
    }
}
