//! Resource claims: made from templates for the pods that ask for them, reserved for pods that were bound past the
//! scheduler, and freed when nobody uses them any more.
//!
//! Groups of pods are not looked at: their claims are an alpha feature.

use crate::controller::{Context, Controller, Watch};
use crate::ownership::{controller_of, controller_reference};
use crate::plan::{Action, Note, Plan, Step, Target};
use crate::pod;
use api::Typed;
use api::core::v1::{Pod, PodResourceClaim};
use api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use meta::ObjectKey;
use std::sync::Arc;
use view::View;

const NAME: &str = "resourceclaim-controller";
const ACCOUNT: &str = "resource-claim-controller";
const CLAIM_OF_POD: &str = "resource.kubernetes.io/pod-claim-name";
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// The mark of a plan that took the allocation off a claim.
const FREED: &str = "freed";
/// So many consumers may share a claim.
const CONSUMERS_MAX: usize = 256;
/// A generated name's base: with a hyphen and five characters it makes 63.
const BASE_MAX: usize = 57;

/// The claims that a pod has of its own.
fn own_claims<'a>(view: &'a View, pod: &'a Pod) -> impl Iterator<Item = Arc<ResourceClaim>> + 'a {
    view.owned_by::<ResourceClaim>(&pod.metadata.uid)
        .filter(|claim| controller_of(&claim.metadata).is_some_and(|owner| owner.uid == pod.metadata.uid))
}

/// Gives pods the claims that their templates describe. Keys are pods.
pub struct PodClaims;

impl Controller for PodClaims {
    fn name(&self) -> &'static str {
        NAME
    }

    fn component(&self) -> &'static str {
        ACCOUNT
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Pod>(|_, _, new| {
                let asks = |pod: &&Pod| !pod.spec.resource_claims.is_empty();
                new.filter(asks).map(|pod| view::key_of(pod)).into_iter().collect()
            }),
            Watch::new::<ResourceClaim>(|_, old, new| {
                let owner = new.or(old).and_then(|claim| {
                    let owner = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod")?;
                    Some(ObjectKey::new(claim.metadata.namespace.clone(), owner.name.clone()))
                });
                owner.into_iter().collect()
            }),
            Watch::new::<ResourceClaimTemplate>(|view, old, new| {
                let (None, Some(template)) = (old, new) else { return Vec::new() };
                let waits = |pod: &Arc<Pod>| {
                    let mut claims = pod.spec.resource_claims.iter();
                    claims.any(|claim| {
                        claim.resource_claim_template_name.as_ref() == Some(&template.metadata.name)
                    })
                };
                let pods = view.in_namespace::<Pod>(&template.metadata.namespace);
                pods.filter(waits).map(|pod| view::key_of(pod.as_ref())).collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = context.view.get::<Pod>(context.key) else { return plan };
        if pod.metadata.deletion_timestamp.is_some() || pod::is_finished(&pod) {
            return plan;
        }
        let mut found = Vec::new();
        for asked in &pod.spec.resource_claims {
            if asked.resource_claim_template_name.is_some() {
                make(&pod, asked, context.view, &mut found, &mut plan);
            }
        }
        if !found.is_empty() {
            plan.push(Action::Patch {
                target: Target::of(pod.as_ref()),
                subresource: "status",
                strategic: true,
                body: serde_json::json!({
                    "metadata": {"uid": pod.metadata.uid}, "status": {"resourceClaimStatuses": found},
                }),
            });
        }
        if !pod.spec.node_name.is_empty() {
            reserve(&pod, context.view, &mut plan);
        }
        plan
    }
}

/// The name of the claim that the pod's status gives; `Some(None)` where it says that none is needed.
fn noted(pod: &Pod, asked: &PodResourceClaim) -> Option<Option<String>> {
    let mut statuses = pod.status.resource_claim_statuses.iter();
    statuses.find(|status| status.name == asked.name).map(|status| status.resource_claim_name.clone())
}

/// Finds the claim of a template, or makes it.
fn make(
    pod: &Pod,
    asked: &PodResourceClaim,
    view: &View,
    found: &mut Vec<serde_json::Value>,
    plan: &mut Plan,
) {
    let mine = |claim: &Arc<ResourceClaim>| {
        claim.metadata.annotations.get(CLAIM_OF_POD) == Some(&asked.name)
            && claim.metadata.deletion_timestamp.is_none()
    };
    let noted = noted(pod, asked);
    if noted == Some(None) {
        return;
    }
    if let Some(claim) = own_claims(view, pod).find(mine) {
        if noted != Some(Some(claim.metadata.name.clone())) {
            found.push(serde_json::json!({"name": asked.name, "resourceClaimName": claim.metadata.name}));
        }
        return;
    }
    let name = asked.resource_claim_template_name.clone().unwrap_or_default();
    let key = ObjectKey::new(pod.metadata.namespace.clone(), name.clone());
    let failed = |why: String| {
        let text = format!("PodResourceClaim {}: {why}", asked.name);
        Note::warning(pod, "FailedResourceClaimCreation", text)
    };
    let Some(template) = view.get::<ResourceClaimTemplate>(&key) else {
        let why = format!(
            "resource claim template {name:?}: resourceclaimtemplate.resource.k8s.io {name:?} not found"
        );
        plan.events.push(failed(why));
        return;
    };
    let mut claim = ResourceClaim { spec: template.spec.spec.clone(), ..ResourceClaim::default() };
    claim.metadata.namespace.clone_from(&pod.metadata.namespace);
    claim.metadata.generate_name = base(&pod.metadata.name, &asked.name);
    claim.metadata.labels.clone_from(&template.spec.metadata.labels);
    claim.metadata.annotations.clone_from(&template.spec.metadata.annotations);
    claim.metadata.annotations.insert(CLAIM_OF_POD.into(), asked.name.clone());
    let mut owner = controller_reference(Pod::gvk(), &pod.metadata);
    owner.block_owner_deletion = None;
    claim.metadata.owner_references.push(owner);
    let create = Action::Create(Box::new(claim));
    plan.steps.push(Step::new(create).failed(failed("create ResourceClaim : {error}".into())));
}

/// Both names, each cut in proportion where they are too long together. Names are ASCII.
fn base(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let cut = |name: &str| name.chars().take(name.len() * BASE_MAX / whole.len()).collect::<String>();
    format!("{}-{}", cut(pod), cut(claim))
}

/// A pod that was bound past the scheduler uses claims that are allocated all the same.
fn reserve(pod: &Pod, view: &View, plan: &mut Plan) {
    for asked in &pod.spec.resource_claims {
        let named = asked.resource_claim_name.clone().or_else(|| noted(pod, asked).flatten());
        let Some(name) = named else { continue };
        let key = ObjectKey::new(pod.metadata.namespace.clone(), name);
        let Some(claim) = view.get::<ResourceClaim>(&key) else { continue };
        let reserved = &claim.status.reserved_for;
        let foreign = asked.resource_claim_template_name.is_some()
            && controller_of(&claim.metadata).is_none_or(|owner| owner.uid != pod.metadata.uid);
        if claim.status.allocation.is_none()
            || foreign
            || reserved.len() >= CONSUMERS_MAX
            || reserved.iter().any(|known| known.uid == pod.metadata.uid)
        {
            continue;
        }
        let mut next = ResourceClaim::clone(&claim);
        next.status.reserved_for.push(ResourceClaimConsumerReference {
            api_group: String::new(),
            resource: "pods".into(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        });
        plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
    }
}

/// Frees claims of consumers that are done. Keys are claims.
pub struct ClaimReservations;

impl Controller for ClaimReservations {
    fn name(&self) -> &'static str {
        NAME
    }

    fn component(&self) -> &'static str {
        ACCOUNT
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own::<ResourceClaim>(),
            Watch::new::<Pod>(|view, old, new| {
                let Some(pod) = old.or(new).filter(|pod| !pod.spec.resource_claims.is_empty()) else {
                    return Vec::new();
                };
                if new.is_some_and(|pod| !is_done(pod)) {
                    return Vec::new();
                }
                let shared =
                    pod.spec.resource_claims.iter().filter_map(|asked| asked.resource_claim_name.clone());
                let shared = shared.map(|name| ObjectKey::new(pod.metadata.namespace.clone(), name));
                shared.chain(own_claims(view, pod).map(|claim| view::key_of(claim.as_ref()))).collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = context.view.get::<ResourceClaim>(context.key) else { return plan };
        let remaining: Vec<ResourceClaimConsumerReference> =
            claim.status.reserved_for.iter().filter(|known| uses(known, &claim, context)).cloned().collect();
        let ours = claim.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        let freed = remaining.len() < claim.status.reserved_for.len();
        let deleted = claim.metadata.deletion_timestamp.is_some();
        let mut next = ResourceClaim::clone(&claim);
        if remaining.is_empty() && ours && (freed || deleted) {
            next.status.allocation = None;
        }
        next.status.reserved_for = remaining;
        if next.status != claim.status {
            plan.mark = FREED.into();
            plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
            return plan;
        }
        if !claim.status.reserved_for.is_empty() {
            return plan;
        }
        // The finalizer goes in a write of its own, once the view shows that nothing is allocated; but a scheduler sets
        // it before it allocates, and that one stays.
        let freed_before = context.marked.is_some_and(|(mark, _)| mark == FREED);
        if ours && claim.status.allocation.is_none() && (deleted || freed_before) {
            next.metadata.finalizers.retain(|finalizer| finalizer != FINALIZER);
            plan.push(Action::Update(Box::new(next)));
        } else if !deleted && owner_is_done(&claim, context.view) {
            let target = Target::of(claim.as_ref());
            plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
        }
        plan
    }
}

fn is_done(pod: &Pod) -> bool {
    pod::is_finished(pod) || (pod.metadata.deletion_timestamp.is_some() && pod.spec.node_name.is_empty())
}

/// Whether a consumer may still use a claim. A pod that is not in view is gone once the view of pods is as new as the claim.
fn uses(consumer: &ResourceClaimConsumerReference, claim: &ResourceClaim, context: &Context<'_>) -> bool {
    if !consumer.api_group.is_empty() || consumer.resource != "pods" {
        return true;
    }
    let key = ObjectKey::new(claim.metadata.namespace.clone(), consumer.name.clone());
    match context.view.get::<Pod>(&key) {
        Some(pod) => pod.metadata.uid == consumer.uid && !is_done(&pod),
        None => context.view.revision(view::kind_id::<Pod>()) < view::revision_of(claim),
    }
}

/// Whether the pod that a claim was made for is there and will not run: where it is gone, the garbage collector sees to it.
fn owner_is_done(claim: &ResourceClaim, view: &View) -> bool {
    let Some(owner) = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod") else {
        return false;
    };
    let key = ObjectKey::new(claim.metadata.namespace.clone(), owner.name.clone());
    view.get::<Pod>(&key).is_some_and(|pod| pod.metadata.uid != owner.uid || is_done(&pod))
}
