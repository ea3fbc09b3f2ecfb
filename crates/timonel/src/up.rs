//! `timonel up`: a server in the background, its stages told as they happen; and `timonel down`, which ends it.

use crate::layout::{Layout, private_dir};
use crate::progress::READY;
use crate::running::{Running, alive};
use crate::server::ServerArgs;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to end on its own.
const STOP_SECONDS: u64 = 30;

/// Starts a server that outlives this process, unless one runs already, and waits until the cluster is ready.
pub fn up(layout: &Layout, server: &ServerArgs) -> Result<()> {
    if let Some(running) = Running::find(layout) {
        println!("Timonel {} is already up (process {}): nothing to do.", running.version, running.pid);
        tell_how_to_begin(&running);
        return Ok(());
    }
    private_dir(&layout.data_dir)?;
    private_dir(&layout.run_dir)?;
    private_dir(&layout.logs())?;
    let complaints = layout.logs().join("server.stderr");
    let stderr =
        std::fs::File::create(&complaints).with_context(|| format!("creating {}", complaints.display()))?;
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.arg("server").arg("--data-dir").arg(&layout.data_dir).arg("--run-dir").arg(&layout.run_dir);
    command.args(server.to_flags());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    // SAFETY: setsid is async-signal-safe, and the child touches nothing else before it runs the program.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
    let mut child = command.spawn().context("starting the server")?;
    let stages = child.stdout.take().context("the server's output is piped")?;
    for line in BufReader::new(stages).lines() {
        let line = line.context("listening to the server")?;
        if line == READY {
            if let Some(running) = Running::find(layout) {
                tell_how_to_begin(&running);
            }
            return Ok(());
        }
        println!("{line}");
    }
    let status = child.wait().context("waiting for the server")?;
    let said = std::fs::read_to_string(&complaints).unwrap_or_default();
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
    bail!("the server ended before it was ready ({status}): {}", last.trim_start_matches("timonel: "))
}

fn tell_how_to_begin(running: &Running) {
    println!();
    println!("  export KUBECONFIG={}", running.kubeconfig.display());
    println!("  kubectl apply -f examples/shop.yaml && kubectl -n shop get pods -w");
}

/// Ends the server, then the pods and the network it made. State stays.
pub fn down(layout: &Layout) -> Result<()> {
    match Running::find(layout) {
        Some(running) => {
            stop(running.pid)?;
            println!("Stopped the server (process {}).", running.pid);
        }
        None => println!("No server runs on {}.", layout.data_dir.display()),
    }
    crate::reset::stop_node(layout)?;
    Ok(())
}

/// Asks a process to end, and insists when it does not.
fn stop(pid: i32) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    let target = nix::unistd::Pid::from_raw(pid);
    kill(target, Signal::SIGTERM).with_context(|| format!("stopping process {pid}"))?;
    let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
    while alive(pid) {
        if Instant::now() > deadline {
            kill(target, Signal::SIGKILL).with_context(|| format!("killing process {pid}"))?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
