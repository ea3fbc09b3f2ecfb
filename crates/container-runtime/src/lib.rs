//! How a node runs containers: a CRI client, and a private containerd kept alive behind it.
//!
//! Invariant: containers and containerd outlive this process; a new one finds both again by socket and pid file.

pub mod archive;
pub mod cgroups;
pub mod containerd;
pub mod cri;
mod events;
mod mounts;
pub mod pause;

pub use containerd::{Config, Containerd, import, import_file, mount_image, remove, stop, unmount_image};
pub use cri::{Client, connect};
pub use events::{TaskEvent, subscribe};
pub use mounts::unmount_under;

/// Why the runtime could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The runtime's own refusal: a gRPC code and its words.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Rpc { code: tonic::Code, message: String },
    #[error("container runtime is not reachable: {0}")]
    Unreachable(String),
    #[error("container runtime did not answer {call} within {seconds} s")]
    Timeout { call: &'static str, seconds: u64 },
    #[error("{context}: {message}")]
    Io { context: String, message: String },
    #[error("{0}")]
    Command(String),
}

impl Error {
    pub fn io(context: impl Into<String>, error: &std::io::Error) -> Self {
        Error::Io { context: context.into(), message: error.to_string() }
    }
    /// The thing named does not exist in the runtime.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Rpc { code: tonic::Code::NotFound, .. })
    }
    /// The command of `exec_sync` ran out of its time.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Error::Rpc { code: tonic::Code::DeadlineExceeded, .. } | Error::Timeout { .. })
    }
    /// The runtime does not serve this call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Error::Rpc { code: tonic::Code::Unimplemented, .. })
    }
    /// The runtime itself is away, so that the same call may succeed later.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Error::Unreachable(_) | Error::Rpc { code: tonic::Code::Unavailable, .. })
    }
    /// The runtime's words without the frame around them.
    pub fn description(&self) -> String {
        match self {
            Error::Rpc { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::Unavailable => Error::Unreachable(cri_chain(&status)),
            code => Error::Rpc { code, message: status.message().to_string() },
        }
    }
}

fn cri_chain(status: &tonic::Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_string() }
}
