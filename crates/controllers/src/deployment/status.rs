//! What a Deployment says of itself: counts, and the conditions Available, Progressing and ReplicaFailure.

use super::{Rollout, size_of};
use crate::plan::{Action, Step};
use api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use meta::Time;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";
const COMPLETE: &str = "NewReplicaSetAvailable";

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().find(|condition| condition.r#type == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    status.conditions.retain(|condition| condition.r#type != kind);
}

/// Puts a condition in. One of the same status and reason stays as it is; the time of the last transition is the
/// time of the last change of status.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(current) = find(status, &condition.r#type) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time;
        }
    }
    remove(status, &condition.r#type);
    status.conditions.push(condition);
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: impl Into<String>,
    now: Time,
) -> DeploymentCondition {
    DeploymentCondition {
        r#type: kind.into(),
        status: status.into(),
        last_update_time: Some(now),
        last_transition_time: Some(now),
        reason: reason.into(),
        message: message.into(),
    }
}

impl Rollout<'_> {
    pub(super) fn progressing(&self) -> Option<&DeploymentCondition> {
        find(&self.status, PROGRESSING)
    }

    pub(super) fn set_progressing(&mut self, status: &str, reason: &str, message: String) {
        let condition = condition(PROGRESSING, status, reason, message, self.now());
        set(&mut self.status, condition);
    }

    /// A pause stops the clock of the progress deadline: conditions say when it began and ended.
    pub(super) fn note_pause(&mut self) {
        if !self.has_deadline() {
            return;
        }
        let reason = self.progressing().map(|condition| condition.reason.clone()).unwrap_or_default();
        if reason == TIMED_OUT {
            return;
        }
        if self.deployment.spec.paused && reason != PAUSED {
            self.set_progressing("Unknown", PAUSED, "Deployment is paused".into());
        } else if !self.deployment.spec.paused && reason == PAUSED {
            self.set_progressing("Unknown", RESUMED, "Deployment is resumed".into());
        }
    }

    /// Counts, and whether enough is available.
    fn counted(&self) -> DeploymentStatus {
        let total: i32 = self.sets().map(size_of).sum();
        let sum = |count: fn(&ReplicaSet) -> i32| self.sets().map(count).sum::<i32>();
        let available = sum(|set| set.status.available_replicas);
        let terminating: Option<i32> = self.sets().map(|set| set.status.terminating_replicas).sum();
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: sum(|set| set.status.replicas),
            updated_replicas: self.new.as_ref().map_or(0, |set| set.status.replicas),
            ready_replicas: sum(|set| set.status.ready_replicas),
            available_replicas: available,
            unavailable_replicas: (total - available).max(0),
            // As long as one set does not tell, the sum is not known.
            terminating_replicas: terminating,
            conditions: self.status.conditions.clone(),
            collision_count: self.status.collision_count,
        };
        let enough = available >= self.replicas - self.max_unavailable;
        let condition = if enough {
            condition(
                AVAILABLE,
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
                self.now(),
            )
        } else {
            condition(
                AVAILABLE,
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
                self.now(),
            )
        };
        set(&mut status, condition);
        status
    }

    fn write(&mut self, status: DeploymentStatus) {
        if status == self.deployment.status {
            return;
        }
        let mut next = Deployment::clone(self.deployment);
        next.status = status;
        // Where the plan writes the Deployment itself, its revision is another by then: the status follows once
        // that write has come back.
        let written = self.plan.steps.iter().any(|step| {
            matches!(&step.action, Action::Update(object) if object.metadata().uid == next.metadata.uid)
        });
        if !written {
            let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
            self.plan.steps.push(Step::new(update).always());
        }
    }

    /// The status of a Deployment whose rollout stands still: scaled, paused or on its way out.
    pub(super) fn update_status(&mut self) {
        let status = self.counted();
        self.write(status);
    }

    /// Everything is replaced, available, and nothing old is left.
    pub(super) fn is_complete(&self, status: &DeploymentStatus) -> bool {
        status.updated_replicas == self.replicas
            && status.replicas == self.replicas
            && status.available_replicas == self.replicas
            && status.observed_generation >= self.deployment.metadata.generation
    }

    /// More new pods, fewer old ones, more ready or available than before.
    fn has_progressed(&self, status: &DeploymentStatus) -> bool {
        let before = &self.deployment.status;
        let old = |status: &DeploymentStatus| status.replicas - status.updated_replicas;
        status.updated_replicas > before.updated_replicas
            || old(status) < old(before)
            || status.ready_replicas > before.ready_replicas
            || status.available_replicas > before.available_replicas
    }

    fn has_timed_out(&self, status: &DeploymentStatus) -> bool {
        let Some(condition) = find(status, PROGRESSING) else { return false };
        // A finished rollout has no deadline; pods that fail afterwards are no failed rollout.
        if condition.reason == COMPLETE {
            return false;
        }
        if condition.reason == TIMED_OUT {
            return true;
        }
        let deadline = i64::from(self.deployment.spec.progress_deadline_seconds.unwrap_or(0));
        condition.last_update_time.is_some_and(|updated| updated.seconds() + deadline < self.now().seconds())
    }

    /// The status amid a rollout, with its progress.
    pub(super) fn update_rollout_status(&mut self) {
        let mut status = self.counted();
        if !self.has_deadline() {
            remove(&mut status, PROGRESSING);
        }
        let current = find(&self.status, PROGRESSING).cloned();
        let done = status.replicas == status.updated_replicas
            && current.as_ref().is_some_and(|condition| condition.reason == COMPLETE);
        if self.has_deadline() && !done {
            self.judge_progress(&mut status, current.as_ref());
        }
        match self.failure() {
            Some(failure) => set(&mut status, failure),
            None => remove(&mut status, REPLICA_FAILURE),
        }
        self.await_deadline(&status);
        self.write(status);
    }

    fn judge_progress(&self, status: &mut DeploymentStatus, current: Option<&DeploymentCondition>) {
        let subject = match &self.new {
            Some(set) => format!("ReplicaSet \"{}\"", set.metadata.name),
            None => format!("Deployment \"{}\"", self.deployment.metadata.name),
        };
        let now = self.now();
        if self.is_complete(status) {
            let message = format!("{subject} has successfully progressed.");
            set(status, condition(PROGRESSING, "True", COMPLETE, message, now));
        } else if self.has_progressed(status) {
            let message = format!("{subject} is progressing.");
            let mut next = condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
            // The same reason again is news here: it moves the deadline on.
            if let Some(current) = current {
                if current.status == "True" {
                    next.last_transition_time = current.last_transition_time;
                }
                remove(status, PROGRESSING);
            }
            set(status, next);
        } else if self.has_timed_out(status) {
            let message = format!("{subject} has timed out progressing.");
            set(status, condition(PROGRESSING, "False", TIMED_OUT, message, now));
        }
    }

    /// The new set's failure to make pods, or else an old one's.
    fn failure(&self) -> Option<DeploymentCondition> {
        let failure = |set: &ReplicaSet| {
            set.status.conditions.iter().find(|condition| condition.r#type == REPLICA_FAILURE).cloned()
        };
        let found = self.new.as_ref().and_then(failure).or_else(|| self.old.iter().find_map(failure))?;
        Some(DeploymentCondition {
            r#type: found.r#type,
            status: found.status,
            last_update_time: found.last_transition_time,
            last_transition_time: found.last_transition_time,
            reason: found.reason,
            message: found.message,
        })
    }

    /// A rollout that stands still changes nothing by itself: the deadline must wake it.
    fn await_deadline(&mut self, status: &DeploymentStatus) {
        let Some(condition) = find(status, PROGRESSING) else { return };
        if !self.has_deadline() || condition.reason == TIMED_OUT || self.is_complete(status) {
            return;
        }
        if condition.reason == COMPLETE {
            return;
        }
        let deadline = i64::from(self.deployment.spec.progress_deadline_seconds.unwrap_or(0));
        if let Some(updated) = condition.last_update_time {
            // A second more, so that the deadline is past by then.
            let left = updated.seconds() + deadline - self.now().seconds() + 1;
            self.plan.again_after_seconds(left.max(1));
        }
    }
}
