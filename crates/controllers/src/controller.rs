//! What a controller is: which kinds it reads, which keys a change concerns, and its decision for one key.

use crate::plan::{Plan, Report};
use api::{Object, Typed};
use meta::{Descriptor, ObjectKey, Time};
use std::sync::Arc;
use view::{KindId, Vertex, View};

/// What a decision is made from. Nothing else is: which change led to it is not told.
pub struct Context<'a> {
    pub view: &'a View,
    pub key: &'a ObjectKey,
    pub now: Time,
    /// What carrying out the last plan of this key brought; told once.
    pub report: Option<&'a Report>,
    /// The last plan's mark, and since when plans of this key have carried it.
    pub marked: Option<(&'a str, Time)>,
}

impl Context<'_> {
    /// For how many seconds this mark has stood; 0 where it is new.
    pub fn seconds_marked(&self, mark: &str) -> i64 {
        match self.marked {
            Some((last, since)) if last == mark => (self.now.seconds() - since.seconds()).max(0),
            _ => 0,
        }
    }
}

type Keys = dyn Fn(&View, Option<&dyn Object>, Option<&dyn Object>) -> Vec<ObjectKey> + Send + Sync;

/// One watched kind.
pub struct Watch {
    pub descriptor: &'static Descriptor,
    pub kind: KindId,
    keys: Box<Keys>,
}

impl Watch {
    /// Watches a kind; `keys` says which keys a change from the first state to the second concerns.
    pub fn new<T: Typed + Object>(
        keys: impl Fn(&View, Option<&T>, Option<&T>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        Watch {
            descriptor: T::DESCRIPTOR,
            kind: view::kind_id::<T>(),
            keys: Box::new(move |view, old, new| {
                keys(
                    view,
                    old.and_then(|object| object.downcast::<T>()),
                    new.and_then(|object| object.downcast::<T>()),
                )
            }),
        }
    }

    /// Watches the kind that the keys name.
    pub fn own<T: Typed + Object>() -> Self {
        Watch::new::<T>(|_, old, new| new.or(old).map(|object| view::key_of(object)).into_iter().collect())
    }

    /// The keys that a change concerns.
    pub fn keys(&self, view: &View, old: Option<&dyn Object>, new: Option<&dyn Object>) -> Vec<ObjectKey> {
        (self.keys)(view, old, new)
    }
}

/// A controller: pure, and total over every view.
pub trait Controller: Send + Sync + 'static {
    /// Upstream's name, which `--controllers` takes: `deployment-controller`.
    fn name(&self) -> &'static str;

    /// The component that its events and writes are signed with.
    fn component(&self) -> &'static str {
        self.name()
    }

    /// The service account in kube-system whose permissions it needs; empty where those of the process itself are
    /// needed, which every other account depends on.
    fn account(&self) -> &'static str {
        self.component()
    }

    fn watches(&self) -> Vec<Watch>;

    /// The keys that a change in the graph of owners concerns; only asked where `uses_graph`.
    fn vertex_keys(
        &self,
        _view: &View,
        _old: Option<&Arc<Vertex>>,
        _new: Option<&Arc<Vertex>>,
    ) -> Vec<ObjectKey> {
        Vec::new()
    }

    fn uses_graph(&self) -> bool {
        false
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan;
}
