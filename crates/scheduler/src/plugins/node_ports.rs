//! NodePorts: a port of the node is taken once.

use super::{Filter, Prepared, Verdict, reject};
use crate::hints::Event;

pub const NAME: &str = "NodePorts";

pub const FILTER: Filter = Filter {
    name: NAME,
    prepare: |cycle| if cycle.pod.host_ports.is_empty() { Prepared::Skip } else { Prepared::Run },
    check: |cycle, node, reasons| {
        let wanted = &cycle.pod.host_ports;
        if !wanted.iter().any(|port| node.used_ports.iter().any(|used| used.conflicts(port))) {
            return Verdict::Fits;
        }
        reject(reasons, "node(s) didn't have free ports for the requested pod ports", Verdict::Rejected)
    },
    hint: |event, pod| match event {
        Event::NodeAdded(_) => true,
        Event::PodRemoved(gone) => {
            gone.host_ports.iter().any(|freed| pod.host_ports.iter().any(|port| port.conflicts(freed)))
        }
        _ => false,
    },
};
