//! Static pods: read from manifests on this node, shown in the API as mirror pods.

use crate::Context;
use api::core::v1::Pod;

/// Upstream's annotations.
pub const SOURCE: &str = "kubernetes.io/config.source";
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod that came from a manifest, not from the API.
pub fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.get(SOURCE).is_some_and(|source| source != "api")
}

/// A pod in the API that only shows a static one.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.contains_key(MIRROR)
}

/// The uid under which the API knows a static pod.
pub fn mirror_uid(ctx: &Context, pod: &Pod) -> Option<String> {
    if !is_static(pod) {
        return None;
    }
    let mirror = ctx.views.view().get::<Pod>(&view::key_of(pod))?;
    Some(mirror.metadata.uid.clone())
}
