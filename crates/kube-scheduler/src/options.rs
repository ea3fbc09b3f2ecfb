//! The flags, under upstream's names.

use std::time::Duration;

/// Flags of the scheduler.
#[derive(clap::Args, Debug, Clone)]
pub struct Options {
    /// Kubeconfig file with the address of the API server and the scheduler's identity
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// KubeSchedulerConfiguration file (kubescheduler.config.k8s.io/v1); flags that it speaks of are then ignored
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// The port of health and metrics over TLS; 0 serves none
    #[arg(long, value_name = "PORT", default_value_t = 10259)]
    pub secure_port: u16,
    /// The address of health and metrics
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub bind_address: std::net::IpAddr,
    /// The serving certificate; without it one is made up
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<String>,
    /// The key of --tls-cert-file
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<String>,
    /// Schedule only while holding the lease, so that several schedulers can stand by
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,
    /// How long others wait after the last renewal they saw
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long a leader may fail to renew before it gives up
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// The time between two tries to acquire or renew
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    /// The sort of object used as a lock
    #[arg(long, value_name = "RESOURCE", default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    /// The lock's name
    #[arg(long, value_name = "NAME", default_value = "kube-scheduler")]
    pub leader_elect_resource_name: String,
    /// The lock's namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
    /// How long a pod waits at most before it is tried again without an event
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub pod_max_in_unschedulable_pods_duration: Duration,
    /// Who stands for election; made up from the host's name where it is not given.
    #[arg(skip)]
    pub identity: Option<String>,
}

impl Options {
    /// The kubeconfig that is named: by the configuration file, or by the flag.
    pub fn kubeconfig(&self) -> Option<&str> {
        self.kubeconfig.as_deref()
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = meta::Duration::parse(text).and_then(|parsed| u64::try_from(parsed.nanos).ok());
    parsed.map(Duration::from_nanos).ok_or_else(|| format!("{text:?} is no duration such as 15s or 5m"))
}
