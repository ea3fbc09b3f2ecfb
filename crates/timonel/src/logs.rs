//! `timonel logs COMPONENT`: what a component has said, and with `--follow` what it says next.

use crate::layout::Layout;
use crate::logging::{COMPONENTS, file};
use anyhow::{Context, Result, bail};
use std::io::{Read, Seek, SeekFrom, Write};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, cluster-dns, containerd or timonel.
    pub component: String,
    /// Go on with what is said next.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines.
    #[arg(long, default_value_t = 1000)]
    pub tail: usize,
}

/// The log may be written to at any time; this is how often a follower looks. It ends with its terminal.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

pub fn logs(layout: &Layout, args: &LogsArgs) -> Result<()> {
    let known: Vec<&str> = COMPONENTS.iter().map(|(name, _)| *name).chain(["containerd"]).collect();
    if !known.contains(&args.component.as_str()) {
        bail!("no component {:?}: there are {}", args.component, known.join(", "));
    }
    let path = file(&layout.logs(), &args.component);
    let mut log = std::fs::File::open(&path).with_context(|| {
        format!("opening {}: has a server run with --data-dir {}?", path.display(), layout.data_dir.display())
    })?;
    let mut text = Vec::new();
    log.read_to_end(&mut text)?;
    let mut out = std::io::stdout().lock();
    out.write_all(last_lines(&text, args.tail))?;
    let mut at = text.len() as u64;
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(FOLLOW_INTERVAL);
        if std::fs::metadata(&path)?.len() < at {
            log = std::fs::File::open(&path)?;
            at = 0;
        }
        log.seek(SeekFrom::Start(at))?;
        at += std::io::copy(&mut log, &mut out)?;
        out.flush()?;
    }
}

fn last_lines(text: &[u8], count: usize) -> &[u8] {
    let end = text.strip_suffix(b"\n").unwrap_or(text);
    let start = end.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').nth(count.saturating_sub(1));
    if count == 0 { &[] } else { &text[start.map_or(0, |(at, _)| at + 1)..] }
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_are_whole() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\n", 9), b"a\n");
        assert_eq!(last_lines(b"a\n", 0), b"");
    }
}
