//! Jobs that are done and have outlived their time to live.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Propagation, Target};
use api::batch::v1::Job;
use meta::Time;

pub struct TtlAfterFinished;

/// When a job finished, where it did.
fn finished_at(job: &Job) -> Option<Time> {
    let done = |kind: &str| matches!(kind, "Complete" | "Failed");
    let mut conditions = job.status.conditions.iter();
    conditions.find(|c| done(&c.r#type) && c.status == "True").and_then(|c| c.last_transition_time)
}

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own::<Job>()]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(job) = context.view.get::<Job>(context.key) else { return plan };
        let (Some(ttl), Some(finished)) = (job.spec.ttl_seconds_after_finished, finished_at(&job)) else {
            return plan;
        };
        if job.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let left = finished.seconds() + i64::from(ttl) - context.now.seconds();
        if left > 0 {
            plan.again_after_seconds(left);
        } else {
            plan.push(Action::Delete {
                target: Target::at_revision(job.as_ref()),
                propagation: Some(Propagation::Foreground),
                grace_seconds: None,
            });
        }
        plan
    }
}
