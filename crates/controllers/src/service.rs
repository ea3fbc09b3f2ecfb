//! What both forms of endpoints have in common: which pods stand behind a service, with which addresses and ports.

use crate::pod;
use api::core::v1::{Pod, Service, ServicePort};
use meta::labels::Selector;
use meta::{IntOrString, ObjectKey, Time};
use std::net::IpAddr;
use std::sync::Arc;
use view::View;

/// The label of endpoints whose service has no address of its own.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// The annotation from which the time from a pod's change to a proxy's rule is measured.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Whether this controller family makes the service's endpoints: not without a selector, nor for a mere alias.
pub(crate) fn selects(service: &Service) -> bool {
    service.spec.r#type != "ExternalName" && !service.spec.selector.is_empty()
}

pub(crate) fn has_cluster_ip(service: &Service) -> bool {
    !service.spec.cluster_ip.is_empty() && service.spec.cluster_ip != "None"
}

/// The pods that a service selects, by name.
pub(crate) fn selected(view: &View, service: &Service) -> Vec<Arc<Pod>> {
    let selector = Selector::from_map(&service.spec.selector);
    view.in_namespace::<Pod>(&service.metadata.namespace)
        .filter(|pod| selector.matches(&pod.metadata.labels))
        .collect()
}

/// The services that a changed pod concerns: those that select it as it was or as it is, where anything that
/// endpoints show has changed.
pub(crate) fn services_of_pod(view: &View, old: Option<&Pod>, new: Option<&Pod>) -> Vec<ObjectKey> {
    if let (Some(old), Some(new)) = (old, new)
        && shown(old) == shown(new)
    {
        return Vec::new();
    }
    let Some(pod) = new.or(old) else { return Vec::new() };
    view.in_namespace::<Service>(&pod.metadata.namespace)
        .filter(|service| {
            let selector = Selector::from_map(&service.spec.selector);
            let matches = |pod: Option<&Pod>| pod.is_some_and(|pod| selector.matches(&pod.metadata.labels));
            selects(service) && (matches(old) || matches(new))
        })
        .map(|service| view::key_of(service.as_ref()))
        .collect()
}

/// Everything of a pod that its endpoints depend on.
fn shown(pod: &Pod) -> impl PartialEq {
    (
        pod.metadata.uid.clone(),
        pod.metadata.labels.clone(),
        pod.metadata.deletion_timestamp.is_some(),
        pod.status.pod_ip.clone(),
        pod.status.pod_ips.clone(),
        pod.spec.node_name.clone(),
        (pod.spec.hostname.clone(), pod.spec.subdomain.clone()),
        pod::is_ready(pod),
        pod::is_finished(pod),
    )
}

/// Whether a pod has an endpoint at all; one that is leaving only where that is asked for.
pub(crate) fn has_endpoint(pod: &Pod, leaving_too: bool) -> bool {
    let addressed = !pod.status.pod_ip.is_empty() || !pod.status.pod_ips.is_empty();
    !pod::is_finished(pod) && addressed && (leaving_too || pod.metadata.deletion_timestamp.is_none())
}

/// The name that the pod has under the service's name, in DNS.
pub(crate) fn hostname<'a>(pod: &'a Pod, service: &Service) -> Option<&'a str> {
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name;
    named.then_some(pod.spec.hostname.as_str())
}

/// The pod's addresses of a family, in their usual form.
pub(crate) fn addresses(pod: &Pod, v6: bool) -> Vec<String> {
    let listed = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    let all: Vec<&str> =
        if pod.status.pod_ips.is_empty() { vec![pod.status.pod_ip.as_str()] } else { listed.collect() };
    all.into_iter()
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .filter(|ip| ip.is_ipv6() == v6)
        .map(|ip| ip.to_string())
        .collect()
}

/// The port of the pod that a service's port leads to; `None` where a named one does not exist there.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        IntOrString::Int(0) => Some(port.port),
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) if name.is_empty() => Some(port.port),
        IntOrString::String(name) => {
            let sidecars = pod
                .spec
                .init_containers
                .iter()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            pod.spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| &container.ports)
                .find(|known| known.name == *name && same_protocol(&known.protocol, &port.protocol))
                .map(|known| known.container_port)
        }
    }
}

fn same_protocol(a: &str, b: &str) -> bool {
    let or_tcp = |text: &'_ str| if text.is_empty() { "TCP".to_string() } else { text.to_string() };
    or_tcp(a) == or_tcp(b)
}

/// When what the endpoints show last changed: the newest readiness among the pods, or the service's beginning.
pub(crate) fn trigger_time(service: &Service, pods: &[Arc<Pod>]) -> Option<Time> {
    let ready = pods.iter().filter_map(|pod| pod::condition(pod, "Ready")?.last_transition_time);
    ready.chain(service.metadata.creation_timestamp).max()
}
