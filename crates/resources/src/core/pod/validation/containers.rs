//! What a container must state: name, image, ports, probes, hooks, resources.

use super::{Context, choice, env, security, volumes};
use crate::core::endpoints::validate_protocol;
use crate::core::resource_names;
use crate::object_meta::not_negative;
use api::core::v1::{
    Container, ContainerPort, EphemeralContainer, EphemeralContainerCommon, ExecAction, GRPCAction,
    HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe, ResourceRequirements, SleepAction,
    TCPSocketAction,
};
use meta::field::{Errors, Path};
use meta::{IntOrString, validation};
use std::collections::BTreeSet;

const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
const NOT_FOR_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const ONE_HANDLER: &str = "may not specify more than 1 handler type";
/// Fields that an ephemeral container may state.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

pub(super) fn validate(context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let spec = context.spec;
    let main = path.child("containers");
    if spec.containers.is_empty() {
        errors.required(&main, "");
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let path = main.index(index);
        common(container, context, &path, errors);
        if spec.containers[..index].iter().any(|other| other.name == container.name) {
            errors.duplicate(&path.child("name"), &container.name);
        }
        running(container, context, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(&spec.containers, &main, errors);
    let init = path.child("initContainers");
    for (index, container) in spec.init_containers.iter().enumerate() {
        init_container(container, index, context, &init, errors);
    }
    ephemeral(context, &path.child("ephemeralContainers"), errors);
}

fn init_container(
    container: &Container,
    index: usize,
    context: &Context<'_>,
    list: &Path,
    errors: &mut Errors,
) {
    let (spec, path) = (context.spec, list.index(index));
    common(container, context, &path, errors);
    restart_policy(container, &path, errors);
    let mut others = spec.containers.iter().chain(&spec.init_containers[..index]);
    if others.any(|other| other.name == container.name) {
        errors.duplicate(&path.child("name"), &container.name);
    }
    host_ports(std::slice::from_ref(container), list, errors);
    if crate::core::pod::resources::is_restartable(container) {
        running(container, context, &path, errors);
        return;
    }
    for (set, field) in [
        (container.lifecycle.is_some(), "lifecycle"),
        (container.liveness_probe.is_some(), "livenessProbe"),
        (container.readiness_probe.is_some(), "readinessProbe"),
        (container.startup_probe.is_some(), "startupProbe"),
    ] {
        if set {
            errors.forbidden(&path.child(field), NOT_FOR_INIT);
        }
    }
    for (index, policy) in container.resize_policy.iter().enumerate() {
        if policy.restart_policy == "RestartContainer" {
            let field = path.child("resizePolicy").index(index).child("restartPolicy");
            let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.invalid(&field, &policy.restart_policy, detail);
        }
    }
}

/// The common part of an ephemeral container, as a container.
pub(super) fn as_container(common: &EphemeralContainerCommon) -> Container {
    let mut container = Container::default();
    let common = common.clone();
    container.name = common.name;
    container.image = common.image;
    container.ports = common.ports;
    container.env_from = common.env_from;
    container.env = common.env;
    container.resources = common.resources;
    container.resize_policy = common.resize_policy;
    container.volume_mounts = common.volume_mounts;
    container.volume_devices = common.volume_devices;
    container.termination_message_policy = common.termination_message_policy;
    container.image_pull_policy = common.image_pull_policy;
    container.security_context = common.security_context;
    container
}

fn ephemeral(context: &Context<'_>, list: &Path, errors: &mut Errors) {
    let spec = context.spec;
    let lasting: BTreeSet<&str> = spec
        .containers
        .iter()
        .chain(&spec.init_containers)
        .map(|container| container.name.as_str())
        .collect();
    let mut names = lasting.clone();
    for (index, container) in spec.ephemeral_containers.iter().enumerate() {
        let EphemeralContainer { ephemeral_container_common: shared, target_container_name } = container;
        let path = list.index(index);
        common(&as_container(shared), context, &path, errors);
        image_whitespace(&shared.image, &path, errors);
        if !names.insert(&shared.name) {
            errors.duplicate(&path.child("name"), &shared.name);
        }
        if !target_container_name.is_empty() && !lasting.contains(target_container_name.as_str()) {
            errors.not_found(&path.child("targetContainerName"), target_container_name);
        }
        unwanted_fields(shared, &path, errors);
        for (index, mount) in shared.volume_mounts.iter().enumerate() {
            let path = path.child("volumeMounts").index(index);
            for (value, field) in [(&mount.sub_path, "subPath"), (&mount.sub_path_expr, "subPathExpr")] {
                if !value.is_empty() {
                    errors.forbidden(&path.child(field), NOT_FOR_EPHEMERAL);
                }
            }
        }
    }
}

fn unwanted_fields(shared: &EphemeralContainerCommon, path: &Path, errors: &mut Errors) {
    let nothing = EphemeralContainerCommon::default();
    let message: &dyn meta::Message = shared;
    for (index, field) in message.descriptor().fields.iter().enumerate() {
        if EPHEMERAL_FIELDS.contains(&field.name) {
            continue;
        }
        let (mut given, mut empty) = (Vec::new(), Vec::new());
        message.field(index).write_json(&mut given);
        meta::Message::field(&nothing, index).write_json(&mut empty);
        if given != empty {
            errors.forbidden(&path.child(field.name), NOT_FOR_EPHEMERAL);
        }
    }
}

fn common(container: &Container, context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let name = path.child("name");
    if container.name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.invalid_each(&name, &container.name, validation::dns1123_label(&container.name));
    }
    if container.image.is_empty() {
        errors.required(&path.child("image"), "");
    }
    let message = path.child("terminationMessagePolicy");
    choice(&container.termination_message_policy, &["File", "FallbackToLogsOnError"], &message, errors);
    ports(&container.ports, &path.child("ports"), errors);
    env::validate(&container.env, &path.child("env"), errors);
    env::sources(&container.env_from, &path.child("envFrom"), errors);
    volumes::mounts(container, context, path, errors);
    let pull = path.child("imagePullPolicy");
    choice(&container.image_pull_policy, &["Always", "IfNotPresent", "Never"], &pull, errors);
    let resources = path.child("resources");
    requirements(&container.resources, resource_names::validate_container, &resources, errors);
    claims(&container.resources, context, &resources.child("claims"), errors);
    resize_policy(container, context.spec, &path.child("resizePolicy"), errors);
    security::container(container, context.host_users, &path.child("securityContext"), errors);
}

/// What only containers that keep running have.
fn running(container: &Container, context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let grace = context.spec.termination_grace_period_seconds;
    if let Some(lifecycle) = &container.lifecycle {
        hooks(lifecycle, grace, context.spec, &path.child("lifecycle"), errors);
    }
    for (probe, field) in [
        (&container.liveness_probe, "livenessProbe"),
        (&container.readiness_probe, "readinessProbe"),
        (&container.startup_probe, "startupProbe"),
    ] {
        if let Some(given) = probe {
            self::probe(given, field, &path.child(field), errors);
        }
    }
}

fn probe(probe: &Probe, kind: &str, path: &Path, errors: &mut Errors) {
    let handler = &probe.handler;
    Handlers {
        exec: handler.exec.as_deref(),
        http_get: handler.http_get.as_deref(),
        tcp_socket: handler.tcp_socket.as_deref(),
        grpc: handler.grpc.as_deref(),
        sleep: None,
    }
    .validate(None, path, errors);
    for (value, field) in [
        (probe.initial_delay_seconds, "initialDelaySeconds"),
        (probe.timeout_seconds, "timeoutSeconds"),
        (probe.period_seconds, "periodSeconds"),
        (probe.success_threshold, "successThreshold"),
        (probe.failure_threshold, "failureThreshold"),
    ] {
        not_negative(i64::from(value), &path.child(field), errors);
    }
    let grace = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.termination_grace_period_seconds {
        if seconds <= 0 {
            errors.invalid(&grace, seconds, "must be greater than 0");
        }
        if kind == "readinessProbe" {
            errors.invalid(&grace, seconds, "must not be set for readinessProbes");
        }
    }
    if kind != "readinessProbe" && probe.success_threshold != 1 {
        errors.invalid(&path.child("successThreshold"), probe.success_threshold, "must be 1");
    }
}

fn hooks(lifecycle: &Lifecycle, grace: Option<i64>, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut hook = |handler: &Option<Box<LifecycleHandler>>, field: &str| {
        let Some(handler) = handler else { return };
        Handlers {
            exec: handler.exec.as_deref(),
            http_get: handler.http_get.as_deref(),
            tcp_socket: handler.tcp_socket.as_deref(),
            grpc: None,
            sleep: handler.sleep.as_deref(),
        }
        .validate(grace, &path.child(field), errors);
    };
    hook(&lifecycle.post_start, "postStart");
    hook(&lifecycle.pre_stop, "preStop");
    let Some(signal) = &lifecycle.stop_signal else { return };
    let field = path.child("stopSignal");
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None => errors.forbidden(&field, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") if !matches!(signal.as_str(), "SIGKILL" | "SIGTERM") => {
            errors.not_supported(&field, signal, &["SIGKILL", "SIGTERM"]);
        }
        Some("linux") if !signal.starts_with("SIG") => errors.not_supported(&field, signal, &[]),
        Some(_) => {}
    }
}

/// The ways to act on a container, of which exactly one is chosen.
struct Handlers<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Handlers<'_> {
    fn validate(&self, grace: Option<i64>, path: &Path, errors: &mut Errors) {
        let given = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, given)| *given).map(|(field, _)| field);
        let Some(first) = given.next() else {
            return errors.required(path, "must specify a handler type");
        };
        self.first(first, grace, path, errors);
        for extra in given {
            errors.forbidden(&path.child(extra), ONE_HANDLER);
        }
    }

    /// Only the first is looked into; the others are too many anyway.
    fn first(&self, field: &str, grace: Option<i64>, path: &Path, errors: &mut Errors) {
        let path = path.child(field);
        if let Some(exec) = self.exec {
            if exec.command.is_empty() {
                errors.required(&path.child("command"), "");
            }
        } else if let Some(http) = self.http_get {
            http_get(http, &path, errors);
        } else if let Some(tcp) = self.tcp_socket {
            port_number_or_name(&tcp.port, &path.child("port"), errors);
        } else if let Some(grpc) = self.grpc {
            port_number_or_name(&IntOrString::Int(grpc.port), &path.child("port"), errors);
        } else if let (Some(sleep), Some(grace)) = (self.sleep, grace)
            && (sleep.seconds < 0 || sleep.seconds > grace)
        {
            let detail =
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.invalid(&path, sleep.seconds, detail);
        }
    }
}

fn http_get(http: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    if http.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    port_number_or_name(&http.port, &path.child("port"), errors);
    if !matches!(http.scheme.as_str(), "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), &http.scheme, &["HTTP", "HTTPS"]);
    }
    for header in &http.http_headers {
        let faults = validation::http_header_name(&header.name);
        errors.invalid_each(&path.child("httpHeaders"), &header.name, faults);
    }
}

pub(crate) fn port_number_or_name(port: &IntOrString, path: &Path, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => {
            errors.invalid_each(path, *number, validation::port_number(i64::from(*number)));
        }
        IntOrString::String(name) => errors.invalid_each(path, name, validation::port_name(name)),
    }
}

fn ports(ports: &[ContainerPort], path: &Path, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if !port.name.is_empty() {
            let faults = validation::port_name(&port.name);
            if !faults.is_empty() {
                errors.invalid_each(&path.child("name"), &port.name, faults);
            } else if !names.insert(&port.name) {
                errors.duplicate(&path.child("name"), &port.name);
            }
        }
        let container_port = path.child("containerPort");
        if port.container_port == 0 {
            errors.required(&container_port, "");
        } else {
            let faults = validation::port_number(i64::from(port.container_port));
            errors.invalid_each(&container_port, port.container_port, faults);
        }
        if port.host_port != 0 {
            let faults = validation::port_number(i64::from(port.host_port));
            errors.invalid_each(&path.child("hostPort"), port.host_port, faults);
        }
        validate_protocol(&port.protocol, &path.child("protocol"), errors);
    }
}

/// A port of the node belongs to one container.
fn host_ports(containers: &[Container], path: &Path, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index).child("ports");
        for (index, port) in container.ports.iter().enumerate().filter(|(_, port)| port.host_port != 0) {
            let shown = format!("{}/{}/{}", port.protocol, port.host_ip, port.host_port);
            if !taken.insert(shown.clone()) {
                errors.duplicate(&path.index(index).child("hostPort"), shown);
            }
        }
    }
}

pub(super) fn image_whitespace(image: &str, path: &Path, errors: &mut Errors) {
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

type NameRule = fn(&str, &Path, &mut Errors);

/// Requests within limits, in amounts that the resource can have.
pub(super) fn requirements(
    resources: &ResourceRequirements,
    name_rule: NameRule,
    path: &Path,
    errors: &mut Errors,
) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    for (name, amount) in &resources.limits {
        name_rule(name, &limits.key(name), errors);
        resource_names::validate_amount(name, *amount, &limits.key(name), errors);
    }
    for (name, amount) in &resources.requests {
        name_rule(name, &requests.key(name), errors);
        resource_names::validate_amount(name, *amount, &requests.key(name), errors);
        let overcommit = resource_names::allows_overcommit(name);
        match resources.limits.get(name) {
            Some(limit) if amount != limit && !overcommit => {
                errors.invalid(&requests, *amount, format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if amount > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&requests, *amount, detail);
            }
            None if !overcommit => {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let mut names = resources.limits.keys().chain(resources.requests.keys());
    let huge = names.clone().any(|name| resource_names::is_huge_page(name));
    if huge && !names.any(|name| name == "cpu" || name == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

fn claims(resources: &ResourceRequirements, context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in resources.claims.iter().enumerate() {
        let path = path.index(index);
        if claim.name.is_empty() {
            errors.required(&path, "");
        } else {
            let key = if claim.request.is_empty() {
                claim.name.clone()
            } else {
                let faults = validation::dns1123_label(&claim.request);
                errors.invalid_each(&path.child("request"), &claim.request, faults);
                format!("{}/{}", claim.name, claim.request)
            };
            let part = format!("{}/", claim.name);
            let covers = claim.request.is_empty() && seen.iter().any(|known| known.starts_with(&part));
            if seen.contains(&claim.name) || covers {
                errors.duplicate(&path, &claim.name);
            } else if seen.contains(&key) {
                errors.duplicate(&path, &key);
            }
            seen.insert(key);
        }
        if !context.claims.contains(claim.name.as_str()) {
            errors.not_found(&path, &claim.name);
            let known: Vec<&str> = context.claims.iter().copied().collect();
            let known =
                if known.is_empty() { " which is empty".into() } else { format!(": {}", known.join(", ")) };
            if let Some(error) = errors.0.last_mut() {
                error.detail = format!("must be one of the names in pod.spec.resourceClaims{known}");
            }
        }
    }
}

fn resize_policy(container: &Container, spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let policies = &container.resize_policy;
    for (index, policy) in policies.iter().enumerate() {
        if policies[..index].iter().any(|other| other.resource_name == policy.resource_name) {
            errors.duplicate(&path.index(index), &policy.resource_name);
        }
        choice(&policy.resource_name, &["cpu", "memory"], path, errors);
        choice(&policy.restart_policy, &["NotRequired", "RestartContainer"], path, errors);
        if spec.restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(path, &policy.restart_policy, detail);
        }
    }
}

fn restart_policy(container: &Container, path: &Path, errors: &mut Errors) {
    let (field, rules) = (path.child("restartPolicy"), path.child("restartPolicyRules"));
    let known = ["Always", "Never", "OnFailure"];
    match container.restart_policy.as_deref() {
        None if container.restart_policy_rules.is_empty() => return,
        None => errors.required(&field, "must specify restartPolicy when restart rules are used"),
        Some(policy) if !known.contains(&policy) => errors.not_supported(&field, policy, &known),
        Some(_) => {}
    }
    let count = container.restart_policy_rules.len();
    if count > RULES_MAX {
        errors.too_many(&rules, count, RULES_MAX);
    }
    for (index, rule) in container.restart_policy_rules.iter().enumerate() {
        let path = rules.index(index);
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&rule.action.as_str()) {
            errors.not_supported(&path.child("action"), &rule.action, &actions);
        }
        let codes = path.child("exitCodes");
        let Some(exit) = &rule.exit_codes else {
            errors.required(&codes, "must be specified");
            continue;
        };
        if !matches!(exit.operator.as_str(), "In" | "NotIn") {
            errors.not_supported(&codes.child("operator"), &exit.operator, &["In", "NotIn"]);
        }
        if exit.values.len() > EXIT_CODES_MAX {
            errors.too_many(&codes.child("values"), exit.values.len(), EXIT_CODES_MAX);
        }
    }
}
