//! A simulated node's object and lease, and a pod's status as a patch.

use crate::args::NodesArgs;
use anyhow::Result;
use api::coordination::v1::Lease;
use api::core::v1::{Node, PodStatus};
use meta::MicroTime;
use serde_json::{Value, json};

/// Where leases of nodes are.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node as it registers: ready at once.
pub fn node(args: &NodesArgs, name: &str, number: u32) -> Result<Node> {
    let resources = json!({
        "cpu": args.cpu, "memory": args.memory, "ephemeral-storage": "500Gi", "pods": args.pods.to_string(),
    });
    let value = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("sim-{}", number % args.zones.max(1)),
            "timonel.dev/simulated": "true",
        }},
        "status": {
            "capacity": resources, "allocatable": resources, "conditions": conditions(),
            "addresses": [
                {"type": "InternalIP", "address": address(number)}, {"type": "Hostname", "address": name},
            ],
            "nodeInfo": {
                "machineID": name, "systemUUID": name, "bootID": name, "kernelVersion": "simulated",
                "osImage": "simulated", "containerRuntimeVersion": "simulated://1", "kubeletVersion": "v1.36.0",
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    });
    Ok(api::codec::from_value(&value)?)
}

/// A node's address, in the range that RFC 2544 keeps for benchmarks.
pub fn address(number: u32) -> String {
    let [_, b, c, d] = number.to_be_bytes();
    format!("198.{}.{c}.{d}", 18 + (b & 1))
}

/// A pod's address: each node has 256 of them.
pub fn pod_address(node: u32, pod: u32) -> String {
    let [_, _, high, low] = node.to_be_bytes();
    format!("10.{high}.{low}.{}", pod % 256)
}

/// What a healthy node says of itself, as of now.
pub fn conditions() -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let of = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": "simulated", "lastHeartbeatTime": now,
            "lastTransitionTime": now})
    };
    json!([
        of("Ready", "True", "KubeletReady"),
        of("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        of("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        of("PIDPressure", "False", "KubeletHasSufficientPID"),
    ])
}

/// A patch that renews the conditions' heartbeats and nothing else.
pub fn heartbeat() -> Value {
    let mut conditions = conditions();
    for condition in conditions.as_array_mut().into_iter().flatten() {
        // A transition is when it happened, and none did. A node that was cut off must say again that it is ready.
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastTransitionTime");
        }
    }
    json!({"status": {"conditions": conditions}})
}

/// A lease that this node holds from now on.
pub fn renewed(held: Option<Lease>, name: &str, seconds: i32) -> Lease {
    let mut lease = held.unwrap_or_default();
    lease.metadata.name = name.into();
    lease.metadata.namespace = LEASE_NAMESPACE.into();
    lease.metadata.managed_fields.clear();
    lease.spec.holder_identity = Some(name.into());
    lease.spec.lease_duration_seconds = Some(seconds);
    lease.spec.renew_time = MicroTime::truncated(jiff::Timestamp::now());
    lease
}

/// A pod's status as a kubelet writes it: what it no longer says is taken back by null.
pub fn status_patch(uid: &str, status: &PodStatus) -> Value {
    let mut value = api::codec::to_value(status);
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    for list in ["podIPs", "hostIPs"] {
        if let Some(items) = value.get_mut(list).and_then(Value::as_array_mut) {
            items.insert(0, json!({"$patch": "replace"}));
        }
    }
    json!({"metadata": {"uid": uid}, "status": value})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_whole() {
        let node = node(&NodesArgs::default(), "sim-node-70000", 70_000).unwrap();
        assert_eq!(node.status.conditions.len(), 4);
        assert_eq!(node.status.allocatable["pods"].value(), 110);
        assert_eq!(node.status.addresses[0].address, "198.19.17.112");
        assert_eq!(pod_address(258, 7), "10.1.2.7");
    }
}
