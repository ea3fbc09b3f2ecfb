//! The RBAC group: who may do what.

pub mod cluster_role;
pub mod cluster_role_binding;
pub mod role;
pub mod role_binding;
#[cfg(test)]
mod tests;

use crate::columns::{Cell, Column};
use api::rbac::v1::{PolicyRule, RoleRef, Subject};
use meta::field::{Errors, Json, Path};
use meta::validation;

const GROUP: &str = "rbac.authorization.k8s.io";

/// What both kinds of bindings show.
const BINDING_COLUMNS: &[Column] = &[
    crate::columns::NAME,
    Column::string("Role"),
    crate::columns::AGE,
    Column::string("Users").wide(),
    Column::string("Groups").wide(),
    Column::string("ServiceAccounts").wide(),
];

fn default_binding(role: &mut RoleRef, subjects: &mut [Subject]) {
    if role.api_group.is_empty() {
        role.api_group = GROUP.into();
    }
    for subject in subjects.iter_mut().filter(|subject| subject.api_group.is_empty()) {
        if subject.kind == "User" || subject.kind == "Group" {
            subject.api_group = GROUP.into();
        }
    }
}

fn validate_rules(rules: &[PolicyRule], namespaced: bool, errors: &mut Errors) {
    for (index, rule) in rules.iter().enumerate() {
        let path = Path::new("rules").index(index);
        if rule.verbs.is_empty() {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        if !rule.non_resource_urls.is_empty() {
            let (field, shown) = (path.child("nonResourceURLs"), Json(&rule.non_resource_urls));
            if namespaced {
                errors.invalid(&field, shown, "namespaced rules cannot apply to non-resource URLs");
            }
            let others =
                !rule.api_groups.is_empty() || !rule.resources.is_empty() || !rule.resource_names.is_empty();
            if others {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&field, Json(&rule.non_resource_urls), detail);
            }
            continue;
        }
        if rule.api_groups.is_empty() {
            errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if rule.resources.is_empty() {
            errors.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn validate_binding(
    role: &RoleRef,
    old: Option<&RoleRef>,
    subjects: &[Subject],
    namespaced: bool,
    errors: &mut Errors,
) {
    let path = Path::new("roleRef");
    if role.api_group != GROUP {
        errors.not_supported(&path.child("apiGroup"), &role.api_group, &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported(&path.child("kind"), &role.kind, kinds);
    }
    let name = path.child("name");
    if role.name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.invalid_each(&name, &role.name, crate::names::path_segment(&role.name, false));
    }
    for (index, subject) in subjects.iter().enumerate() {
        validate_subject(subject, namespaced, &Path::new("subjects").index(index), errors);
    }
    if old.is_some_and(|old| old != role) {
        errors.invalid(&path, Json(role), "cannot change roleRef");
    }
}

fn validate_subject(subject: &Subject, namespaced: bool, path: &Path, errors: &mut Errors) {
    let name = path.child("name");
    if subject.name.is_empty() {
        errors.required(&name, "");
    }
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.invalid_each(&name, &subject.name, validation::dns1123_subdomain(&subject.name));
            }
            if !subject.api_group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), &subject.api_group, &[""]);
            }
            if !namespaced && subject.namespace.is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if subject.api_group != GROUP {
                errors.not_supported(&path.child("apiGroup"), &subject.api_group, &[GROUP]);
            }
        }
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// Role, and after the age the subjects by kind.
fn binding_cells(role: &RoleRef, subjects: &[Subject]) -> (Cell, [Cell; 3]) {
    let of_kind = |kind: &str, shown: fn(&Subject) -> String| -> Cell {
        let names: Vec<String> = subjects.iter().filter(|it| it.kind == kind).map(shown).collect();
        names.join(", ").into()
    };
    let account = |subject: &Subject| format!("{}/{}", subject.namespace, subject.name);
    (
        format!("{}/{}", role.kind, role.name).into(),
        [
            of_kind("User", |subject| subject.name.clone()),
            of_kind("Group", |subject| subject.name.clone()),
            of_kind("ServiceAccount", account),
        ],
    )
}
