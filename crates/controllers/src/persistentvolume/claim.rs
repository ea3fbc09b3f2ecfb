//! One claim: finds it a volume, asks for one to be made, finishes its binding, or says that it is lost.

use super::status::{set_claim, set_volume};
use crate::plan::{Action, Note, Plan};
use crate::pod;
use api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::storage::v1::StorageClass;
use meta::ObjectKey;
use std::sync::Arc;
use view::View;
use volumes::Wanted;

pub(super) fn sync(view: &View, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.metadata.annotations.contains_key(volumes::BIND_COMPLETED) {
        sync_bound(view, claim, plan);
    } else if claim.spec.volume_name.is_empty() {
        sync_free(view, claim, plan);
    } else {
        sync_requested(view, claim, plan);
    }
}

/// A claim that takes whichever volume suits it.
fn sync_free(view: &View, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let class_name = volumes::class_of_claim(claim);
    let class = view.get::<StorageClass>(&ObjectKey::cluster(class_name.to_string()));
    let waits = volumes::waits_for_consumer(class.as_deref());
    let wanted = if waits { Wanted::Reserved } else { Wanted::Any };
    let all: Vec<Arc<PersistentVolume>> = view.list::<PersistentVolume>().collect();
    if let Some(volume) = volumes::best_match(claim, all.iter(), wanted) {
        bind(&volume, claim, plan);
        return;
    }
    if !volumes::has_class(claim) {
        let classes: Vec<Arc<StorageClass>> = view.list::<StorageClass>().collect();
        if let Some(name) = volumes::default_class(classes.iter().map(|class| &class.metadata)) {
            let mut next = claim.clone();
            next.spec.storage_class_name = Some(name.to_string());
            plan.push(Action::Update(Box::new(next)));
            return;
        }
    }
    if waits && !claim.metadata.annotations.contains_key(volumes::SELECTED_NODE) {
        plan.events.push(waiting(view, claim));
    } else if !class_name.is_empty() {
        if provision(claim, class_name, class.as_deref(), plan) {
            return;
        }
    } else {
        let text = "no persistent volumes available for this claim and no storage class is set";
        plan.events.push(Note::normal(claim, "FailedBinding", text));
    }
    set_claim(claim, "Pending", None, None, plan);
}

/// What a claim waits for whose class waits for the first consumer.
fn waiting(view: &View, claim: &PersistentVolumeClaim) -> Note {
    let pods: Vec<String> = view
        .in_namespace::<Pod>(&claim.metadata.namespace)
        .filter(|pod| pod.spec.node_name.is_empty() && !pod::is_finished(pod))
        .filter(|pod| volumes::claims_of(pod).any(|own| own.claim == claim.metadata.name))
        .map(|pod| pod.metadata.name.clone())
        .collect();
    let (reason, text) = match pods.as_slice() {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_string()),
        [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
        more => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", more.join(","))),
    };
    Note::normal(claim, reason, text)
}

/// Names the provisioner on the claim: it makes the volume when it sees itself named. `true` where that is a write.
fn provision(
    claim: &PersistentVolumeClaim,
    class_name: &str,
    class: Option<&StorageClass>,
    plan: &mut Plan,
) -> bool {
    let Some(class) = class else {
        let text = format!("storageclass.storage.k8s.io {class_name:?} not found");
        plan.events.push(Note::warning(claim, "ProvisioningFailed", text));
        return false;
    };
    let provisioner = &class.provisioner;
    if provisioner.starts_with("kubernetes.io/") {
        let text = format!("no volume plugin matched name: {provisioner}");
        plan.events.push(Note::warning(claim, "ProvisioningFailed", text));
        return false;
    }
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    let note = Note::normal(claim, "ExternalProvisioning", text);
    let names = [volumes::STORAGE_PROVISIONER, volumes::STORAGE_PROVISIONER_BETA];
    if names.iter().all(|name| claim.metadata.annotations.get(*name) == Some(provisioner)) {
        plan.events.push(note);
        return false;
    }
    let mut next = claim.clone();
    for name in names {
        next.metadata.annotations.insert(name.into(), provisioner.clone());
    }
    plan.steps.push(crate::Step::new(Action::Update(Box::new(next))).done(note));
    true
}

/// A claim that names the volume it wants.
fn sync_requested(view: &View, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let name = &claim.spec.volume_name;
    let Some(volume) = view.get::<PersistentVolume>(&ObjectKey::cluster(name.clone())) else {
        set_claim(claim, "Pending", None, None, plan);
        return;
    };
    if volumes::is_bound_to(&volume, claim) {
        bind(&volume, claim, plan);
        return;
    }
    let refusal = if volume.spec.claim_ref.is_some() {
        Some(("FailedBinding", format!("volume {name:?} already bound to a different claim.")))
    } else {
        unsuited(&volume, claim)
            .map(|why| ("VolumeMismatch", format!("Cannot bind to requested volume {name:?}: {why}")))
    };
    match refusal {
        None => bind(&volume, claim, plan),
        Some((reason, text)) => {
            plan.events.push(Note::warning(claim, reason, text));
            set_claim(claim, "Pending", None, None, plan);
        }
    }
}

/// Why the volume that a claim names is not what it asks for.
fn unsuited(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion {:?}", volume.metadata.name));
    }
    let why = if volumes::storage(&volume.spec.capacity) < volumes::requested(claim) {
        "requested PV is too small"
    } else if volumes::class_of_volume(volume) != volumes::class_of_claim(claim) {
        "storageClassName does not match"
    } else if attributes(&volume.spec.volume_attributes_class_name)
        != attributes(&claim.spec.volume_attributes_class_name)
    {
        "volumeAttributesClassName does not match"
    } else if volumes::modes_differ(claim, volume) {
        "incompatible volumeMode"
    } else if volumes::lacks_access_modes(claim, volume) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(why.into())
}

/// A claim whose binding was complete: it is kept up, or found to be lost.
fn sync_bound(view: &View, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let lost = |reason, text: &str, plan: &mut Plan| {
        set_claim(claim, "Lost", None, Some(Note::warning(claim, reason, text)), plan);
    };
    if claim.spec.volume_name.is_empty() {
        let text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost("ClaimLost", text, plan);
    }
    let key = ObjectKey::cluster(claim.spec.volume_name.clone());
    let Some(volume) = view.get::<PersistentVolume>(&key) else {
        let text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost("ClaimLost", text, plan);
    };
    match &volume.spec.claim_ref {
        Some(reference) if reference.uid != claim.metadata.uid => {
            let text = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost("ClaimMisbound", text, plan);
        }
        _ => bind(&volume, claim, plan),
    }
}

/// The next writes that bind the two: the volume first, so that no other claim takes it, then its phase, the claim,
/// and the claim's phase.
pub(super) fn bind(volume: &PersistentVolume, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if let Some(next) = volumes::bound_to(volume, claim) {
        plan.push(Action::Update(Box::new(next)));
        return;
    }
    set_volume(volume, "Bound", None, plan);
    let mut next = claim.clone();
    if claim.spec.volume_name != volume.metadata.name {
        next.spec.volume_name.clone_from(&volume.metadata.name);
        next.metadata.annotations.entry(volumes::BOUND_BY_CONTROLLER.into()).or_insert_with(|| "yes".into());
    }
    next.metadata.annotations.entry(volumes::BIND_COMPLETED.into()).or_insert_with(|| "yes".into());
    if next.metadata.annotations != claim.metadata.annotations || next.spec != claim.spec {
        plan.push(Action::Update(Box::new(next)));
        return;
    }
    set_claim(claim, "Bound", Some(volume), None, plan);
}
