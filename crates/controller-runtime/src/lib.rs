//! Runs controllers: watches for them, queues their keys, carries their plans out, and fences each key until the view
//! shows what was written.
//!
//! Invariants: a key is never worked on twice at once; after a write a key waits until the view has it, so that no
//! decision is made from a state before it; nothing here decides what to write; nothing polls.
#![forbid(unsafe_code)]

mod carry_out;
mod clear_namespace;
mod fence;
mod metrics;
mod queue;
mod run;

pub use carry_out::{Errands, NoErrands};
pub use fence::Fence;
pub use metrics::Metrics;
pub use run::{Employed, run};
