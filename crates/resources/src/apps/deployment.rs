//! Deployments: replica sets one after another, as the template changes.

use super::{amount, at_most_all, count_or_percent, not_decremented, selector_text};
use crate::columns::{self, AGE, CONTAINERS, Cell, Column, IMAGES, NAME, SELECTOR};
use crate::core::pod::defaults::fill;
use crate::core::pod_template;
use crate::object_meta::{IMMUTABLE, not_negative};
use crate::strategy::{StatusMetadata, Strategy};
use crate::with_status;
use api::apps::v1::{Deployment, DeploymentStatus, DeploymentStrategy, RollingUpdateDeployment};
use api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use meta::field::{Errors, Json, Path};
use meta::{IntOrString, Time};

pub struct Deployments;

impl Strategy for Deployments {
    type Object = Deployment;
    const PLURAL: &'static str = "deployments";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Ready"),
        Column::string("Up-to-date"),
        Column::string("Available"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];
    const STATUS_METADATA: StatusMetadata = StatusMetadata::KeepLabels;
    const GENERATION: bool = true;
    with_status!();

    /// Annotations count too: they are copied to replica sets.
    fn spec_changed(new: &Deployment, old: &Deployment) -> bool {
        new.spec != old.spec || new.metadata.annotations != old.metadata.annotations
    }

    fn default(object: &mut Deployment) {
        let spec = &mut object.spec;
        pod_template::default_spec(&mut spec.template);
        spec.replicas.get_or_insert(1);
        fill(&mut spec.strategy.r#type, "RollingUpdate");
        if spec.strategy.r#type == "RollingUpdate" {
            let rolling = spec.strategy.rolling_update.get_or_insert_default();
            let quarter = || IntOrString::String("25%".into());
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
    }

    fn validate(new: &Deployment, old: Option<&Deployment>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        not_negative(i64::from(spec.replicas.unwrap_or(0)), &path.child("replicas"), errors);
        super::selects_template(spec.selector.as_deref(), &spec.template, "deployment", &path, errors);
        super::validate_template(&spec.template, &path.child("template"), errors);
        strategy(&spec.strategy, &path.child("strategy"), errors);
        not_negative(i64::from(spec.min_ready_seconds), &path.child("minReadySeconds"), errors);
        if let Some(limit) = spec.revision_history_limit {
            not_negative(i64::from(limit), &path.child("revisionHistoryLimit"), errors);
        }
        if let Some(seconds) = spec.progress_deadline_seconds {
            let field = path.child("progressDeadlineSeconds");
            not_negative(i64::from(seconds), &field, errors);
            if seconds <= spec.min_ready_seconds {
                errors.invalid(&field, seconds, "must be greater than minReadySeconds");
            }
        }
        if old.is_some_and(|old| old.spec.selector != spec.selector) {
            let selector = spec.selector.as_deref().cloned().unwrap_or_default();
            errors.invalid(&path.child("selector"), Json(&selector), IMMUTABLE);
        }
    }

    fn validate_status(new: &Deployment, old: &Deployment, errors: &mut Errors) {
        status(&new.status, errors);
        not_decremented(new.status.collision_count, old.status.collision_count, errors);
    }

    fn warnings(new: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        super::owner_warnings(&new.metadata, &new.spec.template, old.map(|old| &old.spec.template))
    }

    fn row(object: &Deployment, now: Time) -> Vec<Cell> {
        let (spec, status) = (&object.spec, &object.status);
        let (names, images) = columns::containers(&spec.template);
        vec![
            columns::name(&object.metadata),
            format!("{}/{}", status.ready_replicas, spec.replicas.unwrap_or(0)).into(),
            status.updated_replicas.into(),
            status.available_replicas.into(),
            columns::age(&object.metadata, now),
            names.into(),
            images.into(),
            selector_text(spec.selector.as_deref()).into(),
        ]
    }

    fn scale(object: &Deployment) -> Option<Scale> {
        Some(Scale {
            metadata: super::scale_metadata(&object.metadata),
            spec: ScaleSpec { replicas: object.spec.replicas.unwrap_or(0) },
            status: ScaleStatus {
                replicas: object.status.replicas,
                selector: selector_text(object.spec.selector.as_deref()),
            },
            ..Default::default()
        })
    }
    fn set_scale(object: &mut Deployment, scale: &Scale) {
        object.spec.replicas = Some(scale.spec.replicas);
    }
}

fn strategy(strategy: &DeploymentStrategy, path: &Path, errors: &mut Errors) {
    let field = path.child("rollingUpdate");
    match (strategy.r#type.as_str(), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&field, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => errors.required(&field, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &field, errors),
        _ => errors.not_supported(path, Json(strategy), &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &RollingUpdateDeployment, path: &Path, errors: &mut Errors) {
    let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    let nothing = IntOrString::Int(0);
    let max_unavailable = rolling.max_unavailable.as_ref().unwrap_or(&nothing);
    let max_surge = rolling.max_surge.as_ref().unwrap_or(&nothing);
    count_or_percent(max_unavailable, &unavailable, errors);
    count_or_percent(max_surge, &surge, errors);
    if amount(max_unavailable) == 0 && amount(max_surge) == 0 {
        errors.invalid(&unavailable, max_unavailable, "may not be 0 when `maxSurge` is 0");
    }
    at_most_all(max_unavailable, &unavailable, errors);
}

fn status(status: &DeploymentStatus, errors: &mut Errors) {
    let path = Path::new("status");
    not_negative(status.observed_generation, &path.child("observedGeneration"), errors);
    for (count, field) in [
        (status.replicas, "replicas"),
        (status.updated_replicas, "updatedReplicas"),
        (status.ready_replicas, "readyReplicas"),
        (status.available_replicas, "availableReplicas"),
        (status.unavailable_replicas, "unavailableReplicas"),
        (status.terminating_replicas.unwrap_or(0), "terminatingReplicas"),
    ] {
        not_negative(i64::from(count), &path.child(field), errors);
    }
    for (count, field) in [
        (status.updated_replicas, "updatedReplicas"),
        (status.ready_replicas, "readyReplicas"),
        (status.available_replicas, "availableReplicas"),
    ] {
        if count > status.replicas {
            errors.invalid(&path.child(field), count, "cannot be greater than status.replicas");
        }
    }
    if status.available_replicas > status.ready_replicas {
        let field = path.child("availableReplicas");
        errors.invalid(&field, status.available_replicas, "cannot be greater than readyReplicas");
    }
}
