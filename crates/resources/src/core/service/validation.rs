//! What a service may be: ports told apart, addresses that fit their families, and fields that fit the type.

use super::{HEADLESS, is_external, is_headless, needs_health_check};
use crate::core::addresses;
use crate::core::endpoints::validate_protocol;
use crate::core::pod::validation::port_number_or_name;
use crate::object_meta::validate_labels;
use api::core::v1::{Service, ServicePort, ServiceSpec};
use meta::field::{Errors, Json, Path};
use meta::validation;
use std::collections::BTreeSet;

const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const AFFINITY_SECONDS_MAX: i32 = 86_400;

pub(super) fn service(new: &Service, old: Option<&Service>, errors: &mut Errors) {
    let path = Path::new("spec");
    if let Some(old) = old {
        changed_cluster_ips(&new.spec, &old.spec, errors);
        changed_families(&new.spec, &old.spec, errors);
        let both = new.spec.r#type == "LoadBalancer" && old.spec.r#type == "LoadBalancer";
        if both && new.spec.load_balancer_class != old.spec.load_balancer_class {
            let class = &new.spec.load_balancer_class;
            errors.invalid(&path.child("loadBalancerClass"), class, "may not change once set");
        }
        let checked = needs_health_check(&new.spec) && needs_health_check(&old.spec);
        if checked && new.spec.health_check_node_port != old.spec.health_check_node_port {
            errors.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
        }
    }
    let annotations = &new.metadata.annotations;
    if let (Some(mode), Some(hints)) = (annotations.get(TOPOLOGY_MODE), annotations.get(HINTS))
        && mode != hints
    {
        let field = Path::new("metadata").child("annotations").key(TOPOLOGY_MODE);
        errors.invalid(&field, mode, format!("must match annotations[{HINTS}] when both are specified"));
    }
    by_type(&new.spec, &path, errors);
    for (index, port) in new.spec.ports.iter().enumerate() {
        service_port(&new.spec.ports, index, port, &path.child("ports").index(index), errors);
    }
    validate_labels(&new.spec.selector, &path.child("selector"), errors);
    affinity(&new.spec, &path, errors);
    cluster_ips(&new.spec, old.map(|old| &old.spec), &path, errors);
    let before = old.map(|old| old.spec.external_ips.clone()).unwrap_or_default();
    for (index, address) in new.spec.external_ips.iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        let count = errors.len();
        addresses::validate(address, &before, &path, errors);
        if errors.len() == count {
            addresses::validate_endpoint(address, &path, errors);
        }
    }
    kind(&new.spec, &path, errors);
    duplicates(&new.spec.ports, &path.child("ports"), errors);
    source_ranges(new, old, &path, errors);
    load_balancer(&new.spec, &path, errors);
    traffic(&new.spec, &path, errors);
}

fn by_type(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    if spec.ports.is_empty() && !is_headless(spec) && spec.r#type != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    match spec.r#type.as_str() {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&path.child("clusterIPs").index(0), HEADLESS, detail);
        }
        "ExternalName" => {
            let forbidden = "may not be set for ExternalName services";
            for (set, field) in [
                (!spec.cluster_ips.is_empty(), "clusterIPs"),
                (!spec.ip_families.is_empty(), "ipFamilies"),
                (spec.ip_family_policy.is_some(), "ipFamilyPolicy"),
            ] {
                if set {
                    errors.forbidden(&path.child(field), forbidden);
                }
            }
            let name = spec.external_name.strip_suffix('.').unwrap_or(&spec.external_name);
            let field = path.child("externalName");
            if name.is_empty() {
                errors.required(&field, "");
            } else {
                errors.invalid_each(&field, name, validation::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn service_port(all: &[ServicePort], index: usize, port: &ServicePort, path: &Path, errors: &mut Errors) {
    let name = path.child("name");
    if port.name.is_empty() {
        if all.len() > 1 {
            errors.required(&name, "");
        }
    } else {
        errors.invalid_each(&name, &port.name, validation::dns1123_label(&port.name));
        if all[..index].iter().any(|other| other.name == port.name) {
            errors.duplicate(&name, &port.name);
        }
    }
    errors.invalid_each(&path.child("port"), port.port, validation::port_number(i64::from(port.port)));
    validate_protocol(&port.protocol, &path.child("protocol"), errors);
    port_number_or_name(&port.target_port, &path.child("targetPort"), errors);
    if let Some(protocol) = &port.app_protocol {
        errors.invalid_each(&path.child("appProtocol"), protocol, validation::qualified_name(protocol));
    }
}

fn duplicates(ports: &[ServicePort], path: &Path, errors: &mut Errors) {
    for (index, port) in ports.iter().enumerate().filter(|(_, port)| port.node_port != 0) {
        let same =
            |other: &ServicePort| (&other.protocol, other.node_port) == (&port.protocol, port.node_port);
        if ports[..index].iter().any(same) {
            errors.duplicate(&path.index(index).child("nodePort"), port.node_port);
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let same = |other: &ServicePort| (&other.protocol, other.port) == (&port.protocol, port.port);
        if ports[..index].iter().any(same) {
            let shown =
                ServicePort { protocol: port.protocol.clone(), port: port.port, ..Default::default() };
            errors.duplicate(&path.index(index), Json(&shown));
        }
    }
}

fn affinity(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let (kind, config) = (path.child("sessionAffinity"), path.child("sessionAffinityConfig"));
    match spec.session_affinity.as_str() {
        "" => errors.required(&kind, ""),
        "None" => {
            if spec.session_affinity_config.is_some() {
                errors.forbidden(&config, "must not be set when session affinity is None");
            }
        }
        "ClientIP" => {
            let given = spec.session_affinity_config.as_ref();
            let Some(given) = given else {
                return errors.required(&config, "when session affinity type is ClientIP");
            };
            let client = config.child("clientIP");
            let Some(client_ip) = &given.client_ip else {
                return errors.required(&client, "when session affinity type is ClientIP");
            };
            let field = client.child("timeoutSeconds");
            match client_ip.timeout_seconds {
                None => errors.required(&field, "when session affinity type is ClientIP"),
                Some(seconds) if seconds <= 0 || seconds > AFFINITY_SECONDS_MAX => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errors.invalid(&field, seconds, detail);
                }
                Some(_) => {}
            }
        }
        other => errors.not_supported(&kind, other, &["ClientIP", "None"]),
    }
}

fn cluster_ips(spec: &ServiceSpec, old: Option<&ServiceSpec>, path: &Path, errors: &mut Errors) {
    if spec.r#type == "ExternalName" {
        return;
    }
    let (field, all) = (path.child("clusterIPs"), &spec.cluster_ips);
    if spec.cluster_ip.is_empty() {
        if !all.is_empty() {
            errors.invalid(&field, Json(all), "must be empty when `clusterIP` is not specified");
        }
    } else if all.is_empty() {
        errors.required(&field, "");
    } else if all[0] != spec.cluster_ip {
        errors.invalid(&field, Json(all), "first value must match `clusterIP`");
    }
    let families = path.child("ipFamilies");
    for (index, family) in spec.ip_families.iter().enumerate() {
        if family != "IPv4" && family != "IPv6" {
            errors.not_supported(&families.index(index), family, &["IPv4", "IPv6"]);
        }
        if spec.ip_families[..index].contains(family) {
            errors.duplicate(&families.index(index), family);
        }
    }
    let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    if let Some(policy) = spec.ip_family_policy.as_ref().filter(|policy| !known.contains(&policy.as_str())) {
        errors.not_supported(&path.child("ipFamilyPolicy"), policy, &known);
    }
    let before = old.map(|old| old.cluster_ips.clone()).unwrap_or_default();
    let count = errors.len();
    for (index, address) in all.iter().enumerate() {
        if index == 0 && address == HEADLESS {
            if all.len() > 1 {
                errors.invalid(&field, Json(all), "'None' must be the first and only value");
            }
            continue;
        }
        addresses::validate(address, &before, &field.index(index), errors);
    }
    let broken = errors.len() > count;
    if all.len() > 2 {
        errors.invalid(&field, Json(all), "may only hold up to 2 values");
    }
    if broken {
        return;
    }
    let kinds: BTreeSet<bool> = all.iter().filter_map(|address| addresses::is_v6(address)).collect();
    if all.len() > 1 && kinds.len() < 2 {
        errors.invalid(&field, Json(all), "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (index, (address, family)) in all.iter().zip(&spec.ip_families).enumerate() {
        let fits = addresses::is_v6(address).is_none_or(|v6| v6 == (family == "IPv6"));
        if !fits {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(&field.index(index), address, detail);
        }
    }
}

const ONCE: &str = "may not change once set";

/// Headless and external names come and go; other addresses stay, but for the second one.
fn changed_cluster_ips(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    if new.r#type == "ExternalName" || old.r#type == "ExternalName" || (is_headless(new) && is_headless(old))
    {
        return;
    }
    let field = Path::new("spec").child("clusterIPs");
    let (is, was) = (&new.cluster_ips, &old.cluster_ips);
    if is.len() == was.len() {
        for (index, _) in is.iter().zip(was).enumerate().filter(|(_, (is, was))| is != was) {
            errors.invalid(&field.index(index), Json(is), ONCE);
        }
        return;
    }
    if is.len() < was.len() && is.is_empty() {
        errors.invalid(&field.index(0), Json(is), "primary clusterIP can not be unset");
    }
    if let (Some(first), Some(before)) = (is.first(), was.first())
        && first != before
    {
        errors.invalid(&field.index(0), Json(is), ONCE);
    }
    released(
        is.len(),
        was.len(),
        new,
        "must be set to 'SingleStack' when releasing the secondary clusterIP",
        errors,
    );
}

fn released(is: usize, was: usize, new: &ServiceSpec, detail: &str, errors: &mut Errors) {
    if is == 1 && was > 1 && new.ip_family_policy.as_deref() != Some("SingleStack") {
        errors.invalid(&Path::new("spec").child("ipFamilyPolicy"), &new.ip_family_policy, detail);
    }
}

fn changed_families(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    let external = new.r#type == "ExternalName" || old.r#type == "ExternalName";
    if external || is_headless(new) || is_headless(old) {
        return;
    }
    let field = Path::new("spec").child("ipFamilies").index(0);
    let (is, was) = (&new.ip_families, &old.ip_families);
    if is.len() == was.len() {
        for _ in is.iter().zip(was).filter(|(is, was)| is != was) {
            errors.invalid(&field, Json(is), ONCE);
        }
        return;
    }
    if is.len() < was.len() && new.cluster_ips.is_empty() {
        errors.invalid(&field, Json(is), "primary ipFamily can not be unset");
    }
    if let (Some(first), Some(before)) = (is.first(), was.first())
        && first != before
    {
        errors.invalid(&field, Json(&new.cluster_ips), ONCE);
    }
    released(
        is.len(),
        was.len(),
        new,
        "must be set to 'SingleStack' when releasing the secondary ipFamily",
        errors,
    );
}

fn kind(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let field = path.child("type");
    match spec.r#type.as_str() {
        "" => errors.required(&field, ""),
        "ClusterIP" => {
            for (index, _) in spec.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0) {
                let field = path.child("ports").index(index).child("nodePort");
                errors.forbidden(&field, "may not be used when `type` is 'ClusterIP'");
            }
        }
        "ExternalName" | "LoadBalancer" | "NodePort" => {}
        other => {
            errors.not_supported(&field, other, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])
        }
    }
}

fn source_ranges(new: &Service, old: Option<&Service>, path: &Path, errors: &mut Errors) {
    let ranges = &new.spec.load_balancer_source_ranges;
    let balancer = new.spec.r#type == "LoadBalancer";
    if !ranges.is_empty() {
        // Upstream's path starts with a capital here.
        let field = path.child("LoadBalancerSourceRanges");
        if !balancer {
            errors.forbidden(&field, BALANCER_ONLY);
        }
        let before: Vec<String> = old
            .map(|old| old.spec.load_balancer_source_ranges.iter().map(|range| range.trim().into()).collect())
            .unwrap_or_default();
        for (index, range) in ranges.iter().enumerate() {
            addresses::validate_network(range.trim(), &before, &field.index(index), errors);
        }
        return;
    }
    let Some(text) = new.metadata.annotations.get(RANGES) else { return };
    let field = Path::new("metadata").child("annotations").key(RANGES);
    if !balancer {
        errors.forbidden(&field, BALANCER_ONLY);
    }
    let unchanged = old.is_some_and(|old| old.metadata.annotations.get(RANGES) == Some(text));
    if !unchanged && !text.trim().is_empty() {
        for range in text.trim().split(',') {
            addresses::validate_network(range.trim(), &[], &field, errors);
        }
    }
}

fn load_balancer(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let balancer = spec.r#type == "LoadBalancer";
    if !balancer && spec.allocate_load_balancer_node_ports.is_some() {
        errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), BALANCER_ONLY);
    }
    if balancer && spec.allocate_load_balancer_node_ports.is_none() {
        errors.required(&Path::new("allocateLoadBalancerNodePorts"), "");
    }
    if let Some(class) = &spec.load_balancer_class {
        let field = path.child("loadBalancerClass");
        if balancer {
            errors.invalid_each(&field, class, validation::qualified_name(class));
        } else {
            errors.forbidden(&field, BALANCER_ONLY);
        }
    }
}

fn traffic(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let (field, policy) = (path.child("externalTrafficPolicy"), spec.external_traffic_policy.as_str());
    match (is_external(spec), policy) {
        (false, "") | (true, "Cluster" | "Local") => {}
        (false, _) => {
            errors.invalid(&field, policy, "may only be set for externally-accessible services");
        }
        (true, "") => errors.required(&field, ""),
        (true, other) => errors.not_supported(&field, other, &["Cluster", "Local"]),
    }
    let (field, port) = (path.child("healthCheckNodePort"), spec.health_check_node_port);
    match (needs_health_check(spec), port) {
        (false, 0) => {}
        (false, _) => errors.invalid(
            &field,
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        (true, 0) => errors.required(&field, ""),
        (true, _) => errors.invalid_each(&field, port, validation::port_number(i64::from(port))),
    }
    let field = path.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        None if matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.required(&field, "");
        }
        None | Some("Cluster" | "Local") => {}
        Some(other) => errors.not_supported(&field, other, &["Cluster", "Local"]),
    }
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(wanted) = spec.traffic_distribution.as_ref().filter(|it| !known.contains(&it.as_str())) {
        errors.not_supported(&path.child("trafficDistribution"), wanted, &known);
    }
}

pub(super) fn load_balancer_status(new: &Service, old: &Service, errors: &mut Errors) {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = &new.status.load_balancer.ingress;
    if new.spec.r#type != "LoadBalancer" {
        if !ingress.is_empty() {
            errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        return;
    }
    let before: Vec<String> =
        old.status.load_balancer.ingress.iter().map(|ingress| ingress.ip.clone()).collect();
    for (index, ingress) in ingress.iter().enumerate() {
        let path = path.index(index);
        if !ingress.ip.is_empty() {
            addresses::validate(&ingress.ip, &before, &path.child("ip"), errors);
        }
        let mode = path.child("ipMode");
        match (ingress.ip_mode.as_deref(), ingress.ip.is_empty()) {
            (None, false) => errors.required(&mode, "must be specified when `ip` is set"),
            (Some(_), true) => errors.forbidden(&mode, "may not be specified when `ip` is not set"),
            (None, true) | (Some("Proxy" | "VIP"), false) => {}
            (Some(other), false) => errors.not_supported(&mode, other, &["Proxy", "VIP"]),
        }
        if !ingress.hostname.is_empty() {
            let field = path.child("hostname");
            errors.invalid_each(&field, &ingress.hostname, validation::dns1123_subdomain(&ingress.hostname));
            if addresses::is_v6(&ingress.hostname).is_some() {
                errors.invalid(&field, &ingress.hostname, "must be a DNS name, not an IP address");
            }
        }
    }
}
