//! The server dies while thousands of writes come in: what was acknowledged is there, containers never noticed.

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the server is killed, and how many writes are made at least; more by environment, for a long run.
fn size(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

const WRITERS: usize = 6;
/// ConfigMaps in one request's worth of manifest.
const BATCH: usize = 25;

pub fn loses_nothing(cluster: &Cluster) -> Result<()> {
    let (kills, writes) = (size("CRASH_KILLS", 8), size("CRASH_WRITES", 800));
    // Long enough that as many writes as wanted fall between the kills.
    let between = 150 + 4 * (writes / kills.max(1)) as u64;
    cluster.kubectl(&["create", "namespace", "crash"])?;
    let restarts =
        || cluster.field(&["-n", "services", "pods"], ".items[*].status.containerStatuses[*].restartCount");
    let ids =
        || cluster.field(&["-n", "services", "pods"], ".items[*].status.containerStatuses[*].containerID");
    let (before, running) = (restarts()?, ids()?);
    let stop = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| -> Result<Vec<String>> {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let stop = &stop;
                    move || write(cluster, writer, writes / WRITERS, stop)
                })
            })
            .collect();
        let killed = (0..kills).try_for_each(|round| {
            // An odd pause, so that kills fall anywhere in a write's way.
            std::thread::sleep(Duration::from_millis(between + (round as u64 * 137) % 400));
            kill(Pid::from_raw(cluster.pid()?), Signal::SIGKILL)?;
            cluster.start().map(|_| ()).with_context(|| format!("starting again after kill {round}"))
        });
        stop.store(true, Ordering::Relaxed);
        let mut names = Vec::new();
        for writer in writers {
            names.extend(writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?);
        }
        killed?;
        Ok(names)
    })?;
    let kept = cluster.kubectl(&[
        "-n",
        "crash",
        "get",
        "configmaps",
        "-o=jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}",
    ])?;
    let kept: std::collections::BTreeSet<&str> = kept.lines().collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !kept.contains(name.as_str())).collect();
    eprintln!("        {} acknowledged writes over {kills} kills", acknowledged.len());
    ensure!(acknowledged.len() >= BATCH, "hardly anything was written");
    ensure!(
        lost.is_empty(),
        "{} of {} acknowledged writes are lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    ensure!(restarts()? == before, "containers were restarted: {before} before, {} after", restarts()?);
    ensure!(ids()? == running, "containers were replaced");
    converges(cluster)?;
    cluster.kubectl(&["delete", "namespace", "crash", "--timeout=120s"]).map(|_| ())
}

/// Creates ConfigMaps by batches until enough are there or the killing is over; names what was acknowledged.
fn write(cluster: &Cluster, writer: usize, wanted: usize, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut next = 0;
    while acknowledged.len() < wanted && !stop.load(Ordering::Relaxed) {
        let names: Vec<String> = (next..next + BATCH).map(|at| format!("w{writer}-{at}")).collect();
        next += BATCH;
        let manifests: Vec<String> = names
            .iter()
            .map(|name| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: crash}}\ndata: {{key: value}}\n"))
            .collect();
        let path = std::env::temp_dir().join(format!("timonel-crash-{}-{writer}.yaml", std::process::id()));
        if std::fs::write(&path, manifests.join("---\n")).is_err() {
            break;
        }
        let mut command = cluster.kubectl_command(&["create", "--validate=false", "-o", "name", "-f"]);
        if let Ok(output) = command.arg(&path).output() {
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            acknowledged
                .extend(told.lines().filter_map(|line| line.strip_prefix("configmap/")).map(str::to_owned));
        }
        let _ = std::fs::remove_file(&path);
    }
    acknowledged
}

/// Controllers go on after all that.
fn converges(cluster: &Cluster) -> Result<()> {
    for replicas in ["2", "4"] {
        cluster.kubectl(&[
            "-n",
            "services",
            "scale",
            "deployment",
            "echo",
            &format!("--replicas={replicas}"),
        ])?;
        eventually(60, || {
            let ready = cluster.field(&["-n", "services", "deployment", "echo"], ".status.readyReplicas")?;
            ensure!(ready == replicas, "{ready} of {replicas} replicas are ready");
            Ok(())
        })?;
    }
    Ok(())
}
