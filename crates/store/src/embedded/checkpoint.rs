//! Decides what a checkpoint holds and how it replaces the one before: the state at the start of the history,
//! then the history, so that past revisions outlast a restart.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::files::{self, Kind};
use super::frame::{self, HEADER, Next, OVERHEAD};
use super::record::{self, Malformed, Reader};
use super::replay::Replay;
use crate::error::Error;
use crate::history::{History, Published};
use crate::mvcc::State;

const MAGIC: [u8; 8] = *b"TIMONCKP";

/// About how many bytes one frame holds.
const FRAME: usize = 1 << 20;
/// How much is written between two syncs, so that the log's syncs never wait for a whole checkpoint.
const SYNC_EVERY: u64 = 8 << 20;

const FACTS: u8 = b'F';
const ENTRIES: u8 = b'E';
const RECORDS: u8 = b'R';

/// Writes a checkpoint of state and history. The log from segment `log_sequence` on holds what came after.
/// Answers the revision that names it, or `None` if `cancelled` was set meanwhile.
pub(crate) fn write(
    dir: &Path,
    state: &State,
    history: &History,
    log_sequence: u64,
    cancelled: &AtomicBool,
) -> Result<Option<u64>, Error> {
    let revision = state.revision.unsigned_abs();
    let temporary = Kind::Temporary(revision).path(dir);
    match fill(&temporary, state, history, log_sequence, cancelled) {
        Ok(true) => {}
        Ok(false) => {
            files::remove(&temporary);
            return Ok(None);
        }
        Err(error) => {
            files::remove(&temporary);
            return Err(error);
        }
    }
    files::rename(&temporary, &Kind::Checkpoint(revision).path(dir))?;
    files::sync_dir(dir)?;
    Ok(Some(revision))
}

fn fill(
    path: &Path,
    state: &State,
    history: &History,
    log_sequence: u64,
    cancelled: &AtomicBool,
) -> Result<bool, Error> {
    let base = history.first().map_or(state.revision, |first| first - 1);
    let mut out = Output::create(path, state.revision.unsigned_abs())?;
    out.frame.push(FACTS);
    for number in [base, state.compacted, log_sequence.cast_signed(), state.leases.len() as i64] {
        record::number(&mut out.frame, number);
    }
    for (id, lease) in &state.leases {
        record::number(&mut out.frame, *id);
        record::number(&mut out.frame, lease.ttl);
    }
    for kv in history.live_at(state, base).values() {
        if out.room(ENTRIES)? && cancelled.load(Ordering::Relaxed) {
            return Ok(false);
        }
        record::encode_key_value(kv, &mut out.frame);
    }
    for commit in history.all() {
        if out.room(RECORDS)? && cancelled.load(Ordering::Relaxed) {
            return Ok(false);
        }
        record::encode_commit(&commit, &mut out.frame);
    }
    out.close()?;
    Ok(true)
}

/// A checkpoint being written.
struct Output {
    path: PathBuf,
    file: File,
    chain: u32,
    /// The frame being filled, with room for its head.
    frame: Vec<u8>,
    unsynced: u64,
}

impl Output {
    fn create(path: &Path, number: u64) -> Result<Output, Error> {
        let failed = |error| Error::io(&format!("could not write {}", path.display()), &error);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(failed)?;
        let (header, chain) = frame::header(MAGIC, number);
        file.write_all(&header).map_err(failed)?;
        let mut frame = Vec::with_capacity(FRAME + FRAME / 4);
        frame::begin(&mut frame);
        Ok(Output { path: path.to_owned(), file, chain, frame, unsynced: 0 })
    }

    /// Makes sure that the frame being filled is of a kind and not full; tells whether one was written.
    fn room(&mut self, kind: u8) -> Result<bool, Error> {
        let same = self.frame.get(OVERHEAD) == Some(&kind);
        if same && self.frame.len() < FRAME {
            return Ok(false);
        }
        self.flush()?;
        self.frame.push(kind);
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), Error> {
        frame::finish(&mut self.frame, 0, &mut self.chain);
        self.unsynced += self.frame.len() as u64;
        let written = self.file.write_all(&self.frame);
        let synced = if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            written.and_then(|()| self.file.sync_data())
        } else {
            written
        };
        self.frame.clear();
        frame::begin(&mut self.frame);
        synced.map_err(|error| self.failed(&error))
    }

    fn close(mut self) -> Result<(), Error> {
        self.flush()?;
        let ended = self.file.write_all(&frame::end(self.chain)).and_then(|()| self.file.sync_all());
        ended.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::io(&format!("could not write {}", self.path.display()), error)
    }
}

/// Reads a checkpoint: what it holds, and the first segment of the log that follows it.
pub(crate) fn read(dir: &Path, number: u64) -> Result<(Published, u64), Error> {
    let path = Kind::Checkpoint(number).path(dir);
    let mut input = Input::open(&path, number)?;
    let facts = input.next()?.map(<[u8]>::to_vec);
    let malformed = |_: Malformed| Error::Corrupt { path: path.clone(), detail: "it is malformed".into() };
    let (mut replay, log_sequence) = match facts.as_deref() {
        Some([FACTS, facts @ ..]) => read_facts(facts).map_err(malformed)?,
        _ => return Err(malformed_at_start(&path)),
    };
    while let Some(payload) = input.next()? {
        match payload {
            [ENTRIES, rest @ ..] => {
                let mut reader = Reader::new(rest);
                while !reader.is_empty() {
                    replay.entry(reader.key_value().map_err(malformed)?);
                }
            }
            [RECORDS, rest @ ..] => replay.records(&path, rest)?,
            _ => return Err(malformed_at_start(&path)),
        }
    }
    if replay.published.state.revision.unsigned_abs() != number {
        let detail = format!("it ends at revision {}", replay.published.state.revision);
        return Err(Error::Corrupt { path, detail });
    }
    Ok((replay.published, log_sequence))
}

fn malformed_at_start(path: &Path) -> Error {
    Error::Corrupt { path: path.to_owned(), detail: "it holds something unknown".into() }
}

fn read_facts(facts: &[u8]) -> Result<(Replay, u64), Malformed> {
    let mut reader = Reader::new(facts);
    let mut state = State { revision: reader.number()?, compacted: reader.number()?, ..State::default() };
    let log_sequence = reader.number()?.cast_unsigned();
    for _ in 0..reader.number()? {
        let (id, ttl) = (reader.number()?, reader.number()?);
        state.leases.insert(id, crate::mvcc::LeaseState { ttl, ..Default::default() });
    }
    Ok((Replay::new(Published { state, history: History::default() }), log_sequence))
}

/// A checkpoint being read, one frame at a time.
struct Input {
    path: PathBuf,
    file: BufReader<File>,
    left: u64,
    chain: u32,
    frame: Vec<u8>,
}

impl Input {
    fn open(path: &Path, number: u64) -> Result<Input, Error> {
        let failed = |error| Error::io(&format!("could not read {}", path.display()), &error);
        let file = File::open(path).map_err(failed)?;
        let left = file.metadata().map_err(failed)?.len();
        let mut input =
            Input { path: path.to_owned(), file: BufReader::new(file), left, chain: 0, frame: Vec::new() };
        input.fill(HEADER)?;
        match frame::read_header(path, &input.frame, MAGIC, number)? {
            Some(chain) => input.chain = chain,
            None => return Err(input.damaged()),
        }
        Ok(input)
    }

    fn damaged(&self) -> Error {
        Error::Corrupt { path: self.path.clone(), detail: format!("{} bytes before its end", self.left) }
    }

    /// Reads more bytes behind those in `frame`.
    fn fill(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes as u64 > self.left {
            return Err(self.damaged());
        }
        let start = self.frame.len();
        self.frame.resize(start + bytes, 0);
        self.left -= bytes as u64;
        self.file
            .read_exact(&mut self.frame[start..])
            .map_err(|error| Error::io(&format!("could not read {}", self.path.display()), &error))
    }

    /// The next frame's payload, or `None` at the mark of the end.
    fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        self.frame.clear();
        self.fill(OVERHEAD)?;
        let mut length = [0; 4];
        length.copy_from_slice(&self.frame[..4]);
        let length = u32::from_le_bytes(length);
        if length != u32::MAX {
            self.fill(length as usize)?;
        }
        match frame::next(&self.frame, &mut self.chain) {
            // Borrowed anew, since the answer of `next` would keep `self` borrowed in the other arms.
            Next::Frame(_) => Ok(Some(&self.frame[OVERHEAD..])),
            Next::End => Ok(None),
            Next::Nothing => Err(self.damaged()),
        }
    }
}
