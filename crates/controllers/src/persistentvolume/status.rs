//! The writes that say in which phase a claim or a volume is: only where that changes something.

use crate::plan::{Action, Note, Plan, Step};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use meta::Quantity;

/// Sets a claim's phase, and what it has of its volume; `true` where that is a write.
pub(super) fn set_claim(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
    told: Option<Note>,
    plan: &mut Plan,
) -> bool {
    let mut status = claim.status.clone();
    match volume {
        None => {
            status.access_modes.clear();
            status.capacity.clear();
            status.current_volume_attributes_class_name = None;
        }
        Some(volume) => {
            status.access_modes.clone_from(&volume.spec.access_modes);
            // Once bound, the claim's capacity is that of its file system, which follows a resize later.
            if status.phase != phase {
                let before = volume.metadata.annotations.get(volumes::PRE_RESIZE_CAPACITY);
                match before.and_then(|text| Quantity::parse(text).ok()) {
                    Some(before) => {
                        status.capacity.insert("storage".into(), before);
                    }
                    None => status.capacity.clone_from(&volume.spec.capacity),
                }
                let class = &volume.spec.volume_attributes_class_name;
                if status.phase == "Pending" && phase == "Bound" {
                    status.current_volume_attributes_class_name.clone_from(class);
                }
            }
        }
    }
    let enters = status.phase != phase;
    status.phase = phase.into();
    if status == claim.status {
        return false;
    }
    let mut next = claim.clone();
    next.status = status;
    let step = Step::new(Action::UpdateSub { object: Box::new(next), subresource: "status" });
    plan.steps.push(match told {
        Some(note) if enters => step.done(note),
        _ => step,
    });
    true
}

/// Sets a volume's phase; `true` where that is a write.
pub(super) fn set_volume(
    volume: &PersistentVolume,
    phase: &str,
    told: Option<Note>,
    plan: &mut Plan,
) -> bool {
    if volume.status.phase == phase {
        return false;
    }
    let mut next = volume.clone();
    next.status.phase = phase.into();
    next.status.message = told.as_ref().map(|note| note.message.clone()).unwrap_or_default();
    let step = Step::new(Action::UpdateSub { object: Box::new(next), subresource: "status" });
    plan.steps.push(match told {
        Some(note) => step.done(note),
        None => step,
    });
    true
}
