//! Replication controllers: the elder of replica sets; selector and labels default to the template's.

use super::pod_template;
use crate::columns::{self, AGE, CONTAINERS, Cell, Column, IMAGES, NAME, SELECTOR};
use crate::object_meta::not_negative;
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use api::core::v1::ReplicationController;
use meta::Time;
use meta::field::{Errors, Path};

pub struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    type Object = ReplicationController;
    const PLURAL: &'static str = "replicationcontrollers";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::integer("Desired"),
        Column::integer("Current"),
        Column::integer("Ready"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];
    const SELECTABLE: &'static [&'static str] = &["metadata.name", "metadata.namespace", "status.replicas"];
    // The first version left its pods behind, and still does.
    const ORPHANS: bool = true;
    with_spec!();
    with_status!();

    fn default(object: &mut ReplicationController) {
        let spec = &mut object.spec;
        if let Some(template) = &mut spec.template {
            pod_template::default_spec(template);
            if spec.selector.is_empty() {
                spec.selector = template.metadata.labels.clone();
            }
            if object.metadata.labels.is_empty() {
                object.metadata.labels = template.metadata.labels.clone();
            }
        }
        spec.replicas.get_or_insert(1);
    }

    fn validate(new: &ReplicationController, _old: Option<&ReplicationController>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        not_negative(i64::from(spec.min_ready_seconds), &path.child("minReadySeconds"), errors);
        if spec.selector.is_empty() {
            errors.required(&path.child("selector"), "");
        }
        let replicas = path.child("replicas");
        match spec.replicas {
            None => errors.required(&replicas, ""),
            Some(count) => not_negative(i64::from(count), &replicas, errors),
        }
        let path = path.child("template");
        let Some(template) = &spec.template else {
            errors.required(&path, "");
            return;
        };
        let labels = &template.metadata.labels;
        if spec.selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
            let field = path.child("metadata").child("labels");
            errors.invalid(&field, meta::field::Json(labels), "`selector` does not match template `labels`");
        }
        pod_template::validate_spec(template, &path, errors);
        crate::apps::require_restart_always(&template.spec, &path, errors);
    }

    fn validate_status(new: &ReplicationController, _old: &ReplicationController, errors: &mut Errors) {
        let status = &new.status;
        crate::apps::validate_replica_counts(
            status.replicas,
            status.fully_labeled_replicas,
            status.ready_replicas,
            status.available_replicas,
            errors,
        );
    }

    fn selectable(object: &ReplicationController) -> Vec<(&'static str, String)> {
        vec![("status.replicas", object.status.replicas.to_string())]
    }

    fn row(object: &ReplicationController, now: Time) -> Vec<Cell> {
        let template = object.spec.template.as_ref();
        let (names, images) = template.map(|template| columns::containers(template)).unwrap_or_default();
        vec![
            columns::name(&object.metadata),
            object.spec.replicas.unwrap_or(0).into(),
            object.status.replicas.into(),
            object.status.ready_replicas.into(),
            columns::age(&object.metadata, now),
            names.into(),
            images.into(),
            columns::labels(&object.spec.selector).into(),
        ]
    }

    fn scale(object: &ReplicationController) -> Option<Scale> {
        let terms: Vec<String> =
            object.spec.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Some(Scale {
            metadata: crate::apps::scale_metadata(&object.metadata),
            spec: ScaleSpec { replicas: object.spec.replicas.unwrap_or(0) },
            status: ScaleStatus { replicas: object.status.replicas, selector: terms.join(",") },
            ..Default::default()
        })
    }
    fn set_scale(object: &mut ReplicationController, scale: &Scale) {
        object.spec.replicas = Some(scale.spec.replicas);
    }
}
