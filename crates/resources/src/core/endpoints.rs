//! Endpoints: the elder of endpoint slices.

use super::addresses;
use super::pod::defaults::fill;
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::Strategy;
use api::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use meta::field::{Errors, Path};
use meta::{Time, validation};

/// Endpoints, in the plural as the API has it.
pub struct EndpointsStrategy;

/// How many endpoints a row shows.
const SHOWN: usize = 3;

impl Strategy for EndpointsStrategy {
    type Object = Endpoints;
    const PLURAL: &'static str = "endpoints";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Endpoints"), AGE];
    const CREATE_ON_UPDATE: bool = true;

    fn default(endpoints: &mut Endpoints) {
        for port in endpoints.subsets.iter_mut().flat_map(|subset| &mut subset.ports) {
            fill(&mut port.protocol, "TCP");
        }
    }

    fn validate(new: &Endpoints, old: Option<&Endpoints>, errors: &mut Errors) {
        if old.is_some_and(|old| old.subsets == new.subsets) {
            return;
        }
        for (index, subset) in new.subsets.iter().enumerate() {
            let path = Path::new("subsets").index(index);
            if subset.addresses.is_empty() && subset.not_ready_addresses.is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for (list, field) in
                [(&subset.addresses, "addresses"), (&subset.not_ready_addresses, "notReadyAddresses")]
            {
                for (index, address) in list.iter().enumerate() {
                    validate_address(address, &path.child(field).index(index), errors);
                }
            }
            for (index, port) in subset.ports.iter().enumerate() {
                let path = path.child("ports").index(index);
                validate_port(port, subset.ports.len() > 1, &path, errors);
            }
        }
    }

    fn row(endpoints: &Endpoints, now: Time) -> Vec<Cell> {
        let metadata = &endpoints.metadata;
        vec![columns::name(metadata), shown(endpoints).into(), columns::age(metadata, now)]
    }

    fn warnings(_new: &Endpoints, old: Option<&Endpoints>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into()]
    }
}

fn shown(endpoints: &Endpoints) -> String {
    if endpoints.subsets.is_empty() {
        return "<none>".into();
    }
    let (mut list, mut count) = (Vec::new(), 0);
    for subset in &endpoints.subsets {
        if subset.ports.is_empty() {
            for address in &subset.addresses {
                count += 1;
                list.push(address.ip.clone());
            }
            continue;
        }
        for port in &subset.ports {
            for address in &subset.addresses {
                count += 1;
                list.push(join_port(&address.ip, port.port));
            }
        }
    }
    list.truncate(SHOWN);
    let text = list.join(",");
    if count > SHOWN { format!("{text} + {} more...", count - SHOWN) } else { text }
}

fn join_port(address: &str, port: i32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn validate_address(address: &EndpointAddress, path: &Path, errors: &mut Errors) {
    addresses::validate(&address.ip, &[], &path.child("ip"), errors);
    if !address.hostname.is_empty() {
        let faults = validation::dns1123_label(&address.hostname);
        errors.invalid_each(&path.child("hostname"), &address.hostname, faults);
    }
    if let Some(node) = &address.node_name {
        errors.invalid_each(&path.child("nodeName"), node, validation::dns1123_subdomain(node));
    }
    addresses::validate_endpoint(&address.ip, &path.child("ip"), errors);
}

fn validate_port(port: &EndpointPort, named: bool, path: &Path, errors: &mut Errors) {
    let name = path.child("name");
    if port.name.is_empty() {
        if named {
            errors.required(&name, "");
        }
    } else {
        errors.invalid_each(&name, &port.name, validation::dns1123_label(&port.name));
    }
    errors.invalid_each(&path.child("port"), port.port, validation::port_number(i64::from(port.port)));
    validate_protocol(&port.protocol, &path.child("protocol"), errors);
    if let Some(protocol) = &port.app_protocol {
        errors.invalid_each(&path.child("appProtocol"), protocol, validation::qualified_name(protocol));
    }
}

pub(crate) fn validate_protocol(protocol: &str, path: &Path, errors: &mut Errors) {
    match protocol {
        "" => errors.required(path, ""),
        "TCP" | "UDP" | "SCTP" => {}
        other => errors.not_supported(path, other, &["SCTP", "TCP", "UDP"]),
    }
}
