//! What becomes of a StatefulSet's claims: owned by the set they go with it, owned by a pod that is scaled away they go
//! with that; and where they are kept, neither owns them.

use crate::ownership::controller_reference;
use api::Typed;
use api::apps::v1::StatefulSet;
use api::core::v1::{PersistentVolumeClaim, Pod};
use api::meta::v1::OwnerReference;

fn deletes(policy: &str) -> bool {
    policy == "Delete"
}

/// Whether claims go when the set is deleted, and when it is scaled down.
fn policies(set: &StatefulSet) -> (bool, bool) {
    set.spec
        .persistent_volume_claim_retention_policy
        .as_ref()
        .map_or((false, false), |policy| (deletes(&policy.when_deleted), deletes(&policy.when_scaled)))
}

fn names(reference: &OwnerReference, api_version: &str, kind: &str, name: &str) -> bool {
    let group = |version: &str| version.split_once('/').map_or(String::new(), |(group, _)| group.to_string());
    reference.kind == kind && reference.name == name && group(&reference.api_version) == group(api_version)
}

fn names_set(reference: &OwnerReference, set: &StatefulSet) -> bool {
    names(reference, "apps/v1", "StatefulSet", &set.metadata.name)
}

fn names_pod(reference: &OwnerReference, pod_name: &str) -> bool {
    names(reference, "v1", "Pod", pod_name)
}

/// The owners that a claim of a pod is to have, where it has not. `condemned`: the pod is beyond the set's last.
pub(crate) fn owners(
    set: &StatefulSet,
    pod: &Pod,
    condemned: bool,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let now = &claim.metadata.owner_references;
    let (set_uid, pod_uid, pod_name) = (&set.metadata.uid, &pod.metadata.uid, &pod.metadata.name);
    // Owned by an earlier one of the same name, it is the garbage collector's.
    let stale = now.iter().any(|owner| {
        (names_set(owner, set) && owner.uid != *set_uid)
            || (names_pod(owner, pod_name) && owner.uid != *pod_uid)
    });
    if stale {
        return None;
    }
    let (with_set, with_pod) = policies(set);
    let foreign = (with_set || with_pod)
        && now
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid != *set_uid && owner.uid != *pod_uid);
    let mut next: Vec<OwnerReference> =
        now.iter().filter(|owner| !names_set(owner, set) && !names_pod(owner, pod_name)).cloned().collect();
    if !foreign {
        if with_pod && condemned {
            next.push(controller_reference(Pod::gvk(), &pod.metadata));
        } else if with_set {
            next.push(controller_reference(StatefulSet::gvk(), &set.metadata));
        }
    }
    // What owned it without controlling it is put right as well; the order of owners says nothing.
    let key = |owner: &OwnerReference| (owner.uid.clone(), owner.controller == Some(true));
    let sorted = |owners: &[OwnerReference]| {
        let mut keys: Vec<_> = owners.iter().map(key).collect();
        keys.sort();
        keys
    };
    (sorted(&next) != sorted(now)).then_some(next)
}

/// Whether a claim still belongs to a pod that was scaled away: a new pod of its name waits until it is gone.
pub(crate) fn is_leaving(set: &StatefulSet, pod_name: &str, claim: &PersistentVolumeClaim) -> bool {
    policies(set).1 && claim.metadata.owner_references.iter().any(|owner| names_pod(owner, pod_name))
}
