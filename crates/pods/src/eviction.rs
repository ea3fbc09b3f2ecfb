//! Which pod goes when the node runs out of something: thresholds, how long they have been met, and who is asked first.
//!
//! Signals, conditions, order and words are upstream's. One pod goes at a time: the next look tells whether that was
//! enough.

use crate::{Millis, resources};
use api::core::v1::Pod;
use meta::Quantity;
use meta::quantity::Format;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The reason of an evicted pod's status.
pub const REASON: &str = "Evicted";
/// How long a pod gets that has to go at once.
pub const IMMEDIATE_GRACE_SECONDS: i64 = 1;
/// From this priority on a pod is critical: it is never evicted.
const CRITICAL: i32 = 2_000_000_000;

/// Something that a node can run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
}

/// What a node says of itself while a signal is past its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    Memory,
    Disk,
    Pid,
}

const SIGNALS: [(Signal, &str); 6] = [
    (Signal::MemoryAvailable, "memory.available"),
    (Signal::NodefsAvailable, "nodefs.available"),
    (Signal::NodefsInodesFree, "nodefs.inodesFree"),
    (Signal::ImagefsAvailable, "imagefs.available"),
    (Signal::ImagefsInodesFree, "imagefs.inodesFree"),
    (Signal::PidAvailable, "pid.available"),
];

impl Signal {
    pub fn parse(name: &str) -> Option<Signal> {
        SIGNALS.iter().find(|(_, known)| *known == name).map(|(signal, _)| *signal)
    }

    pub fn condition(self) -> Condition {
        match self {
            Signal::MemoryAvailable => Condition::Memory,
            Signal::PidAvailable => Condition::Pid,
            _ => Condition::Disk,
        }
    }

    /// What is taken back, as messages name it.
    fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodefsAvailable | Signal::ImagefsAvailable => "ephemeral-storage",
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Condition::Memory => "MemoryPressure",
            Condition::Disk => "DiskPressure",
            Condition::Pid => "PIDPressure",
        })
    }
}

/// An amount, or a part of what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Exact(Quantity),
    Percent(f64),
}

impl Amount {
    fn of(self, capacity: i64) -> Quantity {
        match self {
            Amount::Exact(quantity) => quantity,
            Amount::Percent(percent) => {
                Quantity::from_units((capacity as f64 * percent / 100.0) as i64, Format::BinarySi)
            }
        }
    }
}

/// When a signal is past bearing.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub amount: Amount,
    /// How long it has to be met before a pod goes; 0 for a hard one.
    pub grace_seconds: i64,
    /// How much above the threshold the signal has to come before it counts as no longer met.
    pub reclaim: Option<Amount>,
}

/// Upstream's hard thresholds.
pub fn defaults() -> BTreeMap<String, String> {
    let list = [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ];
    list.map(|(name, amount)| (name.to_string(), amount.to_string())).into()
}

/// Reads thresholds as the kubelet's configuration states them. `grace`: seconds, of each soft one.
pub fn thresholds(
    hard: &BTreeMap<String, String>,
    soft: &BTreeMap<String, String>,
    grace: &BTreeMap<String, i64>,
    reclaim: &BTreeMap<String, String>,
) -> Result<Vec<Threshold>, String> {
    let mut list = Vec::new();
    let stated = hard.iter().map(|own| (own, false)).chain(soft.iter().map(|own| (own, true)));
    for ((name, text), is_soft) in stated {
        let signal = Signal::parse(name).ok_or_else(|| format!("unsupported eviction signal {name}"))?;
        let Some(amount) = amount(text)? else { continue };
        let grace_seconds = match is_soft {
            false => 0,
            true => *grace.get(name).ok_or_else(|| {
                format!("grace period must be specified for the soft eviction threshold {name}")
            })?,
        };
        let reclaim = reclaim.get(name).map(|text| self::amount(text)).transpose()?.flatten();
        list.push(Threshold { signal, amount, grace_seconds, reclaim });
    }
    Ok(list)
}

/// An amount; `None` for one that never is met.
fn amount(text: &str) -> Result<Option<Amount>, String> {
    if let Some(number) = text.strip_suffix('%') {
        let percent: f64 = number.parse().map_err(|_| format!("{text:?} is no percentage"))?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("eviction percentage threshold {text} must be between 0% and 100%"));
        }
        return Ok((percent > 0.0 && percent < 100.0).then_some(Amount::Percent(percent)));
    }
    let quantity = Quantity::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
    Ok(Some(Amount::Exact(quantity)))
}

/// What there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub available: i64,
    pub capacity: i64,
}

pub type Observations = BTreeMap<Signal, Observation>;

/// What a pod uses.
#[derive(Clone, Debug, Default)]
pub struct Use {
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub inodes: i64,
    pub processes: i64,
    /// Bytes of memory, by container.
    pub containers: BTreeMap<String, i64>,
}

/// A pod that runs, and what it uses.
pub struct Candidate {
    pub pod: Arc<Pod>,
    pub used: Use,
}

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    pub uid: String,
    pub message: String,
    pub grace_seconds: i64,
}

/// What one look comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub conditions: Vec<Condition>,
    /// A signal of disk is past its threshold: what nobody uses goes first.
    pub reclaim_disk: bool,
    pub evict: Option<Eviction>,
}

/// Remembers how long thresholds have been met.
pub struct Monitor {
    thresholds: Vec<Threshold>,
    transition_seconds: i64,
    max_pod_grace_seconds: i64,
    /// Since when each threshold is met.
    since: BTreeMap<usize, Millis>,
    seen: BTreeMap<Condition, Millis>,
}

impl Monitor {
    pub fn new(thresholds: Vec<Threshold>, transition_seconds: i64, max_pod_grace_seconds: i64) -> Self {
        Monitor {
            thresholds,
            transition_seconds,
            max_pod_grace_seconds,
            since: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Looks once. `reclaimed`: what nobody uses has been taken away already since the last look.
    pub fn look(
        &mut self,
        now: Millis,
        observations: &Observations,
        candidates: &[Candidate],
        reclaimed: bool,
    ) -> Verdict {
        let mut met = Vec::new();
        for (index, threshold) in self.thresholds.iter().enumerate() {
            let Some(seen) = observations.get(&threshold.signal) else { continue };
            let mut bound = threshold.amount.of(seen.capacity).value();
            if self.since.contains_key(&index)
                && let Some(reclaim) = threshold.reclaim
            {
                bound += reclaim.of(seen.capacity).value();
            }
            if seen.available < bound {
                met.push(index);
            }
        }
        self.since.retain(|index, _| met.contains(index));
        for index in &met {
            self.since.entry(*index).or_insert(now);
            self.seen.insert(self.thresholds[*index].signal.condition(), now);
        }
        let keep = self.transition_seconds * 1000;
        self.seen.retain(|_, last| now - *last <= keep);
        let mut due: Vec<&Threshold> = met
            .iter()
            .filter(|index| {
                let grace = self.thresholds[**index].grace_seconds * 1000;
                now - self.since.get(index).copied().unwrap_or(now) >= grace
            })
            .map(|index| &self.thresholds[*index])
            .collect();
        // Memory first: nothing else ends so badly.
        due.sort_by_key(|threshold| (threshold.signal, threshold.grace_seconds));
        let disk = due.iter().any(|threshold| threshold.signal.condition() == Condition::Disk);
        let mut verdict =
            Verdict { conditions: self.seen.keys().copied().collect(), reclaim_disk: disk, evict: None };
        let Some(worst) = due.first() else { return verdict };
        if worst.signal.condition() == Condition::Disk && !reclaimed {
            return verdict;
        }
        verdict.evict = self.choose(worst, observations, candidates);
        verdict
    }

    fn choose(
        &self,
        threshold: &Threshold,
        observations: &Observations,
        candidates: &[Candidate],
    ) -> Option<Eviction> {
        let first = ranked(threshold.signal, candidates).into_iter().next()?;
        let grace_seconds = if threshold.grace_seconds == 0 {
            IMMEDIATE_GRACE_SECONDS
        } else {
            let own = first.pod.spec.termination_grace_period_seconds.unwrap_or(30);
            own.min(self.max_pod_grace_seconds)
        };
        let seen = observations.get(&threshold.signal)?;
        Some(Eviction {
            uid: first.pod.metadata.uid.clone(),
            message: message(threshold, *seen, first),
            grace_seconds,
        })
    }
}

/// Whether a pod is never evicted.
pub fn is_critical(pod: &Pod) -> bool {
    let annotations = &pod.metadata.annotations;
    let fixed = annotations.contains_key("kubernetes.io/config.mirror")
        || annotations.get("kubernetes.io/config.source").is_some_and(|source| source != "api");
    fixed || pod.spec.priority.is_some_and(|priority| priority >= CRITICAL)
}

/// Those that may go, the first to go first: who uses more than asked for, the less important, who uses the most above
/// its request.
pub fn ranked(signal: Signal, candidates: &[Candidate]) -> Vec<&Candidate> {
    let mut list: Vec<&Candidate> = candidates.iter().filter(|one| !is_critical(&one.pod)).collect();
    list.sort_by_key(|one| {
        let (used, asked) = excess(signal, one);
        let exceeds = used > asked;
        let priority = one.pod.spec.priority.unwrap_or(0);
        (!exceeds, priority, -(used - asked))
    });
    list
}

/// What a pod uses of a signal's resource, and what it asked for.
fn excess(signal: Signal, one: &Candidate) -> (i64, i64) {
    let requests = resources::pod_requests(&one.pod.spec);
    let asked = |name: &str| requests.get(name).map_or(0, Quantity::value);
    match signal {
        Signal::MemoryAvailable => (one.used.memory_bytes, asked("memory")),
        Signal::NodefsAvailable | Signal::ImagefsAvailable => {
            (one.used.disk_bytes, asked("ephemeral-storage"))
        }
        Signal::NodefsInodesFree | Signal::ImagefsInodesFree => (one.used.inodes, 0),
        Signal::PidAvailable => (one.used.processes, 0),
    }
}

fn binary(bytes: i64) -> Quantity {
    Quantity::from_units(bytes, Format::BinarySi)
}

fn message(threshold: &Threshold, seen: Observation, one: &Candidate) -> String {
    let resource = threshold.signal.resource();
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        threshold.amount.of(seen.capacity),
        // As upstream shows bytes: in Ki where they are whole.
        binary(seen.available),
    );
    if threshold.signal == Signal::MemoryAvailable {
        let containers = one.pod.spec.containers.iter().chain(&one.pod.spec.init_containers);
        for container in containers {
            let Some(used) = one.used.containers.get(&container.name) else { continue };
            let asked = container.resources.requests.get(resource).copied().unwrap_or_default();
            if binary(*used) > asked {
                text.push_str(&format!(
                    "Container {} was using {}, request is {asked}, has larger consumption of {resource}. ",
                    container.name,
                    binary(*used),
                ));
            }
        }
    }
    text
}

/// Why a node under pressure turns a new pod away; `None` where it takes it.
pub fn refusal(pod: &Pod, conditions: &[Condition]) -> Option<String> {
    if conditions.is_empty() || is_critical(pod) {
        return None;
    }
    if conditions == [Condition::Memory] {
        let tolerates = pod.spec.tolerations.iter().any(|own| {
            (own.key.is_empty() || own.key == "node.kubernetes.io/memory-pressure")
                && (own.effect.is_empty() || own.effect == "NoSchedule")
                && (own.operator == "Exists" || (!own.key.is_empty() && own.value.is_empty()))
        });
        if tolerates || resources::qos_class(&pod.spec) != "BestEffort" {
            return None;
        }
    }
    let names: Vec<String> = conditions.iter().map(ToString::to_string).collect();
    Some(format!("The node had condition: [{}]. ", names.join(" ")))
}
