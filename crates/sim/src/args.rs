//! The command line of simulated nodes, and what it means for each of them.

use std::path::PathBuf;
use std::time::Duration;

/// Join simulated nodes to a cluster.
#[derive(clap::Args, Clone, Debug)]
pub struct NodesArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub count: u32,
    /// The API server, and an identity that may do what nodes do (an administrator's will)
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Nodes are called by this and a number
    #[arg(long, default_value = "sim-node-")]
    pub prefix: String,
    /// Zones that nodes are spread over
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub zones: u32,
    #[arg(long, default_value = "32")]
    pub cpu: String,
    #[arg(long, default_value = "256Gi")]
    pub memory: String,
    /// Pods that a node takes
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub pods: u32,
    /// How long a container takes to start, about
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "500ms")]
    pub start_delay: Duration,
    /// How long a container takes to stop, about
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "200ms")]
    pub stop_delay: Duration,
    /// How long containers of pods run that are not restarted forever
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub job_length: Duration,
    /// Of 100 starts of a container, so many fail
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub start_failures: f64,
    /// Containers crash about this long after their start; 0 never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub crash_after: Duration,
    /// Of 100 nodes, so many are cut off from the API server for a while
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub partition: f64,
    /// When they are cut off, from the start
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub partition_after: Duration,
    /// How long they are
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub partition_for: Duration,
    /// How long a lease lasts; it is renewed four times as often
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "40s")]
    pub lease: Duration,
    /// How often a node's unchanged status is written
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    pub status_every: Duration,
    /// Write events of pods, too
    #[arg(long)]
    pub events: bool,
    /// Take the not-ready taint off by ourselves, where no controller manager does
    #[arg(long)]
    pub untaint: bool,
    /// Remove the nodes and their leases at the end
    #[arg(long)]
    pub remove: bool,
    /// End after this time; by default when told to
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub length: Option<Duration>,
    /// How often a line of figures is printed; 0 never
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    pub report_every: Duration,
    /// Write the last figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Default for NodesArgs {
    fn default() -> Self {
        NodesArgs {
            count: 10,
            kubeconfig: None,
            prefix: "sim-node-".into(),
            zones: 3,
            cpu: "32".into(),
            memory: "256Gi".into(),
            pods: 110,
            start_delay: Duration::from_millis(500),
            stop_delay: Duration::from_millis(200),
            job_length: Duration::from_secs(2),
            start_failures: 0.0,
            crash_after: Duration::ZERO,
            partition: 0.0,
            partition_after: Duration::from_secs(60),
            partition_for: Duration::from_secs(60),
            lease: Duration::from_secs(40),
            status_every: Duration::from_secs(300),
            events: false,
            untaint: false,
            remove: false,
            length: None,
            report_every: Duration::ZERO,
            json: None,
        }
    }
}

/// `500ms`, `10s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration such as 500ms or 10s"))?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("{text:?} has no unit: ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("10").is_err() && duration("s").is_err() && duration("-1s").is_err());
    }
}
