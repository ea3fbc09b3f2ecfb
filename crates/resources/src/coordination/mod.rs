//! The coordination group: who leads, and who lives.

pub mod lease;
pub mod lease_candidate;
