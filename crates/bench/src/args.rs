//! The command line: what every workload takes, and the workloads.

use crate::workloads;
use std::path::PathBuf;
use std::time::Duration;

/// Measures a Kubernetes API server, or what stands behind it.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub workload: Workload,
}

/// What every workload takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// The server to measure
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Two servers to measure in turns
    #[arg(long, global = true, num_args = 2, value_names = ["A", "B"], conflicts_with = "kubeconfig")]
    pub compare: Vec<PathBuf>,
    /// How often everything is done; with --compare the servers take turns. 3 with --compare, otherwise 1
    #[arg(long, global = true, value_name = "N")]
    pub rounds: Option<u32>,
    /// Processes of the server, whose CPU time and memory are counted; once for each server under --compare
    #[arg(long, global = true, value_name = "PID[,PID..]")]
    pub server_pid: Vec<String>,
    /// How long each case runs, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5.0)]
    pub seconds: f64,
    /// TCP connections; by default one for every 8 clients
    #[arg(long, global = true, value_name = "N")]
    pub connections: Option<usize>,
    /// HTTP's version: 2, or 1 for HTTP/1.1
    #[arg(long, global = true, value_name = "VERSION", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub http: u8,
    /// Write the results to this file, too
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Run on this processor only
    #[arg(long, global = true, value_name = "CPU")]
    pub pin: Option<usize>,
}

impl Common {
    /// How long each case runs.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

impl Default for Common {
    fn default() -> Self {
        Common {
            kubeconfig: None,
            compare: Vec::new(),
            rounds: None,
            server_pid: Vec::new(),
            seconds: 5.0,
            connections: None,
            http: 2,
            json: None,
            pin: None,
        }
    }
}

/// What can be measured.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Workload {
    /// Create, get, update, patch and delete objects
    Verbs(workloads::VerbsArgs),
    /// List many pods: whole, in pages, selected
    Lists(workloads::ListsArgs),
    /// Deliver each change to many watchers
    Watch(workloads::WatchArgs),
    /// The steady traffic of a cluster: leases, status, events
    Traffic(workloads::TrafficArgs),
    /// Delete a namespace full of objects (needs a controller manager)
    Namespace(workloads::NamespaceArgs),
    /// Pods from creation to bound (needs a scheduler)
    Scheduling(workloads::SchedulingArgs),
    /// Durable writes of a store, beside the disk's own rate
    Store(workloads::StoreArgs),
    /// Start the API server of this binary: empty, and over many objects after being killed
    Boot(workloads::BootArgs),
    /// Measure our servers beside upstream's, which are started for it
    CompareUpstream(crate::upstream::UpstreamArgs),
    /// Turn result files into a page with plots
    Report(crate::report::ReportArgs),
}
