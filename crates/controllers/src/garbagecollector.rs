//! What becomes of objects whose owners go: deleted with them, before them, or let go, over all kinds alike.
//!
//! Keys are uids. That an owner is absent is certain once its resource is known up to the dependent's own revision:
//! who names an owner by its uid names one that existed then.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan, Propagation, Target};
use api::meta::v1::OwnerReference;
use meta::ObjectKey;
use std::sync::Arc;
use view::{Graph, Vertex, View};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// An owner that may or may not be there is asked for again after this time.
const DOUBT_SECONDS: i64 = 10;

pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn component(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn watches(&self) -> Vec<Watch> {
        Vec::new()
    }

    fn uses_graph(&self) -> bool {
        true
    }

    fn vertex_keys(
        &self,
        view: &View,
        old: Option<&Arc<Vertex>>,
        new: Option<&Arc<Vertex>>,
    ) -> Vec<ObjectKey> {
        let Some(vertex) = new.or(old) else { return Vec::new() };
        let mut uids: Vec<&str> = vec![&vertex.uid];
        let dependents = view.graph().dependents(&vertex.uid);
        // An owner that goes, or waits for its dependents, concerns these.
        if new.is_none() || (vertex.deleting && vertex.has_finalizer(FOREGROUND)) {
            uids.extend(dependents.map(|dependent| dependent.uid.as_str()));
        }
        // A dependent that goes, or no longer holds its owner up, concerns that.
        for owner in old.into_iter().chain(new).flat_map(|vertex| &vertex.owners) {
            if view.graph().get(&owner.uid).is_some_and(|owner| owner.deleting) {
                uids.push(&owner.uid);
            }
        }
        uids.into_iter().map(ObjectKey::cluster).collect()
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let graph = context.view.graph();
        let Some(vertex) = graph.get(&context.key.name) else { return plan };
        if vertex.deleting {
            if vertex.has_finalizer(ORPHAN) {
                orphan_dependents(graph, vertex, &mut plan);
            } else if vertex.has_finalizer(FOREGROUND) {
                wait_for_dependents(graph, vertex, &mut plan);
            }
            return plan;
        }
        judge_owners(graph, vertex, &mut plan);
        plan
    }
}

/// What is known of an owner.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Solid,
    /// It is there, and waits for its dependents to go first.
    Waiting,
    Absent,
    /// Not known, or not yet.
    Unclear,
}

fn state_of(graph: &Graph, dependent: &Vertex, owner: &OwnerReference) -> Owner {
    if let Some(found) = graph.get(&owner.uid) {
        let reachable = found.key.namespace.is_empty() || found.key.namespace == dependent.key.namespace;
        if !reachable {
            return Owner::Absent;
        }
        let waiting = found.deleting && found.has_finalizer(FOREGROUND);
        return if waiting { Owner::Waiting } else { Owner::Solid };
    }
    if graph.is_buried(&owner.uid) {
        return Owner::Absent;
    }
    let Some(resource) = graph.resource_of_kind(&owner.api_version, &owner.kind) else {
        return Owner::Unclear;
    };
    let known_to = graph.revision(resource);
    let needed: u64 = dependent.resource_version.parse().unwrap_or(u64::MAX);
    if graph.synced(resource) && known_to >= needed { Owner::Absent } else { Owner::Unclear }
}

fn judge_owners(graph: &Graph, vertex: &Arc<Vertex>, plan: &mut Plan) {
    if vertex.owners.is_empty() {
        return;
    }
    let states: Vec<(Owner, &OwnerReference)> =
        vertex.owners.iter().map(|owner| (state_of(graph, vertex, owner), owner)).collect();
    let any = |wanted: Owner| states.iter().any(|(state, _)| *state == wanted);
    if any(Owner::Unclear) {
        // An owner of a resource that is followed becomes clear with the next word of that resource.
        let followed = states.iter().any(|(state, owner)| {
            *state == Owner::Unclear && graph.resource_of_kind(&owner.api_version, &owner.kind).is_some()
        });
        if followed {
            plan.again_after_seconds(DOUBT_SECONDS);
        }
        return;
    }
    if any(Owner::Solid) {
        let leave: Vec<&str> = states
            .iter()
            .filter(|(state, _)| matches!(state, Owner::Absent | Owner::Waiting))
            .map(|(_, owner)| owner.uid.as_str())
            .collect();
        if !leave.is_empty() {
            plan.push(without_owners(vertex, &leave));
        }
        return;
    }
    if any(Owner::Waiting) && graph.dependents(&vertex.uid).next().is_some() {
        // Two that wait for each other would wait for ever: then the upper one no longer waits for this one.
        let cycle = graph
            .dependents(&vertex.uid)
            .any(|dependent| dependent.deleting && dependent.has_finalizer(FOREGROUND));
        if cycle {
            plan.push(unblocked(vertex));
        }
        plan.push(delete(vertex, Propagation::Foreground));
        return;
    }
    let propagation = if vertex.has_finalizer(ORPHAN) {
        Propagation::Orphan
    } else if vertex.has_finalizer(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    plan.push(delete(vertex, propagation));
}

/// An owner goes once no dependent that blocks it is left.
fn wait_for_dependents(graph: &Graph, vertex: &Arc<Vertex>, plan: &mut Plan) {
    let blocked = graph.dependents(&vertex.uid).any(|dependent| {
        dependent
            .owners
            .iter()
            .any(|owner| owner.uid == vertex.uid && owner.block_owner_deletion == Some(true))
    });
    if !blocked {
        plan.push(without_finalizer(vertex, FOREGROUND));
    }
}

/// The dependents are let go first, then the owner.
fn orphan_dependents(graph: &Graph, vertex: &Arc<Vertex>, plan: &mut Plan) {
    for dependent in graph.dependents(&vertex.uid) {
        plan.push(without_owners(dependent, &[&vertex.uid]));
    }
    plan.push(without_finalizer(vertex, ORPHAN));
}

fn target(vertex: &Vertex) -> Target {
    Target {
        resource: vertex.resource.clone(),
        kind: None,
        key: vertex.key.clone(),
        uid: vertex.uid.clone(),
        resource_version: vertex.resource_version.clone(),
    }
}

fn delete(vertex: &Vertex, propagation: Propagation) -> Action {
    Action::Delete { target: target(vertex), propagation: Some(propagation), grace_seconds: None }
}

/// Merge patches replace whole lists, so they state the revision that the list was read at.
fn patch(vertex: &Vertex, mut metadata: serde_json::Value) -> Action {
    metadata["uid"] = vertex.uid.as_str().into();
    metadata["resourceVersion"] = vertex.resource_version.as_str().into();
    let body = serde_json::json!({"metadata": metadata});
    Action::Patch { target: target(vertex), subresource: "", strategic: false, body }
}

fn without_finalizer(vertex: &Vertex, name: &str) -> Action {
    let left: Vec<&String> = vertex.finalizers.iter().filter(|finalizer| *finalizer != name).collect();
    patch(vertex, serde_json::json!({"finalizers": left}))
}

fn without_owners(vertex: &Vertex, uids: &[&str]) -> Action {
    let left = vertex.owners.iter().filter(|owner| !uids.contains(&owner.uid.as_str()));
    let left: Vec<serde_json::Value> = left.map(|owner| api::codec::to_value(owner)).collect();
    patch(vertex, serde_json::json!({"ownerReferences": left}))
}

fn unblocked(vertex: &Vertex) -> Action {
    let owners = vertex.owners.iter().cloned().map(|mut owner| {
        owner.block_owner_deletion = Some(false);
        api::codec::to_value(&owner)
    });
    patch(vertex, serde_json::json!({"ownerReferences": owners.collect::<Vec<_>>()}))
}
