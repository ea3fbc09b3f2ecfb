//! Starting: flags into parts, parts into a server that listens, in an order in which a failure leaves nothing behind.

use crate::access::Access;
use crate::aggregation::Aggregator;
use crate::allocation::Allocator;
use crate::audit::Auditor;
use crate::authn::{self, Authenticator, RequestHeader};
use crate::bootstrap::Published;
use crate::encryption::Encryption;
use crate::fairness::Fairness;
use crate::health::Health;
use crate::kinds::Kinds;
use crate::kubelet::KubeletClient;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::options::{Backend, Options};
use crate::outbound::services::{Routing, Services};
use crate::outbound::users::Users;
use crate::outbound::webhook::WebhookClient;
use crate::serve::{self, Tls};
use crate::transport::InProcess;
use crate::{Api, admission, definitions, peers};
use anyhow::{Context, Result};
use pki::token::Verifier;
use pki::{Authority, CertRequest, CertifiedKey, PublicKey, Signer};
use registry::{AlwaysAdmit, Registry, UserInfo};
use resources::Resource;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The pause between two tries of a store that does not answer.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// How long a start waits for the store to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Steps of the start that readiness waits for.
const HOOKS: [&str; 7] = [
    "start-system-namespaces-controller",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-cluster-authentication-info-controller",
    "kube-apiserver-autoregistration",
];

/// A running server.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    api: Arc<Api>,
    serving: JoinHandle<()>,
}

impl Server {
    /// A way to the server inside this process, as one user. `system:authenticated` is added to its groups.
    pub fn transport(&self, user: UserInfo) -> Arc<dyn client::Transport> {
        Arc::new(InProcess::new(Arc::clone(&self.api), user))
    }

    /// The registry under the server.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.api.registry
    }

    /// Whether every readiness check passes.
    pub fn is_ready(&self) -> bool {
        self.api.health.is_ready()
    }

    /// Returns when the server has ended and its connections are closed.
    pub async fn wait(self) {
        if self.serving.await.is_err() {
            tracing::error!("Panicked while serving");
        }
    }
}

/// Keys and certificates, read from where the flags say.
pub(crate) struct Material {
    serving: CertifiedKey,
    pub client_ca: Option<String>,
    pub front_proxy_ca: Option<String>,
    pub request_header: Option<RequestHeader>,
    signer: Option<Signer>,
    verifier: Option<Verifier>,
    kubelet_client: Option<CertifiedKey>,
    kubelet_ca: Option<String>,
    /// Shown to aggregated servers.
    proxy_client: Option<CertifiedKey>,
}

fn read_file(flag: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{flag}: cannot read {}", path.display()))
}

fn read_optional(flag: &str, path: &Option<PathBuf>) -> Result<Option<String>> {
    path.as_ref().map(|path| read_file(flag, path)).transpose()
}

fn read_pair(flag: &str, cert: &Option<PathBuf>, key: &Option<PathBuf>) -> Result<Option<CertifiedKey>> {
    match (cert, key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            CertifiedKey::read(cert, key).map(Some).with_context(|| format!("{flag}: cannot read the pair"))
        }
        _ => anyhow::bail!("{flag}: certificate and key must be given together"),
    }
}

impl Material {
    fn read(options: &Options, service_ip: IpAddr, address: IpAddr) -> Result<Self> {
        let pair = read_pair("--tls-cert-file", &options.tls_cert_file, &options.tls_private_key_file)?;
        let serving = match pair {
            Some(pair) => pair,
            None => self_signed(options, service_ip, address)?,
        };
        let front_proxy_ca =
            read_optional("--requestheader-client-ca-file", &options.requestheader_client_ca_file)?;
        let request_header = front_proxy_ca.is_some().then(|| RequestHeader {
            allowed_names: options.requestheader_allowed_names.clone(),
            username: options.requestheader_username_headers.clone(),
            uid: options.requestheader_uid_headers.clone(),
            group: options.requestheader_group_headers.clone(),
            extra_prefix: options.requestheader_extra_headers_prefix.clone(),
        });
        let signer =
            read_optional("--service-account-signing-key-file", &options.service_account_signing_key_file)?
                .map(|pem| {
                    Signer::from_pem(&pem).context("--service-account-signing-key-file is no private key")
                })
                .transpose()?;
        let mut keys = Vec::new();
        for path in &options.service_account_key_file {
            let pem = read_file("--service-account-key-file", path)?;
            let found = PublicKey::from_pem(&pem)
                .with_context(|| format!("--service-account-key-file: no key in {}", path.display()))?;
            keys.extend(found);
        }
        if let (true, Some(signer)) = (keys.is_empty(), &signer) {
            keys.push(signer.public().clone());
        }
        let verifier =
            (!keys.is_empty()).then(|| Verifier::new(options.issuers(), keys, options.audiences()));
        Ok(Material {
            serving,
            client_ca: read_optional("--client-ca-file", &options.client_ca_file)?,
            front_proxy_ca,
            request_header,
            signer,
            verifier,
            kubelet_client: read_pair(
                "--kubelet-client-certificate",
                &options.kubelet_client_certificate,
                &options.kubelet_client_key,
            )?,
            kubelet_ca: read_optional(
                "--kubelet-certificate-authority",
                &options.kubelet_certificate_authority,
            )?,
            proxy_client: read_pair(
                "--proxy-client-cert-file",
                &options.proxy_client_cert_file,
                &options.proxy_client_key_file,
            )?,
        })
    }
}

/// Without a serving certificate the server makes one, and keeps it.
fn self_signed(options: &Options, service_ip: IpAddr, address: IpAddr) -> Result<CertifiedKey> {
    let dir = options.cert_dir.clone().unwrap_or_else(|| options.data_dir.join("apiserver"));
    let authority = Authority::open_or_create(&dir, "apiserver-ca", "kube-apiserver-ca")
        .with_context(|| format!("--cert-dir: cannot keep certificates in {}", dir.display()))?;
    let names = [
        "localhost".to_string(),
        "kubernetes".into(),
        "kubernetes.default".into(),
        "kubernetes.default.svc".into(),
        "127.0.0.1".into(),
        "::1".into(),
        service_ip.to_string(),
        address.to_string(),
    ];
    Ok(authority.open_or_issue(&dir, "apiserver", &CertRequest::server("kube-apiserver", names))?)
}

/// The address of the default route: nothing is sent, the kernel only chooses.
fn own_address() -> IpAddr {
    let chosen = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    chosen.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

fn open_store(options: &Options) -> Result<Arc<dyn Store>> {
    match options.backend()? {
        Backend::Memory => Ok(store::memory()),
        Backend::Embedded => {
            let dir = options.data_dir.join("store");
            store::open_embedded(&dir).with_context(|| format!("cannot open the store in {}", dir.display()))
        }
        Backend::Etcd => {
            let pem = |path: &Option<PathBuf>, flag: &str| -> Result<Option<Vec<u8>>> {
                Ok(read_optional(flag, path)?.map(String::into_bytes))
            };
            let cert = pem(&options.etcd_certfile, "--etcd-certfile")?;
            let key = pem(&options.etcd_keyfile, "--etcd-keyfile")?;
            let tls = pem(&options.etcd_cafile, "--etcd-cafile")?
                .map(|ca_pem| store::EtcdTls { ca_pem, identity_pem: cert.zip(key) });
            store::connect_etcd(&options.etcd_servers, tls.as_ref())
                .with_context(|| format!("cannot use etcd at {}", options.etcd_servers.join(",")))
        }
    }
}

/// Waits for the first answer of the store, so that an etcd that is not there is one clear line.
async fn reach(store: &Arc<dyn Store>, options: &Options) -> Result<()> {
    let mut told = String::new();
    let answered = async {
        while let Err(error) = store.revision().await {
            let text = error.to_string();
            if text != told {
                tracing::warn!(%error, "Could not reach the store yet");
                told = text;
            }
            tokio::time::sleep(STORE_RETRY).await;
        }
    };
    if tokio::time::timeout(STORE_TIMEOUT, answered).await.is_ok() {
        return Ok(());
    }
    anyhow::bail!(
        "no answer within {} s from etcd at {}: is it running, and is --etcd-servers right? Last: {told}",
        STORE_TIMEOUT.as_secs(),
        options.etcd_servers.join(",")
    )
}

/// Opens the store and the registry over it; the admission chain comes later, as it reads through the registry.
async fn open_registry(options: &Options, encryption: Option<&Arc<Encryption>>) -> Result<Arc<Registry>> {
    let mut store = open_store(options)?;
    reach(&store, options).await?;
    if let Some(encryption) = encryption {
        let transformer: Arc<dyn store::Transformer> = Arc::clone(encryption) as _;
        store = store::transformed(store, transformer);
    }
    let registry_options = registry::Options {
        event_ttl_seconds: i64::try_from(options.event_ttl.as_secs())?,
        // The embedded store bounds its own history; etcd keeps all until it is told.
        compact_every: (options.backend()? == Backend::Etcd && !options.etcd_compaction_interval.is_zero())
            .then_some(options.etcd_compaction_interval),
        ..registry::Options::default()
    };
    Ok(Registry::with_options(store, Arc::new(AlwaysAdmit), &registry_options))
}

fn health(registry: &Arc<Registry>, shutdown: &CancellationToken) -> Health {
    let health = Health::new();
    health.add("etcd", true, {
        let registry = Arc::clone(registry);
        move || if registry.is_following() { Ok(()) } else { Err("the store is not followed".into()) }
    });
    health.add("shutdown", false, {
        let shutdown = shutdown.clone();
        move || if shutdown.is_cancelled() { Err("process is shutting down".into()) } else { Ok(()) }
    });
    HOOKS.iter().for_each(|hook| health.expect_hook(hook));
    health
}

/// Puts the parts together; `host` is where clients are told to find the server.
fn assemble(
    options: Options,
    material: &mut Material,
    registry: Arc<Registry>,
    host: String,
    extensions: Extensions,
    shutdown: &CancellationToken,
) -> Result<Arc<Api>> {
    let static_tokens = match &options.token_auth_file {
        Some(path) => authn::read_static_tokens(path)?,
        None => Default::default(),
    };
    let kubelet = KubeletClient::new(
        material.kubelet_client.as_ref(),
        material.kubelet_ca.as_deref(),
        options.kubelet_preferred_address_types.clone(),
        options.kubelet_timeout,
    )?;
    let served: Vec<&'static dyn Resource> = resources::resources()
        .iter()
        .copied()
        .filter(|row| options.serves(row.group(), row.version(), row.enabled_by_default()))
        .collect();
    let jwks_uri = if options.service_account_jwks_uri.is_empty() {
        format!("https://{host}{}", pki::token::JWKS_PATH)
    } else {
        options.service_account_jwks_uri.clone()
    };
    let health = health(&registry, shutdown);
    if let Some(encryption) = &extensions.encryption {
        encryption.add_checks(&health);
    }
    Ok(Arc::new(Api {
        kinds: Arc::new(Kinds::new(served, host)),
        authn: Authenticator {
            registry: Arc::clone(&registry),
            verifier: material.verifier.clone(),
            static_tokens,
            anonymous: options.anonymous_auth,
            bootstrap_tokens: options.enable_bootstrap_token_auth,
            request_header: material.request_header.clone(),
        },
        limits: Limits::new(options.max_requests_inflight, options.max_mutating_requests_inflight),
        issuer: options.issuers().remove(0),
        health,
        access: extensions.access,
        metrics: Arc::new(Metrics::default()),
        fairness: options.enable_priority_and_fairness.then(|| {
            let seats = options.max_requests_inflight + options.max_mutating_requests_inflight;
            Fairness::new(&registry, seats, options.request_timeout)
        }),
        registry,
        kubelet,
        webhooks: extensions.webhooks,
        policies: extensions.policies,
        aggregator: extensions.aggregator,
        encryption: extensions.encryption,
        auditor: Auditor::open(&options.audit, shutdown)?,
        signer: material.signer.take(),
        jwks_uri,
        shutdown: shutdown.clone(),
        options,
    }))
}

/// What calls other servers.
struct Extensions {
    access: Arc<Access>,
    webhooks: Arc<admission::Webhooks>,
    policies: Arc<admission::Policies>,
    aggregator: Arc<Aggregator>,
    encryption: Option<Arc<Encryption>>,
}

async fn open_encryption(options: &Options, shutdown: &CancellationToken) -> Result<Option<Arc<Encryption>>> {
    let Some(path) = &options.encryption_provider_config else { return Ok(None) };
    let encryption = Encryption::open(path).await?;
    if options.encryption_provider_config_automatic_reload {
        tokio::spawn(Arc::clone(&encryption).follow(shutdown.clone()));
    }
    Ok(Some(encryption))
}

fn extensions(
    options: &Options,
    registry: &Arc<Registry>,
    plugins: &[&str],
    own_port: u16,
    proxy_client: Option<CertifiedKey>,
) -> Result<Extensions> {
    let routing = if options.enable_aggregator_routing { Routing::Endpoints } else { Routing::ClusterIp };
    let services = Services::new(registry, routing, own_port);
    let users = match &options.admission_control_config_file {
        Some(path) => Users::read(path)?,
        None => Users::default(),
    };
    let aggregator = Aggregator::new(registry, Arc::clone(&services), proxy_client);
    let client = WebhookClient::new(services, users);
    registry.set_converter(crate::conversion::WebhookConverter::new(Arc::clone(&client)));
    let has = |plugin: &str| plugins.contains(&plugin);
    let (mutates, validates) = (has("MutatingAdmissionWebhook"), has("ValidatingAdmissionWebhook"));
    let access = Access::new(options.modes()?);
    let webhooks = admission::Webhooks::new(registry, Arc::clone(&access), client, mutates, validates);
    let (mutates, validates) = (has("MutatingAdmissionPolicy"), has("ValidatingAdmissionPolicy"));
    let policies = admission::Policies::new(registry, Arc::clone(&access), mutates, validates);
    Ok(Extensions { access, webhooks, policies, aggregator, encryption: None })
}

/// Starts a server; it has bootstrapped and serves when this returns. It ends when the token is cancelled.
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Server> {
    let service_range = options.service_range()?;
    let node_ports = options.node_ports()?;
    let plugins = admission::enabled(&options.enable_admission_plugins, &options.disable_admission_plugins)?;
    let alone = options.backend()? != Backend::Etcd;
    options.modes()?;
    let service_ip = service_range.hosts().next().context("--service-cluster-ip-range is empty")?;
    let address = options.advertise_address.unwrap_or_else(own_address);
    let mut material = Material::read(&options, service_ip, address)?;
    let tls = Tls::new(
        &material.serving,
        material.client_ca.as_deref(),
        material.front_proxy_ca.as_deref(),
        options.tls_cert_file.clone().zip(options.tls_private_key_file.clone()),
    )?;
    let listener = serve::listen(SocketAddr::new(options.bind_address, options.secure_port)).await?;
    let addr = listener.local_addr()?;
    let encryption = open_encryption(&options, &shutdown).await?;
    let registry = open_registry(&options, encryption.as_ref()).await?;
    let host = SocketAddr::new(address, addr.port()).to_string();
    let proxy_client = material.proxy_client.take();
    let mut extensions = extensions(&options, &registry, &plugins, addr.port(), proxy_client)?;
    extensions.encryption = encryption;
    let webhooks = Arc::clone(&extensions.webhooks);
    let api = assemble(options, &mut material, Arc::clone(&registry), host, extensions, &shutdown)?;
    let allocator = Allocator::new(&registry, service_range, node_ports);
    let (access, options) = (Arc::clone(&api.access), &api.options);
    let chain = admission::Chain::new(
        &registry,
        access,
        Arc::clone(&allocator),
        plugins,
        Arc::clone(&webhooks),
        Arc::clone(&api.policies),
        options,
    );
    registry.set_admission(chain);
    allocator.start(&shutdown).await.context("cannot read which addresses are taken")?;
    api.access.start(&registry, &shutdown).await?;
    webhooks.start(&shutdown).await.context("cannot read the webhook configurations")?;
    definitions::start(Arc::clone(&api.kinds), Arc::clone(&registry), shutdown.clone())
        .await
        .context("cannot read the custom resource definitions")?;
    api.policies.start(&api.kinds, &shutdown).await.context("cannot read the admission policies")?;
    let serving = tokio::spawn(serve::serve(Arc::clone(&api), listener, tls, shutdown));
    let service_range = service_range.to_string();
    let published = Published { service_ip, address, port: addr.port(), service_range, alone };
    if let Err(error) = api.bootstrap(&published, &material).await {
        api.shutdown.cancel();
        return Err(error).context("cannot create the objects that every cluster starts with");
    }
    if let Some(fairness) = &api.fairness {
        fairness.start(&api.shutdown).await.context("cannot read the flow control configuration")?;
    }
    let local = api.kinds.built_in_versions();
    if let Err(error) = api.aggregator.start(local, &api.shutdown).await {
        api.shutdown.cancel();
        return Err(error).context("cannot register the APIs that this server has");
    }
    api.health.hook_done("kube-apiserver-autoregistration");
    if !published.alone && !published.address.is_loopback() {
        tokio::spawn(peers::keep(registry, published, api.shutdown.clone()));
    }
    tracing::info!(%addr, "Serving the API");
    Ok(Server { addr, api, serving })
}
