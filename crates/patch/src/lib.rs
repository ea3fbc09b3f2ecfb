//! Decides what a patch makes of an object: JSON patch, JSON merge patch, strategic merge patch, server-side apply.
//!
//! All of it works on JSON trees and on the facts that a [`meta::Descriptor`] holds, or a [`Node`] of a schema made at
//! run time: merge keys and strategies, list types and their keys. No kind is known here, and nothing reads a clock.
#![forbid(unsafe_code)]

mod combine;
mod entries;
pub mod json;
pub mod managed;
pub mod merge;
pub mod set;
mod shape;
pub mod strategic;
mod walk;

pub use entries::MAX_UPDATE_MANAGERS;
pub use shape::{Form, Node, Shape};

/// Why a patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch itself makes no sense: 400 BadRequest.
    #[error("{0}")]
    Malformed(String),
    /// It makes sense, but not for this object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// It is larger than patches may be: 413.
    #[error("{0}")]
    TooLarge(String),
}
