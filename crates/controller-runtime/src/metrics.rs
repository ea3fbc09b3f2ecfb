//! What is counted of the queues, under client-go's names.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// The upper bounds of the buckets of times, in seconds: from 10 ns, each ten times the last.
const BOUNDS: [f64; 12] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0];

/// All that a set of controllers counts.
#[derive(Default)]
pub struct Metrics {
    queues: Mutex<Vec<Arc<QueueMetrics>>>,
    leading: AtomicBool,
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    sum_nanos: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            if seconds <= *bound {
                bucket.fetch_add(1, Relaxed);
            }
        }
        self.count.fetch_add(1, Relaxed);
        self.sum_nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, name: &str, queue: &str, out: &mut String) {
        // Writing into a String cannot fail.
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            let _ =
                writeln!(out, "{name}_bucket{{name=\"{queue}\",le=\"{bound}\"}} {}", bucket.load(Relaxed));
        }
        let count = self.count.load(Relaxed);
        let _ = writeln!(out, "{name}_bucket{{name=\"{queue}\",le=\"+Inf\"}} {count}");
        let sum = Duration::from_nanos(self.sum_nanos.load(Relaxed)).as_secs_f64();
        let _ = writeln!(out, "{name}_sum{{name=\"{queue}\"}} {sum}");
        let _ = writeln!(out, "{name}_count{{name=\"{queue}\"}} {count}");
    }
}

/// What is counted of one queue.
#[derive(Default)]
pub(crate) struct QueueMetrics {
    name: String,
    depth: AtomicU64,
    adds: AtomicU64,
    retries: AtomicU64,
    queued: Histogram,
    worked: Histogram,
    /// When the work began that is under way, by a number of its own.
    busy: Mutex<HashMap<u64, Instant>>,
    next: AtomicU64,
}

impl QueueMetrics {
    pub(crate) fn added(&self, depth: usize) {
        self.adds.fetch_add(1, Relaxed);
        self.depth.store(depth as u64, Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// A key was taken after it had waited so long.
    pub(crate) fn taken(&self, waited: Duration, depth: usize) {
        self.depth.store(depth as u64, Relaxed);
        self.queued.observe(waited);
    }

    pub(crate) fn begin(&self, now: Instant) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        self.busy.lock().insert(number, now);
        number
    }

    pub(crate) fn end(&self, number: u64, now: Instant) {
        if let Some(begun) = self.busy.lock().remove(&number) {
            self.worked.observe(now - begun);
        }
    }
}

impl Metrics {
    pub(crate) fn queue(&self, name: &str) -> Arc<QueueMetrics> {
        let mut queues = self.queues.lock();
        if let Some(known) = queues.iter().find(|known| known.name == name) {
            return known.clone();
        }
        let queue = Arc::new(QueueMetrics { name: name.into(), ..QueueMetrics::default() });
        queues.push(queue.clone());
        queue
    }

    pub fn lead(&self, leading: bool) {
        self.leading.store(leading, Relaxed);
    }

    /// The text form that Prometheus reads; `lease` is the name under which the leader is elected.
    pub fn text(&self, lease: &str) -> String {
        let (queues, now) = (self.queues.lock().clone(), Instant::now());
        let mut out = String::new();
        let head = |out: &mut String, name: &str, sort: &str, help: &str| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {sort}\n");
        };
        type Number = fn(&QueueMetrics) -> u64;
        let numbers: [(&str, &str, &str, Number); 3] = [
            ("workqueue_adds_total", "counter", "Keys added.", |queue| queue.adds.load(Relaxed)),
            ("workqueue_depth", "gauge", "Keys that wait.", |queue| queue.depth.load(Relaxed)),
            ("workqueue_retries_total", "counter", "Keys added again after a failure.", |queue| {
                queue.retries.load(Relaxed)
            }),
        ];
        for (name, sort, help, value) in numbers {
            head(&mut out, name, sort, help);
            for queue in &queues {
                let _ = writeln!(out, "{name}{{name=\"{}\"}} {}", queue.name, value(queue));
            }
        }
        type Times = fn(&QueueMetrics) -> &Histogram;
        let times: [(&str, &str, Times); 2] = [
            ("workqueue_queue_duration_seconds", "How long keys waited.", |queue| &queue.queued),
            ("workqueue_work_duration_seconds", "How long the work on keys took.", |queue| &queue.worked),
        ];
        for (name, help, histogram) in times {
            head(&mut out, name, "histogram", help);
            for queue in &queues {
                histogram(queue).write(name, &queue.name, &mut out);
            }
        }
        let (unfinished, longest) =
            ("workqueue_unfinished_work_seconds", "workqueue_longest_running_processor_seconds");
        let ages = |queue: &QueueMetrics| -> Vec<f64> {
            queue.busy.lock().values().map(|begun| (now - *begun).as_secs_f64()).collect()
        };
        head(&mut out, unfinished, "gauge", "For how long work has been under way, in all.");
        for queue in &queues {
            let _ = writeln!(
                out,
                "{unfinished}{{name=\"{}\"}} {}",
                queue.name,
                ages(queue).iter().fold(0.0, |sum, age| sum + age)
            );
        }
        head(&mut out, longest, "gauge", "For how long the longest work has been under way.");
        for queue in &queues {
            let most = ages(queue).into_iter().fold(0.0, f64::max);
            let _ = writeln!(out, "{longest}{{name=\"{}\"}} {most}", queue.name);
        }
        head(&mut out, "leader_election_master_status", "gauge", "Whether this instance leads.");
        let leading = u8::from(self.leading.load(Relaxed));
        let _ = writeln!(out, "leader_election_master_status{{name=\"{lease}\"}} {leading}");
        out
    }
}

/// client-go's name for the queue of a controller.
pub(crate) fn queue_name(controller: &str) -> String {
    match controller {
        "replicationcontroller-controller" => "replicationmanager",
        "endpointslice-controller" => "endpoint_slice",
        "endpointslice-mirroring-controller" => "endpoint_slice_mirroring",
        "endpoints-controller" => "endpoint",
        "garbage-collector-controller" => "garbage_collector_attempt_to_delete",
        "resourcequota-controller" => "resourcequota_primary",
        "horizontal-pod-autoscaler-controller" => "horizontalpodautoscaler",
        "ttl-after-finished-controller" => "ttl_jobs_to_delete",
        "taint-eviction-controller" => "noexec_taint_node",
        "root-ca-certificate-publisher-controller" => "root_ca_cert_publisher",
        "clusterrole-aggregation-controller" => "ClusterRoleAggregator",
        "token-cleaner-controller" => "token_cleaner",
        "bootstrap-signer-controller" => "bootstrap_signer_queue",
        "serviceaccount-token-controller" => "serviceaccount_tokens_secret",
        "node-lifecycle-controller" => "node_lifecycle_controller",
        other => return other.strip_suffix("-controller").unwrap_or(other).replace('-', "_"),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn queues_are_counted_under_their_names() {
        let metrics = Metrics::default();
        let queue = metrics.queue(&queue_name("deployment-controller"));
        queue.added(1);
        queue.taken(Duration::from_millis(5), 0);
        let begun = Instant::now();
        let number = queue.begin(begun);
        queue.end(number, begun + Duration::from_secs(2));
        queue.retried();
        metrics.lead(true);
        let text = metrics.text("kube-controller-manager");
        for line in [
            "workqueue_adds_total{name=\"deployment\"} 1",
            "workqueue_depth{name=\"deployment\"} 0",
            "workqueue_retries_total{name=\"deployment\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"deployment\",le=\"0.001\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"deployment\",le=\"0.01\"} 1",
            "workqueue_work_duration_seconds_sum{name=\"deployment\"} 2",
            "workqueue_unfinished_work_seconds{name=\"deployment\"} 0",
            "leader_election_master_status{name=\"kube-controller-manager\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is missing:\n{text}");
        }
        // A queue keeps its counts over a second term.
        assert!(Arc::ptr_eq(&queue, &metrics.queue("deployment")));
    }
}
