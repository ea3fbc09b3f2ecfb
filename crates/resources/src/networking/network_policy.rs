//! Network policies: which traffic pods take and make.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::core::addresses;
use crate::object_meta::validate_selector;
use crate::strategy::Strategy;
use api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use meta::field::{Errors, Json, Path};
use meta::{IntOrString, Time, validation};

pub struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    type Object = NetworkPolicy;
    const PLURAL: &'static str = "networkpolicies";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Pod-Selector"), AGE];
    const GENERATION: bool = true;

    fn spec_changed(new: &NetworkPolicy, old: &NetworkPolicy) -> bool {
        new.spec != old.spec
    }

    fn default(policy: &mut NetworkPolicy) {
        let spec = &mut policy.spec;
        if spec.policy_types.is_empty() {
            spec.policy_types.push("Ingress".into());
            if !spec.egress.is_empty() {
                spec.policy_types.push("Egress".into());
            }
        }
        let ingress = spec.ingress.iter_mut().flat_map(|rule| &mut rule.ports);
        let egress = spec.egress.iter_mut().flat_map(|rule| &mut rule.ports);
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate(new: &NetworkPolicy, old: Option<&NetworkPolicy>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        let before = old.map(networks).unwrap_or_default();
        validate_selector(Some(&spec.pod_selector), &path.child("podSelector"), errors);
        for (index, rule) in spec.ingress.iter().enumerate() {
            let path = path.child("ingress").index(index);
            self::rule(&rule.ports, &rule.from, "from", &before, &path, errors);
        }
        for (index, rule) in spec.egress.iter().enumerate() {
            let path = path.child("egress").index(index);
            self::rule(&rule.ports, &rule.to, "to", &before, &path, errors);
        }
        let types = path.child("policyTypes");
        if spec.policy_types.len() > 2 {
            errors.invalid(&types, Json(&spec.policy_types), "may not specify more than two policyTypes");
            return;
        }
        for (index, kind) in spec.policy_types.iter().enumerate() {
            if kind != "Ingress" && kind != "Egress" {
                errors.not_supported(&types.index(index), kind, &["Ingress", "Egress"]);
            }
        }
    }

    fn row(policy: &NetworkPolicy, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&policy.metadata),
            columns::selector(Some(&policy.spec.pod_selector)).into(),
            columns::age(&policy.metadata, now),
        ]
    }
}

/// All networks that a policy names: what was stored once is let be.
fn networks(policy: &NetworkPolicy) -> Vec<String> {
    let from = policy.spec.ingress.iter().flat_map(|rule| &rule.from);
    let to = policy.spec.egress.iter().flat_map(|rule| &rule.to);
    from.chain(to)
        .filter_map(|peer| peer.ip_block.as_ref())
        .flat_map(|block| std::iter::once(&block.cidr).chain(&block.except))
        .cloned()
        .collect()
}

fn rule(
    ports: &[NetworkPolicyPort],
    peers: &[NetworkPolicyPeer],
    field: &str,
    before: &[String],
    path: &Path,
    errors: &mut Errors,
) {
    for (index, given) in ports.iter().enumerate() {
        port(given, &path.child("ports").index(index), errors);
    }
    for (index, given) in peers.iter().enumerate() {
        peer(given, before, &path.child(field).index(index), errors);
    }
}

fn port(port: &NetworkPolicyPort, path: &Path, errors: &mut Errors) {
    let known = ["TCP", "UDP", "SCTP"];
    if let Some(protocol) = port.protocol.as_ref().filter(|it| !known.contains(&it.as_str())) {
        errors.not_supported(&path.child("protocol"), protocol, &known);
    }
    let (field, end_field) = (path.child("port"), path.child("endPort"));
    match (&port.port, port.end_port) {
        (None, Some(end)) => {
            errors.invalid(&end_field, end, "may not be specified when `port` is not specified");
        }
        (None, None) => {}
        (Some(IntOrString::Int(number)), end) => {
            errors.invalid_each(&field, *number, validation::port_number(i64::from(*number)));
            let Some(end) = end else { return };
            if end < *number {
                errors.invalid(&end_field, *number, "must be greater than or equal to `port`");
            }
            errors.invalid_each(&end_field, end, validation::port_number(i64::from(end)));
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                errors.invalid(&end_field, end, "may not be specified when `port` is non-numeric");
            }
            errors.invalid_each(&field, name, validation::port_name(name));
        }
    }
}

fn peer(peer: &NetworkPolicyPeer, before: &[String], path: &Path, errors: &mut Errors) {
    validate_selector(peer.pod_selector.as_deref(), &path.child("podSelector"), errors);
    validate_selector(peer.namespace_selector.as_deref(), &path.child("namespaceSelector"), errors);
    let selected = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    match &peer.ip_block {
        None if !selected => errors.required(path, "must specify a peer"),
        None => {}
        Some(block) => {
            ip_block(block, before, &path.child("ipBlock"), errors);
            if selected {
                errors.forbidden(path, "may not specify both ipBlock and another peer");
            }
        }
    }
}

fn ip_block(block: &IPBlock, before: &[String], path: &Path, errors: &mut Errors) {
    let field = path.child("cidr");
    if block.cidr.is_empty() {
        return errors.required(&field, "");
    }
    addresses::validate_network(&block.cidr, before, &field, errors);
    let Ok(whole) = block.cidr.parse::<ipnet::IpNet>() else { return };
    for (index, text) in block.except.iter().enumerate() {
        let path = path.child("except").index(index);
        addresses::validate_network(text, before, &path, errors);
        let Ok(part) = text.parse::<ipnet::IpNet>() else { continue };
        if !whole.contains(&part.addr()) || whole.prefix_len() >= part.prefix_len() {
            errors.invalid(&path, text, "must be a strict subset of `cidr`");
        }
    }
}
