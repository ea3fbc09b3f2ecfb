//! The apiextensions group: kinds that users define.

pub mod custom_resource_definition;
