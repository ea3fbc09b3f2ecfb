//! NodeUnschedulable: a cordoned node takes only pods that tolerate it.

use super::{Filter, Prepared, Verdict, reject};
use crate::hints::Event;
use crate::selectors;
use api::core::v1::{Node, Taint, Toleration};

pub const NAME: &str = "NodeUnschedulable";
const TAINT: &str = "node.kubernetes.io/unschedulable";

pub const FILTER: Filter = Filter {
    name: NAME,
    prepare: |_| Prepared::Run,
    check: |cycle, node, reasons| {
        if admits(&node.node, &cycle.pod.pod.spec.tolerations) {
            return Verdict::Fits;
        }
        reject(reasons, "node(s) were unschedulable", Verdict::Unresolvable)
    },
    hint: |event, pod| {
        let tolerations = &pod.pod.spec.tolerations;
        match event {
            Event::NodeAdded(new) => admits(new, tolerations),
            Event::NodeChanged { old, new } => !admits(old, tolerations) && admits(new, tolerations),
            Event::SelfChanged { .. } => true,
            _ => false,
        }
    },
};

fn admits(node: &Node, tolerations: &[Toleration]) -> bool {
    !node.spec.unschedulable || {
        let taint = Taint { key: TAINT.into(), effect: "NoSchedule".into(), ..Default::default() };
        selectors::tolerated(&taint, tolerations)
    }
}
