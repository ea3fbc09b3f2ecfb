//! A typed strategy as an object-safe resource: common rules first, then what the kind adds.

use crate::columns::{Cell, Column};
use crate::object_meta;
use crate::resource::{Requester, Resource};
use crate::strategy::{StatusMetadata, Strategy};
use api::autoscaling::v1::Scale;
use api::meta::v1::ObjectMeta;
use api::{Object, ResourceFacts, Typed};
use meta::field::Errors;
use meta::{Descriptor, Time};
use std::marker::PhantomData;

/// One line of the table for a kind's hub version.
pub(crate) struct Row<S> {
    facts: &'static ResourceFacts,
    prefix: String,
    strategy: PhantomData<fn() -> S>,
}

impl<S: Strategy> Row<S> {
    pub(crate) fn new(facts: &'static ResourceFacts, prefix: String) -> Self {
        Row { facts, prefix, strategy: PhantomData }
    }
}

/// What a write of a status may do to metadata, as `policy` says.
fn revert_metadata(policy: StatusMetadata, new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.deletion_timestamp = old.deletion_timestamp;
    match policy {
        StatusMetadata::Free => {}
        StatusMetadata::KeepLabels => new.labels = old.labels.clone(),
        StatusMetadata::Keep => {
            new.labels = old.labels.clone();
            new.annotations = old.annotations.clone();
            new.finalizers = old.finalizers.clone();
            new.owner_references = old.owner_references.clone();
            new.self_link = old.self_link.clone();
        }
    }
}

impl<S: Strategy> Resource for Row<S> {
    fn facts(&self) -> &ResourceFacts {
        self.facts
    }
    fn descriptor(&self) -> &'static Descriptor {
        S::Object::DESCRIPTOR
    }
    fn new_object(&self) -> Box<dyn Object> {
        Box::new(S::Object::default())
    }
    fn storage_prefix(&self) -> &str {
        &self.prefix
    }

    fn default(&self, object: &mut dyn Object) {
        if let Some(object) = object.downcast_mut() {
            S::default(object);
        }
    }

    fn prepare_for_create(&self, new: &mut dyn Object) {
        let Some(new) = new.downcast_mut::<S::Object>() else { return };
        S::wipe_status(new);
        if S::GENERATION {
            new.metadata_mut().generation = 1;
        }
        S::prepare_for_create(new);
    }

    fn set_requester(&self, new: &mut dyn Object, requester: &Requester<'_>) {
        if let Some(new) = new.downcast_mut() {
            S::set_requester(new, requester);
        }
    }

    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object) {
        let (Some(new), Some(old)) = (new.downcast_mut::<S::Object>(), old.downcast::<S::Object>()) else {
            return;
        };
        S::keep_status(new, old);
        new.metadata_mut().generation = old.metadata().generation;
        S::prepare_for_update(new, old);
        if S::GENERATION && S::spec_changed(new, old) {
            new.metadata_mut().generation = old.metadata().generation + 1;
        }
    }

    fn prepare_for_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object) {
        let (Some(new), Some(old)) = (new.downcast_mut::<S::Object>(), old.downcast::<S::Object>()) else {
            return;
        };
        if subresource == "status" {
            S::keep_all_but_status(new, old);
            revert_metadata(S::STATUS_METADATA, new.metadata_mut(), old.metadata());
            S::prepare_for_status(new, old);
            return;
        }
        new.metadata_mut().generation = old.metadata().generation;
        S::prepare_for_subresource(subresource, new, old);
        if S::GENERATION && S::spec_changed(new, old) {
            new.metadata_mut().generation = old.metadata().generation + 1;
        }
    }

    fn validate_create(&self, new: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        if let Some(new) = new.downcast::<S::Object>() {
            object_meta::validate(new.metadata(), self.facts.namespaced, S::NAME, &mut errors);
            S::validate(new, None, &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        if let (Some(new), Some(old)) = (new.downcast::<S::Object>(), old.downcast::<S::Object>()) {
            object_meta::validate_update(new.metadata(), old.metadata(), &mut errors);
            S::validate(new, Some(old), &mut errors);
        }
        errors
    }

    fn validate_subresource(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors {
        let mut errors = Errors::default();
        if let (Some(new), Some(old)) = (new.downcast::<S::Object>(), old.downcast::<S::Object>()) {
            object_meta::validate_update(new.metadata(), old.metadata(), &mut errors);
            if subresource == "status" {
                S::validate_status(new, old, &mut errors);
            } else {
                S::validate_subresource(subresource, new, old, &mut errors);
            }
        }
        errors
    }

    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        let Some(new) = new.downcast::<S::Object>() else { return Vec::new() };
        S::warnings(new, old.and_then(|old| old.downcast()))
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        (S::NAME)(name, prefix)
    }

    fn columns(&self) -> &[Column] {
        S::COLUMNS
    }

    fn row(&self, object: &dyn Object, now: Time) -> Vec<Cell> {
        object.downcast().map(|object| S::row(object, now)).unwrap_or_default()
    }

    fn selectable(&self, object: &dyn Object) -> Vec<(&'static str, String)> {
        let metadata = object.metadata();
        let mut fields = vec![("metadata.name", metadata.name.clone())];
        if self.facts.namespaced {
            fields.push(("metadata.namespace", metadata.namespace.clone()));
        }
        if let Some(object) = object.downcast() {
            fields.extend(S::selectable(object));
        }
        fields
    }

    fn field_label(&self, label: &str) -> Result<String, String> {
        let label = S::field_alias(label);
        if S::SELECTABLE.is_empty() {
            return metadata_label(label);
        }
        if S::SELECTABLE.contains(&label) {
            Ok(label.into())
        } else {
            Err(format!("field label not supported: {label}"))
        }
    }

    fn outlives_deletion(&self, object: &dyn Object) -> bool {
        object.downcast().is_some_and(S::outlives_deletion)
    }
    fn begin_deletion(&self, object: &mut dyn Object) {
        if let Some(object) = object.downcast_mut() {
            S::begin_deletion(object);
        }
    }
    fn deletion_grace_seconds(&self, object: &dyn Object, requested: Option<i64>) -> Option<i64> {
        object.downcast().and_then(|object| S::grace_seconds(object, requested))
    }
    fn allow_create_on_update(&self) -> bool {
        S::CREATE_ON_UPDATE
    }
    fn allow_unconditional_update(&self) -> bool {
        S::UNCONDITIONAL_UPDATE
    }
    fn orphans_by_default(&self) -> bool {
        S::ORPHANS
    }

    fn scale(&self, object: &dyn Object) -> Option<Scale> {
        object.downcast().and_then(S::scale)
    }
    fn set_scale(&self, object: &mut dyn Object, scale: &Scale) {
        if let Some(object) = object.downcast_mut() {
            S::set_scale(object, scale);
        }
    }
}

/// Kinds that name no fields of their own can be selected by name and namespace.
pub(crate) fn metadata_label(label: &str) -> Result<String, String> {
    match label {
        "metadata.name" | "metadata.namespace" => Ok(label.into()),
        _ => Err(format!(
            "{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )),
    }
}
