//! The components by their upstream names: their flags, and what keeps them running.

use crate::layout::Layout;
use crate::pod_network::PodNetwork;
use anyhow::{Context, Result};
use client::Client;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Every component that can be given flags of its own.
pub const NAMES: &[&str] =
    &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "cluster-dns"];

/// A component that ended by itself is started again after a pause that doubles up to this.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

type Run = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A component that can be started as often as need be.
pub struct Component {
    pub name: &'static str,
    run: Box<dyn Fn(CancellationToken) -> Run + Send + Sync>,
}

impl Component {
    pub fn new(name: &'static str, run: impl Fn(CancellationToken) -> Run + Send + Sync + 'static) -> Self {
        Component { name, run: Box::new(run) }
    }
}

/// Reads a component's options from upstream's flags.
pub fn parse_flags<Options: clap::Args>(name: &'static str, flags: Vec<String>) -> Result<Options> {
    let command =
        Options::augment_args(clap::Command::new(name)).no_binary_name(true).args_override_self(true);
    let matches = command.try_get_matches_from(flags).map_err(|error| flag_error(name, &error))?;
    Options::from_arg_matches(&matches).map_err(|error| flag_error(name, &error))
}

/// clap's error on one line.
fn flag_error(name: &str, error: &clap::Error) -> anyhow::Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    anyhow::anyhow!("{name}: {first}: see timonel {name} --help")
}

/// Runs a component until the token is cancelled, starting it again when it fails.
pub fn supervise(component: Component, shutdown: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut pause = Duration::from_secs(1);
        while !shutdown.is_cancelled() {
            let began = std::time::Instant::now();
            // A panic costs one run of this component, not the server.
            let result = tokio::spawn((component.run)(shutdown.child_token())).await;
            if shutdown.is_cancelled() {
                return;
            }
            match result {
                Ok(Ok(())) => tracing::warn!(component = component.name, "Component ended"),
                Ok(Err(error)) => tracing::error!(
                    component = component.name,
                    error = format!("{error:#}"),
                    "Component failed"
                ),
                Err(error) => tracing::error!(component = component.name, %error, "Component panicked"),
            }
            if began.elapsed() > RESTART_PAUSE_MAX {
                pause = Duration::from_secs(1);
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    })
}

/// What a node is told of itself and its cluster.
pub struct NodeSettings {
    pub name: String,
    pub ip: IpAddr,
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    pub cluster_cidr: String,
    pub service_cidr: String,
    pub container_runtime_endpoint: Option<String>,
}

/// The identities that a node's components use.
pub struct NodeClients {
    pub kubelet: Client,
    pub proxy: Client,
    pub dns: Client,
}

/// Kubelet, service proxy and DNS of this machine.
pub fn node(
    layout: &Layout,
    settings: &NodeSettings,
    clients: NodeClients,
    extra: impl Fn(&str) -> Result<Vec<String>>,
) -> Result<Vec<Component>> {
    let kubelet =
        parse_flags::<kubelet::Options>("kubelet", with(kubelet_flags(layout, settings), extra("kubelet")?))?;
    let proxy_flags = vec![
        format!("--hostname-override={}", settings.name),
        format!("--cluster-cidr={}", settings.cluster_cidr),
        "--proxy-mode=nftables".to_string(),
    ];
    let proxy = parse_flags::<kube_proxy::Options>("kube-proxy", with(proxy_flags, extra("kube-proxy")?))?;
    let dns_flags = vec![
        format!("--cluster-dns={}", settings.cluster_dns),
        format!("--cluster-domain={}", settings.cluster_domain),
        format!("--service-cluster-ip-range={}", settings.service_cidr),
        format!("--cluster-cidr={}", settings.cluster_cidr),
    ];
    let dns = parse_flags::<cluster_dns::Options>("cluster-dns", with(dns_flags, extra("cluster-dns")?))?;
    let network = PodNetwork::new(layout, &settings.name, &settings.cluster_cidr, &settings.service_cidr)?;
    let network_client = clients.kubelet.clone();
    Ok(vec![
        Component::new("pod-network", move |token| {
            Box::pin(network.clone().run(network_client.clone(), token))
        }),
        Component::new("kubelet", move |token| {
            Box::pin(kubelet::run(kubelet.clone(), clients.kubelet.clone(), token))
        }),
        Component::new("kube-proxy", move |token| {
            Box::pin(kube_proxy::run(proxy.clone(), clients.proxy.clone(), token))
        }),
        Component::new("cluster-dns", move |token| {
            Box::pin(cluster_dns::run(dns.clone(), clients.dns.clone(), token))
        }),
    ])
}

fn kubelet_flags(layout: &Layout, settings: &NodeSettings) -> Vec<String> {
    let files = pki::cluster::Layout::new(&layout.data_dir);
    let mut flags = vec![
        format!("--hostname-override={}", settings.name),
        format!("--node-ip={}", settings.ip),
        format!("--root-dir={}", layout.kubelet().display()),
        format!("--local-path-dir={}", layout.local_path().display()),
        format!("--cluster-dns={}", settings.cluster_dns),
        format!("--cluster-domain={}", settings.cluster_domain),
        format!("--client-ca-file={}", files.ca_cert().display()),
        format!("--tls-cert-file={}", files.cert("kubelet").display()),
        format!("--tls-private-key-file={}", files.key("kubelet").display()),
    ];
    // The disk is mostly the user's own: shares of it say nothing of what pods may still use, and an image that was
    // imported cannot be pulled again.
    flags.extend([
        "--eviction-hard=memory.available<100Mi,nodefs.available<1Gi,imagefs.available<1Gi".into(),
        "--image-gc-high-threshold=100".into(),
    ]);
    flags.extend([
        format!("--data-dir={}", layout.data_dir.display()),
        format!("--run-dir={}", layout.run_dir.display()),
    ]);
    flags.extend(
        settings.container_runtime_endpoint.iter().map(|at| format!("--container-runtime-endpoint={at}")),
    );
    flags
}

fn with(mut flags: Vec<String>, extra: Vec<String>) -> Vec<String> {
    flags.extend(extra);
    flags
}

/// A client by a kubeconfig, for a component that runs alone.
pub fn client_from(kubeconfig: &Path) -> Result<Client> {
    Client::from_kubeconfig(kubeconfig)
        .with_context(|| format!("reading --kubeconfig {}", kubeconfig.display()))
}
