//! What a failed pod means to its job, by the job's pod failure policy, and when enough indexes have succeeded.

use super::indexes::{index_of, indexes};
use crate::pod;
use api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use api::core::v1::{ContainerStatus, Pod};
use meta::Time;
use std::collections::BTreeSet;

const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Whether pods that are on their way out are waited for before they are replaced.
pub(super) fn replaces_late(job: &Job) -> bool {
    job.spec.pod_replacement_policy.as_deref() == Some("Failed") || job.spec.pod_failure_policy.is_some()
}

/// A pod that is being deleted has failed at once where it is replaced at once: it may never reach its end.
pub(super) fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pod.status.phase.as_str() {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_late(job),
    }
}

/// What a failure leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Count,
    Ignore,
    FailIndex,
    /// The whole job fails, for this reason.
    FailJob(String),
}

/// The verdict of the first rule that matches a failed pod.
pub(super) fn verdict(job: &Job, pod: &Pod) -> Verdict {
    let rules = job.spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let Some(matched) = matched(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{matched} matching FailJob rule at index {index}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// What of a pod matches a rule, in words.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
    if let Some(codes) = &rule.on_exit_codes {
        let statuses = &pod.status;
        let mut all = statuses.container_statuses.iter().chain(&statuses.init_container_statuses);
        let (container, code) = all.find_map(|status| Some((&status.name, exit_code(status, codes)?)))?;
        return Some(format!("Container {container} for pod {name} failed with exit code {code}"));
    }
    let conditions = pod.status.conditions.iter();
    let mut met = conditions.filter(|known| {
        rule.on_pod_conditions
            .iter()
            .any(|wanted| wanted.r#type == known.r#type && wanted.status == known.status)
    });
    met.next().map(|condition| format!("Pod {name} has condition {}", condition.r#type))
}

/// The code by which a container failed, where the requirement asks for it.
fn exit_code(status: &ContainerStatus, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<i32> {
    let code = status.state.terminated.as_ref()?.exit_code;
    let named = wanted.container_name.as_ref().is_none_or(|name| *name == status.name);
    let listed = match wanted.operator.as_str() {
        "In" => wanted.values.contains(&code),
        "NotIn" => !wanted.values.contains(&code),
        _ => false,
    };
    (named && code != 0 && listed).then_some(code)
}

/// Why the whole job fails, where a failed pod says so.
pub(super) fn job_failure<'p>(job: &Job, pods: impl Iterator<Item = &'p Pod>) -> Option<String> {
    job.spec.pod_failure_policy.as_ref()?;
    pods.filter(|pod| is_failed(job, pod)).find_map(|pod| match verdict(job, pod) {
        Verdict::FailJob(why) => Some(why),
        _ => None,
    })
}

fn noted(pod: &Pod, name: &str) -> i32 {
    pod.metadata
        .annotations
        .get(name)
        .and_then(|text| text.parse().ok())
        .filter(|count| *count >= 0)
        .unwrap_or(0)
}

/// Failures of an index before this pod, counted and ignored ones.
pub(super) fn failures_before(pod: &Pod) -> i32 {
    noted(pod, FAILURES).saturating_add(noted(pod, IGNORED_FAILURES))
}

/// What the pod that takes another's place notes of the failures so far.
pub(super) fn failure_notes(job: &Job, replaced: Option<&Pod>) -> Vec<(String, String)> {
    let (mut failures, mut ignored) = (0, 0);
    if let Some(pod) = replaced {
        (failures, ignored) = (noted(pod, FAILURES), noted(pod, IGNORED_FAILURES));
        match verdict(job, pod) {
            Verdict::Ignore => ignored += 1,
            _ => failures += 1,
        }
    }
    let mut notes = vec![(FAILURES.to_string(), failures.to_string())];
    if ignored > 0 {
        notes.push((IGNORED_FAILURES.to_string(), ignored.to_string()));
    }
    notes
}

/// Whether a pod's failure is the last that its index may have.
fn fails_index(job: &Job, pod: &Pod) -> bool {
    if !is_failed(job, pod) {
        return false;
    }
    match verdict(job, pod) {
        Verdict::FailIndex => true,
        Verdict::Ignore => false,
        _ => job.spec.backoff_limit_per_index.is_some_and(|limit| noted(pod, FAILURES) >= limit),
    }
}

/// Indexes that are given up: those in the status, and those of tracked pods that failed since.
pub(super) fn failed_indexes<'p>(job: &Job, tracked: impl Iterator<Item = &'p Pod>) -> BTreeSet<i32> {
    let completions = job.spec.completions.unwrap_or(0);
    let mut failed = indexes(job.status.failed_indexes.as_deref().unwrap_or_default());
    let new = tracked.filter(|pod| fails_index(job, pod)).filter_map(index_of);
    failed.extend(new.filter(|index| *index < completions));
    failed
}

/// The first rule of the success policy that the indexes satisfy, in words.
pub(super) fn success(job: &Job, succeeded: &BTreeSet<i32>) -> Option<String> {
    let enough = |count: Option<i32>, has: usize| {
        count.is_some_and(|count| usize::try_from(count).is_ok_and(|count| has >= count))
    };
    let rules = &job.spec.success_policy.as_ref()?.rules;
    let index = rules.iter().position(|rule| match &rule.succeeded_indexes {
        None => enough(rule.succeeded_count, succeeded.len()),
        Some(text) => {
            let completions = job.spec.completions.unwrap_or(0);
            let wanted: BTreeSet<i32> =
                indexes(text).into_iter().filter(|index| *index < completions).collect();
            let has = wanted.intersection(succeeded).count();
            !wanted.is_empty() && (has == wanted.len() || enough(rule.succeeded_count, has))
        }
    })?;
    (!succeeded.is_empty()).then(|| format!("Matched rules at index {index}"))
}

/// When a pod came to its end, as far as can be told.
pub(super) fn finished_at(pod: &Pod) -> Option<Time> {
    let statuses = &pod.status;
    let sidecars = statuses.init_container_statuses.iter().filter(|status| {
        let mut known = pod.spec.init_containers.iter().filter(|container| container.name == status.name);
        known.any(|container| container.restart_policy.as_deref() == Some("Always"))
    });
    let ends: Option<Vec<Time>> = statuses
        .container_statuses
        .iter()
        .chain(sidecars)
        .map(|status| status.state.terminated.as_ref().and_then(|state| state.finished_at))
        .collect();
    let not_ready = || {
        let condition = pod::condition(pod, "Ready").filter(|condition| condition.status == "False");
        condition.and_then(|condition| condition.last_transition_time)
    };
    let deleted = || {
        let (at, grace) = (pod.metadata.deletion_timestamp?, pod.metadata.deletion_grace_period_seconds);
        Time::from_seconds(at.seconds() - grace.unwrap_or(0))
    };
    let ended = ends.and_then(|ends| ends.into_iter().max());
    ended.or_else(not_ready).or_else(deleted).or(pod.metadata.creation_timestamp)
}
