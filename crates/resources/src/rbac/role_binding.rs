//! RoleBindings: a role given to users, groups and service accounts; the role itself never changes.

use crate::columns::{self, Cell, Column};
use crate::names;
use crate::strategy::Strategy;
use api::rbac::v1::RoleBinding;
use meta::Time;
use meta::field::Errors;

pub struct RoleBindings;

impl Strategy for RoleBindings {
    type Object = RoleBinding;
    const PLURAL: &'static str = "rolebindings";
    const COLUMNS: &'static [Column] = super::BINDING_COLUMNS;
    const NAME: names::Rule = names::path_segment;
    const CREATE_ON_UPDATE: bool = true;

    fn default(binding: &mut RoleBinding) {
        super::default_binding(&mut binding.role_ref, &mut binding.subjects);
    }
    fn validate(new: &RoleBinding, old: Option<&RoleBinding>, errors: &mut Errors) {
        let old = old.map(|old| &old.role_ref);
        super::validate_binding(&new.role_ref, old, &new.subjects, true, errors);
    }
    fn row(binding: &RoleBinding, now: Time) -> Vec<Cell> {
        let (role, [users, groups, accounts]) = super::binding_cells(&binding.role_ref, &binding.subjects);
        let metadata = &binding.metadata;
        vec![columns::name(metadata), role, columns::age(metadata, now), users, groups, accounts]
    }
}
