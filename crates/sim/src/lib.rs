//! Simulated nodes: the real state machine of pods over a runtime that only pretends, thousands in one process.
//!
//! Each node has its own object, lease and watch (by `spec.nodeName`), as a kubelet has; connections are shared. Any
//! Kubernetes API server will do. Invariants: a node is one task, and nothing in it waits for another node but the
//! common limit of writes under way; what a pod does is decided by the `pods` crate alone.
#![forbid(unsafe_code)]

mod api_objects;
mod args;
mod fleet;
mod node;
mod pods_of_node;
mod runtime;
mod stats;

pub use args::NodesArgs;
pub use fleet::{Fleet, run};
pub use stats::{Snapshot, Stats};
