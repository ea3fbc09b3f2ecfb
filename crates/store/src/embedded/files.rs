//! Decides how files of the data directory are made: names, the lock, preallocation, atomic replacement.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// What a file of the data directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `log-<sequence>`: a segment of the log.
    Log(u64),
    /// `checkpoint-<revision>`: the state and history at a revision.
    Checkpoint(u64),
    /// `spare-<number>`: a file of zeros or of an old log, ready to become a segment.
    Spare(u64),
    /// `temporary-<number>`: a file that was not finished.
    Temporary(u64),
}

impl Kind {
    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        let (name, number) = match self {
            Kind::Log(number) => ("log", number),
            Kind::Checkpoint(number) => ("checkpoint", number),
            Kind::Spare(number) => ("spare", number),
            Kind::Temporary(number) => ("temporary", number),
        };
        dir.join(format!("{name}-{number:016x}"))
    }

    fn of(name: &str) -> Option<Kind> {
        let (kind, number) = name.split_once('-')?;
        let number = u64::from_str_radix(number, 16).ok()?;
        match kind {
            "log" => Some(Kind::Log(number)),
            "checkpoint" => Some(Kind::Checkpoint(number)),
            "spare" => Some(Kind::Spare(number)),
            "temporary" => Some(Kind::Temporary(number)),
            _ => None,
        }
    }
}

/// The store's files in a directory, in order; what is not the store's is passed over.
pub(crate) fn list(dir: &Path) -> Result<Vec<Kind>, Error> {
    let read = |error| Error::io(&format!("could not list {}", dir.display()), &error);
    let mut kinds = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        kinds.extend(name.to_str().and_then(Kind::of));
    }
    kinds.sort_unstable();
    Ok(kinds)
}

/// Makes the data directory if need be and locks it against other processes, until the answer is dropped.
pub(crate) fn lock(dir: &Path) -> Result<File, Error> {
    std::fs::create_dir_all(dir).map_err(|error| {
        Error::io(&format!("could not make the data directory {}", dir.display()), &error)
    })?;
    let path = dir.join("lock");
    let failed = |error| Error::io(&format!("could not lock {}", path.display()), &error);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    // SAFETY: the descriptor is open, and flock takes no pointer.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
    if !locked {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EWOULDBLOCK) {
            return Err(failed(error));
        }
        let mut holder = String::new();
        let read = file.read_to_string(&mut holder);
        let holder = match holder.trim() {
            pid if read.is_ok() && !pid.is_empty() => format!("process {pid}"),
            _ => "another process".to_owned(),
        };
        return Err(Error::Locked { path: dir.to_owned(), holder });
    }
    // The process's number is only there to be told; a full disk must not keep the store from opening.
    let noted = file.set_len(0).and_then(|()| file.rewind());
    if let Err(error) = noted.and_then(|()| writeln!(file, "{}", std::process::id())) {
        tracing::debug!(%error, "the process id was not noted in the lock file");
    }
    Ok(file)
}

/// Makes what happened to names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io(&format!("could not sync {}", dir.display()), &error))
}

/// Makes a file of zeros whose blocks are all written, so that overwriting them is one write to the disk
/// and cannot run out of space. Leaves nothing behind if it fails.
pub(crate) fn zeros(path: &Path, bytes: u64) -> Result<File, Error> {
    let make = || {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let block = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(block.len() as u64);
            file.write_all(&block[..part as usize])?;
            left -= part;
        }
        file.sync_all()?;
        Ok(file)
    };
    make().map_err(|error| {
        remove(path);
        Error::io(&format!("could not make {}", path.display()), &error)
    })
}

/// Removes a file that is not needed any more; what cannot be removed is tried again at the next open.
pub(crate) fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "an old file of the store could not be removed");
        }
        _ => {}
    }
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(|error| {
        Error::io(&format!("could not rename {} to {}", from.display(), to.display()), &error)
    })
}
