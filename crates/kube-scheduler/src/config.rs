//! The configuration: flags, or a KubeSchedulerConfiguration file.

use crate::options::{Options, duration};
use anyhow::{Context, bail, ensure};
use client::Timing;
use scheduler::Profile;
use serde::Deserialize;
use serde_json::Value;
use serving::Endpoint;
use std::net::SocketAddr;
use std::time::Duration;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";

/// Everything that the process needs to know.
pub struct Config {
    pub profiles: Vec<Profile>,
    pub election: Option<ElectionConfig>,
    pub queue: crate::queue::Timing,
    pub serving: Option<Endpoint>,
}

/// Which lease, and its times.
pub struct ElectionConfig {
    pub namespace: String,
    pub name: String,
    pub timing: Timing,
}

impl Config {
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        let mut config = Config {
            profiles: vec![Profile::default()],
            election: options.leader_elect.then(|| ElectionConfig {
                namespace: options.leader_elect_resource_namespace.clone(),
                name: options.leader_elect_resource_name.clone(),
                timing: Timing {
                    lease_duration: options.leader_elect_lease_duration,
                    renew_deadline: options.leader_elect_renew_deadline,
                    retry_period: options.leader_elect_retry_period,
                },
            }),
            queue: crate::queue::Timing {
                unschedulable: options.pod_max_in_unschedulable_pods_duration,
                ..Default::default()
            },
            serving: (options.secure_port != 0).then(|| Endpoint {
                address: SocketAddr::new(options.bind_address, options.secure_port),
                files: options.tls_cert_file.clone().zip(options.tls_private_key_file.clone()),
            }),
        };
        if let Some(path) = &options.config {
            let text = std::fs::read(path).with_context(|| format!("reading --config {path}"))?;
            config.apply(&text).with_context(|| format!("--config {path}"))?;
        }
        if let Some(election) = &config.election {
            let timing = &election.timing;
            ensure!(
                timing.lease_duration > timing.renew_deadline && timing.renew_deadline > timing.retry_period,
                "leader election needs lease duration > renew deadline > retry period"
            );
        }
        Ok(config)
    }

    /// Takes what a KubeSchedulerConfiguration says.
    pub fn apply(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let file: File = serde_json::from_slice(&api::codec::yaml_to_json(text)?)?;
        ensure!(
            file.api_version == API_VERSION && file.kind == "KubeSchedulerConfiguration",
            "no kind {:?} is registered for version {:?}",
            file.kind,
            file.api_version
        );
        ensure!(file.extenders.as_ref().is_none_or(Vec::is_empty), "extenders are not supported");
        if let Some(seconds) = file.pod_initial_backoff_seconds {
            self.queue.backoff_initial = Duration::from_secs(seconds);
        }
        if let Some(seconds) = file.pod_max_backoff_seconds {
            self.queue.backoff_max = Duration::from_secs(seconds);
        }
        ensure!(
            !self.queue.backoff_initial.is_zero() && self.queue.backoff_max >= self.queue.backoff_initial,
            "podInitialBackoffSeconds must be positive and podMaxBackoffSeconds not below it"
        );
        self.apply_election(&file.leader_election)?;
        let percentage = file.percentage_of_nodes_to_score.unwrap_or(0);
        let profiles = file.profiles.unwrap_or_default();
        if profiles.is_empty() {
            for profile in &mut self.profiles {
                profile.percentage_of_nodes_to_score = percentage;
            }
            return Ok(());
        }
        self.profiles =
            profiles.into_iter().map(|from| from.into_profile(percentage)).collect::<Result<_, _>>()?;
        for (at, profile) in self.profiles.iter().enumerate() {
            let name = &profile.scheduler_name;
            ensure!(
                !self.profiles[..at].iter().any(|earlier| earlier.scheduler_name == *name),
                "duplicate profile with scheduler name {name:?}"
            );
        }
        Ok(())
    }

    fn apply_election(&mut self, from: &LeaderElection) -> anyhow::Result<()> {
        if from.leader_elect == Some(false) {
            self.election = None;
            return Ok(());
        }
        let text = |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.into());
        let time = |value: &Option<String>, default: &str| {
            duration(value.as_deref().unwrap_or(default)).map_err(anyhow::Error::msg)
        };
        self.election = Some(ElectionConfig {
            namespace: text(&from.resource_namespace, "kube-system"),
            name: text(&from.resource_name, "kube-scheduler"),
            timing: Timing {
                lease_duration: time(&from.lease_duration, "15s")?,
                renew_deadline: time(&from.renew_deadline, "10s")?,
                retry_period: time(&from.retry_period, "2s")?,
            },
        });
        Ok(())
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    percentage_of_nodes_to_score: Option<u32>,
    pod_initial_backoff_seconds: Option<u64>,
    pod_max_backoff_seconds: Option<u64>,
    leader_election: LeaderElection,
    profiles: Option<Vec<ProfileFile>>,
    extenders: Option<Vec<Value>>,
    /// Known and without effect here: one thread decides, the client is given, caches fill at once.
    #[serde(rename = "parallelism")]
    _parallelism: Option<Value>,
    #[serde(rename = "clientConnection")]
    _client_connection: Option<Value>,
    #[serde(rename = "delayCacheUntilActive")]
    _delay_cache_until_active: Option<Value>,
    #[serde(rename = "enableProfiling")]
    _enable_profiling: Option<Value>,
    #[serde(rename = "enableContentionProfiling")]
    _enable_contention_profiling: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct LeaderElection {
    leader_elect: Option<bool>,
    lease_duration: Option<String>,
    renew_deadline: Option<String>,
    retry_period: Option<String>,
    #[serde(rename = "resourceLock")]
    _resource_lock: Option<String>,
    resource_name: Option<String>,
    resource_namespace: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ProfileFile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<u32>,
    plugins: std::collections::BTreeMap<String, PluginSet>,
    plugin_config: Option<Vec<PluginConfig>>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct PluginSet {
    enabled: Vec<Plugin>,
    disabled: Vec<Plugin>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Plugin {
    name: String,
    weight: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

impl ProfileFile {
    fn into_profile(self, percentage: u32) -> anyhow::Result<Profile> {
        let mut profile = Profile {
            scheduler_name: self.scheduler_name.unwrap_or_else(|| "default-scheduler".into()),
            percentage_of_nodes_to_score: self.percentage_of_nodes_to_score.unwrap_or(percentage),
            ..Default::default()
        };
        for (point, set) in &self.plugins {
            for plugin in &set.disabled {
                match point.as_str() {
                    "multiPoint" => profile.disable(&plugin.name),
                    "filter" => profile.filters.retain(|own| !matches(&plugin.name, own.name)),
                    "score" => profile.scores.retain(|(own, _)| !matches(&plugin.name, own.name)),
                    "postFilter" if matches(&plugin.name, "DefaultPreemption") => profile.preemption = false,
                    // Preparing and scoring go together here: without its filter or score a plugin prepares nothing.
                    "preFilter" | "preScore" | "postFilter" | "queueSort" | "preEnqueue" | "reserve"
                    | "permit" | "preBind" | "bind" | "postBind" => {}
                    other => bail!("unknown extension point {other:?}"),
                }
            }
        }
        for plugin in self.plugins.values().flat_map(|set| &set.enabled) {
            ensure!(
                profile.enable(&plugin.name, plugin.weight.unwrap_or(0)),
                "unknown plugin {:?}",
                plugin.name
            );
        }
        for config in self.plugin_config.unwrap_or_default() {
            configure(&mut profile, &config)?;
        }
        Ok(profile)
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern == "*" || pattern == name
}

fn configure(profile: &mut Profile, config: &PluginConfig) -> anyhow::Result<()> {
    for (field, value) in config.args.as_object().into_iter().flatten() {
        match (config.name.as_str(), field.as_str(), value) {
            (_, "apiVersion" | "kind", _) => {}
            ("InterPodAffinity", "hardPodAffinityWeight", value) if value.is_i64() => {
                profile.hard_pod_affinity_weight = value.as_i64().unwrap_or(1);
            }
            (name, field, _) => bail!("pluginConfig of {name}: {field} is not supported"),
        }
    }
    Ok(())
}
