//! Jobs: pods until enough of them succeeded. The selector is the job's own, by its uid.

use crate::apps::{matches_template, name_warning};
use crate::columns::{self, AGE, CONTAINERS, Cell, Column, IMAGES, NAME, SELECTOR, human_duration};
use crate::core::pod::defaults::fill;
use crate::core::pod_template;
use crate::object_meta::validate_selector;
use crate::strategy::Strategy;
use crate::{with_spec, with_status};
use api::batch::v1::{Job, JobSpec};
use meta::field::{Errors, Json, Path};
use meta::{Time, validation as text};

pub(super) mod validation;

pub struct Jobs;

/// The labels by which a job knows its pods: upstream's first names for them, and those with its prefix.
const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const BACKOFF_LIMIT: i32 = 6;

/// Defaults of a job's spec; a template of jobs has none of them but its pods'.
fn default_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let by_index = spec.backoff_limit_per_index.is_some();
    spec.backoff_limit.get_or_insert(if by_index { i32::MAX } else { BACKOFF_LIMIT });
    spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
    spec.suspend.get_or_insert(false);
    let replace = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    spec.pod_replacement_policy.get_or_insert_with(|| replace.into());
    spec.manual_selector.get_or_insert(false);
}

/// What is defaulted in templates of jobs as well.
pub(super) fn default_template(spec: &mut JobSpec) {
    pod_template::default_spec(&mut spec.template);
    for rule in spec.pod_failure_policy.iter_mut().flat_map(|policy| &mut policy.rules) {
        rule.on_pod_conditions.iter_mut().for_each(|pattern| fill(&mut pattern.status, "True"));
    }
}

fn is_true(job: &Job, kind: &str) -> bool {
    job.status.conditions.iter().any(|it| it.r#type == kind && it.status == "True")
}

impl Strategy for Jobs {
    type Object = Job;
    const PLURAL: &'static str = "jobs";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("Status"),
        Column::string("Completions"),
        Column::string("Duration"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ];
    const SELECTABLE: &'static [&'static str] = &["metadata.name", "metadata.namespace", "status.successful"];
    // The first version of jobs left their pods behind, and still does.
    const ORPHANS: bool = true;
    with_spec!();
    with_status!();

    fn default(job: &mut Job) {
        default_spec(&mut job.spec);
        default_template(&mut job.spec);
        if job.metadata.labels.is_empty() {
            job.metadata.labels = job.spec.template.metadata.labels.clone();
        }
    }

    fn prepare_for_create(job: &mut Job) {
        if job.spec.manual_selector == Some(true) {
            return;
        }
        let (name, uid) = (&job.metadata.name, &job.metadata.uid);
        let labels = &mut job.spec.template.metadata.labels;
        for (keys, value) in [(NAME_LABELS, name), (UID_LABELS, uid)] {
            for key in keys {
                labels.entry(key.into()).or_insert_with(|| value.clone());
            }
        }
        let selector = job.spec.selector.get_or_insert_default();
        selector.match_labels.entry(UID_LABELS[1].into()).or_insert_with(|| uid.clone());
    }

    fn validate(new: &Job, old: Option<&Job>, errors: &mut Errors) {
        let path = Path::new("spec");
        generated_selector(new, old, errors);
        validation::spec(&new.spec, &path, errors);
        let selector = new.spec.selector.as_deref();
        if selector.is_none() {
            errors.required(&path.child("selector"), "");
        }
        validate_selector(selector, &path.child("selector"), errors);
        matches_template(selector, &new.spec.template, &path.child("template"), errors);
        if new.spec.completion_mode.as_deref() == Some("Indexed")
            && let Some(completions) = new.spec.completions.filter(|completions| *completions > 0)
        {
            let longest = format!("{}-{}", new.metadata.name, completions - 1);
            if !text::dns1123_label(&longest).is_empty() {
                let detail = format!("will not able to create pod with invalid DNS label: {longest}");
                errors.invalid(&Path::new("metadata").child("name"), &new.metadata.name, detail);
            }
        }
        if let Some(old) = old {
            validation::update(new, old, &path, errors);
        }
    }

    fn warnings(new: &Job, old: Option<&Job>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            warnings.extend(name_warning(&new.metadata.name));
        }
        if old.is_none_or(|old| old.spec != new.spec) {
            warnings.extend(pod_template::warnings(&new.spec.template, &Path::new("spec").child("template")));
        }
        warnings
    }

    fn selectable(job: &Job) -> Vec<(&'static str, String)> {
        vec![("status.successful", job.status.succeeded.to_string())]
    }

    fn row(job: &Job, now: Time) -> Vec<Cell> {
        let (spec, status) = (&job.spec, &job.status);
        let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
            (Some(completions), _) => format!("{}/{completions}", status.succeeded),
            (None, parallelism) if parallelism > 1 => format!("{}/1 of {parallelism}", status.succeeded),
            (None, _) => format!("{}/1", status.succeeded),
        };
        let duration = status.start_time.map_or_else(String::new, |start| {
            human_duration(status.completion_time.unwrap_or(now).seconds() - start.seconds())
        });
        let (names, images) = columns::containers(&spec.template);
        vec![
            columns::name(&job.metadata),
            state(job).into(),
            completions.into(),
            duration.into(),
            columns::age(&job.metadata, now),
            names.into(),
            images.into(),
            columns::selector(spec.selector.as_deref()).into(),
        ]
    }
}

fn state(job: &Job) -> &'static str {
    if is_true(job, "Complete") {
        "Complete"
    } else if is_true(job, "Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if is_true(job, "Suspended") {
        "Suspended"
    } else if is_true(job, "FailureTarget") {
        "FailureTarget"
    } else if is_true(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// Unless it is the user's own, the selector names the job's uid, and the template carries the labels.
fn generated_selector(job: &Job, old: Option<&Job>, errors: &mut Errors) {
    if job.spec.manual_selector == Some(true) {
        return;
    }
    let (uid, name) = (&job.metadata.uid, &job.metadata.name);
    let path = Path::new("spec").child("template").child("metadata").child("labels");
    let labels = &job.spec.template.metadata.labels;
    // Jobs from before the prefixed labels live on without them.
    let had = |key: &str| old.is_none_or(|old| old.spec.template.metadata.labels.contains_key(key));
    let prefixed = had(UID_LABELS[1]) && had(NAME_LABELS[1]);
    let mut expected = std::collections::BTreeMap::new();
    for index in 0..if prefixed { 2 } else { 1 } {
        for (key, value) in [(UID_LABELS[index], uid), (NAME_LABELS[index], name)] {
            expected.insert(key.to_string(), value.clone());
            match labels.get(key) {
                None => errors.required(&path.key(key), format!("must be '{value}'")),
                Some(given) if given != value => {
                    errors.invalid(&path.key(key), Json(labels), format!("must be '{value}'"));
                }
                Some(_) => {}
            }
        }
    }
    if let Some(selector) = &job.spec.selector
        && api::selector(selector).is_ok_and(|selector| !selector.matches(&expected))
    {
        let field = Path::new("spec").child("selector");
        errors.invalid(&field, Json(selector.as_ref()), "`selector` not auto-generated");
    }
}
