//! Speaks with storage drivers: the node half of CSI v1, and the registration by which a node's plugins announce
//! themselves. It decides nothing.
#![forbid(unsafe_code)]

mod client;
pub mod messages;

pub use client::{Client, connect};

/// Why a driver did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the driver does not answer: {0}")]
    Unreachable(String),
    #[error("rpc error: code = {code:?} desc = {message}")]
    Rpc { code: tonic::Code, message: String },
    #[error("{call} was not answered within {seconds} s")]
    Timeout { call: &'static str, seconds: u64 },
}

impl Error {
    /// The driver does not serve this call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Error::Rpc { code: tonic::Code::Unimplemented, .. })
    }
    /// What the call is about is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Rpc { code: tonic::Code::NotFound, .. })
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let message = status.message().to_string();
        match status.code() {
            tonic::Code::Unavailable => Error::Unreachable(message),
            code => Error::Rpc { code, message },
        }
    }
}
