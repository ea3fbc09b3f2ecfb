//! Which claims a pod names, by itself or through volumes that live as long as it does.

use api::core::v1::{PersistentVolumeClaim, Pod, Volume};

/// A claim that a pod's volume names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim {
    /// The name of the pod's volume.
    pub volume: String,
    pub claim: String,
    /// The claim is made for the pod and goes with it.
    pub ephemeral: bool,
    pub read_only: bool,
}

/// The name of the claim that is made for a pod's ephemeral volume.
pub fn ephemeral_claim_name(pod_name: &str, volume_name: &str) -> String {
    format!("{pod_name}-{volume_name}")
}

/// The claims of a pod, in the order of its volumes.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = PodClaim> + '_ {
    pod.spec.volumes.iter().filter_map(|volume| claim_of(pod, volume))
}

fn claim_of(pod: &Pod, volume: &Volume) -> Option<PodClaim> {
    let source = &volume.volume_source;
    if let Some(own) = &source.persistent_volume_claim {
        return Some(PodClaim {
            volume: volume.name.clone(),
            claim: own.claim_name.clone(),
            ephemeral: false,
            read_only: own.read_only,
        });
    }
    source.ephemeral.as_ref()?;
    Some(PodClaim {
        volume: volume.name.clone(),
        claim: ephemeral_claim_name(&pod.metadata.name, &volume.name),
        ephemeral: true,
        read_only: false,
    })
}

/// Whether a claim is the one made for this pod, rather than one that happens to have its name.
pub fn owned_by_pod(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    claim
        .metadata
        .owner_references
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == pod.metadata.uid)
}
