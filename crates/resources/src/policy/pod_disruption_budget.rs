//! Pod disruption budgets: how many pods must stay, or may go.

use crate::apps::{at_most_all, count_or_percent};
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::{not_negative, validate_selector};
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::policy::v1::PodDisruptionBudget;
use meta::field::{Errors, Json, Path};
use meta::{IntOrString, Time};

pub struct PodDisruptionBudgets;

impl Strategy for PodDisruptionBudgets {
    type Object = PodDisruptionBudget;
    const PLURAL: &'static str = "poddisruptionbudgets";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Min Available"),
        Column::string("Max Unavailable"),
        Column::integer("Allowed Disruptions"),
        AGE,
    ];
    const UNCONDITIONAL_UPDATE: bool = false;
    with_spec!();
    with_status!();

    fn validate(new: &PodDisruptionBudget, _old: Option<&PodDisruptionBudget>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        if spec.min_available.is_some() && spec.max_unavailable.is_some() {
            errors.invalid(&path, Json(spec), "minAvailable and maxUnavailable cannot be both set");
        }
        for (value, field) in
            [(&spec.min_available, "minAvailable"), (&spec.max_unavailable, "maxUnavailable")]
        {
            if let Some(value) = value {
                count_or_percent(value, &path.child(field), errors);
                at_most_all(value, &path.child(field), errors);
            }
        }
        validate_selector(spec.selector.as_deref(), &path.child("selector"), errors);
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        if let Some(policy) =
            spec.unhealthy_pod_eviction_policy.as_ref().filter(|it| !policies.contains(&it.as_str()))
        {
            errors.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, &policies);
        }
    }

    fn validate_status(new: &PodDisruptionBudget, _old: &PodDisruptionBudget, errors: &mut Errors) {
        let (status, path) = (&new.status, Path::new("status"));
        for (count, field) in [
            (status.disruptions_allowed, "disruptionsAllowed"),
            (status.current_healthy, "currentHealthy"),
            (status.desired_healthy, "desiredHealthy"),
            (status.expected_pods, "expectedPods"),
        ] {
            not_negative(i64::from(count), &path.child(field), errors);
        }
    }

    fn row(budget: &PodDisruptionBudget, now: Time) -> Vec<Cell> {
        let shown = |value: &Option<IntOrString>| -> Cell {
            value.as_ref().map_or_else(|| "N/A".to_string(), ToString::to_string).into()
        };
        vec![
            columns::name(&budget.metadata),
            shown(&budget.spec.min_available),
            shown(&budget.spec.max_unavailable),
            budget.status.disruptions_allowed.into(),
            columns::age(&budget.metadata, now),
        ]
    }
}
