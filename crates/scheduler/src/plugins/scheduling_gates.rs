//! SchedulingGates: a pod with gates is not looked at until all are lifted.

use api::core::v1::Pod;

pub const NAME: &str = "SchedulingGates";

/// What a gated pod waits for; `None` for a pod without gates.
pub fn waiting_for(pod: &Pod) -> Option<String> {
    let gates: Vec<&str> = pod.spec.scheduling_gates.iter().map(|gate| gate.name.as_str()).collect();
    (!gates.is_empty()).then(|| format!("waiting for scheduling gates: [{}]", gates.join(" ")))
}
