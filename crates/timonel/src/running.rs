//! What is known of a server that runs: written by it, read by `status`, `logs`, `down` and `reset`.

use crate::layout::Layout;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    pub pid: i32,
    pub version: String,
    pub server: String,
    pub kubeconfig: PathBuf,
    pub data_dir: PathBuf,
    pub components: Vec<String>,
    pub node: Option<String>,
}

impl Running {
    /// The server that runs on this layout, if one does.
    pub fn find(layout: &Layout) -> Option<Running> {
        let text = std::fs::read(layout.running()).ok()?;
        let running: Running = serde_json::from_slice(&text).ok()?;
        alive(running.pid).then_some(running)
    }

    pub fn write(&self, layout: &Layout) -> Result<()> {
        let path = layout.running();
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", fresh.display()))?;
        std::fs::rename(&fresh, &path).with_context(|| format!("writing {}", path.display()))
    }
}

/// `PF_EXITING` among the flags in `/proc/PID/stat`: the kernel is taking the process apart.
const EXITING: u64 = 0x4;
/// SIGKILL among the pending signals in `/proc/PID/status`.
const KILLED: u64 = 1 << 8;

/// Whether `pid` is a process of this program, neither one that was given its number later nor one that is dying.
pub fn alive(pid: i32) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    program.ends_with(b"timonel") && !dying(pid)
}

fn dying(pid: i32) -> bool {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (stat, status) = (read("stat"), read("status"));
    // Behind the name in brackets: state, five numbers, flags.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ended = matches!(fields.first(), None | Some(&("Z" | "X")));
    let flags: u64 = fields.get(6).and_then(|text| text.parse().ok()).unwrap_or(EXITING);
    let pending = status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
    let killed = pending
        .filter_map(|line| u64::from_str_radix(line.rsplit('\t').next()?.trim(), 16).ok())
        .any(|signals| signals & KILLED != 0);
    ended || flags & EXITING != 0 || killed
}

/// Only one server may use a data directory: the lock lasts as long as the process.
pub struct Lock {
    _file: Flock<std::fs::File>,
}

/// A server that was killed holds its lock until the kernel has taken it apart.
const DYING_HOLDER: Duration = Duration::from_secs(5);

impl Lock {
    pub fn take(layout: &Layout) -> Result<Lock> {
        let path = layout.lock();
        let open = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let mut file = open.with_context(|| format!("opening {}", path.display()))?;
        let deadline = Instant::now() + DYING_HOLDER;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Lock { _file: file }),
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, error)) => return Err(error).with_context(|| format!("locking {}", path.display())),
            };
            let holder = Running::find(layout);
            if holder.is_some() || Instant::now() > deadline {
                let holder = holder.map_or_else(String::new, |running| format!(" (process {})", running.pid));
                anyhow::bail!(
                    "another server{holder} uses {}: stop it with `timonel down`, or name another directory with --data-dir",
                    layout.data_dir.display()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
