//! A load generator for any Kubernetes API server, ours or another's: the same work, over the wire, by kubeconfig.
//!
//! Invariants: every workload checks its counts (no list cut short, no event lost), so a server cannot win by doing
//! less; latency under a schedule is counted from the time at which a request was due, so a server that stalls cannot
//! hide it; what it makes it removes.

mod args;
mod clean;
mod compare;
mod drive;
pub mod launch;
mod machine;
mod objects;
mod process;
mod progress;
mod report;
mod run;
mod table;
mod target;
mod upstream;
mod workloads;

pub use args::{Args, Common, Workload};
pub use machine::Machine;
pub use process::Processes;
pub use run::{Document, Latency, Row, run, run_on};
pub use target::{Protocol, Target};
pub use workloads::*;
