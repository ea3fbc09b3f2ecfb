//! The scheduling group: who goes first.

pub mod priority_class;
