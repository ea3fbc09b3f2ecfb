//! From services and their endpoint slices to the rules of one node.

use crate::endpoints::{self, Usable};
use crate::rules::{
    Family, Frontend, HealthCheck, NodeConfig, Pool, PortRules, Protocol, Refusal, Role, Ruleset,
    ServiceRules,
};
use api::core::v1::{Service, ServicePort};
use api::discovery::v1::EndpointSlice;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A service that carries this label is served by another proxy, and ours leaves it alone.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// The API's default for session affinity `ClientIP`.
const AFFINITY_DEFAULT_SECONDS: u32 = 10_800;

/// The rules of all services; slices find their service by namespace and label.
pub fn ruleset<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &NodeConfig,
) -> Ruleset {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(service) = endpoints::service_of(slice) {
            by_service.entry(service).or_default().push(slice);
        }
    }
    let services = services
        .into_iter()
        .filter(|service| proxied(service))
        .map(|service| {
            let meta = &service.metadata;
            let own =
                by_service.get(&(meta.namespace.as_str(), meta.name.as_str())).map_or(&[][..], Vec::as_slice);
            (format!("{}/{}", meta.namespace, meta.name), service_rules(service, own, node))
        })
        .collect();
    Ruleset { services }
}

/// Whether a service has an address for the proxy to serve: not headless, not an external name, not another proxy's.
pub fn proxied(service: &Service) -> bool {
    let spec = &service.spec;
    !spec.cluster_ip.is_empty()
        && spec.cluster_ip != "None"
        && spec.r#type != "ExternalName"
        && !service.metadata.labels.contains_key(PROXY_NAME_LABEL)
}

/// The rules of one service from its own slices; none for a service that is not [`proxied`].
pub fn service_rules(service: &Service, slices: &[&EndpointSlice], node: &NodeConfig) -> ServiceRules {
    let mut rules = ServiceRules::default();
    if !proxied(service) {
        return rules;
    }
    rules.cluster_ips = cluster_ips(service);
    for family in Family::ALL {
        let Some(cluster_ip) =
            rules.cluster_ips.iter().copied().find(|address| Family::of(address) == family)
        else {
            continue;
        };
        let exposure = Exposure::of(service, family, cluster_ip);
        for port in &service.spec.ports {
            if let Some(port_rules) =
                exposure.port_rules(service, port, slices, node, &mut rules.local_addresses)
            {
                rules.ports.push(port_rules);
            }
        }
    }
    rules.health_check = health_check(service, slices, node);
    rules
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = &service.spec;
    let texts =
        if spec.cluster_ips.is_empty() { std::slice::from_ref(&spec.cluster_ip) } else { &spec.cluster_ips };
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// At which addresses of one family a service is offered, and under which policies.
struct Exposure {
    family: Family,
    cluster_ip: IpAddr,
    external_ips: Vec<IpAddr>,
    load_balancer_ips: Vec<IpAddr>,
    sources: Vec<IpNet>,
    internal_local: bool,
    external_local: bool,
    affinity_seconds: Option<u32>,
}

impl Exposure {
    fn of(service: &Service, family: Family, cluster_ip: IpAddr) -> Exposure {
        let spec = &service.spec;
        let own = |address: &IpAddr| Family::of(address) == family;
        let mut sources: Vec<IpNet> = spec
            .load_balancer_source_ranges
            .iter()
            // Validation lets padding pass.
            .filter_map(|text| text.trim().parse::<IpNet>().ok())
            .filter(|net| own(&net.addr()))
            .map(|net| net.trunc())
            .collect();
        if sources.iter().any(|net| net.prefix_len() == 0) {
            sources.clear();
        }
        let external_ips: Vec<IpAddr> =
            spec.external_ips.iter().filter_map(|text| text.parse().ok()).filter(own).collect();
        // An ingress address in mode Proxy is a balancer that ends connections itself: its traffic arrives elsewhere.
        let load_balancer_ips = service
            .status
            .load_balancer
            .ingress
            .iter()
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.parse().ok())
            .filter(own)
            .collect();
        Exposure {
            family,
            cluster_ip,
            external_ips,
            load_balancer_ips,
            sources,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: external_policy_local(service),
            affinity_seconds: affinity_seconds(service),
        }
    }

    fn port_rules(
        &self,
        service: &Service,
        port: &ServicePort,
        slices: &[&EndpointSlice],
        node: &NodeConfig,
        local_addresses: &mut BTreeSet<IpAddr>,
    ) -> Option<PortRules> {
        let protocol = Protocol::parse(&port.protocol)?;
        let number = u16::try_from(port.port).ok().filter(|number| *number != 0)?;
        let node_port = u16::try_from(port.node_port).ok().filter(|number| *number != 0);
        let external =
            node_port.is_some() || !self.external_ips.is_empty() || !self.load_balancer_ips.is_empty();
        let endpoints = endpoints::of_port(slices, self.family, &port.name, protocol, &node.node_name);
        // A Local policy outside still needs the cluster's endpoints: pods and the node itself reach them.
        let usable = endpoints::usable(
            &endpoints,
            &node.node_name,
            &node.zone,
            !self.internal_local || external,
            self.internal_local || (self.external_local && external),
        );
        local_addresses.extend(
            usable
                .cluster
                .iter()
                .chain(&usable.local)
                .filter(|at| endpoints.get(at).is_some_and(|endpoint| endpoint.local))
                .map(|at| at.ip()),
        );
        let meta = &service.metadata;
        let suffix = if port.name.is_empty() { String::new() } else { format!(":{}", port.name) };
        Some(PortRules {
            name: format!("{}/{}{suffix}", meta.namespace, meta.name),
            family: self.family,
            protocol,
            affinity_seconds: self.affinity_seconds,
            frontends: self.frontends(number, node_port, &usable),
            cluster: usable.cluster,
            local: usable.local,
        })
    }

    fn frontends(&self, port: u16, node_port: Option<u16>, usable: &Usable) -> Vec<Frontend> {
        let frontend = |role: Role, address: Option<IpAddr>, port: u16| {
            let local = if role.external() { self.external_local } else { self.internal_local };
            let pool = if local { Pool::Local } else { Pool::Cluster };
            let empty = if local { usable.local.is_empty() } else { usable.cluster.is_empty() };
            let refusal = match (empty, usable.anywhere) {
                (false, _) => None,
                (true, true) => Some(Refusal::Drop),
                (true, false) => Some(Refusal::Reject),
            };
            Frontend {
                role,
                address,
                port,
                pool,
                refusal,
                // Node ports are not subject to source ranges: the API says so of load balancers only.
                sources: if role == Role::LoadBalancer { self.sources.clone() } else { Vec::new() },
            }
        };
        let mut frontends = vec![frontend(Role::ClusterIp, Some(self.cluster_ip), port)];
        frontends.extend(self.external_ips.iter().map(|ip| frontend(Role::ExternalIp, Some(*ip), port)));
        frontends
            .extend(self.load_balancer_ips.iter().map(|ip| frontend(Role::LoadBalancer, Some(*ip), port)));
        frontends.extend(node_port.map(|node_port| frontend(Role::NodePort, None, node_port)));
        frontends
    }
}

fn external_policy_local(service: &Service) -> bool {
    let spec = &service.spec;
    let reachable =
        matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer") || !spec.external_ips.is_empty();
    reachable && spec.external_traffic_policy == "Local"
}

fn affinity_seconds(service: &Service) -> Option<u32> {
    if service.spec.session_affinity != "ClientIP" {
        return None;
    }
    let stated = service
        .spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds != 0);
    Some(stated.unwrap_or(AFFINITY_DEFAULT_SECONDS))
}

fn health_check(service: &Service, slices: &[&EndpointSlice], node: &NodeConfig) -> Option<HealthCheck> {
    if service.spec.r#type != "LoadBalancer" || !external_policy_local(service) {
        return None;
    }
    let port = u16::try_from(service.spec.health_check_node_port).ok().filter(|port| *port != 0)?;
    let mut local = BTreeSet::new();
    for slice in slices {
        for endpoint in &slice.endpoints {
            if endpoint.conditions.ready.unwrap_or(true)
                && endpoint.node_name.as_deref() == Some(&node.node_name)
            {
                local.extend(endpoint.addresses.first());
            }
        }
    }
    let meta = &service.metadata;
    Some(HealthCheck {
        port,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        local_endpoints: local.len(),
    })
}
