//! What a custom resource definition says, decided: schemas compiled, objects pruned, defaulted and validated by them,
//! columns and selectable fields read out of objects, names weighed against names, schemas published as OpenAPI.
//!
//! All of it is a pure function of a definition and of JSON trees.
#![forbid(unsafe_code)]

pub mod crd;
pub mod defaulting;
pub mod definition;
pub mod embedded;
pub mod formats;
pub mod jsonpath;
pub mod listtype;
pub mod names;
pub mod openapi;
pub mod pattern;
pub mod prune;
pub mod rules;
pub mod schema;
pub mod shape;
pub mod validate;

pub use definition::{Column, Definition, Scale, Version};
pub use jsonpath::JsonPath;
pub use rules::Rules;
pub use schema::{ListType, Rule, Schema, Type};
