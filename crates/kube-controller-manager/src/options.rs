//! The flags: upstream's names and defaults, for what this controller manager has.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of kube-controller-manager.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Path to a kubeconfig file with authorization and API server location.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,

    /// The port of health and metrics over TLS; 0 serves none.
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,

    /// The address of health and metrics.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: std::net::IpAddr,

    /// The serving certificate; without it one is made up.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<String>,

    /// The key of --tls-cert-file.
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<String>,

    /// Who may read metrics is asked of the API server with the process's own kubeconfig; this one is accepted and not
    /// read.
    #[arg(long)]
    pub authentication_kubeconfig: Option<PathBuf>,

    /// As --authentication-kubeconfig.
    #[arg(long)]
    pub authorization_kubeconfig: Option<PathBuf>,

    /// Controllers to enable: '*' for all that are on by default, 'foo' for one, '-foo' to leave one out.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    pub controllers: Vec<String>,

    /// Elect a leader before running the controllers.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// How long others wait after the last renewal they saw.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,

    /// How long the leader tries to renew before it gives up.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,

    /// How long to wait between two tries.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,

    /// The sort of object that is locked; only leases are supported.
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,

    /// The name of the lease.
    #[arg(long, default_value = "kube-controller-manager")]
    pub leader_elect_resource_name: String,

    /// The namespace of the lease.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,

    /// Run each controller with its own service account.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub use_service_account_credentials: bool,

    /// A root certificate authority that is published to every namespace.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,

    /// A PEM private key to sign service account tokens with.
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,

    /// A certificate authority that signs requests of all of Kubernetes' own signers.
    #[arg(long)]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Its private key.
    #[arg(long)]
    pub cluster_signing_key_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub cluster_signing_legacy_unknown_key_file: Option<PathBuf>,

    /// The longest time that a signed certificate is good for.
    #[arg(long, default_value = "8760h0m0s", value_parser = duration)]
    pub cluster_signing_duration: Duration,

    /// How long a token of the old sort may be unused before it is cleaned up.
    #[arg(long, default_value = "8760h0m0s", value_parser = duration)]
    pub legacy_service_account_token_clean_up_period: Duration,

    #[arg(long, default_value_t = 5)]
    pub concurrent_serviceaccount_token_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_rc_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_statefulset_syncs: usize,
    #[arg(long, default_value_t = 2)]
    pub concurrent_daemonset_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_job_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_cron_job_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_ttl_after_finished_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_ephemeralvolume_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,

    #[arg(long, default_value_t = 5)]
    pub mirroring_concurrent_service_endpoint_syncs: usize,

    /// The most addresses of one Endpoints subset that are mirrored.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub mirroring_max_endpoints_per_subset: u32,

    #[arg(long, default_value_t = 5)]
    pub concurrent_horizontal_pod_autoscaler_syncs: usize,

    /// How often the metrics of autoscaled targets are looked at.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub horizontal_pod_autoscaler_sync_period: Duration,
    /// For how long a higher recommendation holds against a scale down.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub horizontal_pod_autoscaler_downscale_stabilization: Duration,
    /// How far usage may be off, as a share of the target, before anything is done.
    #[arg(long, default_value_t = 0.1)]
    pub horizontal_pod_autoscaler_tolerance: f64,
    /// After a pod's start, for how long its processor use may not count.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Duration,
    /// After a pod's start, for how long a change of readiness is the first one.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Duration,

    #[arg(long, default_value_t = 50)]
    pub concurrent_resource_claim_syncs: usize,
    #[arg(long, default_value_t = 5)]
    pub concurrent_resource_quota_syncs: usize,

    /// How often the usage of all quotas is counted anew.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub resource_quota_sync_period: Duration,

    /// The most endpoints of one EndpointSlice.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_endpoints_per_slice: u32,

    /// How long a node may be silent before it is Unknown.
    #[arg(long, default_value = "50s", value_parser = duration)]
    pub node_monitor_grace_period: Duration,

    /// The same for a node that has never been ready.
    #[arg(long, default_value = "1m", value_parser = duration)]
    pub node_startup_grace_period: Duration,

    /// Leave volumes attached to unhealthy nodes, however long they stay mounted.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub disable_force_detach_on_timeout: bool,

    /// Nodes a second whose pods are let go while their zone is healthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f64,

    /// The same while it is not; in clusters of up to --large-cluster-size-threshold nodes none are then.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f64,

    /// Up to how many nodes a zone is small.
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: usize,

    /// From which part of its nodes on, and at least three, a zone is unhealthy.
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f64,

    /// How many finished pods may stay; 0 for any number.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: usize,

    /// Collect objects whose owners are gone.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_garbage_collector: bool,

    /// Give each node a range of pod addresses out of --cluster-cidr.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allocate_node_cidrs: bool,

    /// The range of pod addresses of the cluster.
    #[arg(long)]
    pub cluster_cidr: Option<String>,

    /// The range of service addresses, which no node is given.
    #[arg(long)]
    pub service_cluster_ip_range: Option<String>,

    /// The prefix length of a node's range.
    #[arg(long, default_value_t = 24)]
    pub node_cidr_mask_size: u8,

    /// The name of the cluster, as cloud resources are named after it.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,

    /// Who stands for election; made up from the host's name where it is not given.
    #[arg(skip)]
    pub identity: Option<String>,
}

impl Options {
    /// The defaults of the flags, for whoever starts the controllers without a command line.
    pub fn defaults() -> Self {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        <Line as clap::Parser>::parse_from([env!("CARGO_PKG_NAME")]).options
    }

    /// Whether a controller is to run. The last word on a name counts.
    pub fn enables(&self, name: &str, by_default: bool) -> bool {
        let mut enabled = false;
        for word in &self.controllers {
            match word.strip_prefix('-') {
                Some(left_out) if left_out == name => return false,
                Some(_) => {}
                None if word == name => return true,
                None => enabled |= word == "*" && by_default,
            }
        }
        enabled
    }
}

/// A duration as Go writes it: `1h30m`, `50s`, `100ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err("a duration is required, such as 10s".into());
    }
    if rest == "0" {
        return Ok(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 =
            rest[..digits].parse().map_err(|_| format!("{text:?} is no duration, such as 10s"))?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            "us" | "µs" => 0.000_001,
            "ns" => 0.000_000_001,
            _ => return Err(format!("{text:?} lacks a unit: h, m, s, ms")),
        };
        rest = &rest[letters..];
        total += Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(words: &[&str]) -> Options {
        Line::try_parse_from([&["kube-controller-manager"], words].concat())
            .expect("the flags are known")
            .options
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert!(duration("10").is_err());
        assert!(duration("").is_err());
    }

    #[test]
    fn controllers_are_chosen_by_name() {
        let all = parse(&[]);
        assert!(all.enables("deployment-controller", true));
        assert!(!all.enables("bootstrap-signer-controller", false));
        let some = parse(&["--controllers=*,-deployment-controller,bootstrap-signer-controller"]);
        assert!(!some.enables("deployment-controller", true));
        assert!(some.enables("replicaset-controller", true));
        assert!(some.enables("bootstrap-signer-controller", false));
        let one = parse(&["--controllers", "deployment-controller"]);
        assert!(one.enables("deployment-controller", true));
        assert!(!one.enables("replicaset-controller", true));
    }

    #[test]
    fn switches_take_values_or_none() {
        assert!(parse(&["--leader-elect"]).leader_elect);
        assert!(!parse(&["--leader-elect=false"]).leader_elect);
        assert!(parse(&["--allocate-node-cidrs=true"]).allocate_node_cidrs);
        assert_eq!(parse(&["--node-monitor-grace-period=40s"]).node_monitor_grace_period.as_secs(), 40);
    }
}
