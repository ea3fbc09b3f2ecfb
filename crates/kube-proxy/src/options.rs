//! The flags, under upstream's names, and the KubeProxyConfiguration file that may stand in their place.

use anyhow::{Context, bail, ensure};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";

/// Flags of the service proxy.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// Kubeconfig file with the address of the API server and the proxy's identity
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// KubeProxyConfiguration file (kubeproxy.config.k8s.io/v1alpha1); flags that it speaks of are then ignored
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Name of this node; the machine's name when not given
    #[arg(long, value_name = "NAME", default_value = "")]
    pub hostname_override: String,
    /// How services are implemented
    #[arg(long, value_name = "MODE", default_value = "nftables", value_parser = ["nftables"])]
    pub proxy_mode: String,
    /// Ranges of pods' addresses, comma separated, at most one per IP family; traffic to services from elsewhere is
    /// masqueraded
    #[arg(long, value_name = "CIDRS", default_value = "")]
    pub cluster_cidr: String,
    /// Overrides the node's primary address; an unspecified address leaves it
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Address and port of the health endpoints; empty to serve none
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    /// Address and port of the metrics; empty to serve none
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,
    /// Ranges of the node's addresses that node ports are served at, comma separated, or "primary" for its primary ones
    #[arg(long, value_name = "CIDRS", default_value = "primary")]
    pub nodeport_addresses: String,
    /// Masquerade all traffic to cluster addresses
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub masquerade_all: bool,
    /// Bit of the packet mark that asks for masquerading
    #[arg(long, value_name = "BIT", default_value_t = 14, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub nftables_masquerade_bit: u8,
    /// Least time between two changes of the rules; 0 changes them at once
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub nftables_min_sync_period: Duration,
    /// How often the rules are written whole, in case something else changed them; 0 for never
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub nftables_sync_period: Duration,
    /// Remove the proxy's rules and exit
    #[arg(long)]
    pub cleanup: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = meta::Duration::parse(text).and_then(|parsed| u64::try_from(parsed.nanos).ok());
    parsed.map(Duration::from_nanos).ok_or_else(|| format!("{text:?} is no duration such as 15s or 5m"))
}

/// At which of the node's addresses node ports are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    Primary,
    Within(Vec<IpNet>),
}

/// Everything that the process needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub cluster_cidrs: Vec<IpNet>,
    pub primary_address: Option<IpAddr>,
    pub healthz_bind_address: Option<SocketAddr>,
    pub metrics_bind_address: Option<SocketAddr>,
    pub node_port_addresses: NodePortAddresses,
    pub masquerade_all: bool,
    pub masquerade_mark: u32,
    pub min_sync_period: Duration,
    /// Zero for never.
    pub sync_period: Duration,
}

impl Config {
    pub fn load(options: &Options) -> anyhow::Result<Config> {
        let mut options = options.clone();
        if let Some(path) = options.config.clone() {
            let text = std::fs::read(&path).with_context(|| format!("reading --config {path}"))?;
            let file: File = api::codec::yaml_to_json(&text)
                .map_err(anyhow::Error::from)
                .and_then(|json| Ok(serde_json::from_slice(&json)?))
                .with_context(|| format!("--config {path}"))?;
            file.apply(&mut options).with_context(|| format!("--config {path}"))?;
        }
        let node_name = match options.hostname_override.trim() {
            "" => machine_name()?,
            name => name.to_lowercase(),
        };
        let node_port_addresses = match options.nodeport_addresses.as_str() {
            "" | "primary" => NodePortAddresses::Primary,
            text => NodePortAddresses::Within(nets(text).context("--nodeport-addresses")?),
        };
        Ok(Config {
            node_name,
            cluster_cidrs: nets(&options.cluster_cidr).context("--cluster-cidr")?,
            primary_address: Some(options.bind_address).filter(|address| !address.is_unspecified()),
            healthz_bind_address: address(&options.healthz_bind_address, 10256)
                .context("--healthz-bind-address")?,
            metrics_bind_address: address(&options.metrics_bind_address, 10249)
                .context("--metrics-bind-address")?,
            node_port_addresses,
            masquerade_all: options.masquerade_all,
            masquerade_mark: 1 << options.nftables_masquerade_bit,
            min_sync_period: options.nftables_min_sync_period,
            sync_period: options.nftables_sync_period,
        })
    }
}

fn machine_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the machine's name")?;
    Ok(name.trim().to_lowercase())
}

fn nets(text: &str) -> anyhow::Result<Vec<IpNet>> {
    text.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse::<IpNet>().map(|net| net.trunc()).with_context(|| format!("{text:?} is no CIDR"))
        })
        .collect()
}

/// Reads `IP:PORT` or a lone IP; empty means none.
fn address(text: &str, default_port: u16) -> anyhow::Result<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed =
        text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, default_port).into()));
    match parsed {
        Ok(address) => Ok(Some(address)),
        Err(_) => bail!("{text:?} is no IP:PORT"),
    }
}

/// The parts of a KubeProxyConfiguration that this proxy knows.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    bind_address: Option<IpAddr>,
    healthz_bind_address: Option<String>,
    metrics_bind_address: Option<String>,
    hostname_override: Option<String>,
    client_connection: ClientConnection,
    mode: Option<String>,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    node_port_addresses: Option<Vec<String>>,
    nftables: Nftables,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ClientConnection {
    kubeconfig: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Nftables {
    masquerade_bit: Option<u8>,
    masquerade_all: Option<bool>,
    sync_period: Option<String>,
    min_sync_period: Option<String>,
}

impl File {
    fn apply(self, options: &mut Options) -> anyhow::Result<()> {
        ensure!(
            self.api_version == API_VERSION && self.kind == "KubeProxyConfiguration",
            "no kind {:?} is registered for version {:?}",
            self.kind,
            self.api_version
        );
        match self.mode.as_deref() {
            None | Some("" | "nftables") => {}
            Some(mode) => bail!("mode {mode:?} is not supported: this proxy has mode nftables only"),
        }
        fn take<T>(from: Option<T>, to: &mut T) {
            if let Some(value) = from {
                *to = value;
            }
        }
        take(self.bind_address, &mut options.bind_address);
        take(self.healthz_bind_address, &mut options.healthz_bind_address);
        take(self.metrics_bind_address, &mut options.metrics_bind_address);
        take(self.hostname_override, &mut options.hostname_override);
        take(self.cluster_cidr, &mut options.cluster_cidr);
        take(self.node_port_addresses.map(|list| list.join(",")), &mut options.nodeport_addresses);
        take(self.nftables.masquerade_all, &mut options.masquerade_all);
        if let Some(bit) = self.nftables.masquerade_bit {
            ensure!(bit < 32, "nftables.masqueradeBit must be within 0 to 31");
            options.nftables_masquerade_bit = bit;
        }
        for (text, to) in [
            (self.nftables.sync_period, &mut options.nftables_sync_period),
            (self.nftables.min_sync_period, &mut options.nftables_min_sync_period),
        ] {
            if let Some(text) = text {
                *to = duration(&text).map_err(anyhow::Error::msg)?;
            }
        }
        if options.kubeconfig.is_none() {
            options.kubeconfig = self.client_connection.kubeconfig.filter(|path| !path.is_empty());
        }
        Ok(())
    }
}
