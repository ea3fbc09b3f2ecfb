//! Events about pods and their containers.

use crate::Context;
use api::core::v1::Pod;
use client::EventType;

/// Records an event about a pod, or about one of its containers.
pub fn record(ctx: &Context, pod: &Pod, container: Option<&str>, warning: bool, reason: &str, message: &str) {
    let mut about = client::reference(pod);
    if let Some(name) = container {
        about.field_path = pods::spec::field_path(&pod.spec, name);
    }
    let kind = if warning { EventType::Warning } else { EventType::Normal };
    ctx.recorder.event_about(about, kind, reason, message);
}
