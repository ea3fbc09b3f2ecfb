//! What a job may be, and what of it may change: its parallelism, and while it is suspended where its pods go.

use crate::core::pod_template;
use crate::object_meta::{IMMUTABLE, immutable, not_negative};
use api::batch::v1::{
    Job, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};
use meta::field::{Errors, Json, Path};
use meta::{Message, validation};

const PARALLELISM_MAX: i32 = 100_000;
const FAILED_INDEXES_MAX: i32 = 100_000;
/// Above so many completions the limits below hold, when each index has its own backoff.
const MANY_COMPLETIONS: i32 = 100_000;
const MANY_LIMIT: i32 = 10_000;
const FAILURE_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;
const SUCCESS_RULES_MAX: usize = 20;
const MANAGED_BY_MAX_BYTES: usize = 63;

/// Checks a job's spec, also in templates of jobs; selectors are not looked at.
pub(crate) fn spec(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    for (value, field) in [
        (spec.parallelism.map(i64::from), "parallelism"),
        (spec.completions.map(i64::from), "completions"),
        (spec.active_deadline_seconds, "activeDeadlineSeconds"),
        (spec.backoff_limit.map(i64::from), "backoffLimit"),
        (spec.ttl_seconds_after_finished.map(i64::from), "ttlSecondsAfterFinished"),
        (spec.backoff_limit_per_index.map(i64::from), "backoffLimitPerIndex"),
        (spec.max_failed_indexes.map(i64::from), "maxFailedIndexes"),
    ] {
        not_negative(value.unwrap_or(0), &path.child(field), errors);
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &spec.managed_by {
        managed_by(manager, &path.child("managedBy"), errors);
    }
    indexes(spec, path, errors);
    if let Some(policy) = &spec.pod_failure_policy {
        let path = path.child("podFailurePolicy").child("rules");
        if policy.rules.len() > FAILURE_RULES_MAX {
            errors.too_many(&path, policy.rules.len(), FAILURE_RULES_MAX);
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            failure_rule(spec, rule, &path.index(index), errors);
        }
    }
    success(spec, &path.child("successPolicy"), errors);
    replacement(spec, &path.child("podReplacementPolicy"), errors);
    let template = path.child("template");
    pod_template::validate_spec(&spec.template, &template, errors);
    restart(spec, &template.child("spec").child("restartPolicy"), errors);
}

fn managed_by(manager: &str, path: &Path, errors: &mut Errors) {
    let parts = manager.split_once('/');
    match parts {
        None => errors.invalid(path, manager, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
        Some((domain, rest)) => {
            errors.invalid_each(path, domain, validation::dns1123_subdomain(domain));
            if rest.is_empty() {
                errors.invalid(path, manager, "must be a domain-prefixed path (such as \"acme.io/foo\")");
            }
        }
    }
    if manager.len() > MANAGED_BY_MAX_BYTES {
        errors.too_long(path, MANAGED_BY_MAX_BYTES);
    }
}

fn indexes(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let mode = spec.completion_mode.as_deref();
    if let Some(mode) = mode.filter(|mode| !matches!(*mode, "NonIndexed" | "Indexed")) {
        errors.not_supported(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    let (parallelism, failed) = (path.child("parallelism"), path.child("maxFailedIndexes"));
    if mode != Some("Indexed") {
        for (value, field) in [
            (spec.backoff_limit_per_index, "backoffLimitPerIndex"),
            (spec.max_failed_indexes, "maxFailedIndexes"),
        ] {
            if let Some(value) = value {
                errors.invalid(&path.child(field), value, "requires indexed completion mode");
            }
        }
        return;
    }
    if spec.completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if let Some(count) = spec.parallelism.filter(|count| *count > PARALLELISM_MAX) {
        let detail =
            format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        errors.invalid(&parallelism, count, detail);
    }
    let completions = spec.completions.unwrap_or(i32::MAX);
    if let Some(count) = spec.max_failed_indexes {
        if count > completions {
            errors.invalid(&failed, count, "must be less than or equal to completions");
        }
        if count > FAILED_INDEXES_MAX {
            errors.invalid(&failed, count, format!("must be less than or equal to {FAILED_INDEXES_MAX}"));
        }
    }
    let many = spec.completions.is_some_and(|completions| completions > MANY_COMPLETIONS);
    if !many || spec.backoff_limit_per_index.is_none() {
        return;
    }
    let detail = format!(
        "must be less than or equal to {MANY_LIMIT} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
    );
    if spec.max_failed_indexes.is_none() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.required(&failed, detail);
    }
    for (value, field) in [(spec.parallelism, &parallelism), (spec.max_failed_indexes, &failed)] {
        if let Some(value) = value.filter(|value| *value > MANY_LIMIT) {
            errors.invalid(field, value, &*detail);
        }
    }
}

fn failure_rule(spec: &JobSpec, rule: &PodFailurePolicyRule, path: &Path, errors: &mut Errors) {
    let action = path.child("action");
    let known = ["Count", "FailIndex", "FailJob", "Ignore"];
    match rule.action.as_str() {
        "" => errors.required(&action, format!("valid values: {}", quoted(&known))),
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            errors.invalid(&action, &rule.action, "requires the backoffLimitPerIndex to be set");
        }
        other if !known.contains(&other) => errors.not_supported(&action, other, &known),
        _ => {}
    }
    if let Some(codes) = &rule.on_exit_codes {
        exit_codes(spec, codes, &path.child("onExitCodes"), errors);
    }
    let patterns = path.child("onPodConditions");
    if rule.on_pod_conditions.len() > PATTERNS_MAX {
        errors.too_many(&patterns, rule.on_pod_conditions.len(), PATTERNS_MAX);
    }
    for (index, pattern) in rule.on_pod_conditions.iter().enumerate() {
        let path = patterns.index(index);
        let faults = validation::qualified_name(&pattern.r#type);
        errors.invalid_each(&path.child("type"), &pattern.r#type, faults);
        let known = ["False", "True", "Unknown"];
        if pattern.status.is_empty() {
            errors.required(&path.child("status"), format!("valid values: {}", quoted(&known)));
        } else if !known.contains(&pattern.status.as_str()) {
            errors.not_supported(&path.child("status"), &pattern.status, &known);
        }
    }
    let detail = match (&rule.on_exit_codes, rule.on_pod_conditions.is_empty()) {
        (Some(_), false) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (None, true) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.invalid(path, Json(rule), detail);
    if let Some(error) = errors.0.last_mut() {
        // The rule itself is too long to show.
        error.value = None;
    }
}

fn quoted(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn exit_codes(
    spec: &JobSpec,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    path: &Path,
    errors: &mut Errors,
) {
    let operator = path.child("operator");
    let known = ["In", "NotIn"];
    if codes.operator.is_empty() {
        errors.required(&operator, format!("valid values: {}", quoted(&known)));
    } else if !known.contains(&codes.operator.as_str()) {
        errors.not_supported(&operator, &codes.operator, &known);
    }
    if let Some(name) = &codes.container_name {
        let pod = &spec.template.spec;
        let mut all = pod.containers.iter().chain(&pod.init_containers);
        if !all.any(|container| container.name == *name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            errors.invalid(&path.child("containerName"), name, detail);
        }
    }
    let values = path.child("values");
    if codes.values.is_empty() {
        errors.invalid(&values, Json(&codes.values), "at least one value is required");
    } else if codes.values.len() > EXIT_CODES_MAX {
        errors.too_many(&values, codes.values.len(), EXIT_CODES_MAX);
    }
    for (index, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.invalid(&values.index(index), *code, "must not be 0 for the In operator");
        }
        if codes.values[..index].contains(code) {
            errors.duplicate(&values.index(index), *code);
        }
    }
    if !codes.values.is_sorted() {
        errors.invalid(&values, Json(&codes.values), "must be ordered");
    }
}

fn success(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let Some(policy) = &spec.success_policy else { return };
    if spec.completion_mode.as_deref() != Some("Indexed") {
        errors.invalid(path, Json(policy.as_ref()), "requires indexed completion mode");
        return;
    }
    let rules = path.child("rules");
    if policy.rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.required(&rules, detail);
    }
    if policy.rules.len() > SUCCESS_RULES_MAX {
        errors.too_many(&rules, policy.rules.len(), SUCCESS_RULES_MAX);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        success_rule(spec, rule, &rules.index(index), errors);
    }
}

fn success_rule(spec: &JobSpec, rule: &SuccessPolicyRule, path: &Path, errors: &mut Errors) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.required(path, detail);
    }
    let Some(count) = rule.succeeded_count else { return };
    let field = path.child("succeededCount");
    if count <= 0 {
        errors.invalid(&field, count, "must be greater than 0");
    }
    if let Some(completions) = spec.completions.filter(|completions| count > *completions) {
        let detail =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&field, count, detail);
    }
}

fn replacement(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let Some(policy) = &spec.pod_replacement_policy else { return };
    let known: &[&str] =
        if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if !known.contains(&policy.as_str()) {
        errors.not_supported(path, policy, known);
    }
}

fn restart(spec: &JobSpec, path: &Path, errors: &mut Errors) {
    let policy = spec.template.spec.restart_policy.as_str();
    match policy {
        "Always" | "" => errors.required(path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(path, policy, detail);
        }
        "OnFailure" | "Never" => {}
        other => errors.not_supported(path, other, &["OnFailure", "Never"]),
    }
}

pub(super) fn update(new: &Job, old: &Job, path: &Path, errors: &mut Errors) {
    let (is, was) = (&new.spec, &old.spec);
    completions(is, was, &path.child("completions"), errors);
    if is.selector != was.selector {
        let shown = is.selector.as_deref().cloned().unwrap_or_default();
        errors.invalid(&path.child("selector"), Json(&shown), IMMUTABLE);
    }
    template(new, old, path, errors);
    immutable(&is.completion_mode, &was.completion_mode, &path.child("completionMode"), errors);
    same(
        is.pod_failure_policy.as_deref(),
        was.pod_failure_policy.as_deref(),
        &path.child("podFailurePolicy"),
        errors,
    );
    let field = path.child("backoffLimitPerIndex");
    immutable(&is.backoff_limit_per_index, &was.backoff_limit_per_index, &field, errors);
    immutable(&is.managed_by, &was.managed_by, &path.child("managedBy"), errors);
    same(is.success_policy.as_deref(), was.success_policy.as_deref(), &path.child("successPolicy"), errors);
}

fn same<T: Message + PartialEq + Default + Clone>(
    new: Option<&T>,
    old: Option<&T>,
    path: &Path,
    errors: &mut Errors,
) {
    if new != old {
        errors.invalid(path, Json(&new.cloned().unwrap_or_default()), IMMUTABLE);
    }
}

/// An indexed job may grow and shrink with its parallelism.
fn completions(new: &JobSpec, old: &JobSpec, path: &Path, errors: &mut Errors) {
    if new.completions == old.completions {
        return;
    }
    let indexed = old.completion_mode.as_deref() == Some("Indexed");
    if !indexed || new.completions.is_none() || old.completions.is_none() {
        errors.invalid(path, new.completions, IMMUTABLE);
    } else if new.completions != new.parallelism {
        let detail = format!(
            "can only be modified in tandem with parallelism; {} {IMMUTABLE}",
            new.completions.unwrap_or(0)
        );
        errors.invalid(path, new.completions, detail);
    }
}

/// While a job waits, its pods may still be sent elsewhere and be given other resources.
fn template(new: &Job, old: &Job, path: &Path, errors: &mut Errors) {
    let (is, mut was) = (&new.spec.template, old.spec.template.clone());
    let suspended = old.spec.suspend == Some(true);
    let condition = old.status.conditions.iter().any(|it| it.r#type == "Suspended" && it.status == "True");
    let idle = old.status.active == 0 && (old.status.start_time.is_none() || condition);
    if suspended && idle {
        was.spec.node_selector = is.spec.node_selector.clone();
        was.spec.tolerations = is.spec.tolerations.clone();
        was.spec.scheduling_gates = is.spec.scheduling_gates.clone();
        was.metadata.annotations = is.metadata.annotations.clone();
        was.metadata.labels = is.metadata.labels.clone();
        let wanted = is.spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
        if is.spec.affinity.is_some() || was.spec.affinity.is_some() {
            was.spec.affinity.get_or_insert_default().node_affinity = wanted;
        }
        if is.spec.affinity.is_none() && was.spec.affinity.as_deref() == Some(&Default::default()) {
            was.spec.affinity = None;
        }
        let containers = was.spec.containers.iter_mut().zip(&is.spec.containers);
        for (before, after) in
            containers.chain(was.spec.init_containers.iter_mut().zip(&is.spec.init_containers))
        {
            before.resources = after.resources.clone();
        }
    }
    if *is != was {
        errors.invalid(&path.child("template"), Json(is), IMMUTABLE);
    }
}
