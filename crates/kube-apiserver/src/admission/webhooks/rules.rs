//! Whether a rule of a webhook names what a request does: pure comparisons.

use api::admissionregistration::v1::RuleWithOperations;
use registry::Attributes;
use resources::Resource;

/// Whether the request is about a namespace itself.
pub fn is_namespace(attributes: &Attributes<'_>) -> bool {
    attributes.resource.group().is_empty() && attributes.resource.plural() == "namespaces"
}

/// The namespace a request is in; a namespace is in itself.
pub fn namespace_of<'a>(attributes: &Attributes<'a>) -> &'a str {
    if attributes.namespace.is_empty() && is_namespace(attributes) {
        attributes.name
    } else {
        attributes.namespace
    }
}

/// Whether `rule` names the request, its resource taken to be `resource`.
pub fn matches(rule: &RuleWithOperations, attributes: &Attributes<'_>, resource: &dyn Resource) -> bool {
    let named = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
    let in_scope = match rule.rule.scope.as_deref() {
        None | Some("*") => true,
        Some("Namespaced") => resource.namespaced(),
        Some("Cluster") => !resource.namespaced(),
        Some(_) => false,
    };
    in_scope
        && named(&rule.operations, attributes.operation.as_str())
        && named(&rule.rule.api_groups, resource.group())
        && named(&rule.rule.api_versions, resource.version())
        && rule
            .rule
            .resources
            .iter()
            .any(|item| resource_matches(item, resource.plural(), attributes.subresource))
}

/// `pods`, `pods/exec`, `pods/*`, `*/scale`, `*`, `*/*`.
fn resource_matches(item: &str, plural: &str, subresource: &str) -> bool {
    let (wanted, sub) = item.split_once('/').unwrap_or((item, ""));
    (wanted == "*" || wanted == plural) && (sub == "*" || sub == subresource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_subresources_match_as_written() {
        let cases = [
            ("pods", "pods", "", true),
            ("pods", "pods", "exec", false),
            ("pods/exec", "pods", "exec", true),
            ("pods/*", "pods", "exec", true),
            ("pods/*", "pods", "", true),
            ("*/scale", "deployments", "scale", true),
            ("*", "deployments", "scale", false),
            ("*/*", "deployments", "scale", true),
            ("*", "deployments", "", true),
        ];
        for (item, plural, sub, wanted) in cases {
            assert_eq!(resource_matches(item, plural, sub), wanted, "{item} on {plural}/{sub}");
        }
    }
}
