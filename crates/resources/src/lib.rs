//! The table of kinds: what each resource is called, where it is stored, how it is defaulted, prepared, validated and printed.
//!
//! A kind is one [`Strategy`] in one file, and one line in [`table`]. Everyone else sees it as a [`Resource`]: the same rules over
//! `dyn Object`, so that the write path, discovery, printing and admission know no kind by name.
//! A resource served in several versions has one *hub*, the version in which it is stored and in which its rules are written;
//! its other versions are rows that convert to the hub and back.
//!
//! Invariant: nothing here reads a clock, a store or the environment; what depends on time takes `now`.
#![forbid(unsafe_code)]

pub mod columns;
pub mod convert;
pub mod custom;
pub mod names;
pub mod object_meta;
pub mod quota;
mod resource;
mod row;
mod strategy;
pub mod table;

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod autoscaling;
pub mod batch;
mod certificates;
mod coordination;
mod core;
mod devices;
mod difference;
mod discovery;
mod flowcontrol;
mod networking;
mod node;
mod plain;
mod policy;
mod rbac;
mod scheduling;
mod storage;
#[cfg(test)]
mod tests_support;
mod webhook_client;

pub use columns::{Cell, Column};
pub use resource::{ConvertError, Requester, Resource};
pub use strategy::Strategy;
pub use table::{find, find_kind, resources};
