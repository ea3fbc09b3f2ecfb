//! NodeName: a pod that names its node fits there alone.

use super::{Filter, Prepared, Verdict, reject};
use crate::hints::Event;

pub const NAME: &str = "NodeName";

pub const FILTER: Filter = Filter {
    name: NAME,
    prepare: |cycle| if cycle.pod.pod.spec.node_name.is_empty() { Prepared::Skip } else { Prepared::Run },
    check: |cycle, node, reasons| {
        if cycle.pod.pod.spec.node_name == node.name() {
            return Verdict::Fits;
        }
        reject(reasons, "node(s) didn't match the requested node name", Verdict::Unresolvable)
    },
    hint: |event, pod| matches!(event, Event::NodeAdded(node) if node.metadata.name == pod.pod.spec.node_name),
};
