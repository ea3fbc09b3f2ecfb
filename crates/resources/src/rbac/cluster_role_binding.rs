//! ClusterRoleBindings: a role given to users, groups and service accounts; the role itself never changes.

use crate::columns::{self, Cell, Column};
use crate::names;
use crate::strategy::Strategy;
use api::rbac::v1::ClusterRoleBinding;
use meta::Time;
use meta::field::Errors;

pub struct ClusterRoleBindings;

impl Strategy for ClusterRoleBindings {
    type Object = ClusterRoleBinding;
    const PLURAL: &'static str = "clusterrolebindings";
    const COLUMNS: &'static [Column] = super::BINDING_COLUMNS;
    const NAME: names::Rule = names::path_segment;
    const CREATE_ON_UPDATE: bool = true;

    fn default(binding: &mut ClusterRoleBinding) {
        super::default_binding(&mut binding.role_ref, &mut binding.subjects);
    }
    fn validate(new: &ClusterRoleBinding, old: Option<&ClusterRoleBinding>, errors: &mut Errors) {
        let old = old.map(|old| &old.role_ref);
        super::validate_binding(&new.role_ref, old, &new.subjects, false, errors);
    }
    fn row(binding: &ClusterRoleBinding, now: Time) -> Vec<Cell> {
        let (role, [users, groups, accounts]) = super::binding_cells(&binding.role_ref, &binding.subjects);
        let metadata = &binding.metadata;
        vec![columns::name(metadata), role, columns::age(metadata, now), users, groups, accounts]
    }
}
