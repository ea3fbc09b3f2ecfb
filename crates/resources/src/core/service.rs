//! Services: one stable address for many pods. Addresses and node ports are given out elsewhere; here they are kept over updates.

use super::pod::defaults::fill;
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::names;
use crate::strategy::Strategy;
use crate::with_status;
use api::core::v1::{ClientIPConfig, LoadBalancerStatus, Service, ServiceSpec, SessionAffinityConfig};
use meta::field::Errors;
use meta::{IntOrString, Time};
use std::collections::{BTreeMap, BTreeSet};

mod validation;

pub struct Services;

/// The `clusterIP` of a service that wants none.
pub const HEADLESS: &str = "None";
const AFFINITY_SECONDS: i32 = 10_800;

/// Reached from outside of the cluster.
pub(crate) fn is_external(spec: &ServiceSpec) -> bool {
    matches!(spec.r#type.as_str(), "LoadBalancer" | "NodePort")
        || (spec.r#type == "ClusterIP" && !spec.external_ips.is_empty())
}

pub(crate) fn needs_health_check(spec: &ServiceSpec) -> bool {
    spec.r#type == "LoadBalancer" && spec.external_traffic_policy == "Local"
}

fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    spec.r#type != "ExternalName"
}

fn needs_node_port(spec: &ServiceSpec) -> bool {
    spec.r#type == "NodePort"
        || (spec.r#type == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false))
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips.len() == 1 && spec.cluster_ips[0] == HEADLESS
}

impl Strategy for Services {
    type Object = Service;
    const PLURAL: &'static str = "services";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Type"),
        Column::string("Cluster-IP"),
        Column::string("External-IP"),
        Column::string("Port(s)"),
        AGE,
        columns::SELECTOR,
    ];
    const NAME: names::Rule = names::dns_label;
    const CREATE_ON_UPDATE: bool = true;
    const SELECTABLE: &'static [&'static str] =
        &["metadata.namespace", "metadata.name", "spec.clusterIP", "spec.type"];
    with_status!();

    fn default(service: &mut Service) {
        let spec = &mut service.spec;
        default_affinity(spec);
        fill(&mut spec.r#type, "ClusterIP");
        for port in &mut spec.ports {
            fill(&mut port.protocol, "TCP");
            let unset = [IntOrString::Int(0), IntOrString::String(String::new())].contains(&port.target_port);
            if unset {
                port.target_port = IntOrString::Int(port.port);
            }
        }
        if is_external(spec) {
            fill(&mut spec.external_traffic_policy, "Cluster");
        }
        if matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
        }
        if spec.r#type == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
            for ingress in &mut service.status.load_balancer.ingress {
                if !ingress.ip.is_empty() {
                    ingress.ip_mode.get_or_insert_with(|| "VIP".into());
                }
            }
        }
    }

    fn prepare_for_create(service: &mut Service) {
        let spec = &mut service.spec;
        if !spec.cluster_ip.is_empty() && spec.cluster_ips.is_empty() {
            spec.cluster_ips = vec![spec.cluster_ip.clone()];
        }
    }

    fn prepare_for_update(new: &mut Service, old: &Service) {
        keep_allocated(&mut new.spec, &old.spec);
        follow_cluster_ip(&mut new.spec, &old.spec);
        drop_what_the_type_has_not(&mut new.spec, &old.spec);
        if new.spec.r#type != "LoadBalancer" {
            new.status.load_balancer = LoadBalancerStatus::default();
        }
    }

    fn validate(new: &Service, old: Option<&Service>, errors: &mut Errors) {
        validation::service(new, old, errors);
    }
    fn validate_status(new: &Service, old: &Service, errors: &mut Errors) {
        validation::load_balancer_status(new, old, errors);
    }

    fn selectable(service: &Service) -> Vec<(&'static str, String)> {
        vec![("spec.clusterIP", service.spec.cluster_ip.clone()), ("spec.type", service.spec.r#type.clone())]
    }

    fn row(service: &Service, now: Time) -> Vec<Cell> {
        let spec = &service.spec;
        let address = spec.cluster_ips.first().map_or("<none>", String::as_str);
        vec![
            columns::name(&service.metadata),
            spec.r#type.clone().into(),
            address.into(),
            external(service).into(),
            ports(spec).into(),
            columns::age(&service.metadata, now),
            columns::labels(&spec.selector).into(),
        ]
    }
}

fn default_affinity(spec: &mut ServiceSpec) {
    fill(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_str() {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let config = spec.session_affinity_config.as_ref();
            let stated = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            if stated.is_none() {
                let client_ip = ClientIPConfig { timeout_seconds: Some(AFFINITY_SECONDS) };
                spec.session_affinity_config =
                    Some(Box::new(SessionAffinityConfig { client_ip: Some(Box::new(client_ip)) }));
            }
        }
        _ => {}
    }
}

/// What was given out to the service stays with it when an update does not mention it.
fn keep_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if new.cluster_ip.is_empty() {
            new.cluster_ip = old.cluster_ip.clone();
        }
        if new.cluster_ips.is_empty() && new.cluster_ip == old.cluster_ip {
            new.cluster_ips = old.cluster_ips.clone();
        }
        if new.ip_families.is_empty() && new.cluster_ips == old.cluster_ips {
            new.ip_families = old.ip_families.clone();
        }
        if new.ip_family_policy.is_none() && new.cluster_ips == old.cluster_ips {
            new.ip_family_policy = old.ip_family_policy.clone();
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        let ports = |spec: &ServiceSpec| {
            spec.ports.iter().map(|port| port.node_port).filter(|port| *port != 0).collect::<BTreeSet<_>>()
        };
        let mut used: BTreeSet<i32> = ports(old).intersection(&ports(new)).copied().collect();
        let by_name: BTreeMap<&str, i32> =
            old.ports.iter().map(|port| (port.name.as_str(), port.node_port)).collect();
        for port in new.ports.iter_mut().filter(|port| port.node_port == 0) {
            let before = by_name.get(port.name.as_str()).copied().unwrap_or(0);
            if used.insert(before) {
                port.node_port = before;
            }
        }
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Clients that know one address only change that one: the list follows.
fn follow_cluster_ip(new: &mut ServiceSpec, old: &ServiceSpec) {
    if new.cluster_ip == old.cluster_ip || new.cluster_ips != old.cluster_ips {
        return;
    }
    new.cluster_ips = if new.cluster_ip.is_empty() { Vec::new() } else { vec![new.cluster_ip.clone()] };
}

/// A changed type sheds what the old one had been given, unless the user changed that as well.
fn drop_what_the_type_has_not(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if (&new.cluster_ip, &new.cluster_ips) == (&old.cluster_ip, &old.cluster_ips) {
            new.cluster_ip.clear();
            new.cluster_ips.clear();
        }
        if new.ip_families == old.ip_families {
            new.ip_families.clear();
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    let node_ports = |spec: &ServiceSpec| {
        spec.ports.iter().map(|port| (port.name.clone(), port.node_port)).collect::<BTreeSet<_>>()
    };
    if needs_node_port(old) && !needs_node_port(new) && node_ports(old) == node_ports(new) {
        new.ports.iter_mut().for_each(|port| port.node_port = 0);
    }
    let same_check = new.health_check_node_port == old.health_check_node_port;
    if needs_health_check(old) && !needs_health_check(new) && same_check {
        new.health_check_node_port = 0;
    }
    if old.r#type == "LoadBalancer" && new.r#type != "LoadBalancer" {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    let same_policy = new.external_traffic_policy == old.external_traffic_policy;
    if is_external(old) && !is_external(new) && same_policy {
        new.external_traffic_policy.clear();
    }
}

fn external(service: &Service) -> String {
    let spec = &service.spec;
    match spec.r#type.as_str() {
        "ClusterIP" | "NodePort" => columns::or_none(&spec.external_ips.join(",")),
        "LoadBalancer" => {
            let given = &service.status.load_balancer.ingress;
            let given: BTreeSet<&str> = given
                .iter()
                .map(|ingress| if ingress.ip.is_empty() { &ingress.hostname } else { &ingress.ip })
                .filter(|text| !text.is_empty())
                .map(String::as_str)
                .collect();
            let all: Vec<&str> =
                given.into_iter().chain(spec.external_ips.iter().map(String::as_str)).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => spec.external_name.clone(),
        _ => "<unknown>".into(),
    }
}

fn ports(spec: &ServiceSpec) -> String {
    let shown: Vec<String> = spec
        .ports
        .iter()
        .map(|port| {
            if port.node_port > 0 {
                format!("{}:{}/{}", port.port, port.node_port, port.protocol)
            } else {
                format!("{}/{}", port.port, port.protocol)
            }
        })
        .collect();
    columns::or_none(&shown.join(","))
}
