//! One volume: available, bound, or released and reclaimed.

use super::key_in;
use super::status::set_volume;
use crate::plan::{Action, Note, Plan};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use std::sync::Arc;
use view::View;

pub(super) fn sync(view: &View, volume: &PersistentVolume, plan: &mut Plan) {
    let Some(reference) = volume.spec.claim_ref.as_deref().filter(|reference| !reference.uid.is_empty())
    else {
        // Free, or reserved for a claim that will see to the rest itself.
        set_volume(volume, "Available", None, plan);
        return;
    };
    let claim = view
        .get::<PersistentVolumeClaim>(&key_in(&reference.namespace, &reference.name))
        .filter(|claim| claim.metadata.uid == reference.uid);
    let Some(claim) = claim else {
        // A claim that is bound from outside may merely not be seen yet.
        let seen = view.revision(view::kind_id::<PersistentVolumeClaim>());
        let named_at: u64 = reference.resource_version.parse().unwrap_or(0);
        if seen < named_at {
            plan.again_after_seconds(1);
            return;
        }
        release(volume, plan);
        return;
    };
    if claim.spec.volume_name.is_empty() {
        if volumes::modes_differ(&claim, volume) {
            mismatch(volume, &claim, plan);
        }
        // Else the claim sees to it: it is looked at whenever a volume that names it changes.
    } else if claim.spec.volume_name == volume.metadata.name {
        set_volume(volume, "Bound", None, plan);
    } else {
        let dynamic = volume.metadata.annotations.contains_key(volumes::PROVISIONED_BY);
        if dynamic && volume.spec.persistent_volume_reclaim_policy == "Delete" {
            release(volume, plan);
        } else {
            unbind(volume, plan);
        }
    }
}

fn mismatch(volume: &PersistentVolume, claim: &Arc<PersistentVolumeClaim>, plan: &mut Plan) {
    let (volume_name, claim_name) = (&volume.metadata.name, &claim.metadata.name);
    plan.events.push(Note::warning(
        volume,
        "VolumeMismatch",
        format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim_name:?} due to incompatible volumeMode."
        ),
    ));
    plan.events.push(Note::warning(
        claim.as_ref(),
        "VolumeMismatch",
        format!(
            "Cannot bind PersistentVolume {volume_name:?} to requested PersistentVolumeClaim due to incompatible volumeMode."
        ),
    ));
}

/// The claim is gone: the volume says so, and then goes the way that its policy says.
fn release(volume: &PersistentVolume, plan: &mut Plan) {
    if !matches!(volume.status.phase.as_str(), "Released" | "Failed") {
        // Who made the volume sees this phase and removes it, where that is the policy.
        set_volume(volume, "Released", None, plan);
        return;
    }
    if volume.metadata.deletion_timestamp.is_some() {
        return;
    }
    match volume.spec.persistent_volume_reclaim_policy.as_str() {
        "Retain" => {}
        "Delete" => {
            let dynamic = volume.metadata.annotations.contains_key(volumes::PROVISIONED_BY);
            let external = dynamic || volume.spec.persistent_volume_source.csi.is_some();
            if !external {
                let text = format!(
                    "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                    volume.metadata.name
                );
                fail(volume, "VolumeFailedDelete", text, plan);
            }
        }
        "Recycle" => {
            fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!".into(), plan);
        }
        _ => {
            let text = "Volume has unrecognized PersistentVolumeReclaimPolicy";
            fail(volume, "VolumeUnknownReclaimPolicy", text.into(), plan);
        }
    }
}

fn fail(volume: &PersistentVolume, reason: &'static str, text: String, plan: &mut Plan) {
    set_volume(volume, "Failed", Some(Note::warning(volume, reason, text)), plan);
}

/// The claim was bound elsewhere: the volume is free again, or reserved again where its maker had reserved it.
fn unbind(volume: &PersistentVolume, plan: &mut Plan) {
    let mut next = volume.clone();
    if next.metadata.annotations.remove(volumes::BOUND_BY_CONTROLLER).is_some() {
        next.spec.claim_ref = None;
    } else if let Some(reference) = &mut next.spec.claim_ref {
        reference.uid.clear();
    }
    plan.push(Action::Update(Box::new(next)));
}
