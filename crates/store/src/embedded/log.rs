//! Decides how the log is written and read back: segments in sequence, one write and one sync per batch.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, Kind};
use super::frame::{self, HEADER, Next, OVERHEAD};
use super::spares::Spares;
use crate::error::Error;

const MAGIC: [u8; 8] = *b"TIMONLOG";

/// The size of a segment that has to be made while writers wait: large enough to last until a spare is ready.
const HASTY_SEGMENT: u64 = 1 << 20;

/// The log, open at its end.
pub(crate) struct Log {
    dir: PathBuf,
    spares: Arc<Spares>,
    current: Segment,
    /// Why nothing can be written any more: after a failed sync nobody knows what is on the disk.
    broken: Option<Error>,
    /// Bytes written since the last checkpoint was begun.
    pub(crate) since_checkpoint: u64,
}

struct Segment {
    file: File,
    sequence: u64,
    length: u64,
    /// Where the next frame goes; 0 if not even the header has been written.
    at: u64,
    chain: u32,
}

impl Log {
    /// Begins a log at a sequence number.
    pub(crate) fn create(dir: &Path, spares: Arc<Spares>, sequence: u64) -> Result<Log, Error> {
        let current = Segment::create(dir, &spares, sequence, 0)?;
        Ok(Log { dir: dir.to_owned(), spares, current, broken: None, since_checkpoint: 0 })
    }

    /// Reads the log from segment `from` on, handing each payload to `replay`, and opens it at its end: what
    /// follows the last whole frame was never acknowledged.
    pub(crate) fn recover(
        dir: &Path,
        spares: Arc<Spares>,
        sequences: &[u64],
        mut replay: impl FnMut(&Path, &[u8]) -> Result<(), Error>,
    ) -> Result<Log, Error> {
        let mut since_checkpoint = 0;
        let mut last = None;
        for (place, sequence) in sequences.iter().copied().enumerate() {
            let path = Kind::Log(sequence).path(dir);
            if place > 0 && sequence != sequences[place - 1] + 1 {
                let path = Kind::Log(sequences[place - 1] + 1).path(dir);
                return Err(Error::Corrupt { path, detail: "the file is missing".into() });
            }
            let (segment, ended) = Segment::read(&path, sequence, &mut replay)?;
            since_checkpoint += segment.at;
            if !ended && place + 1 < sequences.len() {
                let detail =
                    format!("it breaks off at byte {} although the log goes on after it", segment.at);
                return Err(Error::Corrupt { path, detail });
            }
            last = Some((segment, ended));
        }
        let Some((current, ended)) = last else {
            return Err(Error::Corrupt { path: dir.to_owned(), detail: "no log was found".into() });
        };
        let mut log = Log { dir: dir.to_owned(), spares, current, broken: None, since_checkpoint };
        if ended {
            log.current = Segment::create(dir, &log.spares, log.current.sequence + 1, 0)?;
        }
        Ok(log)
    }

    /// The segment that is written to.
    pub(crate) fn sequence(&self) -> u64 {
        self.current.sequence
    }

    /// Makes a payload durable: `frame` begins with room for the frame's head, see [`frame::begin`]. If this
    /// fails, the payload will not be found by [`Log::recover`], or the log is broken and says so from then on.
    pub(crate) fn append(&mut self, frame: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        // Room for the mark that ends the segment is always kept.
        if self.current.at + (frame.len() + OVERHEAD + HEADER) as u64 > self.current.length {
            self.rotate(frame.len() as u64)?;
        }
        let segment = &mut self.current;
        let mut chain = segment.chain;
        let written = if segment.at == 0 {
            let (header, start) = frame::header(MAGIC, segment.sequence);
            chain = start;
            frame::finish(frame, 0, &mut chain);
            frame.splice(..0, header);
            segment.file.write_all_at(frame, 0)
        } else {
            frame::finish(frame, 0, &mut chain);
            segment.file.write_all_at(frame, segment.at)
        };
        written.map_err(|error| Error::io("could not write the store's log", &error))?;
        if let Err(error) = segment.file.sync_data() {
            let text = format!("the disk failed to sync the log: {error}; check the disk, then restart");
            tracing::error!(%error, "the store's log could not be synced, no more writes are taken");
            self.broken = Some(Error::Unavailable(text.clone()));
            return Err(Error::Unavailable(text));
        }
        segment.chain = chain;
        segment.at += frame.len() as u64;
        self.since_checkpoint += frame.len() as u64;
        Ok(())
    }

    fn rotate(&mut self, need: u64) -> Result<(), Error> {
        let sequence = self.current.sequence + 1;
        if self.current.at == 0 {
            // The segment is untouched but too small for what is to come.
            self.current = Segment::create(&self.dir, &self.spares, self.current.sequence, need)?;
            return Ok(());
        }
        // The mark is durable before the next segment exists, so that a segment without it is the last one.
        let current = &self.current;
        let marked = current.file.write_all_at(&frame::end(current.chain), current.at);
        marked
            .and_then(|()| current.file.sync_data())
            .map_err(|error| Error::io("could not end a segment of the store's log", &error))?;
        self.current = Segment::create(&self.dir, &self.spares, sequence, need)?;
        Ok(())
    }
}

impl Segment {
    /// Makes an empty segment out of a spare file, or anew if none is ready or it is too small.
    fn create(dir: &Path, spares: &Spares, sequence: u64, need: u64) -> Result<Segment, Error> {
        let path = Kind::Log(sequence).path(dir);
        let need = need + (2 * HEADER + OVERHEAD) as u64;
        let file = match spares.take(need) {
            Some(spare) => {
                files::rename(&spare, &path)?;
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .map_err(|error| Error::io(&format!("could not open {}", path.display()), &error))?
            }
            None => files::zeros(&path, HASTY_SEGMENT.max(need))?,
        };
        files::sync_dir(dir)?;
        let length =
            file.metadata().map_err(|error| Error::io("could not look at the store's log", &error))?.len();
        Ok(Segment { file, sequence, length, at: 0, chain: 0 })
    }

    /// Reads a segment to its end; also tells whether it bears the mark that the log goes on in the next.
    fn read(
        path: &Path,
        sequence: u64,
        replay: &mut impl FnMut(&Path, &[u8]) -> Result<(), Error>,
    ) -> Result<(Segment, bool), Error> {
        let failed = |error| Error::io(&format!("could not read {}", path.display()), &error);
        let bytes = std::fs::read(path).map_err(failed)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        let mut segment = Segment { file, sequence, length: bytes.len() as u64, at: 0, chain: 0 };
        let corrupt = |detail: String| Error::Corrupt { path: path.to_owned(), detail };
        let Some(chain) = frame::read_header(path, &bytes, MAGIC, sequence)? else {
            let untouched = frame::is_untouched(&bytes, MAGIC);
            return if untouched {
                Ok((segment, false))
            } else {
                Err(corrupt("its header is damaged".into()))
            };
        };
        segment.chain = chain;
        let mut at = HEADER;
        let ended = loop {
            match frame::next(&bytes[at..], &mut segment.chain) {
                Next::Frame(payload) => {
                    replay(path, payload)?;
                    at += OVERHEAD + payload.len();
                }
                Next::End => break true,
                Next::Nothing if frame::is_followed(&bytes[at..]) => {
                    return Err(corrupt(format!("the record at byte {at} is damaged and others follow it")));
                }
                Next::Nothing => break false,
            }
        };
        segment.at = at as u64;
        // A header without a frame was cut off with its first frame; both are written again.
        if at == HEADER && !ended {
            segment.at = 0;
        }
        Ok((segment, ended))
    }
}
