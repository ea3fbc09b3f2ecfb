//! From a command line to rows: opens the servers, takes turns between them, prints, writes, and fails where counts do.

use crate::args::{Args, Common, Workload};
use crate::drive::Measured;
use crate::machine::{self, Machine};
use crate::process::{Memory, Processes};
use crate::target::Target;
use crate::{compare, report, table, upstream, workloads};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rounds of a comparison, unless told otherwise.
const ROUNDS_COMPARED: u32 = 3;

/// One measured case of one server in one round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub workload: String,
    pub case: String,
    pub server: String,
    pub round: u32,
    /// Operations that succeeded, and those that did not.
    pub count: u64,
    pub failed: u64,
    pub seconds: f64,
    pub per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub latency: Option<Latency>,
    /// The server's processor time for each operation, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_micros: Option<f64>,
    /// The server's memory at the end, and the most it was during the case.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resident_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_mib: Option<f64>,
    /// Further figures; their names end in their unit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub facts: BTreeMap<String, f64>,
    /// Counts that are not what they must be. A row with faults is worth nothing.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub faults: Vec<String>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub max: u64,
}

impl Latency {
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        Some(Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: histogram.max() })
    }
}

impl Row {
    /// A row of what was driven.
    pub fn of(workload: &str, case: String, target: &Target, measured: &Measured) -> Self {
        let seconds = measured.elapsed.as_secs_f64();
        let mut row = Row {
            workload: workload.into(),
            case,
            server: target.label.clone(),
            count: measured.count,
            failed: measured.failed,
            seconds,
            per_second: measured.count as f64 / seconds.max(1e-9),
            latency: Latency::of(&measured.latency),
            ..Row::default()
        };
        if measured.failed > 0 {
            row.faults.push(format!("{} failed, such as: {}", measured.failed, measured.failures.join("; ")));
        }
        if !target.processes.is_empty() && measured.count > 0 {
            row.cpu_micros = Some(measured.cpu_micros as f64 / measured.count as f64);
        }
        row.with_memory(&target.processes)
    }

    /// With the memory that the server has now.
    pub fn with_memory(mut self, processes: &Processes) -> Self {
        if !processes.is_empty() {
            let Memory { resident_mib, peak_mib } = processes.memory();
            self.resident_mib = Some(resident_mib);
            self.peak_mib = Some(peak_mib);
        }
        self
    }

    /// Notes a count that must be another.
    pub fn check(&mut self, what: &str, is: u64, must: u64) {
        if is != must {
            self.faults.push(format!("{what}: {is} instead of {must}"));
        }
    }
}

/// What is written to a file: rows, and what they were measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub version: String,
    pub began: String,
    pub command: String,
    pub machine: Machine,
    pub rows: Vec<Row>,
}

impl Document {
    /// A document of what begins now, on this machine, by this command.
    pub fn begin() -> Self {
        Document {
            version: env!("CARGO_PKG_VERSION").into(),
            began: crate::objects::now(),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: Machine::look(),
            rows: Vec::new(),
        }
    }
}

/// Does what the command line says.
pub async fn run(args: Args) -> Result<()> {
    if let Workload::Report(args) = &args.workload {
        return report::render(args);
    }
    if let Some(cpu) = args.common.pin {
        pin(cpu)?;
    }
    if let Workload::CompareUpstream(own) = &args.workload {
        return upstream::run(&args.common, own).await;
    }
    let mut document = Document::begin();
    let (targets, rounds) = targets(&args)?;
    for round in 1..=rounds {
        if targets.is_empty() {
            extend(&mut document.rows, alone(&args).await?, round);
        }
        for target in &targets {
            let rows = run_on(target, &args.common, &args.workload)
                .await
                .with_context(|| format!("measuring {}", target.label))?;
            extend(&mut document.rows, rows, round);
        }
    }
    document.machine.load_after = machine::load();
    finish(&args.common, &document, targets.len() > 1)
}

fn extend(rows: &mut Vec<Row>, more: Vec<Row>, round: u32) {
    rows.extend(more.into_iter().map(|row| Row { round, ..row }));
}

/// Prints the table, writes the file, and fails where a count does.
pub fn finish(common: &Common, document: &Document, compared: bool) -> Result<()> {
    print!("{}", table::rows(&document.rows));
    if compared {
        print!("\n{}", table::ratios(&compare::ratios(&document.rows)));
    }
    if let Some(path) = &common.json {
        std::fs::write(path, serde_json::to_string_pretty(document)? + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let faults: Vec<String> = document
        .rows
        .iter()
        .flat_map(|row| row.faults.iter().map(move |fault| format!("{}: {}: {fault}", row.server, row.case)))
        .collect();
    if !faults.is_empty() {
        bail!("{} counts are wrong:\n{}", faults.len(), faults.join("\n"));
    }
    Ok(())
}

/// One workload on one server.
pub async fn run_on(target: &Target, common: &Common, workload: &Workload) -> Result<Vec<Row>> {
    match workload {
        Workload::Verbs(args) => workloads::verbs::run(target, common, args).await,
        Workload::Lists(args) => workloads::lists::run(target, common, args).await,
        Workload::Watch(args) => workloads::watches::run(target, common, args).await,
        Workload::Traffic(args) => workloads::traffic::run(target, common, args).await,
        Workload::Namespace(args) => workloads::namespaces::run(target, common, args).await,
        Workload::Scheduling(args) => workloads::scheduling::run(target, common, args).await,
        Workload::Store(_) | Workload::Boot(_) | Workload::CompareUpstream(_) | Workload::Report(_) => {
            bail!("this measures no running server")
        }
    }
}

/// A workload that starts for itself what it measures.
async fn alone(args: &Args) -> Result<Vec<Row>> {
    match &args.workload {
        Workload::Store(own) => workloads::store::run(&args.common, own).await,
        Workload::Boot(own) => workloads::boot::run(&args.common, own).await,
        _ => bail!("name the server with --kubeconfig, or two with --compare"),
    }
}

fn targets(args: &Args) -> Result<(Vec<Target>, u32)> {
    let common = &args.common;
    let files: Vec<_> = common.kubeconfig.iter().chain(&common.compare).collect();
    let rounds = common.rounds.unwrap_or(if files.len() > 1 { ROUNDS_COMPARED } else { 1 });
    if matches!(args.workload, Workload::Store(_) | Workload::Boot(_)) {
        return Ok((Vec::new(), rounds));
    }
    let mut targets = Vec::new();
    for (index, file) in files.iter().enumerate() {
        // Of one server all processes count, however often the flag is given.
        let pids = match files.len() {
            1 => common.server_pid.join(","),
            _ => common.server_pid.get(index).cloned().unwrap_or_default(),
        };
        targets.push(Target::open(file, common, Processes::parse(&pids)?)?);
    }
    if let [first, second] = &mut targets[..]
        && first.label == second.label
    {
        (first.label, second.label) = ("A".into(), "B".into());
    }
    Ok((targets, rounds))
}

/// Binds this process, and the threads that it starts from here on, to one processor.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).with_context(|| format!("--pin {cpu}"))?;
    // The runtime's threads are there already: each is bound.
    for task in std::fs::read_dir("/proc/self/task")? {
        let id = task?.file_name().to_string_lossy().parse::<i32>().context("a thread's id")?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(id), &set)
            .with_context(|| format!("--pin {cpu}"))?;
    }
    Ok(())
}
