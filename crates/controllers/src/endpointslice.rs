//! EndpointSlices: a service's endpoints in slices of a hundred, changed as little as possible.

use crate::controller::{Context, Controller, Watch};
use crate::ownership::{controller_of, controller_reference};
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use crate::service::{
    HEADLESS, TRIGGER_TIME, addresses, has_cluster_ip, has_endpoint, hostname, selected, selects,
    services_of_pod, target_port, trigger_time,
};
use api::Typed;
use api::core::v1::{Node, ObjectReference, Pod, Service};
use api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use meta::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

pub struct EndpointSlices {
    /// The most endpoints of one slice.
    pub max_endpoints: usize,
}

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<Service>(),
            Watch::new::<Pod>(services_of_pod),
            Watch::new::<EndpointSlice>(|_, old, new| {
                let Some(slice) = new.or(old).filter(|slice| is_ours(slice)) else { return Vec::new() };
                let name = slice.metadata.labels.get(SERVICE_NAME);
                name.map(|name| ObjectKey::new(slice.metadata.namespace.clone(), name.clone()))
                    .into_iter()
                    .collect()
            }),
            // A node that comes, goes or moves to another zone.
            Watch::new::<Node>(|view, old, new| {
                let zone = |node: Option<&Node>| node.map(|node| node.metadata.labels.get(ZONE).cloned());
                let Some(node) = new.or(old) else { return Vec::new() };
                if zone(old) == zone(new) {
                    return Vec::new();
                }
                let mut keys: Vec<ObjectKey> = view
                    .pods_on_node(&node.metadata.name)
                    .flat_map(|pod| services_of_pod(view, None, Some(&pod)))
                    .collect();
                keys.sort();
                keys.dedup();
                keys
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        // Without its service the garbage collector takes the slices.
        let Some(service) = context.view.get::<Service>(context.key) else { return plan };
        if !selects(&service) || service.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let existing: Vec<Arc<EndpointSlice>> = context
            .view
            .in_namespace::<EndpointSlice>(&service.metadata.namespace)
            .filter(|slice| is_ours(slice) && slice.metadata.deletion_timestamp.is_none())
            .filter(|slice| slice.metadata.labels.get(SERVICE_NAME) == Some(&service.metadata.name))
            .collect();
        let pods = selected(context.view, &service);
        let families = families(&service);
        for family in &families {
            let slices: Vec<&EndpointSlice> =
                existing.iter().map(AsRef::as_ref).filter(|slice| slice.address_type == *family).collect();
            self.pack(context, &service, &pods, &slices, family, &mut plan);
        }
        for slice in existing.iter().filter(|slice| !families.contains(&slice.address_type.as_str())) {
            plan.push(delete(slice));
        }
        plan
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn delete(slice: &EndpointSlice) -> Action {
    Action::Delete { target: Target::of(slice), propagation: None, grace_seconds: None }
}

/// The address types that a service's slices have.
fn families(service: &Service) -> Vec<&'static str> {
    let known = |family: &String| match family.as_str() {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    };
    let families: Vec<&str> = service.spec.ip_families.iter().filter_map(known).collect();
    if !families.is_empty() {
        return families;
    }
    if has_cluster_ip(service) {
        return vec![if service.spec.cluster_ip.contains(':') { "IPv6" } else { "IPv4" }];
    }
    vec!["IPv4", "IPv6"]
}

/// Ports in an order of their own, so that equal sets are equal.
type Ports = Vec<EndpointPort>;
/// What tells one endpoint from another, whatever its conditions.
type Identity = (Vec<String>, String, Option<String>, Option<String>);

fn identity(endpoint: &Endpoint) -> Identity {
    let target = endpoint.target_ref.as_deref().map(|target| target.uid.clone()).unwrap_or_default();
    (endpoint.addresses.clone(), target, endpoint.hostname.clone(), endpoint.node_name.clone())
}

fn sort_key(ports: &Ports) -> String {
    let mut parts: Vec<String> = ports
        .iter()
        .map(|port| format!("{:?}/{:?}/{:?}/{:?}", port.name, port.port, port.protocol, port.app_protocol))
        .collect();
    parts.sort();
    parts.join(",")
}

/// The slices of one set of ports as they are to be: existing ones first, changed or not, then new ones.
struct Packing {
    ports: Ports,
    wanted: BTreeMap<Identity, Endpoint>,
}

impl EndpointSlices {
    fn pack(
        &self,
        context: &Context<'_>,
        service: &Service,
        pods: &[Arc<Pod>],
        slices: &[&EndpointSlice],
        family: &str,
        plan: &mut Plan,
    ) {
        let mut packings = desired(context, service, pods, family);
        let mut kept = 0;
        let mut writes = Vec::new();
        let mut doomed: Vec<&EndpointSlice> = Vec::new();
        for slice in slices {
            let owned = controller_of(&slice.metadata).is_some_and(|owner| owner.uid == service.metadata.uid);
            if !owned || !packings.contains_key(&sort_key(&slice.ports)) {
                doomed.push(slice);
            }
        }
        for (key, packing) in &mut packings {
            let mine: Vec<&EndpointSlice> = slices
                .iter()
                .copied()
                .filter(|slice| sort_key(&slice.ports) == *key)
                .filter(|slice| !doomed.iter().any(|doomed| std::ptr::eq(*doomed, *slice)))
                .collect();
            let outcome = self.fill(service, mine, packing, family);
            kept += outcome.kept;
            writes.extend(outcome.writes);
        }
        // A service without endpoints has one slice all the same: it says that they were looked for.
        if kept == 0 && !writes.iter().any(|write| !matches!(write, Action::Delete { .. })) {
            let placeholder = new_slice(service, family, Vec::new());
            let there = doomed.iter().position(|slice| {
                slice.endpoints.is_empty()
                    && slice.ports.is_empty()
                    && slice.metadata.labels == placeholder.metadata.labels
                    && slice.metadata.owner_references == placeholder.metadata.owner_references
            });
            match there {
                Some(at) => {
                    doomed.remove(at);
                }
                None => writes.push(Action::Create(Box::new(placeholder))),
            }
        }
        // New addresses first, then what is gone: in between nothing is missing.
        writes.sort_by_key(|write| matches!(write, Action::Delete { .. }));
        writes.extend(doomed.into_iter().map(delete));
        let time = trigger_time(service, pods).map(|time| time.to_string());
        for mut write in writes {
            if let (Action::Create(object) | Action::Update(object), Some(time)) = (&mut write, &time) {
                object.metadata_mut().annotations.insert(TRIGGER_TIME.into(), time.clone());
            }
            plan.steps.push(Step::new(write).always().failed(Note::warning(
                service,
                "FailedToUpdateEndpointSlices",
                format!("Error updating Endpoint Slices for Service {}: {{error}}", view::key_of(service)),
            )));
        }
    }

    fn fill(
        &self,
        service: &Service,
        slices: Vec<&EndpointSlice>,
        packing: &mut Packing,
        family: &str,
    ) -> Filled {
        let mut next: Vec<(EndpointSlice, bool)> = Vec::new();
        for slice in slices {
            let mut changed = slice.clone();
            changed.endpoints = slice
                .endpoints
                .iter()
                .filter_map(|endpoint| packing.wanted.remove(&identity(endpoint)))
                .collect();
            changed.metadata.labels = labels(service);
            let touched =
                changed.endpoints != slice.endpoints || changed.metadata.labels != slice.metadata.labels;
            next.push((changed, touched));
        }
        let mut left: Vec<Endpoint> = std::mem::take(&mut packing.wanted).into_values().collect();
        // Slices that are written anyway take what they can, the fullest first.
        let mut order: Vec<usize> = (0..next.len()).filter(|at| next[*at].1).collect();
        order.sort_by_key(|at| std::cmp::Reverse(next[*at].0.endpoints.len()));
        for at in order {
            let slice = &mut next[at].0;
            if slice.endpoints.is_empty() {
                continue;
            }
            let room = self.max_endpoints.saturating_sub(slice.endpoints.len());
            slice.endpoints.extend(left.drain(..room.min(left.len())));
        }
        // The rest fits into one untouched slice, or goes into new ones.
        let fits = |slice: &EndpointSlice| slice.endpoints.len() + left.len() <= self.max_endpoints;
        if !left.is_empty()
            && let Some((slice, touched)) = next
                .iter_mut()
                .filter(|(slice, touched)| !touched && fits(slice))
                .max_by_key(|(slice, _)| slice.endpoints.len())
        {
            slice.endpoints.append(&mut left);
            *touched = true;
        }
        let mut filled = Filled::default();
        for chunk in left.chunks(self.max_endpoints) {
            let mut slice = new_slice(service, family, packing.ports.clone());
            slice.endpoints = chunk.to_vec();
            filled.writes.push(Action::Create(Box::new(slice)));
        }
        for (slice, touched) in next {
            if slice.endpoints.is_empty() {
                filled.writes.push(delete(&slice));
            } else if touched {
                filled.kept += 1;
                filled.writes.push(Action::Update(Box::new(slice)));
            } else {
                filled.kept += 1;
            }
        }
        filled
    }
}

#[derive(Default)]
struct Filled {
    kept: usize,
    writes: Vec<Action>,
}

fn desired(
    context: &Context<'_>,
    service: &Service,
    pods: &[Arc<Pod>],
    family: &str,
) -> BTreeMap<String, Packing> {
    let mut packings: BTreeMap<String, Packing> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| has_endpoint(pod, true)) {
        let node = context.view.get::<Node>(&ObjectKey::cluster(pod.spec.node_name.clone()));
        if node.is_none() && !pod.spec.node_name.is_empty() && !service.spec.publish_not_ready_addresses {
            continue;
        }
        let addresses = addresses(pod, family == "IPv6");
        if addresses.is_empty() {
            continue;
        }
        let ports = ports(service, pod);
        let packing =
            packings.entry(sort_key(&ports)).or_insert_with(|| Packing { ports, wanted: BTreeMap::new() });
        let endpoint = endpoint(pod, node.as_deref(), service, addresses);
        packing.wanted.insert(identity(&endpoint), endpoint);
    }
    packings
}

fn ports(service: &Service, pod: &Pod) -> Ports {
    service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone()),
                protocol: Some(port.protocol.clone()),
                port: Some(target_port(pod, port)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn endpoint(pod: &Pod, node: Option<&Node>, service: &Service, addresses: Vec<String>) -> Endpoint {
    let serving = pod::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Endpoint {
        addresses,
        conditions: EndpointConditions {
            ready: Some(service.spec.publish_not_ready_addresses || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        },
        hostname: hostname(pod, service).map(String::from),
        target_ref: Some(Box::new(ObjectReference {
            kind: "Pod".into(),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        })),
        node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.clone()),
        zone: node.and_then(|node| node.metadata.labels.get(ZONE)).filter(|zone| !zone.is_empty()).cloned(),
        ..Endpoint::default()
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let reserved: BTreeSet<&str> = [SERVICE_NAME, MANAGED_BY, HEADLESS].into();
    let mut labels: BTreeMap<String, String> = service
        .metadata
        .labels
        .iter()
        .filter(|(name, _)| !reserved.contains(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !has_cluster_ip(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn new_slice(service: &Service, family: &str, ports: Ports) -> EndpointSlice {
    let mut slice = EndpointSlice { address_type: family.into(), ports, ..EndpointSlice::default() };
    slice.metadata.namespace.clone_from(&service.metadata.namespace);
    slice.metadata.generate_name = format!("{}-", service.metadata.name);
    slice.metadata.labels = labels(service);
    slice.metadata.owner_references.push(controller_reference(Service::gvk(), &service.metadata));
    slice
}
