//! Policies in expressions, and what binds them to parameters and to resources.

use super::expressions::Expressions;
use super::{default_rule, failure_policy, match_conditions, match_policy, rule_with_operations, selectors};
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::validate_selector;
use crate::strategy::{StatusMetadata, Strategy};
use crate::{with_spec, with_status};
use api::admissionregistration::{v1, v1beta1};
use meta::field::{Errors, Json, Path};
use meta::{Time, validation};

/// What a mutating policy may match: there is nothing to change about a deletion.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// The same types in two versions.
macro_rules! version {
    ($module:ident, $version:ident) => {
        mod $module {
            use super::*;

            pub fn default_matches(matches: &mut $version::MatchResources) {
                matches.match_policy.get_or_insert_with(|| "Equivalent".into());
                matches.namespace_selector.get_or_insert_default();
                matches.object_selector.get_or_insert_default();
                for rule in matches.resource_rules.iter_mut().chain(&mut matches.exclude_resource_rules) {
                    default_rule(&mut rule.rule_with_operations.rule);
                }
            }

            pub fn matches(matches: &$version::MatchResources, path: &Path, errors: &mut Errors) {
                match_policy(matches.match_policy.as_ref(), path, errors);
                let namespaces = matches.namespace_selector.as_deref();
                selectors(namespaces, matches.object_selector.as_deref(), path, errors);
                let lists = [
                    ("resourceRules", &matches.resource_rules),
                    ("excludeResourceRules", &matches.exclude_resource_rules),
                ];
                for (name, rules) in lists {
                    for (index, rule) in rules.iter().enumerate() {
                        let path = path.child(name).index(index);
                        resource_names(&rule.resource_names, &path.child("resourceNames"), errors);
                        rule_with_operations(&rule.rule_with_operations, &path, errors);
                    }
                }
            }

            pub fn constraints(matches: Option<&$version::MatchResources>, errors: &mut Errors) {
                let path = Path::new("spec").child("matchConstraints");
                let Some(matches) = matches else { return errors.required(&path, "") };
                self::matches(matches, &path, errors);
                if matches.resource_rules.is_empty() {
                    errors.required(&path.child("resourceRules"), "");
                }
            }

            pub fn param_kind(kind: Option<&$version::ParamKind>, errors: &mut Errors) {
                if let Some(kind) = kind {
                    super::param_kind(&kind.api_version, &kind.kind, errors);
                }
            }

            pub fn param_ref(reference: Option<&$version::ParamRef>, errors: &mut Errors) {
                let Some(reference) = reference else { return };
                let path = Path::new("spec").child("paramRef");
                if !reference.name.is_empty() {
                    let faults = validation::path_segment_name(&reference.name);
                    errors.invalid_each(&path.child("name"), &reference.name, faults);
                    if reference.selector.is_some() {
                        let detail = "name and selector are mutually exclusive";
                        errors.forbidden(&path.child("name"), detail);
                    }
                }
                validate_selector(reference.selector.as_deref(), &path.child("selector"), errors);
                if reference.name.is_empty() && reference.selector.is_none() {
                    errors.required(&path, "one of name or selector must be specified");
                }
                let action = path.child("parameterNotFoundAction");
                match reference.parameter_not_found_action.as_deref() {
                    None | Some("") => errors.required(&action, ""),
                    Some("Allow" | "Deny") => {}
                    Some(other) => errors.not_supported(&action, other, &["Allow", "Deny"]),
                }
            }

            pub fn shown_kind(kind: Option<&$version::ParamKind>) -> Cell {
                kind.map_or_else(|| "<unset>".into(), |it| format!("{}/{}", it.api_version, it.kind)).into()
            }

            pub fn shown_ref(reference: Option<&$version::ParamRef>) -> Cell {
                let Some(reference) = reference else { return "<unset>".into() };
                let namespace = if reference.namespace.is_empty() { "*" } else { &reference.namespace };
                match (&*reference.name, &reference.selector) {
                    ("", Some(selector)) => columns::selector(Some(selector)),
                    ("", None) => "<unset>".into(),
                    (name, _) => format!("{namespace}/{name}"),
                }
                .into()
            }
        }
    };
}
version!(stable, v1);
version!(beta, v1beta1);

fn resource_names(names: &[String], path: &Path, errors: &mut Errors) {
    for (index, name) in names.iter().enumerate() {
        errors.invalid_each(&path.index(index), name, validation::path_segment_name(name));
        if names[..index].contains(name) {
            errors.duplicate(&path.index(index), name);
        }
    }
}

fn param_kind(api_version: &str, kind: &str, errors: &mut Errors) {
    let path = Path::new("spec").child("paramKind");
    let place = path.child("apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let mut joined = |value: &str, faults: Vec<String>| {
        if !faults.is_empty() {
            errors.invalid(&place, value, faults.join(","));
        }
    };
    if api_version.is_empty() {
        errors.required(&place, "");
    } else if version.contains('/') {
        let detail = format!("unexpected GroupVersion string: {api_version}");
        errors.invalid(&place, api_version, detail);
    } else {
        if !group.is_empty() {
            joined(group, validation::dns1123_subdomain(group));
        }
        if version.is_empty() {
            errors.invalid(&place, api_version, "version must be specified");
        } else {
            joined(version, validation::dns1035_label(version));
        }
    }
    let faults = validation::dns1035_label(&kind.to_lowercase());
    if kind.is_empty() {
        errors.required(&path.child("kind"), "");
    } else if !faults.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
        errors.invalid(&path.child("kind"), kind, detail);
    }
}

fn policy_name(name: &str, errors: &mut Errors) {
    let path = Path::new("spec").child("policyName");
    if name.is_empty() {
        return errors.required(&path, "");
    }
    errors.invalid_each(&path, name, validation::dns1123_subdomain(name));
}

fn validation_actions(actions: &Vec<String>, errors: &mut Errors) {
    let path = Path::new("spec").child("validationActions");
    for (index, action) in actions.iter().enumerate() {
        let allowed = ["Audit", "Deny", "Warn"];
        if !allowed.contains(&action.as_str()) {
            errors.not_supported(&path.index(index), action, &allowed);
        }
        if actions[..index].contains(action) {
            errors.duplicate(&path.index(index), action);
        }
    }
    let has = |name: &str| actions.iter().any(|action| action == name);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&path, Json(actions), detail);
    }
    if actions.is_empty() {
        errors.required(&path, "at least one validation action is required");
    }
}

pub struct ValidatingAdmissionPolicies;

impl Strategy for ValidatingAdmissionPolicies {
    type Object = v1::ValidatingAdmissionPolicy;
    const PLURAL: &'static str = "validatingadmissionpolicies";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::integer("Validations"), Column::string("ParamKind"), AGE];
    const UNCONDITIONAL_UPDATE: bool = false;
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Keep;
    with_spec!();
    with_status!();

    fn default(policy: &mut v1::ValidatingAdmissionPolicy) {
        policy.spec.failure_policy.get_or_insert_with(|| "Fail".into());
        if let Some(matches) = &mut policy.spec.match_constraints {
            stable::default_matches(matches);
        }
    }

    fn validate(
        new: &v1::ValidatingAdmissionPolicy,
        _old: Option<&v1::ValidatingAdmissionPolicy>,
        errors: &mut Errors,
    ) {
        let spec = &new.spec;
        let path = Path::new("spec");
        if spec.failure_policy.as_deref().unwrap_or_default().is_empty() {
            errors.required(&path.child("failurePolicy"), "");
        } else {
            failure_policy(spec.failure_policy.as_ref(), &path, errors);
        }
        stable::param_kind(spec.param_kind.as_deref(), errors);
        stable::constraints(spec.match_constraints.as_deref(), errors);
        let params = spec.param_kind.is_some();
        match_conditions(&spec.match_conditions, params, &path, errors);
        let mut expressions = Expressions::new(params, !spec.variables.is_empty());
        expressions.variables(&spec.variables, &path, errors);
        if spec.validations.is_empty() && spec.audit_annotations.is_empty() {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.required(&path.child("validations"), detail);
            errors.required(&path.child("auditAnnotations"), detail);
        }
        expressions.validations(&spec.validations, &path, errors);
        expressions.audit_annotations(&new.metadata.name, &spec.audit_annotations, &path, errors);
    }

    fn row(policy: &v1::ValidatingAdmissionPolicy, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&policy.metadata),
            policy.spec.validations.len().into(),
            stable::shown_kind(policy.spec.param_kind.as_deref()),
            columns::age(&policy.metadata, now),
        ]
    }
}

pub struct MutatingAdmissionPolicies;

impl Strategy for MutatingAdmissionPolicies {
    type Object = v1beta1::MutatingAdmissionPolicy;
    const PLURAL: &'static str = "mutatingadmissionpolicies";
    const COLUMNS: &'static [Column] =
        &[NAME, Column::integer("Mutations"), Column::string("ParamKind"), AGE];
    const UNCONDITIONAL_UPDATE: bool = false;
    with_spec!();

    fn default(policy: &mut v1beta1::MutatingAdmissionPolicy) {
        policy.spec.failure_policy.get_or_insert_with(|| "Fail".into());
        if policy.spec.reinvocation_policy.is_empty() {
            policy.spec.reinvocation_policy = "Never".into();
        }
        if let Some(matches) = &mut policy.spec.match_constraints {
            beta::default_matches(matches);
        }
    }

    fn validate(
        new: &v1beta1::MutatingAdmissionPolicy,
        _old: Option<&v1beta1::MutatingAdmissionPolicy>,
        errors: &mut Errors,
    ) {
        let spec = &new.spec;
        let path = Path::new("spec");
        failure_policy(spec.failure_policy.as_ref(), &path, errors);
        beta::param_kind(spec.param_kind.as_deref(), errors);
        beta::constraints(spec.match_constraints.as_deref(), errors);
        for rule in spec.match_constraints.iter().flat_map(|matches| &matches.resource_rules) {
            for operation in &rule.rule_with_operations.operations {
                if !MUTATING_OPERATIONS.contains(&operation.as_str()) {
                    let path = path.child("matchConstraints").child("resourceRules").child("operations");
                    errors.not_supported(&path, operation, &MUTATING_OPERATIONS);
                }
            }
        }
        let params = spec.param_kind.is_some();
        // The versions differ in nothing but their name.
        let stable: v1::MutatingAdmissionPolicySpec =
            match api::codec::from_value(&api::codec::to_value(spec)) {
                Ok(stable) => stable,
                Err(error) => return errors.internal(&path, error.to_string()),
            };
        match_conditions(&stable.match_conditions, params, &path, errors);
        let mut expressions = Expressions::new(params, true);
        expressions.variables(&stable.variables, &path, errors);
        if spec.mutations.is_empty() {
            errors.required(&path.child("mutations"), "mutations must contain at least one item");
        }
        expressions.mutations(&stable.mutations, &path, errors);
        if !["IfNeeded", "Never"].contains(&spec.reinvocation_policy.as_str()) {
            let path = path.child("reinvocationPolicy");
            errors.not_supported(&path, &spec.reinvocation_policy, &["IfNeeded", "Never"]);
        }
    }

    fn row(policy: &v1beta1::MutatingAdmissionPolicy, now: Time) -> Vec<Cell> {
        vec![
            columns::name(&policy.metadata),
            policy.spec.mutations.len().into(),
            beta::shown_kind(policy.spec.param_kind.as_deref()),
            columns::age(&policy.metadata, now),
        ]
    }
}

macro_rules! bindings {
    ($name:ident, $type:ty, $plural:literal, $module:ident, |$object:ident, $errors:ident| $check:expr) => {
        pub struct $name;
        impl Strategy for $name {
            type Object = $type;
            const PLURAL: &'static str = $plural;
            const COLUMNS: &'static [Column] =
                &[NAME, Column::string("PolicyName"), Column::string("ParamRef"), AGE];
            const UNCONDITIONAL_UPDATE: bool = false;
            with_spec!();

            fn default(binding: &mut $type) {
                if let Some(matches) = &mut binding.spec.match_resources {
                    $module::default_matches(matches);
                }
            }
            fn validate($object: &$type, _old: Option<&$type>, $errors: &mut Errors) {
                policy_name(&$object.spec.policy_name, $errors);
                $module::param_ref($object.spec.param_ref.as_deref(), $errors);
                if let Some(matches) = &$object.spec.match_resources {
                    $module::matches(matches, &Path::new("spec").child("matchResources"), $errors);
                }
                $check
            }
            fn row(binding: &$type, now: Time) -> Vec<Cell> {
                vec![
                    columns::name(&binding.metadata),
                    binding.spec.policy_name.clone().into(),
                    $module::shown_ref(binding.spec.param_ref.as_deref()),
                    columns::age(&binding.metadata, now),
                ]
            }
        }
    };
}
bindings!(
    ValidatingAdmissionPolicyBindings,
    v1::ValidatingAdmissionPolicyBinding,
    "validatingadmissionpolicybindings",
    stable,
    |binding, errors| validation_actions(&binding.spec.validation_actions, errors)
);
bindings!(
    MutatingAdmissionPolicyBindings,
    v1beta1::MutatingAdmissionPolicyBinding,
    "mutatingadmissionpolicybindings",
    beta,
    |binding, errors| ()
);
