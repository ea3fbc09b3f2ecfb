//! The controllers: each decides, from a view of the cluster, what is to be written next for one of its objects.
//!
//! Invariants: a decision is a total function of view, key, time and the last plan's report; nothing here waits, reads
//! a clock or speaks to a server. Applying plans to a view that does not otherwise change leads to an empty plan.
#![forbid(unsafe_code)]

pub mod attachdetach;
pub mod bootstrap;
pub mod certificates;
mod claimretention;
pub mod clusterroles;
mod controller;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslicemirroring;
pub mod ephemeral;
pub mod expander;
pub mod garbagecollector;
pub mod horizontalpodautoscaler;
pub mod job;
pub mod localpath;
pub mod namespace;
mod nodefit;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod ownership;
pub mod persistentvolume;
mod plan;
pub mod pod;
pub mod podgc;
pub mod protection;
mod replicas;
pub mod replicaset;
pub mod replicationcontroller;
pub mod resourceclaim;
pub mod resourcequota;
mod revisions;
mod service;
pub mod serviceaccount;
pub mod serviceaccounttoken;
pub mod servicecidr;
pub mod statefulset;
pub mod tainteviction;
mod text;
pub mod ttl;
pub mod ttlafterfinished;

pub use controller::{Context, Controller, Watch};
pub use plan::{
    Action, Errand, Failure, Made, Note, Plan, Propagation, Remains, Report, Step, Target, reference,
    resource_of,
};

#[cfg(test)]
mod tests;
