//! All that can be wrong with a pod or a template's spec: each part in its own file, gathered here.

mod containers;
mod env;
mod scheduling;
mod security;
mod update;
mod volumes;

pub(crate) use containers::port_number_or_name;
pub(crate) use scheduling::{node_selector, taint_effect, topology_terms};
pub(crate) use update::{ephemeral_containers as ephemeral_containers_update, resize, status, update};
pub(crate) use volumes::{host_path, nfs, no_backsteps};

use super::resources;
use crate::core::{addresses, resource_names};
use crate::object_meta::validate_labels;
use api::core::v1::{Pod, PodDNSConfig, PodSpec};
use api::meta::v1::ObjectMeta;
use meta::field::{Errors, Json, Path};
use meta::validation;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LIST_MAX_BYTES: usize = 2048;

/// What the checks of one container need to know of its pod.
pub(crate) struct Context<'a> {
    pub spec: &'a PodSpec,
    /// Volumes that are themselves in order, by name.
    pub volumes: BTreeMap<&'a str, &'a api::core::v1::VolumeSource>,
    pub claims: BTreeSet<&'a str>,
    /// Users in containers are those of the node.
    pub host_users: bool,
}

pub(crate) fn create(pod: &Pod, errors: &mut Errors) {
    metadata_and_spec(pod, errors);
    if !pod.spec.ephemeral_containers.is_empty() {
        let path = Path::new("spec").child("ephemeralContainers");
        errors.forbidden(&path, "cannot be set on create");
    }
    if !pod.spec.node_name.is_empty() && !pod.spec.scheduling_gates.is_empty() {
        let path = Path::new("spec").child("nodeName");
        errors.forbidden(&path, "cannot be set until all schedulingGates have been cleared");
    }
}

pub(super) fn metadata_and_spec(pod: &Pod, errors: &mut Errors) {
    let spec = Path::new("spec");
    let at = Path::new("metadata").child("annotations");
    annotations(&pod.metadata.annotations, &pod.spec, &at, errors);
    pod_spec_at(&pod.spec, Some(&pod.metadata), true, &spec, errors);
    if pod.spec.service_account_name.is_empty() {
        volumes::tokens_without_account(&pod.spec, &spec.child("volumes"), errors);
    }
    for (list, field) in [(&pod.spec.containers, "containers"), (&pod.spec.init_containers, "initContainers")]
    {
        for (index, container) in list.iter().enumerate() {
            containers::image_whitespace(&container.image, &spec.child(field).index(index), errors);
        }
    }
}

/// Annotations that mean something to the system.
pub(crate) fn annotations(
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    path: &Path,
    errors: &mut Errors,
) {
    if let Some(node) = annotations.get(MIRROR)
        && spec.node_name.is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&path.key(MIRROR), node, detail);
    }
    if let Some(cost) = annotations.get(DELETION_COST) {
        // One form for each number: no plus sign, no leading zeros.
        let plain = cost.parse::<i32>().is_ok_and(|number| number.to_string() == *cost);
        if !plain {
            errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
        }
    }
    security::profile_annotations(annotations, spec, path, errors);
}

/// Checks a spec inside a template.
pub(crate) fn pod_spec(spec: &PodSpec, metadata: Option<&ObjectMeta>, path: &Path, errors: &mut Errors) {
    pod_spec_at(spec, metadata, false, path, errors);
}

fn pod_spec_at(
    spec: &PodSpec,
    metadata: Option<&ObjectMeta>,
    is_pod: bool,
    path: &Path,
    errors: &mut Errors,
) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let context = Context {
        spec,
        volumes: volumes::validate(&spec.volumes, metadata, &path.child("volumes"), errors),
        claims: spec.resource_claims.iter().map(|claim| claim.name.as_str()).collect(),
        host_users: spec.host_users.unwrap_or(true),
    };
    claims(spec, metadata, &path.child("resourceClaims"), errors);
    containers::validate(&context, path, errors);
    pod_level_resources(spec, path, errors);
    host_network(spec, is_pod, path, errors);
    choices(spec, path, errors);
    validate_labels(&spec.node_selector, &path.child("nodeSelector"), errors);
    security::pod(spec, path, errors);
    scheduling::affinity(spec, &path.child("affinity"), errors);
    dns(spec, &path.child("dnsConfig"), errors);
    for (index, gate) in spec.readiness_gates.iter().enumerate() {
        let field = path.child("readinessGates").index(index).child("conditionType");
        errors.invalid_each(&field, &gate.condition_type, validation::qualified_name(&gate.condition_type));
    }
    scheduling::gates(&spec.scheduling_gates, &path.child("schedulingGates"), errors);
    let spread = path.child("topologySpreadConstraints");
    scheduling::spread(&spec.topology_spread_constraints, &spread, errors);
    security::host_users(&context, path, errors);
    names(spec, path, errors);
    scheduling::tolerations(&spec.tolerations, &path.child("tolerations"), errors);
    for (index, alias) in spec.host_aliases.iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        addresses::validate(&alias.ip, &[], &path.child("ip"), errors);
        for (index, name) in alias.hostnames.iter().enumerate() {
            let field = path.child("hostnames").index(index);
            errors.invalid_each(&field, name, validation::dns1123_subdomain(name));
        }
    }
    for (name, amount) in &spec.overhead {
        let path = path.child("overhead").key(name);
        resource_names::validate_container(name, &path, errors);
        resource_names::validate_amount(name, *amount, &path, errors);
    }
    security::operating_system(spec, path, errors);
    env::file_volumes(spec, path, errors);
}

fn choices(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let restart = ["Always", "OnFailure", "Never"];
    choice(&spec.restart_policy, &restart, &path.child("restartPolicy"), errors);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    choice(&spec.dns_policy, &dns, &path.child("dnsPolicy"), errors);
    if let Some(policy) = &spec.preemption_policy {
        choice(policy, &["PreemptLowerPriority", "Never"], &path.child("preemptionPolicy"), errors);
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        let field = path.child("activeDeadlineSeconds");
        errors.invalid_each(&field, seconds, validation::in_range(seconds, 1, i64::from(i32::MAX)));
    }
}

/// One of a closed set; empty is missing.
pub(super) fn choice(value: &str, allowed: &[&str], path: &Path, errors: &mut Errors) {
    if value.is_empty() {
        errors.required(path, "");
    } else if !allowed.contains(&value) {
        errors.not_supported(path, value, allowed);
    }
}

fn names(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if let Some(name) = &spec.hostname_override {
        let field = path.child("hostnameOverride");
        if spec.set_hostname_as_fqdn == Some(true) {
            errors.forbidden(&field, "may not be specified when setHostnameAsFQDN is true");
        }
        if spec.host_network {
            errors.forbidden(&field, "may not be specified when hostNetwork is true");
        }
        if name.len() > 64 {
            errors.too_long(&field, 64);
        }
        errors.invalid_each(&field, name, validation::dns1123_subdomain(name));
    }
    type Check = fn(&str) -> Vec<String>;
    let checks: [(&str, &str, Check); 5] = [
        ("serviceAccountName", &spec.service_account_name, validation::dns1123_subdomain),
        ("nodeName", &spec.node_name, validation::dns1123_subdomain),
        ("hostname", &spec.hostname, validation::dns1123_label),
        ("subdomain", &spec.subdomain, validation::dns1123_label),
        ("priorityClassName", &spec.priority_class_name, validation::dns1123_subdomain),
    ];
    for (field, value, check) in checks {
        if !value.is_empty() {
            errors.invalid_each(&path.child(field), value, check(value));
        }
    }
    if let Some(class) = &spec.runtime_class_name {
        let field = path.child("runtimeClassName");
        errors.invalid_each(&field, class, validation::dns1123_subdomain(class));
    }
}

fn claims(spec: &PodSpec, metadata: Option<&ObjectMeta>, path: &Path, errors: &mut Errors) {
    let static_pod = metadata.is_some_and(|metadata| metadata.annotations.contains_key(MIRROR));
    for (index, claim) in spec.resource_claims.iter().enumerate() {
        if static_pod {
            errors.forbidden(&Path::root(), "static pods do not support resource claims");
            continue;
        }
        let path = path.index(index);
        let name = path.child("name");
        if claim.name.is_empty() {
            errors.required(&name, "");
        } else if spec.resource_claims[..index].iter().any(|other| other.name == claim.name) {
            errors.duplicate(&name, &claim.name);
        } else {
            errors.invalid_each(&name, &claim.name, validation::dns1123_label(&claim.name));
        }
        let sources = [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ];
        match sources.iter().filter(|(_, source)| source.is_some()).count() {
            0 => errors.invalid(
                &path,
                Json(claim),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            2 => errors.invalid(
                &path,
                Json(claim),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            _ => {}
        }
        for (field, source) in sources {
            if let Some(source) = source {
                errors.invalid_each(&path.child(field), source, validation::dns1123_subdomain(source));
            }
        }
    }
}

fn pod_level_resources(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(given) = &spec.resources else { return };
    let path = path.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(&path, "may not be set for a windows pod");
        return;
    }
    if !given.claims.is_empty() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    containers::requirements(given, resource_names::validate_pod, &path, errors);
    for (name, sum) in resources::container_requests(spec) {
        if let Some(stated) = given.requests.get(&name).filter(|stated| sum > **stated) {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path.child("requests").key(&name), *stated, detail);
        }
    }
    for (name, sum) in resources::container_limits(spec) {
        let huge = resource_names::is_huge_page(&name);
        if let Some(stated) = given.limits.get(&name).filter(|stated| huge && sum > **stated) {
            let detail = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid(&path.child("limits").key(&name), *stated, detail);
        }
    }
}

/// On the node's own network a container's port is the node's.
fn host_network(spec: &PodSpec, is_pod: bool, path: &Path, errors: &mut Errors) {
    if !spec.host_network {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.child("containers").index(index).child("ports");
        for (index, port) in container.ports.iter().enumerate() {
            if (is_pod || port.host_port != 0) && port.host_port != port.container_port {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.index(index).child("hostPort"), port.host_port, detail);
            }
        }
    }
}

fn dns(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let servers = path.child("nameservers");
    if spec.dns_policy == "None" {
        let none = spec.dns_config.as_ref().map(|config| config.nameservers.is_empty());
        match none {
            None => return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(true) => {
                let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return errors.required(&servers, detail);
            }
            Some(false) => {}
        }
    }
    let Some(config) = &spec.dns_config else { return };
    if config.nameservers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.invalid(&servers, Json(&config.nameservers), detail);
    }
    for (index, server) in config.nameservers.iter().enumerate() {
        addresses::validate(server, &[], &servers.index(index), errors);
    }
    searches(config, &path.child("searches"), errors);
    for (index, option) in config.options.iter().enumerate() {
        if option.name.is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

fn searches(config: &PodDNSConfig, path: &Path, errors: &mut Errors) {
    if config.searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.invalid(path, Json(&config.searches), detail);
    }
    if config.searches.join(" ").len() > SEARCH_LIST_MAX_BYTES {
        let detail = format!(
            "must not have more than {SEARCH_LIST_MAX_BYTES} characters (including spaces) in the search list"
        );
        errors.invalid(path, Json(&config.searches), detail);
    }
    for (index, search) in config.searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Underscores stand in names of services that other resolvers publish.
        let faults = validation::dns1123_subdomain(&name.replace('_', "a"));
        errors.invalid_each(&path.index(index), name, faults);
    }
}
