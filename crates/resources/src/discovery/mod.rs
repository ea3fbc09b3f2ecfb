//! The discovery group: where services' pods are.

pub mod endpoint_slice;
