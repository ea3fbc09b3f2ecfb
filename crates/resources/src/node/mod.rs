//! The node group: how containers are run.

pub mod runtime_class;
