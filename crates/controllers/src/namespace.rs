//! Namespaces on their way out: everything in them is deleted, and only then their finalizer is taken off.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Remains, Report, Step, Target};
use api::core::v1::{Namespace, NamespaceCondition};
use meta::{ObjectKey, Time};
use std::sync::Arc;
use view::{Vertex, View};

/// The finalizer, in spec.finalizers, that stands for the contents.
const FINALIZER: &str = "kubernetes";
/// What remains is looked at again after this time at the latest; each object that goes brings that forward.
const AGAIN_SECONDS: i64 = 15;

pub struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own::<Namespace>()]
    }

    fn uses_graph(&self) -> bool {
        true
    }

    /// An object that went may have been the last of its namespace.
    fn vertex_keys(
        &self,
        view: &View,
        old: Option<&Arc<Vertex>>,
        new: Option<&Arc<Vertex>>,
    ) -> Vec<ObjectKey> {
        let (Some(gone), None) = (old, new) else { return Vec::new() };
        let key = ObjectKey::cluster(gone.key.namespace.clone());
        let leaving = view
            .get::<Namespace>(&key)
            .is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some());
        if leaving { vec![key] } else { Vec::new() }
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(namespace) = context.view.get::<Namespace>(context.key) else { return plan };
        if namespace.metadata.deletion_timestamp.is_none() {
            return plan;
        }
        if namespace.spec.finalizers.is_empty() {
            if namespace.metadata.finalizers.is_empty() {
                let target = Target::at_revision(namespace.as_ref());
                plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
            }
            return plan;
        }
        if namespace.status.phase != "Terminating" {
            let mut next = Namespace::clone(&namespace);
            next.status.phase = "Terminating".into();
            plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
            return plan;
        }
        match context.report {
            Some(Report::Namespace(remains)) if remains.is_clear() => {
                let mut next = Namespace::clone(&namespace);
                next.spec.finalizers.retain(|finalizer| finalizer != FINALIZER);
                if next.spec.finalizers != namespace.spec.finalizers {
                    plan.push(Action::UpdateSub { object: Box::new(next), subresource: "finalize" });
                }
            }
            Some(Report::Namespace(remains)) => {
                let mut next = Namespace::clone(&namespace);
                set_conditions(&mut next.status.conditions, remains, context.now);
                if next.status != namespace.status {
                    let update = Action::UpdateSub { object: Box::new(next), subresource: "status" };
                    plan.steps.push(Step::new(update));
                }
                plan.again_after_seconds(AGAIN_SECONDS);
            }
            _ => {
                plan.push(Action::ClearNamespace { name: namespace.metadata.name.clone() });
            }
        }
        plan
    }
}

fn joined<'a>(parts: impl Iterator<Item = (&'a String, &'a usize)>, text: &str) -> String {
    parts
        .map(|(name, count)| text.replace("{}", name).replace("{n}", &count.to_string()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The five conditions of a namespace that is being emptied; each is there, true or false.
fn set_conditions(conditions: &mut Vec<NamespaceCondition>, remains: &Remains, now: Time) {
    let failed = &remains.discovery_errors;
    let refused = &remains.deletion_errors;
    let states = [
        (
            "NamespaceDeletionDiscoveryFailure",
            (!failed.is_empty()).then(|| {
                let text = format!(
                    "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
                    failed.len(),
                    failed.join(", ")
                );
                ("DiscoveryFailed", text)
            }),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            (!refused.is_empty()).then(|| {
                let text = format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    refused.len(),
                    refused.join(", ")
                );
                ("ContentDeletionFailed", text)
            }),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            (!remains.resources.is_empty()).then(|| {
                let parts = joined(remains.resources.iter(), "{} has {n} resource instances");
                ("SomeResourcesRemain", format!("Some resources are remaining: {parts}"))
            }),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!remains.finalizers.is_empty()).then(|| {
                let parts = joined(remains.finalizers.iter(), "{} in {n} resource instances");
                let text = format!("Some content in the namespace has finalizers remaining: {parts}");
                ("SomeFinalizersRemain", text)
            }),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    for (kind, trouble, (ok_reason, ok_message)) in states {
        let (status, reason, message) = match trouble {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", ok_reason, ok_message.to_string()),
        };
        set_condition(conditions, kind, status, reason, message, now);
    }
}

fn set_condition(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Time,
) {
    match conditions.iter_mut().find(|condition| condition.r#type == kind) {
        Some(condition) => {
            if condition.status != status {
                condition.last_transition_time = Some(now);
            }
            condition.status = status.into();
            condition.reason = reason.into();
            condition.message = message;
        }
        None => conditions.push(NamespaceCondition {
            r#type: kind.into(),
            status: status.into(),
            last_transition_time: Some(now),
            reason: reason.into(),
            message,
        }),
    }
}
