//! Resource quotas: how much a namespace may hold, of what, and for which pods.

use super::resource_names as names;
use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::object_meta::IMMUTABLE;
use crate::strategy::Strategy;
use crate::with_status;
use api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use meta::field::{Errors, Json, Path};
use meta::{Quantity, Time};
use std::collections::{BTreeMap, BTreeSet};

pub struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    type Object = ResourceQuota;
    const PLURAL: &'static str = "resourcequotas";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Request"), Column::string("Limit"), AGE];
    with_status!();

    fn default(quota: &mut ResourceQuota) {
        super::pod::defaults::round_up(&mut quota.spec.hard);
        super::pod::defaults::round_up(&mut quota.status.hard);
        super::pod::defaults::round_up(&mut quota.status.used);
    }

    fn validate(new: &ResourceQuota, old: Option<&ResourceQuota>, errors: &mut Errors) {
        let path = Path::new("spec");
        validate_list(&new.spec.hard, &path.child("hard"), errors);
        validate_scopes(&new.spec, &path, errors);
        validate_selector(&new.spec, &path, errors);
        let set = |quota: &ResourceQuota| quota.spec.scopes.iter().cloned().collect::<BTreeSet<_>>();
        if old.is_some_and(|old| set(old) != set(new)) {
            errors.invalid(&path.child("scopes"), Json(&new.spec.scopes), IMMUTABLE);
        }
    }

    fn validate_status(new: &ResourceQuota, _old: &ResourceQuota, errors: &mut Errors) {
        let path = Path::new("status");
        validate_list(&new.status.hard, &path.child("hard"), errors);
        validate_list(&new.status.used, &path.child("used"), errors);
    }

    fn warnings(new: &ResourceQuota, _old: Option<&ResourceQuota>) -> Vec<String> {
        ["cpu", "memory", "storage", "ephemeral-storage"]
            .iter()
            .filter_map(|name| {
                let request = new.spec.hard.get(&format!("requests.{name}"))?;
                let limit = new.spec.hard.get(&format!("limits.{name}"))?;
                (request > limit).then(|| {
                    format!(
                        "the value of {name} requests quota is greater than the value of {name} limits quota"
                    )
                })
            })
            .collect()
    }

    fn row(quota: &ResourceQuota, now: Time) -> Vec<Cell> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in &quota.status.hard {
            let used = quota.status.used.get(name).copied().unwrap_or_default();
            let list = if name.starts_with("limits.") { &mut limits } else { &mut requests };
            list.push(format!("{name}: {used}/{hard}"));
        }
        vec![
            columns::name(&quota.metadata),
            requests.join(", ").into(),
            limits.join(", ").into(),
            columns::age(&quota.metadata, now),
        ]
    }
}

fn validate_list(list: &BTreeMap<String, Quantity>, path: &Path, errors: &mut Errors) {
    for (name, amount) in list {
        let path = path.key(name);
        names::validate_quota(name, &path, errors);
        names::validate_amount(name, *amount, &path, errors);
    }
}

fn is_standard(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "VolumeAttributesClass"
            | "CrossNamespacePodAffinity"
    )
}

/// Whether a scope can select objects of which `resource` is counted.
fn applies(scope: &str, resource: &str) -> bool {
    let compute = || {
        matches!(
            resource,
            "cpu" | "memory" | "limits.cpu" | "limits.memory" | "requests.cpu" | "requests.memory"
        )
    };
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        scope if is_standard(scope) => resource == "pods" || compute(),
        _ => true,
    }
}

fn misapplied<'a>(spec: &'a ResourceQuotaSpec, scope: &'a str) -> impl Iterator<Item = &'a String> {
    spec.hard.keys().filter(move |name| names::is_standard_quota(name) && !applies(scope, name))
}

fn conflicts<'a>(scopes: impl Iterator<Item = &'a str>) -> usize {
    let set: BTreeSet<&str> = scopes.collect();
    let pairs = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
    pairs.iter().filter(|(one, other)| set.contains(one) && set.contains(other)).count()
}

fn validate_scopes(spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("scopes");
    for scope in &spec.scopes {
        if !is_standard(scope) {
            errors.invalid(&path, Json(&spec.scopes), "unsupported scope");
        }
        for _ in misapplied(spec, scope) {
            errors.invalid(&path, Json(&spec.scopes), "unsupported scope applied to resource");
        }
    }
    for _ in 0..conflicts(spec.scopes.iter().map(String::as_str)) {
        errors.invalid(&path, Json(&spec.scopes), "conflicting scopes");
    }
}

fn validate_selector(spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    let Some(selector) = &spec.scope_selector else { return };
    let path = path.child("scopeSelector").child("matchExpressions");
    for term in &selector.match_expressions {
        if !is_standard(&term.scope_name) {
            errors.invalid(&path.child("scopeName"), &term.scope_name, "unsupported scope");
        }
        for _ in misapplied(spec, &term.scope_name) {
            errors.invalid(&path, Json(selector.as_ref()), "unsupported scope applied to resource");
        }
        let by_value = matches!(term.scope_name.as_str(), "PriorityClass" | "VolumeAttributesClass");
        if is_standard(&term.scope_name) && !by_value && term.operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                &term.operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        let values = path.child("values");
        match (term.operator.as_str(), term.values.is_empty()) {
            ("In" | "NotIn", true) => errors.required(
                &values,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            ("Exists" | "DoesNotExist", false) => errors.invalid(
                &values,
                Json(&term.values),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
    for _ in 0..conflicts(selector.match_expressions.iter().map(|term| term.scope_name.as_str())) {
        errors.invalid(&path, Json(&spec.scopes), "conflicting scopes");
    }
}
