//! ClusterRoles that are made of others: the rules of all that their selectors match.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan};
use api::rbac::v1::{ClusterRole, PolicyRule};

pub struct ClusterRoleAggregation;

impl Controller for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        // Whatever role changes may be part of any that aggregates.
        vec![Watch::new::<ClusterRole>(|view, old, new| {
            let changed = new.or(old).map(|role| view::key_of(role));
            let aggregating = view.list::<ClusterRole>().filter(|role| role.aggregation_rule.is_some());
            aggregating.map(|role| view::key_of(role.as_ref())).chain(changed).collect()
        })]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(role) = context.view.get::<ClusterRole>(context.key) else { return plan };
        let Some(aggregation) = &role.aggregation_rule else { return plan };
        if role.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in aggregation.cluster_role_selectors.iter().filter_map(|from| api::selector(from).ok())
        {
            let parts = context.view.list::<ClusterRole>();
            for part in parts.filter(|part| part.metadata.name != role.metadata.name) {
                if !selector.matches(&part.metadata.labels) {
                    continue;
                }
                for rule in &part.rules {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        if rules != role.rules {
            let mut next = ClusterRole::clone(&role);
            next.rules = rules;
            plan.push(Action::Update(Box::new(next)));
        }
        plan
    }
}
