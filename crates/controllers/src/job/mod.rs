//! Jobs: pods until enough of them succeed, each counted exactly once.
//!
//! A finished pod keeps a finalizer until the status names it as uncounted; it loses the finalizer then, and only when
//! the view shows it gone does it move from the uncounted to the counted. Each of these steps waits behind the write
//! fence for the one before.

mod indexes;
mod policy;

use crate::controller::{Context, Controller, Watch};
use crate::ownership::{claim, controller_key};
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use crate::replicas::{candidates, owners_of_pod, pod_from_template};
use api::Typed;
use api::batch::v1::{Job, JobCondition, JobStatus};
use api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use indexes::{INDEX, index_of, indexes, ranges};
use meta::Time;
use policy::Verdict;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// Pods created or deleted in one plan, and uncounted pods named in the status, as upstream.
const BURST: usize = 500;
const UNCOUNTED_MAX: usize = 500;
/// The wait before a failed pod is replaced, doubled with each failure up to the last.
const BACKOFF_SECONDS: i64 = 10;
const BACKOFF_SECONDS_MAX: i64 = 600;

/// How long a job must have been missing before its pods are let go.
const ORPHAN_SECONDS: i64 = 2;
/// Why a job fails: reasons of its condition and of the event.
const REASONS: [&str; 5] = [
    "BackoffLimitExceeded",
    "DeadlineExceeded",
    "PodFailurePolicy",
    "MaxFailedIndexesExceeded",
    "FailedIndexes",
];

/// The pause after so many failures in a row, in seconds.
fn pause(failures: usize) -> i64 {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    (BACKOFF_SECONDS << doublings).min(BACKOFF_SECONDS_MAX)
}

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
        let Some(job) = context.view.get::<Job>(context.key) else {
            free_orphans(context, &mut plan);
            return plan;
        };
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
        if let Some(ending) = work.ending() {
            match ending.r#type.as_str() {
                "SuccessCriteriaMet" => work.withdraw(work.active.clone(), &mut plan),
                _ => work.delete(work.active.clone(), &mut plan),
            }
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

/// Pods of a job that is gone are counted by nobody: their finalizer goes, once it is certain that the view of jobs
/// is not merely behind that of pods.
fn free_orphans(context: &Context<'_>, plan: &mut Plan) {
    const MARK: &str = "gone";
    let of_job =
        |pod: &Arc<Pod>| tracked(pod) && controller_key::<Job>(&pod.metadata).as_ref() == Some(context.key);
    let orphans: Vec<Arc<Pod>> =
        context.view.in_namespace::<Pod>(&context.key.namespace).filter(of_job).collect();
    if orphans.is_empty() {
        return;
    }
    if context.seconds_marked(MARK) >= ORPHAN_SECONDS {
        free(orphans.iter(), plan);
    } else {
        plan.again_after_seconds(ORPHAN_SECONDS);
    }
    plan.mark = MARK.into();
}

fn free<'p>(pods: impl Iterator<Item = &'p Arc<Pod>>, plan: &mut Plan) {
    for pod in pods.filter(|pod| tracked(pod)) {
        let body = serde_json::json!({"metadata": {
            "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING],
        }});
        plan.push(Action::Patch { target: Target::of(pod.as_ref()), subresource: "", strategic: true, body });
    }
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
    /// Indexes that are given up; `None` where there is no limit per index.
    given_up: Option<BTreeSet<i32>>,
    /// The last failed pod of each index that still waits for its successor, which notes its failures.
    awaiting: BTreeMap<i32, Arc<Pod>>,
}

impl<'a> Work<'a> {
    fn new(job: &'a Job, pods: Vec<Arc<Pod>>, context: &'a Context<'a>) -> Self {
        let active = pods.iter().filter(|pod| pod::is_active(pod)).cloned().collect();
        let completed = indexes(&job.status.completed_indexes);
        let status = job.status.clone();
        let mut work = Work {
            job,
            context,
            pods,
            active,
            status,
            succeeded: 0,
            failed: 0,
            completed,
            given_up: None,
            awaiting: BTreeMap::new(),
        };
        if work.indexed() && job.spec.backoff_limit_per_index.is_some() {
            let tracked = work.pods.iter().filter(|pod| tracked(pod)).map(AsRef::as_ref);
            work.given_up = Some(policy::failed_indexes(job, tracked));
            work.awaiting = work.find_awaiting();
        }
        work
    }

    /// Failed pods that keep their finalizer until their index has a pod again: it takes over their count of failures.
    fn find_awaiting(&self) -> BTreeMap<i32, Arc<Pod>> {
        let given_up = self.given_up.as_ref();
        let busy: BTreeSet<i32> = self.active.iter().filter_map(|pod| index_of(pod)).collect();
        let fresh = |pod: &&Arc<Pod>| pod.status.phase == "Succeeded" && tracked(pod);
        let done: BTreeSet<i32> = self.pods.iter().filter(fresh).filter_map(|pod| index_of(pod)).collect();
        let mut awaiting: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| tracked(pod) && policy::is_failed(self.job, pod)) {
            let Some(index) = index_of(pod).filter(|index| *index < self.job.spec.completions.unwrap_or(0))
            else {
                continue;
            };
            if busy.contains(&index)
                || done.contains(&index)
                || self.completed.contains(&index)
                || given_up.is_some_and(|given_up| given_up.contains(&index))
            {
                continue;
            }
            let later = |known: &Pod| {
                policy::failures_before(known) <= policy::failures_before(pod)
                    && policy::finished_at(pod) >= policy::finished_at(known)
            };
            if awaiting.get(&index).is_none_or(|known| later(known)) {
                awaiting.insert(index, pod.clone());
            }
        }
        awaiting
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
        let ending = self.ending();
        let deleted = self.job.metadata.deletion_timestamp.is_some();
        let failing = ending.as_ref().is_some_and(|ending| ending.r#type == "FailureTarget");
        let succeeded_early = ending.as_ref().is_some_and(|ending| ending.r#type == "SuccessCriteriaMet");
        let over = ending.is_some() || deleted;
        let completions = self.job.spec.completions.unwrap_or(0);
        let mut held_back = 0;
        let mut freed: Vec<Arc<Pod>> = Vec::new();
        for pod in self.pods.iter().filter(|pod| tracked(pod)) {
            let uid = &pod.metadata.uid;
            let failed = policy::is_failed(self.job, pod) || (failing && pod.status.phase != "Succeeded");
            if pod.status.phase != "Succeeded" && !failed {
                // Whoever is left when a job has succeeded, or is deleted, is no failure.
                if succeeded_early || (over && pod::is_finished(pod)) {
                    freed.push(pod.clone());
                }
                continue;
            }
            if failed && !over && index_of(pod).is_some_and(|index| self.is_awaiting(index, uid)) {
                held_back += i32::from(policy::verdict(self.job, pod) != Verdict::Ignore);
                continue;
            }
            if named.contains(uid) || (failed && policy::verdict(self.job, pod) == Verdict::Ignore) {
                freed.push(pod.clone());
                continue;
            }
            if failed && indexed && index_of(pod).is_none_or(|index| index >= completions) {
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
        self.failed = self.status.failed + number(&uncounted.failed) + held_back;
        if let Some(given_up) = &self.given_up {
            self.status.failed_indexes = Some(ranges(given_up));
        }
        self.status.uncounted_terminated_pods = Some(Box::new(uncounted));
        if self.status.start_time.is_none() && !self.suspended() {
            self.status.start_time = Some(self.context.now);
        }
    }

    fn is_awaiting(&self, index: i32, uid: &str) -> bool {
        self.awaiting.get(&index).is_some_and(|pod| pod.metadata.uid == uid)
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
        if let Some(why) = policy::job_failure(self.job, self.pods.iter().map(AsRef::as_ref)) {
            self.set_condition("FailureTarget", "True", "PodFailurePolicy", &why);
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
        if let Some(given_up) = &self.given_up {
            let many = spec.max_failed_indexes.and_then(|max| usize::try_from(max).ok());
            let all = usize::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
            if many.is_some_and(|max| given_up.len() > max) {
                let text = "Job has exceeded the specified maximal number of failed indexes";
                self.set_condition("FailureTarget", "True", "MaxFailedIndexesExceeded", text);
                return;
            }
            if !given_up.is_empty() && given_up.len() + self.completed.len() >= all {
                self.set_condition("FailureTarget", "True", "FailedIndexes", "Job has failed indexes");
                return;
            }
        }
        if let Some(text) = policy::success(self.job, &self.completed) {
            self.set_condition("SuccessCriteriaMet", "True", "SuccessPolicy", &text);
            return;
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
            self.withdraw(self.active.clone(), plan);
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
        let surplus = usize::try_from(active - wanted).unwrap_or(0);
        let (mut needless, others) = match self.indexed() {
            true => indexes::split_needless(
                &self.active,
                self.job.spec.completions.unwrap_or(0),
                self.context.now,
            ),
            false => (Vec::new(), self.active.clone()),
        };
        let more = surplus.saturating_sub(needless.len());
        needless.extend(pod::deletion_order(others, &[], self.context.now).into_iter().take(more));
        if !needless.is_empty() {
            needless.truncate(BURST);
            self.withdraw(needless, plan);
            return;
        }
        let replace_late = policy::replaces_late(self.job);
        let leaving = self.pods.iter().filter(|pod| replace_late && pod::is_terminating(pod)).count();
        let missing = usize::try_from(wanted - active).unwrap_or(0).saturating_sub(leaving).min(BURST);
        if missing == 0 {
            return;
        }
        let wait = if self.given_up.is_some() { 0 } else { self.backoff() };
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
            let given_up = |index: &i32| self.given_up.as_ref().is_some_and(|known| known.contains(index));
            let free: Vec<i32> = all
                .filter(|index| !busy.contains(index) && !self.completed.contains(index) && !given_up(index))
                .take(missing)
                .collect();
            self.due(free, plan).into_iter().map(Some).collect()
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

    /// Those of the indexes whose last failure is long enough ago; comes back for the others where it is for none.
    fn due(&self, free: Vec<i32>, plan: &mut Plan) -> Vec<i32> {
        let now = self.context.now.seconds();
        let wait = |index: &i32| {
            let Some(pod) = self.awaiting.get(index) else { return 0 };
            let failures = usize::try_from(policy::failures_before(pod)).unwrap_or(0) + 1;
            let ended = policy::finished_at(pod).map_or(now, |time| time.seconds());
            ended + pause(failures) - now
        };
        let (due, waiting): (Vec<i32>, Vec<i32>) = free.into_iter().partition(|index| wait(index) <= 0);
        if let Some(least) = waiting.iter().map(wait).min() {
            plan.again_after_seconds(least);
        }
        due
    }

    /// Seconds until a pod may take the place of those that failed since the last success.
    fn backoff(&self) -> i64 {
        let of = |wanted: &dyn Fn(&Pod) -> bool| {
            let pods = self.pods.iter().filter(|pod| wanted(pod));
            pods.filter_map(|pod| policy::finished_at(pod)).collect::<Vec<Time>>()
        };
        let last_success = of(&|pod| pod.status.phase == "Succeeded").into_iter().max();
        let failed =
            |pod: &Pod| pod.status.phase == "Failed" || (tracked(pod) && policy::is_failed(self.job, pod));
        let failures: Vec<Time> = of(&failed).into_iter().filter(|time| Some(*time) > last_success).collect();
        let Some(last) = failures.iter().max() else { return 0 };
        last.seconds() + pause(failures.len()) - self.context.now.seconds()
    }

    fn pod(&self, index: Option<i32>) -> Pod {
        let mut pod = pod_from_template(&self.job.spec.template, &self.job.metadata, Job::gvk());
        if !tracked(&pod) {
            pod.metadata.finalizers.push(TRACKING.into());
        }
        let Some(index) = index else { return pod };
        if self.given_up.is_some() {
            let replaced = self.awaiting.get(&index).map(AsRef::as_ref);
            pod.metadata.annotations.extend(policy::failure_notes(self.job, replaced));
        }
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

    /// Deletes pods that shall not count as failed: they are freed first.
    fn withdraw(&self, pods: Vec<Arc<Pod>>, plan: &mut Plan) {
        free(pods.iter(), plan);
        self.delete(pods, plan);
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
            let reason = REASONS.into_iter().find(|known| *known == ending.reason).unwrap_or(REASONS[0]);
            plan.events.push(Note::warning(self.job, reason, ending.message.clone()));
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
