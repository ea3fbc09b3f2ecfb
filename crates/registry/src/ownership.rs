//! Managed fields in the write path: whose entries are taken, and who owns what a write changed.

use crate::request::UpdateKind;
use crate::write::{Target, now};
use api::Object;
use api::meta::v1::ManagedFieldsEntry;
use meta::Gvk;
use parking_lot::RwLock;
use patch::managed::{self, Claim};
use resources::Resource;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// An object as a tree, without managed fields.
pub(crate) fn tree(object: &dyn Object) -> Value {
    let mut tree = api::codec::to_value(object.as_dyn());
    if let Some(metadata) = tree.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    tree
}

/// The tree of an object with nothing in it, made once for each kind.
pub(crate) fn empty_tree(resource: &'static dyn Resource) -> Arc<Value> {
    static MADE: LazyLock<RwLock<HashMap<Gvk, Arc<Value>>>> = LazyLock::new(RwLock::default);
    let gvk = resource.gvk();
    if let Some(known) = MADE.read().get(&gvk) {
        return Arc::clone(known);
    }
    let made = Arc::new(tree(&*resource.new_object()));
    MADE.write().insert(gvk, Arc::clone(&made));
    made
}

/// Calls `with` with who the request claims fields for.
pub(crate) fn with_claim<T>(target: &Target<'_>, with: impl FnOnce(&Claim<'_>) -> T) -> T {
    let subresource = target.kind.subresource();
    let manager = target.request.manager();
    let api_version = target.resource.gvk().api_version();
    let empty = empty_tree(target.resource);
    let (mut with, mut result) = (Some(with), None);
    target.resource.with_shape(&mut |shape| {
        let Some(with) = with.take() else { return };
        result = Some(with(&Claim {
            manager: &manager,
            api_version: &api_version,
            subresource,
            now: now(),
            shape,
            empty: &empty,
            reset: target.resource.reset_fields(subresource),
        }));
    });
    result.expect("a resource lends its shape exactly once")
}

/// Settles the managed fields of an object that is being created by anything but an apply.
pub(crate) fn claim_created(target: &Target<'_>, object: &mut dyn Object) {
    let given = std::mem::take(&mut object.metadata_mut().managed_fields);
    let entries = if is_reset(&given) { Vec::new() } else { managed::readable(&given) };
    let new = tree(object);
    object.metadata_mut().managed_fields =
        with_claim(target, |claim| managed::update(claim.empty, &new, &entries, claim));
}

/// Settles the managed fields of a proposed update: what changed is the requester's now.
pub(crate) fn claim_updated(target: &Target<'_>, object: &mut dyn Object, old: &dyn Object) {
    let given = std::mem::take(&mut object.metadata_mut().managed_fields);
    let before = &old.metadata().managed_fields;
    let entries = if target.kind != UpdateKind::Spec {
        managed::readable(before)
    } else if is_reset(&given) {
        Vec::new()
    } else {
        match managed::readable(&given) {
            // A client that does not know of managed fields does not delete them.
            none if none.is_empty() => managed::readable(before),
            entries => entries,
        }
    };
    if entries.is_empty() {
        // Nobody tracks this object, and an update does not begin to.
        return;
    }
    let (live, new) = (tree(old), tree(object));
    object.metadata_mut().managed_fields =
        with_claim(target, |claim| managed::update(&live, &new, &entries, claim));
}

/// One empty entry is how a client asks for all entries to be dropped.
fn is_reset(entries: &[ManagedFieldsEntry]) -> bool {
    matches!(entries, [only] if *only == ManagedFieldsEntry::default())
}

/// Where nothing but times of managed fields would change, nothing changes.
pub(crate) fn keep_unchanged_times(object: &mut dyn Object, old: &dyn Object) {
    let before = &old.metadata().managed_fields;
    let after = &object.metadata().managed_fields;
    let same = before.len() == after.len()
        && before.iter().zip(after).all(|(before, after)| {
            let mut timed = after.clone();
            timed.time = before.time;
            timed == *before
        });
    if !same || before == after {
        return;
    }
    let entries = std::mem::replace(&mut object.metadata_mut().managed_fields, before.clone());
    let unchanged = api::codec::to_stored(object) == api::codec::to_stored(old);
    if !unchanged {
        object.metadata_mut().managed_fields = entries;
    }
}
