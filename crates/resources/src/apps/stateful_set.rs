//! Stateful sets: pods with names and storage of their own, in order.

use super::{amount, at_most_all, count_or_percent, not_decremented, selector_text};
use crate::columns::{self, AGE, CONTAINERS, Cell, Column, IMAGES, NAME};
use crate::core::persistent_volume_claim::validation as claim;
use crate::core::pod::defaults::{claim_spec, fill};
use crate::core::pod_template;
use crate::names;
use crate::object_meta::not_negative;
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetSpec};
use api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use api::core::v1::{PersistentVolumeClaimVolumeSource, Volume};
use meta::field::{Errors, Json, Path};
use meta::{Time, validation};

pub struct StatefulSets;

const CHANGEABLE: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
const HISTORY: &str = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";

impl Strategy for StatefulSets {
    type Object = StatefulSet;
    const PLURAL: &'static str = "statefulsets";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Ready"), AGE, CONTAINERS, IMAGES];
    const NAME: names::Rule = names::dns_label;
    with_spec!();
    with_status!();

    fn default(object: &mut StatefulSet) {
        let spec = &mut object.spec;
        pod_template::default_spec(&mut spec.template);
        for template in &mut spec.volume_claim_templates {
            claim_spec(&mut template.spec);
            fill(&mut template.status.phase, "Pending");
            template.kind = "PersistentVolumeClaim".into();
            template.api_version = "v1".into();
        }
        fill(&mut spec.pod_management_policy, "OrderedReady");
        let strategy = &mut spec.update_strategy;
        if strategy.r#type.is_empty() {
            strategy.r#type = "RollingUpdate".into();
            strategy.rolling_update.get_or_insert_default();
        }
        if strategy.r#type == "RollingUpdate"
            && let Some(rolling) = &mut strategy.rolling_update
        {
            rolling.partition.get_or_insert(0);
        }
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        fill(&mut retention.when_deleted, "Retain");
        fill(&mut retention.when_scaled, "Retain");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
    }

    fn validate(new: &StatefulSet, old: Option<&StatefulSet>, errors: &mut Errors) {
        let path = Path::new("spec");
        validate_spec(&new.spec, old.is_some(), &path, errors);
        let Some(old) = old else { return };
        let mut rest = new.spec.clone();
        rest.replicas = old.spec.replicas;
        rest.template = old.spec.template.clone();
        rest.update_strategy = old.spec.update_strategy.clone();
        rest.min_ready_seconds = old.spec.min_ready_seconds;
        rest.ordinals = old.spec.ordinals.clone();
        rest.revision_history_limit = old.spec.revision_history_limit;
        rest.persistent_volume_claim_retention_policy =
            old.spec.persistent_volume_claim_retention_policy.clone();
        if rest != old.spec {
            errors.forbidden(&path, CHANGEABLE);
        }
    }

    fn validate_status(new: &StatefulSet, old: &StatefulSet, errors: &mut Errors) {
        let (status, path) = (&new.status, Path::new("status"));
        let parts = [
            (status.ready_replicas, "readyReplicas"),
            (status.current_replicas, "currentReplicas"),
            (status.updated_replicas, "updatedReplicas"),
            (status.available_replicas, "availableReplicas"),
        ];
        not_negative(i64::from(status.replicas), &path.child("replicas"), errors);
        for (count, field) in parts {
            not_negative(i64::from(count), &path.child(field), errors);
        }
        not_negative(status.observed_generation, &path.child("observedGeneration"), errors);
        not_decremented(status.collision_count, old.status.collision_count, errors);
        for (count, field) in parts.into_iter().filter(|(count, _)| *count > status.replicas) {
            errors.invalid(&path.child(field), count, "cannot be greater than status.replicas");
        }
        if status.available_replicas > status.ready_replicas {
            let field = path.child("availableReplicas");
            let detail = "cannot be greater than status.readyReplicas";
            errors.invalid(&field, status.available_replicas, detail);
        }
    }

    fn warnings(new: &StatefulSet, old: Option<&StatefulSet>) -> Vec<String> {
        let template = old.map(|old| &old.spec.template);
        let mut warnings = Vec::new();
        if template != Some(&new.spec.template) {
            let path = Path::new("spec").child("template");
            warnings.extend(pod_template::warnings(&new.spec.template, &path));
        }
        if new.spec.revision_history_limit.is_some_and(|limit| limit < 0) {
            warnings.push(HISTORY.into());
        }
        warnings
    }

    fn row(object: &StatefulSet, now: Time) -> Vec<Cell> {
        let (names, images) = columns::containers(&object.spec.template);
        let ready = format!("{}/{}", object.status.ready_replicas, object.spec.replicas.unwrap_or(0));
        vec![
            columns::name(&object.metadata),
            ready.into(),
            columns::age(&object.metadata, now),
            names.into(),
            images.into(),
        ]
    }

    fn scale(object: &StatefulSet) -> Option<Scale> {
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
    fn set_scale(object: &mut StatefulSet, scale: &Scale) {
        object.spec.replicas = Some(scale.spec.replicas);
    }
}

fn validate_spec(spec: &StatefulSetSpec, is_update: bool, path: &Path, errors: &mut Errors) {
    let policy = path.child("podManagementPolicy");
    match spec.pod_management_policy.as_str() {
        "" => errors.required(&policy, ""),
        "OrderedReady" | "Parallel" => {}
        other => errors.invalid(&policy, other, "must be 'OrderedReady' or 'Parallel'"),
    }
    let (strategy, field) = (&spec.update_strategy, path.child("updateStrategy"));
    match (strategy.r#type.as_str(), &strategy.rolling_update) {
        ("", _) => errors.required(&field, ""),
        ("OnDelete", Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&field.child("rollingUpdate"), Json(rolling.as_ref()), detail);
        }
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &field.child("rollingUpdate"), errors),
        ("OnDelete" | "RollingUpdate", None) => {}
        _ => errors.invalid(&field, Json(strategy), "must be 'RollingUpdate' or 'OnDelete'"),
    }
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for (value, field) in
            [(&retention.when_deleted, "whenDeleted"), (&retention.when_scaled, "whenScaled")]
        {
            if value != "Retain" && value != "Delete" {
                errors.not_supported(&path.child(field), value, &["Retain", "Delete"]);
            }
        }
    }
    // Claim templates and the service's name never change: what was stored once is let be.
    if !is_update {
        for (index, template) in spec.volume_claim_templates.iter().enumerate() {
            let path = path.child("volumeClaimTemplates").index(index).child("spec");
            claim::spec(&template.spec, &path, errors);
        }
    }
    not_negative(i64::from(spec.replicas.unwrap_or(0)), &path.child("replicas"), errors);
    not_negative(i64::from(spec.min_ready_seconds), &path.child("minReadySeconds"), errors);
    if let Some(ordinals) = &spec.ordinals {
        not_negative(i64::from(ordinals.start), &path.child("ordinals.start"), errors);
    }
    if !is_update && !spec.service_name.is_empty() {
        let faults = validation::dns1123_label(&spec.service_name);
        errors.invalid_each(&path.child("serviceName"), &spec.service_name, faults);
    }
    super::selects_template(spec.selector.as_deref(), &spec.template, "statefulset", path, errors);
    validate_template(spec, &path.child("template"), errors);
}

/// The template as its pods will have it: host names are given later, and claims become volumes.
fn validate_template(spec: &StatefulSetSpec, path: &Path, errors: &mut Errors) {
    let mut template = spec.template.clone();
    template.spec.hostname.clear();
    template.spec.subdomain.clear();
    let claims = &spec.volume_claim_templates;
    template.spec.volumes.retain(|volume| !claims.iter().any(|claim| claim.metadata.name == volume.name));
    for claim in claims {
        let mut volume = Volume { name: claim.metadata.name.clone(), ..Default::default() };
        volume.volume_source.persistent_volume_claim = Some(Box::new(PersistentVolumeClaimVolumeSource {
            claim_name: claim.metadata.name.clone(),
            ..Default::default()
        }));
        template.spec.volumes.push(volume);
    }
    pod_template::validate_spec(&template, path, errors);
    let path = path.child("spec");
    if template.spec.restart_policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), &template.spec.restart_policy, &["Always"]);
    }
    if template.spec.active_deadline_seconds.is_some() {
        let field = path.child("activeDeadlineSeconds");
        errors.forbidden(&field, "activeDeadlineSeconds in StatefulSet is not Supported");
    }
}

fn rolling_update(rolling: &RollingUpdateStatefulSetStrategy, path: &Path, errors: &mut Errors) {
    not_negative(i64::from(rolling.partition.unwrap_or(0)), &path.child("partition"), errors);
    if let Some(unavailable) = &rolling.max_unavailable {
        let field = path.child("maxUnavailable");
        count_or_percent(unavailable, &field, errors);
        if amount(unavailable) == 0 {
            errors.invalid(&field, unavailable, "cannot be 0");
        }
        at_most_all(unavailable, &field, errors);
    }
}
