//! What `fieldRef` and `resourceFieldRef` give to a container.

use crate::resources;
use api::core::v1::{Container, Pod, ResourceFieldSelector};
use meta::Quantity;
use std::collections::BTreeMap;

/// The value of a field path of a pod; `status` paths read the status given with the pod.
pub fn field(pod: &Pod, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let of = |entries: &BTreeMap<String, String>| entries.get(key).cloned().unwrap_or_default();
        return match map {
            "metadata.annotations" => Ok(of(&meta.annotations)),
            "metadata.labels" => Ok(of(&meta.labels)),
            _ => Err(format!("fieldPath {path:?} does not support subscript")),
        };
    }
    let status = &pod.status;
    Ok(match path {
        "metadata.annotations" => lines(&meta.annotations),
        "metadata.labels" => lines(&meta.labels),
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" => status.host_ip.clone(),
        "status.hostIPs" => join(status.host_ips.iter().map(|one| one.ip.as_str())),
        "status.podIP" => status.pod_ip.clone(),
        "status.podIPs" => join(status.pod_ips.iter().map(|one| one.ip.as_str())),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn join<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// `metadata.labels['key']` as map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// One `key="value"` a line, in the order of keys.
fn lines(map: &BTreeMap<String, String>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", go_quote(value));
    map.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A string as Go's `%q` prints it.
fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A limit or request of a container in units of the divisor, rounded up; a missing limit is what the node has.
pub fn resource(
    selector: &ResourceFieldSelector,
    container: &Container,
    allocatable: &BTreeMap<String, Quantity>,
) -> Result<String, String> {
    let Some((kind, name)) = selector.resource.split_once('.') else {
        return Err(format!("unsupported container resource : {}", selector.resource));
    };
    let node = allocatable.get(name).copied();
    let own = &container.resources;
    let amount = match kind {
        "limits" => own.limits.get(name).copied().or(node),
        "requests" => resources::request(own, name),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    }
    .unwrap_or_default();
    let milli = name == "cpu";
    let divisor = match (selector.divisor.is_zero(), milli) {
        (true, true) => 1000,
        (true, false) => 1,
        (false, true) => selector.divisor.milli_value().max(1),
        (false, false) => selector.divisor.value().max(1),
    };
    let value = if milli { amount.milli_value() } else { amount.value() };
    Ok((i128::from(value) + i128::from(divisor) - 1).div_euclid(i128::from(divisor)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_upstream_writes_them() {
        let mut pod = Pod::default();
        pod.metadata.labels = BTreeMap::from([("a".into(), "x \"y\"".into()), ("b/c".into(), "z".into())]);
        assert_eq!(field(&pod, "metadata.labels").unwrap(), "a=\"x \\\"y\\\"\"\nb/c=\"z\"");
        assert_eq!(field(&pod, "metadata.labels['b/c']").unwrap(), "z");
        assert!(field(&pod, "spec.containers").is_err());
    }

    #[test]
    fn amounts_are_divided_and_rounded_up() {
        let mut container = Container::default();
        container.resources.limits.insert("cpu".into(), Quantity::parse("1500m").unwrap());
        let ask = |resource: &str, divisor: &str| {
            let divisor = Quantity::parse(divisor).unwrap();
            let selector = ResourceFieldSelector { resource: resource.into(), divisor, ..Default::default() };
            resource_text(&selector, &container)
        };
        assert_eq!(ask("limits.cpu", "0"), "2");
        assert_eq!(ask("limits.cpu", "1m"), "1500");
        assert_eq!(ask("limits.memory", "1Mi"), "1024");
    }

    fn resource_text(selector: &ResourceFieldSelector, container: &Container) -> String {
        let node = BTreeMap::from([("memory".to_string(), Quantity::parse("1Gi").unwrap())]);
        resource(selector, container, &node).unwrap()
    }
}
