//! The controllers: each decides, from a view of the cluster, what is to be written next for one of its objects.
//!
//! Invariants: a decision is a total function of view, key, time and the last plan's report; nothing here waits, reads
//! a clock or speaks to a server. Applying plans to a view that does not otherwise change leads to an empty plan.
#![forbid(unsafe_code)]

mod controller;
pub mod deployment;
pub mod ownership;
mod plan;
pub mod pod;
mod replicas;
pub mod replicaset;
pub mod replicationcontroller;
mod text;

pub use controller::{Context, Controller, Watch};
pub use plan::{
    Action, Failure, Note, Plan, Propagation, Remains, Report, Step, Target, reference, resource_of,
};
