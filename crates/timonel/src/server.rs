//! `timonel server`: the control plane, and a node unless told otherwise, in one process.
//!
//! Every component gets upstream's own flags and its own identity; they meet only in the API, over the in-process
//! transport. A component that ends is started again; only a signal ends the server.

use crate::components::{self, Component, parse_flags};
use crate::layout::{Layout, private_dir};
use crate::progress::Progress;
use crate::running::{Lock, Running};
use crate::{addons, logging};
use anyhow::{Context, Result, bail};
use client::{Client, WatchEvent};
use kube_apiserver::UserInfo;
use kube_controller_manager::Identities;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long components get to end after the signal.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// The settings of a cluster on this machine. What is not here is reached through the components' own flags.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// Run the control plane only: this machine is no node.
    #[arg(long)]
    pub no_node: bool,
    /// The node's name; the host's name where none is given.
    #[arg(long)]
    pub node_name: Option<String>,
    /// The node's address; that of the default route where none is given.
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// The port of the API.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// The address that the API listens on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Further names and addresses for the API server's certificate.
    #[arg(long, value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// Keep the cluster's state in this etcd rather than in the embedded store.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: String,
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The address of the cluster's DNS, within the service range.
    #[arg(long, default_value = "10.96.0.10")]
    pub cluster_dns: Ipv4Addr,
    /// Use this CRI runtime rather than a private containerd.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// A flag for one component, as `kubelet:--max-pods=50`; may be given several times.
    #[arg(long = "component-flag", value_name = "COMPONENT:FLAG")]
    pub component_flags: Vec<String>,
}

impl ServerArgs {
    /// The flags that give these settings again, for a server started in the background.
    pub fn to_flags(&self) -> Vec<OsString> {
        let mut flags = vec![
            format!("--secure-port={}", self.secure_port),
            format!("--bind-address={}", self.bind_address),
            format!("--service-cluster-ip-range={}", self.service_cluster_ip_range),
            format!("--cluster-cidr={}", self.cluster_cidr),
            format!("--cluster-domain={}", self.cluster_domain),
            format!("--cluster-dns={}", self.cluster_dns),
        ];
        flags.extend(self.no_node.then(|| "--no-node".to_string()));
        flags.extend(self.node_name.iter().map(|name| format!("--node-name={name}")));
        flags.extend(self.node_ip.iter().map(|ip| format!("--node-ip={ip}")));
        flags.extend(self.tls_san.iter().map(|name| format!("--tls-san={name}")));
        flags.extend(self.etcd_servers.iter().map(|server| format!("--etcd-servers={server}")));
        flags.extend(
            self.container_runtime_endpoint.iter().map(|at| format!("--container-runtime-endpoint={at}")),
        );
        flags.extend(self.component_flags.iter().map(|flag| format!("--component-flag={flag}")));
        flags.into_iter().map(OsString::from).collect()
    }

    /// The extra flags of one component.
    fn extra(&self, component: &str) -> Result<Vec<String>> {
        let mut flags = Vec::new();
        for text in &self.component_flags {
            let (name, flag) = text.split_once(':').with_context(|| {
                format!("--component-flag {text:?} lacks its component: write kubelet:--max-pods=50")
            })?;
            if !components::NAMES.contains(&name) {
                bail!(
                    "--component-flag {text:?}: there is no component {name:?}, only {}",
                    components::NAMES.join(", ")
                );
            }
            if name == component {
                flags.push(flag.to_string());
            }
        }
        Ok(flags)
    }
}

/// What the machine says where the flags say nothing.
struct Machine {
    node_name: String,
    node_ip: IpAddr,
}

impl Machine {
    fn look(args: &ServerArgs) -> Result<Machine> {
        let host =
            nix::unistd::gethostname().context("reading the host's name")?.to_string_lossy().to_lowercase();
        let node_ip = match args.node_ip {
            Some(ip) => ip,
            None => outward_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        Ok(Machine { node_name: args.node_name.clone().unwrap_or(host), node_ip })
    }
}

/// The address that this machine would send from to the world; nothing is sent.
pub fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.254:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// A wrong flag is told before anything is touched.
fn check_flags(layout: &Layout, args: &ServerArgs, machine: &Machine) -> Result<()> {
    first_address(&args.service_cluster_ip_range)?;
    parse_flags::<kube_apiserver::Options>("kube-apiserver", apiserver_flags(layout, args, machine)?)?;
    parse_flags::<kube_controller_manager::Options>(
        "kube-controller-manager",
        args.extra("kube-controller-manager")?,
    )?;
    parse_flags::<kube_scheduler::Options>("kube-scheduler", args.extra("kube-scheduler")?)?;
    parse_flags::<kubelet::Options>("kubelet", args.extra("kubelet")?)?;
    parse_flags::<kube_proxy::Options>("kube-proxy", args.extra("kube-proxy")?)?;
    parse_flags::<cluster_dns::Options>("cluster-dns", args.extra("cluster-dns")?)?;
    Ok(())
}

/// Says what is in the way before anything is touched.
fn preflight(args: &ServerArgs) -> Result<()> {
    if !args.no_node && !nix::unistd::geteuid().is_root() {
        bail!("a node needs root, for namespaces, mounts and nftables: run it as root, or with --no-node");
    }
    let mut ports = vec![("the API", "--secure-port", args.bind_address, args.secure_port)];
    if !args.no_node {
        ports.push((
            "the kubelet",
            "--component-flag kubelet:--port",
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            10250,
        ));
    }
    for (what, flag, address, port) in ports {
        if let Err(error) = TcpListener::bind((address, port)) {
            bail!(
                "{what} cannot listen on {address}:{port}: {error}: stop what uses it, or choose another with {flag}"
            );
        }
    }
    Ok(())
}

/// Runs until a signal comes.
pub async fn run(layout: &Layout, args: &ServerArgs) -> Result<()> {
    let progress = Progress::begin();
    let machine = Machine::look(args)?;
    check_flags(layout, args, &machine)?;
    private_dir(&layout.data_dir)?;
    private_dir(&layout.run_dir)?;
    let _lock = Lock::take(layout)?;
    preflight(args)?;
    logging::to_files(&layout.logs())?;
    let server_url = identities(layout, args, &machine)?;
    progress.stage("certificates and identities in place");

    if args.etcd_servers.is_empty() {
        kube_apiserver::ensure_encryption_config(&encryption_config(layout))?;
    }
    let shutdown = CancellationToken::new();
    let api_options =
        parse_flags::<kube_apiserver::Options>("kube-apiserver", apiserver_flags(layout, args, &machine)?)?;
    let api = Arc::new(kube_apiserver::start(api_options, shutdown.child_token()).await?);
    progress.stage(if args.etcd_servers.is_empty() { "store open" } else { "etcd connected" });
    progress.stage(&format!("API serving on https://{}", api.addr));
    let admin = client_for(&api, "kubernetes-admin", &["system:masters"]);
    addons::apply(&admin, args).await.context("writing the cluster's own objects")?;

    let mut components = control_plane(layout, args, &api)?;
    if !args.no_node {
        components.extend(node(layout, args, &machine, &api)?);
    }
    let names: Vec<String> = components.iter().map(|component| component.name.to_string()).collect();
    let tasks: Vec<_> = components
        .into_iter()
        .map(|component| components::supervise(component, shutdown.child_token()))
        .collect();
    progress.stage("controllers and scheduler started");
    Running {
        pid: std::process::id() as i32,
        version: env!("CARGO_PKG_VERSION").into(),
        server: server_url,
        kubeconfig: layout.admin_kubeconfig(),
        data_dir: layout.data_dir.clone(),
        components: std::iter::once("kube-apiserver".to_string()).chain(names).collect(),
        node: (!args.no_node).then(|| machine.node_name.clone()),
    }
    .write(layout)?;

    let mut signals = Signals::listen()?;
    let waiting = async {
        if !args.no_node {
            node_ready(&admin, &machine.node_name, &progress).await?;
        }
        progress.ready();
        Ok::<(), anyhow::Error>(())
    };
    tokio::select! {
        result = waiting => result?,
        () = signals.recv() => {}
    }
    if !shutdown.is_cancelled() {
        signals.recv_unless_seen().await;
    }
    tracing::info!("Server was asked to stop");
    shutdown.cancel();
    let ended = async {
        for task in tasks {
            // A task that was cancelled or panicked has ended too.
            let _ = task.await;
        }
        // Controllers' clients are gone with their tasks; whoever still holds the server keeps it from being awaited.
        if let Ok(api) = Arc::try_unwrap(api) {
            api.wait().await;
        }
    };
    if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
        tracing::warn!(grace_seconds = STOP_GRACE.as_secs(), "Components did not end in time");
    }
    let _ = std::fs::remove_file(layout.running());
    Ok(())
}

/// SIGTERM and SIGINT, remembered once seen.
struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    seen: bool,
}

impl Signals {
    fn listen() -> Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            seen: false,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
        self.seen = true;
    }

    async fn recv_unless_seen(&mut self) {
        if !self.seen {
            self.recv().await;
        }
    }
}

/// Makes or renews certificates and kubeconfigs; gives the URL that they name.
fn identities(layout: &Layout, args: &ServerArgs, machine: &Machine) -> Result<String> {
    let server = format!("https://127.0.0.1:{}", args.secure_port);
    let mut names = vec![machine.node_ip.to_string()];
    names.extend(args.tls_san.iter().cloned());
    pki::cluster::open_or_create(&pki::cluster::Options {
        data: layout.data_dir.clone(),
        node_name: if args.no_node { String::new() } else { machine.node_name.clone() },
        server: server.clone(),
        names,
        service_address: first_address(&args.service_cluster_ip_range)?,
        cluster_domain: args.cluster_domain.clone(),
    })
    .context("preparing certificates and identities")?;
    Ok(server)
}

/// The address of the `kubernetes` Service: the first of the range.
fn first_address(range: &str) -> Result<IpAddr> {
    let first = range.split(',').next().unwrap_or_default();
    let net: ipnet::IpNet = first.parse().map_err(|_| {
        anyhow::anyhow!("--service-cluster-ip-range {range:?} is no address range, such as 10.96.0.0/16")
    })?;
    net.hosts().next().with_context(|| format!("--service-cluster-ip-range {range:?} has no address to give"))
}

fn apiserver_flags(layout: &Layout, args: &ServerArgs, machine: &Machine) -> Result<Vec<String>> {
    let files = pki::cluster::Layout::new(&layout.data_dir);
    let path = |path: PathBuf| path.display().to_string();
    let mut flags = vec![
        format!("--secure-port={}", args.secure_port),
        format!("--bind-address={}", args.bind_address),
        format!("--advertise-address={}", machine.node_ip),
        format!("--service-cluster-ip-range={}", args.service_cluster_ip_range),
        format!("--tls-cert-file={}", path(files.cert("apiserver"))),
        format!("--tls-private-key-file={}", path(files.key("apiserver"))),
        format!("--client-ca-file={}", path(files.ca_cert())),
        format!("--requestheader-client-ca-file={}", path(files.front_proxy_ca_cert())),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-uid-headers=x-remote-uid".into(),
        format!("--proxy-client-cert-file={}", path(files.cert("front-proxy-client"))),
        format!("--proxy-client-key-file={}", path(files.key("front-proxy-client"))),
        format!("--kubelet-certificate-authority={}", path(files.ca_cert())),
        format!("--kubelet-client-certificate={}", path(files.cert("apiserver-kubelet-client"))),
        format!("--kubelet-client-key={}", path(files.key("apiserver-kubelet-client"))),
        format!("--service-account-issuer=https://kubernetes.default.svc.{}", args.cluster_domain),
        format!("--service-account-signing-key-file={}", path(files.token_key())),
        format!("--service-account-key-file={}", path(files.token_public_key())),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
    ];
    if args.etcd_servers.is_empty() {
        flags.push(format!("--data-dir={}", path(layout.data_dir.clone())));
        if !args.extra("kube-apiserver")?.iter().any(|flag| flag.starts_with("--encryption-provider-config="))
        {
            flags.push(format!("--encryption-provider-config={}", path(encryption_config(layout))));
        }
    } else {
        flags.push(format!("--etcd-servers={}", args.etcd_servers.join(",")));
    }
    flags.extend(args.extra("kube-apiserver")?);
    Ok(flags)
}

/// How Secrets are kept in the embedded store. With etcd, which other servers may share, the key is the user's to give.
fn encryption_config(layout: &Layout) -> PathBuf {
    layout.data_dir.join("encryption.yaml")
}

/// A component's client: in process, under its own name.
fn client_for(api: &kube_apiserver::Server, user: &str, groups: &[&str]) -> Client {
    let groups = groups.iter().map(|group| group.to_string()).collect();
    Client::new(api.transport(UserInfo { name: user.into(), groups, ..UserInfo::default() }))
}

/// The name under which this installation stands for election. It lasts, so that a server that was killed goes on with
/// the lease it held instead of waiting for it to expire.
fn election_identity(layout: &Layout) -> Result<String> {
    let path = layout.data_dir.join("identity");
    if let Ok(text) = std::fs::read_to_string(&path) {
        return Ok(text.trim().to_string());
    }
    let host =
        nix::unistd::gethostname().context("reading the host's name")?.to_string_lossy().to_lowercase();
    let identity = format!("{host}_{}", uuid::Uuid::new_v4());
    std::fs::write(&path, &identity).with_context(|| format!("writing {}", path.display()))?;
    Ok(identity)
}

/// Each controller writes as its own service account in kube-system, with what RBAC gives that one.
fn controller_client(api: &kube_apiserver::Server, account: &str) -> Client {
    let user = format!("system:serviceaccount:kube-system:{account}");
    client_for(api, &user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
        .with_user_agent(account)
}

fn control_plane(
    layout: &Layout,
    args: &ServerArgs,
    api: &Arc<kube_apiserver::Server>,
) -> Result<Vec<Component>> {
    // Nobody else can serve this store, so nobody else can lead; with etcd there may be others beside us.
    let elect = format!("--leader-elect={}", !args.etcd_servers.is_empty());
    let identity = Some(election_identity(layout)?);
    let mut flags = vec![
        elect.clone(),
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller".to_string(),
        format!("--cluster-cidr={}", args.cluster_cidr),
        "--allocate-node-cidrs=true".to_string(),
        format!("--service-cluster-ip-range={}", args.service_cluster_ip_range),
    ];
    let files = pki::cluster::Layout::new(&layout.data_dir);
    for (flag, file) in [
        ("root-ca-file", files.ca_cert()),
        ("cluster-signing-cert-file", files.ca_cert()),
        ("cluster-signing-key-file", files.ca_key()),
        ("service-account-private-key-file", files.token_key()),
    ] {
        flags.push(format!("--{flag}={}", file.display()));
    }
    flags.extend(args.extra("kube-controller-manager")?);
    let mut controllers = parse_flags::<kube_controller_manager::Options>("kube-controller-manager", flags)?;
    controllers.identity = identity.clone();
    let mut flags = vec![elect];
    flags.extend(args.extra("kube-scheduler")?);
    let mut scheduling = parse_flags::<kube_scheduler::Options>("kube-scheduler", flags)?;
    scheduling.identity = identity;
    let controllers_client = client_for(api, "system:kube-controller-manager", &[]);
    let scheduling_client = client_for(api, "system:kube-scheduler", &[]);
    let api = Arc::clone(api);
    let accounts: Arc<dyn Identities> = Arc::new(move |account: &str| controller_client(&api, account));
    Ok(vec![
        Component::new("kube-controller-manager", move |token| {
            let (options, client, accounts) =
                (controllers.clone(), controllers_client.clone(), Arc::clone(&accounts));
            Box::pin(
                async move { kube_controller_manager::run_with(options, client, &*accounts, token).await },
            )
        }),
        Component::new("kube-scheduler", move |token| {
            Box::pin(kube_scheduler::run(scheduling.clone(), scheduling_client.clone(), token))
        }),
    ])
}

fn node(
    layout: &Layout,
    args: &ServerArgs,
    machine: &Machine,
    api: &kube_apiserver::Server,
) -> Result<Vec<Component>> {
    let settings = components::NodeSettings {
        name: machine.node_name.clone(),
        ip: machine.node_ip,
        cluster_dns: args.cluster_dns,
        cluster_domain: args.cluster_domain.clone(),
        cluster_cidr: args.cluster_cidr.clone(),
        service_cidr: args.service_cluster_ip_range.clone(),
        container_runtime_endpoint: args.container_runtime_endpoint.clone(),
    };
    let user = format!("system:node:{}", machine.node_name);
    let clients = components::NodeClients {
        kubelet: client_for(api, &user, &["system:nodes"]),
        proxy: client_for(api, "system:kube-proxy", &[]),
        dns: client_for(
            api,
            "system:serviceaccount:kube-system:coredns",
            &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
        ),
    };
    components::node(layout, &settings, clients, |name| args.extra(name))
}

/// Waits for this machine's node to be there, then to be Ready.
async fn node_ready(admin: &Client, name: &str, progress: &Progress) -> Result<()> {
    let mut registered = false;
    let selection =
        client::WatchOptions { field_selector: format!("metadata.name={name}"), ..Default::default() };
    loop {
        let mut watch = admin.watch::<api::core::v1::Node>("", &selection).await?;
        while let Some(event) = watch.next().await {
            let (WatchEvent::Added(node) | WatchEvent::Modified(node)) = event? else { continue };
            if !registered {
                registered = true;
                progress.stage(&format!("node {name} registered"));
            }
            let conditions = &node.status.conditions;
            if conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True") {
                progress.stage(&format!("node {name} Ready"));
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
