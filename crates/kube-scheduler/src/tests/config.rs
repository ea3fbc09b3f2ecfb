//! Flags and configuration files.

use crate::config::Config;
use crate::options::Options;
use clap::Args;
use std::time::Duration;

fn options(flags: &[&str]) -> Result<Options, clap::Error> {
    let command = Options::augment_args(clap::Command::new("kube-scheduler")).no_binary_name(true);
    <Options as clap::FromArgMatches>::from_arg_matches(&command.try_get_matches_from(flags)?)
}

fn config(text: &str) -> Result<Config, String> {
    let mut config = Config::load(&options(&[]).unwrap()).unwrap();
    let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
    config.apply(format!("{head}{text}").as_bytes()).map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn flags_have_upstreams_defaults() {
    let config = Config::load(&options(&[]).unwrap()).unwrap();
    let election = config.election.unwrap();
    assert_eq!((election.namespace.as_str(), election.name.as_str()), ("kube-system", "kube-scheduler"));
    assert_eq!(election.timing.lease_duration, Duration::from_secs(15));
    assert_eq!(config.queue.unschedulable, Duration::from_secs(300));
    assert!(Config::load(&options(&["--leader-elect=false"]).unwrap()).unwrap().election.is_none());
    assert!(Config::load(&options(&["--leader-elect"]).unwrap()).unwrap().election.is_some());
    assert!(options(&["--leader-elect-retry-period=soon"]).is_err());
    assert!(Config::load(&options(&["--leader-elect-renew-deadline=20s"]).unwrap()).is_err());
}

#[test]
fn profiles_change_plugins_and_weights() {
    let config = config(
        "percentageOfNodesToScore: 70
podMaxBackoffSeconds: 20
leaderElection: {leaderElect: false}
profiles:
- schedulerName: packed
  plugins:
    score:
      disabled: [{name: '*'}]
      enabled: [{name: ImageLocality, weight: 7}]
    multiPoint:
      disabled: [{name: PodTopologySpread}, {name: DefaultPreemption}]
  pluginConfig:
  - name: InterPodAffinity
    args: {hardPodAffinityWeight: 5}
- schedulerName: default-scheduler
",
    )
    .unwrap();
    assert!(config.election.is_none());
    assert_eq!(config.queue.backoff_max, Duration::from_secs(20));
    let packed = &config.profiles[0];
    let scores: Vec<_> =
        packed.scores.iter().map(|(score, weight)| format!("{} {weight}", score.name)).collect();
    assert_eq!(scores, ["ImageLocality 7"]);
    assert!(!packed.preemption && packed.filters.iter().all(|filter| filter.name != "PodTopologySpread"));
    assert_eq!((packed.percentage_of_nodes_to_score, packed.hard_pod_affinity_weight), (70, 5));
    assert_eq!(config.profiles[1].filters.len(), packed.filters.len() + 1);
}

#[test]
fn what_is_not_understood_is_refused() {
    let error = |text: &str| config(text).err().unwrap();
    assert!(error("profile: []").contains("unknown field `profile`"));
    assert_eq!(
        error("profiles: [{plugins: {filter: {enabled: [{name: Nope}]}}}]"),
        "unknown plugin \"Nope\""
    );
    assert_eq!(
        error("profiles: [{schedulerName: a}, {schedulerName: a}]"),
        "duplicate profile with scheduler name \"a\""
    );
    assert_eq!(
        error("profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {}}}]}]"),
        "pluginConfig of NodeResourcesFit: scoringStrategy is not supported"
    );
    assert!(error("podInitialBackoffSeconds: 0").contains("podInitialBackoffSeconds"));
}
