//! Makes the claims of volumes that live as long as their pod.

use crate::controller::{Context, Controller, Watch};
use crate::ownership::controller_reference;
use crate::plan::{Action, Note, Plan, Step};
use api::Typed;
use api::core::v1::{EphemeralVolumeSource, PersistentVolumeClaim, Pod, Volume};
use meta::ObjectKey;

pub struct EphemeralVolumes;

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn component(&self) -> &'static str {
        "ephemeral_volume"
    }

    fn account(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<Pod>(|_, old, new| {
                let Some(pod) = new.filter(|_| old.is_none()) else { return Vec::new() };
                let has = pod.spec.volumes.iter().any(|volume| volume.volume_source.ephemeral.is_some());
                if has { vec![view::key_of(pod)] } else { Vec::new() }
            }),
            // A claim that goes while its pod is there has to be made again.
            Watch::new::<PersistentVolumeClaim>(|_, old, new| {
                let (Some(claim), None) = (old, new) else { return Vec::new() };
                crate::ownership::controller_key::<Pod>(&claim.metadata).into_iter().collect()
            }),
        ]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = context.view.get::<Pod>(context.key) else { return plan };
        if pod.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        for volume in &pod.spec.volumes {
            let Some(source) = volume.volume_source.ephemeral.as_deref() else { continue };
            let name = volumes::ephemeral_claim_name(&pod.metadata.name, &volume.name);
            let key = ObjectKey::new(pod.metadata.namespace.clone(), name.clone());
            match context.view.get::<PersistentVolumeClaim>(&key) {
                Some(claim) if volumes::owned_by_pod(&claim, &pod) => {}
                Some(_) => {
                    plan.events.push(failure(
                        &pod,
                        volume,
                        &format!("PVC {key} was not created for pod {} (pod is not owner)", context.key),
                    ));
                    // The other claim may go: its deletion names no pod.
                    plan.again_after_seconds(10);
                    return plan;
                }
                None => {
                    let failed = failure(&pod, volume, &format!("create PVC {name}: {{error}}"));
                    let create = Action::Create(Box::new(claim_for(&pod, source, name)));
                    plan.steps.push(Step::new(create).failed(failed));
                }
            }
        }
        plan
    }
}

fn failure(pod: &Pod, volume: &Volume, text: &str) -> Note {
    Note::warning(pod, "FailedBinding", format!("ephemeral volume {}: {text}", volume.name))
}

fn claim_for(pod: &Pod, source: &EphemeralVolumeSource, name: String) -> PersistentVolumeClaim {
    let template = source.volume_claim_template.as_deref().cloned().unwrap_or_default();
    let mut claim = PersistentVolumeClaim { spec: template.spec, ..PersistentVolumeClaim::default() };
    claim.metadata.name = name;
    claim.metadata.namespace.clone_from(&pod.metadata.namespace);
    claim.metadata.annotations = template.metadata.annotations;
    claim.metadata.labels = template.metadata.labels;
    claim.metadata.owner_references = vec![controller_reference(Pod::gvk(), &pod.metadata)];
    claim
}
