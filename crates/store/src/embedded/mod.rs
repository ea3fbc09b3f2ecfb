//! Decides how the embedded engine lives: opening a directory, the thread that writes the log, the thread that
//! prepares files and checkpoints behind it.

mod checkpoint;
mod files;
mod frame;
mod log;
mod record;
mod replay;
mod spares;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as jobs;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use self::files::Kind;
use self::log::Log;
use self::replay::Replay;
use self::spares::Spares;
use crate::error::Error;
use crate::history::{Limits, Published};
use crate::hub::Hub;
use crate::local::{Command, Reply};
use crate::mvcc::{Record, State};

/// How many writes may wait for the log's thread before the next one waits outside.
const QUEUE: usize = 4096;
/// How many writes and bytes go into one sync at most.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 1 << 20;

/// How an embedded store is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much history is kept.
    pub history: Limits,
    /// The size of a segment of the log, in bytes. Two are kept ready.
    pub segment_bytes: u64,
    /// How much the log grows at least before a checkpoint is made, in bytes; it is made when the log has
    /// also outgrown the live data, so that writing checkpoints never costs more than writing the log.
    pub checkpoint_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { history: Limits::default(), segment_bytes: 16 << 20, checkpoint_bytes: 64 << 20 }
    }
}

/// The threads behind an embedded store, and its lock. Dropping it waits for them.
pub(crate) struct Threads {
    log: Option<JoinHandle<()>>,
    files: Option<JoinHandle<()>>,
    cancelled: Arc<AtomicBool>,
    _lock: File,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        for thread in [self.log.take(), self.files.take()].into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

/// Opens a directory: what readers see, where writes go, what runs behind.
pub(crate) fn open(
    dir: &Path,
    options: &Options,
) -> Result<(Arc<Hub>, mpsc::Sender<Command>, Threads), Error> {
    let lock = files::lock(dir)?;
    let begun = Instant::now();
    let (published, log, spares) = recover(dir, options)?;
    tracing::info!(
        dir = %dir.display(),
        revision = published.state.revision,
        keys = published.state.live.len(),
        history = published.history.len(),
        milliseconds = begun.elapsed().as_millis() as u64,
        "the store was opened"
    );
    let hub = Arc::new(Hub::start(published));
    let cancelled = Arc::new(AtomicBool::new(false));
    let (job_sender, job_receiver) = jobs::sync_channel(2);
    let janitor = Janitor {
        dir: dir.to_owned(),
        hub: hub.clone(),
        spares: spares.clone(),
        cancelled: cancelled.clone(),
    };
    let failed = |error| Error::io("could not start a thread of the store", &error);
    let files = std::thread::Builder::new()
        .name("store-files".into())
        .spawn(move || janitor.run(&job_receiver))
        .map_err(failed)?;
    let (commands, receiver) = mpsc::channel(QUEUE);
    let scribe = Scribe { hub: hub.clone(), options: options.clone(), log, spares, jobs: job_sender };
    let log = std::thread::Builder::new()
        .name("store-log".into())
        .spawn(move || scribe.run(receiver))
        .map_err(failed)?;
    Ok((hub, commands, Threads { log: Some(log), files: Some(files), cancelled, _lock: lock }))
}

fn recover(dir: &Path, options: &Options) -> Result<(Published, Log, Arc<Spares>), Error> {
    let (mut checkpoint, mut logs, mut spares) = (None, Vec::new(), Vec::new());
    for kind in files::list(dir)? {
        match kind {
            Kind::Log(sequence) => logs.push(sequence),
            Kind::Checkpoint(revision) => checkpoint = Some(revision),
            Kind::Spare(number) => spares.push(number),
            Kind::Temporary(_) => files::remove(&kind.path(dir)),
        }
    }
    let spares = Arc::new(Spares::new(dir, options.segment_bytes, &spares));
    let (published, first) = match checkpoint {
        Some(revision) => checkpoint::read(dir, revision)?,
        None => (Published::default(), 1),
    };
    let mut replay = Replay::new(published);
    logs.retain(|sequence| *sequence >= first);
    let log = match (logs.first(), checkpoint) {
        (None, None) => Log::create(dir, spares.clone(), first)?,
        (Some(found), _) if *found == first => {
            Log::recover(dir, spares.clone(), &logs, |path, payload| replay.records(path, payload))?
        }
        _ => {
            let path = Kind::Log(first).path(dir);
            return Err(Error::Corrupt { path, detail: "the file is missing".into() });
        }
    };
    let mut published = replay.published;
    if let Some(revision) = published.history.surplus(&options.history, Instant::now()) {
        published.history.compact(revision);
        published.state.compacted = published.state.compacted.max(revision);
    }
    if let Some(newest) = checkpoint {
        discard(dir, newest, first, &spares)?;
    }
    Ok((published, log, spares))
}

/// Removes what a checkpoint has made superfluous.
fn discard(dir: &Path, newest: u64, first: u64, spares: &Spares) -> Result<(), Error> {
    for kind in files::list(dir)? {
        match kind {
            Kind::Log(sequence) if sequence < first => spares.recycle(&kind.path(dir)),
            Kind::Checkpoint(revision) if revision < newest => files::remove(&kind.path(dir)),
            _ => {}
        }
    }
    Ok(())
}

/// What is done behind the log's thread.
enum Job {
    Spare,
    Checkpoint { log_sequence: u64 },
}

/// The thread that prepares segments and writes checkpoints.
struct Janitor {
    dir: PathBuf,
    hub: Arc<Hub>,
    spares: Arc<Spares>,
    cancelled: Arc<AtomicBool>,
}

impl Janitor {
    fn run(self, receiver: &jobs::Receiver<Job>) {
        while let Ok(job) = receiver.recv() {
            let done = match job {
                Job::Spare if self.spares.wanting() => self.spares.make(),
                Job::Spare => Ok(()),
                Job::Checkpoint { log_sequence } => self.checkpoint(log_sequence),
            };
            if let Err(error) = done {
                tracing::warn!(%error, "the store's files could not be tended, it is tried again");
            }
        }
    }

    fn checkpoint(&self, log_sequence: u64) -> Result<(), Error> {
        let begun = Instant::now();
        // What is visible now holds at least what the segments before `log_sequence` hold.
        let (state, history) = {
            let published = self.hub.published.read();
            (published.state.clone(), published.history.clone())
        };
        let Some(revision) = checkpoint::write(&self.dir, &state, &history, log_sequence, &self.cancelled)?
        else {
            return Ok(());
        };
        discard(&self.dir, revision, log_sequence, &self.spares)?;
        tracing::debug!(revision, milliseconds = begun.elapsed().as_millis() as u64, "a checkpoint was made");
        Ok(())
    }
}

/// The thread that holds the newest state and writes the log.
struct Scribe {
    hub: Arc<Hub>,
    options: Options,
    log: Log,
    spares: Arc<Spares>,
    jobs: jobs::SyncSender<Job>,
}

type Answer = (oneshot::Sender<Result<Reply, Error>>, Result<Reply, Error>);

impl Scribe {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut state = self.hub.published.read().state.clone();
        let mut frame = Vec::new();
        let mut records = Vec::new();
        let mut answers: Vec<Answer> = Vec::new();
        while let Some(command) = commands.blocking_recv() {
            frame.clear();
            frame::begin(&mut frame);
            let mut next = Some(command);
            while let Some(command) = next {
                let encoded = records.len();
                let answer = state.apply(&command.request, &mut records);
                record::encode(&records[encoded..], &mut frame);
                answers.push((command.reply, answer));
                let full = answers.len() >= BATCH || frame.len() >= BATCH_BYTES;
                next = if full { None } else { commands.try_recv().ok() };
            }
            let written = self.write(&mut state, &mut frame, &records);
            records.clear();
            for (reply, answer) in answers.drain(..) {
                let answer = written.clone().and(answer);
                // Whoever does not wait any more does not need to know.
                let _ = reply.send(answer);
            }
            self.tend(&state);
        }
    }

    /// Makes a batch durable, then visible; if that fails, goes back to what is visible.
    fn write(&mut self, state: &mut State, frame: &mut Vec<u8>, records: &[Record]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        match self.log.append(frame) {
            Ok(()) => {
                self.hub.commit(state, records, &self.options.history);
                if frame.capacity() > 4 * BATCH_BYTES {
                    *frame = Vec::new();
                }
                Ok(())
            }
            Err(error) => {
                *state = self.hub.published.read().state.clone();
                Err(error)
            }
        }
    }

    /// Hands out what is due behind the log.
    fn tend(&mut self, state: &State) {
        if self.spares.wanting() {
            // If the queue is full, the thread is at work and this comes again with the next batch.
            let _ = self.jobs.try_send(Job::Spare);
        }
        let due = self.options.checkpoint_bytes.max(state.live_bytes);
        if self.log.since_checkpoint >= due {
            let log_sequence = self.log.sequence();
            if self.jobs.try_send(Job::Checkpoint { log_sequence }).is_ok() {
                self.log.since_checkpoint = 0;
            }
        }
    }
}
