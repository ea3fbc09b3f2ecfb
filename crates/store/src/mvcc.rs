//! Decides what a write does: the live keys at the newest revision, and how a transaction changes them.
//!
//! Pure: no clock, no file, no lock. The state is a persistent map, so a copy of it is a snapshot that costs
//! nothing, and a write that could not be made durable is undone by going back to the copy before it.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::error::Error;
use crate::range::KeyRange;
use crate::types::{
    Compare, Comparison, Event, EventKind, KeyValue, MAX_REQUEST_BYTES, MAX_TXN_OPS, Op, OpResponse,
    RangeRequest, RangeResponse, Target, Txn, TxnResponse,
};

/// The live keys, in order.
pub(crate) type Live = OrdMap<Bytes, Arc<KeyValue>>;

/// All changes of one revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) revision: i64,
    pub(crate) events: Box<[Event]>,
}

/// One thing that happened and has to outlast the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Keys changed.
    Commit(Arc<Commit>),
    /// History before this revision was given up.
    Compact(i64),
    /// A lease was granted with a time to live in seconds.
    Grant { id: i64, ttl: i64 },
    /// A lease ended; the commit that deletes its keys, if it had any, comes before this.
    Revoke { id: i64 },
}

/// A lease and the keys bound to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaseState {
    pub(crate) ttl: i64,
    pub(crate) keys: OrdSet<Bytes>,
}

/// The newest state of the store; a clone is a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The revision of the last write; a new store stands at 1, as etcd's does.
    pub(crate) revision: i64,
    /// The oldest revision that can be read.
    pub(crate) compacted: i64,
    pub(crate) live: Live,
    /// The bytes of all live keys and values.
    pub(crate) live_bytes: u64,
    pub(crate) leases: OrdMap<i64, LeaseState>,
}

impl Default for State {
    fn default() -> State {
        State { revision: 1, compacted: 0, live: Live::new(), live_bytes: 0, leases: OrdMap::new() }
    }
}

fn size(kv: &KeyValue) -> u64 {
    (kv.key.len() + kv.value.len()) as u64
}

impl State {
    /// Carries out a transaction. What it changed is in the answer's record; nothing changed if it failed.
    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<(TxnResponse, Option<Record>), Error> {
        check(txn)?;
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        self.admit(ops)?;
        let (responses, commit) = self.branch(ops);
        Ok((TxnResponse { revision: self.revision, succeeded, responses }, commit.map(Record::Commit)))
    }

    /// Checks what the state can refuse before anything is changed, so that a branch never stops half way.
    fn admit(&self, ops: &[Op]) -> Result<(), Error> {
        for op in ops {
            match op {
                Op::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease) => {
                    return Err(Error::LeaseNotFound);
                }
                Op::Range(request) if request.revision > self.revision => {
                    return Err(Error::FutureRevision { current: self.revision });
                }
                Op::Range(request) if request.revision != 0 && request.revision != self.revision => {
                    return Err(Error::invalid("a read inside a transaction is made at the newest revision"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn branch(&mut self, ops: &[Op]) -> (Vec<OpResponse>, Option<Arc<Commit>>) {
        let revision = self.revision + 1;
        let mut events = Vec::new();
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                Op::Range(request) => {
                    let range = KeyRange::new(&request.key, &request.range_end);
                    OpResponse::Range(answer(self.revision, request, in_range(&self.live, &range)))
                }
                Op::Put { key, value, lease, prev_kv } => {
                    let event = self.put(key, value, *lease, revision);
                    let prev_kv = if *prev_kv { event.prev_kv.clone() } else { None };
                    events.push(event);
                    OpResponse::Put { prev_kv }
                }
                Op::DeleteRange { key, range_end, prev_kv } => {
                    let deleted = self.delete_range(&KeyRange::new(key, range_end), revision, &mut events);
                    let count = deleted.len() as i64;
                    OpResponse::DeleteRange {
                        deleted: count,
                        prev_kvs: if *prev_kv { deleted } else { vec![] },
                    }
                }
            });
        }
        if events.is_empty() {
            return (responses, None);
        }
        self.revision = revision;
        // A read beside a write in the same transaction tells the transaction's own revision.
        for response in &mut responses {
            if let OpResponse::Range(range) = response {
                range.revision = revision;
            }
        }
        (responses, Some(Arc::new(Commit { revision, events: events.into() })))
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.live.get(compare.key.as_ref());
        let ordering = match &compare.target {
            Target::ModRevision(wanted) => kv.map_or(0, |kv| kv.mod_revision).cmp(wanted),
            Target::CreateRevision(wanted) => kv.map_or(0, |kv| kv.create_revision).cmp(wanted),
            Target::Version(wanted) => kv.map_or(0, |kv| kv.version).cmp(wanted),
            Target::Lease(wanted) => kv.map_or(0, |kv| kv.lease).cmp(wanted),
            Target::Value(wanted) => match kv {
                Some(kv) => kv.value.cmp(wanted),
                None => return false,
            },
        };
        match compare.result {
            Comparison::Equal => ordering.is_eq(),
            Comparison::NotEqual => ordering.is_ne(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::Less => ordering.is_lt(),
        }
    }

    fn put(&mut self, key: &Bytes, value: &Bytes, lease: i64, revision: i64) -> Event {
        let prev_kv = self.live.get(key.as_ref()).cloned();
        let kv = Arc::new(KeyValue {
            // One allocation per key, however often it is written.
            key: prev_kv.as_ref().map_or_else(|| key.clone(), |kv| kv.key.clone()),
            value: value.clone(),
            create_revision: prev_kv.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: prev_kv.as_ref().map_or(0, |kv| kv.version) + 1,
            lease,
        });
        self.set(kv.clone(), prev_kv.as_deref());
        Event { kind: EventKind::Put, kv, prev_kv }
    }

    /// Puts a key into the live state, as it is.
    fn set(&mut self, kv: Arc<KeyValue>, prev: Option<&KeyValue>) {
        if let Some(prev) = prev {
            self.live_bytes -= size(prev);
            if prev.lease != kv.lease {
                self.detach(prev);
            }
        }
        self.live_bytes += size(&kv);
        if kv.lease != 0
            && let Some(lease) = self.leases.get_mut(&kv.lease)
        {
            lease.keys.insert(kv.key.clone());
        }
        self.live.insert(kv.key.clone(), kv);
    }

    fn unset(&mut self, kv: &KeyValue) {
        self.live_bytes -= size(kv);
        self.detach(kv);
        self.live.remove(kv.key.as_ref());
    }

    fn detach(&mut self, kv: &KeyValue) {
        if kv.lease != 0
            && let Some(lease) = self.leases.get_mut(&kv.lease)
        {
            lease.keys.remove(kv.key.as_ref());
        }
    }

    fn delete_range(
        &mut self,
        range: &KeyRange,
        revision: i64,
        events: &mut Vec<Event>,
    ) -> Vec<Arc<KeyValue>> {
        let deleted: Vec<Arc<KeyValue>> = in_range(&self.live, range).cloned().collect();
        for kv in &deleted {
            events.push(self.delete(kv.clone(), revision));
        }
        deleted
    }

    fn delete(&mut self, kv: Arc<KeyValue>, revision: i64) -> Event {
        self.unset(&kv);
        let tombstone = KeyValue { key: kv.key.clone(), mod_revision: revision, ..KeyValue::default() };
        Event { kind: EventKind::Delete, kv: Arc::new(tombstone), prev_kv: Some(kv) }
    }

    /// Grants a lease under an ID that the caller chose.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<Record, Error> {
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        self.leases.insert(id, LeaseState { ttl, keys: OrdSet::new() });
        Ok(Record::Grant { id, ttl })
    }

    /// Ends a lease and deletes its keys as one revision.
    pub(crate) fn revoke(&mut self, id: i64) -> Result<Vec<Record>, Error> {
        let Some(lease) = self.leases.remove(&id) else {
            return Err(Error::LeaseNotFound);
        };
        let revision = self.revision + 1;
        let mut events = Vec::with_capacity(lease.keys.len());
        for key in &lease.keys {
            if let Some(kv) = self.live.get(key.as_ref()).cloned() {
                events.push(self.delete(kv, revision));
            }
        }
        let mut records = Vec::with_capacity(2);
        if !events.is_empty() {
            self.revision = revision;
            records.push(Record::Commit(Arc::new(Commit { revision, events: events.into() })));
        }
        records.push(Record::Revoke { id });
        Ok(records)
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<Record, Error> {
        if revision <= self.compacted {
            return Err(Error::Compacted { compact_revision: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::FutureRevision { current: self.revision });
        }
        self.compacted = revision;
        Ok(Record::Compact(revision))
    }

    /// Carries out a change that was recorded, completing what records leave out: a put needs only key, value
    /// and lease, a deletion only the key. Answers the commit in full.
    pub(crate) fn replay(&mut self, revision: i64, changes: Vec<Change>) -> Arc<Commit> {
        let mut events = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put { key, value, lease } => {
                    events.push(self.put(&key, &value, lease, revision));
                }
                Change::Delete { key } => {
                    if let Some(kv) = self.live.get(key.as_ref()).cloned() {
                        events.push(self.delete(kv, revision));
                    }
                }
            }
        }
        self.revision = revision;
        Arc::new(Commit { revision, events: events.into() })
    }

    /// Puts a key into the state as a checkpoint held it.
    pub(crate) fn restore(&mut self, kv: KeyValue) {
        self.set(Arc::new(kv), None);
    }
}

/// A recorded change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put { key: Bytes, value: Bytes, lease: i64 },
    Delete { key: Bytes },
}

/// The live keys of a range, in order.
pub(crate) fn in_range<'a>(live: &'a Live, range: &KeyRange) -> impl Iterator<Item = &'a Arc<KeyValue>> {
    let (single, many) = match range.single() {
        Some(key) => (live.get(key.as_ref()), None),
        None if range.is_empty() => (None, None),
        None => (None, Some(live.range::<_, [u8]>(range.bounds()).map(|(_, kv)| kv))),
    };
    single.into_iter().chain(many.into_iter().flatten())
}

/// The answer to a read, from the keys of its range in order.
pub(crate) fn answer<'a>(
    revision: i64,
    request: &RangeRequest,
    found: impl Iterator<Item = &'a Arc<KeyValue>>,
) -> RangeResponse {
    let limit = match usize::try_from(request.limit) {
        _ if request.count_only => 0,
        Ok(limit) if limit > 0 => limit,
        _ => usize::MAX,
    };
    let mut response = RangeResponse { revision, ..RangeResponse::default() };
    for kv in found {
        response.count += 1;
        if response.kvs.len() < limit {
            response.kvs.push(if request.keys_only {
                Arc::new(KeyValue { value: Bytes::new(), ..KeyValue::clone(kv) })
            } else {
                kv.clone()
            });
        }
    }
    response.more = !request.count_only && response.count > response.kvs.len() as i64;
    response
}

/// Checks what does not depend on the state: sizes, empty keys, a key written twice in a branch.
fn check(txn: &Txn) -> Result<(), Error> {
    if txn.compares.len().max(txn.success.len()).max(txn.failure.len()) > MAX_TXN_OPS {
        return Err(Error::invalid("too many operations in txn request"));
    }
    if txn.compares.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::invalid("key is not provided"));
    }
    let mut bytes = 0;
    for ops in [&txn.success, &txn.failure] {
        bytes += check_branch(ops)?;
    }
    if bytes > MAX_REQUEST_BYTES {
        return Err(Error::RequestTooLarge);
    }
    Ok(())
}

fn check_branch(ops: &[Op]) -> Result<usize, Error> {
    let mut bytes = 0;
    for (at, op) in ops.iter().enumerate() {
        let key = match op {
            Op::Range(request) => &request.key,
            Op::Put { key, .. } | Op::DeleteRange { key, .. } => key,
        };
        if key.is_empty() {
            return Err(Error::invalid("key is not provided"));
        }
        let Op::Put { key, value, .. } = op else { continue };
        bytes += key.len() + value.len();
        let again = ops.iter().enumerate().any(|(other, op)| match op {
            Op::Put { key: second, .. } => other > at && second == key,
            Op::DeleteRange { key: first, range_end, .. } => KeyRange::new(first, range_end).contains(key),
            Op::Range(_) => false,
        });
        if again {
            return Err(Error::invalid("duplicate key given in txn request"));
        }
    }
    Ok(bytes)
}
