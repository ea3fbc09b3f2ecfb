//! Logs: a file for each component, by the crate that speaks; bounded, the oldest half thrown away first.

use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A component's log, and which crates' words go into it. The last takes what no other does.
pub const COMPONENTS: &[(&str, &[&str])] = &[
    ("kube-apiserver", &["kube_apiserver", "registry", "store", "patch", "streaming"]),
    ("kube-controller-manager", &["kube_controller_manager", "controller_runtime", "controllers"]),
    ("kube-scheduler", &["kube_scheduler", "scheduler"]),
    ("kubelet", &["kubelet", "pods", "container_runtime"]),
    ("kube-proxy", &["kube_proxy", "services", "net"]),
    ("cluster-dns", &["cluster_dns"]),
    ("timonel", &[]),
];

/// A log file grows to this size, then becomes `<name>.log.1` and the one before it goes.
const MAX_FILE_BYTES: u64 = 16 << 20;

struct LogFile {
    path: PathBuf,
    file: File,
    written_bytes: u64,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let written_bytes = file.metadata()?.len();
        Ok(LogFile { path, file, written_bytes })
    }

    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        *self = LogFile::open(std::mem::take(&mut self.path))?;
        Ok(())
    }
}

/// One line's way to its file.
#[derive(Clone)]
pub struct LineWriter(Arc<Mutex<LogFile>>);

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock();
        if log.written_bytes + line.len() as u64 > MAX_FILE_BYTES {
            log.rotate()?;
        }
        log.file.write_all(line)?;
        log.written_bytes += line.len() as u64;
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct ByComponent(Vec<LineWriter>);

impl<'a> MakeWriter<'a> for ByComponent {
    type Writer = LineWriter;
    fn make_writer(&'a self) -> LineWriter {
        self.0[self.0.len() - 1].clone()
    }
    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> LineWriter {
        self.0[place(meta.target())].clone()
    }
}

fn place(target: &str) -> usize {
    let speaker = target.split("::").next().unwrap_or_default();
    COMPONENTS.iter().position(|(_, crates)| crates.contains(&speaker)).unwrap_or(COMPONENTS.len() - 1)
}

pub fn file(folder: &Path, component: &str) -> PathBuf {
    folder.join(format!("{component}.log"))
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("TIMONEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Sends every component's log to its file in `folder`.
pub fn to_files(folder: &Path) -> anyhow::Result<()> {
    crate::layout::private_dir(folder)?;
    let open = |(component, _): &(&str, &[&str])| {
        LogFile::open(file(folder, component)).map(|log| LineWriter(Arc::new(Mutex::new(log))))
    };
    let writers = COMPONENTS.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(false)
        .with_writer(ByComponent(writers))
        .init();
    Ok(())
}

/// A component that runs alone speaks on standard error, as its upstream namesake does.
pub fn to_stderr() {
    tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(io::stderr).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_has_its_log() {
        assert_eq!(COMPONENTS[place("registry::watch")].0, "kube-apiserver");
        assert_eq!(COMPONENTS[place("kubelet")].0, "kubelet");
        assert_eq!(COMPONENTS[place("hyper::server")].0, "timonel");
    }

    #[test]
    fn a_log_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut writer = LineWriter(Arc::new(Mutex::new(LogFile::open(path.clone()).unwrap())));
        writer.0.lock().written_bytes = MAX_FILE_BYTES - 3;
        writer.write_all(b"one line too many\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one line too many\n");
        assert!(path.with_extension("log.1").exists());
    }
}
