//! Whether the node takes a pod that was bound to it: its own rules may have changed since the scheduler looked.

use api::core::v1::{Node, Pod};
use meta::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A refusal: the reason and words of the failed pod's status.
pub type Refusal = (String, String);

/// Decides about `pod`, given the pods that the node has already taken.
pub fn admit(
    node: Option<&Node>,
    allocatable: &BTreeMap<String, Quantity>,
    pod: &Pod,
    taken: &[Arc<Pod>],
) -> Result<(), Refusal> {
    if let Some(os) = pod.spec.os.as_deref().filter(|os| os.name != "linux") {
        let message = format!("Failed to admit pod as the OS field doesn't match node OS: {}", os.name);
        return Err(("PodOSNotSupported".into(), message));
    }
    let chosen = |node: &Node| {
        pod.spec.node_selector.iter().all(|(key, value)| node.metadata.labels.get(key) == Some(value))
    };
    if node.is_some_and(|node| !chosen(node)) {
        let message = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(("NodeAffinity".into(), message.into()));
    }
    ports(pod, taken)?;
    room(allocatable, pod, taken)
}

fn ports(pod: &Pod, taken: &[Arc<Pod>]) -> Result<(), Refusal> {
    let of = |pod: &Pod| -> Vec<(String, String, i32)> {
        let containers = pod
            .spec
            .containers
            .iter()
            .chain(pod.spec.init_containers.iter().filter(|one| pods::spec::is_sidecar(one)));
        containers
            .flat_map(|one| &one.ports)
            .filter(|port| port.host_port > 0)
            .map(|port| (port.host_ip.clone(), port.protocol.clone(), port.host_port))
            .collect()
    };
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    let used: Vec<_> = taken.iter().flat_map(|pod| of(pod)).collect();
    let clash = of(pod).iter().any(|(ip, protocol, port)| {
        used.iter().any(|(other, theirs, number)| {
            number == port && protocol == theirs && (any(ip) || any(other) || ip == other)
        })
    });
    if clash {
        let message = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(("NodePorts".into(), message.into()));
    }
    Ok(())
}

fn room(allocatable: &BTreeMap<String, Quantity>, pod: &Pod, taken: &[Arc<Pod>]) -> Result<(), Refusal> {
    let places = allocatable.get("pods").map_or(i64::MAX, Quantity::value);
    if taken.len() as i64 + 1 > places {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: {}, capacity: {places}",
            taken.len()
        );
        return Err(("OutOfpods".into(), message));
    }
    let asked = pods::resources::pod_requests(&pod.spec);
    for (name, amount) in asked.iter().filter(|(_, amount)| !amount.is_zero()) {
        let used = taken
            .iter()
            .filter_map(|pod| pods::resources::pod_requests(&pod.spec).get(name).copied())
            .fold(Quantity::default(), Quantity::plus);
        let capacity = allocatable.get(name).copied().unwrap_or_default();
        if used.plus(*amount) > capacity {
            let number =
                |amount: &Quantity| if name == "cpu" { amount.milli_value() } else { amount.value() };
            let message = format!(
                "Pod was rejected: Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                number(amount),
                number(&used),
                number(&capacity)
            );
            return Err((format!("OutOf{name}"), message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_node_refuses() {
        let text = br#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"600m"}},"ports":[{"hostPort":80,"containerPort":80}]}]}}"#;
        let pod: Pod = api::codec::from_json(text).unwrap();
        let mut other = pod.clone();
        other.spec.containers[0].ports.clear();
        let node = BTreeMap::from([("cpu".to_string(), Quantity::parse("1").unwrap())]);
        let taken = [Arc::new(pod.clone())];
        assert!(admit(None, &node, &pod, &[]).is_ok());
        assert_eq!(admit(None, &node, &pod, &taken).unwrap_err().0, "NodePorts");
        assert_eq!(
            admit(None, &node, &other, &taken).unwrap_err(),
            ("OutOfcpu".into(), "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000".into())
        );
    }
}
