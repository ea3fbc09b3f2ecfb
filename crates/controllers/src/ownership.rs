//! Who controls an object: the one controller reference, and the rules by which objects are adopted and let go.

use crate::plan::{Action, Target};
use api::meta::v1::{ObjectMeta, OwnerReference};
use api::{Object, Typed};
use meta::labels::Selector;
use meta::{Gvk, ObjectKey};
use std::sync::Arc;

/// The reference to the object's controller, where it has one.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().find(|owner| owner.controller == Some(true))
}

/// The key of the controller, where it is of this group and kind.
pub fn controller_key<T: Typed>(metadata: &ObjectMeta) -> Option<ObjectKey> {
    let owner = controller_of(metadata)?;
    let gvk = T::gvk();
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == gvk.kind && group == gvk.group)
        .then(|| ObjectKey::new(metadata.namespace.clone(), owner.name.clone()))
}

pub fn is_controlled_by(metadata: &ObjectMeta, uid: &str) -> bool {
    controller_of(metadata).is_some_and(|owner| owner.uid == uid)
}

/// The reference that makes `owner` the controller.
pub fn controller_reference(gvk: Gvk, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: gvk.api_version(),
        kind: gvk.kind.into(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an owner has after claiming: its objects, and the writes that make it so.
pub struct Claimed<T> {
    pub objects: Vec<Arc<T>>,
    pub actions: Vec<Action>,
}

/// Claims what the selector matches and lets go what it no longer does.
///
/// An object that another controls is left alone; nothing is adopted by an owner that is going away, nor while it
/// is going away itself; what has no controller and does not match is no concern.
pub fn claim<T: Typed + Object>(
    owner: &ObjectMeta,
    gvk: Gvk,
    selector: &Selector,
    candidates: impl Iterator<Item = Arc<T>>,
) -> Claimed<T> {
    let mut claimed = Claimed { objects: Vec::new(), actions: Vec::new() };
    for object in candidates {
        let metadata = object.metadata();
        let matches = selector.matches(&metadata.labels);
        match controller_of(metadata) {
            Some(controller) if controller.uid != owner.uid => {}
            Some(_) if matches => claimed.objects.push(object),
            Some(_) => {
                if owner.deletion_timestamp.is_none() {
                    claimed.actions.push(release(object.as_ref(), &owner.uid));
                }
            }
            None => {
                let alive = owner.deletion_timestamp.is_none() && metadata.deletion_timestamp.is_none();
                if matches && alive {
                    claimed.actions.push(adopt(object.as_ref(), controller_reference(gvk, owner)));
                    claimed.objects.push(object);
                }
            }
        }
    }
    claimed
}

fn adopt<T: Typed + Object>(object: &T, reference: OwnerReference) -> Action {
    let body = serde_json::json!({"metadata": {
        "uid": object.metadata().uid,
        "ownerReferences": [{
            "apiVersion": reference.api_version, "kind": reference.kind, "name": reference.name,
            "uid": reference.uid, "controller": true, "blockOwnerDeletion": true,
        }],
    }});
    Action::Patch { target: Target::of(object), subresource: "", strategic: true, body }
}

fn release<T: Typed + Object>(object: &T, owner_uid: &str) -> Action {
    let body = serde_json::json!({"metadata": {
        "uid": object.metadata().uid,
        "ownerReferences": [{"$patch": "delete", "uid": owner_uid}],
    }});
    Action::Patch { target: Target::of(object), subresource: "", strategic: true, body }
}
