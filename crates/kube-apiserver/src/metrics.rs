//! Counters of the server, under upstream's names, in the text form that Prometheus reads.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Most label combinations kept for one metric; what is new beyond them is not counted.
const MAX_SERIES: usize = 10_000;

/// Upper bounds of the request duration's buckets, in seconds; upstream's.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// The labels that tell requests apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestLabels {
    pub verb: String,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: String,
    pub scope: &'static str,
}

impl RequestLabels {
    fn text(&self) -> String {
        format!(
            "component=\"apiserver\",group={:?},resource={:?},scope={:?},subresource={:?},verb={:?},version={:?}",
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// All counters of one server.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(RequestLabels, bool, u16), u64>>,
    durations: Mutex<BTreeMap<RequestLabels, Histogram>>,
    long_running: Mutex<BTreeMap<RequestLabels, i64>>,
    pub reading: AtomicI64,
    pub mutating: AtomicI64,
    rejected: Mutex<BTreeMap<&'static str, u64>>,
    pub authentication: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    pub fn request(&self, labels: &RequestLabels, dry_run: bool, code: u16, took: Option<Duration>) {
        let mut requests = self.requests.lock();
        if requests.len() < MAX_SERIES || requests.contains_key(&(labels.clone(), dry_run, code)) {
            *requests.entry((labels.clone(), dry_run, code)).or_default() += 1;
        }
        drop(requests);
        let Some(took) = took.map(|took| took.as_secs_f64()) else { return };
        let mut durations = self.durations.lock();
        if durations.len() >= MAX_SERIES && !durations.contains_key(labels) {
            return;
        }
        let histogram = durations.entry(labels.clone()).or_default();
        if let Some(at) = BUCKETS.iter().position(|bound| took <= *bound) {
            histogram.buckets[at] += 1;
        }
        histogram.count += 1;
        histogram.sum += took;
    }

    pub fn begin_long_running(&self, labels: &RequestLabels) {
        *self.long_running.lock().entry(labels.clone()).or_default() += 1;
    }

    pub fn end_long_running(&self, labels: &RequestLabels) {
        if let Some(count) = self.long_running.lock().get_mut(labels) {
            *count -= 1;
        }
    }

    pub fn reject(&self, kind: &'static str) {
        *self.rejected.lock().entry(kind).or_default() += 1;
    }

    /// The exposition text; `objects` are the stored objects by resource.
    pub fn render(&self, objects: &[(String, usize)]) -> String {
        let mut out = String::new();
        head(
            &mut out,
            "apiserver_request_total",
            "counter",
            "Requests answered, by verb, resource and code.",
        );
        for ((labels, dry_run, code), count) in self.requests.lock().iter() {
            let dry_run = if *dry_run { "All" } else { "" };
            let _ = writeln!(
                out,
                "apiserver_request_total{{code=\"{code}\",dry_run=\"{dry_run}\",{}}} {count}",
                labels.text()
            );
        }
        self.render_durations(&mut out);
        head(&mut out, "apiserver_longrunning_requests", "gauge", "Watches and streams now open.");
        for (labels, count) in self.long_running.lock().iter() {
            let _ = writeln!(out, "apiserver_longrunning_requests{{{}}} {count}", labels.text());
        }
        head(&mut out, "apiserver_current_inflight_requests", "gauge", "Requests now being answered.");
        for (kind, count) in [("readOnly", &self.reading), ("mutating", &self.mutating)] {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {count}");
        }
        head(
            &mut out,
            "apiserver_dropped_requests_total",
            "counter",
            "Requests refused because of too many.",
        );
        for (kind, count) in self.rejected.lock().iter() {
            let _ = writeln!(out, "apiserver_dropped_requests_total{{request_kind=\"{kind}\"}} {count}");
        }
        head(&mut out, "authentication_attempts", "counter", "Authentications by result.");
        for (result, count) in self.authentication.lock().iter() {
            let _ = writeln!(out, "authentication_attempts{{result=\"{result}\"}} {count}");
        }
        head(&mut out, "apiserver_resource_objects", "gauge", "Objects stored, by resource.");
        for (resource, count) in objects {
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            let _ =
                writeln!(out, "apiserver_resource_objects{{group={group:?},resource={resource:?}}} {count}");
        }
        out
    }

    fn render_durations(&self, out: &mut String) {
        let name = "apiserver_request_duration_seconds";
        head(out, name, "histogram", "Seconds a request took, without watches.");
        for (labels, histogram) in self.durations.lock().iter() {
            let labels = labels.text();
            let mut total = 0;
            for (bound, count) in BUCKETS.iter().zip(histogram.buckets) {
                total += count;
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count);
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", histogram.sum);
            let _ = writeln!(out, "{name}_count{{{labels}}} {}", histogram.count);
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
