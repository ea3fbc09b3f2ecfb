//! Decides how a store says no: one error type for every engine, each case with its cause and its remedy.

use std::path::PathBuf;

/// Why a store refused or failed.
///
/// The words of the first group are etcd's own, since clients of the API see them through Kubernetes' errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The revision asked for lies before the oldest one that is kept.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted {
        /// The oldest revision that can still be read or watched from; 0 where the engine does not tell it.
        compact_revision: i64,
    },
    /// The revision asked for has not been reached.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision {
        /// The newest revision of the store; 0 where the engine does not tell it.
        current: i64,
    },
    /// A key, value or lease is bound to a lease that does not exist (or has expired).
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A lease was to be granted under an ID that is taken.
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// The request does not make sense: an empty key, a key written twice in one transaction.
    #[error("etcdserver: {0}")]
    InvalidArgument(String),
    /// One request holds more bytes or operations than the store takes.
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    /// The disk (or etcd's quota) is full: the write was not made and nothing else was harmed.
    #[error("no space is left for the store: {0}")]
    NoSpace(String),
    /// The store cannot be reached or does not answer now; the outcome of a write is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Another process has the data directory open.
    #[error(
        "the data directory {} is in use by {holder}: stop that process or choose another data directory",
        path.display()
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who holds it, as far as it can be told ("process 4711").
        holder: String,
    },
    /// What lies in the data directory is damaged where acknowledged writes must be: the store does not open.
    #[error("the store's file {} is damaged: {detail}; restore the data directory from a backup", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The data directory was written by a format that this version does not know.
    #[error("the store's file {} has format version {found}, this version reads up to {known}: run a newer version", path.display())]
    Version {
        /// The file with the unknown version.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// A system call on the data directory failed; the text names the file and the call.
    #[error("{0}")]
    Io(String),
    /// A value cannot be turned into the form it is kept in, or back: a key is missing, or the value was tampered with.
    #[error("unable to transform key {key:?}: {reason}")]
    Transform {
        /// Where it is kept.
        key: String,
        /// Why.
        reason: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// The error of a failed system call: `what` names the file and what was tried.
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace(format!("{what}: {error}")),
            _ => Error::Io(format!("{what}: {error}")),
        }
    }

    pub(crate) fn invalid(text: &str) -> Error {
        Error::InvalidArgument(text.to_owned())
    }
}
