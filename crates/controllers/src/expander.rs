//! Larger claims: a directory of a node grows by being said to; what a driver holds is for the driver's resizer.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Note, Plan};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use meta::ObjectKey;

pub struct VolumeExpander;

/// Whether a bound claim asks for more than it has.
fn wants_more(claim: &PersistentVolumeClaim) -> bool {
    claim.status.phase == "Bound" && volumes::requested(claim) > volumes::storage(&claim.status.capacity)
}

impl Controller for VolumeExpander {
    fn name(&self) -> &'static str {
        "persistentvolume-expander-controller"
    }

    fn component(&self) -> &'static str {
        "volume_expand"
    }

    fn account(&self) -> &'static str {
        "expand-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<PersistentVolumeClaim>(|_, old, new| {
                let Some(claim) = new.filter(|claim| wants_more(claim)) else { return Vec::new() };
                // What was looked at already is not told of again.
                let known = old.is_some_and(|old| {
                    volumes::requested(old) == volumes::requested(claim) && old.status == claim.status
                });
                if known { Vec::new() } else { vec![view::key_of(claim)] }
            }),
            Watch::new::<PersistentVolume>(|view, _, new| {
                let reference = new
                    .filter(|volume| volumes::local_path::is_ours(volume))
                    .and_then(|v| v.spec.claim_ref.as_deref());
                reference
                    .map(|reference| ObjectKey::new(reference.namespace.clone(), reference.name.clone()))
                    .filter(|key| {
                        view.get::<PersistentVolumeClaim>(key).is_some_and(|claim| wants_more(&claim))
                    })
                    .into_iter()
                    .collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = context.view.get::<PersistentVolumeClaim>(context.key) else { return plan };
        if !wants_more(&claim) {
            return plan;
        }
        let key = ObjectKey::cluster(claim.spec.volume_name.clone());
        let Some(volume) = context.view.get::<PersistentVolume>(&key) else { return plan };
        let bound = volume.spec.claim_ref.as_ref().is_some_and(|own| own.uid == claim.metadata.uid);
        if !bound {
            return plan;
        }
        if !volumes::local_path::is_ours(&volume) {
            let text = "waiting for an external controller to expand this PVC";
            plan.events.push(Note::normal(claim.as_ref(), "ExternalExpanding", text));
            return plan;
        }
        let wanted = volumes::requested(&claim);
        if volumes::storage(&volume.spec.capacity) < wanted {
            let mut next = PersistentVolume::clone(&volume);
            next.spec.capacity.insert("storage".into(), wanted);
            plan.push(Action::Update(Box::new(next)));
            return plan;
        }
        let mut next = PersistentVolumeClaim::clone(&claim);
        next.status.capacity.clone_from(&volume.spec.capacity);
        plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
        plan
    }
}
