//! The API's types, generated from `schema/`, with what is common to all kinds: objects, codecs, and the facts of resources.
#![forbid(unsafe_code)]

pub mod codec;
pub mod errors;
#[rustfmt::skip]
mod generated;
pub mod json_schema;
mod object;
mod selector;

pub use generated::kinds::{KINDS, RESOURCES};
pub use generated::*;
pub use object::{Kind, Object, ResourceFacts, SubresourceFacts, Typed, kind};
pub use selector::{optional_selector, selector};
