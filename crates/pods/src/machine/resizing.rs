//! In-place resize in a pod's machine: the node's answer, what the runtime is told, and what became of it.

use super::{Machine, Phase, SANDBOX_RETRY_MAX, record};
use crate::Millis;
use crate::input::{Effect, Failure, Op, State, Stop};
use crate::resize::{self, Answer};
use api::core::v1::Pod;
use std::sync::Arc;

impl Machine {
    /// The node has answered a wish.
    pub(super) fn answered(&mut self, answer: Answer, effects: &mut Vec<Effect>) {
        let Some((reason, why)) = answer.refusal() else {
            self.allocated = resize::wanted(&self.pod);
            self.unmet = None;
            self.resizing = true;
            self.resize_retry = Default::default();
            self.resize_fault = None;
            let message = resize::message("started", &self.pod, "");
            effects.push(record(false, "ResizeStarted", message, None));
            return;
        };
        if self.unmet.as_ref() != Some(&answer) {
            let (event, message) = (format!("Resize{reason}"), resize::message(reason, &self.pod, why));
            effects.push(record(true, &event, message, None));
        }
        self.unmet = Some(answer);
    }

    /// The runtime was told, or could not be.
    pub(super) fn resized(
        &mut self,
        now: Millis,
        name: &str,
        result: Result<String, Failure>,
        effects: &mut Vec<Effect>,
    ) {
        match result {
            Ok(_) => {
                self.resize_fault = None;
                self.told(name, effects);
            }
            Err(failure) => {
                let message = resize::message("error", &self.pod, &failure.message);
                effects.push(record(true, "ResizeError", message, None));
                self.resize_retry.fail(now, SANDBOX_RETRY_MAX);
                self.resize_fault = Some(failure.message);
            }
        }
    }

    /// The pod with the resources that are allocated to it.
    pub fn allocated(&self) -> Arc<Pod> {
        match resize::differs(&self.allocated, &resize::wanted(&self.pod)) {
            true => Arc::new(resize::with(&self.pod, &self.allocated)),
            false => self.pod.clone(),
        }
    }
    /// Whether the pod asks for other resources than were allocated, so that the node has to answer.
    pub fn wants_resize(&self) -> bool {
        self.phase == Phase::Syncing && resize::differs(&self.allocated, &resize::wanted(&self.pod))
    }
    /// The runtime has what it was told of a container's resources.
    pub(super) fn told(&mut self, name: &str, effects: &mut Vec<Effect>) {
        if let Some(own) = self.telling.remove(name) {
            self.actuated.insert(name.into(), own);
        }
        if self.resizing && !resize::differs(&self.actuated, &self.allocated) {
            self.resizing = false;
            let message = resize::message("completed", &self.pod, "");
            effects.push(record(false, "ResizeCompleted", message, None));
        }
    }

    pub(super) fn tell(&mut self, name: &str) {
        if let Some(own) = self.allocated.get(name) {
            self.telling.insert(name.into(), own.clone());
        }
    }

    /// Gives running containers what is allocated to them; those that have to start anew for it are stopped.
    pub(super) fn resize(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if !self.wants_resize() {
            // The wish was taken back, or met.
            self.unmet = None;
        }
        for (name, new) in self.allocated.clone() {
            let Some(old) =
                self.actuated.get(&name).filter(|old| !resize::changed(old, &new).is_empty()).cloned()
            else {
                continue;
            };
            let running = self.observed.newest(&name).filter(|seen| seen.state == State::Running);
            let (Some(seen), Some(container)) = (running.cloned(), self.container(&name)) else { continue };
            if resize::needs_restart(&container, &old, &new) {
                let stop = Stop {
                    container: name.clone(),
                    id: seen.id,
                    grace_seconds: self.pod.spec.termination_grace_period_seconds.unwrap_or(30),
                    message: format!("Container {name} resize requires restart"),
                };
                self.stop(stop, effects);
                continue;
            }
            let op = Op::Resize(name.clone());
            if self.may(&op, now, self.resize_retry.at) {
                self.tell(&name);
                self.begin(op, Effect::Resize { container: name, id: seen.id }, effects);
            }
        }
    }
}
