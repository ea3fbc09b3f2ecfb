//! What a controller decides: a list of steps that can be printed, compared and carried out without a further thought.

use api::authorization::v1::SubjectAccessReview;
use api::autoscaling::v1::Scale;
use api::core::v1::ObjectReference;
use api::{Object, Typed};
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use view::{KindId, ResourceId};

/// Everything that one look at the view leads to.
#[derive(Default)]
pub struct Plan {
    /// Carried out in order; neighbours of one sort (creates, deletes) side by side.
    pub steps: Vec<Step>,
    /// Events that depend on no step.
    pub events: Vec<Note>,
    /// Look again after this time, even if nothing changes.
    pub again: Option<Duration>,
    /// A fact whose age matters (a lease not renewed, a node that is missing); empty where there is none. The next
    /// decision for this key is told since when it has been the same: no clock but ours is trusted with ages.
    pub mark: String,
}

/// One write, with what is told of its outcome.
pub struct Step {
    pub action: Action,
    /// Told when the write happened.
    pub done: Option<Note>,
    /// Told when it failed, other than by the object being gone or its namespace being on its way out.
    pub failed: Option<Note>,
    /// Carried out even if an earlier step failed.
    pub always: bool,
}

/// An object that a write is aimed at.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub resource: Arc<ResourceId>,
    /// The kind's table in the view, for the write fence; `None` where only the graph of owners knows it.
    pub kind: Option<KindId>,
    pub key: ObjectKey,
    /// The very object that is meant; empty for whichever has the name.
    pub uid: String,
    /// The state that was decided on; empty where any will do.
    pub resource_version: String,
}

/// One write.
pub enum Action {
    Create(Box<dyn Object>),
    /// Replaces the object, at the resourceVersion it carries.
    Update(Box<dyn Object>),
    /// Replaces a subresource (`status`, `finalize`), at the resourceVersion it carries.
    UpdateSub {
        object: Box<dyn Object>,
        subresource: &'static str,
    },
    /// `strategic` where lists are merged by their keys (built-in kinds only), else RFC 7386.
    Patch {
        target: Target,
        subresource: &'static str,
        strategic: bool,
        body: serde_json::Value,
    },
    Delete {
        target: Target,
        propagation: Option<Propagation>,
        grace_seconds: Option<i64>,
    },
    /// Replaces the scale of whatever has one, at the resourceVersion it carries.
    Rescale {
        target: Target,
        scale: Box<Scale>,
    },
    /// Asks whether a user may do something; reports the answer.
    Review(Box<SubjectAccessReview>),
    /// Reads JSON from these paths of the API; reports the answers in their order.
    Query(Vec<String>),
    /// Has something made that takes a private key; reports it.
    Errand(Errand),
    /// Deletes what one namespace holds, of every resource there is; reports what remains.
    ClearNamespace {
        name: String,
    },
}

/// What only the process can do that holds the keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Errand {
    /// A certificate for a PEM request, in PEM, with usages by their names in `certificates.k8s.io`.
    SignCertificate { signer: &'static str, request: Vec<u8>, usages: Vec<String>, seconds: i64 },
    /// A token of the old sort, for a Secret of the account's namespace to hold.
    SignToken { account: ObjectKey, account_uid: String, secret: String },
}

/// Text that reaches no log.
#[derive(Clone, PartialEq)]
pub struct Made(pub String);

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Made")
    }
}

/// What becomes of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// An event about an object. In its message `{name}` stands for the name that the server gave, `{error}` for the failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub about: ObjectReference,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What carrying out the last plan of this key brought, where that is more than the view will show.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    Failed(Failure),
    Namespace(Remains),
    /// Whether the user may.
    Review(bool),
    Answers(Vec<Result<serde_json::Value, Failure>>),
    Made(Made),
}

/// The first write of a plan that failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    /// `create`, `update`, `delete`, `patch`.
    pub verb: &'static str,
    pub code: u16,
    pub reason: String,
    pub message: String,
}

/// What a namespace still holds after its contents were deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remains {
    /// How many objects of each resource (`pods`, `widgets.example.com`) are left.
    pub resources: BTreeMap<String, usize>,
    /// How many of them wait for each finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// Group-versions that discovery could not tell of.
    pub discovery_errors: Vec<String>,
    /// Deletions that were refused.
    pub deletion_errors: Vec<String>,
}

impl Remains {
    /// Whether nothing is left, and that is certain.
    pub fn is_clear(&self) -> bool {
        self.resources.is_empty() && self.discovery_errors.is_empty() && self.deletion_errors.is_empty()
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.events.is_empty()
    }

    pub fn push(&mut self, action: Action) {
        self.steps.push(Step::new(action));
    }

    /// Looks again after this time, or sooner where an earlier wish says so.
    pub fn again_after(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |earlier| earlier.min(wait)));
    }

    pub fn again_after_seconds(&mut self, seconds: i64) {
        self.again_after(Duration::from_secs(seconds.max(0).unsigned_abs()));
    }
}

impl Step {
    pub fn new(action: Action) -> Self {
        Step { action, done: None, failed: None, always: false }
    }
    pub fn done(mut self, note: Note) -> Self {
        self.done = Some(note);
        self
    }
    pub fn failed(mut self, note: Note) -> Self {
        self.failed = Some(note);
        self
    }
    /// Carried out even if an earlier step failed.
    pub fn always(mut self) -> Self {
        self.always = true;
        self
    }
}

impl Target {
    /// This very object, in whatever state.
    pub fn of<T: Typed + Object>(object: &T) -> Self {
        let gvk = T::gvk();
        let metadata = object.metadata();
        Target {
            resource: resource_of(gvk.group, gvk.version, gvk.kind),
            kind: Some(view::kind_id::<T>()),
            key: ObjectKey::new(metadata.namespace.clone(), metadata.name.clone()),
            uid: metadata.uid.clone(),
            resource_version: String::new(),
        }
    }

    /// This very object in this very state.
    pub fn at_revision<T: Typed + Object>(object: &T) -> Self {
        let mut target = Target::of(object);
        target.resource_version.clone_from(&object.metadata().resource_version);
        target
    }
}

/// The resource that serves a built-in kind.
pub fn resource_of(group: &str, version: &str, kind: &str) -> Arc<ResourceId> {
    let facts = api::RESOURCES
        .iter()
        .find(|facts| facts.kind == kind && facts.group == group && facts.version == version);
    Arc::new(ResourceId {
        group: group.into(),
        version: version.into(),
        plural: facts.map_or(String::new(), |facts| facts.plural.into()),
        kind: kind.into(),
        namespaced: facts.is_some_and(|facts| facts.namespaced),
    })
}

impl Note {
    pub fn normal(about: &dyn Object, reason: &'static str, message: impl Into<String>) -> Self {
        Note { about: reference(about), warning: false, reason, message: message.into() }
    }
    pub fn warning(about: &dyn Object, reason: &'static str, message: impl Into<String>) -> Self {
        Note { about: reference(about), warning: true, reason, message: message.into() }
    }
}

/// The reference to an object that events carry.
pub fn reference(about: &dyn Object) -> ObjectReference {
    let (gvk, metadata) = (about.gvk(), about.metadata());
    ObjectReference {
        kind: gvk.kind.into(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        api_version: gvk.api_version(),
        resource_version: metadata.resource_version.clone(),
        field_path: String::new(),
    }
}
