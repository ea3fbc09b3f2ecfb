//! DNS of the cluster: which names exist and what the answer to a query is, per the Kubernetes DNS specification 1.1.
//!
//! An [`Index`] holds ready-made answer bytes per service and changes one service at a time; [`Index::respond`] turns
//! a query's bytes into a response's bytes. Names outside the cluster are left to the caller to forward.

mod index;
mod records;
mod respond;
pub mod wire;

pub use index::{Config, Index};
pub use respond::{Outcome, Transport};

/// Version of the DNS specification that the names follow, published at `dns-version.<domain>`.
pub const SPECIFICATION_VERSION: &str = "1.1.0";
