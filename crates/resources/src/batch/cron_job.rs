//! Cron jobs: jobs by the clock.

use super::{cron, job};
use crate::columns::{self, AGE, CONTAINERS, Cell, Column, IMAGES, NAME, SELECTOR};
use crate::core::pod::defaults::fill;
use crate::core::pod_template;
use crate::object_meta::not_negative;
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::batch::v1::CronJob;
use meta::Time;
use meta::field::{Errors, Json, Path};

pub struct CronJobs;

/// Eleven bytes are left for the time that jobs' names end in.
const NAME_MAX_BYTES: usize = 52;

fn name_rule(name: &str, prefix: bool) -> Vec<String> {
    let mut faults = crate::names::dns_subdomain(name, prefix);
    if name.len() > NAME_MAX_BYTES && !prefix {
        faults.push(format!("must be no more than {NAME_MAX_BYTES} characters"));
    }
    faults
}

impl Strategy for CronJobs {
    type Object = CronJob;
    const PLURAL: &'static str = "cronjobs";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Schedule"),
        Column::string("Timezone"),
        Column::boolean("Suspend"),
        Column::integer("Active"),
        Column::string("Last Schedule"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];
    const NAME: crate::names::Rule = name_rule;
    with_spec!();
    with_status!();

    fn default(object: &mut CronJob) {
        let spec = &mut object.spec;
        fill(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit.get_or_insert(3);
        spec.failed_jobs_history_limit.get_or_insert(1);
        job::default_template(&mut spec.job_template.spec);
    }

    fn validate(new: &CronJob, old: Option<&CronJob>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        let field = path.child("schedule");
        if spec.schedule.is_empty() {
            errors.required(&field, "");
        } else {
            schedule(new, old, &field, errors);
        }
        if let Some(seconds) = spec.starting_deadline_seconds {
            not_negative(seconds, &path.child("startingDeadlineSeconds"), errors);
        }
        if old.is_none_or(|old| old.spec.time_zone != spec.time_zone) {
            time_zone(spec.time_zone.as_deref(), &path.child("timeZone"), errors);
        }
        let policies = ["Allow", "Forbid", "Replace"];
        let field = path.child("concurrencyPolicy");
        if spec.concurrency_policy.is_empty() {
            errors.required(&field, "");
        } else if !policies.contains(&spec.concurrency_policy.as_str()) {
            errors.not_supported(&field, &spec.concurrency_policy, &policies);
        }
        let (jobs, at) = (&spec.job_template.spec, path.child("jobTemplate").child("spec"));
        job::validation::spec(jobs, &at, errors);
        if let Some(selector) = &jobs.selector {
            let detail = "`selector` will be auto-generated";
            errors.invalid(&at.child("selector"), Json(selector.as_ref()), detail);
        }
        if jobs.manual_selector == Some(true) {
            errors.not_supported(&at.child("manualSelector"), true, &["nil", "false"]);
        }
        for (limit, field) in [
            (spec.successful_jobs_history_limit, "successfulJobsHistoryLimit"),
            (spec.failed_jobs_history_limit, "failedJobsHistoryLimit"),
        ] {
            not_negative(i64::from(limit.unwrap_or(0)), &path.child(field), errors);
        }
    }

    fn warnings(new: &CronJob, old: Option<&CronJob>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            warnings.extend(crate::apps::name_warning(&new.metadata.name));
        }
        if old.is_none_or(|old| old.spec != new.spec) {
            let path = Path::new("spec").child("jobTemplate").child("spec").child("template");
            warnings.extend(pod_template::warnings(&new.spec.job_template.spec.template, &path));
        }
        if new.spec.schedule.contains("TZ") {
            warnings.push("spec.schedule: cannot use TZ or CRON_TZ in schedule, use timeZone instead".into());
        }
        warnings
    }

    fn row(object: &CronJob, now: Time) -> Vec<Cell> {
        let (spec, status) = (&object.spec, &object.status);
        let template = &spec.job_template.spec;
        let (names, images) = columns::containers(&template.template);
        let suspend = spec.suspend.map_or("<unset>", |suspend| if suspend { "True" } else { "False" });
        let last = status.last_schedule_time;
        vec![
            columns::name(&object.metadata),
            spec.schedule.clone().into(),
            columns::or_none(spec.time_zone.as_deref().unwrap_or_default()).into(),
            suspend.into(),
            status.active.len().into(),
            last.map_or_else(|| "<none>".to_string(), |last| columns::since(Some(last), now)).into(),
            columns::age(&object.metadata, now),
            names.into(),
            images.into(),
            columns::selector(template.selector.as_deref()).into(),
        ]
    }
}

fn schedule(new: &CronJob, old: Option<&CronJob>, path: &Path, errors: &mut Errors) {
    let text = &new.spec.schedule;
    if let Some(fault) = cron::fault(text) {
        errors.invalid(path, text, fault);
    }
    // Zones inside of a schedule are let be where they were before.
    let before = old.is_some_and(|old| old.spec.schedule.contains("TZ"));
    match (before, text.contains("TZ"), new.spec.time_zone.is_some()) {
        (true, true, true) => {
            errors.invalid(path, text, "cannot use both timeZone field and TZ or CRON_TZ in schedule");
        }
        (false, true, _) => {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.invalid(path, text, detail);
        }
        _ => {}
    }
}

/// The form of a zone's name; whether there is such a zone only its database knows.
fn time_zone(zone: Option<&str>, path: &Path, errors: &mut Errors) {
    let Some(zone) = zone else { return };
    if zone.is_empty() {
        return errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    }
    let fits = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
        !part.is_empty()
            && part.len() <= 14
            && part != "."
            && part != ".."
            && !part.starts_with('-')
            && part.bytes().all(known)
    };
    if !zone.split('/').all(fits) {
        return errors.invalid(path, zone, format!("unknown time zone {zone}"));
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, detail);
    }
}
