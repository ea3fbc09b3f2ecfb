//! Priority and fairness as decisions: which flow a request belongs to, how wide it is, whether it runs, waits or is
//! refused, and how levels lend each other seats. Time is given in nanoseconds; nothing here knows a clock.
//!
//! The rules are those of upstream (KEP-1040): shuffle sharding over fair queues, a virtual time in seat-seconds, limits
//! that follow demand.
#![forbid(unsafe_code)]

mod allocation;
mod dealer;
mod demand;
mod queue_set;
mod rules;
mod work;

pub use allocation::{Bounds, Share, allocate, limits};
pub use dealer::deal;
pub use demand::{Demand, Integrator};
pub use queue_set::{Arrival, Finished, QueueDump, QueueSet, Queuing, Refusal, RequestDump, RequestId};
pub use rules::{Digest, Flow, flow_hash, matching};
pub use work::{ListFacts, Work, list, mutating};

/// A point or span of time, in nanoseconds.
pub type Nanos = u64;
