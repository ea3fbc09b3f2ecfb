//! The kube-controller-manager: elects a leader, follows what its controllers read, and runs them.
//!
//! Invariant: controllers run only while this process leads; each writes with the permissions of its own service
//! account. Losing the lease stops them, and the process stands for election again.
#![forbid(unsafe_code)]

mod identities;
mod keys;
mod options;
mod resources;
mod run;
mod table;

pub use identities::{Identities, OneForAll, PerAccount};
pub use options::Options;
pub use run::{run, run_with};
