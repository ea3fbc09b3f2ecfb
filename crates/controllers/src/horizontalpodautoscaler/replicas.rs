//! How many replicas a metric asks for.
//!
//! Pods that are not measured count against a change: as much as wanted where it would be down, nothing where it would
//! be up; pods that are not ready count as nothing where it would be up.

use super::metrics::{PodMetric, PodMetrics};
use crate::pod;
use api::core::v1::Pod;
use meta::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far usage may be off before anything is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn allow(&self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// When the first measurements of a pod count.
#[derive(Clone, Copy, Debug)]
pub struct Startup {
    /// After its start, measurements of a pod that is not ready, or that reach back to before it was, do not count.
    pub cpu_seconds: i64,
    /// A pod that became unready so soon after its start has never been ready.
    pub readiness_seconds: i64,
}

/// The pods of a target, and from what they are judged.
pub(super) struct Pods<'a> {
    pub pods: &'a [Arc<Pod>],
    pub now: Time,
    pub startup: Startup,
    pub tolerances: Tolerances,
    pub current: i32,
}

#[derive(Default)]
struct Groups {
    ready: usize,
    unready: Vec<String>,
    missing: Vec<String>,
    ignored: Vec<String>,
}

/// The ceiling, within what a number of replicas can be.
fn ceil(value: f64) -> i32 {
    // The cast saturates; a ratio that is no number asks for none.
    value.ceil() as i32
}

impl Pods<'_> {
    fn group(&self, metrics: &PodMetrics, resource: &str) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.metadata.name.clone();
            if pod.metadata.deletion_timestamp.is_some() || pod.status.phase == "Failed" {
                groups.ignored.push(name);
            } else if pod.status.phase == "Pending" {
                groups.unready.push(name);
            } else if let Some(metric) = metrics.get(&name) {
                if resource == "cpu" && self.is_starting(pod, metric) {
                    groups.unready.push(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.push(name);
            }
        }
        groups
    }

    fn is_starting(&self, pod: &Pod, metric: &PodMetric) -> bool {
        let (Some(ready), Some(start)) = (pod::condition(pod, "Ready"), pod.status.start_time) else {
            return true;
        };
        let since = ready.last_transition_time.map_or(0, |time| time.seconds());
        let unready = ready.status == "False";
        if start.seconds() + self.startup.cpu_seconds > self.now.seconds() {
            unready || metric.at.is_some_and(|at| at.seconds() < since + metric.window_seconds)
        } else {
            unready && start.seconds() + self.startup.readiness_seconds > since
        }
    }

    /// Replicas for a use of so much, on average; with the use as it is.
    pub(super) fn for_average(
        &self,
        metrics: PodMetrics,
        target: i64,
        resource: &str,
    ) -> Result<(i32, i64), String> {
        let average = |metrics: &PodMetrics| {
            let count = i64::try_from(metrics.len()).unwrap_or(i64::MAX).max(1);
            metrics.values().map(|metric| metric.value).fold(0, i64::saturating_add) / count
        };
        let ratio = |metrics: &PodMetrics| Ok(average(metrics) as f64 / target as f64);
        let (replicas, counted) = self.compute(metrics, resource, &ratio, &|_| target)?;
        Ok((replicas, average(&counted)))
    }

    /// Replicas for a use of so many percent of what is requested; with the percentage, and the use on average.
    pub(super) fn for_utilization(
        &self,
        metrics: PodMetrics,
        target: i32,
        resource: &str,
        requests: &BTreeMap<String, i64>,
    ) -> Result<(i32, i32, i64), String> {
        let utilization = |metrics: &PodMetrics| -> Result<(i32, i64), String> {
            let known: Vec<(i64, i64)> = metrics
                .iter()
                .filter_map(|(name, metric)| Some((metric.value, *requests.get(name)?)))
                .collect();
            let used: i64 = known.iter().map(|(used, _)| used).sum();
            let requested: i64 = known.iter().map(|(_, requested)| requested).sum();
            if requested == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let percent = i32::try_from(used.saturating_mul(100) / requested).unwrap_or(i32::MAX);
            Ok((percent, used / i64::try_from(known.len()).unwrap_or(i64::MAX).max(1)))
        };
        let ratio = |metrics: &PodMetrics| Ok(f64::from(utilization(metrics)?.0) / f64::from(target));
        let all = |name: &str| requests.get(name).copied().unwrap_or(0) * i64::from(target.max(100)) / 100;
        let (replicas, counted) = self.compute(metrics, resource, &ratio, &all)?;
        let (percent, average) = utilization(&counted)?;
        Ok((replicas, percent, average))
    }

    /// The replicas, and the measurements that counted. `full`: what a pod that is not measured is taken to use where
    /// the change would be down.
    fn compute(
        &self,
        mut metrics: PodMetrics,
        resource: &str,
        ratio: &dyn Fn(&PodMetrics) -> Result<f64, String>,
        full: &dyn Fn(&str) -> i64,
    ) -> Result<(i32, PodMetrics), String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        let groups = self.group(&metrics, resource);
        for name in groups.ignored.iter().chain(&groups.unready) {
            metrics.remove(name);
        }
        if metrics.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".into());
        }
        let first = ratio(&metrics)?;
        let up_with_unready = !groups.unready.is_empty() && first > 1.0;
        let counted = metrics.clone();
        if !up_with_unready && groups.missing.is_empty() {
            let replicas =
                if self.tolerances.allow(first) { self.current } else { ceil(first * groups.ready as f64) };
            return Ok((replicas, counted));
        }
        let taken = |value: i64| PodMetric { value, at: None, window_seconds: 0 };
        for name in &groups.missing {
            if first < 1.0 {
                metrics.insert(name.clone(), taken(full(name)));
            } else if first > 1.0 {
                metrics.insert(name.clone(), taken(0));
            }
        }
        if up_with_unready {
            metrics.extend(groups.unready.iter().map(|name| (name.clone(), taken(0))));
        }
        let second = ratio(&metrics)?;
        let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
        let replicas = ceil(second * metrics.len() as f64);
        let contrary = (second < 1.0 && replicas > self.current) || (second > 1.0 && replicas < self.current);
        if self.tolerances.allow(second) || turned || contrary {
            return Ok((self.current, counted));
        }
        Ok((replicas, counted))
    }

    /// Replicas for a metric of the whole, of which so much is wanted.
    pub(super) fn for_total(&self, usage: i64, target: i64) -> Result<i32, String> {
        let ratio = usage as f64 / target as f64;
        if self.current == 0 {
            return Ok(ceil(ratio));
        }
        if self.tolerances.allow(ratio) {
            return Ok(self.current);
        }
        if self.pods.is_empty() {
            let why = "no pods returned by selector while calculating replica count";
            return Err(format!("unable to calculate ready pods: {why}"));
        }
        let ready =
            self.pods.iter().filter(|pod| pod.status.phase == "Running" && pod::is_ready(pod)).count();
        Ok(ceil(ratio * ready as f64))
    }

    /// Replicas for a metric of the whole, of which so much is wanted for each; with the use for each.
    pub(super) fn for_share(&self, usage: i64, target: i64, replicas: i32) -> (i32, i64) {
        let ratio = usage as f64 / (target as f64 * f64::from(replicas));
        let wanted = if self.tolerances.allow(ratio) { replicas } else { ceil(usage as f64 / target as f64) };
        (wanted, (usage as f64 / f64::from(replicas)).ceil() as i64)
    }
}

/// What each pod, or one container of each, requests of a resource, in thousandths.
pub(super) fn requests(
    pods: &[Arc<Pod>],
    resource: &str,
    container: &str,
) -> Result<BTreeMap<String, i64>, String> {
    let of = |pod: &Pod| -> Result<i64, String> {
        let name = &pod.metadata.name;
        let own = pod.spec.resources.as_ref().filter(|own| !own.requests.is_empty());
        if let Some(own) = own.filter(|_| container.is_empty()) {
            let amount = own.requests.get(resource);
            let amount =
                amount.ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"))?;
            return Ok(amount.milli_value());
        }
        let sidecars =
            pod.spec.init_containers.iter().filter(|init| init.restart_policy.as_deref() == Some("Always"));
        let all: Vec<_> = pod
            .spec
            .containers
            .iter()
            .chain(sidecars)
            .filter(|known| container.is_empty() || known.name == container)
            .collect();
        if all.is_empty() && !container.is_empty() {
            return Err(format!("container {container} not found in Pod {name}"));
        }
        let amount = |known: &&api::core::v1::Container| {
            let amount = known.resources.requests.get(resource);
            amount.map(meta::Quantity::milli_value).ok_or_else(|| {
                format!("missing request for {resource} in container {} of Pod {name}", known.name)
            })
        };
        all.iter().map(amount).sum()
    };
    pods.iter().map(|pod| Ok((pod.metadata.name.clone(), of(pod)?))).collect()
}
