//! Roles and bindings that would grant more than their writer holds are refused.

use super::{Chain, forbidden};
use api::Object;
use api::errors::ApiError;
use api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use authz::{User, escalation};
use registry::{Attributes, Operation};

impl Chain {
    pub(super) fn escalation(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        if !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let who = &attributes.request.user;
        let user = User { name: &who.name, groups: &who.groups };
        let name = &object.metadata().name;
        let result = self.access.with(|policy| {
            if let Some(role) = object.downcast::<ClusterRole>() {
                let old = attributes.old.and_then(|old| old.downcast::<ClusterRole>());
                if old.is_some_and(|old| {
                    old.rules == role.rules && old.aggregation_rule == role.aggregation_rule
                }) {
                    return Ok(());
                }
                if role.aggregation_rule.is_some() {
                    // An aggregating role will hold whatever is labelled for it.
                    let everything = everything();
                    return escalation::check_role(policy, user, "", name, &everything);
                }
                escalation::check_role(policy, user, "", name, &role.rules)
            } else if let Some(role) = object.downcast::<Role>() {
                let old = attributes.old.and_then(|old| old.downcast::<Role>());
                if old.is_some_and(|old| old.rules == role.rules) {
                    return Ok(());
                }
                escalation::check_role(policy, user, attributes.namespace, name, &role.rules)
            } else if let Some(binding) = object.downcast::<ClusterRoleBinding>() {
                let old = attributes.old.and_then(|old| old.downcast::<ClusterRoleBinding>());
                if old.is_some_and(|old| old.subjects == binding.subjects && old.role_ref == binding.role_ref)
                {
                    return Ok(());
                }
                escalation::check_binding(policy, user, "", &binding.role_ref)
            } else if let Some(binding) = object.downcast::<RoleBinding>() {
                let old = attributes.old.and_then(|old| old.downcast::<RoleBinding>());
                if old.is_some_and(|old| old.subjects == binding.subjects && old.role_ref == binding.role_ref)
                {
                    return Ok(());
                }
                escalation::check_binding(policy, user, attributes.namespace, &binding.role_ref)
            } else {
                Ok(())
            }
        });
        result.map_err(|refused| forbidden(attributes, Some(object), refused.0))
    }
}

fn everything() -> Vec<api::rbac::v1::PolicyRule> {
    let all = || vec!["*".to_string()];
    vec![
        api::rbac::v1::PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..Default::default() },
        api::rbac::v1::PolicyRule { verbs: all(), non_resource_urls: all(), ..Default::default() },
    ]
}
