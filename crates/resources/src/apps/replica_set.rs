//! Replica sets: so many pods of one template.

use super::selector_text;
use crate::columns::{self, AGE, CONTAINERS, Cell, Column, IMAGES, NAME, SELECTOR};
use crate::core::pod_template;
use crate::object_meta::{IMMUTABLE, not_negative};
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::apps::v1::ReplicaSet;
use api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use meta::Time;
use meta::field::{Errors, Json, Path};

pub struct ReplicaSets;

impl Strategy for ReplicaSets {
    type Object = ReplicaSet;
    const PLURAL: &'static str = "replicasets";
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
    with_spec!();
    with_status!();

    fn default(object: &mut ReplicaSet) {
        pod_template::default_spec(&mut object.spec.template);
        object.spec.replicas.get_or_insert(1);
    }

    fn validate(new: &ReplicaSet, old: Option<&ReplicaSet>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        not_negative(i64::from(spec.replicas.unwrap_or(0)), &path.child("replicas"), errors);
        not_negative(i64::from(spec.min_ready_seconds), &path.child("minReadySeconds"), errors);
        super::selects_template(spec.selector.as_deref(), &spec.template, "replicaset", &path, errors);
        super::validate_template(&spec.template, &path.child("template"), errors);
        if old.is_some_and(|old| old.spec.selector != spec.selector) {
            let selector = spec.selector.as_deref().cloned().unwrap_or_default();
            errors.invalid(&path.child("selector"), Json(&selector), IMMUTABLE);
        }
    }

    fn validate_status(new: &ReplicaSet, _old: &ReplicaSet, errors: &mut Errors) {
        let status = &new.status;
        super::validate_replica_counts(
            status.replicas,
            status.fully_labeled_replicas,
            status.ready_replicas,
            status.available_replicas,
            errors,
        );
    }

    fn warnings(new: &ReplicaSet, old: Option<&ReplicaSet>) -> Vec<String> {
        super::owner_warnings(&new.metadata, &new.spec.template, old.map(|old| &old.spec.template))
    }

    fn selectable(object: &ReplicaSet) -> Vec<(&'static str, String)> {
        vec![("status.replicas", object.status.replicas.to_string())]
    }

    fn row(object: &ReplicaSet, now: Time) -> Vec<Cell> {
        let (names, images) = columns::containers(&object.spec.template);
        vec![
            columns::name(&object.metadata),
            object.spec.replicas.unwrap_or(0).into(),
            object.status.replicas.into(),
            object.status.ready_replicas.into(),
            columns::age(&object.metadata, now),
            names.into(),
            images.into(),
            columns::selector(object.spec.selector.as_deref()).into(),
        ]
    }

    fn scale(object: &ReplicaSet) -> Option<Scale> {
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
    fn set_scale(object: &mut ReplicaSet, scale: &Scale) {
        object.spec.replicas = Some(scale.spec.replicas);
    }
}
