//! Durable transactions of a store, ours in this process or an etcd over the network, beside what the disk can do.

use crate::args::Common;
use crate::drive::{Load, Measured, drive, histogram, record};
use crate::process::Processes;
use crate::run::{Latency, Row};
use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Compare, Op, Store, Txn};

/// The file that the disk's rate is measured on: preallocated, overwritten in turns.
const FILE_BYTES: usize = 16 << 20;
/// Keys of each writer: created once, overwritten from then on.
const KEYS: u64 = 1000;

#[derive(clap::Args, Clone, Debug)]
pub struct StoreArgs {
    /// Where the store is made; it is removed afterwards
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub directory: PathBuf,
    /// Measure this etcd instead of the embedded store; its processes by --server-pid
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd: Vec<String>,
    /// Writers at a time
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,64,256")]
    pub clients: Vec<usize>,
    /// Bytes of each value
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    pub size: usize,
    /// No more transactions than these in a case
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    pub count: u64,
}

pub async fn run(common: &Common, args: &StoreArgs) -> Result<Vec<Row>> {
    let folder = tempfile::Builder::new()
        .prefix("bench-store-")
        .tempdir_in(&args.directory)
        .with_context(|| format!("making a folder in {}", args.directory.display()))?;
    let mut rows = Vec::new();
    for size in [4 << 10, 64 << 10] {
        rows.push(syncs(folder.path(), size, args.count, common.length())?);
    }
    let servers = if args.etcd.is_empty() {
        Processes::of([std::process::id()])
    } else {
        Processes::parse(&common.server_pid.join(","))?
    };
    for clients in &args.clients {
        let path = folder.path().join(format!("store-{clients}"));
        let store: Arc<dyn Store> = if args.etcd.is_empty() {
            store::open_embedded(&path)?
        } else {
            store::connect_etcd(&args.etcd, None)?
        };
        let load = Load { clients: *clients, count: args.count, length: common.length(), rate: None };
        rows.push(load_store(store, &load, args, &servers).await?);
        if args.etcd.is_empty() {
            rows.push(reopen(&path, args).await?);
        }
    }
    Ok(rows)
}

/// Overwrites a preallocated file in steps of `size`, syncing each.
fn syncs(folder: &Path, size: usize, count: u64, length: Duration) -> Result<Row> {
    let path = folder.join("syncs");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    file.write_all_at(&vec![0; FILE_BYTES], 0)?;
    file.sync_all()?;
    let data = vec![7; size];
    let (mut latency, begun) = (histogram(), Instant::now());
    while begun.elapsed() < length && latency.len() < count {
        let start = Instant::now();
        let at = (usize::try_from(latency.len())? * size) % FILE_BYTES;
        file.write_all_at(&data, at as u64)?;
        file.sync_data()?;
        record(&mut latency, start.elapsed());
    }
    std::fs::remove_file(&path)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Row {
        workload: "store".into(),
        case: format!("disk: overwrite {} KiB and fdatasync", size >> 10),
        server: "disk".into(),
        count: latency.len(),
        seconds,
        per_second: latency.len() as f64 / seconds,
        latency: Latency::of(&latency),
        ..Row::default()
    })
}

async fn load_store(
    store: Arc<dyn Store>,
    load: &Load,
    args: &StoreArgs,
    servers: &Processes,
) -> Result<Row> {
    let (clients, size) = (load.clients as u64, args.size);
    let run = crate::clean::unique("run");
    let before = store.revision().await?;
    let written = store.clone();
    let measured: Measured = drive(load, servers, "writing transactions", move |number| {
        let (store, run) = (written.clone(), run.clone());
        async move {
            let turn = number / clients;
            let key = format!("/registry/configmaps/{run}/{}-{}", number % clients, turn % KEYS);
            let compares = if turn < KEYS { vec![Compare::absent(key.clone())] } else { Vec::new() };
            let txn = Txn {
                compares,
                success: vec![Op::put(key.clone(), vec![b'v'; size])],
                failure: vec![Op::get(key)],
            };
            anyhow::ensure!(store.txn(txn).await?.succeeded, "a transaction's condition failed");
            Ok(())
        }
    })
    .await;
    let after = store.revision().await?;
    let name = if args.etcd.is_empty() { "embedded" } else { "etcd" };
    let seconds = measured.elapsed.as_secs_f64();
    let mut row = Row {
        workload: "store".into(),
        case: format!("durable transactions of {size} B, x{clients}"),
        server: name.into(),
        count: measured.count,
        failed: measured.failed,
        seconds,
        per_second: measured.count as f64 / seconds,
        latency: Latency::of(&measured.latency),
        ..Row::default()
    };
    if measured.failed > 0 {
        row.faults.push(measured.failures.join("; "));
    }
    row.check("revisions", u64::try_from(after - before).unwrap_or(0), measured.count);
    if !servers.is_empty() {
        row.cpu_micros = Some(measured.cpu_micros as f64 / measured.count.max(1) as f64);
    }
    Ok(row.with_memory(servers))
}

/// How long a store takes to open again, and whether all is there.
async fn reopen(path: &Path, args: &StoreArgs) -> Result<Row> {
    let bytes = size_of(path)?;
    let begun = Instant::now();
    let store = store::open_embedded(path)?;
    let revision = store.revision().await?;
    let elapsed = begun.elapsed();
    let mut latency = histogram();
    record(&mut latency, elapsed);
    let count = u64::try_from(revision).unwrap_or(0);
    let mut row = Row {
        workload: "store".into(),
        case: format!("open again after transactions of {} B", args.size),
        server: "embedded".into(),
        count,
        seconds: elapsed.as_secs_f64(),
        per_second: count as f64 / elapsed.as_secs_f64(),
        latency: Latency::of(&latency),
        ..Row::default()
    };
    row.facts.insert("file_mib".into(), bytes as f64 / f64::from(1 << 20));
    Ok(row)
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
