//! What every resource can do, whatever its kind: the interface of the write path, discovery and printing.

use crate::columns::{Cell, Column};
use api::autoscaling::v1::Scale;
use api::{Object, ResourceFacts};
use meta::field::Errors;
use meta::{Descriptor, Gvk, ObjectKey, Time};
use std::collections::BTreeMap;

/// Why an object could not be turned into another version of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot convert {from} to {to}: {why}")]
pub struct ConvertError {
    pub from: String,
    pub to: String,
    pub why: String,
}

/// Who made a request, as the server knows them.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub groups: &'a [String],
    pub extra: &'a BTreeMap<String, Vec<String>>,
}

/// One served resource. A custom resource is one too, made at run time.
///
/// Objects handed in must be of this resource's own kind (`new_object`); others are passed over untouched.
pub trait Resource: Send + Sync + 'static {
    fn facts(&self) -> &ResourceFacts;
    fn descriptor(&self) -> &'static Descriptor;
    /// An empty object. The encoders state its kind and version from the descriptor.
    fn new_object(&self) -> Box<dyn Object>;

    fn group(&self) -> &str {
        self.facts().group
    }
    fn version(&self) -> &str {
        self.facts().version
    }
    fn kind(&self) -> &str {
        self.facts().kind
    }
    fn plural(&self) -> &str {
        self.facts().plural
    }
    fn namespaced(&self) -> bool {
        self.facts().namespaced
    }
    fn gvk(&self) -> Gvk {
        let facts = self.facts();
        Gvk { group: facts.group, version: facts.version, kind: facts.kind }
    }
    fn has_subresource(&self, name: &str) -> bool {
        self.facts().subresources.iter().any(|subresource| subresource.name == name)
    }
    fn has_status(&self) -> bool {
        self.has_subresource("status")
    }
    fn supports(&self, verb: &str) -> bool {
        self.facts().verbs.contains(&verb)
    }
    /// Whether a server serves it without being told to: generally available versions are on, alpha and beta are off.
    fn enabled_by_default(&self) -> bool {
        !self.version().contains("alpha") && !self.version().contains("beta")
    }

    /// Whether objects are kept at all. Reviews and bindings are requests without a place in the store.
    fn stored(&self) -> bool {
        self.supports("update") || self.supports("watch")
    }
    /// Where objects are kept, as upstream lays them out: `/registry/pods`, without a closing slash.
    fn storage_prefix(&self) -> &str;
    /// The key of one object: prefix, namespace where there is one, name.
    fn storage_key(&self, key: &ObjectKey) -> String {
        if self.namespaced() {
            format!("{}/{}/{}", self.storage_prefix(), key.namespace, key.name)
        } else {
            format!("{}/{}", self.storage_prefix(), key.name)
        }
    }
    /// The hub: group, version and kind in which objects stand in the store.
    fn storage_gvk(&self) -> Gvk {
        self.gvk()
    }
    /// The row of another version of the same kind, for kinds made at run time; the built-in ones are in the table.
    fn version_row(&self, _version: &str) -> Option<&'static dyn Resource> {
        None
    }
    /// The row as one made at run time. Such objects are kept as JSON, and have no form in protobuf.
    fn custom(&self) -> Option<&crate::custom::CustomRow> {
        None
    }
    /// The kind of a list of these objects.
    fn list_kind(&self) -> String {
        format!("{}List", self.kind())
    }
    /// What whoever uses this version is told, where it is deprecated.
    fn deprecation(&self) -> Option<String> {
        None
    }
    /// Lends what is known of the fields to server-side apply.
    fn with_shape(&self, with: &mut dyn FnMut(patch::Shape<'_>)) {
        with(patch::Shape::Struct(self.descriptor()));
    }
    /// Whether somebody else has to be asked to turn one version into another; then `to_storage` and `from_storage` fail.
    fn converts_elsewhere(&self) -> bool {
        false
    }
    /// Turns an object of this version into the hub's.
    fn to_storage(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ConvertError> {
        Ok(object)
    }
    /// Turns an object as stored into this version.
    #[allow(clippy::wrong_self_convention)] // The storage is meant, not the type.
    fn from_storage(&self, object: Box<dyn Object>) -> Result<Box<dyn Object>, ConvertError> {
        Ok(object)
    }

    /// Fills in what the user left out. Runs after every decode, of requests and of stored objects alike.
    fn default(&self, object: &mut dyn Object);
    /// Before the object is first written: wipes what users may not set. Metadata common to all kinds is the registry's.
    fn prepare_for_create(&self, new: &mut dyn Object);
    /// Right after `prepare_for_create`: writes who asks into objects that say so, over whatever the user wrote there.
    fn set_requester(&self, _new: &mut dyn Object, _requester: &Requester<'_>) {}
    /// Before a write of the main resource: keeps the old status, steps the generation when the spec changed.
    fn prepare_for_update(&self, new: &mut dyn Object, old: &dyn Object);
    /// Before a write of a subresource that carries the whole object (`status`, `ephemeralcontainers`, `finalize`, `approval`, ..):
    /// reverts every field that this subresource may not change.
    fn prepare_for_subresource(&self, subresource: &str, new: &mut dyn Object, old: &dyn Object);

    /// All that is wrong with a new object; includes metadata.
    fn validate_create(&self, new: &dyn Object) -> Errors;
    /// All that is wrong with a change; includes immutable metadata.
    fn validate_update(&self, new: &dyn Object, old: &dyn Object) -> Errors;
    fn validate_subresource(&self, subresource: &str, new: &dyn Object, old: &dyn Object) -> Errors;
    /// What the user should hear though the write succeeds; `old` is absent on create.
    fn warnings(&self, new: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    /// Upstream's complaints about a name; `prefix` when it is a `generateName`.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String>;

    /// The columns of a Table; each `row` has a cell for each.
    fn columns(&self) -> &[Column];
    fn row(&self, object: &dyn Object, now: Time) -> Vec<Cell>;

    /// Values of the fields that field selectors may name, `metadata.name` and `metadata.namespace` among them.
    fn selectable(&self, object: &dyn Object) -> Vec<(&'static str, String)>;
    /// The field that a label in a field selector means; an unsupported one is an error in upstream's words.
    fn field_label(&self, label: &str) -> Result<String, String>;

    /// Whether something of its own, besides `metadata.finalizers`, keeps a deleted object: a namespace's finalizers.
    fn outlives_deletion(&self, _object: &dyn Object) -> bool {
        false
    }
    /// What changes in the object itself when its deletion begins.
    fn begin_deletion(&self, _object: &mut dyn Object) {}
    /// Seconds an object lives on after its deletion was asked for: `None` where the kind is deleted at once,
    /// else the time granted, of which 0 also means at once.
    fn deletion_grace_seconds(&self, _object: &dyn Object, _requested: Option<i64>) -> Option<i64> {
        None
    }
    /// Whether an update of a name that does not exist creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }
    /// Whether an update without resourceVersion overwrites.
    fn allow_unconditional_update(&self) -> bool {
        true
    }
    /// Whether a deletion without a propagation policy leaves dependents behind, as the first versions of a few kinds do.
    fn orphans_by_default(&self) -> bool {
        false
    }
    /// Paths that server-side apply drops from what a manager claims through this endpoint ("" is the main one).
    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" if self.has_status() => &["status"],
            "status" => &["spec"],
            _ => &[],
        }
    }

    /// The object's `scale` subresource; `None` where the kind has none.
    fn scale(&self, _object: &dyn Object) -> Option<Scale> {
        None
    }
    /// Writes the wanted replicas of `scale` into the object.
    fn set_scale(&self, _object: &mut dyn Object, _scale: &Scale) {}
    /// All that is wrong with a written `scale`.
    fn validate_scale(&self, scale: &Scale) -> Errors {
        let mut errors = Errors::default();
        let replicas = scale.spec.replicas;
        if replicas < 0 {
            let path = meta::field::Path::new("spec").child("replicas");
            errors.invalid(&path, i64::from(replicas), "must be greater than or equal to 0");
        }
        errors
    }
}
