//! From exec to ready: an empty API server, and one that was killed with many objects in its store.

use crate::args::Common;
use crate::drive::{histogram, record};
use crate::launch::{self, Files};
use crate::objects::Sort;
use crate::process::Processes;
use crate::run::{Latency, Row};
use crate::target::Target;
use crate::workloads::lists;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(clap::Args, Clone, Debug)]
pub struct BootArgs {
    /// The binary to start; by default this one
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Where the server keeps its data meanwhile
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub directory: PathBuf,
    /// Starts of an empty server, and restarts of a full one
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub boots: u32,
    /// Pods in the full one
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    pub pods: u64,
    /// How long an idle server's memory and processor time are looked at, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub idle_seconds: f64,
}

pub async fn run(common: &Common, args: &BootArgs) -> Result<Vec<Row>> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe().context("finding this binary")?,
    };
    let mut rows = Vec::new();
    let mut times = histogram();
    for boot in 0..args.boots {
        let folder = tempfile::Builder::new().prefix("bench-boot-").tempdir_in(&args.directory)?;
        let files = Files::write(folder.path(), launch::free_port()?, "timonel")?;
        let (target, process, time) = start(&binary, &files).await?;
        record(&mut times, time);
        if boot + 1 == args.boots {
            rows.push(row("exec to ready, empty", &times));
            rows.push(idle(&target, args).await);
        }
        drop(process);
    }
    rows.extend(full(common, args, &binary).await?);
    Ok(rows)
}

async fn start(binary: &std::path::Path, files: &Files) -> Result<(Target, launch::Process, Duration)> {
    let begun = Instant::now();
    let mut process = launch::timonel(binary, files, None)?;
    let target = files.target("timonel", Processes::of([process.id()]))?;
    let log = files.folder.join("kube-apiserver.log");
    let time = launch::until_ready(&target, &mut process, &log, begun).await?;
    Ok((target, process, time))
}

fn row(case: &str, times: &Histogram<u64>) -> Row {
    Row {
        workload: "boot".into(),
        case: case.into(),
        server: "timonel".into(),
        count: times.len(),
        per_second: 1e6 / times.mean().max(1.0),
        seconds: times.mean() * times.len() as f64 / 1e6,
        latency: Latency::of(times),
        ..Row::default()
    }
}

/// What a server costs that nobody asks anything.
async fn idle(target: &Target, args: &BootArgs) -> Row {
    let cpu = target.processes.cpu_micros();
    tokio::time::sleep(Duration::from_secs_f64(args.idle_seconds)).await;
    let used = target.processes.cpu_micros().saturating_sub(cpu);
    let mut row = Row {
        workload: "boot".into(),
        case: "idle API server".into(),
        server: target.label.clone(),
        count: 1,
        seconds: args.idle_seconds,
        ..Row::default()
    };
    row.facts.insert("core_percent".into(), used as f64 / 1e4 / args.idle_seconds.max(1e-3));
    row.with_memory(&target.processes)
}

async fn full(common: &Common, args: &BootArgs, binary: &std::path::Path) -> Result<Vec<Row>> {
    let folder = tempfile::Builder::new().prefix("bench-boot-").tempdir_in(&args.directory)?;
    let files = Files::write(folder.path(), launch::free_port()?, "timonel")?;
    let (target, mut process, _) = start(binary, &files).await?;
    let namespace = crate::clean::namespace(&target, "bench-boot").await?;
    lists::fill(&target.with_clients(common, 64)?, &namespace, args.pods).await?;
    let collection = Sort::Pod.collection(&namespace);
    let mut times = histogram();
    let mut rows = Vec::new();
    for _ in 0..args.boots {
        process.kill()?;
        let target;
        let time;
        (target, process, time) = start(binary, &files).await?;
        record(&mut times, time);
        let mut row = row(&format!("killed with {} pods, exec to ready", args.pods), &times);
        row.check("pods after the restart", target.count(&collection).await?, args.pods);
        rows = vec![row.with_memory(&target.processes)];
    }
    Ok(rows)
}
