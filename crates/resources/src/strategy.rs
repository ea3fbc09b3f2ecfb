//! What one kind decides for itself, typed. Everything has a default, so that a kind states only where it differs.

use crate::columns::{self, Cell, Column};
use crate::resource::Requester;
use api::autoscaling::v1::Scale;
use api::{Object, Typed};
use meta::Time;
use meta::field::Errors;

/// What a write of `status` may change in metadata, besides managed fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMetadata {
    /// Labels, annotations, finalizers and owners are written too.
    Free,
    /// As `Free`, but labels stay.
    KeepLabels,
    /// Nothing changes.
    Keep,
}

/// The rules of one kind, in its hub version.
pub trait Strategy: Send + Sync + 'static {
    type Object: Object + Typed + Clone;
    /// The resource's name in URLs; with the object's group and version it finds the row's facts.
    const PLURAL: &'static str;
    const COLUMNS: &'static [Column] = columns::DEFAULT;
    /// `metadata.generation` starts at 1 and steps with each change of what `spec_changed` compares.
    const GENERATION: bool = false;
    const NAME: crate::names::Rule = crate::names::dns_subdomain;
    /// All field labels that selectors may name; empty means name and namespace only.
    const SELECTABLE: &'static [&'static str] = &[];
    const CREATE_ON_UPDATE: bool = false;
    const UNCONDITIONAL_UPDATE: bool = true;
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Free;
    /// Dependents outlive a deletion that does not say what becomes of them.
    const ORPHANS: bool = false;

    fn default(_object: &mut Self::Object) {}
    /// After status was wiped and the generation set.
    fn prepare_for_create(_new: &mut Self::Object) {}
    /// Right after `prepare_for_create`: what an object says of who made it.
    fn set_requester(_new: &mut Self::Object, _requester: &Requester<'_>) {}
    /// After status was kept, before the generation steps.
    fn prepare_for_update(_new: &mut Self::Object, _old: &Self::Object) {}
    /// After everything but status and metadata was reverted.
    fn prepare_for_status(_new: &mut Self::Object, _old: &Self::Object) {}
    /// Subresources other than `status` that carry the whole object.
    fn prepare_for_subresource(_subresource: &str, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Checks beyond metadata; `old` is absent on create.
    fn validate(_new: &Self::Object, _old: Option<&Self::Object>, _errors: &mut Errors) {}
    fn validate_status(_new: &Self::Object, _old: &Self::Object, _errors: &mut Errors) {}
    fn validate_subresource(_sub: &str, _new: &Self::Object, _old: &Self::Object, _errors: &mut Errors) {}
    fn warnings(_new: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// Values of the labels in `SELECTABLE`, without `metadata.*`.
    fn selectable(_object: &Self::Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Older names of a field label.
    fn field_alias(label: &str) -> &str {
        label
    }
    fn row(object: &Self::Object, now: Time) -> Vec<Cell> {
        let metadata = object.metadata();
        let created = if Self::COLUMNS == columns::DEFAULT {
            metadata.creation_timestamp.map_or(Cell::Null, |time| time.to_string().into())
        } else {
            columns::since(metadata.creation_timestamp, now).into()
        };
        vec![metadata.name.clone().into(), created]
    }

    /// See `Resource::outlives_deletion`.
    fn outlives_deletion(_object: &Self::Object) -> bool {
        false
    }
    fn begin_deletion(_object: &mut Self::Object) {}
    fn grace_seconds(_object: &Self::Object, _requested: Option<i64>) -> Option<i64> {
        None
    }
    fn scale(_object: &Self::Object) -> Option<Scale> {
        None
    }
    fn set_scale(_object: &mut Self::Object, _scale: &Scale) {}

    // What the macros below write for kinds with spec and status.
    fn spec_changed(_new: &Self::Object, _old: &Self::Object) -> bool {
        false
    }
    fn wipe_status(_new: &mut Self::Object) {}
    fn keep_status(_new: &mut Self::Object, _old: &Self::Object) {}
    fn keep_all_but_status(_new: &mut Self::Object, _old: &Self::Object) {}
}

/// Inside a `Strategy`: the kind's generation follows its `spec`.
#[macro_export]
macro_rules! with_spec {
    () => {
        const GENERATION: bool = true;
        fn spec_changed(new: &Self::Object, old: &Self::Object) -> bool {
            new.spec != old.spec
        }
    };
}

/// Inside a `Strategy`: users write `status` only through its subresource.
#[macro_export]
macro_rules! with_status {
    () => {
        fn wipe_status(new: &mut Self::Object) {
            new.status = ::core::default::Default::default();
        }
        fn keep_status(new: &mut Self::Object, old: &Self::Object) {
            new.status = old.status.clone();
        }
        fn keep_all_but_status(new: &mut Self::Object, old: &Self::Object) {
            let status = ::core::mem::take(&mut new.status);
            let metadata = ::core::mem::take(&mut new.metadata);
            *new = old.clone();
            new.status = status;
            new.metadata = metadata;
        }
    };
}
