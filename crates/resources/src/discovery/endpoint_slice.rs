//! Endpoint slices: some of the endpoints of a service, of one address family.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::core::addresses;
use crate::core::endpoints::validate_protocol;
use crate::object_meta::{immutable, validate_labels};
use crate::strategy::Strategy;
use api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};
use meta::field::{Errors, Path};
use meta::{Time, validation};

pub struct EndpointSlices;

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const TOPOLOGY_MAX: usize = 16;
const HINTS_MAX: usize = 8;
/// How many ports and addresses a row shows.
const SHOWN: usize = 3;

impl Strategy for EndpointSlices {
    type Object = EndpointSlice;
    const PLURAL: &'static str = "endpointslices";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::string("AddressType"), Column::string("Ports"), Column::string("Endpoints"), AGE];
    const GENERATION: bool = true;

    /// There is no spec: everything but metadata counts, and labels do too.
    fn spec_changed(new: &EndpointSlice, old: &EndpointSlice) -> bool {
        new.address_type != old.address_type
            || new.endpoints != old.endpoints
            || new.ports != old.ports
            || new.metadata.labels != old.metadata.labels
    }

    fn default(slice: &mut EndpointSlice) {
        for port in &mut slice.ports {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate(new: &EndpointSlice, old: Option<&EndpointSlice>, errors: &mut Errors) {
        let kind = Path::new("addressType");
        match new.address_type.as_str() {
            "" => errors.required(&kind, ""),
            "IPv4" | "IPv6" | "FQDN" => {}
            other => errors.not_supported(&kind, other, &["FQDN", "IPv4", "IPv6"]),
        }
        ports(&new.ports, &Path::new("ports"), errors);
        if old.is_none_or(|old| old.endpoints != new.endpoints) {
            endpoints(new, &Path::new("endpoints"), errors);
        }
        if let Some(old) = old {
            immutable(&new.address_type, &old.address_type, &kind, errors);
        }
    }

    fn warnings(new: &EndpointSlice, _old: Option<&EndpointSlice>) -> Vec<String> {
        if new.address_type == "FQDN" {
            vec!["addressType: FQDN endpoints are deprecated".into()]
        } else {
            Vec::new()
        }
    }

    fn row(slice: &EndpointSlice, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&slice.metadata),
            slice.address_type.clone().into(),
            shown_ports(&slice.ports).into(),
            shown_endpoints(&slice.endpoints).into(),
            columns::age(&slice.metadata, now),
        ]
    }
}

fn some(list: Vec<String>, none: &str) -> String {
    let count = list.len();
    if count == 0 {
        return none.into();
    }
    let text = list.into_iter().take(SHOWN).collect::<Vec<_>>().join(",");
    if count > SHOWN { format!("{text} + {} more...", count - SHOWN) } else { text }
}

fn shown_ports(ports: &[EndpointPort]) -> String {
    let shown = ports.iter().map(|port| match (port.port, &port.name) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) if !name.is_empty() => name.clone(),
        (None, _) => "*".into(),
    });
    some(shown.collect(), "<unset>")
}

fn shown_endpoints(endpoints: &[Endpoint]) -> String {
    some(endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect(), "<unset>")
}

fn ports(ports: &[EndpointPort], path: &Path, errors: &mut Errors) {
    if ports.len() > PORTS_MAX {
        return errors.too_many(path, ports.len(), PORTS_MAX);
    }
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errors.invalid_each(&path.child("name"), name, validation::dns1123_label(name));
        }
        if ports[..index].iter().any(|other| other.name == port.name) {
            errors.duplicate(&path.child("name"), name);
        }
        validate_protocol(port.protocol.as_deref().unwrap_or_default(), &path.child("protocol"), errors);
        if let Some(protocol) = &port.app_protocol {
            let faults = validation::qualified_name(protocol);
            errors.invalid_each(&path.child("appProtocol"), protocol, faults);
        }
    }
}

fn endpoints(slice: &EndpointSlice, path: &Path, errors: &mut Errors) {
    let endpoints = &slice.endpoints;
    if endpoints.len() > ENDPOINTS_MAX {
        return errors.too_many(path, endpoints.len(), ENDPOINTS_MAX);
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(index);
        let addresses = path.child("addresses");
        match endpoint.addresses.len() {
            0 => errors.required(&addresses, "must contain at least 1 address"),
            count if count > ADDRESSES_MAX => errors.too_many(&addresses, count, ADDRESSES_MAX),
            _ => {}
        }
        for (index, address) in endpoint.addresses.iter().enumerate() {
            one_address(&slice.address_type, address, &addresses, index, errors);
        }
        if let Some(node) = &endpoint.node_name {
            errors.invalid_each(&path.child("nodeName"), node, validation::dns1123_subdomain(node));
        }
        let topology = path.child("deprecatedTopology");
        if endpoint.deprecated_topology.len() > TOPOLOGY_MAX {
            errors.too_many(&topology, endpoint.deprecated_topology.len(), TOPOLOGY_MAX);
        }
        validate_labels(&endpoint.deprecated_topology, &topology, errors);
        if let Some(name) = &endpoint.hostname {
            errors.invalid_each(&path.child("hostname"), name, validation::dns1123_label(name));
        }
        if let Some(given) = &endpoint.hints {
            hints(given, &path.child("hints"), errors);
        }
    }
}

fn one_address(kind: &str, address: &str, list: &Path, index: usize, errors: &mut Errors) {
    let path = list.index(index);
    if kind == "FQDN" {
        let name = address.strip_suffix('.').unwrap_or(address);
        errors.invalid_each(&path, address, validation::dns1123_subdomain(name));
        if !name.contains('.') {
            errors.invalid(&path, address, "should be a domain with at least two segments separated by dots");
        }
        return;
    }
    if kind != "IPv4" && kind != "IPv6" {
        return;
    }
    let before = errors.len();
    addresses::validate(address, &[], &path, errors);
    if errors.len() > before {
        return;
    }
    if addresses::is_v6(address) != Some(kind == "IPv6") {
        errors.invalid(list, address, format!("must be an {kind} address"));
    }
    addresses::validate_endpoint(address, &path, errors);
}

fn hints(hints: &EndpointHints, path: &Path, errors: &mut Errors) {
    let zones: Vec<&str> = hints.for_zones.iter().map(|zone| zone.name.as_str()).collect();
    let nodes: Vec<&str> = hints.for_nodes.iter().map(|node| node.name.as_str()).collect();
    type Check = fn(&str) -> Vec<String>;
    let lists: [(&[&str], &str, Check); 2] =
        [(&zones, "forZones", validation::label_value), (&nodes, "forNodes", validation::dns1123_subdomain)];
    for (names, field, check) in lists {
        let path = path.child(field);
        if names.len() > HINTS_MAX {
            return errors.too_many(&path, names.len(), HINTS_MAX);
        }
        for (index, name) in names.iter().enumerate() {
            let path = path.index(index).child("name");
            if names[..index].contains(name) {
                errors.duplicate(&path, name);
            }
            errors.invalid_each(&path, name, check(name));
        }
    }
}
