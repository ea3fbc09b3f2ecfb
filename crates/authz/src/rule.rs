//! One rule of a role: does it match a request, does it cover another rule, and how is it printed.

use crate::Attributes;
use api::rbac::v1::PolicyRule;

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted)
}

fn has_or_all(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted || item == "*")
}

/// `*`, the resource itself, or `*/sub` for any resource's subresource.
fn resource_matches(listed: &str, resource: &str, subresource: &str) -> bool {
    if listed == "*" {
        return true;
    }
    if subresource.is_empty() {
        return listed == resource;
    }
    match listed.split_once('/') {
        Some((parent, sub)) => sub == subresource && (parent == "*" || parent == resource),
        None => false,
    }
}

fn url_matches(listed: &str, path: &str) -> bool {
    listed == path || (listed.ends_with('*') && path.starts_with(listed.trim_end_matches('*')))
}

pub fn allows(rule: &PolicyRule, request: &Attributes<'_>) -> bool {
    if !has_or_all(&rule.verbs, request.verb) {
        return false;
    }
    if !request.is_resource() {
        return rule.non_resource_urls.iter().any(|listed| url_matches(listed, request.path));
    }
    has_or_all(&rule.api_groups, request.group)
        && rule.resources.iter().any(|listed| resource_matches(listed, request.resource, request.subresource))
        && (rule.resource_names.is_empty() || has(&rule.resource_names, request.name))
}

/// Splits a rule into rules of one verb, one resource and at most one name: each is then covered by one rule or by none.
pub fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for (group, resource) in rule
            .api_groups
            .iter()
            .flat_map(|group| rule.resources.iter().map(move |resource| (group, resource)))
        {
            let single = PolicyRule {
                verbs: vec![verb.clone()],
                api_groups: vec![group.clone()],
                resources: vec![resource.clone()],
                ..PolicyRule::default()
            };
            if rule.resource_names.is_empty() {
                out.push(single.clone());
            }
            for name in &rule.resource_names {
                out.push(PolicyRule { resource_names: vec![name.clone()], ..single.clone() });
            }
        }
        for url in &rule.non_resource_urls {
            let mut single = PolicyRule { verbs: vec![verb.clone()], ..PolicyRule::default() };
            single.non_resource_urls = vec![url.clone()];
            out.push(single);
        }
    }
    out
}

/// Whether `held` grants all that the broken-down `wanted` grants.
pub fn covers(held: &PolicyRule, wanted: &PolicyRule) -> bool {
    let covers_resource = |path: &String| {
        has_or_all(&held.resources, path)
            || path.split_once('/').is_some_and(|(_, sub)| {
                held.resources.iter().any(|listed| listed.strip_prefix("*/").is_some_and(|held| held == sub))
            })
    };
    let names = held.resource_names.is_empty()
        || (!wanted.resource_names.is_empty()
            && wanted.resource_names.iter().all(|name| has(&held.resource_names, name)));
    wanted.verbs.iter().all(|verb| has_or_all(&held.verbs, verb))
        && wanted.api_groups.iter().all(|group| has_or_all(&held.api_groups, group))
        && wanted.resources.iter().all(covers_resource)
        && names
        && wanted
            .non_resource_urls
            .iter()
            .all(|path| held.non_resource_urls.iter().any(|listed| url_matches(listed, path)))
}

/// The compact form of refusals: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
pub fn compact(rule: &PolicyRule) -> String {
    let parts: Vec<String> = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ]
    .into_iter()
    .filter(|(_, list)| !list.is_empty())
    .map(|(name, list)| format!("{name}:{}", quoted(list)))
    .collect();
    format!("{{{}}}", parts.join(", "))
}

/// Go's `%q` of a list of strings.
pub fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}
