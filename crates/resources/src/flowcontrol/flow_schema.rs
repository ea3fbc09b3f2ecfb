//! Flow schemas: which requests belong to which priority level.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::flowcontrol::v1::{
    FlowSchema, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use meta::field::{Errors, Json, Path};
use meta::{Time, validation};

pub struct FlowSchemas;

const PRECEDENCE: i32 = 1000;
const PRECEDENCE_MAX: i32 = 10_000;
const EXEMPT: &str = "exempt";
const ANY: &str = "*";
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

impl Strategy for FlowSchemas {
    type Object = FlowSchema;
    const PLURAL: &'static str = "flowschemas";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("PriorityLevel"),
        Column::string("MatchingPrecedence"),
        Column::string("DistinguisherMethod"),
        AGE,
        Column::string("MissingPL"),
    ];
    with_spec!();
    with_status!();

    fn default(schema: &mut FlowSchema) {
        if schema.spec.matching_precedence == 0 {
            schema.spec.matching_precedence = PRECEDENCE;
        }
    }

    fn validate(new: &FlowSchema, _old: Option<&FlowSchema>, errors: &mut Errors) {
        let spec = &new.spec;
        let path = Path::new("spec");
        let precedence = path.child("matchingPrecedence");
        if spec.matching_precedence <= 0 {
            errors.invalid(&precedence, spec.matching_precedence, "must be a positive value");
        }
        if spec.matching_precedence > PRECEDENCE_MAX {
            let detail = format!("must not be greater than {PRECEDENCE_MAX}");
            errors.invalid(&precedence, spec.matching_precedence, detail);
        }
        if spec.matching_precedence == 1 && new.metadata.name != EXEMPT {
            errors.invalid(&precedence, 1, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        let methods = ["ByNamespace", "ByUser"];
        if let Some(method) = &spec.distinguisher_method
            && !methods.contains(&method.r#type.as_str())
        {
            let path = path.child("distinguisherMethod").child("type");
            errors.not_supported(&path, Json(&**method), &methods);
        }
        let level = path.child("priorityLevelConfiguration").child("name");
        let name = &spec.priority_level_configuration.name;
        if name.is_empty() {
            errors.required(&level, "must reference a priority level");
        } else {
            errors.invalid_each(&level, name, validation::dns1123_subdomain(name));
        }
        for (index, rule) in spec.rules.iter().enumerate() {
            validate_rules(rule, &path.child("rules").index(index), errors);
        }
    }

    fn row(schema: &FlowSchema, now: Time) -> Vec<Cell> {
        let spec = &schema.spec;
        let method = spec.distinguisher_method.as_ref();
        let dangling = schema.status.conditions.iter().find(|it| it.r#type == "Dangling");
        vec![
            columns::name(&schema.metadata),
            spec.priority_level_configuration.name.clone().into(),
            spec.matching_precedence.into(),
            method.map_or("<none>", |method| &method.r#type).into(),
            columns::age(&schema.metadata, now),
            dangling.map_or("?", |it| &it.status).into(),
        ]
    }
}

fn validate_rules(rules: &PolicyRulesWithSubjects, path: &Path, errors: &mut Errors) {
    let subjects = path.child("subjects");
    if rules.subjects.is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for (index, subject) in rules.subjects.iter().enumerate() {
        validate_subject(subject, &subjects.index(index), errors);
    }
    if rules.resource_rules.is_empty() && rules.non_resource_rules.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(path, detail);
    }
    for (index, rule) in rules.resource_rules.iter().enumerate() {
        validate_resource_rule(rule, &path.child("resourceRules").index(index), errors);
    }
    for (index, rule) in rules.non_resource_rules.iter().enumerate() {
        validate_url_rule(rule, &path.child("nonResourceRules").index(index), errors);
    }
}

fn validate_subject(subject: &Subject, path: &Path, errors: &mut Errors) {
    let required = |name: &str, value: Option<&String>, errors: &mut Errors, what: &str| {
        let path = path.child(name);
        match value {
            None => {
                errors.required(&path, format!("{what} is required when subject kind is '{}'", subject.kind))
            }
            Some(value) if value.is_empty() => errors.required(&path.child("name"), ""),
            Some(_) => {}
        }
    };
    let user = subject.user.as_ref().map(|it| &it.name);
    let group = subject.group.as_ref().map(|it| &it.name);
    let account = subject.service_account.as_ref().map(|it| &it.name);
    match subject.kind.as_str() {
        "User" => required("user", user, errors, "user"),
        "Group" => required("group", group, errors, "group"),
        "ServiceAccount" => required("serviceAccount", account, errors, "serviceAccount"),
        kind => {
            let allowed = ["Group", "ServiceAccount", "User"];
            return errors.not_supported(&path.child("kind"), kind, &allowed);
        }
    }
    if let Some(account) = &subject.service_account
        && subject.kind == "ServiceAccount"
        && account.namespace.is_empty()
    {
        errors.required(
            &path.child("serviceAccount").child("namespace"),
            "must specify namespace for service account",
        );
    }
    for (name, kind, present) in [
        ("serviceAccount", "ServiceAccount", account.is_some()),
        ("user", "User", user.is_some()),
        ("group", "Group", group.is_some()),
    ] {
        if present && subject.kind != kind {
            let detail = format!("{name} is forbidden when subject kind is not '{kind}'");
            errors.forbidden(&path.child(name), detail);
        }
    }
}

/// A list that, when it says everything, says nothing else; whether it says everything.
fn alone(values: &Vec<String>, what: &str, path: &Path, errors: &mut Errors) -> bool {
    let any = values.iter().any(|value| value == ANY);
    if any && values.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.invalid(path, Json(values), detail);
    }
    any
}

fn validate_verbs(verbs: &Vec<String>, path: &Path, errors: &mut Errors) {
    let path = path.child("verbs");
    if verbs.is_empty() {
        return errors.required(&path, "verbs must contain at least one value");
    }
    if !alone(verbs, "verbs", &path, errors) && verbs.iter().any(|verb| !VERBS.contains(&verb.as_str())) {
        errors.not_supported(&path, Json(verbs), &VERBS);
    }
}

fn validate_resource_rule(rule: &ResourcePolicyRule, path: &Path, errors: &mut Errors) {
    validate_verbs(&rule.verbs, path, errors);
    for (name, values, what, one) in [
        ("apiGroups", &rule.api_groups, "api groups", "api group"),
        ("resources", &rule.resources, "resources", "resource"),
    ] {
        let path = path.child(name);
        if values.is_empty() {
            errors.required(&path, format!("resource rules must supply at least one {one}"));
        }
        alone(values, what, &path, errors);
    }
    let namespaces = path.child("namespaces");
    if rule.namespaces.is_empty() && !rule.cluster_scope {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&namespaces, detail);
    } else if !alone(&rule.namespaces, "namespaces", &namespaces, errors) {
        for (index, name) in rule.namespaces.iter().enumerate() {
            for fault in validation::dns1123_label(name) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                errors.invalid(&namespaces.index(index), name, detail);
            }
        }
    }
}

fn validate_url_rule(rule: &NonResourcePolicyRule, path: &Path, errors: &mut Errors) {
    validate_verbs(&rule.verbs, path, errors);
    let urls = path.child("nonResourceURLs");
    if rule.non_resource_urls.is_empty() {
        return errors.required(&urls, "nonResourceURLs must contain at least one value");
    }
    if alone(&rule.non_resource_urls, "non-resource URLs", &urls, errors) {
        return;
    }
    for (index, url) in rule.non_resource_urls.iter().enumerate() {
        let path = urls.index(index);
        let steps = url.strip_suffix('*').unwrap_or(url);
        if url.is_empty() {
            errors.invalid(&path, url, "must not be empty");
        } else if url != "/" && !url.starts_with('/') {
            errors.invalid(&path, url, "must start with slash");
        } else if url.contains(' ') {
            errors.invalid(&path, url, "must not contain white-space");
        } else if url != "/" && url.contains("//") {
            errors.invalid(&path, url, "must not contain double slash");
        } else if steps.contains(ANY) || (steps.len() < url.len() && !steps.ends_with('/')) {
            errors.invalid(&path, url, "wildcard can only do suffix matching");
        }
    }
}
