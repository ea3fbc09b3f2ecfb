//! The log of events: a file that is rotated by size, and whose old parts go by age and number.

use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How the file is kept small.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    /// 0 for all.
    pub backups: usize,
    /// Zero for ever.
    pub age: Duration,
}

enum Place {
    Output,
    File { path: PathBuf, file: File, size: u64 },
}

/// Writes lines.
pub struct Log {
    place: Place,
    limits: Limits,
}

fn open(path: &Path) -> std::io::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

impl Log {
    pub fn open(path: &Path, limits: Limits) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Log { place: Place::Output, limits });
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("--audit-log-path: cannot make {}", folder.display()))?;
        }
        let (file, size) =
            open(path).with_context(|| format!("--audit-log-path: cannot write {}", path.display()))?;
        Ok(Log { place: Place::File { path: path.into(), file, size }, limits })
    }

    pub fn write(&mut self, line: &str, now: SystemTime) -> std::io::Result<()> {
        match &mut self.place {
            Place::Output => std::io::stdout().lock().write_all(line.as_bytes()),
            Place::File { path, file, size } => {
                if self.limits.bytes > 0 && *size > 0 && *size + line.len() as u64 > self.limits.bytes {
                    std::fs::rename(&*path, backup_name(path, now))?;
                    (*file, *size) = open(path)?;
                    prune(path, &self.limits, now);
                }
                *size += line.len() as u64;
                file.write_all(line.as_bytes())
            }
        }
    }
}

/// `audit-2026-01-02T03-04-05.678.log` for `audit.log`, as upstream's library names them.
fn backup_name(path: &Path, now: SystemTime) -> PathBuf {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let text = super::event::micro_time(i64::try_from(since.as_micros()).unwrap_or_default());
    let stamp = text[..23].replace(':', "-");
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{stamp}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{stamp}"),
    };
    path.with_file_name(name)
}

/// Removes old parts that are too many or too old. What cannot be removed stays.
fn prune(path: &Path, limits: &Limits, now: SystemTime) {
    let Some(folder) = path.parent() else { return };
    let stem = format!("{}-", path.file_stem().unwrap_or_default().to_string_lossy());
    let Ok(entries) = std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    else {
        return;
    };
    let mut old: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|other| {
            let name = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                && other.extension() == path.extension()
        })
        .collect();
    // The names hold the time: the newest comes first.
    old.sort_by(|a, b| b.cmp(a));
    for (at, part) in old.iter().enumerate() {
        let aged = !limits.age.is_zero()
            && part
                .metadata()
                .and_then(|data| data.modified())
                .is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age > limits.age));
        if aged || (limits.backups > 0 && at >= limits.backups) {
            let _ = std::fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_makes_room_and_old_parts_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let limits = Limits { bytes: 20, backups: 2, age: Duration::ZERO };
        let mut log = Log::open(&path, limits).unwrap();
        for second in 0..5 {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            log.write("a line of 15 b\n", now).unwrap();
        }
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["audit-1970-01-01T00-00-03.000.log", "audit-1970-01-01T00-00-04.000.log", "audit.log"]
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a line of 15 b\n");
    }
}
