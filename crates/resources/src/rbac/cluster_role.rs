//! ClusterRoles: rules for the whole cluster, of its own or gathered from others by label.

use crate::names;
use crate::object_meta::validate_selector;
use crate::strategy::Strategy;
use api::rbac::v1::ClusterRole;
use meta::field::{Errors, Path};

pub struct ClusterRoles;

impl Strategy for ClusterRoles {
    type Object = ClusterRole;
    const PLURAL: &'static str = "clusterroles";
    const NAME: names::Rule = names::path_segment;
    const CREATE_ON_UPDATE: bool = true;

    fn validate(new: &ClusterRole, _old: Option<&ClusterRole>, errors: &mut Errors) {
        super::validate_rules(&new.rules, false, errors);
        let Some(aggregation) = &new.aggregation_rule else { return };
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        if aggregation.cluster_role_selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.required(&path, detail);
        }
        for (index, selector) in aggregation.cluster_role_selectors.iter().enumerate() {
            validate_selector(Some(selector), &path.index(index), errors);
        }
    }
}
