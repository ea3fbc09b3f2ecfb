//! Cron jobs: a job for each time that their schedule is due.
//!
//! A job's name holds its time, so that none is made twice; a job that the status does not name yet, but whose time is
//! later than the last one there, is taken into it: whoever made it stopped before it could.

mod calendar;

use crate::controller::{Context, Controller, Watch};
use crate::ownership::{controller_key, controller_of, controller_reference};
use crate::plan::{Action, Note, Plan, Propagation, Step, Target, reference};
use api::Typed;
use api::batch::v1::{CronJob, CronJobStatus, Job};
use calendar::{Missed, Past};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use meta::{ObjectKey, Time};
use resources::batch::cron::{self, Schedule};
use std::sync::Arc;
use std::time::Duration;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Clocks differ a little: a job is looked for so long after it is due.
const SKEW: Duration = Duration::from_millis(100);

pub struct CronJobs {
    /// The zone of schedules that name none.
    zone: TimeZone,
}

impl Default for CronJobs {
    fn default() -> Self {
        CronJobs { zone: TimeZone::UTC }
    }
}

impl CronJobs {
    /// `data` is the machine's zone in the form of RFC 8536, as in `/etc/localtime`; UTC where it is not.
    pub fn in_zone(data: &[u8]) -> Self {
        CronJobs { zone: TimeZone::tzif("Local", data).unwrap_or(TimeZone::UTC) }
    }

    /// As [`CronJobs::in_zone`], by a name such as `Europe/Madrid`.
    pub fn in_named_zone(name: &str) -> Self {
        CronJobs { zone: calendar::zone(name).unwrap_or(TimeZone::UTC) }
    }
}

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<CronJob>(),
            Watch::new::<Job>(|_, old, new| {
                let owners = [old, new].into_iter().flatten();
                let mut keys: Vec<ObjectKey> =
                    owners.filter_map(|job| controller_key::<CronJob>(&job.metadata)).collect();
                keys.dedup();
                keys
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(cron_job) = context.view.get::<CronJob>(context.key) else { return plan };
        let mut work = Work {
            cron_job: &cron_job,
            context,
            jobs: context
                .view
                .owned_by::<Job>(&cron_job.metadata.uid)
                .filter(|job| owns(&cron_job, job))
                .collect(),
            status: cron_job.status.clone(),
            local: &self.zone,
        };
        work.clean_up(&mut plan);
        work.take_stock(&mut plan);
        work.forget_missing(&mut plan);
        work.start(&mut plan);
        if work.status != cron_job.status {
            let mut next = CronJob::clone(&cron_job);
            next.status = work.status;
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            plan.steps.push(Step::new(update).always());
        }
        plan
    }
}

fn owns(cron_job: &CronJob, job: &Job) -> bool {
    controller_of(&job.metadata).is_some_and(|owner| owner.uid == cron_job.metadata.uid)
}

/// `Complete` or `Failed`, where the job is over.
fn ending(job: &Job) -> Option<&str> {
    let mut conditions = job.status.conditions.iter();
    let over = |kind: &str| matches!(kind, "Complete" | "Failed");
    conditions.find(|c| over(&c.r#type) && c.status == "True").map(|c| c.r#type.as_str())
}

fn job_name(cron_job: &CronJob, scheduled: i64) -> String {
    format!("{}-{}", cron_job.metadata.name, scheduled.div_euclid(60))
}

/// One look at a cron job.
struct Work<'a> {
    cron_job: &'a CronJob,
    context: &'a Context<'a>,
    jobs: Vec<Arc<Job>>,
    status: CronJobStatus,
    local: &'a TimeZone,
}

impl Work<'_> {
    fn normal(&self, reason: &'static str, message: impl Into<String>) -> Note {
        Note::normal(self.cron_job, reason, message)
    }

    fn warning(&self, reason: &'static str, message: impl Into<String>) -> Note {
        Note::warning(self.cron_job, reason, message)
    }

    fn is_active(&self, uid: &str) -> bool {
        self.status.active.iter().any(|known| known.uid == uid)
    }

    fn delete(&mut self, job: &Job, plan: &mut Plan) {
        let target = Target::of(job);
        let propagation = Some(Propagation::Background);
        plan.steps.push(
            Step::new(Action::Delete { target, propagation, grace_seconds: None })
                .done(self.normal("SuccessfulDelete", format!("Deleted job {}", job.metadata.name)))
                .failed(self.warning("FailedDelete", "Deleted job: {error}")),
        );
        self.status.active.retain(|known| known.uid != job.metadata.uid);
    }

    /// Deletes the oldest finished jobs beyond the history limits.
    fn clean_up(&mut self, plan: &mut Plan) {
        let spec = &self.cron_job.spec;
        for (kind, limit) in
            [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
        {
            let Some(limit) = limit else { continue };
            let mut over: Vec<Arc<Job>> =
                self.jobs.iter().filter(|job| ending(job) == Some(kind)).cloned().collect();
            over.sort_by_key(|job| {
                let start = job.status.start_time;
                (start.is_none(), start, job.metadata.name.clone())
            });
            let surplus = over.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in over.iter().take(surplus) {
                if job.metadata.deletion_timestamp.is_none() {
                    self.delete(job, plan);
                }
            }
        }
    }

    /// When a job that this controller made was due.
    fn scheduled(&self, job: &Job) -> Option<Time> {
        let time = Time::parse(job.metadata.annotations.get(SCHEDULED)?)?;
        (job.metadata.name == job_name(self.cron_job, time.seconds())).then_some(time)
    }

    /// Brings the list of active jobs and the times of the status up to what the jobs say.
    fn take_stock(&mut self, plan: &mut Plan) {
        for job in self.jobs.clone() {
            let known = self.is_active(&job.metadata.uid);
            let end = ending(&job);
            if !known
                && let Some(due) =
                    self.scheduled(&job).filter(|due| Some(*due) > self.status.last_schedule_time)
            {
                self.status.last_schedule_time = Some(due);
                if end.is_none() {
                    self.status.active.push(reference(job.as_ref()));
                }
            } else if !known && end.is_none() {
                let text =
                    format!("Saw a job that the controller did not create or forgot: {}", job.metadata.name);
                plan.events.push(self.warning("UnexpectedJob", text));
            }
            let Some(end) = end else { continue };
            if known {
                self.status.active.retain(|active| active.uid != job.metadata.uid);
                let text = format!("Saw completed job: {}, condition: {end}", job.metadata.name);
                plan.events.push(self.normal("SawCompletedJob", text));
            }
            if end == "Complete" && job.status.completion_time > self.status.last_successful_time {
                self.status.last_successful_time = job.status.completion_time;
            }
        }
    }

    /// Jobs of the list that are gone leave it, as soon as the view of jobs is as new as the list.
    fn forget_missing(&mut self, plan: &mut Plan) {
        let view = self.context.view;
        if view.revision(view::kind_id::<Job>()) < view::revision_of(self.cron_job) {
            return;
        }
        let there: Vec<String> = self.jobs.iter().map(|job| job.metadata.uid.clone()).collect();
        let (kept, missing) =
            std::mem::take(&mut self.status.active).into_iter().partition(|known| there.contains(&known.uid));
        self.status.active = kept;
        for job in missing {
            plan.events.push(self.normal("MissingJob", format!("Active job went missing: {}", job.name)));
        }
    }

    /// The zone of the schedule; `None` where there is no such zone.
    fn zone(&self, text: &str) -> Option<TimeZone> {
        if let (Some(name), _) = cron::split_zone(text) {
            return calendar::zone(name);
        }
        match self.cron_job.spec.time_zone.as_deref() {
            Some(name) => calendar::zone(name),
            None => Some(self.local.clone()),
        }
    }

    fn schedule(&self, plan: &mut Plan) -> Option<(Schedule, TimeZone)> {
        let spec = &self.cron_job.spec;
        if let Some(name) = spec.time_zone.as_deref().filter(|name| calendar::zone(name).is_none()) {
            let text = format!("invalid timeZone: {name:?}: unknown time zone {name}");
            plan.events.push(self.warning("UnknownTimeZone", text));
            return None;
        }
        if spec.suspend == Some(true) {
            return None;
        }
        let text = &spec.schedule;
        if text.contains("TZ") {
            let more =
                "see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
            let text = format!("CRON_TZ or TZ used in schedule {text:?} is not officially supported, {more}");
            plan.events.push(self.warning("UnsupportedSchedule", text));
        }
        let zone = self.zone(text).ok_or_else(|| {
            let name = cron::split_zone(text).0.unwrap_or_default();
            format!("provided bad location {name}: unknown time zone {name}")
        });
        match zone.and_then(|zone| Ok((cron::parse(text)?, zone))) {
            Ok(found) => Some(found),
            Err(why) => {
                let text = format!("unparseable schedule: {text:?} : {why}");
                plan.events.push(self.warning("UnparseableSchedule", text));
                None
            }
        }
    }

    /// From when on times may have been missed.
    fn since(&self, deadline: Option<i64>) -> i64 {
        let created = self.cron_job.metadata.creation_timestamp;
        let last = self.status.last_schedule_time.or(created).map_or(0, |time| time.seconds());
        let now = self.context.now.seconds();
        deadline.map_or(last, |seconds| last.max(now.saturating_sub(seconds)))
    }

    /// Comes back when the schedule is due next.
    fn come_back(&self, schedule: &Schedule, zone: &TimeZone, plan: &mut Plan) {
        let now = self.context.now.seconds();
        let from = match calendar::past(schedule, self.since(None), now, zone) {
            Ok(Past { latest: Some(latest), .. }) => latest,
            Ok(Past { from, missed: Missed::None, .. }) => from,
            _ => now,
        };
        if let Some(due) = calendar::next(schedule, from, zone) {
            plan.again_after(Duration::from_secs((due - now).max(0).unsigned_abs()) + SKEW);
        }
    }

    fn start(&mut self, plan: &mut Plan) {
        if self.cron_job.metadata.deletion_timestamp.is_some() {
            return;
        }
        let Some((schedule, zone)) = self.schedule(plan) else { return };
        let (spec, now) = (&self.cron_job.spec, self.context.now.seconds());
        let past = match calendar::past(&schedule, self.since(spec.starting_deadline_seconds), now, &zone) {
            Ok(past) => past,
            Err(why) => {
                let text = format!("invalid schedule: {} : {why}", spec.schedule);
                plan.events.push(self.warning("InvalidSchedule", text));
                return;
            }
        };
        if let Some(due) = past.latest {
            if past.missed == Missed::Many {
                let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                plan.events.push(self.warning("TooManyMissedTimes", text));
            }
            self.start_for(due, plan);
        }
        self.come_back(&schedule, &zone, plan);
    }

    /// Makes the job of a time that is due, unless something speaks against it.
    fn start_for(&mut self, due: i64, plan: &mut Plan) {
        let (spec, now) = (&self.cron_job.spec, self.context.now.seconds());
        if spec.starting_deadline_seconds.is_some_and(|seconds| due.saturating_add(seconds) < now) {
            let time = Timestamp::from_second(due).unwrap_or_default();
            let time = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            plan.events
                .push(self.warning("MissSchedule", format!("Missed scheduled time to start a job: {time}")));
            return;
        }
        let name = job_name(self.cron_job, due);
        let key = ObjectKey::new(self.cron_job.metadata.namespace.clone(), name.clone());
        let done = self.status.last_schedule_time.is_some_and(|last| last.seconds() == due);
        // A job of another owner that has the name is let be, as is the time that it stands for.
        if done
            || self.status.active.iter().any(|known| known.name == name)
            || self.context.view.get::<Job>(&key).is_some()
        {
            return;
        }
        match spec.concurrency_policy.as_str() {
            "Forbid" if !self.status.active.is_empty() => {
                let text =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                plan.events.push(self.normal("JobAlreadyActive", text));
                return;
            }
            "Replace" => {
                for active in self.status.active.clone() {
                    let key = ObjectKey::new(active.namespace.clone(), active.name.clone());
                    if let Some(job) = self.context.view.get_by_uid::<Job>(&key, &active.uid) {
                        self.delete(&job, plan);
                    }
                }
            }
            _ => {}
        }
        plan.steps.push(
            Step::new(Action::Create(Box::new(self.job(name, due))))
                .done(self.normal("SuccessfulCreate", "Created job {name}"))
                .failed(self.warning("FailedCreate", "Error creating job: {error}")),
        );
    }

    fn job(&self, name: String, due: i64) -> Job {
        let (template, metadata) = (&self.cron_job.spec.job_template, &self.cron_job.metadata);
        let mut job = Job { spec: template.spec.clone(), ..Job::default() };
        job.metadata.namespace.clone_from(&metadata.namespace);
        job.metadata.name = name;
        job.metadata.labels.clone_from(&template.metadata.labels);
        job.metadata.annotations.clone_from(&template.metadata.annotations);
        let zone = self.cron_job.spec.time_zone.as_deref().and_then(calendar::zone).unwrap_or(TimeZone::UTC);
        job.metadata.annotations.insert(SCHEDULED.into(), rfc3339(due, zone));
        job.metadata.owner_references.push(controller_reference(CronJob::gvk(), metadata));
        job
    }
}

/// A time in its zone, with `Z` where that is UTC's.
fn rfc3339(seconds: i64, zone: TimeZone) -> String {
    let time = ZonedDateTime::new(Timestamp::from_second(seconds).unwrap_or_default(), zone);
    let form = if time.offset().is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    time.strftime(form).to_string()
}
