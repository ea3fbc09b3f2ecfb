//! The flags.

use anyhow::{Context, ensure};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Flags of the cluster DNS server.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// Kubeconfig file with the address of the API server and the server's identity
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// Addresses of the cluster DNS service, comma separated, at most one per IP family
    #[arg(long, value_name = "IPS", default_value = "10.96.0.10")]
    pub cluster_dns: String,
    /// Domain of the cluster
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Ranges of services' addresses, comma separated: whether one of them has a name is for this server to say
    #[arg(long, value_name = "CIDRS", default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: String,
    /// Ranges of pods' addresses, comma separated, as above
    #[arg(long, value_name = "CIDRS", default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    /// Port at which queries are answered
    #[arg(long, value_name = "PORT", default_value_t = 53)]
    pub port: u16,
    /// More addresses at which queries are answered, comma separated; these are not added to the node
    #[arg(long, value_name = "IPS", default_value = "")]
    pub listen: String,
    /// File that names the resolvers for names outside the cluster
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// How long the cluster's records may be remembered by others, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub ttl: u32,
    /// Address and port of the health and readiness endpoints; empty to serve none
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8181")]
    pub ready_bind_address: String,
}

/// Everything that the process needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub addresses: Vec<IpAddr>,
    pub more_addresses: Vec<IpAddr>,
    pub port: u16,
    pub domain: String,
    pub reverse_ranges: Vec<IpNet>,
    pub resolv_conf: PathBuf,
    pub ttl_seconds: u32,
    pub ready_address: Option<SocketAddr>,
}

impl Config {
    pub fn load(options: &Options) -> anyhow::Result<Config> {
        let mut reverse_ranges =
            list::<IpNet>(&options.service_cluster_ip_range).context("--service-cluster-ip-range")?;
        reverse_ranges.extend(list::<IpNet>(&options.cluster_cidr).context("--cluster-cidr")?);
        let ready = options.ready_bind_address.as_str();
        let config = Config {
            addresses: list(&options.cluster_dns).context("--cluster-dns")?,
            more_addresses: list(&options.listen).context("--listen")?,
            port: options.port,
            domain: options.cluster_domain.trim_end_matches('.').to_lowercase(),
            reverse_ranges,
            resolv_conf: options.resolv_conf.clone(),
            ttl_seconds: options.ttl,
            ready_address: match ready {
                "" => None,
                text => Some(
                    text.parse().with_context(|| format!("--ready-bind-address: {text:?} is no IP:PORT"))?,
                ),
            },
        };
        ensure!(
            !config.addresses.is_empty() || !config.more_addresses.is_empty(),
            "neither --cluster-dns nor --listen names an address to answer at"
        );
        Ok(config)
    }

    pub fn listeners(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.addresses.iter().chain(&self.more_addresses).map(|address| SocketAddr::new(*address, self.port))
    }
}

fn list<T: std::str::FromStr>(text: &str) -> anyhow::Result<Vec<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().with_context(|| format!("{text:?} is not one of the form wanted")))
        .collect()
}
