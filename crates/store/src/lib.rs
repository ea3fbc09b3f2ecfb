//! Decides how the cluster's state is kept: etcd's semantics behind one trait, over three engines.
//!
//! * [`memory`]: for tests; nothing survives.
//! * [`open_embedded`]: the default; a sequential log with group commit, the live state in memory, checkpoints
//!   on disk. An answered write is durable.
//! * [`connect_etcd`]: an etcd v3 server or cluster.
//!
//! The local engines share one multi-version core (`mvcc`): each key's value exists once, and the state, the
//! history, watchers and the caches above share its bytes.

mod embedded;
mod error;
mod etcd;
mod history;
mod hub;
mod lease;
mod local;
mod mvcc;
mod range;
mod transform;
mod types;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

pub use crate::embedded::Options;
pub use crate::error::Error;
pub use crate::etcd::EtcdTls;
pub use crate::history::Limits;
pub use crate::hub::{Progress, Watch};
pub use crate::transform::{Transformer, transformed};
pub use crate::types::{
    Compare, Comparison, Event, EventKind, KeyValue, Lease, MAX_REQUEST_BYTES, MAX_TXN_OPS, Op, OpResponse,
    RangeRequest, RangeResponse, Target, Txn, TxnResponse, WatchRequest, WatchResponse, prefix_end,
};

/// A key-value store with etcd's semantics.
///
/// Every write gets a revision, one more than the last; reads can be made at an older revision, watches can
/// start there, as long as it has not been compacted. Reads at revision 0 see every write that was answered
/// before they were asked.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads a key or a range.
    ///
    /// # Errors
    /// `Compacted` or `FutureRevision` if the revision cannot be read, `InvalidArgument` for an empty key.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error>;

    /// Carries out a transaction; when it answers, its writes are durable.
    ///
    /// # Errors
    /// `LeaseNotFound`, `RequestTooLarge`, `InvalidArgument`, `NoSpace`: nothing was written. `Unavailable`:
    /// whether it was written is not known.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error>;

    /// Watches a range. The watch has no queue that could fill: a reader that falls behind reads the history
    /// until that has been compacted, then gets `Compacted`. Writers never wait for it.
    ///
    /// # Errors
    /// `Compacted` if the start lies before the oldest revision kept (an etcd engine tells that on the watch).
    async fn watch(&self, request: WatchRequest) -> Result<Watch, Error>;

    /// Forgets what was superseded before `revision`.
    ///
    /// # Errors
    /// `Compacted` if that has been done, `FutureRevision` if the revision has not been reached.
    async fn compact(&self, revision: i64) -> Result<(), Error>;

    /// The newest revision.
    ///
    /// # Errors
    /// `Unavailable` if an etcd server does not answer.
    async fn revision(&self) -> Result<i64, Error>;

    /// Asks every watch that was opened with `progress` for a progress mark as soon as it has told all that
    /// happened until now. `false`: none was asked for, because this engine's marks may overtake changes that they
    /// count (etcd before 3.4.31 and 3.5.13; upstream does without them there, too). Whoever must know how far a
    /// watch has come then writes a key that it sees.
    ///
    /// # Errors
    /// `Unavailable` if an etcd server does not answer.
    async fn request_progress(&self) -> Result<bool, Error>;

    /// Grants a lease that ends after `ttl_seconds` unless kept alive. The store chooses its ID.
    ///
    /// # Errors
    /// `InvalidArgument` for a time to live below 1 second or above 9,000,000,000.
    async fn lease_grant(&self, ttl_seconds: i64) -> Result<Lease, Error>;

    /// Ends a lease and deletes its keys, as one revision.
    ///
    /// # Errors
    /// `LeaseNotFound`.
    async fn lease_revoke(&self, id: i64) -> Result<(), Error>;

    /// Sets a lease's remaining time back to what it was granted.
    ///
    /// # Errors
    /// `LeaseNotFound`.
    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, Error>;

    /// A lease's remaining time and its keys.
    ///
    /// # Errors
    /// `LeaseNotFound`.
    async fn lease_time_to_live(&self, id: i64) -> Result<Lease, Error>;

    /// Whether what is kept under a key is in an outdated form, as far as it was read: it should be written even where
    /// the value stays the same.
    fn is_stale(&self, _key: &[u8]) -> bool {
        false
    }
}

/// A store in memory, for tests: nothing survives it.
#[must_use]
pub fn memory() -> Arc<dyn Store> {
    Arc::new(local::Local::in_memory(Limits::default()))
}

/// A store in memory that keeps as much history as `limits` says.
#[must_use]
pub fn memory_with(limits: Limits) -> Arc<dyn Store> {
    Arc::new(local::Local::in_memory(limits))
}

/// Opens a store in a directory of its own, which is made if need be.
///
/// # Errors
/// `Locked` if another process has it open, `Corrupt` if acknowledged writes are damaged, `Version` if a newer
/// version wrote it, `NoSpace` or `Io`.
pub fn open_embedded(dir: impl AsRef<Path>) -> Result<Arc<dyn Store>, Error> {
    open_embedded_with(dir, Options::default())
}

/// Opens a store in a directory, set up as `options` say.
///
/// # Errors
/// As [`open_embedded`].
pub fn open_embedded_with(dir: impl AsRef<Path>, options: Options) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(local::Local::embedded(dir.as_ref(), options)?))
}

/// A store kept by an etcd v3 server or cluster. Connections are made when they are needed, so this does not
/// fail if etcd is not there yet; must be called within a tokio runtime.
///
/// # Errors
/// `InvalidArgument` for an endpoint that is no `http://` or `https://` URL, or `https://` without `tls`.
pub fn connect_etcd(endpoints: &[String], tls: Option<&EtcdTls>) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(etcd::Etcd::new(endpoints, tls)?))
}
