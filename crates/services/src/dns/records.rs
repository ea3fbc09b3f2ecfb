//! One service's DNS records as ready-made bytes.
//!
//! Every record's owner is a two-byte pointer to the question, so an answer is a copy; whoever appends records under
//! another name replaces those two bytes.

use super::wire::{self, QUESTION_POINTER, TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_SRV};
use crate::rules::{Family, Protocol};
use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A run of records of one type, or of one section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub count: u16,
    pub bytes: Box<[u8]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub a: Answer,
    pub aaaa: Answer,
}

impl Addresses {
    fn of(addresses: &BTreeSet<IpAddr>, ttl: u32) -> Addresses {
        let run = |family: Family| {
            let mut bytes = Vec::new();
            let mut count = 0;
            for address in addresses.iter().filter(|address| Family::of(address) == family) {
                wire::put_address(&mut bytes, &QUESTION_POINTER, ttl, address);
                count += 1;
            }
            Answer { count, bytes: bytes.into() }
        };
        Addresses { a: run(Family::Ipv4), aaaa: run(Family::Ipv6) }
    }

    pub fn get(&self, qtype: u16) -> Option<&Answer> {
        match qtype {
            TYPE_A => Some(&self.a),
            TYPE_AAAA => Some(&self.aaaa),
            _ => None,
        }
    }
}

/// SRV records with the addresses of their targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Srv {
    pub answer: Answer,
    pub additional: Answer,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub addresses: Addresses,
    /// The target of an ExternalName, in wire form, and its record.
    pub cname: Option<(Vec<u8>, Answer)>,
    /// Endpoints by hostname, or by their dashed address when they have none.
    pub hosts: HashMap<Box<str>, Addresses>,
    /// By `_port._proto`.
    pub srv: HashMap<Box<str>, Srv>,
    /// Address to the wire name that its PTR record gives.
    pub reverse: Vec<(IpAddr, Vec<u8>)>,
}

/// Makes a service's records; `suffix` is `svc.<domain>` in text.
pub fn records(service: &Service, slices: &[&EndpointSlice], suffix: &str, ttl: u32) -> Records {
    let meta = &service.metadata;
    let own = format!("{}.{}.{suffix}", meta.name, meta.namespace);
    let spec = &service.spec;
    if spec.r#type == "ExternalName" {
        return external_name(&spec.external_name, ttl);
    }
    let Some(own_wire) = wire::name(&own) else { return Records::default() };
    let endpoints = Endpoints::of(slices);
    let mut records = Records::default();
    for (host, addresses) in &endpoints.hosts {
        records.hosts.insert(host.as_str().into(), Addresses::of(addresses, ttl));
    }
    if spec.cluster_ip == "None" {
        records.addresses = Addresses::of(&endpoints.addresses(), ttl);
        for (host, addresses) in &endpoints.hosts {
            let Some(name) = wire::name(&format!("{host}.{own}")) else { continue };
            records.reverse.extend(addresses.iter().map(|address| (*address, name.clone())));
        }
        for ((port_name, protocol), targets) in &endpoints.ports {
            let names =
                targets.iter().map(|((host, port), addresses)| (format!("{host}.{own}"), *port, addresses));
            records.srv.insert(srv_key(port_name, *protocol), srv(names, targets.len(), ttl));
        }
        return records;
    }
    let texts =
        if spec.cluster_ips.is_empty() { std::slice::from_ref(&spec.cluster_ip) } else { &spec.cluster_ips };
    let addresses: BTreeSet<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    records.addresses = Addresses::of(&addresses, ttl);
    records.reverse.extend(addresses.iter().map(|address| (*address, own_wire.clone())));
    for port in spec.ports.iter().filter(|port| !port.name.is_empty()) {
        if let (Some(protocol), Ok(number)) = (Protocol::parse(&port.protocol), u16::try_from(port.port)) {
            let names = std::iter::once((own.clone(), number, &addresses));
            records.srv.insert(srv_key(&port.name, protocol), srv(names, 1, ttl));
        }
    }
    records
}

fn external_name(target: &str, ttl: u32) -> Records {
    let mut records = Records::default();
    if let Some(target) = wire::name(target) {
        let mut bytes = Vec::new();
        wire::put_record(&mut bytes, &QUESTION_POINTER, TYPE_CNAME, ttl, &target);
        records.cname = Some((target, Answer { count: 1, bytes: bytes.into() }));
    }
    records
}

fn srv_key(port_name: &str, protocol: Protocol) -> Box<str> {
    format!("_{}._{}", port_name.to_ascii_lowercase(), protocol.lower()).into()
}

fn srv<'a>(
    targets: impl Iterator<Item = (String, u16, &'a BTreeSet<IpAddr>)>,
    count: usize,
    ttl: u32,
) -> Srv {
    // Endpoints are equal: the weights share a hundred.
    let weight = (100 / count.max(1)).max(1) as u16;
    let (mut answer, mut additional) = (Vec::new(), Vec::new());
    let (mut answers, mut additionals) = (0, 0);
    for (target, port, addresses) in targets {
        let Some(name) = wire::name(&target) else { continue };
        let mut data = Vec::with_capacity(6 + name.len());
        data.extend_from_slice(&0u16.to_be_bytes());
        data.extend_from_slice(&weight.to_be_bytes());
        data.extend_from_slice(&port.to_be_bytes());
        data.extend_from_slice(&name);
        wire::put_record(&mut answer, &QUESTION_POINTER, TYPE_SRV, ttl, &data);
        answers += 1;
        for address in addresses {
            wire::put_address(&mut additional, &name, ttl, address);
            additionals += 1;
        }
    }
    Srv {
        answer: Answer { count: answers, bytes: answer.into() },
        additional: Answer { count: additionals, bytes: additional.into() },
    }
}

/// Hosts with the port's number there, and their addresses.
type PortHosts = BTreeMap<(String, u16), BTreeSet<IpAddr>>;

/// The ready endpoints of a service by host, and the hosts by port.
#[derive(Default)]
struct Endpoints {
    hosts: BTreeMap<String, BTreeSet<IpAddr>>,
    ports: BTreeMap<(String, Protocol), PortHosts>,
}

impl Endpoints {
    fn of(slices: &[&EndpointSlice]) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for slice in slices {
            // For services that publish unready addresses the slices say ready.
            for endpoint in
                slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready.unwrap_or(true))
            {
                let Some(Ok(address)) = endpoint.addresses.first().map(|text| text.parse::<IpAddr>()) else {
                    continue;
                };
                let host = match endpoint.hostname.as_deref() {
                    Some(hostname) if !hostname.is_empty() => hostname.to_ascii_lowercase(),
                    _ => dashed(&address),
                };
                endpoints.hosts.entry(host.clone()).or_default().insert(address);
                for port in &slice.ports {
                    let name = port.name.as_deref().unwrap_or("");
                    let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or(""));
                    let number = port.port.and_then(|port| u16::try_from(port).ok());
                    if let (false, Some(protocol), Some(number)) = (name.is_empty(), protocol, number) {
                        let hosts = endpoints.ports.entry((name.to_owned(), protocol)).or_default();
                        hosts.entry((host.clone(), number)).or_default().insert(address);
                    }
                }
            }
        }
        endpoints
    }

    fn addresses(&self) -> BTreeSet<IpAddr> {
        self.hosts.values().flatten().copied().collect()
    }
}

/// An address as a label: its separators become dashes.
fn dashed(address: &IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a dashed label stands for.
pub fn undashed(label: &str) -> Option<IpAddr> {
    if let Ok(address) = label.replace('-', ".").parse::<std::net::Ipv4Addr>() {
        return Some(IpAddr::V4(address));
    }
    label.replace('-', ":").parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
}
