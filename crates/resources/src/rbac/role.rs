//! Roles: rules within a namespace.

use crate::names;
use crate::strategy::Strategy;
use api::rbac::v1::Role;
use meta::field::Errors;

pub struct Roles;

impl Strategy for Roles {
    type Object = Role;
    const PLURAL: &'static str = "roles";
    const NAME: names::Rule = names::path_segment;
    const CREATE_ON_UPDATE: bool = true;

    fn validate(new: &Role, _old: Option<&Role>, errors: &mut Errors) {
        super::validate_rules(&new.rules, true, errors);
    }
}
