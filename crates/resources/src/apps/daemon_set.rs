//! Daemon sets: one pod on every node that fits.

use super::{amount, at_most_all, count_or_percent, not_decremented};
use crate::columns::{self, AGE, CONTAINERS, Cell, Column, IMAGES, NAME, SELECTOR};
use crate::core::pod::defaults::fill;
use crate::core::pod_template;
use crate::object_meta::{IMMUTABLE, not_negative};
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::apps::v1::{DaemonSet, DaemonSetUpdateStrategy};
use meta::field::{Errors, Json, Path};
use meta::{IntOrString, Time};

pub struct DaemonSets;

/// How often the template changed; a field in older versions.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &DaemonSet) -> i64 {
    object.metadata.annotations.get(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Strategy for DaemonSets {
    type Object = DaemonSet;
    const PLURAL: &'static str = "daemonsets";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::integer("Desired"),
        Column::integer("Current"),
        Column::integer("Ready"),
        Column::integer("Up-to-date"),
        Column::integer("Available"),
        Column::string("Node Selector"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];
    with_spec!();
    with_status!();

    fn default(object: &mut DaemonSet) {
        let spec = &mut object.spec;
        pod_template::default_spec(&mut spec.template);
        fill(&mut spec.update_strategy.r#type, "RollingUpdate");
        if spec.update_strategy.r#type == "RollingUpdate" {
            let rolling = spec.update_strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(10);
    }

    fn prepare_for_create(object: &mut DaemonSet) {
        // A generation that the user states is kept, but not less than the first.
        let generation = template_generation(object).max(1);
        object.metadata.annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string());
    }

    fn prepare_for_update(new: &mut DaemonSet, old: &DaemonSet) {
        let changed = new.spec.template != old.spec.template;
        let generation = template_generation(old) + i64::from(changed);
        new.metadata.annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string());
    }

    fn validate(new: &DaemonSet, old: Option<&DaemonSet>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        if old.is_some_and(|old| old.spec.selector != spec.selector) {
            let selector = spec.selector.as_deref().cloned().unwrap_or_default();
            errors.invalid(&path.child("selector"), Json(&selector), IMMUTABLE);
        }
        super::selects_template(spec.selector.as_deref(), &spec.template, "daemonset", &path, errors);
        let template = path.child("template");
        pod_template::validate_spec(&spec.template, &template, errors);
        let pod = template.child("spec");
        if spec.template.spec.restart_policy != "Always" {
            let policy = &spec.template.spec.restart_policy;
            errors.not_supported(&pod.child("restartPolicy"), policy, &["Always"]);
        }
        if spec.template.spec.active_deadline_seconds.is_some() {
            let field = pod.child("activeDeadlineSeconds");
            errors.forbidden(&field, "activeDeadlineSeconds in DaemonSet is not Supported");
        }
        not_negative(i64::from(spec.min_ready_seconds), &path.child("minReadySeconds"), errors);
        update_strategy(&spec.update_strategy, &path.child("updateStrategy"), errors);
        if let Some(limit) = spec.revision_history_limit {
            not_negative(i64::from(limit), &path.child("revisionHistoryLimit"), errors);
        }
    }

    fn validate_status(new: &DaemonSet, old: &DaemonSet, errors: &mut Errors) {
        let (status, path) = (&new.status, Path::new("status"));
        for (count, field) in [
            (status.current_number_scheduled, "currentNumberScheduled"),
            (status.number_misscheduled, "numberMisscheduled"),
            (status.desired_number_scheduled, "desiredNumberScheduled"),
            (status.number_ready, "numberReady"),
            (status.updated_number_scheduled, "updatedNumberScheduled"),
            (status.number_available, "numberAvailable"),
            (status.number_unavailable, "numberUnavailable"),
        ] {
            not_negative(i64::from(count), &path.child(field), errors);
        }
        not_negative(status.observed_generation, &path.child("observedGeneration"), errors);
        not_decremented(status.collision_count, old.status.collision_count, errors);
    }

    fn warnings(new: &DaemonSet, old: Option<&DaemonSet>) -> Vec<String> {
        if old.is_some_and(|old| old.spec.template == new.spec.template) {
            return Vec::new();
        }
        pod_template::warnings(&new.spec.template, &Path::new("spec").child("template"))
    }

    fn row(object: &DaemonSet, now: Time) -> Vec<Cell> {
        let (spec, status) = (&object.spec, &object.status);
        let (names, images) = columns::containers(&spec.template);
        vec![
            columns::name(&object.metadata),
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.into(),
            status.number_available.into(),
            columns::labels(&spec.template.spec.node_selector).into(),
            columns::age(&object.metadata, now),
            names.into(),
            images.into(),
            columns::selector(spec.selector.as_deref()).into(),
        ]
    }
}

fn update_strategy(strategy: &DaemonSetUpdateStrategy, path: &Path, errors: &mut Errors) {
    let field = path.child("rollingUpdate");
    match (strategy.r#type.as_str(), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.required(&field, ""),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (field.child("maxUnavailable"), field.child("maxSurge"));
            let nothing = IntOrString::Int(0);
            let max_unavailable = rolling.max_unavailable.as_ref().unwrap_or(&nothing);
            let max_surge = rolling.max_surge.as_ref().unwrap_or(&nothing);
            count_or_percent(max_unavailable, &unavailable, errors);
            count_or_percent(max_surge, &surge, errors);
            at_most_all(max_unavailable, &unavailable, errors);
            at_most_all(max_surge, &surge, errors);
            match (amount(max_unavailable) != 0, amount(max_surge) != 0) {
                (true, true) => {
                    errors.invalid(&surge, max_surge, "may not be set when maxUnavailable is non-zero");
                }
                (false, false) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => errors.not_supported(path, Json(strategy), &["RollingUpdate", "OnDelete"]),
    }
}
