//! Decides the vocabulary of a store: keys and values with their revisions, requests, answers, events.

use std::sync::Arc;

use bytes::Bytes;

/// The most bytes that the keys and values of one transaction may hold together: etcd's default limit.
pub const MAX_REQUEST_BYTES: usize = 1_572_864;

/// The most operations that one branch of a transaction may hold: etcd's default limit.
pub const MAX_TXN_OPS: usize = 128;

/// One key with its value at one revision. Always shared behind an `Arc`: the store's state, its history,
/// watchers and caches above hold the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty in the key of a deletion and in answers that asked for keys only.
    pub value: Bytes,
    /// The revision at which the key came into being (after its last deletion).
    pub create_revision: i64,
    /// The revision of the last change of the key.
    pub mod_revision: i64,
    /// How often the key was written since it came into being; 1 for a new key, 0 in a deletion.
    pub version: i64,
    /// The lease that the key is bound to, or 0.
    pub lease: i64,
}

/// The smallest key after all keys that start with `prefix`: the `range_end` that makes a range of a prefix.
///
/// A prefix of nothing but 0xff bytes (or none) has no such key: the answer is then `"\0"`, which means
/// "to the end of all keys".
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff);
    match kept {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(b"\0"),
    }
}

/// What to read. An empty `range_end` reads one key; `"\0"` reads from `key` to the end; any other reads
/// `key <= k < range_end`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first key.
    pub key: Bytes,
    /// Where to stop, as said above.
    pub range_end: Bytes,
    /// The revision to read at; 0 for the newest.
    pub revision: i64,
    /// The most keys to answer with; 0 for all.
    pub limit: i64,
    /// Leave out the values.
    pub keys_only: bool,
    /// Answer only with the count.
    pub count_only: bool,
}

impl RangeRequest {
    /// Reads one key at the newest revision.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> RangeRequest {
        RangeRequest { key: key.into(), ..RangeRequest::default() }
    }

    /// Reads all keys under a prefix at the newest revision.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> RangeRequest {
        let key = prefix.into();
        let range_end = prefix_end(&key);
        RangeRequest { key, range_end, ..RangeRequest::default() }
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's newest revision when the answer was made (not the revision read at).
    pub revision: i64,
    /// The keys found, in the order of their bytes.
    pub kvs: Vec<Arc<KeyValue>>,
    /// Whether keys were left out because of the limit.
    pub more: bool,
    /// How many keys lie in the range, those left out counted too.
    pub count: i64,
}

/// What a comparison looks at, with the value compared against. A key that does not exist has create
/// revision, mod revision, version and lease 0, and fails every comparison of its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The revision of the last change.
    ModRevision(i64),
    /// The revision of the creation.
    CreateRevision(i64),
    /// The number of writes since the creation.
    Version(i64),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// How a comparison compares: the key's side is the left one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Both sides are the same.
    Equal,
    /// The sides differ.
    NotEqual,
    /// The key's side is greater.
    Greater,
    /// The key's side is less.
    Less,
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key looked at.
    pub key: Bytes,
    /// What of the key, and against what.
    pub target: Target,
    /// How.
    pub result: Comparison,
}

impl Compare {
    /// The key was last changed at exactly this revision; revision 0 means that it does not exist.
    #[must_use]
    pub fn mod_revision(key: impl Into<Bytes>, revision: i64) -> Compare {
        Compare { key: key.into(), target: Target::ModRevision(revision), result: Comparison::Equal }
    }

    /// The key does not exist.
    #[must_use]
    pub fn absent(key: impl Into<Bytes>) -> Compare {
        Compare::mod_revision(key, 0)
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Range(RangeRequest),
    /// Writes a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value, taken over as it is: keep no bytes alive that are not part of it.
        value: Bytes,
        /// The lease to bind the key to, or 0.
        lease: i64,
        /// Answer with what the key held before.
        prev_kv: bool,
    },
    /// Deletes the keys of a range (see [`RangeRequest`] for `range_end`).
    DeleteRange {
        /// The first key.
        key: Bytes,
        /// Where to stop.
        range_end: Bytes,
        /// Answer with what the keys held before.
        prev_kv: bool,
    },
}

impl Op {
    /// Reads one key.
    #[must_use]
    pub fn get(key: impl Into<Bytes>) -> Op {
        Op::Range(RangeRequest::key(key))
    }

    /// Writes a key with no lease.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op::Put { key: key.into(), value: value.into(), lease: 0, prev_kv: false }
    }

    /// Deletes one key.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Op {
        Op::DeleteRange { key: key.into(), range_end: Bytes::new(), prev_kv: false }
    }

    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Op::Range(_))
    }
}

/// All or nothing: if every comparison holds, the `success` operations are carried out, else the `failure`
/// ones. All writes of one transaction share one revision; no key may be written twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions; none means that they hold.
    pub compares: Vec<Compare>,
    /// What to do if they hold.
    pub success: Vec<Op>,
    /// What to do if one does not.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Writes one key without a condition.
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        Txn { success: vec![Op::put(key, value)], ..Txn::default() }
    }

    /// Deletes one key without a condition.
    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Txn {
        Txn { success: vec![Op::delete(key)], ..Txn::default() }
    }

    pub(crate) fn writes(&self) -> bool {
        self.success.iter().chain(&self.failure).any(Op::writes)
    }
}

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResponse {
    /// What was read.
    Range(RangeResponse),
    /// A key was written.
    Put {
        /// What it held before, if that was asked for and it existed.
        prev_kv: Option<Arc<KeyValue>>,
    },
    /// Keys were deleted.
    DeleteRange {
        /// How many.
        deleted: i64,
        /// What they held before, if that was asked for.
        prev_kvs: Vec<Arc<KeyValue>>,
    },
}

/// The answer to a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// The store's revision after the transaction: that of its writes, if it wrote.
    pub revision: i64,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// One answer for each operation of the branch taken.
    pub responses: Vec<OpResponse>,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted, or its lease ended.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change. A deletion carries only the key and the revision of the deletion.
    pub kv: Arc<KeyValue>,
    /// What the key held before, if there was something and (on a watch) it was asked for.
    pub prev_kv: Option<Arc<KeyValue>>,
}

/// What to watch: a range as in [`RangeRequest`], from a revision on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchRequest {
    /// The first key.
    pub key: Bytes,
    /// Where to stop.
    pub range_end: Bytes,
    /// The first revision to hear of; 0 for whatever comes after now.
    pub start_revision: i64,
    /// Carry what the key held before each change.
    pub prev_kv: bool,
    /// Send progress marks when [`crate::Store::request_progress`] asks for them (an etcd server also sends
    /// them by itself now and then).
    pub progress: bool,
}

impl WatchRequest {
    /// Watches all keys under a prefix from a revision on.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>, start_revision: i64) -> WatchRequest {
        let key = prefix.into();
        let range_end = prefix_end(&key);
        WatchRequest { key, range_end, start_revision, ..WatchRequest::default() }
    }
}

/// What a watch tells: events, or a progress mark with none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchResponse {
    /// Everything at or below this revision has been told with this response.
    pub revision: i64,
    /// The changes in their order; those of one revision are never split over two responses.
    pub events: Vec<Event>,
    /// Whether this is a progress mark: nothing happened, but the revision has been reached.
    pub progress: bool,
}

/// A lease with its time to live, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Its ID, never 0.
    pub id: i64,
    /// The time to live that it was granted, in seconds.
    pub granted_ttl: i64,
    /// The time that is left, in seconds.
    pub ttl: i64,
    /// The keys bound to it (only told by `lease_time_to_live`).
    pub keys: Vec<Bytes>,
}
