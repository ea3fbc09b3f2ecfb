//! The node agent: registers the node, runs the pods bound to it through a container runtime, serves the node's API.
//!
//! What a pod needs next is decided in `pods`; here one task per pod carries it out. Nothing polls: tasks wait for the
//! API's watches, the runtime's events, and timers that a fact demands.

mod admission;
mod container;
mod csi;
mod dns;
mod environment;
mod events;
mod eviction;
mod hooks;
mod image_gc;
mod images;
mod inotify;
mod local_path;
mod log_files;
mod logs;
mod node;
mod node_info;
mod observe;
mod options;
mod perform;
mod probing;
mod references;
mod sandbox;
mod security;
mod server;
mod static_pods;
mod stats;
mod status_writer;
mod tls;
mod tokens;
mod volumes;
mod worker;

mod run;

pub use options::{Options, Settings};
pub use run::{Context, run};

/// Upstream's version that this node speaks for.
pub const KUBERNETES_VERSION: &str = "v1.36.0";
