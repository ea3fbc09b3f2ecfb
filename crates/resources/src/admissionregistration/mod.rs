//! The admissionregistration group: who else has a say before an object is written.

pub mod admission_policies;
mod expressions;
pub mod webhook_configurations;

use crate::object_meta::validate_selector;
use api::admissionregistration::v1::{MatchCondition, Rule, RuleWithOperations};
use api::meta::v1::LabelSelector;
use meta::field::{Errors, Json, Path};
use meta::validation;

const ANY: &str = "*";
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MATCH_CONDITIONS_MAX: usize = 64;

fn default_rule(rule: &mut Rule) {
    rule.scope.get_or_insert_with(|| ANY.into());
}

/// `value` among `allowed`, if it is given.
fn one_of(value: Option<&String>, allowed: &[&str], path: &Path, errors: &mut Errors) {
    if let Some(value) = value.filter(|value| !allowed.contains(&value.as_str())) {
        errors.not_supported(path, value, allowed);
    }
}

fn match_policy(value: Option<&String>, path: &Path, errors: &mut Errors) {
    one_of(value, &["Equivalent", "Exact"], &path.child("matchPolicy"), errors);
}
fn failure_policy(value: Option<&String>, path: &Path, errors: &mut Errors) {
    one_of(value, &["Fail", "Ignore"], &path.child("failurePolicy"), errors);
}

fn selectors(
    namespaces: Option<&LabelSelector>,
    objects: Option<&LabelSelector>,
    path: &Path,
    errors: &mut Errors,
) {
    validate_selector(namespaces, &path.child("namespaceSelector"), errors);
    validate_selector(objects, &path.child("objectSelector"), errors);
}

/// A list that is not empty and, when it says everything, says nothing else.
fn whole_or_parts(values: &Vec<String>, what: &str, path: &Path, errors: &mut Errors) {
    if values.is_empty() {
        errors.required(path, "");
    }
    if values.len() > 1 && values.iter().any(|value| value == ANY) {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.invalid(path, Json(values), detail);
    }
}

fn rule_with_operations(rule: &RuleWithOperations, path: &Path, errors: &mut Errors) {
    let operations = path.child("operations");
    whole_or_parts(&rule.operations, "operations", &operations, errors);
    for (index, operation) in rule.operations.iter().enumerate() {
        one_of(Some(operation), &OPERATIONS, &operations.index(index), errors);
    }
    let rule = &rule.rule;
    whole_or_parts(&rule.api_groups, "API groups", &path.child("apiGroups"), errors);
    let versions = path.child("apiVersions");
    whole_or_parts(&rule.api_versions, "API versions", &versions, errors);
    for (index, _) in rule.api_versions.iter().enumerate().filter(|(_, version)| version.is_empty()) {
        errors.required(&versions.index(index), "");
    }
    resources(&rule.resources, &path.child("resources"), errors);
    one_of(rule.scope.as_ref(), &["*", "Cluster", "Namespaced"], &path.child("scope"), errors);
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*` and `*/*`: none may repeat what another covers.
fn resources(values: &Vec<String>, path: &Path, errors: &mut Errors) {
    if values.is_empty() {
        errors.required(path, "");
    }
    let (mut whole, mut everywhere) = (Vec::new(), Vec::new());
    let mut plain = false;
    for (index, value) in values.iter().enumerate() {
        let path = path.index(index);
        if value.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let Some((resource, subresource)) = value.split_once('/') else {
            plain = value != ANY;
            continue;
        };
        if whole.contains(&resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {value}");
            errors.invalid(&path, value, detail);
        }
        if everywhere.contains(&subresource) {
            let detail = format!("if '*/{subresource}' is present, must not specify {value}");
            errors.invalid(&path, value, detail);
        }
        if subresource == ANY {
            whole.push(resource);
        }
        if resource == ANY {
            everywhere.push(subresource);
        }
    }
    if values.len() > 1 && values.iter().any(|value| value == "*/*") {
        errors.invalid(path, Json(values), "if '*/*' is present, must not specify other resources");
    }
    if plain && values.iter().any(|value| value == ANY) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, Json(values), detail);
    }
}

/// Names and presence; what the expressions say is for who compiles them.
/// Conditions under which a webhook or a policy is asked; `params` says whether they may name the policy's.
fn match_conditions(conditions: &[MatchCondition], params: bool, path: &Path, errors: &mut Errors) {
    let path = path.child("matchConditions");
    if conditions.len() > MATCH_CONDITIONS_MAX {
        errors.too_many(&path, conditions.len(), MATCH_CONDITIONS_MAX);
    }
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        if condition.expression.trim().is_empty() {
            errors.required(&path.child("expression"), "");
        } else {
            expressions::condition(&condition.expression, params, &path.child("expression"), errors);
        }
        let name = path.child("name");
        if condition.name.is_empty() {
            errors.required(&name, "");
            continue;
        }
        errors.invalid_each(&name, &condition.name, validation::qualified_name(&condition.name));
        if conditions[..index].iter().any(|it| it.name == condition.name) {
            errors.duplicate(&name, &condition.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests_support::*;
    use expect_test::expect;

    const HOOK: &str = "{metadata: {name: w, resourceVersion: '1'}, webhooks: [{name: a.example.com, sideEffects: None, admissionReviewVersions: [v1], \
                        clientConfig: {service: {namespace: ns, name: s}}, \
                        rules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}]}";

    #[test]
    fn webhooks_have_defaults_and_rules() {
        check_default(
            "mutatingwebhookconfigurations",
            HOOK,
            expect![[r#"
            apiVersion: admissionregistration.k8s.io/v1
            kind: MutatingWebhookConfiguration
            metadata:
              name: w
              resourceVersion: "1"
            webhooks:
            - admissionReviewVersions:
              - v1
              clientConfig:
                service:
                  name: s
                  namespace: ns
                  port: 443
              failurePolicy: Fail
              matchPolicy: Equivalent
              name: a.example.com
              namespaceSelector: {}
              objectSelector: {}
              reinvocationPolicy: Never
              rules:
              - apiGroups:
                - ""
                apiVersions:
                - v1
                operations:
                - CREATE
                resources:
                - pods
                scope: "*"
              sideEffects: None
              timeoutSeconds: 10
        "#]],
        );
        check_errors("validatingwebhookconfigurations", HOOK, expect![[""]]);
        check_errors(
            "mutatingwebhookconfigurations",
            "{metadata: {name: w}, webhooks: [{name: a.b, sideEffects: Some, admissionReviewVersions: [v2, v2], timeoutSeconds: 31, failurePolicy: Never, \
             matchConditions: [{name: a}], clientConfig: {url: 'http://x'}, \
             rules: [{operations: [READ, '*'], apiVersions: [''], resources: ['*', pods, 'pods/*', pods/log], scope: Moon}]}, {clientConfig: {}}]}",
            expect![[r#"
                webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots
                webhooks[0].rules[0].operations: Invalid value: ["READ","*"]: if '*' is present, must not specify other operations
                webhooks[0].rules[0].operations[0]: Unsupported value: "READ": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"
                webhooks[0].rules[0].apiGroups: Required value
                webhooks[0].rules[0].apiVersions[0]: Required value
                webhooks[0].rules[0].resources[3]: Invalid value: "pods/log": if 'pods/*' is present, must not specify pods/log
                webhooks[0].rules[0].resources: Invalid value: ["*","pods","pods/*","pods/log"]: if '*' is present, must not specify other resources without subresources
                webhooks[0].rules[0].scope: Unsupported value: "Moon": supported values: "*", "Cluster", "Namespaced"
                webhooks[0].failurePolicy: Unsupported value: "Never": supported values: "Fail", "Ignore"
                webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"
                webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds
                webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]
                webhooks[0].matchConditions[0].expression: Required value
                webhooks[0].admissionReviewVersions[1]: Invalid value: "v2": duplicate version
                webhooks[0].admissionReviewVersions: Invalid value: ["v2","v2"]: must include at least one of v1, v1beta1
                webhooks[1].name: Required value
                webhooks[1].sideEffects: Required value: must specify one of None, NoneOnDryRun
                webhooks[1].clientConfig: Required value: exactly one of url or service is required
                webhooks[1].admissionReviewVersions: Required value: must specify one of v1, v1beta1
            "#]],
        );
        check_row(
            "validatingwebhookconfigurations",
            HOOK,
            expect![[r#"
            Name: "w"
            Webhooks: 1
            Age: "<unknown>"
        "#]],
        );
    }

    #[test]
    fn policies_have_defaults_and_rules() {
        let policy = "{metadata: {name: p}, spec: {paramKind: {apiVersion: v1, kind: ConfigMap}, validations: [{expression: 'true'}], \
                      matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}}}";
        check_default(
            "validatingadmissionpolicies",
            policy,
            expect![[r#"
            apiVersion: admissionregistration.k8s.io/v1
            kind: ValidatingAdmissionPolicy
            metadata:
              name: p
            spec:
              failurePolicy: Fail
              matchConstraints:
                matchPolicy: Equivalent
                namespaceSelector: {}
                objectSelector: {}
                resourceRules:
                - apiGroups:
                  - apps
                  apiVersions:
                  - v1
                  operations:
                  - CREATE
                  resources:
                  - deployments
                  scope: "*"
              paramKind:
                apiVersion: v1
                kind: ConfigMap
              validations:
              - expression: "true"
            status: {}
        "#]],
        );
        check_errors("validatingadmissionpolicies", policy, expect![[""]]);
        check_row(
            "validatingadmissionpolicies",
            policy,
            expect![[r#"
            Name: "p"
            Validations: 1
            ParamKind: "v1/ConfigMap"
            Age: "<unknown>"
        "#]],
        );
        check_errors(
            "validatingadmissionpolicies",
            "{metadata: {name: p}, spec: {paramKind: {apiVersion: a/b/c}}}",
            expect![[r#"
                spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c
                spec.paramKind.kind: Required value
                spec.matchConstraints: Required value
                spec.validations: Required value: validations or auditAnnotations must contain at least one item
                spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item
            "#]],
        );
        let binding = "{metadata: {name: b}, spec: {policyName: p, paramRef: {name: x, parameterNotFoundAction: Deny}, validationActions: [Deny]}}";
        check_errors("validatingadmissionpolicybindings", binding, expect![[""]]);
        check_row(
            "validatingadmissionpolicybindings",
            binding,
            expect![[r#"
            Name: "b"
            PolicyName: "p"
            ParamRef: "*/x"
            Age: "<unknown>"
        "#]],
        );
        check_errors(
            "validatingadmissionpolicybindings",
            "{metadata: {name: b}, spec: {paramRef: {}, validationActions: [Deny, Warn, Warn, Shout]}}",
            expect![[r#"
                spec.policyName: Required value
                spec.paramRef: Required value: one of name or selector must be specified
                spec.paramRef.parameterNotFoundAction: Required value
                spec.validationActions[2]: Duplicate value: "Warn"
                spec.validationActions[3]: Unsupported value: "Shout": supported values: "Audit", "Deny", "Warn"
                spec.validationActions: Invalid value: ["Deny","Warn","Warn","Shout"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)
            "#]],
        );
    }
}
