//! The index of roles and bindings, by subject, and RBAC's decision over it.
//!
//! Invariant: `by_subject` holds exactly the (binding, subject) pairs of the bindings held, so a decision looks only at
//! bindings that name the user or one of their groups.

use crate::{Attributes, Decision, User, rule};
use api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Namespace and name; the namespace is empty for cluster-wide ones.
type Key = (String, String);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(String),
    Group(String),
}

struct Binding {
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Roles and bindings, kept by whoever watches them.
#[derive(Default)]
pub struct Rbac {
    /// Roles by namespace and name; cluster roles have the empty namespace.
    roles: HashMap<Key, Arc<Vec<PolicyRule>>>,
    bindings: BTreeMap<Key, Binding>,
    by_subject: HashMap<Who, BTreeSet<Key>>,
}

impl Rbac {
    pub fn set_cluster_role(&mut self, role: &ClusterRole) {
        self.set_rules("", &role.metadata.name, &role.rules);
    }
    pub fn set_role(&mut self, role: &Role) {
        self.set_rules(&role.metadata.namespace, &role.metadata.name, &role.rules);
    }
    fn set_rules(&mut self, namespace: &str, name: &str, rules: &[PolicyRule]) {
        self.roles.insert((namespace.into(), name.into()), Arc::new(rules.to_vec()));
    }
    /// Forgets a role; the namespace is empty for a cluster role.
    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.roles.remove(&(namespace.to_string(), name.to_string()));
    }
    pub fn set_cluster_role_binding(&mut self, binding: &ClusterRoleBinding) {
        let key = (String::new(), binding.metadata.name.clone());
        self.set_binding(key, binding.role_ref.clone(), binding.subjects.clone());
    }
    pub fn set_role_binding(&mut self, binding: &RoleBinding) {
        let key = (binding.metadata.namespace.clone(), binding.metadata.name.clone());
        self.set_binding(key, binding.role_ref.clone(), binding.subjects.clone());
    }
    fn set_binding(&mut self, key: Key, role: RoleRef, subjects: Vec<Subject>) {
        self.remove_binding(&key.0, &key.1);
        for subject in &subjects {
            if let Some(who) = who(subject, &key.0) {
                self.by_subject.entry(who).or_default().insert(key.clone());
            }
        }
        self.bindings.insert(key, Binding { role, subjects });
    }
    /// Forgets a binding; the namespace is empty for a cluster-wide one.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        let key = (namespace.to_string(), name.to_string());
        let Some(binding) = self.bindings.remove(&key) else { return };
        for who in binding.subjects.iter().filter_map(|subject| who(subject, namespace)) {
            if let Some(keys) = self.by_subject.get_mut(&who) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_subject.remove(&who);
                }
            }
        }
    }

    /// The rules a reference leads to, or upstream's text for a role that is not there.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&[PolicyRule], String> {
        let (namespace, resource) = match role.kind.as_str() {
            "ClusterRole" => ("", "clusterrole"),
            "Role" => (namespace, "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        self.roles
            .get(&(namespace.to_string(), role.name.clone()))
            .map(|rules| rules.as_slice())
            .ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io {:?} not found", role.name))
    }

    /// Bindings that name the user, cluster-wide ones first, then those of the namespace.
    fn applying(&self, user: User<'_>, namespace: &str) -> BTreeSet<&Key> {
        let names = std::iter::once(Who::User(user.name.to_string()))
            .chain(user.groups.iter().map(|group| Who::Group(group.clone())));
        names
            .filter_map(|who| self.by_subject.get(&who))
            .flatten()
            .filter(|(bound, _)| bound.is_empty() || bound == namespace)
            .collect()
    }

    /// Every rule the user holds in a namespace (empty: cluster-wide only), and the references that lead nowhere.
    pub fn rules_for(&self, user: User<'_>, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for key in self.applying(user, namespace) {
            match self.rules_of(&self.bindings[key].role, &key.0) {
                Ok(found) => rules.extend_from_slice(found),
                Err(error) => errors.push(error),
            }
        }
        (rules, errors)
    }

    pub fn decide(&self, request: &Attributes<'_>) -> Decision {
        let mut errors = Vec::new();
        for key in self.applying(request.user, request.namespace) {
            let binding = &self.bindings[key];
            match self.rules_of(&binding.role, &key.0) {
                Ok(rules) if rules.iter().any(|rule| rule::allows(rule, request)) => {
                    return Decision::Allow(format!(
                        "RBAC: allowed by {}",
                        describe(key, binding, request.user)
                    ));
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] => Decision::NoOpinion(String::new()),
            [one] => Decision::NoOpinion(format!("RBAC: {one}")),
            many => Decision::NoOpinion(format!("RBAC: [{}]", many.join(", "))),
        }
    }
}

fn who(subject: &Subject, binding_namespace: &str) -> Option<Who> {
    match subject.kind.as_str() {
        "User" => Some(Who::User(subject.name.clone())),
        "Group" => Some(Who::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() { binding_namespace } else { &subject.namespace };
            (!namespace.is_empty())
                .then(|| Who::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

fn describe(key: &Key, binding: &Binding, user: User<'_>) -> String {
    let applies = |subject: &&Subject| match who(subject, &key.0) {
        Some(Who::User(name)) => name == user.name,
        Some(Who::Group(name)) => user.groups.contains(&name),
        None => false,
    };
    let subject = match binding.subjects.iter().find(applies) {
        Some(subject) if subject.kind == "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() { &key.0 } else { &subject.namespace };
            format!("{} {:?}", subject.kind, format!("{}/{namespace}", subject.name))
        }
        Some(subject) => format!("{} {:?}", subject.kind, subject.name),
        None => String::new(),
    };
    let (kind, name) = if key.0.is_empty() {
        ("ClusterRoleBinding", key.1.clone())
    } else {
        ("RoleBinding", format!("{}/{}", key.1, key.0))
    };
    format!("{kind} {name:?} of {} {:?} to {subject}", binding.role.kind, binding.role.name)
}
