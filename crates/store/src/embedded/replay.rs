//! Decides how the state comes back from what was recorded.

use std::path::Path;
use std::time::Instant;

use super::record::{Logged, Reader};
use crate::error::Error;
use crate::history::Published;
use crate::mvcc::LeaseState;
use crate::types::KeyValue;

/// A state on its way back.
pub(crate) struct Replay {
    pub(crate) published: Published,
    started: Instant,
}

impl Replay {
    pub(crate) fn new(published: Published) -> Replay {
        Replay { published, started: Instant::now() }
    }

    /// A key as the state held it before the history begins.
    pub(crate) fn entry(&mut self, kv: KeyValue) {
        self.published.state.restore(kv);
    }

    /// Carries out the records of one payload. Those that the state already contains are passed over.
    pub(crate) fn records(&mut self, path: &Path, payload: &[u8]) -> Result<(), Error> {
        let corrupt = |detail: String| Error::Corrupt { path: path.to_owned(), detail };
        let mut reader = Reader::new(payload);
        let Published { state, history } = &mut self.published;
        while !reader.is_empty() {
            match reader.record().map_err(|error| corrupt(error.to_string()))? {
                Logged::Commit { revision, .. } if revision <= state.revision => {}
                Logged::Commit { revision, .. } if revision != state.revision + 1 => {
                    return Err(corrupt(format!(
                        "revision {revision} comes where {} is due",
                        state.revision + 1
                    )));
                }
                Logged::Commit { revision, changes } => {
                    let commit = state.replay(revision, changes);
                    history.push(commit);
                }
                Logged::Compact(revision) => {
                    state.compacted = state.compacted.max(revision.min(state.revision));
                    history.compact(state.compacted);
                }
                Logged::Grant { id, ttl } => {
                    if !state.leases.contains_key(&id) {
                        state.leases.insert(id, LeaseState { ttl, ..LeaseState::default() });
                    }
                }
                Logged::Revoke { id } => {
                    state.leases.remove(&id);
                }
            }
        }
        history.mark(state, self.started);
        Ok(())
    }
}
