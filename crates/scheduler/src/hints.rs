//! Which events are worth another try for a pod that found no node.

use crate::plugins::FILTERS;
use crate::pod::PodInfo;
use api::core::v1::{Node, PersistentVolumeClaim};

/// Something changed in the cluster.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    NodeAdded(&'a Node),
    NodeChanged {
        old: &'a Node,
        new: &'a Node,
    },
    NodeRemoved(&'a Node),
    /// Another pod came to a node.
    PodPlaced(&'a PodInfo),
    PodChanged {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    /// Another pod left its node.
    PodRemoved(&'a PodInfo),
    /// The waiting pod itself.
    SelfChanged {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    ClaimChanged(&'a PersistentVolumeClaim),
    VolumeChanged,
    ClassChanged,
}

/// Whether an event may have changed what some plugin said of a pod. `rejected_by`: the plugins that rejected it;
/// none means that the reason is not known, and anything may help.
pub fn may_help(event: &Event<'_>, pod: &PodInfo, rejected_by: &[&'static str]) -> bool {
    if rejected_by.is_empty() {
        return true;
    }
    FILTERS.iter().any(|filter| rejected_by.contains(&filter.name) && (filter.hint)(event, pod))
}
