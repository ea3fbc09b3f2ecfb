//! What webhooks cost and refuse, under upstream's names.

use crate::families::{Counters, Histograms};
use std::time::Duration;

const BOUNDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes above are counted as this one, so that a faulty webhook cannot fill the metrics.
const CODE_MAX: u16 = 600;

pub struct WebhookMetrics {
    durations: Histograms,
    requests: Counters,
    rejections: Counters,
    failed_open: Counters,
}

impl Default for WebhookMetrics {
    fn default() -> Self {
        WebhookMetrics {
            durations: Histograms::new(&BOUNDS),
            requests: Counters::default(),
            rejections: Counters::default(),
            failed_open: Counters::default(),
        }
    }
}

impl WebhookMetrics {
    pub fn asked(&self, name: &str, side: &str, operation: &str, code: u16, rejected: bool, took: Duration) {
        let rejected = if rejected { "true" } else { "false" };
        let pairs = [("name", name), ("operation", operation), ("rejected", rejected), ("type", side)];
        self.durations.observe(&pairs, took.as_secs_f64());
        let code = code.min(CODE_MAX).to_string();
        let pairs = [
            ("code", code.as_str()),
            ("name", name),
            ("operation", operation),
            ("rejected", rejected),
            ("type", side),
        ];
        self.requests.one(&pairs);
    }

    pub fn rejected(&self, name: &str, side: &str, operation: &str, error: &str, code: u16) {
        let code = code.min(CODE_MAX).to_string();
        self.rejections.one(&[
            ("error_type", error),
            ("name", name),
            ("operation", operation),
            ("rejection_code", &code),
            ("type", side),
        ]);
    }

    pub fn failed_open(&self, name: &str, side: &str) {
        self.failed_open.one(&[("name", name), ("type", side)]);
    }

    pub fn render(&self, out: &mut String) {
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        self.durations.render(out, name, "Seconds that webhooks took.");
        let name = "apiserver_admission_webhook_fail_open_count";
        self.failed_open.render(out, name, "Webhooks that were gone on without.");
        let name = "apiserver_admission_webhook_rejection_count";
        self.rejections.render(out, name, "Requests that webhooks refused.");
        let name = "apiserver_admission_webhook_request_total";
        self.requests.render(out, name, "Requests that webhooks were asked about.");
    }
}
