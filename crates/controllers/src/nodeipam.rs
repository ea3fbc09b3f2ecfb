//! Which range of pod addresses each node has: the lowest free one of the cluster's range.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Note, Plan, Target};
use api::core::v1::Node;
use meta::ObjectKey;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// All nodes are served under one key: two at once could be given the same range.
const KEY: &str = "node-ranges";

pub struct NodeIpam {
    /// The cluster's range: its first address and its prefix length.
    network: u32,
    prefix: u8,
    /// The prefix length of one node's range.
    node_prefix: u8,
}

impl NodeIpam {
    /// `cluster_cidr` as `10.244.0.0/16`.
    pub fn new(cluster_cidr: &str, node_prefix: u8) -> Result<Self, String> {
        let (address, prefix) = parse(cluster_cidr)
            .ok_or_else(|| format!("cluster CIDR {cluster_cidr:?} is not a valid IPv4 range"))?;
        if node_prefix < prefix || node_prefix > 30 {
            return Err(format!(
                "node CIDR mask size {node_prefix} must be between the cluster's {prefix} and 30"
            ));
        }
        Ok(NodeIpam { network: address & mask(prefix), prefix, node_prefix })
    }

    fn range(&self, index: u32) -> String {
        let first = self.network | (index << (32 - u32::from(self.node_prefix)));
        format!("{}/{}", Ipv4Addr::from(first), self.node_prefix)
    }

    /// The place of a range among the cluster's; `None` for one outside of it.
    fn index(&self, range: &str) -> Option<u32> {
        let (address, _) = parse(range)?;
        if address & mask(self.prefix) != self.network {
            return None;
        }
        Some((address & !mask(self.prefix)) >> (32 - u32::from(self.node_prefix)))
    }
}

fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - u32::from(prefix)) }
}

fn parse(range: &str) -> Option<(u32, u8)> {
    let (address, prefix) = range.split_once('/')?;
    let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((u32::from(address.parse::<Ipv4Addr>().ok()?), prefix))
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn component(&self) -> &'static str {
        "cidrAllocator"
    }

    fn account(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::new::<Node>(|_, old, new| {
            let without = new.is_some_and(|node| node.spec.pod_cidr.is_empty());
            let freed = old.is_some() && new.is_none();
            if without || freed { vec![ObjectKey::cluster(KEY)] } else { Vec::new() }
        })]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let nodes: Vec<Arc<Node>> = context.view.list::<Node>().collect();
        let mut taken: BTreeSet<u32> = nodes
            .iter()
            .flat_map(|node| node.spec.pod_cidrs.iter().chain([&node.spec.pod_cidr]))
            .filter_map(|range| self.index(range))
            .collect();
        let count = 1u32 << (self.node_prefix - self.prefix);
        let waiting = nodes
            .iter()
            .filter(|node| node.spec.pod_cidr.is_empty() && node.metadata.deletion_timestamp.is_none());
        let mut next = 0;
        for node in waiting {
            while taken.contains(&next) {
                next += 1;
            }
            if next >= count {
                plan.events.push(Note::normal(
                    node.as_ref(),
                    "CIDRNotAvailable",
                    format!("Node {} status is now: CIDRNotAvailable", node.metadata.name),
                ));
                continue;
            }
            taken.insert(next);
            let range = self.range(next);
            plan.push(Action::Patch {
                target: Target::of(node.as_ref()),
                subresource: "",
                strategic: true,
                body: serde_json::json!({
                    "metadata": {"uid": node.metadata.uid},
                    "spec": {"podCIDR": range, "podCIDRs": [range]},
                }),
            });
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_up_and_are_found_again() {
        let ipam = NodeIpam::new("10.244.0.0/16", 24).expect("it is a range");
        assert_eq!(ipam.range(0), "10.244.0.0/24");
        assert_eq!(ipam.range(255), "10.244.255.0/24");
        assert_eq!(ipam.index("10.244.7.0/24"), Some(7));
        assert_eq!(ipam.index("10.245.7.0/24"), None);
        assert!(NodeIpam::new("10.244.0.0/16", 12).is_err());
        assert!(NodeIpam::new("10.244.0.0", 24).is_err());
    }
}
