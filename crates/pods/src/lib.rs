//! One pod on one node, as a total state machine: `Machine::step(now, input)` answers with effects for an actor to do.
//!
//! Invariants: nothing starts once a pod terminates; a pod that is `Terminated` has nothing running; no uid revives.
//! Time is a parameter, in milliseconds since 1970; the machine holds no clock, no socket, no file.
#![forbid(unsafe_code)]

mod actions;
pub mod backoff;
pub mod env;
pub mod eviction;
pub mod fields;
pub mod image_gc;
mod input;
mod machine;
pub mod probes;
pub mod resize;
pub mod resources;
pub mod spec;
pub mod status;

pub use input::{Container, Effect, Failure, Input, Observed, Op, Sandbox, State, Stop};
pub use machine::{Machine, Phase};
pub use probes::{Outcome, ProbeKind};

/// Milliseconds since 1970.
pub type Millis = i64;

/// To the whole second, as the API keeps times.
pub fn to_time(at: Millis) -> meta::Time {
    meta::Time::from_seconds(at.div_euclid(1000)).unwrap_or_default()
}
