//! How components reach the API: a typed client over a transport, reflectors that keep a view fed, events, elections.
//!
//! Invariants: everything a component does to the cluster goes through `Transport::send`, over the wire or in process;
//! nothing here decides what to write. Built-in kinds travel as protobuf, everything is understood as JSON too.
#![forbid(unsafe_code)]

mod api_client;
mod config;
mod correlator;
mod discovery;
mod election;
mod error;
mod options;
mod paths;
mod recorder;
mod reflector;
mod transport;
mod views;
mod watch;
mod wire;

pub use api_client::{Client, Deleted, List};
pub use config::{Auth, Config, Protocol, RenewedToken, TlsFiles};
pub use discovery::{Discovered, Discovery};
pub use election::{Election, Leadership, Timing};
pub use error::Error;
pub use options::{
    CreateOptions, DeleteOptions, GetOptions, ListOptions, Patch, PatchOptions, Preconditions, Propagation,
    UpdateOptions, WatchOptions,
};
pub use paths::ResourcePath;
pub use recorder::{EventType, Recorder, reference};
pub use reflector::Selection;
pub use transport::{Body, Response, Transport, empty, full};
pub use views::{Change, Changes, Subscription, VertexChange, Views, ViewsBuilder};
pub use watch::{WatchEvent, Watcher};
pub use wire::Wire;

#[cfg(test)]
mod tests;
