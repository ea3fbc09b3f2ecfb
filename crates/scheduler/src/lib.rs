//! Which node a pod goes to: `decide(snapshot, profile, pod, turn) -> Decision`.
//!
//! A decision is a function of its arguments: no clock, no randomness, no client. Filters and scores are two tables of
//! plugins ([`plugins::FILTERS`], [`plugins::SCORES`]) with upstream's names, order, reasons and weights. The snapshot
//! is changed in place as the cluster changes ([`Snapshot::set_node`], [`Snapshot::set_pod`], [`Snapshot::remove_pod`]);
//! to assume a pod on a node is to place it there. Queues, binding and preemption's deletions belong to the process.
#![forbid(unsafe_code)]

pub mod cycle;
mod decide;
mod diagnosis;
mod explain;
pub mod facts;
pub mod hints;
pub mod index;
pub mod node;
pub mod plugins;
pub mod pod;
mod preemption;
pub mod profile;
pub mod resources;
pub mod selectors;
pub mod snapshot;

pub use decide::{Decision, Turn, Unschedulable, decide};
pub use explain::explain;
pub use facts::{Fact, Facts};
pub use hints::{Event, may_help};
pub use node::NodeInfo;
pub use pod::PodInfo;
pub use profile::Profile;
pub use snapshot::Snapshot;
