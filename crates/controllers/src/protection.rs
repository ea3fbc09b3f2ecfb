//! Finalizers that keep claims while pods use them, volumes while claims are bound to them, and classes of attributes
//! while either names them.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan};
use crate::pod;
use api::Object;
use api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::storage::v1::VolumeAttributesClass;
use meta::ObjectKey;
use view::View;
use volumes::{CLAIM_PROTECTION, VOLUME_PROTECTION};

/// Keeps a class of attributes while volumes and claims name it.
const ATTRIBUTES_PROTECTION: &str = "kubernetes.io/vac-protection";
/// How long the view of pods may lag behind a claim's deletion before it is believed all the same: a pod that starts
/// later is refused by its node.
const LAG_SECONDS: i64 = 1;

pub struct ClaimProtection;

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn component(&self) -> &'static str {
        "pvc-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<PersistentVolumeClaim>(|_, _, new| {
                new.filter(|claim| wants_write(&claim.metadata, CLAIM_PROTECTION))
                    .map(|claim| view::key_of(claim))
                    .into_iter()
                    .collect()
            }),
            // A pod that ends, goes, or is replaced by its namesake may have been a claim's last.
            Watch::new::<Pod>(|view, old, new| {
                let Some(old) = old else { return Vec::new() };
                let same = new.is_some_and(|new| {
                    new.metadata.uid == old.metadata.uid && pod::is_finished(new) == pod::is_finished(old)
                });
                if same {
                    return Vec::new();
                }
                volumes::claims_of(old)
                    .map(|own| ObjectKey::new(old.metadata.namespace.clone(), own.claim))
                    .filter(|key| {
                        view.get::<PersistentVolumeClaim>(key)
                            .is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())
                    })
                    .collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = context.view.get::<PersistentVolumeClaim>(context.key) else { return plan };
        if !wants_write(&claim.metadata, CLAIM_PROTECTION) {
            return plan;
        }
        if claim.metadata.deletion_timestamp.is_none() {
            plan.push(Action::Update(with(claim.as_ref(), CLAIM_PROTECTION)));
            return plan;
        }
        if in_use(context.view, &claim) {
            return plan;
        }
        plan.mark = "unused".into();
        let seen = context.view.revision(view::kind_id::<Pod>()) >= view::revision_of(claim.as_ref());
        if seen || context.seconds_marked(&plan.mark) >= LAG_SECONDS {
            plan.push(Action::Update(without(claim.as_ref(), CLAIM_PROTECTION)));
        } else {
            plan.again_after_seconds(LAG_SECONDS);
        }
        plan
    }
}

/// Whether a pod that has a node uses the claim. A pod without one does not: a node refuses claims that are going.
fn in_use(view: &View, claim: &PersistentVolumeClaim) -> bool {
    let uses = |pod: &Pod| {
        volumes::claims_of(pod).any(|own| {
            own.claim == claim.metadata.name
                && (!own.ephemeral || (!is_shut_down(pod) && volumes::owned_by_pod(claim, pod)))
        })
    };
    let mut pods = view.in_namespace::<Pod>(&claim.metadata.namespace);
    pods.any(|pod| !pod.spec.node_name.is_empty() && uses(&pod))
}

/// Whether the node is done with a pod that still waits for its own finalizers.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

pub struct VolumeProtection;

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn component(&self) -> &'static str {
        "pv-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::new::<PersistentVolume>(|_, _, new| {
            new.filter(|volume| wants_write(&volume.metadata, VOLUME_PROTECTION))
                .map(|volume| view::key_of(volume))
                .into_iter()
                .collect()
        })]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = context.view.get::<PersistentVolume>(context.key) else { return plan };
        if !wants_write(&volume.metadata, VOLUME_PROTECTION) {
            return plan;
        }
        if volume.metadata.deletion_timestamp.is_none() {
            plan.push(Action::Update(with(volume.as_ref(), VOLUME_PROTECTION)));
        } else if volume.status.phase != "Bound" {
            plan.push(Action::Update(without(volume.as_ref(), VOLUME_PROTECTION)));
        }
        plan
    }
}

pub struct AttributesProtection;

/// The attributes classes that a claim names: wanted, in force, or being changed to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let status = &claim.status;
    let target =
        status.modify_volume_status.as_ref().map(|own| own.target_volume_attributes_class_name.as_str());
    let wanted = claim.spec.volume_attributes_class_name.as_deref();
    [wanted, status.current_volume_attributes_class_name.as_deref(), target].into_iter().flatten()
}

/// The key of a class that was named and no longer is.
fn let_go(old: &[&str], new: &[&str]) -> Vec<ObjectKey> {
    old.iter().filter(|name| !new.contains(name)).map(|name| ObjectKey::cluster(name.to_string())).collect()
}

impl Controller for AttributesProtection {
    fn name(&self) -> &'static str {
        "volumeattributesclass-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<VolumeAttributesClass>(|_, _, new| {
                new.filter(|class| wants_write(&class.metadata, ATTRIBUTES_PROTECTION))
                    .map(|class| view::key_of(class))
                    .into_iter()
                    .collect()
            }),
            Watch::new::<PersistentVolumeClaim>(|_, old, new| {
                let names = |claim| classes_of_claim(claim).collect::<Vec<_>>();
                let_go(&old.map(names).unwrap_or_default(), &new.map(names).unwrap_or_default())
            }),
            Watch::new::<PersistentVolume>(|_, old, new| {
                let name = |volume: Option<&PersistentVolume>| {
                    volume.and_then(|volume| volume.spec.volume_attributes_class_name.clone())
                };
                let (old, new) = (name(old), name(new));
                let_go(old.as_deref().as_slice(), new.as_deref().as_slice())
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(class) = context.view.get::<VolumeAttributesClass>(context.key) else { return plan };
        if !wants_write(&class.metadata, ATTRIBUTES_PROTECTION) {
            return plan;
        }
        if class.metadata.deletion_timestamp.is_none() {
            plan.push(Action::Update(with(class.as_ref(), ATTRIBUTES_PROTECTION)));
            return plan;
        }
        let name = class.metadata.name.as_str();
        let of_volume =
            |volume: &PersistentVolume| volume.spec.volume_attributes_class_name.as_deref() == Some(name);
        let used = context.view.list::<PersistentVolume>().any(|volume| of_volume(&volume))
            || context
                .view
                .list::<PersistentVolumeClaim>()
                .any(|claim| classes_of_claim(&claim).any(|own| own == name));
        if !used {
            plan.push(Action::Update(without(class.as_ref(), ATTRIBUTES_PROTECTION)));
        }
        plan
    }
}

/// Present on what is going, or absent from what is not: the two cases in which there may be something to do.
fn wants_write(metadata: &api::meta::v1::ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().any(|own| own == finalizer) == metadata.deletion_timestamp.is_some()
}

fn with(object: &dyn Object, finalizer: &str) -> Box<dyn Object> {
    let mut next = object.clone_object();
    next.metadata_mut().finalizers.push(finalizer.into());
    next
}

fn without(object: &dyn Object, finalizer: &str) -> Box<dyn Object> {
    let mut next = object.clone_object();
    next.metadata_mut().finalizers.retain(|own| own != finalizer);
    next
}
