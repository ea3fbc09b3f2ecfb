//! Reading a container's log: the CRI format, the options of `kubectl logs`, following by notices of the kernel.

use crate::inotify::Inotify;
use crate::log_files;
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    pub follow: bool,
    pub timestamps: bool,
    pub tail: Option<usize>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// `stdout` or `stderr` only.
    pub stream: Option<String>,
}

/// One read from the disk.
const CHUNK: usize = 64 << 10;
/// While following, a container's end may come without a write: its state is looked at this often.
const END_LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// A line of a log, as the runtime wrote it.
struct Line<'a> {
    time: &'a [u8],
    stream: &'a [u8],
    /// Whether the text goes on in the next line.
    partial: bool,
    text: &'a [u8],
}

/// `2024-01-02T03:04:05.6Z stdout F text`
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Line { time, stream, partial: tag.starts_with(b"P"), text: parts.next().unwrap_or_default() })
}

/// Turns raw lines into what the client reads.
pub struct Printer {
    query: Query,
    left: Option<u64>,
    /// The last line of each stream was partial: no time stamp before what goes on.
    continued: bool,
}

impl Printer {
    pub fn new(query: Query) -> Self {
        Printer { left: query.limit_bytes, query, continued: false }
    }

    pub fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn print(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse(raw) else { return };
        if self.query.stream.as_ref().is_some_and(|stream| stream.as_bytes() != line.stream) {
            return;
        }
        if let Some(since) = self.query.since {
            let time = std::str::from_utf8(line.time).ok().and_then(|text| text.parse::<Timestamp>().ok());
            if time.is_some_and(|time| time < since) {
                return;
            }
        }
        let start = out.len();
        if self.query.timestamps && !self.continued {
            out.extend_from_slice(line.time);
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.continued = line.partial;
        if let Some(left) = &mut self.left {
            let taken = ((out.len() - start) as u64).min(*left);
            out.truncate(start + taken as usize);
            *left -= taken;
        }
    }
}

/// Where in a chain of files the last lines begin: the file and the offset in it.
fn tail_start(files: &[PathBuf], lines: usize) -> (usize, u64) {
    let mut wanted = lines;
    for (index, file) in files.iter().enumerate().rev() {
        let starts = line_starts(file, wanted);
        if starts.len() >= wanted || index == 0 {
            let offset = if wanted == 0 { length(file) } else { starts.front().copied().unwrap_or(0) };
            return (index, offset);
        }
        wanted -= starts.len();
    }
    (0, 0)
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |meta| meta.len())
}

/// The offsets at which the last lines that end a text begin; a text in several pieces counts once.
fn line_starts(path: &Path, count: usize) -> VecDeque<u64> {
    let mut starts = VecDeque::new();
    let Ok(mut file) = std::fs::File::open(path) else { return starts };
    let mut reader = Lines::default();
    let (mut text_start, mut offset) = (0, 0);
    while let Ok(Some(chunk)) = read_chunk(&mut file) {
        reader.feed(&chunk, |raw| {
            offset += raw.len() as u64 + 1;
            if parse(raw).is_none_or(|line| !line.partial) {
                starts.push_back(text_start);
                if starts.len() > count {
                    starts.pop_front();
                }
                text_start = offset;
            }
        });
    }
    starts
}

fn read_chunk(file: &mut std::fs::File) -> std::io::Result<Option<Vec<u8>>> {
    let mut chunk = vec![0; CHUNK];
    let count = file.read(&mut chunk)?;
    chunk.truncate(count);
    Ok((count > 0).then_some(chunk))
}

/// Splits a stream of bytes into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(&[u8])) {
        self.rest.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(end) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            each(&self.rest[start..start + end]);
            start += end + 1;
        }
        self.rest.drain(..start);
    }
}

/// Sends a log to a client. `running` tells whether the container still writes; asked only while following.
pub async fn send<F, Fut>(current: PathBuf, query: Query, sender: mpsc::Sender<Bytes>, running: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let files = log_files::files(&current);
    let (first, offset) = match query.tail {
        Some(lines) => tail_start(&files, lines),
        None => (0, 0),
    };
    let follow = query.follow;
    let mut printer = Printer::new(query);
    // The watch begins before the reading, so that no write falls between them.
    let notices = follow.then(Inotify::new).and_then(Result::ok);
    if let (Some(notices), Some(folder)) = (&notices, current.parent()) {
        let _ = notices.watch(folder);
    }
    for (index, path) in files.iter().enumerate().skip(first) {
        let Ok(mut file) = std::fs::File::open(path) else { continue };
        if index == first && file.seek(SeekFrom::Start(offset)).is_err() {
            return;
        }
        let mut lines = Lines::default();
        if !drain(&mut file, &mut lines, &mut printer, &sender).await {
            return;
        }
        if let (true, Some(notices)) = (index + 1 == files.len(), &notices) {
            return self::follow(path, file, lines, &mut printer, &sender, notices, running).await;
        }
    }
}

/// Sends what is there; false when the client has gone or has enough.
async fn drain(
    file: &mut std::fs::File,
    lines: &mut Lines,
    printer: &mut Printer,
    sender: &mpsc::Sender<Bytes>,
) -> bool {
    while let Ok(Some(chunk)) = read_chunk(file) {
        let mut out = vec![];
        lines.feed(&chunk, |raw| printer.print(raw, &mut out));
        if !out.is_empty() && sender.send(Bytes::from(out)).await.is_err() {
            return false;
        }
        if printer.is_full() {
            return false;
        }
    }
    true
}

async fn follow<F, Fut>(
    path: &Path,
    mut file: std::fs::File,
    mut lines: Lines,
    printer: &mut Printer,
    sender: &mpsc::Sender<Bytes>,
    notices: &Inotify,
    running: F,
) where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    loop {
        let alive = tokio::select! {
            result = notices.changed() => {
                if result.is_err() {
                    return;
                }
                true
            }
            () = tokio::time::sleep(END_LOOK) => running().await,
            () = sender.closed() => return,
        };
        if !drain(&mut file, &mut lines, printer, sender).await {
            return;
        }
        if turned_over(path, &file) {
            if let Ok(next) = std::fs::File::open(path) {
                file = next;
                if !drain(&mut file, &mut lines, printer, sender).await {
                    return;
                }
            }
        } else if !alive {
            return;
        }
    }
}

/// Whether the name stands for another file now.
fn turned_over(path: &Path, file: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |meta: std::io::Result<std::fs::Metadata>| meta.map(|meta| meta.ino()).ok();
    let named = inode(std::fs::metadata(path));
    named.is_some() && named != inode(file.metadata())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2024-01-01T00:00:01Z stdout F one\n2024-01-01T00:00:02Z stderr P tw\n2024-01-01T00:00:02Z stderr F o\n2024-01-01T00:00:03Z stdout F three\n";

    async fn read(query: Query) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let (head, tail) = LOG.split_at(LOG.find("2024-01-01T00:00:03").unwrap());
        std::fs::write(dir.path().join("0.log.20240101-000000"), head).unwrap();
        std::fs::write(&path, tail).unwrap();
        let (sender, mut receiver) = mpsc::channel(16);
        send(path, query, sender, || async { false }).await;
        let mut out = vec![];
        while let Some(bytes) = receiver.recv().await {
            out.extend_from_slice(&bytes);
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn logs_are_read_over_rotations() {
        assert_eq!(read(Query::default()).await, "one\ntwo\nthree\n");
        assert_eq!(read(Query { tail: Some(2), ..Query::default() }).await, "two\nthree\n");
        assert_eq!(read(Query { tail: Some(0), ..Query::default() }).await, "");
        assert_eq!(read(Query { limit_bytes: Some(5), ..Query::default() }).await, "one\nt");
        assert_eq!(
            read(Query { stream: Some("stderr".into()), timestamps: true, ..Query::default() }).await,
            "2024-01-01T00:00:02Z two\n"
        );
        let since = "2024-01-01T00:00:03Z".parse().ok();
        assert_eq!(read(Query { since, ..Query::default() }).await, "three\n");
        assert_eq!(read(Query { follow: true, ..Query::default() }).await, "one\ntwo\nthree\n");
    }
}
