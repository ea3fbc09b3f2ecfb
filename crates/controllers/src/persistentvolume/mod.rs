//! Binds claims to volumes, and says what becomes of a volume whose claim is gone.
//!
//! A key with a namespace is a claim's, one without is a volume's. Each decision makes at most one write to each of the
//! two objects, at the revision it was made from: two claims that chose the same volume cannot both get it.

mod claim;
mod status;
mod volume;

use crate::controller::{Context, Controller, Watch};
use crate::plan::Plan;
use crate::pod;
use api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::storage::v1::StorageClass;
use meta::ObjectKey;
use view::View;

pub struct VolumeBinder;

impl Controller for VolumeBinder {
    fn name(&self) -> &'static str {
        "persistentvolume-binder-controller"
    }

    fn component(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn account(&self) -> &'static str {
        "persistent-volume-binder"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<PersistentVolumeClaim>(keys_of_claim),
            Watch::new::<PersistentVolume>(keys_of_volume),
            Watch::new::<StorageClass>(|view, old, new| {
                let Some(class) = new.or(old) else { return Vec::new() };
                unbound(view)
                    .filter(|claim| {
                        !volumes::has_class(claim) || volumes::class_of_claim(claim) == class.metadata.name
                    })
                    .map(|claim| view::key_of(claim.as_ref()))
                    .collect()
            }),
            // What is told of a claim that waits for its consumer depends on the pods that wait with it.
            Watch::new::<Pod>(|view, old, new| {
                let waits = |pod: &&Pod| pod.spec.node_name.is_empty() && !pod::is_finished(pod);
                if old.is_some_and(|pod| waits(&pod)) == new.is_some_and(|pod| waits(&pod)) {
                    return Vec::new();
                }
                new.into_iter()
                    .flat_map(|pod| {
                        volumes::claims_of(pod).map(|own| key_in(&pod.metadata.namespace, &own.claim))
                    })
                    .filter(|key| {
                        view.get::<PersistentVolumeClaim>(key).is_some_and(|claim| !volumes::is_bound(&claim))
                    })
                    .collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        if context.key.namespace.is_empty() {
            if let Some(volume) = context.view.get::<PersistentVolume>(context.key) {
                volume::sync(context.view, &volume, &mut plan);
            }
        } else if let Some(claim) = context.view.get::<PersistentVolumeClaim>(context.key) {
            claim::sync(context.view, &claim, &mut plan);
        }
        plan
    }
}

fn key_in(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace.to_string(), name.to_string())
}

/// The claims that wait for a volume.
fn unbound(view: &View) -> impl Iterator<Item = std::sync::Arc<PersistentVolumeClaim>> + '_ {
    view.list::<PersistentVolumeClaim>().filter(|claim| !volumes::is_bound(claim))
}

/// A claim concerns itself, the volume it names, and the volumes that name it: those may have to be let go.
fn keys_of_claim(
    view: &View,
    old: Option<&PersistentVolumeClaim>,
    new: Option<&PersistentVolumeClaim>,
) -> Vec<ObjectKey> {
    let Some(claim) = new.or(old) else { return Vec::new() };
    let mut keys = vec![view::key_of(claim)];
    let mut name = |volume: &str| {
        let key = ObjectKey::cluster(volume.to_string());
        if !volume.is_empty() && !keys.contains(&key) {
            keys.push(key);
        }
    };
    name(&claim.spec.volume_name);
    let rebound = old.map(|old| &old.spec.volume_name) != new.map(|new| &new.spec.volume_name);
    if rebound {
        let namesake = |volume: &PersistentVolume| {
            volume.spec.claim_ref.as_ref().is_some_and(|reference| {
                reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
            })
        };
        for volume in view.list::<PersistentVolume>().filter(|volume| namesake(volume)) {
            name(&volume.metadata.name);
        }
    }
    keys
}

/// A volume concerns itself, the claim it names or named, and, while it is free, every claim that could take it.
fn keys_of_volume(
    view: &View,
    old: Option<&PersistentVolume>,
    new: Option<&PersistentVolume>,
) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    for volume in [new, old].into_iter().flatten() {
        let mut add = |key: ObjectKey| {
            if !keys.contains(&key) {
                keys.push(key);
            }
        };
        add(view::key_of(volume));
        if let Some(reference) = &volume.spec.claim_ref {
            add(key_in(&reference.namespace, &reference.name));
        }
    }
    if let Some(volume) = new.filter(|volume| volume.spec.claim_ref.is_none()) {
        let class = volumes::class_of_volume(volume);
        let takers = unbound(view).filter(|claim| {
            volumes::class_of_claim(claim) == class || claim.spec.volume_name == volume.metadata.name
        });
        keys.extend(takers.map(|claim| view::key_of(claim.as_ref())));
    }
    if let (Some(gone), None) = (old, new) {
        let holders = view.list::<PersistentVolumeClaim>();
        let named = holders.filter(|claim| claim.spec.volume_name == gone.metadata.name);
        keys.extend(named.map(|claim| view::key_of(claim.as_ref())));
    }
    keys
}
