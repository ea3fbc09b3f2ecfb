//! Ingress classes: which controller serves an ingress.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::immutable;
use crate::strategy::Strategy;
use api::networking::v1::{IngressClass, IngressClassParametersReference};
use meta::field::{Errors, Path};
use meta::{Time, validation};

pub struct IngressClasses;

const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
const CONTROLLER_MAX_BYTES: usize = 250;

impl Strategy for IngressClasses {
    type Object = IngressClass;
    const PLURAL: &'static str = "ingressclasses";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::string("Controller"), Column::string("Parameters"), AGE];
    const GENERATION: bool = true;

    fn spec_changed(new: &IngressClass, old: &IngressClass) -> bool {
        new.spec != old.spec
    }

    fn default(class: &mut IngressClass) {
        if let Some(parameters) = &mut class.spec.parameters {
            parameters.scope.get_or_insert_with(|| "Cluster".into());
        }
    }

    fn validate(new: &IngressClass, old: Option<&IngressClass>, errors: &mut Errors) {
        let path = Path::new("spec");
        let (field, controller) = (path.child("controller"), &new.spec.controller);
        if let Some(old) = old {
            immutable(controller, &old.spec.controller, &field, errors);
        }
        if controller.len() > CONTROLLER_MAX_BYTES {
            errors.too_long(&field, CONTROLLER_MAX_BYTES);
        }
        domain_prefixed(controller, &field, errors);
        if let Some(given) = &new.spec.parameters {
            parameters(given, &path.child("parameters"), errors);
        }
    }

    fn row(class: &IngressClass, now: Time) -> Vec<Cell> {
        let mut name = class.metadata.name.clone();
        if class.metadata.annotations.get(DEFAULT_CLASS).is_some_and(|value| value == "true") {
            name += " (default)";
        }
        let parameters = class.spec.parameters.as_ref().map_or_else(
            || "<none>".to_string(),
            |given| {
                let group = given.api_group.as_ref().map_or(String::new(), |group| format!(".{group}"));
                format!("{}{group}/{}", given.kind, given.name)
            },
        );
        vec![
            name.into(),
            class.spec.controller.clone().into(),
            parameters.into(),
            columns::age(&class.metadata, now),
        ]
    }
}

/// `example.com/name`.
fn domain_prefixed(text: &str, path: &Path, errors: &mut Errors) {
    if text.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) =
        text.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        return errors.invalid(path, text, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    errors.invalid_each(path, domain, validation::dns1123_subdomain(domain));
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !rest.bytes().all(known) {
        let detail = validation::pattern_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
        errors.invalid(path, rest, detail);
    }
}

fn parameters(given: &IngressClassParametersReference, path: &Path, errors: &mut Errors) {
    if let Some(group) = &given.api_group {
        errors.invalid_each(&path.child("apiGroup"), group, validation::dns1123_subdomain(group));
    }
    super::ingress::kind_and_name(&given.kind, &given.name, path, errors);
    let namespace = path.child("namespace");
    match (given.scope.as_deref(), &given.namespace) {
        (None, _) => errors.required(&path.child("scope"), ""),
        (Some("Namespace"), None) => errors.required(&namespace, "`parameters.scope` is set to 'Namespace'"),
        (Some("Namespace"), Some(given)) => {
            errors.invalid_each(&namespace, given, validation::dns1123_label(given));
        }
        (Some("Cluster"), Some(_)) => errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"),
        (Some("Cluster"), None) => {}
        (Some(other), _) => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}
