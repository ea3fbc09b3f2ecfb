//! A node apart from its control plane: the credentials it needs, and running it with them.

use crate::components::{self, NodeClients, NodeSettings};
use crate::layout::{Layout, private_dir};
use crate::logging;
use crate::progress::Progress;
use crate::running::Lock;
use anyhow::{Context, Result, bail};
use client::Client;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// The kubeconfigs of a node's components, each `<name>.kubeconfig` in the data directory.
const KUBECONFIGS: &[(&str, &str, &[&str])] = &[
    ("kube-proxy", "system:kube-proxy", &[]),
    (
        "cluster-dns",
        "system:serviceaccount:kube-system:coredns",
        &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
    ),
];

#[derive(Clone, Debug, clap::Args)]
pub struct AgentArgs {
    /// The node's name, as its credentials state it; the host's name where none is given.
    #[arg(long)]
    pub node_name: Option<String>,
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: String,
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    #[arg(long, default_value = "10.96.0.10")]
    pub cluster_dns: Ipv4Addr,
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
}

/// Runs a node with the credentials in the data directory, until a signal comes.
pub async fn agent(layout: &Layout, args: &AgentArgs) -> Result<()> {
    let progress = Progress::begin();
    if !nix::unistd::geteuid().is_root() {
        bail!("a node needs root, for namespaces, mounts and nftables: run it as root");
    }
    private_dir(&layout.run_dir)?;
    let _lock = Lock::take(layout)?;
    let host =
        nix::unistd::gethostname().context("reading the host's name")?.to_string_lossy().to_lowercase();
    let clients = NodeClients {
        kubelet: client(layout, "kubelet")?,
        proxy: client(layout, "kube-proxy")?,
        dns: client(layout, "cluster-dns")?,
    };
    logging::to_files(&layout.logs())?;
    let settings = NodeSettings {
        name: args.node_name.clone().unwrap_or(host),
        ip: args.node_ip.or_else(crate::server::outward_address).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        cluster_dns: args.cluster_dns,
        cluster_domain: args.cluster_domain.clone(),
        cluster_cidr: args.cluster_cidr.clone(),
        service_cidr: args.service_cluster_ip_range.clone(),
        container_runtime_endpoint: args.container_runtime_endpoint.clone(),
    };
    let shutdown = CancellationToken::new();
    let components = components::node(layout, &settings, clients, |_| Ok(Vec::new()))?;
    let tasks: Vec<_> = components
        .into_iter()
        .map(|component| components::supervise(component, shutdown.child_token()))
        .collect();
    progress.stage(&format!("node {} started", settings.name));
    progress.ready();
    crate::standalone::signalled().await?;
    shutdown.cancel();
    for task in tasks {
        // A task that panicked has ended too.
        let _ = task.await;
    }
    Ok(())
}

fn client(layout: &Layout, component: &str) -> Result<Client> {
    let path = layout.data_dir.join(format!("{component}.kubeconfig"));
    Client::from_kubeconfig(&path).with_context(|| {
        format!(
            "reading {}: make it with `timonel node-credentials` where the control plane runs",
            path.display()
        )
    })
}

#[derive(Clone, Debug, clap::Args)]
pub struct CredentialArgs {
    /// The node's name.
    pub name: String,
    /// The API server's URL as the node reaches it.
    #[arg(long)]
    pub server: String,
    /// Addresses and names by which the node's kubelet is reached.
    #[arg(long, value_delimiter = ',', required = true)]
    pub address: Vec<String>,
    /// The folder to write: the node's data directory, to be copied there.
    #[arg(long, short)]
    pub output: PathBuf,
}

/// Signs a node's credentials with the cluster's authority, which lies in this machine's data directory.
pub fn credentials(layout: &Layout, args: &CredentialArgs) -> Result<()> {
    let files = pki::cluster::Layout::new(&layout.data_dir);
    if !files.ca_key().exists() {
        bail!(
            "no authority in {}: run this where the control plane runs, or name its --data-dir",
            layout.data_dir.display()
        );
    }
    let authority = pki::Authority::open_or_create(&files.pki, "ca", "kubernetes-ca")?;
    let there = pki::cluster::Layout::new(&args.output);
    private_dir(&there.pki)?;
    std::fs::copy(files.ca_cert(), there.ca_cert())
        .with_context(|| format!("copying {}", files.ca_cert().display()))?;
    let user = format!("system:node:{}", args.name);
    let mut names = vec![args.name.clone(), "localhost".into(), "127.0.0.1".into()];
    names.extend(args.address.iter().cloned());
    let serving = pki::CertRequest {
        organizations: vec!["system:nodes".into()],
        ..pki::CertRequest::server(&user, names)
    };
    authority.open_or_issue(&there.pki, "kubelet", &serving)?;
    write_kubeconfig(&authority, args, &there.kubeconfig("kubelet"), &user, &["system:nodes"])?;
    for (component, user, groups) in KUBECONFIGS {
        write_kubeconfig(&authority, args, &there.kubeconfig(component), user, groups)?;
    }
    println!("Copy {} to the node as its data directory, then run there:", args.output.display());
    println!("  timonel agent --node-name {}", args.name);
    Ok(())
}

fn write_kubeconfig(
    authority: &pki::Authority,
    args: &CredentialArgs,
    path: &Path,
    user: &str,
    groups: &[&str],
) -> Result<()> {
    let config = pki::kubeconfig::Kubeconfig {
        server: args.server.clone(),
        ca_pem: Some(authority.cert_pem().to_owned()),
        client: Some(authority.issue(&pki::CertRequest::client(user, groups))?),
        ..Default::default()
    };
    config.write(path, &pki::kubeconfig::Names { cluster: pki::cluster::CLUSTER, user })?;
    Ok(())
}

#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// An OCI or docker archive, as `docker save` writes it.
    pub archive: PathBuf,
}

/// Loads an image into the private containerd of this node.
pub async fn import(layout: &Layout, args: &ImportArgs) -> Result<()> {
    let config = container_runtime::Config::under(&layout.data_dir, &layout.run_dir);
    if !config.socket.exists() {
        bail!("no runtime at {}: start the node first, with `timonel up`", config.socket.display());
    }
    let names = container_runtime::import_file(&config.socket, &args.archive).await?;
    println!("Imported {}", names.join(", "));
    Ok(())
}
