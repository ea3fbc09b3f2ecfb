//! Which endpoints of a service a node may use: readiness, termination, locality and topology hints.

use crate::rules::{Family, Protocol};
use api::discovery::v1 as discovery;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// The label by which a slice names its service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The namespace and service that a slice belongs to.
pub fn service_of(slice: &discovery::EndpointSlice) -> Option<(&str, &str)> {
    let name = slice.metadata.labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty())?;
    Some((&slice.metadata.namespace, name))
}

/// One endpoint of one service port, as a slice states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub local: bool,
    pub zone_hints: Vec<String>,
    pub node_hints: Vec<String>,
}

impl Endpoint {
    fn read(endpoint: &discovery::Endpoint, node_name: &str) -> Endpoint {
        let conditions = &endpoint.conditions;
        let hints = endpoint.hints.as_deref();
        Endpoint {
            // The API says to read unknown readiness as ready.
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
            local: !node_name.is_empty() && endpoint.node_name.as_deref() == Some(node_name),
            zone_hints: hints
                .map_or(Vec::new(), |hints| hints.for_zones.iter().map(|zone| zone.name.clone()).collect()),
            node_hints: hints
                .map_or(Vec::new(), |hints| hints.for_nodes.iter().map(|node| node.name.clone()).collect()),
        }
    }

    fn draining(&self) -> bool {
        self.serving && self.terminating
    }
}

/// The endpoints of one service port by address, from all slices of its family.
pub(crate) fn of_port(
    slices: &[&discovery::EndpointSlice],
    family: Family,
    port_name: &str,
    protocol: Protocol,
    node_name: &str,
) -> BTreeMap<SocketAddr, Endpoint> {
    let mut found: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|port| {
            port.name.as_deref().unwrap_or("") == port_name
                && Protocol::parse(port.protocol.as_deref().unwrap_or("")) == Some(protocol)
        });
        for port in ports.filter_map(|port| u16::try_from(port.port?).ok().filter(|port| *port != 0)) {
            for endpoint in &slice.endpoints {
                // All addresses of an endpoint are the same endpoint; consumers use the first.
                let Some(Ok(address)) = endpoint.addresses.first().map(|text| text.parse::<IpAddr>()) else {
                    continue;
                };
                if Family::of(&address) != family {
                    continue;
                }
                let entry = Endpoint::read(endpoint, node_name);
                let at = SocketAddr::new(address, port);
                // An address may be reused while its former pod still terminates: the living one counts.
                if !entry.terminating || !found.contains_key(&at) {
                    found.insert(at, entry);
                }
            }
        }
    }
    found
}

/// What a node can use of a service port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Usable {
    pub cluster: Vec<SocketAddr>,
    pub local: Vec<SocketAddr>,
    /// Whether anything anywhere serves the port; decides between reject and drop.
    pub anywhere: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    Any,
    SameNode,
    SameZone,
}

/// Sorts endpoints into pools. Ready ones count; where a pool has none, endpoints that terminate but still serve
/// stand in, separately per pool (KEP-1669).
pub(crate) fn usable(
    endpoints: &BTreeMap<SocketAddr, Endpoint>,
    node_name: &str,
    zone: &str,
    wants_cluster: bool,
    wants_local: bool,
) -> Usable {
    let mut usable = Usable::default();
    let pick = |wanted: &dyn Fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
        endpoints.iter().filter(|(_, endpoint)| wanted(endpoint)).map(|(at, _)| *at).collect()
    };
    if wants_cluster {
        let topology = topology(endpoints, node_name, zone);
        usable.cluster = pick(&|endpoint| endpoint.ready && near(endpoint, topology, node_name, zone));
        if usable.cluster.is_empty() {
            usable.cluster = pick(&|endpoint| endpoint.draining());
        }
        usable.anywhere = !usable.cluster.is_empty();
    }
    if wants_local {
        usable.anywhere = endpoints.values().any(|endpoint| endpoint.ready || endpoint.draining());
        usable.local = pick(&|endpoint| endpoint.local && endpoint.ready);
        if usable.local.is_empty() {
            usable.local = pick(&|endpoint| endpoint.local && endpoint.draining());
        }
    }
    usable
}

/// Hints apply only when every ready endpoint carries them and at least one names this node or zone; otherwise all
/// endpoints serve, so that a half-hinted service is never cut off.
fn topology(endpoints: &BTreeMap<SocketAddr, Endpoint>, node_name: &str, zone: &str) -> Topology {
    let ready = || endpoints.values().filter(|endpoint| endpoint.ready);
    let names = |hints: &[String], own: &str| hints.iter().any(|hint| hint == own);
    if ready().next().is_none() {
        return Topology::Any;
    }
    if ready().all(|endpoint| !endpoint.node_hints.is_empty())
        && ready().any(|endpoint| names(&endpoint.node_hints, node_name))
    {
        return Topology::SameNode;
    }
    if !zone.is_empty()
        && ready().all(|endpoint| !endpoint.zone_hints.is_empty())
        && ready().any(|endpoint| names(&endpoint.zone_hints, zone))
    {
        return Topology::SameZone;
    }
    Topology::Any
}

fn near(endpoint: &Endpoint, topology: Topology, node_name: &str, zone: &str) -> bool {
    match topology {
        Topology::Any => true,
        Topology::SameNode => endpoint.node_hints.iter().any(|hint| hint == node_name),
        Topology::SameZone => endpoint.zone_hints.iter().any(|hint| hint == zone),
    }
}
