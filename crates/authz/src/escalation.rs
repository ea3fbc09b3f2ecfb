//! Nobody grants more than they hold: creating a role needs its permissions, or `escalate`; creating a binding needs the
//! role's permissions, or `bind`.

use crate::{Attributes, Policy, User, decide, rule};
use api::rbac::v1::{PolicyRule, RoleRef};

/// Why a role or binding may not be written; the text for the Forbidden status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation(pub String);

/// Decides whether `user` may write a role of these rules. `namespace` is empty for cluster roles.
pub fn check_role(
    policy: &Policy,
    user: User<'_>,
    namespace: &str,
    name: &str,
    rules: &[PolicyRule],
) -> Result<(), Escalation> {
    let resource = if namespace.is_empty() { "clusterroles" } else { "roles" };
    if user.is_privileged() || may(policy, user, "escalate", resource, namespace, name) {
        return Ok(());
    }
    confirm(policy, user, namespace, rules)
}

/// Decides whether `user` may bind this role in `namespace` (empty for cluster role bindings).
pub fn check_binding(
    policy: &Policy,
    user: User<'_>,
    namespace: &str,
    role: &RoleRef,
) -> Result<(), Escalation> {
    let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    if user.is_privileged() || may(policy, user, "bind", resource, namespace, &role.name) {
        return Ok(());
    }
    let rules = policy.rbac.rules_of(role, namespace).map_err(Escalation)?;
    confirm(policy, user, namespace, rules)
}

fn may(policy: &Policy, user: User<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let request = Attributes {
        user,
        verb,
        group: "rbac.authorization.k8s.io",
        resource,
        subresource: "",
        namespace,
        name,
        path: "",
        field_selector: &[],
    };
    decide(policy, &request).is_allowed()
}

fn confirm(
    policy: &Policy,
    user: User<'_>,
    namespace: &str,
    wanted: &[PolicyRule],
) -> Result<(), Escalation> {
    let (held, errors) = policy.rbac.rules_for(user, namespace);
    let missing: Vec<PolicyRule> = wanted
        .iter()
        .flat_map(rule::break_down)
        .filter(|single| !held.iter().any(|rule| rule::covers(rule, single)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = join(missing).iter().map(rule::compact).collect();
    lines.sort();
    lines.dedup();
    let mut text = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        rule::quoted(user.groups),
        lines.join("\n")
    );
    if !errors.is_empty() {
        text += &format!("; resolution errors: [{}]", errors.join(", "));
    }
    Err(Escalation(text))
}

/// Joins single rules that differ only in their verb, so that a refusal stays readable.
fn join(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for single in rules {
        let same = out.iter_mut().find(|known| {
            known.api_groups == single.api_groups
                && known.resources == single.resources
                && known.resource_names == single.resource_names
                && known.non_resource_urls == single.non_resource_urls
                && !single.resources.is_empty()
        });
        match same {
            Some(known) => {
                if !known.verbs.contains(&single.verbs[0]) {
                    known.verbs.push(single.verbs[0].clone());
                }
            }
            None => out.push(single),
        }
    }
    out
}
