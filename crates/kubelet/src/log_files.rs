//! Container log files: which there are, when they are turned over, and what stands at their end.

use crate::{Context, sandbox};
use container_runtime::cri::messages::*;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between looks at the sizes of logs; upstream's. Only pods that run are looked at.
const ROTATE: Duration = Duration::from_secs(10);
/// Of a log's end, this much is read to find its last lines.
const TAIL_BYTES_MAX: u64 = 256 << 10;

/// The current file of a container and its older ones, oldest first: `0.log.20240102-150405[.gz]`, then `0.log`.
pub fn files(current: &Path) -> Vec<PathBuf> {
    let name = current.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let prefix = format!("{name}.");
    let entries =
        current.parent().and_then(|parent| std::fs::read_dir(parent).ok()).into_iter().flatten().flatten();
    let mut older: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&prefix) && !name.ends_with(".gz") && !name.ends_with(".tmp")
        })
        .map(|entry| entry.path())
        .collect();
    older.sort();
    older.push(current.to_path_buf());
    older
}

/// Removes all log files of one start of a container.
pub fn remove(folder: &Path, attempt: u32) {
    for file in files(&folder.join(format!("{attempt}.log"))) {
        let _ = std::fs::remove_file(file);
    }
}

/// The text of the last lines of a log, without the runtime's marks.
pub fn tail_text(path: &Path, lines: usize, bytes: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
        let mut buffer = vec![];
        file.take(TAIL_BYTES_MAX).read_to_end(&mut buffer)?;
        Ok(buffer)
    };
    let raw = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&raw);
    let all: Vec<&str> = text.lines().collect();
    let start = all.len().saturating_sub(lines);
    let mut out = String::new();
    for line in &all[start..] {
        let mut parts = line.splitn(4, ' ');
        let (_, _, tag, content) = (parts.next(), parts.next(), parts.next(), parts.next());
        out.push_str(content.unwrap_or_default());
        if tag.is_some_and(|tag| tag.starts_with('F')) {
            out.push('\n');
        }
    }
    let mut cut = out.len().saturating_sub(bytes);
    while !out.is_char_boundary(cut) {
        cut += 1;
    }
    out.split_off(cut)
}

/// Turns over logs that have grown too large, until cancelled.
pub async fn rotate(ctx: &Context) {
    loop {
        tokio::time::sleep(ROTATE).await;
        let pods = ctx.pods();
        if pods.is_empty() {
            continue;
        }
        let large =
            pods.iter().flat_map(|pod| large(ctx, &sandbox::log_dir(&ctx.settings, pod))).collect::<Vec<_>>();
        if !large.is_empty() {
            turn_over(ctx, &large).await;
        }
    }
}

fn large(ctx: &Context, folder: &Path) -> Vec<PathBuf> {
    let containers = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let logs = containers.flat_map(|entry| std::fs::read_dir(entry.path()).into_iter().flatten().flatten());
    logs.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.len() > ctx.settings.log_max_bytes))
        .map(|entry| entry.path())
        .collect()
}

async fn turn_over(ctx: &Context, logs: &[PathBuf]) {
    let running = ContainerFilter {
        state: Some(ContainerStateValue { state: container_state::RUNNING }),
        ..Default::default()
    };
    let Ok(list) = ctx.runtime.list_containers(ListContainersRequest { filter: Some(running) }).await else {
        return;
    };
    for container in list.containers {
        let id = container.id;
        let request = ContainerStatusRequest { container_id: id.clone(), verbose: false };
        let Ok(answer) = ctx.runtime.container_status(request).await else { continue };
        let path = PathBuf::from(answer.status.unwrap_or_default().log_path);
        if !logs.contains(&path) {
            continue;
        }
        let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
        let old = PathBuf::from(format!("{}.{stamp}", path.display()));
        if std::fs::rename(&path, &old).is_err() {
            continue;
        }
        if let Err(error) = ctx.runtime.reopen_container_log(ContainerIdRequest { container_id: id }).await {
            tracing::warn!(log = %path.display(), %error, "Failed to reopen a container's log");
            // The runtime still writes to the old file: give it its name back.
            let _ = std::fs::rename(&old, &path);
            continue;
        }
        let all = files(&path);
        for spare in &all[..all.len().saturating_sub(ctx.settings.log_max_files)] {
            let _ = std::fs::remove_file(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_joins_partial_lines_and_keeps_to_its_limits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "t stdout F one\nt stderr P tw\nt stderr F o\nt stdout F three\n").unwrap();
        assert_eq!(tail_text(&path, 3, 100), "two\nthree\n");
        assert_eq!(tail_text(&path, 9, 7), "\nthree\n");
    }
}
