//! Jobs: pods until enough of them succeed, each counted exactly once.
//!
//! A finished pod keeps a finalizer until the status names it as uncounted; it loses the finalizer then, and only when
//! the view shows it gone does it move from the uncounted to the counted. Each of these steps waits behind the write
//! fence for the one before.

use crate::controller::{Context, Controller, Watch};
use crate::ownership::claim;
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use crate::replicas::{candidates, owners_of_pod, pod_from_template};
use api::Typed;
use api::batch::v1::{Job, JobCondition, JobStatus};
use api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use meta::Time;
use std::collections::BTreeSet;
use std::sync::Arc;

const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// Pods created or deleted in one plan, and uncounted pods named in the status, as upstream.
const BURST: usize = 500;
const UNCOUNTED_MAX: usize = 500;
/// The wait before a failed pod is replaced, doubled with each failure up to the last.
const BACKOFF_SECONDS: i64 = 10;
const BACKOFF_SECONDS_MAX: i64 = 600;

pub struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<Job>(),
            Watch::new::<Pod>(|view, old, new| {
                owners_of_pod::<Job>(view, old, new, |job, pod| {
                    api::optional_selector(job.spec.selector.as_deref())
                        .is_ok_and(|selector| selector.matches(&pod.metadata.labels))
                })
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = context.view.get::<Job>(context.key) else { return plan };
        let foreign = job.spec.managed_by.as_deref().is_some_and(|by| by != "kubernetes.io/job-controller");
        let Ok(selector) = api::optional_selector(job.spec.selector.as_deref()) else { return plan };
        if foreign || selector.is_everything() {
            return plan;
        }
        let pods = candidates(context.view, &job.metadata.namespace, &job.metadata.uid);
        let claimed = claim(&job.metadata, Job::gvk(), &selector, pods);
        if is_over(&job.status) {
            // Pods that outlived their job's end are not held by it.
            free(claimed.objects.iter().filter(|pod| pod::is_finished(pod)), &mut plan);
            return plan;
        }
        for action in claimed.actions {
            plan.push(action);
        }
        let mut work = Work::new(&job, claimed.objects, context);
        work.count(&mut plan);
        work.judge(&mut plan);
        if work.ending().is_some() {
            work.delete(work.active.clone(), &mut plan);
        } else if job.metadata.deletion_timestamp.is_none() {
            work.manage(&mut plan);
        }
        work.conclude(&mut plan);
        work.write(&mut plan);
        plan
    }
}

fn has(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().any(|condition| condition.r#type == kind && condition.status == "True")
}

fn is_over(status: &JobStatus) -> bool {
    has(status, "Complete") || has(status, "Failed")
}

fn tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().any(|finalizer| finalizer == TRACKING)
}

fn free<'p>(pods: impl Iterator<Item = &'p Arc<Pod>>, plan: &mut Plan) {
    for pod in pods.filter(|pod| tracked(pod)) {
        let body = serde_json::json!({"metadata": {
            "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }});
        plan.push(Action::Patch { target: Target::of(pod.as_ref()), subresource: "", strategic: true, body });
    }
}

/// A number, such as 3, or ranges of them, such as `0-2,5`.
fn indexes(text: &str) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            found.extend(first..=last);
        }
    }
    found
}

fn ranges(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => parts.push((*index, *index)),
        }
    }
    let text = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    parts.into_iter().map(text).collect::<Vec<_>>().join(",")
}

fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.get(INDEX)?.parse().ok()
}

/// One look at a job.
struct Work<'a> {
    job: &'a Job,
    context: &'a Context<'a>,
    pods: Vec<Arc<Pod>>,
    active: Vec<Arc<Pod>>,
    status: JobStatus,
    /// Everything that has ended, counted or not.
    succeeded: i32,
    failed: i32,
    completed: BTreeSet<i32>,
}

impl<'a> Work<'a> {
    fn new(job: &'a Job, pods: Vec<Arc<Pod>>, context: &'a Context<'a>) -> Self {
        let active = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
        let completed = indexes(&job.status.completed_indexes);
        let status = job.status.clone();
        Work { job, context, pods, active, status, succeeded: 0, failed: 0, completed }
    }

    fn indexed(&self) -> bool {
        self.job.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn suspended(&self) -> bool {
        self.job.spec.suspend == Some(true)
    }

    /// Moves pods that ended along: named as uncounted, freed, counted.
    fn count(&mut self, plan: &mut Plan) {
        let held: BTreeSet<&str> =
            self.pods.iter().filter(|pod| tracked(pod)).map(|pod| pod.metadata.uid.as_str()).collect();
        let mut uncounted = self.job.status.uncounted_terminated_pods.as_deref().cloned().unwrap_or_default();
        let named: BTreeSet<String> = uncounted.succeeded.iter().chain(&uncounted.failed).cloned().collect();
        let settle = |uids: &mut Vec<String>| {
            let before = uids.len();
            uids.retain(|uid| held.contains(uid.as_str()));
            i32::try_from(before - uids.len()).unwrap_or(0)
        };
        let indexed = self.indexed();
        let succeeded = settle(&mut uncounted.succeeded);
        self.status.failed += settle(&mut uncounted.failed);
        if !indexed {
            self.status.succeeded += succeeded;
        }
        let mut freed: Vec<Arc<Pod>> = Vec::new();
        for pod in self.pods.iter().filter(|pod| tracked(pod)) {
            let uid = &pod.metadata.uid;
            // A pod that is being deleted, by whom ever, has failed once it is over; before that it may still succeed.
            if !pod::is_finished(pod) {
                continue;
            }
            if named.contains(uid) {
                freed.push(pod.clone());
                continue;
            }
            if pod.status.phase == "Succeeded" && indexed {
                let index = index_of(pod).filter(|index| *index < self.job.spec.completions.unwrap_or(0));
                // The index in the status is what keeps it from being counted again.
                if index.is_none_or(|index| indexes(&self.job.status.completed_indexes).contains(&index)) {
                    freed.push(pod.clone());
                } else {
                    self.completed.extend(index);
                }
            } else if uncounted.succeeded.len() + uncounted.failed.len() < UNCOUNTED_MAX {
                let list = if pod.status.phase == "Succeeded" {
                    &mut uncounted.succeeded
                } else {
                    &mut uncounted.failed
                };
                list.push(uid.clone());
            }
        }
        free(freed.iter(), plan);
        let number = |uids: &Vec<String>| i32::try_from(uids.len()).unwrap_or(i32::MAX);
        if indexed {
            self.status.completed_indexes = ranges(&self.completed);
            self.status.succeeded = i32::try_from(self.completed.len()).unwrap_or(i32::MAX);
            self.succeeded = self.status.succeeded;
        } else {
            self.succeeded = self.status.succeeded + number(&uncounted.succeeded);
        }
        self.failed = self.status.failed + number(&uncounted.failed);
        self.status.uncounted_terminated_pods = Some(Box::new(uncounted));
        if self.status.start_time.is_none() && !self.suspended() {
            self.status.start_time = Some(self.context.now);
        }
    }

    /// Whether the job's end is decided: by which condition, and why.
    fn ending(&self) -> Option<JobCondition> {
        let interim = |kind: &str| {
            self.status.conditions.iter().find(|c| c.r#type == kind && c.status == "True").cloned()
        };
        interim("SuccessCriteriaMet").or_else(|| interim("FailureTarget"))
    }

    fn judge(&mut self, plan: &mut Plan) {
        if self.ending().is_some() {
            return;
        }
        let spec = &self.job.spec;
        let restarts: i32 = self
            .active
            .iter()
            .filter(|_| spec.template.spec.restart_policy == "OnFailure")
            .flat_map(|pod| pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses))
            .map(|status| status.restart_count)
            .sum();
        let limit = spec.backoff_limit.unwrap_or(6);
        if self.failed > limit || (restarts > 0 && restarts >= limit) {
            let text = "Job has reached the specified backoff limit";
            self.set_condition("FailureTarget", "True", "BackoffLimitExceeded", text);
            return;
        }
        if let (Some(limit), Some(start), false) =
            (spec.active_deadline_seconds, self.status.start_time, self.suspended())
        {
            let left = start.seconds() + limit - self.context.now.seconds();
            if left <= 0 {
                let text = "Job was active longer than specified deadline";
                self.set_condition("FailureTarget", "True", "DeadlineExceeded", text);
                return;
            }
            plan.again_after_seconds(left);
        }
        let done = match spec.completions {
            None => self.succeeded > 0 && self.active.is_empty(),
            Some(wanted) => self.succeeded >= wanted,
        };
        if done {
            let text = "Reached expected number of succeeded pods";
            self.set_condition("SuccessCriteriaMet", "True", "CompletionsReached", text);
        }
    }

    fn manage(&mut self, plan: &mut Plan) {
        let known = self.status.conditions.iter().find(|condition| condition.r#type == "Suspended");
        let was = known.map(|condition| condition.status.clone());
        if self.suspended() {
            self.delete(self.active.clone(), plan);
            if was.as_deref() != Some("True") {
                self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
                plan.events.push(Note::normal(self.job, "Suspended", "Job suspended"));
                self.status.start_time = None;
            }
            return;
        }
        if was.as_deref() == Some("True") {
            self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
            plan.events.push(Note::normal(self.job, "Resumed", "Job resumed"));
            self.status.start_time = Some(self.context.now);
        }
        let active = i32::try_from(self.active.len()).unwrap_or(i32::MAX);
        let parallelism = self.job.spec.parallelism.unwrap_or(1);
        let wanted = match self.job.spec.completions {
            None if self.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).min(parallelism).max(0),
        };
        if active > wanted {
            let surplus = usize::try_from(active - wanted).unwrap_or(0).min(BURST);
            let order = pod::deletion_order(self.active.clone(), &[], self.context.now);
            self.delete(order.into_iter().take(surplus).collect(), plan);
            return;
        }
        let replace_late = self.job.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let leaving = self.pods.iter().filter(|pod| replace_late && pod::is_terminating(pod)).count();
        let missing = usize::try_from(wanted - active).unwrap_or(0).saturating_sub(leaving).min(BURST);
        if missing == 0 {
            return;
        }
        let wait = self.backoff();
        if wait > 0 {
            plan.again_after_seconds(wait);
            return;
        }
        let free: Vec<Option<i32>> = if self.indexed() {
            let busy: BTreeSet<i32> = self
                .pods
                .iter()
                .filter(|pod| pod::is_active(pod) || (replace_late && pod::is_terminating(pod)))
                .filter_map(|pod| index_of(pod))
                .collect();
            let all = 0..self.job.spec.completions.unwrap_or(0);
            all.filter(|index| !busy.contains(index) && !self.completed.contains(index))
                .take(missing)
                .map(Some)
                .collect()
        } else {
            vec![None; missing]
        };
        for index in free {
            let create = Action::Create(Box::new(self.pod(index)));
            plan.steps.push(
                Step::new(create)
                    .done(Note::normal(self.job, "SuccessfulCreate", "Created pod: {name}"))
                    .failed(Note::warning(self.job, "FailedCreate", "Error creating: {error}")),
            );
        }
    }

    /// Seconds until a pod may take the place of those that failed since the last success.
    fn backoff(&self) -> i64 {
        let ended = |pod: &Arc<Pod>| {
            let statuses = pod.status.container_statuses.iter();
            let states = statuses.filter_map(|status| status.state.terminated.as_deref());
            states.filter_map(|state| state.finished_at).max().or(pod.metadata.creation_timestamp)
        };
        let of = |phase: &str| {
            let pods = self.pods.iter().filter(|pod| pod.status.phase == phase);
            pods.filter_map(ended).collect::<Vec<Time>>()
        };
        let last_success = of("Succeeded").into_iter().max();
        let failures: Vec<Time> =
            of("Failed").into_iter().filter(|time| Some(*time) > last_success).collect();
        let Some(last) = failures.iter().max() else { return 0 };
        let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(10);
        let wait = (BACKOFF_SECONDS << doublings).min(BACKOFF_SECONDS_MAX);
        last.seconds() + wait - self.context.now.seconds()
    }

    fn pod(&self, index: Option<i32>) -> Pod {
        let mut pod = pod_from_template(&self.job.spec.template, &self.job.metadata, Job::gvk());
        if !tracked(&pod) {
            pod.metadata.finalizers.push(TRACKING.into());
        }
        let Some(index) = index else { return pod };
        pod.metadata.generate_name = format!("{}-{index}-", self.job.metadata.name);
        pod.metadata.annotations.insert(INDEX.into(), index.to_string());
        pod.metadata.labels.insert(INDEX.into(), index.to_string());
        pod.spec.hostname = format!("{}-{index}", self.job.metadata.name);
        for container in pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers) {
            if container.env.iter().any(|known| known.name == INDEX_ENV) {
                continue;
            }
            let field_ref = ObjectFieldSelector {
                api_version: String::new(),
                field_path: format!("metadata.labels['{INDEX}']"),
            };
            let source = EnvVarSource { field_ref: Some(Box::new(field_ref)), ..EnvVarSource::default() };
            container.env.push(EnvVar {
                name: INDEX_ENV.into(),
                value: String::new(),
                value_from: Some(Box::new(source)),
            });
        }
        pod
    }

    /// Deletes pods, which then hold nothing up: whoever is over is counted on its way out.
    fn delete(&self, pods: Vec<Arc<Pod>>, plan: &mut Plan) {
        for pod in pods {
            let target = Target::of(pod.as_ref());
            let message = format!("Deleted pod: {}", pod.metadata.name);
            plan.steps.push(
                Step::new(Action::Delete { target, propagation: None, grace_seconds: None })
                    .done(Note::normal(self.job, "SuccessfulDelete", message))
                    .failed(Note::warning(self.job, "FailedDelete", "Error deleting: {error}")),
            );
        }
    }

    /// The end is told once no pod runs and all are counted.
    fn conclude(&mut self, plan: &mut Plan) {
        let Some(ending) = self.ending() else { return };
        let uncounted = self.status.uncounted_terminated_pods.as_deref();
        let counting = uncounted.is_some_and(|pods| !pods.succeeded.is_empty() || !pods.failed.is_empty());
        // Only what was decided in a status that is written already is concluded.
        if !has(&self.job.status, &ending.r#type)
            || counting
            || self.pods.iter().any(|p| !pod::is_finished(p))
        {
            return;
        }
        if ending.r#type == "SuccessCriteriaMet" {
            self.set_condition("Complete", "True", &ending.reason, &ending.message);
            self.status.completion_time = Some(self.context.now);
            plan.events.push(Note::normal(self.job, "Completed", "Job completed"));
        } else {
            self.set_condition("Failed", "True", &ending.reason, &ending.message);
            let mut note = Note::warning(self.job, "BackoffLimitExceeded", ending.message.clone());
            if ending.reason == "DeadlineExceeded" {
                note.reason = "DeadlineExceeded";
            }
            plan.events.push(note);
        }
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        self.status.conditions.retain(|condition| condition.r#type != kind);
        self.status.conditions.push(JobCondition {
            r#type: kind.into(),
            status: status.into(),
            last_probe_time: Some(self.context.now),
            last_transition_time: Some(self.context.now),
            reason: reason.into(),
            message: message.into(),
        });
    }

    fn write(&mut self, plan: &mut Plan) {
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        self.status.active = number(self.active.len());
        self.status.ready = Some(number(self.active.iter().filter(|pod| pod::is_ready(pod)).count()));
        self.status.terminating =
            Some(number(self.pods.iter().filter(|pod| pod::is_terminating(pod)).count()));
        if self.status != self.job.status {
            let mut next = self.job.clone();
            next.status = self.status.clone();
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            plan.steps.push(Step::new(update).always());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        let set = indexes("0-2,5,7,8");
        assert_eq!(set.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(ranges(&set), "0-2,5,7,8");
        assert_eq!(ranges(&BTreeSet::new()), "");
    }
}
