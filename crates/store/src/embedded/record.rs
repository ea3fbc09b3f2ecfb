//! Decides how records look on disk: their bytes, and what is made of bytes that may be damaged.
//!
//! All numbers are little-endian. A commit holds only what replay cannot work out: keys, values, leases.

use std::sync::Arc;

use bytes::Bytes;

use crate::mvcc::{Change, Commit, Record};
use crate::types::{Event, EventKind, KeyValue};

const COMMIT: u8 = 1;
const COMPACT: u8 = 2;
const GRANT: u8 = 3;
const REVOKE: u8 = 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// A record as it was read back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Logged {
    Commit { revision: i64, changes: Vec<Change> },
    Compact(i64),
    Grant { id: i64, ttl: i64 },
    Revoke { id: i64 },
}

/// Bytes that are no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed at byte {0}")]
pub(crate) struct Malformed(usize);

pub(crate) fn encode(records: &[Record], out: &mut Vec<u8>) {
    for record in records {
        match record {
            Record::Commit(commit) => encode_commit(commit, out),
            Record::Compact(revision) => {
                out.push(COMPACT);
                number(out, *revision);
            }
            Record::Grant { id, ttl } => {
                out.push(GRANT);
                number(out, *id);
                number(out, *ttl);
            }
            Record::Revoke { id } => {
                out.push(REVOKE);
                number(out, *id);
            }
        }
    }
}

pub(crate) fn encode_commit(commit: &Arc<Commit>, out: &mut Vec<u8>) {
    out.push(COMMIT);
    number(out, commit.revision);
    // Room for what a later version wants to note about a revision, such as who made it.
    out.extend_from_slice(&0_u16.to_le_bytes());
    out.extend_from_slice(&(commit.events.len() as u32).to_le_bytes());
    for Event { kind, kv, .. } in &commit.events {
        out.push(match kind {
            EventKind::Put => PUT,
            EventKind::Delete => DELETE,
        });
        bytes(out, &kv.key);
        if *kind == EventKind::Put {
            bytes(out, &kv.value);
            number(out, kv.lease);
        }
    }
}

/// One key with all that is known of it, for checkpoints.
pub(crate) fn encode_key_value(kv: &KeyValue, out: &mut Vec<u8>) {
    bytes(out, &kv.key);
    bytes(out, &kv.value);
    for value in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
        number(out, value);
    }
}

pub(crate) fn number(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// Reads records one after the other.
pub(crate) struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(all: &'a [u8]) -> Reader<'a> {
        Reader { all, at: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.all.len()
    }

    pub(crate) fn record(&mut self) -> Result<Logged, Malformed> {
        match self.byte()? {
            COMMIT => self.commit(),
            COMPACT => Ok(Logged::Compact(self.number()?)),
            GRANT => Ok(Logged::Grant { id: self.number()?, ttl: self.number()? }),
            REVOKE => Ok(Logged::Revoke { id: self.number()? }),
            _ => Err(Malformed(self.at)),
        }
    }

    fn commit(&mut self) -> Result<Logged, Malformed> {
        let revision = self.number()?;
        let notes = u16::from_le_bytes(self.array()?);
        self.take(usize::from(notes))?;
        let count = u32::from_le_bytes(self.array()?) as usize;
        // The shortest change takes six bytes, so a damaged count cannot ask for more than there is.
        if count > (self.all.len() - self.at) / 5 {
            return Err(Malformed(self.at));
        }
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            changes.push(match self.byte()? {
                PUT => Change::Put { key: self.bytes()?, value: self.bytes()?, lease: self.number()? },
                DELETE => Change::Delete { key: self.bytes()? },
                _ => return Err(Malformed(self.at)),
            });
        }
        Ok(Logged::Commit { revision, changes })
    }

    pub(crate) fn key_value(&mut self) -> Result<KeyValue, Malformed> {
        Ok(KeyValue {
            key: self.bytes()?,
            value: self.bytes()?,
            create_revision: self.number()?,
            mod_revision: self.number()?,
            version: self.number()?,
            lease: self.number()?,
        })
    }

    pub(crate) fn number(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| Malformed(at))
    }

    /// A copy of its own, so that a small value does not keep a whole file's buffer alive.
    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end =
            self.at.checked_add(length).filter(|end| *end <= self.all.len()).ok_or(Malformed(self.at))?;
        let taken = &self.all[self.at..end];
        self.at = end;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::State;
    use crate::types::{Op, Txn};

    fn records() -> Vec<Record> {
        let mut state = State::default();
        let mut records = vec![state.grant(7, 60).unwrap()];
        let put = Op::Put { key: "b".into(), value: "2".into(), lease: 7, prev_kv: false };
        for ops in [vec![Op::put("a", "1"), put], vec![Op::delete("a")]] {
            records.extend(state.txn(&Txn { success: ops, ..Txn::default() }).unwrap().1);
        }
        records.push(state.compact(2).unwrap());
        records.extend(state.revoke(7).unwrap());
        records
    }

    fn read(bytes: &[u8]) -> Result<Vec<Logged>, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut logged = Vec::new();
        while !reader.is_empty() {
            logged.push(reader.record()?);
        }
        Ok(logged)
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        encode(&records(), &mut bytes);
        let logged = read(&bytes).unwrap();
        expect_test::expect![[r#"
            Grant { id: 7, ttl: 60 }
            Commit { revision: 2, changes: [Put { key: b"a", value: b"1", lease: 0 }, Put { key: b"b", value: b"2", lease: 7 }] }
            Commit { revision: 3, changes: [Delete { key: b"a" }] }
            Compact(2)
            Commit { revision: 4, changes: [Delete { key: b"b" }] }
            Revoke { id: 7 }
        "#]]
        .assert_eq(&logged.iter().map(|record| format!("{record:?}\n")).collect::<String>());
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let mut bytes = Vec::new();
        encode(&records(), &mut bytes);
        for cut in 0..bytes.len() {
            // A cut between two records leaves fewer records, any other is refused.
            if let Ok(logged) = read(&bytes[..cut]) {
                assert!(logged.len() < 6);
            }
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = read(&damaged);
            }
        }
        assert!(read(&[COMMIT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
