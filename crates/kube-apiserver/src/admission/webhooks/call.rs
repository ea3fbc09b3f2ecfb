//! One webhook asked once: dry runs, the review there and back, warnings and annotations.

use super::review::{self, Answer};
use super::{Invocation, Webhooks};
use crate::outbound::webhook::CallError;
use api::errors::ApiError;
use registry::Attributes;
use serde_json::Value;
use std::time::{Duration, Instant};

/// What came of asking.
pub(super) enum Outcome {
    Allowed(Box<Answer>),
    Denied(ApiError),
    /// It could not be asked, or its answer is none: failurePolicy decides.
    Unreachable(CallError),
}

/// Which of the two plugins asks, as metrics call them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Mutating,
    Validating,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Mutating => "admit",
            Side::Validating => "validating",
        }
    }
}

impl Webhooks {
    pub(super) async fn ask(
        &self,
        side: Side,
        invocation: &Invocation,
        attributes: &Attributes<'_>,
        object: Value,
        old: Value,
    ) -> Outcome {
        let started = Instant::now();
        let outcome = self.asked(side, invocation, attributes, object, old).await;
        self.count(side, invocation, attributes, &outcome, started.elapsed());
        outcome
    }

    async fn asked(
        &self,
        side: Side,
        invocation: &Invocation,
        attributes: &Attributes<'_>,
        object: Value,
        old: Value,
    ) -> Outcome {
        let hook = &invocation.hook;
        if attributes.request.dry_run {
            match hook.side_effects.as_deref() {
                Some("None" | "NoneOnDryRun") => {}
                None => {
                    let reason = "Webhook SideEffects is nil".to_string();
                    return Outcome::Unreachable(CallError { reason, code: 400 });
                }
                Some(_) => {
                    let text = format!("admission webhook {:?} does not support dry run", hook.name);
                    return Outcome::Denied(ApiError::bad_request(text));
                }
            }
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let question = match review::question(uid, invocation, attributes, object, old) {
            Ok(question) => question,
            Err(error) => return Outcome::Unreachable(error),
        };
        let called = self.client.call(&hook.client, &question.review, hook.timeout).await;
        let review = match called {
            Ok(review) => review,
            Err(error) => {
                let reason = format!("failed to call webhook: {}", error.reason);
                return Outcome::Unreachable(CallError { reason, code: error.code });
            }
        };
        let mutating = side == Side::Mutating;
        let mut answer = match review::answer(&question, mutating, &review) {
            Ok(answer) => answer,
            Err(error) => {
                let reason = format!("received invalid webhook response: {error}");
                return Outcome::Unreachable(CallError { reason, code: 503 });
            }
        };
        for (key, value) in &answer.annotations {
            attributes.request.annotations.add(format!("{}/{key}", hook.name), value.clone());
        }
        for warning in answer.warnings.drain(..) {
            attributes.request.warnings.add(warning);
        }
        if answer.allowed {
            Outcome::Allowed(Box::new(answer))
        } else {
            Outcome::Denied(review::denial(&hook.name, answer.status.take()))
        }
    }

    fn count(
        &self,
        side: Side,
        invocation: &Invocation,
        attributes: &Attributes<'_>,
        outcome: &Outcome,
        took: Duration,
    ) {
        let hook = &invocation.hook;
        let (code, rejected, error) = match outcome {
            Outcome::Allowed(_) => (200, false, None),
            Outcome::Denied(error) => (error.code, true, Some("no_error")),
            Outcome::Unreachable(error) => {
                (error.code, !hook.fails_open, (!hook.fails_open).then_some("calling_webhook_error"))
            }
        };
        let operation = attributes.operation.as_str();
        self.metrics.asked(&hook.name, side.name(), operation, code, rejected, took);
        if let Some(kind) = error {
            self.metrics.rejected(&hook.name, side.name(), operation, kind, code);
        }
    }

    /// What an unreachable webhook means: nothing, or a refusal.
    pub(super) fn unreachable(
        &self,
        side: Side,
        invocation: &Invocation,
        attributes: &Attributes<'_>,
        error: &CallError,
        place: (usize, usize),
    ) -> Result<(), ApiError> {
        let hook = &invocation.hook;
        let text = format!("failed calling webhook {:?}: {error}", hook.name);
        if !hook.fails_open {
            tracing::warn!(webhook = hook.name, %error, "Failed to call a webhook, and refused the request");
            return Err(ApiError::internal(text));
        }
        tracing::warn!(webhook = hook.name, %error, "Failed to call a webhook, and went on without it");
        self.metrics.failed_open(&hook.name, side.name());
        let prefix = match side {
            Side::Mutating => "failed-open.mutation.webhook.admission.k8s.io/",
            Side::Validating => "failed-open.validating.webhook.admission.k8s.io/",
        };
        let (round, index) = place;
        attributes.request.annotations.add(format!("{prefix}round_{round}_index_{index}"), hook.name.clone());
        Ok(())
    }
}
