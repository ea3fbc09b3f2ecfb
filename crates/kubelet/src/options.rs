//! The kubelet's flags, upstream's names, and the fields of a KubeletConfiguration file that it reads.

use anyhow::{Context as _, Result, bail};
use pods::eviction::Threshold;
use pods::image_gc::Policy;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Flags of `timonel kubelet`. A flag that is given outranks the configuration file.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Path to a kubeconfig file, saying how to reach the API server
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// File with a KubeletConfiguration
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// The node's name; the machine's host name if not given
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The node's address (or two, one per family, separated by a comma)
    #[arg(long, default_value = "")]
    pub node_ip: String,
    /// The container runtime's CRI socket; a private containerd is started if not given
    #[arg(long, default_value = "")]
    pub container_runtime_endpoint: String,
    /// Directory for the kubelet's files: volumes, plugins
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Directory under which a private containerd keeps its images
    #[arg(long, default_value = "/var/lib/timonel")]
    pub data_dir: PathBuf,
    /// Directory under which a private containerd keeps its sockets and tasks
    #[arg(long, default_value = "/run/timonel")]
    pub run_dir: PathBuf,
    /// Directory under which this node keeps volumes of the built-in provisioner; it offers none if not given
    #[arg(long)]
    pub local_path_dir: Option<PathBuf>,
    /// Addresses of DNS servers for pods
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<String>,
    /// The cluster's DNS domain
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// Directory (or file) with manifests of static pods
    #[arg(long)]
    pub pod_manifest_path: Option<PathBuf>,
    /// How many pods the node runs at most
    #[arg(long)]
    pub max_pods: Option<i64>,
    /// Register the node with the API server
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub register_node: bool,
    /// Labels to register the node with
    #[arg(long, value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// Taints to register the node with: key=value:effect
    #[arg(long, value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    /// The address to serve on
    #[arg(long)]
    pub address: Option<IpAddr>,
    /// The port to serve on
    #[arg(long)]
    pub port: Option<u16>,
    /// The serving certificate
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// The serving certificate's key
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Authorities whose client certificates are trusted
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Accept requests without credentials
    #[arg(long)]
    pub anonymous_auth: Option<bool>,
    /// AlwaysAllow or Webhook
    #[arg(long)]
    pub authorization_mode: Option<String>,
    /// The parent of all pods' control groups
    #[arg(long)]
    pub cgroup_root: Option<String>,
    /// The machine's resolver configuration, for pods with dnsPolicy Default
    #[arg(long)]
    pub resolv_conf: Option<PathBuf>,
    /// How large a container's log grows before it is rotated
    #[arg(long)]
    pub container_log_max_size: Option<String>,
    /// How many log files a container keeps
    #[arg(long)]
    pub container_log_max_files: Option<usize>,
    /// Hard eviction thresholds: signal<amount, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub eviction_hard: Option<Vec<String>>,
    /// Soft eviction thresholds: signal<amount, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub eviction_soft: Vec<String>,
    /// How long each soft threshold has to be met: signal=duration
    #[arg(long, value_delimiter = ',')]
    pub eviction_soft_grace_period: Vec<String>,
    /// How far above its threshold a signal has to come: signal=amount
    #[arg(long, value_delimiter = ',')]
    pub eviction_minimum_reclaim: Vec<String>,
    /// How long a condition of pressure is kept after the pressure
    #[arg(long)]
    pub eviction_pressure_transition_period: Option<String>,
    /// The most grace, in seconds, of a pod that goes for a soft threshold
    #[arg(long)]
    pub eviction_max_pod_grace_period: Option<i64>,
    /// How full the disk is, in percent, when images are collected
    #[arg(long)]
    pub image_gc_high_threshold: Option<u64>,
    /// How full it may stay
    #[arg(long)]
    pub image_gc_low_threshold: Option<u64>,
    /// Pull one image at a time
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub serialize_image_pulls: Option<bool>,
    /// Where pods' logs lie
    #[arg(long, default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Where links to containers' logs lie
    #[arg(long, default_value = "/var/log/containers")]
    pub container_logs_dir: PathBuf,
}

/// The fields read from a KubeletConfiguration; others are accepted and have no effect.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    pub api_version: String,
    pub kind: String,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub static_pod_path: Option<PathBuf>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    pub authentication: Authentication,
    pub authorization: Authorization,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub cluster_domain: Option<String>,
    pub max_pods: Option<i64>,
    pub cgroup_root: Option<String>,
    pub resolv_conf: Option<PathBuf>,
    pub container_log_max_size: Option<String>,
    pub container_log_max_files: Option<usize>,
    pub pod_logs_dir: Option<PathBuf>,
    pub register_node: Option<bool>,
    pub container_runtime_endpoint: Option<String>,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    pub node_status_update_frequency: Option<String>,
    pub node_lease_duration_seconds: Option<i32>,
    pub seccomp_default: Option<bool>,
    pub eviction_hard: Option<BTreeMap<String, String>>,
    pub eviction_soft: BTreeMap<String, String>,
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    pub eviction_pressure_transition_period: Option<String>,
    pub eviction_max_pod_grace_period: Option<i64>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<u64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<u64>,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: Option<String>,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: Option<String>,
    pub serialize_image_pulls: Option<bool>,
    pub max_parallel_image_pulls: Option<usize>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Authentication {
    pub x509: X509,
    pub anonymous: Enabled,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Enabled {
    pub enabled: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Authorization {
    pub mode: Option<String>,
}

/// What the kubelet runs with: flags, file and defaults brought together.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    pub register_node: bool,
    pub node_labels: BTreeMap<String, String>,
    pub taints: Vec<api::core::v1::Taint>,
    pub root_dir: PathBuf,
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    /// Where volumes of the built-in provisioner lie, where this node keeps any.
    pub local_path_dir: Option<PathBuf>,
    pub pod_logs_dir: PathBuf,
    pub container_logs_dir: PathBuf,
    /// Empty: a private containerd.
    pub runtime_endpoint: String,
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    pub static_pods: Option<PathBuf>,
    pub max_pods: i64,
    pub address: IpAddr,
    pub port: u16,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    pub anonymous: bool,
    /// Whether everyone authenticated may do everything, without asking the API server.
    pub always_allow: bool,
    /// Without a slash at its end; `/kubepods` below it holds the pods.
    pub cgroup_root: String,
    pub resolv_conf: PathBuf,
    pub log_max_bytes: u64,
    pub log_max_files: usize,
    pub reserved: BTreeMap<String, meta::Quantity>,
    pub lease_seconds: i32,
    pub seccomp_default: bool,
    pub eviction: Eviction,
    pub image_gc: Policy,
    /// How many images are pulled at once.
    pub parallel_pulls: usize,
}

/// When pods go for want of something.
#[derive(Clone, Debug)]
pub struct Eviction {
    pub thresholds: Vec<Threshold>,
    pub transition_seconds: i64,
    pub max_pod_grace_seconds: i64,
}

impl Options {
    /// Reads the configuration file and brings everything together.
    pub fn settle(&self) -> Result<Settings> {
        let file = match &self.config {
            Some(path) => read_configuration(path)?,
            None => Configuration::default(),
        };
        let eviction = self.eviction(&file)?;
        let image_gc = self.image_gc(&file)?;
        let node_name =
            if self.hostname_override.is_empty() { host_name()? } else { self.hostname_override.clone() };
        let log_size =
            self.container_log_max_size.clone().or(file.container_log_max_size).unwrap_or("10Mi".into());
        let log_max_bytes = meta::Quantity::parse(&log_size)
            .with_context(|| format!("--container-log-max-size {log_size:?}"))?
            .value()
            .unsigned_abs();
        let mode = self.authorization_mode.clone().or(file.authorization.mode).unwrap_or("Webhook".into());
        if !["Webhook", "AlwaysAllow"].contains(&mode.as_str()) {
            bail!("--authorization-mode must be Webhook or AlwaysAllow, not {mode:?}");
        }
        let mut reserved = BTreeMap::new();
        for (name, amount) in file.system_reserved.iter().chain(&file.kube_reserved) {
            let amount = meta::Quantity::parse(amount).with_context(|| format!("reserved {name}"))?;
            let sum: &mut meta::Quantity = reserved.entry(name.clone()).or_default();
            *sum = sum.plus(amount);
        }
        let serialize = self.serialize_image_pulls.or(file.serialize_image_pulls).unwrap_or(true);
        let parallel_pulls = match (serialize, file.max_parallel_image_pulls) {
            (true, None | Some(1)) => 1,
            (true, Some(_)) => {
                bail!("maxParallelImagePulls cannot be larger than 1 unless serializeImagePulls is false")
            }
            (false, Some(0)) => bail!("maxParallelImagePulls must be a positive number"),
            (false, limit) => limit.unwrap_or(PULLS_MAX).min(PULLS_MAX),
        };
        let flag_dns = (!self.cluster_dns.is_empty()).then(|| self.cluster_dns.clone());
        let runtime = Some(self.container_runtime_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
        Ok(Settings {
            node_name: node_name.to_lowercase(),
            node_ips: node_addresses(&self.node_ip)?,
            register_node: self.register_node && file.register_node.unwrap_or(true),
            node_labels: labels(&self.node_labels)?,
            taints: self.register_with_taints.iter().map(|text| taint(text)).collect::<Result<_>>()?,
            root_dir: self.root_dir.clone(),
            data_dir: self.data_dir.clone(),
            run_dir: self.run_dir.clone(),
            local_path_dir: self.local_path_dir.clone(),
            pod_logs_dir: file.pod_logs_dir.unwrap_or_else(|| self.pod_logs_dir.clone()),
            container_logs_dir: self.container_logs_dir.clone(),
            runtime_endpoint: runtime.or(file.container_runtime_endpoint).unwrap_or_default(),
            cluster_dns: flag_dns.unwrap_or(file.cluster_dns),
            cluster_domain: self
                .cluster_domain
                .clone()
                .or(file.cluster_domain)
                .unwrap_or("cluster.local".into()),
            static_pods: self.pod_manifest_path.clone().or(file.static_pod_path),
            max_pods: self.max_pods.or(file.max_pods).unwrap_or(110),
            address: self.address.or(file.address).unwrap_or(IpAddr::from([0, 0, 0, 0])),
            port: self.port.or(file.port).unwrap_or(10250),
            tls_cert: self.tls_cert_file.clone().or(file.tls_cert_file),
            tls_key: self.tls_private_key_file.clone().or(file.tls_private_key_file),
            client_ca: self.client_ca_file.clone().or(file.authentication.x509.client_ca_file),
            anonymous: self.anonymous_auth.or(file.authentication.anonymous.enabled).unwrap_or(false),
            always_allow: mode == "AlwaysAllow",
            cgroup_root: self
                .cgroup_root
                .clone()
                .or(file.cgroup_root)
                .unwrap_or_default()
                .trim_end_matches('/')
                .into(),
            resolv_conf: self.resolv_conf.clone().or(file.resolv_conf).unwrap_or("/etc/resolv.conf".into()),
            log_max_bytes,
            log_max_files: self.container_log_max_files.or(file.container_log_max_files).unwrap_or(5).max(2),
            reserved,
            lease_seconds: file.node_lease_duration_seconds.unwrap_or(40),
            seccomp_default: file.seccomp_default.unwrap_or(false),
            eviction,
            image_gc,
            parallel_pulls,
        })
    }

    fn eviction(&self, file: &Configuration) -> Result<Eviction> {
        let stated = |flags: &[String], separator: char, file: &BTreeMap<String, String>| match flags {
            [] => Ok(file.clone()),
            flags => pairs(flags, separator),
        };
        let hard = match (&self.eviction_hard, &file.eviction_hard) {
            (Some(flags), _) => pairs(flags, '<')?,
            (None, Some(own)) => own.clone(),
            (None, None) => pods::eviction::defaults(),
        };
        let soft = stated(&self.eviction_soft, '<', &file.eviction_soft)?;
        let grace = stated(&self.eviction_soft_grace_period, '=', &file.eviction_soft_grace_period)?
            .into_iter()
            .map(|(name, text)| Ok((name, seconds(&text)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let reclaim = stated(&self.eviction_minimum_reclaim, '=', &file.eviction_minimum_reclaim)?;
        let period = self
            .eviction_pressure_transition_period
            .clone()
            .or(file.eviction_pressure_transition_period.clone())
            .unwrap_or("5m".into());
        Ok(Eviction {
            thresholds: pods::eviction::thresholds(&hard, &soft, &grace, &reclaim)
                .map_err(anyhow::Error::msg)?,
            transition_seconds: seconds(&period)?,
            max_pod_grace_seconds: self
                .eviction_max_pod_grace_period
                .or(file.eviction_max_pod_grace_period)
                .unwrap_or(0),
        })
    }

    fn image_gc(&self, file: &Configuration) -> Result<Policy> {
        let age = |text: &Option<String>, default: &str| seconds(text.as_deref().unwrap_or(default));
        let policy = Policy {
            high_percent: self.image_gc_high_threshold.or(file.image_gc_high_threshold_percent).unwrap_or(85),
            low_percent: self.image_gc_low_threshold.or(file.image_gc_low_threshold_percent).unwrap_or(80),
            min_age_seconds: age(&file.image_minimum_gc_age, "2m")?,
            max_age_seconds: age(&file.image_maximum_gc_age, "0s")?,
        };
        if policy.high_percent > 100 || policy.low_percent > policy.high_percent {
            bail!(
                "imageGCLowThresholdPercent must not be above imageGCHighThresholdPercent, nor that above 100"
            );
        }
        Ok(policy)
    }
}

/// Images pulled at once where nothing limits them: a runtime gains nothing from more.
const PULLS_MAX: usize = 64;

fn pairs(list: &[String], separator: char) -> Result<BTreeMap<String, String>> {
    list.iter()
        .filter(|text| !text.is_empty())
        .map(|text| {
            let (name, value) = text
                .split_once(separator)
                .with_context(|| format!("{text:?}: expected name{separator}value"))?;
            Ok((name.trim().to_string(), value.trim().to_string()))
        })
        .collect()
}

/// A duration in upstream's form, such as `1m30s`, in whole seconds.
fn seconds(text: &str) -> Result<i64> {
    let duration =
        meta::Duration::parse(text).with_context(|| format!("{text:?} is no duration, such as 1m30s"))?;
    Ok(duration.nanos / 1_000_000_000)
}

impl Settings {
    /// The parent of all pods' groups.
    pub fn kubepods(&self) -> String {
        format!("{}/kubepods", self.cgroup_root)
    }
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }
}

fn read_configuration(path: &PathBuf) -> Result<Configuration> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let json = api::codec::yaml_to_json(&text)
        .map_err(|error| anyhow::anyhow!("{} is not YAML: {error}", path.display()))?;
    let file: Configuration = serde_json::from_slice(&json)
        .with_context(|| format!("{} is no KubeletConfiguration", path.display()))?;
    if file.kind != "KubeletConfiguration" {
        bail!("{} holds a {:?}: expected kind KubeletConfiguration", path.display(), file.kind);
    }
    Ok(file)
}

fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("cannot read the host name")?;
    Ok(name.trim().to_string())
}

fn node_addresses(text: &str) -> Result<Vec<IpAddr>> {
    if !text.is_empty() {
        return text
            .split(',')
            .map(|one| one.trim().parse().with_context(|| format!("--node-ip {one:?} is no address")))
            .collect();
    }
    Ok(vec![default_address()])
}

/// The address from which the machine reaches the world; loopback on a machine alone. No packet is sent.
fn default_address() -> IpAddr {
    let probe = || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    probe().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

fn labels(list: &[String]) -> Result<BTreeMap<String, String>> {
    list.iter()
        .map(|pair| {
            let (key, value) = pair
                .split_once('=')
                .with_context(|| format!("--node-labels {pair:?}: expected key=value"))?;
            Ok((key.to_string(), value.to_string()))
        })
        .collect()
}

fn taint(text: &str) -> Result<api::core::v1::Taint> {
    let (pair, effect) = text
        .rsplit_once(':')
        .with_context(|| format!("--register-with-taints {text:?}: expected key=value:effect"))?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    Ok(api::core::v1::Taint {
        key: key.into(),
        value: value.into(),
        effect: effect.into(),
        ..Default::default()
    })
}
