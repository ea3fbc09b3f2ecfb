//! Nodes: who registers one may set its status at once; roles are read from labels.

use crate::columns::{self, AGE, Cell, Column, NAME, or_none};
use crate::strategy::Strategy;
use api::core::v1::Node;
use meta::Time;
use meta::field::Errors;
use std::collections::BTreeSet;

mod validation;

pub struct Nodes;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

impl Strategy for Nodes {
    type Object = Node;
    const PLURAL: &'static str = "nodes";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Status"),
        Column::string("Roles"),
        AGE,
        Column::string("Version"),
        Column::string("Internal-IP").wide(),
        Column::string("External-IP").wide(),
        Column::string("OS-Image").wide(),
        Column::string("Kernel-Version").wide(),
        Column::string("Container-Runtime").wide(),
    ];
    const SELECTABLE: &'static [&'static str] = &["metadata.name", "spec.unschedulable"];

    fn default(node: &mut Node) {
        if node.status.allocatable.is_empty() {
            node.status.allocatable = node.status.capacity.clone();
        }
        super::pod::defaults::round_up(&mut node.status.capacity);
        super::pod::defaults::round_up(&mut node.status.allocatable);
        let spec = &mut node.spec;
        if spec.pod_cidr.is_empty() {
            spec.pod_cidr = spec.pod_cidrs.first().cloned().unwrap_or_default();
        } else if spec.pod_cidrs.first() != Some(&spec.pod_cidr) {
            spec.pod_cidrs = vec![spec.pod_cidr.clone()];
        }
    }

    fn prepare_for_create(node: &mut Node) {
        node.spec.config_source = None;
        node.status.config = None;
    }

    fn prepare_for_update(new: &mut Node, old: &Node) {
        if old.spec.config_source.is_none() {
            new.spec.config_source = None;
        }
    }

    fn validate(new: &Node, old: Option<&Node>, errors: &mut Errors) {
        match old {
            None => validation::create(new, errors),
            Some(old) => validation::update(new, old, errors),
        }
    }
    fn validate_status(new: &Node, old: &Node, errors: &mut Errors) {
        validation::update(new, old, errors);
    }

    fn selectable(node: &Node) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", node.spec.unschedulable.to_string())]
    }

    fn row(node: &Node, now: Time) -> Vec<Cell> {
        let info = &node.status.node_info;
        let known = |text: &str| if text.is_empty() { "<unknown>".to_string() } else { text.to_string() };
        let mut kernel = known(&info.kernel_version);
        if !info.architecture.is_empty() {
            kernel += &format!(" ({})", info.architecture);
        }
        vec![
            columns::name(&node.metadata),
            state(node).into(),
            or_none(&roles(node)).into(),
            columns::age(&node.metadata, now),
            info.kubelet_version.clone().into(),
            address(node, "InternalIP").into(),
            address(node, "ExternalIP").into(),
            known(&info.os_image).into(),
            kernel.into(),
            known(&info.container_runtime_version).into(),
        ]
    }

    // A node may be created with its status; only updates keep the two apart.
    fn keep_status(new: &mut Node, old: &Node) {
        new.status = old.status.clone();
    }
    fn keep_all_but_status(new: &mut Node, old: &Node) {
        new.spec = old.spec.clone();
        if old.status.config.is_none() {
            new.status.config = None;
        }
    }
}

fn state(node: &Node) -> String {
    let ready = node.status.conditions.iter().rev().find(|condition| condition.r#type == "Ready");
    let mut state = match ready {
        Some(condition) if condition.status == "True" => "Ready".to_string(),
        Some(_) => "NotReady".into(),
        None => "Unknown".into(),
    };
    if node.spec.unschedulable {
        state += ",SchedulingDisabled";
    }
    state
}

fn roles(node: &Node) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in &node.metadata.labels {
        if let Some(role) = key.strip_prefix(ROLE_PREFIX).filter(|role| !role.is_empty()) {
            roles.insert(role);
        } else if key == ROLE_LABEL && !value.is_empty() {
            roles.insert(value);
        }
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(node: &Node, kind: &str) -> String {
    let found = node.status.addresses.iter().find(|address| address.r#type == kind);
    found.map_or_else(|| "<none>".into(), |address| address.address.clone())
}
