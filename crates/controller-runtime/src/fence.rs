//! When the view has caught up with a write. This takes the place of client-go's expectations: revisions of one
//! cluster are comparable (KEP-5504), so a kind's revision says whether a write to it can be seen.

use meta::ObjectKey;
use std::sync::Arc;
use std::time::Duration;
use view::{KindId, ResourceId, View};

/// A write that is not seen in this time is no longer waited for, as upstream's expectations expire: the watch may
/// have been cut, and a decision from an old view is better than none.
pub const FENCE_MAX: Duration = Duration::from_secs(300);

/// One write to be seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Fence {
    /// The kind's table holds everything up to this revision.
    Reached { kind: KindId, revision: u64 },
    /// The object is no longer there.
    Gone { kind: KindId, key: ObjectKey, uid: String },
    /// The graph holds everything of the resource up to this revision, or the object left it.
    GraphReached { resource: Arc<ResourceId>, revision: u64, uid: String },
    /// The object is no longer in the graph.
    GraphGone { uid: String },
}

impl Fence {
    /// Whether the view shows the write. Kinds that are not followed will never show anything.
    pub fn passed(&self, view: &View) -> bool {
        match self {
            Fence::Reached { kind, revision } => !view.follows(*kind) || view.revision(*kind) >= *revision,
            Fence::Gone { kind, key, uid } => view.gone(*kind, key, uid),
            Fence::GraphReached { resource, revision, uid } => {
                let graph = view.graph();
                graph.revision(resource) >= *revision || graph.get(uid).is_none()
            }
            Fence::GraphGone { uid } => view.graph().get(uid).is_none(),
        }
    }
}
