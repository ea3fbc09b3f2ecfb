//! The one binary: a cluster in one command, and every component alone under its upstream name.
mod addons;
mod components;
mod layout;
mod logging;
mod logs;
mod node;
mod pod_network;
mod progress;
mod reset;
mod running;
mod server;
mod standalone;
mod status;
mod up;

use clap::{Parser, Subcommand};
use layout::Layout;
use std::path::Path;
use std::process::ExitCode;

/// Kubernetes 1.36 in one binary.
#[derive(Parser)]
#[command(name = "timonel", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    layout: Layout,
    #[command(subcommand)]
    command: Command,
}

/// One is made in the life of the process, so its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine, in the background.
    Up(server::ServerArgs),
    /// Stop the cluster and its pods; state stays.
    Down,
    /// Say what runs.
    Status(status::StatusArgs),
    /// Show what a component has said.
    Logs(logs::LogsArgs),
    /// Stop the cluster and remove all that it ever made on this machine.
    Reset,
    /// Run control plane and node in the foreground.
    Server(server::ServerArgs),
    /// Run a node of a cluster whose control plane runs elsewhere.
    Agent(node::AgentArgs),
    /// Write a kubeconfig and certificates with which another machine can be a node.
    NodeCredentials(node::CredentialArgs),
    /// Load an image archive into this node's runtime.
    ImportImage(node::ImportArgs),
    /// Upstream's kube-apiserver.
    KubeApiserver(kube_apiserver::Options),
    /// Upstream's kube-controller-manager.
    KubeControllerManager(standalone::With<kube_controller_manager::Options>),
    /// Upstream's kube-scheduler.
    KubeScheduler(standalone::With<kube_scheduler::Options>),
    /// Upstream's kubelet.
    Kubelet(standalone::With<kubelet::Options>),
    /// Upstream's kube-proxy.
    KubeProxy(standalone::With<kube_proxy::Options>),
    /// The cluster's DNS, alone.
    ClusterDns(standalone::With<cluster_dns::Options>),
    /// Simulate what is too large to be real.
    #[command(subcommand)]
    Sim(Sim),
    /// Measure an API server, or what stands behind it.
    Bench(bench::Args),
    /// The network plugin, as a container runtime calls it.
    #[command(hide = true)]
    Cni,
}

#[derive(Subcommand)]
enum Sim {
    /// Join simulated nodes to a cluster.
    Nodes(sim::NodesArgs),
}

/// Names under which the binary can be called to be that component.
const OWN_NAMES: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "cluster-dns",
    "cni",
];

/// containerd calls every sandbox's first plugin by this name; ours serves for it.
const LOOPBACK: &str = "loopback";

/// The arguments, with the component's name put in front where the program was called by it.
fn arguments() -> Vec<std::ffi::OsString> {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let called = arguments.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let called = called.map(|name| name.trim_start_matches("timonel-").to_string()).unwrap_or_default();
    if called == LOOPBACK {
        arguments.insert(1, "cni".into());
    } else if OWN_NAMES.contains(&called.as_str()) {
        arguments.insert(1, called.into());
    }
    arguments
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments());
    // Every TLS connection of this process uses one provider of cryptography; installing it twice is no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("timonel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let layout = &cli.layout;
    match cli.command {
        Command::Up(args) => up::up(layout, &args)?,
        Command::Down => up::down(layout)?,
        Command::Status(args) => return standalone::block_on(status::status(layout, &args)),
        Command::Logs(args) => logs::logs(layout, &args)?,
        Command::Reset => reset::reset(layout)?,
        Command::Server(args) => standalone::block_on(server::run(layout, &args))?,
        Command::Agent(args) => standalone::block_on(node::agent(layout, &args))?,
        Command::NodeCredentials(args) => node::credentials(layout, &args)?,
        Command::ImportImage(args) => standalone::block_on(node::import(layout, &args))?,
        Command::KubeApiserver(options) => standalone::apiserver(options)?,
        Command::KubeControllerManager(with) => standalone::run(with, kube_controller_manager::run)?,
        Command::KubeScheduler(with) => standalone::run(with, kube_scheduler::run)?,
        Command::Kubelet(with) => standalone::run(with, kubelet::run)?,
        Command::KubeProxy(with) => standalone::run(with, kube_proxy::run)?,
        Command::ClusterDns(with) => standalone::run(with, cluster_dns::run)?,
        Command::Sim(Sim::Nodes(args)) => standalone::simulate(args)?,
        Command::Bench(args) => standalone::block_on(bench::run(args))?,
        Command::Cni => return Ok(ExitCode::from(net::cni::main() as u8)),
    }
    Ok(ExitCode::SUCCESS)
}
