//! Which events are worth another try for a pod that found no node.

use crate::plugins::{
    FILTERS, inter_pod_affinity, node_affinity, node_name, node_ports, node_resources, node_unschedulable,
    node_volume_limits, pod_topology_spread, taint_toleration, volume_binding, volume_restrictions,
    volume_zone,
};
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
    /// A node's drivers take another number of volumes.
    LimitsChanged,
    AttachmentRemoved,
    /// A driver has more or less storage than before.
    CapacityChanged,
}

impl Event<'_> {
    /// The plugins whose rejections this sort of event can undo: a first, cheap look before each pod is asked about.
    pub fn concerns(&self) -> &'static [&'static str] {
        match self {
            Event::NodeAdded(_) | Event::NodeChanged { .. } => &[
                node_unschedulable::NAME,
                node_name::NAME,
                taint_toleration::NAME,
                node_affinity::NAME,
                node_ports::NAME,
                node_resources::NAME,
                volume_restrictions::NAME,
                node_volume_limits::NAME,
                volume_binding::NAME,
                volume_zone::NAME,
                pod_topology_spread::NAME,
                inter_pod_affinity::NAME,
            ],
            Event::NodeRemoved(_) => &[pod_topology_spread::NAME],
            Event::PodPlaced(_) => &[pod_topology_spread::NAME, inter_pod_affinity::NAME],
            Event::PodChanged { .. } => {
                &[node_resources::NAME, pod_topology_spread::NAME, inter_pod_affinity::NAME]
            }
            Event::PodRemoved(_) => &[
                node_ports::NAME,
                node_resources::NAME,
                volume_restrictions::NAME,
                node_volume_limits::NAME,
                pod_topology_spread::NAME,
                inter_pod_affinity::NAME,
            ],
            Event::SelfChanged { .. } => &[
                node_unschedulable::NAME,
                taint_toleration::NAME,
                node_resources::NAME,
                pod_topology_spread::NAME,
                inter_pod_affinity::NAME,
            ],
            Event::ClaimChanged(_) => &[
                volume_restrictions::NAME,
                node_volume_limits::NAME,
                volume_binding::NAME,
                volume_zone::NAME,
            ],
            Event::VolumeChanged => &[node_volume_limits::NAME, volume_binding::NAME, volume_zone::NAME],
            Event::ClassChanged => &[volume_binding::NAME, volume_zone::NAME],
            Event::CapacityChanged => &[volume_binding::NAME],
            Event::LimitsChanged | Event::AttachmentRemoved => &[node_volume_limits::NAME],
        }
    }
}

/// Whether an event may have changed what some plugin said of a pod. `rejected_by`: the plugins that rejected it;
/// none means that the reason is not known, and anything may help.
pub fn may_help(event: &Event<'_>, pod: &PodInfo, rejected_by: &[&'static str]) -> bool {
    if rejected_by.is_empty() {
        return true;
    }
    let concerned = event.concerns();
    FILTERS.iter().any(|filter| {
        rejected_by.contains(&filter.name) && concerned.contains(&filter.name) && (filter.hint)(event, pod)
    })
}
