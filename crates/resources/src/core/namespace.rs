//! Namespaces: kept alive by a finalizer of their own until all they hold is gone.

use crate::columns::{self, AGE, Cell, Column, NAME};
use crate::names;
use crate::strategy::Strategy;
use crate::with_status;
use api::core::v1::Namespace;
use meta::field::{Errors, Path};
use meta::{Time, validation};

/// The finalizer that a namespace holds in its spec until it is empty.
pub const FINALIZER: &str = "kubernetes";
/// The label by which namespaces are selected by name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub struct Namespaces;

fn label(namespace: &mut Namespace) {
    // A generated name is not known yet when defaults are applied.
    if !namespace.metadata.name.is_empty() {
        let name = namespace.metadata.name.clone();
        namespace.metadata.labels.insert(NAME_LABEL.into(), name);
    }
}

impl Strategy for Namespaces {
    type Object = Namespace;
    const PLURAL: &'static str = "namespaces";
    const COLUMNS: &'static [Column] = &[NAME, Column::string("Status"), AGE];
    const NAME: names::Rule = names::dns_label;
    const SELECTABLE: &'static [&'static str] = &["status.phase", "metadata.name"];
    with_status!();

    fn default(namespace: &mut Namespace) {
        label(namespace);
        super::pod::defaults::fill(&mut namespace.status.phase, "Active");
    }

    fn prepare_for_create(namespace: &mut Namespace) {
        label(namespace);
        namespace.status.phase = "Active".into();
        let finalizers = &mut namespace.spec.finalizers;
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
    }

    fn prepare_for_update(new: &mut Namespace, old: &Namespace) {
        new.spec.finalizers = old.spec.finalizers.clone();
    }

    /// `finalize` writes the spec, and nothing of the status.
    fn prepare_for_subresource(_subresource: &str, new: &mut Namespace, old: &Namespace) {
        new.status = old.status.clone();
    }

    fn validate(new: &Namespace, _old: Option<&Namespace>, errors: &mut Errors) {
        let path = Path::new("spec").child("finalizers");
        new.spec.finalizers.iter().for_each(|finalizer| validate_finalizer(finalizer, &path, errors));
    }

    fn validate_status(new: &Namespace, old: &Namespace, errors: &mut Errors) {
        let path = Path::new("status").child("phase");
        let deleted = old.metadata.deletion_timestamp.is_some();
        if !deleted && new.status.phase != "Active" {
            errors.invalid(&path, &new.status.phase, "may only be 'Active' if `deletionTimestamp` is empty");
        } else if deleted && new.status.phase != "Terminating" {
            errors.invalid(
                &path,
                &new.status.phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            );
        }
    }

    fn validate_subresource(_subresource: &str, new: &Namespace, _old: &Namespace, errors: &mut Errors) {
        let path = Path::new("spec").child("finalizers");
        for (index, finalizer) in new.spec.finalizers.iter().enumerate() {
            validate_finalizer(finalizer, &path.index(index), errors);
        }
    }

    /// The namespace's controller empties it, then takes the finalizer out.
    fn outlives_deletion(namespace: &Namespace) -> bool {
        !namespace.spec.finalizers.is_empty()
    }

    fn begin_deletion(namespace: &mut Namespace) {
        namespace.status.phase = "Terminating".into();
    }

    fn selectable(namespace: &Namespace) -> Vec<(&'static str, String)> {
        vec![("status.phase", namespace.status.phase.clone())]
    }

    fn row(namespace: &Namespace, now: Time) -> Vec<Cell> {
        let metadata = &namespace.metadata;
        vec![columns::name(metadata), namespace.status.phase.clone().into(), columns::age(metadata, now)]
    }
}

/// Finalizers in the spec without a prefix are Kubernetes' own, of which there is one.
fn validate_finalizer(finalizer: &str, path: &Path, errors: &mut Errors) {
    errors.invalid_each(path, finalizer, validation::qualified_name(finalizer));
    if !finalizer.contains('/') && finalizer != FINALIZER && finalizer != "orphan" {
        errors.invalid(
            path,
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        );
    }
}
