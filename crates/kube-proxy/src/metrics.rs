//! What the proxy counts, under upstream's names.

use crate::http::Answer;
use services::Family;
use std::fmt::Write;
use std::sync::Mutex;

/// Upper bounds of the time histograms, seconds.
const BOUNDS: [f64; 15] = [
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];

#[derive(Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

/// One sync, as it is counted.
pub struct Synced {
    pub seconds: f64,
    pub full: bool,
    /// Seconds since the epoch.
    pub now: f64,
}

#[derive(Default)]
struct Numbers {
    full: Histogram,
    partial: Histogram,
    all: Histogram,
    queued_at: f64,
    synced_at: f64,
    failures: u64,
    service_changes: u64,
    endpoint_changes: u64,
    no_local_endpoints: [usize; 2],
}

#[derive(Default)]
pub struct Metrics {
    numbers: Mutex<Numbers>,
}

impl Metrics {
    fn numbers(&self) -> std::sync::MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn queued(&self, service_changes: u64, endpoint_changes: u64, now: f64) {
        let mut numbers = self.numbers();
        numbers.service_changes += service_changes;
        numbers.endpoint_changes += endpoint_changes;
        numbers.queued_at = now;
    }

    pub fn synced(&self, synced: &Synced) {
        let mut numbers = self.numbers();
        numbers.all.observe(synced.seconds);
        if synced.full { &mut numbers.full } else { &mut numbers.partial }.observe(synced.seconds);
        numbers.synced_at = synced.now;
    }

    pub fn failed(&self) {
        self.numbers().failures += 1;
    }

    /// Services whose Local policy finds no endpoint on this node: inside, outside.
    pub fn no_local_endpoints(&self, internal: usize, external: usize) {
        self.numbers().no_local_endpoints = [internal, external];
    }

    pub fn answer(&self, path: &str) -> Answer {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            "/metrics" => (200, "text/plain; version=0.0.4; charset=utf-8", self.text()),
            "/proxyMode" => (200, TEXT, "nftables".into()),
            "/healthz" => (200, TEXT, "ok".into()),
            _ => (404, TEXT, "404 page not found\n".into()),
        }
    }

    fn text(&self) -> String {
        let numbers = self.numbers();
        let mut text = String::new();
        let family = Family::Ipv4;
        for (name, help, histogram) in [
            ("sync_proxy_rules_duration_seconds", "Time of bringing the rules into step", &numbers.all),
            ("sync_full_proxy_rules_duration_seconds", "Time of writing the rules whole", &numbers.full),
            ("sync_partial_proxy_rules_duration_seconds", "Time of changing the rules", &numbers.partial),
        ] {
            header(&mut text, name, help, "histogram");
            for (bound, bucket) in BOUNDS.iter().zip(histogram.buckets) {
                sample(
                    &mut text,
                    &format!("{name}_bucket{{ip_family=\"{family}\",le=\"{bound}\"}}"),
                    bucket as f64,
                );
            }
            let count = histogram.count as f64;
            sample(&mut text, &format!("{name}_bucket{{ip_family=\"{family}\",le=\"+Inf\"}}"), count);
            sample(&mut text, &format!("{name}_sum{{ip_family=\"{family}\"}}"), histogram.sum);
            sample(&mut text, &format!("{name}_count{{ip_family=\"{family}\"}}"), count);
        }
        let of_family = format!("{{ip_family=\"{family}\"}}");
        for (name, help, kind, labels, value) in [
            (
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "When a change was last queued",
                "gauge",
                &*of_family,
                numbers.queued_at,
            ),
            (
                "sync_proxy_rules_last_timestamp_seconds",
                "When the rules were last in step",
                "gauge",
                &of_family,
                numbers.synced_at,
            ),
            (
                "sync_proxy_rules_nftables_sync_failures_total",
                "Transactions that failed",
                "counter",
                &of_family,
                numbers.failures as f64,
            ),
            (
                "sync_proxy_rules_service_changes_total",
                "Changes of services",
                "counter",
                "",
                numbers.service_changes as f64,
            ),
            (
                "sync_proxy_rules_endpoint_changes_total",
                "Changes of endpoints",
                "counter",
                "",
                numbers.endpoint_changes as f64,
            ),
        ] {
            header(&mut text, name, help, kind);
            sample(&mut text, &format!("{name}{labels}"), value);
        }
        let name = "sync_proxy_rules_no_local_endpoints_total";
        header(&mut text, name, "Services with policy Local and no endpoint on this node", "gauge");
        for (policy, count) in ["internal", "external"].iter().zip(numbers.no_local_endpoints) {
            let labels = format!("{{ip_family=\"{family}\",traffic_policy=\"{policy}\"}}");
            sample(&mut text, &format!("{name}{labels}"), count as f64);
        }
        text
    }
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(text, "# HELP kubeproxy_{name} {help}\n# TYPE kubeproxy_{name} {kind}")
        .expect("a String takes all");
}

fn sample(text: &mut String, name: &str, value: f64) {
    writeln!(text, "kubeproxy_{name} {value}").expect("a String takes all");
}
