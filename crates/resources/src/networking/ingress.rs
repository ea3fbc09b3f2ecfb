//! Ingresses: hosts and paths that lead to services.

use crate::columns::{self, AGE, Cell, Column, NAME, or_none};
use crate::core::addresses;
use crate::names;
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::core::v1::TypedLocalObjectReference;
use api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressSpec};
use meta::field::{Errors, Json, Path};
use meta::{Time, validation};
use std::collections::BTreeSet;

pub struct Ingresses;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// How many hosts a row shows.
const SHOWN: usize = 3;
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];

impl Strategy for Ingresses {
    type Object = Ingress;
    const PLURAL: &'static str = "ingresses";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Class"),
        Column::string("Hosts"),
        Column::string("Address"),
        Column::string("Ports"),
        AGE,
    ];
    with_spec!();
    with_status!();

    fn validate(new: &Ingress, old: Option<&Ingress>, errors: &mut Errors) {
        let path = Path::new("spec");
        spec(&new.spec, &path, errors);
        let annotation = new.metadata.annotations.get(CLASS_ANNOTATION);
        if let (None, Some(given), Some(class)) = (old, annotation, &new.spec.ingress_class_name)
            && given != class
        {
            let field = Path::new("annotations").child(CLASS_ANNOTATION);
            errors.invalid(&field, given, "must match `ingressClassName` when both are specified");
        }
    }

    fn validate_status(new: &Ingress, old: &Ingress, errors: &mut Errors) {
        let before: Vec<String> =
            old.status.load_balancer.ingress.iter().map(|point| point.ip.clone()).collect();
        let path = Path::new("status").child("loadBalancer").child("ingress");
        for (index, point) in new.status.load_balancer.ingress.iter().enumerate() {
            let path = path.index(index);
            if !point.ip.is_empty() {
                addresses::validate(&point.ip, &before, &path.child("ip"), errors);
            }
            if !point.hostname.is_empty() {
                let field = path.child("hostname");
                let faults = validation::dns1123_subdomain(&point.hostname);
                errors.invalid_each(&field, &point.hostname, faults);
                if addresses::is_v6(&point.hostname).is_some() {
                    errors.invalid(&field, &point.hostname, "must be a DNS name, not an IP address");
                }
            }
        }
    }

    fn warnings(new: &Ingress, old: Option<&Ingress>) -> Vec<String> {
        if old.is_none() && new.metadata.annotations.contains_key(CLASS_ANNOTATION) {
            vec![format!(
                "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
            )]
        } else {
            Vec::new()
        }
    }

    fn row(ingress: &Ingress, now: Time) -> Vec<Cell> {
        let spec = &ingress.spec;
        let points: BTreeSet<&str> = ingress
            .status
            .load_balancer
            .ingress
            .iter()
            .map(|point| if point.ip.is_empty() { point.hostname.as_str() } else { &point.ip })
            .filter(|point| !point.is_empty())
            .collect();
        vec![
            columns::name(&ingress.metadata),
            or_none(spec.ingress_class_name.as_deref().unwrap_or_default()).into(),
            hosts(&spec.rules).into(),
            points.into_iter().collect::<Vec<_>>().join(",").into(),
            if spec.tls.is_empty() { "80" } else { "80, 443" }.into(),
            columns::age(&ingress.metadata, now),
        ]
    }
}

fn hosts(rules: &[IngressRule]) -> String {
    let (mut list, mut more) = (Vec::new(), false);
    for rule in rules {
        more |= list.len() == SHOWN;
        if !more && !rule.host.is_empty() {
            list.push(rule.host.as_str());
        }
    }
    match list.join(",").as_str() {
        "" => "*".into(),
        text if more => format!("{text} + {} more...", rules.len() - SHOWN),
        text => text.into(),
    }
}

fn host(host: &str, path: &Path, errors: &mut Errors) {
    let faults = if host.contains('*') {
        validation::wildcard_dns1123_subdomain(host)
    } else {
        validation::dns1123_subdomain(host)
    };
    errors.invalid_each(path, host, faults);
}

fn spec(spec: &IngressSpec, path: &Path, errors: &mut Errors) {
    if spec.rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(path, Json(&spec.rules), detail);
    }
    if let Some(given) = &spec.default_backend {
        backend(given, &path.child("defaultBackend"), errors);
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        if !rule.host.is_empty() {
            if addresses::is_v6(&rule.host).is_some() {
                errors.invalid(&path.child("host"), &rule.host, "must be a DNS name, not an IP address");
            }
            host(&rule.host, &path.child("host"), errors);
        }
        let Some(http) = &rule.ingress_rule_value.http else { continue };
        let path = path.child("http").child("paths");
        if http.paths.is_empty() {
            errors.required(&path, "");
        }
        for (index, given) in http.paths.iter().enumerate() {
            http_path(given, &path.index(index), errors);
        }
    }
    for (index, tls) in spec.tls.iter().enumerate() {
        let path = path.child("tls").index(index);
        for (index, name) in tls.hosts.iter().enumerate() {
            host(name, &path.child("hosts").index(index), errors);
        }
        if !tls.secret_name.is_empty() {
            let faults = validation::dns1123_subdomain(&tls.secret_name);
            errors.invalid_each(&path.child("secretName"), &tls.secret_name, faults);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        let faults = validation::dns1123_subdomain(class);
        errors.invalid_each(&path.child("ingressClassName"), class, faults);
    }
}

fn http_path(given: &HTTPIngressPath, path: &Path, errors: &mut Errors) {
    let (field, text) = (path.child("path"), given.path.as_str());
    let absolute = text.starts_with('/');
    match given.path_type.as_deref() {
        None => return errors.required(&path.child("pathType"), "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !absolute {
                errors.invalid(&field, text, "must be an absolute path");
            }
            for part in BAD_PARTS.iter().filter(|part| text.contains(**part)) {
                errors.invalid(&field, text, format!("must not contain '{part}'"));
            }
            for end in BAD_ENDS.iter().filter(|end| text.ends_with(**end)) {
                errors.invalid(&field, text, format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() && !absolute {
                errors.invalid(&field, text, "must be an absolute path");
            }
        }
        Some(other) => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.not_supported(&path.child("pathType"), other, &known);
        }
    }
    backend(&given.backend, &path.child("backend"), errors);
}

fn backend(backend: &IngressBackend, path: &Path, errors: &mut Errors) {
    let service = match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            return errors.invalid(path, "", "cannot set both resource and service backends");
        }
        (None, None) => return errors.invalid(path, "", "resource or service backend is required"),
        (Some(resource), None) => return reference(resource, &path.child("resource"), errors),
        (None, Some(service)) => service,
    };
    let field = path.child("service");
    if service.name.is_empty() {
        errors.required(&field.child("name"), "");
    } else {
        let faults = validation::dns1123_label(&service.name);
        errors.invalid_each(&field.child("name"), &service.name, faults);
    }
    let (name, number) = (service.port.name.as_str(), service.port.number);
    match (name.is_empty(), number) {
        (false, 0) => {
            let field = field.child("port").child("name");
            errors.invalid_each(&field, name, validation::port_name(name));
        }
        (false, _) => errors.invalid(path, "", "cannot set both port name & port number"),
        (true, 0) => errors.required(path, "port name or number is required"),
        (true, _) => {
            let field = field.child("port").child("number");
            errors.invalid_each(&field, number, validation::port_number(i64::from(number)));
        }
    }
}

/// An object named by group, kind and name.
fn reference(target: &TypedLocalObjectReference, path: &Path, errors: &mut Errors) {
    if let Some(group) = &target.api_group {
        errors.invalid_each(&path.child("apiGroup"), group, validation::dns1123_subdomain(group));
    }
    kind_and_name(&target.kind, &target.name, path, errors);
}

pub(super) fn kind_and_name(kind: &str, name: &str, path: &Path, errors: &mut Errors) {
    for (value, field) in [(kind, "kind"), (name, "name")] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.invalid_each(&path.child(field), value, names::path_segment(value, false));
        }
    }
}
