//! Our servers beside upstream's on one machine: starts both on loopback, takes turns between them, writes the report.

use crate::args::{Args, Common};
use crate::launch::{self, Files, Process};
use crate::machine;
use crate::process::Processes;
use crate::report;
use crate::run::{self, Document, Latency, Row};
use crate::target::Target;
use anyhow::{Context, Result};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The rows that need an API server only; each is a command line of this bench.
const API: &[&str] = &[
    "verbs --objects pod --clients 1,32",
    "verbs --objects pod --clients 64 --encoding protobuf --verbs get,status",
    "verbs --objects configmap --clients 1,32 --verbs create,get,update,delete",
    "verbs --objects lease --clients 1,64 --verbs update",
    "verbs --objects service --clients 16 --verbs create",
    "watch --watchers 10,100 --scope all",
    "watch --watchers 1000 --scope node --pods 1000 --count 2000",
    "traffic --nodes 1000",
    "lists --pods 10000 --clients 1,10 --lists full,paged,node,table",
];
/// Those that need a scheduler, too.
const SCHEDULING: &[&str] = &[
    "scheduling --nodes 500 --pods 500 --cases basic,node-affinity,pod-affinity,pod-anti-affinity,topology-spread,unschedulable",
];
/// Those that need a controller manager.
const CONTROLLERS: &[&str] = &["namespace --maps 5000"];

#[derive(clap::Args, Clone, Debug)]
pub struct UpstreamArgs {
    /// Upstream's kube-apiserver
    #[arg(long, value_name = "FILE")]
    pub kube_apiserver: PathBuf,
    /// The etcd that it keeps objects in
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/etcd")]
    pub etcd: PathBuf,
    /// Upstream's kube-scheduler; without it scheduling is left out
    #[arg(long, value_name = "FILE")]
    pub kube_scheduler: Option<PathBuf>,
    /// Upstream's kube-controller-manager; without it namespaces are left out
    #[arg(long, value_name = "FILE")]
    pub kube_controller_manager: Option<PathBuf>,
    /// Our binary; by default this one
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Where both keep their data meanwhile
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/tmp")]
    pub directory: PathBuf,
    /// The processor that servers run on
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub server_cpu: usize,
    /// The processor that the load comes from
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub client_cpu: usize,
    /// The first of ports that are used: ten of them
    #[arg(long, value_name = "PORT", default_value_t = 21600)]
    pub port: u16,
    /// Only rows whose command line holds this text
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub only: String,
    /// Where the report goes
    #[arg(long, value_name = "DIRECTORY", default_value = "report")]
    pub out: PathBuf,
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

struct Side {
    label: &'static str,
    files: Files,
    log: PathBuf,
    processes: Vec<Process>,
    ready: Duration,
}

impl Side {
    fn target(&self) -> Result<Target> {
        self.files.target(self.label, Processes::of(self.processes.iter().map(Process::id)))
    }
}

/// Runs everything; `common` gives seconds, rounds and the JSON file.
pub async fn run(common: &Common, args: &UpstreamArgs) -> Result<()> {
    let rounds = common.rounds.unwrap_or(3);
    let folder = tempfile::Builder::new().prefix("bench-upstream-").tempdir_in(&args.directory)?;
    // Looked at before the load is bound: a bound process sees one processor only.
    let mut document = Document::begin();
    run::pin(args.client_cpu)?;
    let ours = args.binary.clone().map_or_else(std::env::current_exe, Ok).context("finding this binary")?;
    let mut sides = [
        start_upstream(args, folder.path()).await.context("starting upstream's servers")?,
        start_ours(args, &ours, folder.path()).await.context("starting our server")?,
    ];
    document.rows.extend(idle(&sides).await?);
    document.rows.extend(turns(&sides, common, args, API, rounds).await?);
    if let Some(scheduler) = &args.kube_scheduler {
        start_component(&mut sides, args, [scheduler, &ours], "kube-scheduler")?;
        document.rows.extend(turns(&sides, common, args, SCHEDULING, rounds).await?);
        for side in &mut sides {
            side.processes.pop();
        }
    }
    if let Some(manager) = &args.kube_controller_manager {
        start_component(&mut sides, args, [manager, &ours], "kube-controller-manager")?;
        document.rows.extend(turns(&sides, common, args, CONTROLLERS, rounds).await?);
    }
    drop(sides);
    document.machine.load_after = machine::load();
    let result = run::finish(common, &document, true);
    for (name, text) in report::page("Timonel beside upstream", std::slice::from_ref(&document)) {
        std::fs::create_dir_all(&args.out)?;
        std::fs::write(args.out.join(name), text)?;
    }
    result
}

/// Every line on every server, so many times over, the servers in turns.
async fn turns(
    sides: &[Side],
    common: &Common,
    args: &UpstreamArgs,
    lines: &[&str],
    rounds: u32,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in lines.iter().filter(|line| line.contains(&args.only)) {
        for round in 1..=rounds {
            for side in sides {
                let words = std::iter::once("bench").chain(line.split(' '));
                let own = Line::try_parse_from(words).context("a row's command line")?.args;
                let own_common = Common { seconds: common.seconds, ..own.common };
                eprintln!("round {round}, {}: {line}", side.label);
                let measured = run::run_on(&side.target()?, &own_common, &own.workload).await;
                match measured {
                    Ok(measured) => rows.extend(measured.into_iter().map(|row| Row { round, ..row })),
                    // One row that cannot be measured leaves the others theirs, and fails the command at the end.
                    Err(error) => rows.push(Row {
                        workload: own_name(line),
                        case: (*line).into(),
                        server: side.label.into(),
                        round,
                        faults: vec![format!("{error:#}")],
                        ..Row::default()
                    }),
                }
            }
        }
    }
    Ok(rows)
}

fn own_name(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().into()
}

/// What both cost while nobody asks anything; and how long they took to become ready.
async fn idle(sides: &[Side]) -> Result<Vec<Row>> {
    const LOOK: Duration = Duration::from_secs(10);
    let targets: Vec<Target> = sides.iter().map(Side::target).collect::<Result<_>>()?;
    let before: Vec<u64> = targets.iter().map(|target| target.processes.cpu_micros()).collect();
    tokio::time::sleep(LOOK).await;
    let mut rows = Vec::new();
    for ((side, target), before) in sides.iter().zip(&targets).zip(before) {
        let used = target.processes.cpu_micros().saturating_sub(before);
        let micros = side.ready.as_micros() as u64;
        let mut row = Row {
            workload: "boot".into(),
            case: "exec to ready, then idle".into(),
            server: side.label.into(),
            round: 1,
            count: 1,
            seconds: side.ready.as_secs_f64(),
            per_second: 1.0 / side.ready.as_secs_f64(),
            latency: Some(Latency { p50: micros, p90: micros, p99: micros, max: micros }),
            ..Row::default()
        };
        row.facts.insert("idle_core_percent".into(), used as f64 / LOOK.as_micros() as f64 * 100.0);
        rows.push(row.with_memory(&target.processes));
    }
    Ok(rows)
}

async fn start_upstream(args: &UpstreamArgs, folder: &Path) -> Result<Side> {
    let folder = folder.join("upstream");
    std::fs::create_dir(&folder)?;
    let files = Files::write(&folder, args.port, "upstream")?;
    let (client, peer) = (args.port + 1, args.port + 2);
    let begun = Instant::now();
    let mut etcd = Command::new(&args.etcd);
    etcd.arg(format!("--data-dir={}", folder.join("etcd").display()))
        .arg(format!("--listen-client-urls=http://127.0.0.1:{client}"))
        .arg(format!("--advertise-client-urls=http://127.0.0.1:{client}"))
        .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
        .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
        .arg(format!("--initial-cluster=default=http://127.0.0.1:{peer}"))
        .arg("--quota-backend-bytes=8589934592");
    let etcd = Process::start(&mut etcd, &folder.join("etcd.log"), Some(args.server_cpu))?;
    let mut server = Command::new(&args.kube_apiserver);
    server.args(files.apiserver_flags()).arg(format!("--etcd-servers=http://127.0.0.1:{client}"));
    let log = folder.join("kube-apiserver.log");
    let server = Process::start(&mut server, &log, Some(args.server_cpu))?;
    let mut side =
        Side { label: "upstream", files, log, processes: vec![etcd, server], ready: Duration::ZERO };
    let target = side.target()?;
    side.ready = launch::until_ready(&target, &mut side.processes[1], &side.log, begun).await?;
    Ok(side)
}

async fn start_ours(args: &UpstreamArgs, binary: &Path, folder: &Path) -> Result<Side> {
    let folder = folder.join("timonel");
    std::fs::create_dir(&folder)?;
    let files = Files::write(&folder, args.port + 3, "timonel")?;
    let log = folder.join("kube-apiserver.log");
    let begun = Instant::now();
    let server = launch::timonel(binary, &files, Some(args.server_cpu))?;
    let mut side = Side { label: "timonel", files, log, processes: vec![server], ready: Duration::ZERO };
    let target = side.target()?;
    side.ready = launch::until_ready(&target, &mut side.processes[0], &side.log, begun).await?;
    Ok(side)
}

/// Starts a component on both sides: upstream's own binary, and ours under its name.
fn start_component(
    sides: &mut [Side; 2],
    args: &UpstreamArgs,
    binaries: [&PathBuf; 2],
    name: &str,
) -> Result<()> {
    for (index, (side, binary)) in sides.iter_mut().zip(binaries).enumerate() {
        let mut command = Command::new(binary);
        if side.label == "timonel" {
            command.arg(name);
        }
        command.arg(format!("--kubeconfig={}", side.files.kubeconfig.display())).arg("--leader-elect=false");
        if name == "kube-scheduler" || side.label == "upstream" {
            command
                .arg(format!("--secure-port={}", args.port + 4 + index as u16))
                .arg("--bind-address=127.0.0.1");
        }
        if name == "kube-controller-manager" {
            let key = side.files.folder.join("sa.key");
            command.arg(format!("--service-account-private-key-file={}", key.display()));
        }
        if side.label == "upstream" {
            command.arg(format!("--cert-dir={}", side.files.folder.join("certificates").display()));
        }
        let log = side.files.folder.join(format!("{name}.log"));
        side.processes.push(Process::start(&mut command, &log, Some(args.server_cpu))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_command_line() {
        for line in API.iter().chain(SCHEDULING).chain(CONTROLLERS) {
            let words = std::iter::once("bench").chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
