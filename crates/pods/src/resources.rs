//! From requests and limits to the kernel's numbers: quality of service, CPU shares and quota, OOM scores.

use api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use meta::Quantity;
use std::collections::BTreeMap;

/// `Guaranteed`, `Burstable` or `BestEffort`, from CPU and memory of all containers, or of the pod where it states them.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let pod_level =
        spec.resources.as_deref().filter(|own| !own.requests.is_empty() || !own.limits.is_empty());
    let all: Vec<&ResourceRequirements> = match pod_level {
        Some(own) => vec![own],
        None => spec.init_containers.iter().chain(&spec.containers).map(|one| &one.resources).collect(),
    };
    let mut any = false;
    let mut guaranteed = true;
    for one in all {
        for name in ["cpu", "memory"] {
            let request = one.requests.get(name).filter(|amount| !amount.is_zero());
            let limit = one.limits.get(name).filter(|amount| !amount.is_zero());
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|amount| Some(amount) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What a container asks for: its request, else its limit.
pub fn request(own: &ResourceRequirements, name: &str) -> Option<Quantity> {
    own.requests.get(name).or_else(|| own.limits.get(name)).copied()
}

/// What a pod asks for in all: the sum of its containers and sidecars, or the dearest moment of its initialization.
pub fn pod_requests(spec: &PodSpec) -> BTreeMap<String, Quantity> {
    pod_total(spec, |container, name| request(&container.resources, name), request)
}

/// What a pod may use in all; a name is absent where some container has no limit for it.
pub fn pod_limits(spec: &PodSpec) -> BTreeMap<String, Quantity> {
    let mut total = pod_total(
        spec,
        |container, name| container.resources.limits.get(name).copied(),
        |own, name| own.limits.get(name).copied(),
    );
    let stated = spec.resources.as_deref().map(|own| own.limits.clone()).unwrap_or_default();
    total.retain(|name, _| {
        let everyone = spec.containers.iter().chain(&spec.init_containers);
        stated.contains_key(name) || everyone.clone().all(|one| one.resources.limits.contains_key(name))
    });
    total
}

fn pod_total(
    spec: &PodSpec,
    of: impl Fn(&Container, &str) -> Option<Quantity>,
    stated: impl Fn(&ResourceRequirements, &str) -> Option<Quantity>,
) -> BTreeMap<String, Quantity> {
    let everyone = spec.containers.iter().chain(&spec.init_containers);
    let mut names: Vec<&String> =
        everyone.flat_map(|one| one.resources.requests.keys().chain(one.resources.limits.keys())).collect();
    if let Some(own) = spec.resources.as_deref() {
        names.extend(own.requests.keys().chain(own.limits.keys()));
    }
    let mut total = BTreeMap::new();
    for name in names {
        let zero = Quantity::default();
        let mut sidecars = zero;
        let mut peak = zero;
        for init in &spec.init_containers {
            let amount = of(init, name).unwrap_or(zero);
            if crate::spec::is_sidecar(init) {
                sidecars = sidecars.plus(amount);
                peak = peak.max(sidecars);
            } else {
                peak = peak.max(sidecars.plus(amount));
            }
        }
        let sum = spec.containers.iter().filter_map(|one| of(one, name)).fold(sidecars, Quantity::plus);
        let own = spec.resources.as_deref().and_then(|own| stated(own, name));
        let overhead = spec.overhead.get(name).copied().unwrap_or(zero);
        total.insert(name.clone(), own.unwrap_or_else(|| sum.max(peak)).plus(overhead));
    }
    total
}

/// CPU shares of v1: 1024 to a CPU, at least 2.
pub fn cpu_shares(milli_cpu: i64) -> i64 {
    (milli_cpu * 1024 / 1000).clamp(2, 262_144)
}

/// Microseconds of CPU per period of 100 ms, at least 1 ms; 0 is no limit.
pub fn cpu_quota(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 { 0 } else { (milli_cpu * 100).max(1000) }
}

pub const CPU_PERIOD: i64 = 100_000;

/// How willingly the kernel kills it when memory runs out: upstream's scale from -997 (guaranteed) to 1000.
pub fn oom_score_adj(pod: &Pod, container: &Container, machine_memory: i64) -> i64 {
    const CRITICAL: i32 = 2_000_000_000;
    if pod.spec.priority.is_some_and(|priority| priority >= CRITICAL) {
        return -997;
    }
    match qos_class(&pod.spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asked = container.resources.requests.get("memory").map_or(0, Quantity::value);
            let score = 1000 - (1000 * i128::from(asked) / i128::from(machine_memory.max(1))) as i64;
            // A little above the guaranteed, a little below the unasking.
            if score < 1000 - 997 { 1000 - 997 } else { score.min(999) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: &str, limits: &str) -> Container {
        let list = |text: &str| {
            text.split_whitespace()
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, amount)| (name.to_string(), Quantity::parse(amount).unwrap()))
                .collect()
        };
        let resources =
            ResourceRequirements { requests: list(requests), limits: list(limits), claims: vec![] };
        Container { resources, ..Container::default() }
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        for (requests, limits, class) in [
            ("", "", "BestEffort"),
            ("cpu=1", "", "Burstable"),
            ("", "cpu=1 memory=1Gi", "Guaranteed"),
            ("cpu=1 memory=1Gi", "cpu=1 memory=1Gi", "Guaranteed"),
            ("cpu=1 memory=1Gi", "cpu=2 memory=1Gi", "Burstable"),
            ("", "cpu=1", "Burstable"),
        ] {
            let spec = PodSpec { containers: vec![container(requests, limits)], ..PodSpec::default() };
            assert_eq!(qos_class(&spec), class, "{requests} / {limits}");
        }
    }

    #[test]
    fn initialization_may_be_the_dearest_moment() {
        let sidecar = Container { restart_policy: Some("Always".into()), ..container("cpu=100m", "") };
        let spec = PodSpec {
            init_containers: vec![sidecar, container("cpu=2", "")],
            containers: vec![container("cpu=500m", ""), container("cpu=500m", "")],
            ..PodSpec::default()
        };
        assert_eq!(pod_requests(&spec)["cpu"].to_string(), "2100m");
    }
}
