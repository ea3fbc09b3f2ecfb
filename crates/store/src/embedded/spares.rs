//! Decides which files stand ready to become the next segment of the log.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::files::{self, Kind};
use crate::error::Error;

/// How many files are kept ready.
const KEPT: usize = 2;

/// Files of zeros, or of segments that a checkpoint has made superfluous.
#[derive(Debug)]
pub(crate) struct Spares {
    dir: PathBuf,
    bytes: u64,
    ready: Mutex<Ready>,
}

#[derive(Debug, Default)]
struct Ready {
    files: Vec<(PathBuf, u64)>,
    next: u64,
}

impl Spares {
    /// Takes over the spare files found in a directory that have the right size; the others are removed.
    pub(crate) fn new(dir: &Path, bytes: u64, found: &[u64]) -> Spares {
        let mut ready = Ready { files: Vec::new(), next: found.last().map_or(0, |last| last + 1) };
        for number in found {
            let path = Kind::Spare(*number).path(dir);
            let length = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            if length == bytes && ready.files.len() < KEPT {
                ready.files.push((path, length));
            } else {
                files::remove(&path);
            }
        }
        Spares { dir: dir.to_owned(), bytes, ready: Mutex::new(ready) }
    }

    /// Takes a file of at least `need` bytes, if one is ready.
    pub(crate) fn take(&self, need: u64) -> Option<PathBuf> {
        let mut ready = self.ready.lock();
        let at = ready.files.iter().position(|(_, length)| *length >= need)?;
        Some(ready.files.remove(at).0)
    }

    /// Whether another file should be made ready.
    pub(crate) fn wanting(&self) -> bool {
        self.ready.lock().files.is_empty()
    }

    /// Makes a file ready.
    pub(crate) fn make(&self) -> Result<(), Error> {
        let path = self.name();
        files::zeros(&path, self.bytes)?;
        self.ready.lock().files.push((path, self.bytes));
        Ok(())
    }

    /// Keeps a segment that is not needed any more as a spare, or removes it if there are enough.
    pub(crate) fn recycle(&self, old: &Path) {
        let length = std::fs::metadata(old).map_or(0, |metadata| metadata.len());
        if length != self.bytes || self.ready.lock().files.len() >= KEPT {
            return files::remove(old);
        }
        let path = self.name();
        match files::rename(old, &path) {
            Ok(()) => self.ready.lock().files.push((path, length)),
            Err(error) => tracing::warn!(%error, "an old segment of the log could not be kept as a spare"),
        }
    }

    fn name(&self) -> PathBuf {
        let mut ready = self.ready.lock();
        ready.next += 1;
        Kind::Spare(ready.next).path(&self.dir)
    }
}
