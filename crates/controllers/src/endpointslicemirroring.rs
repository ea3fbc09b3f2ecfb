//! EndpointSlices of Endpoints that were made by hand: consumers of slices see those services too.

use crate::controller::{Context, Controller, Watch};
use crate::ownership::controller_reference;
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::service::{TRIGGER_TIME, selects};
use api::Typed;
use api::core::v1::{EndpointAddress, Endpoints, Service};
use api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub struct EndpointSliceMirroring {
    /// The most addresses that are mirrored of one set of ports.
    pub max_endpoints: usize,
}

fn mirrored_key(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = &slice.metadata.labels;
    labels.get(MANAGED_BY).filter(|manager| *manager == MANAGER)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone(), labels.get(SERVICE_NAME)?.clone()))
}

impl Controller for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn account(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<Endpoints>(),
            Watch::own::<Service>(),
            Watch::new::<EndpointSlice>(|_, old, new| {
                new.or(old).and_then(mirrored_key).into_iter().collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let existing: Vec<Arc<EndpointSlice>> = context
            .view
            .in_namespace::<EndpointSlice>(&context.key.namespace)
            .filter(|slice| mirrored_key(slice).as_ref() == Some(context.key))
            .filter(|slice| slice.metadata.deletion_timestamp.is_none())
            .collect();
        let service = context.view.get::<Service>(context.key).filter(|service| !selects(service));
        let endpoints = context.view.get::<Endpoints>(context.key).filter(|endpoints| {
            let metadata = &endpoints.metadata;
            metadata.labels.get(SKIP).is_none_or(|skip| skip != "true")
                && !metadata.annotations.contains_key(LEADER)
        });
        match endpoints.filter(|_| service.is_some()) {
            Some(endpoints) => self.mirror(&endpoints, &existing, &mut plan),
            None => plan.steps.extend(existing.iter().map(|slice| Step::new(delete(slice)))),
        }
        plan
    }
}

fn delete(slice: &EndpointSlice) -> Action {
    Action::Delete { target: Target::of(slice), propagation: None, grace_seconds: None }
}

/// One address type with its ports, as text that tells it from others.
type Group = (&'static str, String);

/// One address of all subsets.
struct Known {
    address: EndpointAddress,
    /// Each with whether it is ready there.
    ports: BTreeMap<String, (EndpointPort, bool)>,
    ready: bool,
}

#[derive(Default)]
struct Wanted {
    groups: BTreeMap<Group, (Vec<EndpointPort>, Vec<Endpoint>)>,
    invalid: usize,
    too_many: usize,
}

fn ports_key(ports: &[EndpointPort]) -> String {
    let mut parts: Vec<String> = ports
        .iter()
        .map(|port| format!("{:?}/{:?}/{:?}/{:?}", port.name, port.port, port.protocol, port.app_protocol))
        .collect();
    parts.sort();
    parts.join(",")
}

impl EndpointSliceMirroring {
    /// The endpoints there are to be. An address that is ready in one subset and not in another is not.
    fn wanted(&self, endpoints: &Endpoints) -> Wanted {
        let mut by_address: BTreeMap<String, Known> = BTreeMap::new();
        for subset in &endpoints.subsets {
            let ready = subset.addresses.iter().map(|address| (address, true));
            for (address, ready) in
                ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false)))
            {
                let uid = address.target_ref.as_deref().map(|target| target.uid.as_str()).unwrap_or_default();
                let entry =
                    by_address.entry(format!("{} {} {uid}", address.ip, address.hostname)).or_insert_with(
                        || Known { address: address.clone(), ports: BTreeMap::new(), ready: true },
                    );
                entry.ready &= ready;
                for port in &subset.ports {
                    let port = EndpointPort {
                        name: Some(port.name.clone()),
                        port: Some(port.port),
                        protocol: Some(port.protocol.clone()),
                        app_protocol: port.app_protocol.clone(),
                    };
                    let known =
                        entry.ports.entry(ports_key(std::slice::from_ref(&port))).or_insert((port, true));
                    known.1 &= ready;
                }
            }
        }
        let mut wanted = Wanted::default();
        for Known { address, ports, ready } in by_address.into_values() {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                wanted.invalid += 1;
                continue;
            };
            // Without ports there is one endpoint all the same.
            if ports.is_empty() {
                self.put(&mut wanted, &address, ip, Vec::new(), ready);
            }
            for state in [true, false] {
                let list: Vec<EndpointPort> = ports
                    .values()
                    .filter(|(_, ready)| *ready == state)
                    .map(|(port, _)| port.clone())
                    .collect();
                if !list.is_empty() {
                    self.put(&mut wanted, &address, ip, list, state);
                }
            }
        }
        wanted
    }

    fn put(
        &self,
        wanted: &mut Wanted,
        address: &EndpointAddress,
        ip: IpAddr,
        ports: Vec<EndpointPort>,
        ready: bool,
    ) {
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let group = wanted.groups.entry((family, ports_key(&ports))).or_insert_with(|| (ports, Vec::new()));
        if group.1.len() >= self.max_endpoints {
            wanted.too_many += 1;
            return;
        }
        group.1.push(Endpoint {
            addresses: vec![ip.to_string()],
            conditions: EndpointConditions { ready: Some(ready), ..EndpointConditions::default() },
            hostname: (!address.hostname.is_empty()).then(|| address.hostname.clone()),
            node_name: address.node_name.clone(),
            target_ref: address.target_ref.clone(),
            ..Endpoint::default()
        });
    }

    fn mirror(&self, endpoints: &Endpoints, existing: &[Arc<EndpointSlice>], plan: &mut Plan) {
        let wanted = self.wanted(endpoints);
        if wanted.invalid > 0 {
            let text =
                format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", wanted.invalid);
            plan.events.push(Note::warning(endpoints, "InvalidIPAddress", text));
        }
        if wanted.too_many > 0 {
            let text = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                self.max_endpoints, wanted.too_many
            );
            plan.events.push(Note::warning(endpoints, "TooManyAddressesToMirror", text));
        }
        let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
        for ((family, key), (ports, list)) in wanted.groups {
            let mut next = new_slice(endpoints, family, ports, list);
            let mine =
                left.iter().position(|slice| slice.address_type == family && ports_key(&slice.ports) == key);
            let Some(slice) = mine.map(|at| left.remove(at)) else {
                plan.push(Action::Create(Box::new(next)));
                continue;
            };
            next.metadata.name.clone_from(&slice.metadata.name);
            next.metadata.generate_name.clone_from(&slice.metadata.generate_name);
            next.metadata.resource_version.clone_from(&slice.metadata.resource_version);
            next.metadata.uid.clone_from(&slice.metadata.uid);
            let same = same_endpoints(&slice.endpoints, &next.endpoints)
                && slice.metadata.labels == next.metadata.labels
                && slice.metadata.annotations == next.metadata.annotations;
            if !same {
                plan.push(Action::Update(Box::new(next)));
            }
        }
        plan.steps.extend(left.into_iter().map(|slice| Step::new(delete(slice))));
    }
}

/// Equal in whatever order.
fn same_endpoints(a: &[Endpoint], b: &[Endpoint]) -> bool {
    a.len() == b.len() && a.iter().all(|endpoint| b.contains(endpoint))
}

fn new_slice(
    endpoints: &Endpoints,
    family: &str,
    ports: Vec<EndpointPort>,
    list: Vec<Endpoint>,
) -> EndpointSlice {
    let metadata = &endpoints.metadata;
    let mut slice =
        EndpointSlice { address_type: family.into(), ports, endpoints: list, ..EndpointSlice::default() };
    slice.metadata.namespace.clone_from(&metadata.namespace);
    slice.metadata.generate_name = format!("{}-", metadata.name);
    slice.metadata.labels.clone_from(&metadata.labels);
    slice.metadata.labels.insert(SERVICE_NAME.into(), metadata.name.clone());
    slice.metadata.labels.insert(MANAGED_BY.into(), MANAGER.into());
    slice.metadata.annotations.clone_from(&metadata.annotations);
    slice.metadata.annotations.retain(|name, _| name != TRIGGER_TIME && name != LAST_APPLIED);
    slice.metadata.owner_references.push(controller_reference(Endpoints::gvk(), metadata));
    slice
}
