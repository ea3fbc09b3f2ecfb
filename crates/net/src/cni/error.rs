//! Errors in the shape and with the codes that the CNI specification gives them.

use serde_json::{Value, json};

/// The specification's codes, and one of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    IncompatibleVersion = 1,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Undecodable = 6,
    InvalidConfig = 7,
    TryAgain = 11,
    /// Of STATUS: ADD cannot be served.
    NotAvailable = 50,
    /// No address is free in the node's range.
    NoAddress = 100,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Error {
    pub code: Code,
    pub message: String,
    pub details: String,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), details: String::new() }
    }

    /// An error with its cause, the whole chain of it.
    pub fn caused(code: Code, message: impl Into<String>, cause: &dyn std::error::Error) -> Error {
        let mut details = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            details.push_str(": ");
            details.push_str(&inner.to_string());
            source = inner.source();
        }
        Error { code, message: message.into(), details }
    }

    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |cause| Error::caused(Code::Io, what, &cause)
    }

    pub fn to_json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code as u32, "msg": self.message, "details": self.details})
    }
}

impl From<crate::netlink::Error> for Error {
    fn from(cause: crate::netlink::Error) -> Error {
        Error::caused(Code::Io, "cannot set up the pod's link", &cause)
    }
}

impl From<crate::nftables::Error> for Error {
    fn from(cause: crate::nftables::Error) -> Error {
        Error::caused(Code::Io, "cannot write firewall rules", &cause)
    }
}
