//! Endpoints: the older form, one object a service, for those that still read it.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use crate::service::{
    HEADLESS, TRIGGER_TIME, addresses, has_cluster_ip, has_endpoint, hostname, selected, selects,
    services_of_pod, target_port, trigger_time,
};
use api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::sync::Arc;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses of one Endpoints object; those beyond are left out, and an annotation says so.
const CAPACITY: usize = 1000;

pub struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoints-controller"
    }

    fn component(&self) -> &'static str {
        MANAGER
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own::<Service>(), Watch::own::<Endpoints>(), Watch::new::<Pod>(services_of_pod)]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let current = context.view.get::<Endpoints>(context.key);
        let Some(service) = context.view.get::<Service>(context.key) else {
            let ours = |endpoints: &Arc<Endpoints>| {
                endpoints.metadata.labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
            };
            if let Some(left) = current.filter(ours).filter(|left| left.metadata.deletion_timestamp.is_none())
            {
                let target = Target::of(left.as_ref());
                plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
            }
            return plan;
        };
        if !selects(&service) || service.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let pods = selected(context.view, &service);
        let mut subsets = subsets(&service, &pods);
        let truncated = truncate(&mut subsets);
        let next = desired(&service, &pods, current.as_deref(), context.key, subsets, truncated);
        match current {
            None => plan.steps.push(Step::new(Action::Create(Box::new(next))).failed(Note::warning(
                service.as_ref(),
                "FailedToCreateEndpoint",
                format!("Failed to create endpoint for service {}: {{error}}", context.key),
            ))),
            Some(current) => {
                if !same(&current, &next) {
                    plan.steps.push(Step::new(Action::Update(Box::new(next))).failed(Note::warning(
                        service.as_ref(),
                        "FailedToUpdateEndpoint",
                        format!("Failed to update endpoint {}: {{error}}", context.key),
                    )));
                }
            }
        }
        plan
    }
}

/// Whether there is nothing to write: the trigger time alone is no reason.
fn same(current: &Endpoints, next: &Endpoints) -> bool {
    let capacity = |endpoints: &Endpoints| endpoints.metadata.annotations.get(OVER_CAPACITY).cloned();
    current.subsets == next.subsets
        && current.metadata.labels == next.metadata.labels
        && capacity(current) == capacity(next)
}

fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    current: Option<&Endpoints>,
    key: &ObjectKey,
    subsets: Vec<EndpointSubset>,
    truncated: bool,
) -> Endpoints {
    let mut next = current.cloned().unwrap_or_default();
    next.metadata.namespace.clone_from(&key.namespace);
    next.metadata.name.clone_from(&key.name);
    next.subsets = subsets;
    next.metadata.labels.clone_from(&service.metadata.labels);
    next.metadata.labels.remove(HEADLESS);
    if !has_cluster_ip(service) {
        next.metadata.labels.insert(HEADLESS.into(), String::new());
    }
    next.metadata.labels.insert(MANAGED_BY.into(), MANAGER.into());
    let annotations = &mut next.metadata.annotations;
    match trigger_time(service, pods) {
        Some(time) => annotations.insert(TRIGGER_TIME.into(), time.to_string()),
        None => annotations.remove(TRIGGER_TIME),
    };
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    next
}

/// A port in an order that makes equal sets equal.
type PortKey = (String, i32, String, Option<String>);

/// The addresses grouped by the set of ports they serve.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publish = service.spec.publish_not_ready_addresses;
    let v6 = service.spec.ip_families.first().map_or(service.spec.cluster_ip.contains(':'), |f| f == "IPv6");
    let mut groups: BTreeMap<Vec<PortKey>, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| has_endpoint(pod, publish)) {
        let Some(address) = address(service, pod, v6) else { continue };
        let mut ports: Vec<PortKey> = service
            .spec
            .ports
            .iter()
            .filter_map(|port| {
                let number = target_port(pod, port)?;
                Some((port.name.clone(), number, port.protocol.clone(), port.app_protocol.clone()))
            })
            .collect();
        let portless = service.spec.ports.is_empty() && service.spec.cluster_ip == "None";
        if ports.is_empty() && !portless {
            continue;
        }
        ports.sort();
        let subset = groups.entry(ports).or_default();
        if publish || pod::is_ready(pod) {
            subset.addresses.push(address);
        } else {
            subset.not_ready_addresses.push(address);
        }
    }
    groups
        .into_iter()
        .map(|(ports, mut subset)| {
            subset.ports = ports
                .into_iter()
                .map(|(name, port, protocol, app_protocol)| EndpointPort {
                    name,
                    port,
                    protocol,
                    app_protocol,
                })
                .collect();
            let key = |address: &EndpointAddress| {
                (address.ip.clone(), address.target_ref.as_ref().map(|target| target.uid.clone()))
            };
            subset.addresses.sort_by_key(key);
            subset.not_ready_addresses.sort_by_key(key);
            subset
        })
        .collect()
}

fn address(service: &Service, pod: &Pod, v6: bool) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: addresses(pod, v6).into_iter().next()?,
        hostname: hostname(pod, service).unwrap_or_default().into(),
        node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.clone()),
        target_ref: Some(Box::new(ObjectReference {
            kind: "Pod".into(),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        })),
    })
}

/// Leaves out what is over the capacity, unready addresses first; answers whether anything was.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let total: usize =
        subsets.iter().map(|subset| subset.addresses.len() + subset.not_ready_addresses.len()).sum();
    if total <= CAPACITY {
        return false;
    }
    let mut room = CAPACITY;
    for subset in subsets.iter_mut() {
        subset.addresses.truncate(room);
        room -= subset.addresses.len();
    }
    for subset in subsets.iter_mut() {
        subset.not_ready_addresses.truncate(room);
        room -= subset.not_ready_addresses.len();
    }
    true
}
