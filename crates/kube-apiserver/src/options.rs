//! The flags, under upstream's names; and the checks that make a bad combination one clear line.

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of the API server.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// etcd servers to keep objects in, comma separated. Without them objects are kept in --data-dir.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// How often history is compacted away in etcd; 0 leaves it to others.
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub etcd_compaction_interval: Duration,
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// Folder of the embedded store and of certificates that are made when none are given.
    #[arg(long, default_value = "/var/lib/timonel")]
    pub data_dir: PathBuf,
    /// etcd3, embedded or memory; by default etcd3 with --etcd-servers, else embedded.
    #[arg(long, default_value = "")]
    pub storage_backend: String,

    /// An EncryptionConfiguration: which resources are kept encrypted in the store, and how.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Read --encryption-provider-config again when it changes.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub encryption_provider_config_automatic_reload: bool,

    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Address by which members of the cluster reach this server; by default the one of the default route.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Where a self-signed certificate is kept when no --tls-cert-file is given.
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Reach Services of webhooks and aggregated servers at their endpoints instead of their cluster address.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_aggregator_routing: bool,
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,

    /// Issuer of service account tokens; the first one signs, all are accepted.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub service_account_key_file: Vec<PathBuf>,
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub service_account_max_token_expiration: Duration,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub service_account_extend_token_expiration: bool,
    #[arg(long, default_value = "")]
    pub service_account_jwks_uri: String,

    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub anonymous_auth: bool,
    /// Lines of token,user,uid,"group1,group2".
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_bootstrap_token_auth: bool,
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    pub authorization_mode: Vec<String>,

    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: String,
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: String,

    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    #[arg(long, value_parser = duration, default_value = "5s")]
    pub kubelet_timeout: Duration,

    #[arg(long, value_parser = duration, default_value = "1h")]
    pub event_ttl: Duration,
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_priority_and_fairness: bool,
    #[arg(long, value_parser = duration, default_value = "1m")]
    pub request_timeout: Duration,
    /// Shortest time after which a watch without timeoutSeconds is ended; each gets up to twice as long.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,

    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// An AdmissionConfiguration; its webhook plugins may name a kubeconfig to authenticate to webhooks with.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    /// `group/version=true` or `=false`; api/all, api/beta, api/alpha, api/ga too.
    #[arg(long, value_delimiter = ',')]
    pub runtime_config: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub allow_privileged: bool,
    #[arg(long, default_value_t = 300)]
    pub default_not_ready_toleration_seconds: i64,
    #[arg(long, default_value_t = 300)]
    pub default_unreachable_toleration_seconds: i64,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub profiling: bool,
    #[command(flatten)]
    pub audit: crate::audit::AuditFlags,
    #[arg(long, default_value_t = 1)]
    pub apiserver_count: u32,
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub shutdown_delay_duration: Duration,
}

/// Where objects are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Etcd,
    Embedded,
    Memory,
}

/// Go's duration: `1h30m`, `90s`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0f64);
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let value: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        total += value * seconds;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| invalid())
}

impl Options {
    /// The defaults of the flags, for whoever starts a server without a command line.
    pub fn defaults() -> Self {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Wrapper {
            #[command(flatten)]
            options: Options,
        }
        Wrapper::parse_from(["kube-apiserver"]).options
    }

    pub fn backend(&self) -> Result<Backend> {
        match self.storage_backend.as_str() {
            "" if self.etcd_servers.is_empty() => Ok(Backend::Embedded),
            "" => Ok(Backend::Etcd),
            "etcd3" if self.etcd_servers.is_empty() => bail!("--etcd-servers must be specified"),
            "etcd3" => Ok(Backend::Etcd),
            "embedded" => Ok(Backend::Embedded),
            "memory" => Ok(Backend::Memory),
            other => bail!("--storage-backend: {other:?} is not one of etcd3, embedded, memory"),
        }
    }

    pub fn service_range(&self) -> Result<IpNet> {
        // A second range, for dual stack, is not taken yet.
        let first = self.service_cluster_ip_range.split(',').next().unwrap_or_default();
        let range: IpNet = first
            .parse()
            .with_context(|| format!("--service-cluster-ip-range: {first:?} is not a range of addresses"))?;
        let room = range.max_prefix_len() - range.prefix_len();
        if room < 3 {
            bail!("--service-cluster-ip-range: the range must be at least 8 IP addresses");
        }
        Ok(range.trunc())
    }

    /// Lowest and highest node port, both included.
    pub fn node_ports(&self) -> Result<(u16, u16)> {
        let text = &self.service_node_port_range;
        let parsed = match (text.split_once('-'), text.split_once('+')) {
            (Some((low, high)), _) => low.parse().ok().zip(high.parse().ok()),
            (_, Some((low, more))) => low
                .parse()
                .ok()
                .zip(more.parse().ok())
                .and_then(|(low, more): (u16, u16)| Some((low, low.checked_add(more)?))),
            _ => text.parse().ok().map(|port| (port, port)),
        };
        match parsed {
            Some((low, high)) if low <= high => Ok((low, high)),
            _ => bail!("--service-node-port-range: {text:?} is not a range of ports such as 30000-32767"),
        }
    }

    pub fn modes(&self) -> Result<Vec<authz::Mode>> {
        self.authorization_mode
            .iter()
            .map(|name| {
                authz::Mode::parse(name).with_context(|| {
                    format!(
                        "--authorization-mode: {name:?} is not one of AlwaysAllow, AlwaysDeny, Node, RBAC"
                    )
                })
            })
            .collect()
    }

    /// The first issuer signs.
    pub fn issuers(&self) -> Vec<String> {
        if self.service_account_issuer.is_empty() {
            vec!["https://kubernetes.default.svc.cluster.local".into()]
        } else {
            self.service_account_issuer.clone()
        }
    }

    /// What tokens must be good for by default: --api-audiences, else the issuers.
    pub fn audiences(&self) -> Vec<String> {
        if self.api_audiences.is_empty() { self.issuers() } else { self.api_audiences.clone() }
    }

    /// Whether a version of a group is served; `default` is what the version's stability says.
    pub fn serves(&self, group: &str, version: &str, default: bool) -> bool {
        let stage = if version.contains("alpha") {
            "api/alpha"
        } else if version.contains("beta") {
            "api/beta"
        } else {
            "api/ga"
        };
        let named = if group.is_empty() { format!("api/{version}") } else { format!("{group}/{version}") };
        let setting = |name: &str| {
            self.runtime_config.iter().rev().find_map(|entry| {
                let (key, value) = entry.split_once('=').unwrap_or((entry, "true"));
                (key == name).then_some(value != "false" && value != "0")
            })
        };
        // The narrower setting wins over the wider.
        setting(&named).or_else(|| setting(stage)).or_else(|| setting("api/all")).unwrap_or(default)
    }

    /// Whether a feature gate was set; `default` otherwise.
    pub fn gate(&self, name: &str, default: bool) -> bool {
        self.feature_gates
            .iter()
            .rev()
            .find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name))
            .map_or(default, |(_, value)| value.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_as_upstream_reads_them() {
        let mut options = Options::defaults();
        assert_eq!(options.node_ports().unwrap(), (30000, 32767));
        assert_eq!(duration("1h30m").unwrap().as_secs(), 5400);
        assert!(duration("5").is_err());
        assert!(options.serves("apps", "v1", true));
        options.runtime_config = vec!["api/alpha=true".into(), "apps/v1=false".into()];
        assert!(!options.serves("apps", "v1", true));
        assert!(options.serves("x", "v1alpha1", false));
        options.service_cluster_ip_range = "10.0.0.0/30".into();
        assert!(options.service_range().is_err());
    }
}
