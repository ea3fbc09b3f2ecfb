//! Carries a plan out: in order, creates with a slow start, deletes side by side. Decides nothing.

use crate::clear_namespace;
use crate::fence::Fence;
use crate::queue::Outcome;
use client::{
    Client, DeleteOptions, Deleted, Error, Patch, PatchOptions, Preconditions, Recorder, ResourcePath,
};
use controllers::{Action, Errand, Failure, Made, Note, Plan, Propagation, Report, Step, Target};
use futures::StreamExt;
use futures::stream;
use tracing::{debug, warn};

/// Requests of one plan that are under way at once.
const SIDE_BY_SIDE_MAX: usize = 64;
/// The size of the first batch of creates, doubled with each batch that succeeds: where creating fails for a reason
/// of its own (quota, admission), it fails once and not a thousand times.
const SLOW_START: usize = 1;

pub(crate) struct Hands<'a> {
    pub client: &'a Client,
    pub recorder: &'a Recorder,
    pub controller: &'static str,
    pub errands: &'a dyn Errands,
}

/// Does what takes a private key.
pub trait Errands: Send + Sync {
    /// What was made, as text.
    ///
    /// # Errors
    /// Why it was not; never with a secret in it.
    fn run(&self, errand: &Errand) -> Result<String, String>;
}

/// Holds no key.
pub struct NoErrands;

impl Errands for NoErrands {
    fn run(&self, _: &Errand) -> Result<String, String> {
        Err("this process holds no key for that".into())
    }
}

/// What one write brought.
enum Written {
    Seen(Option<Fence>),
    Reported(Report),
}

impl Hands<'_> {
    pub(crate) async fn carry_out(&self, plan: Plan) -> Outcome {
        let mut outcome = Outcome { again: plan.again, mark: plan.mark.clone(), ..Outcome::default() };
        for note in &plan.events {
            self.tell(note, "", "");
        }
        let mut steps = plan.steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            if outcome.failed && !step.always {
                continue;
            }
            let sort = sort_of(&step);
            let mut batch = vec![step];
            while let Some(next) = steps.next_if(|next| sort != Sort::Alone && sort_of(next) == sort) {
                batch.push(next);
            }
            match sort {
                Sort::Create => self.slow_start(batch, &mut outcome).await,
                Sort::Delete | Sort::Alone => self.side_by_side(batch, &mut outcome).await,
            }
        }
        outcome
    }

    async fn slow_start(&self, mut steps: Vec<Step>, outcome: &mut Outcome) {
        let mut size = SLOW_START;
        while !steps.is_empty() {
            let rest = steps.split_off(size.min(steps.len()));
            self.side_by_side(steps, outcome).await;
            if outcome.failed {
                if !rest.is_empty() {
                    debug!(
                        controller = self.controller,
                        skipped = rest.len(),
                        "Stopped creating after a failure"
                    );
                }
                return;
            }
            steps = rest;
            size = size.saturating_mul(2);
        }
    }

    async fn side_by_side(&self, steps: Vec<Step>, outcome: &mut Outcome) {
        let mut results = stream::iter(steps)
            .map(|step| async move {
                let result = self.write(&step.action).await;
                (step, result)
            })
            .buffer_unordered(SIDE_BY_SIDE_MAX);
        while let Some((step, result)) = results.next().await {
            match result {
                Ok((name, Written::Seen(fence))) => {
                    if let Some(note) = &step.done {
                        self.tell(note, &name, "");
                    }
                    outcome.fences.extend(fence);
                }
                Ok((_, Written::Reported(report))) => outcome.report = Some(report),
                Err(error) => self.failed(&step, &error, outcome),
            }
        }
    }

    fn failed(&self, step: &Step, error: &Error, outcome: &mut Outcome) {
        if is_namespace_terminating(error) {
            // Nothing can be created there any more: that is how it should be.
            return;
        }
        let verb = verb_of(&step.action);
        if error.is_not_found() && verb != "create" {
            // Gone before us: the view will say so, and until then this plan is from the past.
            if let Action::Patch { target, .. } | Action::Delete { target, .. } = &step.action {
                outcome.fences.push(gone(target));
                return;
            }
        }
        let text = error.chain();
        if error.is_conflict() || (error.is_not_found() && verb == "update") {
            debug!(controller = self.controller, verb, cause = text, "Lost a race to write");
        } else {
            warn!(controller = self.controller, verb, cause = text, "Failed to write");
            if let Some(note) = &step.failed {
                self.tell(note, "", &text);
            }
        }
        outcome.failed = true;
        if outcome.report.is_none() && !error.is_conflict() {
            outcome.report = Some(Report::Failed(failure(verb, error)));
        }
    }

    fn tell(&self, note: &Note, name: &str, error: &str) {
        let message = note.message.replace("{name}", name).replace("{error}", error);
        let kind = if note.warning { client::EventType::Warning } else { client::EventType::Normal };
        self.recorder.event_about(note.about.clone(), kind, note.reason, &message);
    }

    async fn write(&self, action: &Action) -> Result<(String, Written), Error> {
        match action {
            Action::Create(object) => {
                let created = self.client.create_object(object.as_ref()).await?;
                Ok((created.metadata().name.clone(), Written::Seen(Some(reached(created.as_ref())))))
            }
            Action::Update(object) => {
                let updated = self.client.update_object(object.as_ref(), "").await?;
                Ok((updated.metadata().name.clone(), Written::Seen(Some(reached(updated.as_ref())))))
            }
            Action::UpdateSub { object, subresource } => {
                let updated = self.client.update_object(object.as_ref(), subresource).await?;
                Ok((updated.metadata().name.clone(), Written::Seen(Some(reached(updated.as_ref())))))
            }
            Action::Patch { target, subresource, strategic, body } => {
                let patch =
                    if *strategic { Patch::Strategic(body.clone()) } else { Patch::Merge(body.clone()) };
                let options = PatchOptions::default();
                let path = path_of(target);
                let metadata =
                    self.client.patch_at(&path, &target.key, subresource, &patch, &options).await?;
                let revision = metadata.resource_version.parse().unwrap_or(0);
                Ok((metadata.name, Written::Seen(Some(reached_target(target, revision)))))
            }
            Action::Delete { target, propagation, grace_seconds } => {
                self.delete(target, *propagation, *grace_seconds).await
            }
            Action::Rescale { target, scale } => {
                let written = self
                    .client
                    .replace_at(&path_of(target), &target.key, "scale", scale.as_ref() as &dyn meta::Message)
                    .await?;
                let revision = written.resource_version.parse().unwrap_or(0);
                Ok((written.name, Written::Seen(Some(reached_target(target, revision)))))
            }
            Action::Review(review) => {
                let answer = self.client.create(review.as_ref()).await?;
                Ok((String::new(), Written::Reported(Report::Review(answer.status.allowed))))
            }
            Action::Query(paths) => {
                let mut answers = Vec::with_capacity(paths.len());
                for path in paths {
                    answers.push(self.read(path).await);
                }
                Ok((String::new(), Written::Reported(Report::Answers(answers))))
            }
            Action::Errand(errand) => {
                let made = self.errands.run(errand).map_err(Error::Request)?;
                Ok((String::new(), Written::Reported(Report::Made(Made(made)))))
            }
            Action::ClearNamespace { name } => {
                let remains = clear_namespace::clear(self.client, name).await?;
                Ok((String::new(), Written::Reported(Report::Namespace(remains))))
            }
        }
    }

    /// JSON from one path of the API.
    async fn read(&self, path: &str) -> Result<serde_json::Value, Failure> {
        let text = self.client.get_text(path).await.map_err(|error| failure("get", &error))?;
        serde_json::from_str(&text).map_err(|error| failure("get", &Error::Decode(error.to_string())))
    }

    async fn delete(
        &self,
        target: &Target,
        propagation: Option<Propagation>,
        grace_seconds: Option<i64>,
    ) -> Result<(String, Written), Error> {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let options = DeleteOptions {
            grace_seconds,
            preconditions: Preconditions {
                uid: some(&target.uid),
                resource_version: some(&target.resource_version),
            },
            propagation: propagation.map(|propagation| match propagation {
                Propagation::Orphan => client::Propagation::Orphan,
                Propagation::Background => client::Propagation::Background,
                Propagation::Foreground => client::Propagation::Foreground,
            }),
            dry_run: false,
        };
        let fence = match self.client.delete_at(&path_of(target), &target.key, &options).await? {
            Deleted::Pending(object) => {
                reached_target(target, object.metadata.resource_version.parse().unwrap_or(0))
            }
            Deleted::Gone => gone(target),
        };
        Ok((target.key.name.clone(), Written::Seen(Some(fence))))
    }
}

fn failure(verb: &'static str, error: &Error) -> Failure {
    Failure {
        verb,
        code: error.api().map_or(0, |error| error.code),
        reason: error.api().map_or(String::new(), |error| error.reason.as_str().to_string()),
        message: error.chain(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Create,
    Delete,
    Alone,
}

fn sort_of(step: &Step) -> Sort {
    match &step.action {
        Action::Create(_) => Sort::Create,
        Action::Delete { .. } => Sort::Delete,
        Action::Update(_)
        | Action::UpdateSub { .. }
        | Action::Patch { .. }
        | Action::Rescale { .. }
        | Action::Review(_)
        | Action::Query(_)
        | Action::Errand(_)
        | Action::ClearNamespace { .. } => Sort::Alone,
    }
}

fn verb_of(action: &Action) -> &'static str {
    match action {
        Action::Create(_) | Action::Review(_) => "create",
        Action::Query(_) => "get",
        Action::Errand(_) => "sign",
        Action::Update(_) | Action::UpdateSub { .. } | Action::Rescale { .. } => "update",
        Action::Patch { .. } => "patch",
        Action::Delete { .. } => "delete",
        Action::ClearNamespace { .. } => "deletecollection",
    }
}

fn path_of(target: &Target) -> ResourcePath {
    ResourcePath {
        group: target.resource.group.clone(),
        version: target.resource.version.clone(),
        plural: target.resource.plural.clone(),
        namespaced: target.resource.namespaced,
    }
}

fn reached(object: &dyn api::Object) -> Fence {
    Fence::Reached { kind: view::kind_of(object), revision: view::revision_of(object) }
}

fn reached_target(target: &Target, revision: u64) -> Fence {
    match target.kind {
        Some(kind) => Fence::Reached { kind, revision },
        None => Fence::GraphReached { resource: target.resource.clone(), revision, uid: target.uid.clone() },
    }
}

fn gone(target: &Target) -> Fence {
    match target.kind {
        Some(kind) => Fence::Gone { kind, key: target.key.clone(), uid: target.uid.clone() },
        None => Fence::GraphGone { uid: target.uid.clone() },
    }
}

fn is_namespace_terminating(error: &Error) -> bool {
    let details = error.api().and_then(|error| error.details.as_ref());
    details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}
