//! The roles and bindings every cluster starts with, read from `bootstrap.policy`, and how a stored one is brought up to it.
//!
//! Invariant: reconciling adds what is missing and never takes away; `autoupdate: "false"` leaves an object alone.

use api::meta::v1::{LabelSelector, ObjectMeta};
use api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use std::collections::BTreeMap;

const TEXT: &str = include_str!("bootstrap.policy");
const GROUP: &str = "rbac.authorization.k8s.io";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// All of them, by kind.
#[derive(Default, Debug)]
pub struct Bootstrap {
    pub cluster_roles: Vec<ClusterRole>,
    pub roles: Vec<Role>,
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    pub role_bindings: Vec<RoleBinding>,
}

/// Reads the table that is compiled in.
pub fn policy() -> Bootstrap {
    let mut out = Bootstrap::default();
    for line in TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            _ if line.starts_with(' ') => out.last_rules().push(rule(&words)),
            "cluster-role" => out.cluster_roles.push(cluster_role(&words)),
            "role" => out.roles.push(Role { metadata: metadata(words[1], words[2]), ..Role::default() }),
            "cluster-binding" => out.cluster_role_bindings.push(ClusterRoleBinding {
                metadata: metadata("", words[1]),
                role_ref: role_ref("ClusterRole", words[3]),
                subjects: subjects(&words[4..]),
                ..ClusterRoleBinding::default()
            }),
            "binding" => out.role_bindings.push(RoleBinding {
                metadata: metadata(words[1], words[2]),
                role_ref: role_ref("Role", words[4]),
                subjects: subjects(&words[5..]),
                ..RoleBinding::default()
            }),
            other => unreachable!("the policy table starts a line with {other}"),
        }
    }
    out
}

impl Bootstrap {
    /// Rules follow their role, and roles of a namespace come after all cluster roles.
    fn last_rules(&mut self) -> &mut Vec<PolicyRule> {
        match self.roles.last_mut() {
            Some(role) => &mut role.rules,
            None => &mut self.cluster_roles.last_mut().expect("the table starts with a cluster role").rules,
        }
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: name.into(),
        namespace: namespace.into(),
        labels: BTreeMap::from([("kubernetes.io/bootstrapping".into(), "rbac-defaults".into())]),
        annotations: BTreeMap::from([(AUTOUPDATE.into(), "true".into())]),
        ..ObjectMeta::default()
    }
}

fn cluster_role(words: &[&str]) -> ClusterRole {
    let mut role = ClusterRole { metadata: metadata("", words[1]), ..ClusterRole::default() };
    for pair in words[2..].chunks(2) {
        let (key, value) = pair[1].split_once('=').expect("a label of the table has a value");
        match pair[0] {
            "label" => {
                role.metadata.labels.insert(key.into(), value.into());
            }
            _ => {
                let match_labels = BTreeMap::from([(key.to_string(), value.to_string())]);
                let selector = LabelSelector { match_labels, ..LabelSelector::default() };
                role.aggregation_rule.get_or_insert_default().cluster_role_selectors.push(selector);
            }
        }
    }
    role
}

fn strings<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(str::to_string).collect()
}

fn rule(words: &[&str]) -> PolicyRule {
    let read = ["get", "list", "watch"];
    let write = ["create", "update", "patch", "delete", "deletecollection"];
    let verbs = match words[0] {
        "read" => strings(read),
        "write" => strings(write),
        "read-write" => strings(read.into_iter().chain(write)),
        verbs => strings(verbs.split(',')),
    };
    if words[1] == "urls" {
        let non_resource_urls = strings(words[2..].iter().copied());
        return PolicyRule { verbs, non_resource_urls, ..PolicyRule::default() };
    }
    let api_groups = words[1].split(',').map(|group| if group == "core" { "" } else { group });
    let named = words.iter().position(|word| *word == "named").unwrap_or(words.len());
    PolicyRule {
        verbs,
        api_groups: strings(api_groups),
        resources: strings(words[2..named].iter().copied()),
        resource_names: strings(words.iter().skip(named + 1).copied()),
        ..PolicyRule::default()
    }
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: GROUP.into(), kind: kind.into(), name: name.into() }
}

fn subjects(words: &[&str]) -> Vec<Subject> {
    words
        .chunks(2)
        .map(|pair| match pair[0] {
            "account" => {
                let (namespace, name) =
                    pair[1].split_once('/').expect("an account of the table has a namespace");
                Subject {
                    kind: "ServiceAccount".into(),
                    name: name.into(),
                    namespace: namespace.into(),
                    ..Subject::default()
                }
            }
            kind => Subject {
                kind: if kind == "user" { "User" } else { "Group" }.into(),
                api_group: GROUP.into(),
                name: pair[1].into(),
                ..Subject::default()
            },
        })
        .collect()
}

fn protected(metadata: &ObjectMeta) -> bool {
    metadata.annotations.get(AUTOUPDATE).is_some_and(|value| value == "false")
}

/// Adds the labels and annotations that are not there; says whether any was missing.
fn merge_metadata(stored: &mut ObjectMeta, wanted: &ObjectMeta) -> bool {
    let before = stored.clone();
    for (key, value) in &wanted.labels {
        stored.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in &wanted.annotations {
        stored.annotations.entry(key.clone()).or_insert_with(|| value.clone());
    }
    *stored != before
}

fn merge_rules(stored: &mut Vec<PolicyRule>, wanted: &[PolicyRule]) -> bool {
    let missing: Vec<PolicyRule> = wanted
        .iter()
        .flat_map(crate::rule::break_down)
        .filter(|single| !stored.iter().any(|held| crate::rule::covers(held, single)))
        .collect();
    let changed = !missing.is_empty();
    stored.extend(missing);
    changed
}

/// The stored role with what the default grants beyond it; `None` where nothing is missing.
pub fn reconcile_cluster_role(stored: &ClusterRole, wanted: &ClusterRole) -> Option<ClusterRole> {
    if protected(&stored.metadata) {
        return None;
    }
    let mut next = stored.clone();
    let mut changed = merge_metadata(&mut next.metadata, &wanted.metadata);
    match &wanted.aggregation_rule {
        None => changed |= merge_rules(&mut next.rules, &wanted.rules),
        Some(aggregation) => {
            let held = next.aggregation_rule.get_or_insert_with(|| Box::new(AggregationRule::default()));
            for selector in &aggregation.cluster_role_selectors {
                if !held.cluster_role_selectors.contains(selector) {
                    held.cluster_role_selectors.push(selector.clone());
                    changed = true;
                }
            }
        }
    }
    changed.then_some(next)
}

pub fn reconcile_role(stored: &Role, wanted: &Role) -> Option<Role> {
    if protected(&stored.metadata) {
        return None;
    }
    let mut next = stored.clone();
    let changed = merge_metadata(&mut next.metadata, &wanted.metadata);
    (merge_rules(&mut next.rules, &wanted.rules) | changed).then_some(next)
}

fn merge_subjects(stored: &mut Vec<Subject>, wanted: &[Subject]) -> bool {
    let missing: Vec<Subject> = wanted.iter().filter(|subject| !stored.contains(subject)).cloned().collect();
    let changed = !missing.is_empty();
    stored.extend(missing);
    changed
}

pub fn reconcile_cluster_role_binding(
    stored: &ClusterRoleBinding,
    wanted: &ClusterRoleBinding,
) -> Option<ClusterRoleBinding> {
    if protected(&stored.metadata) || stored.role_ref != wanted.role_ref {
        return None;
    }
    let mut next = stored.clone();
    let changed = merge_metadata(&mut next.metadata, &wanted.metadata);
    (merge_subjects(&mut next.subjects, &wanted.subjects) | changed).then_some(next)
}

pub fn reconcile_role_binding(stored: &RoleBinding, wanted: &RoleBinding) -> Option<RoleBinding> {
    if protected(&stored.metadata) || stored.role_ref != wanted.role_ref {
        return None;
    }
    let mut next = stored.clone();
    let changed = merge_metadata(&mut next.metadata, &wanted.metadata);
    (merge_subjects(&mut next.subjects, &wanted.subjects) | changed).then_some(next)
}
