//! DefaultPreemption: which pods of lower priority would have to go for a pod to fit, and from which node.

use crate::cycle::Cycle;
use crate::diagnosis::Histogram;
use crate::node::NodeInfo;
use crate::plugins::{Filter, Reasons, Verdict};
use crate::pod::PodInfo;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

/// A tenth of the nodes that could help are tried, and at least this many.
const CANDIDATES_MIN: usize = 100;

pub(crate) enum Outcome {
    Found {
        node: String,
        victims: Vec<Arc<PodInfo>>,
    },
    /// Upstream's message.
    Refused {
        message: String,
        clear_nomination: bool,
    },
}

struct Candidate<'a> {
    node: &'a NodeInfo,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget protects.
    violations: usize,
}

/// `resolvable`: the nodes that rejected the pod for a reason that fewer pods could mend.
pub(crate) fn attempt(
    cycle: &Cycle<'_>,
    filters: &[&'static Filter],
    resolvable: &[&NodeInfo],
    tie: u64,
) -> Outcome {
    if let Some(message) = not_eligible(cycle, resolvable) {
        return Outcome::Refused { message: message.into(), clear_nomination: false };
    }
    let nodes = cycle.snapshot.len();
    let wanted = (resolvable.len() / 10).max(CANDIDATES_MIN).min(resolvable.len());
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let mut histogram = Histogram::default();
    let mut asked = 0;
    if !resolvable.is_empty() {
        let (before, from) = resolvable.split_at((tie % resolvable.len() as u64) as usize);
        for node in from.iter().chain(before) {
            // Enough candidates, one of which breaks no budget.
            if candidates.len() >= wanted && candidates.iter().any(|found| found.violations == 0) {
                break;
            }
            asked += 1;
            match victims(cycle, filters, node) {
                Ok(candidate) => candidates.push(candidate),
                Err(reasons) => histogram.count(&reasons),
            }
        }
    }
    match pick(candidates) {
        Some(found) => Outcome::Found { node: found.node.name().into(), victims: found.victims },
        None => {
            histogram.add(Cow::Borrowed("Preemption is not helpful for scheduling"), nodes - asked);
            Outcome::Refused { message: histogram.message(nodes), clear_nomination: true }
        }
    }
}

/// A pod that may not preempt, or that has done so and waits for its victims to go.
fn not_eligible(cycle: &Cycle<'_>, resolvable: &[&NodeInfo]) -> Option<&'static str> {
    let pod = cycle.pod;
    if pod.pod.spec.preemption_policy.as_deref() == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = cycle.snapshot.nominated_node(pod.uid())?;
    let node = resolvable.iter().find(|node| node.name() == nominated)?;
    let going = node.pods.iter().any(|other| other.priority() < pod.priority() && preempted(other));
    going.then_some("not eligible due to a terminating pod on the nominated node.")
}

fn preempted(pod: &PodInfo) -> bool {
    let reason = || pod.pod.status.conditions.iter().find(|condition| condition.r#type == "DisruptionTarget");
    pod.is_terminating()
        && reason().is_some_and(|condition| {
            condition.status == "True" && condition.reason == "PreemptionByScheduler"
        })
}

/// The fewest pods of a node that have to go: all of lower priority leave, and come back one by one, the most
/// important first, as long as the pod still fits. Pods that a budget protects come back before the others.
fn victims<'a>(
    cycle: &Cycle<'_>,
    filters: &[&'static Filter],
    node: &'a NodeInfo,
) -> Result<Candidate<'a>, Reasons> {
    let (mut cycle, mut rest) = (cycle.clone(), node.clone());
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|other| other.priority() < cycle.pod.priority()).cloned().collect();
    if lower.is_empty() {
        return Err(vec![Cow::Borrowed("No preemption victims found for incoming pod")]);
    }
    for other in &lower {
        rest.remove(other.uid());
        cycle.change(other, &rest, -1);
    }
    let mut reasons = Reasons::new();
    if cycle.check(filters, &rest, &mut reasons).0 != Verdict::Fits {
        return Err(reasons);
    }
    lower.sort_by_key(importance);
    let (protected, free) = by_budget(&cycle, lower);
    let (mut victims, mut violations) = (Vec::new(), 0);
    let guarded = protected.len();
    for (at, other) in protected.into_iter().chain(free).enumerate() {
        rest.add(other.clone());
        cycle.change(&other, &rest, 1);
        if cycle.check(filters, &rest, &mut reasons).0 != Verdict::Fits {
            rest.remove(other.uid());
            cycle.change(&other, &rest, -1);
            violations += usize::from(at < guarded);
            victims.push(other);
        }
    }
    victims.sort_by_key(importance);
    if victims.is_empty() {
        return Err(vec![Cow::Owned(format!("expected at least one victim pod on node {:?}", node.name()))]);
    }
    Ok(Candidate { node, victims, violations })
}

/// Orders the more important first: higher priority, then longer running. Pods that have not started come last.
fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, i64) {
    (Reverse(pod.priority()), started(pod))
}

fn started(pod: &PodInfo) -> i64 {
    pod.pod.status.start_time.map_or(i64::MAX, |time| time.seconds())
}

/// Splits pods into those whose going a disruption budget does not allow, and the others, keeping the order.
fn by_budget(cycle: &Cycle<'_>, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let budgets = cycle.snapshot.facts.budgets();
    let mut allowed: Vec<_> = budgets
        .filter_map(|budget| {
            let selector = api::optional_selector(budget.spec.selector.as_deref()).ok()?;
            Some((budget, selector, budget.status.disruptions_allowed))
        })
        .collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, selector, left) in &mut allowed {
            let covers = budget.metadata.namespace == pod.namespace()
                && !pod.labels().is_empty()
                && !selector.is_everything()
                && selector.matches(pod.labels());
            if covers && !budget.status.disrupted_pods.contains_key(&pod.pod.metadata.name) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// The least harm: fewest budgets broken, then the lowest of the highest priorities, the smallest sum of priorities,
/// the fewest victims, and those of the highest priority that started last.
fn pick(candidates: Vec<Candidate<'_>>) -> Option<Candidate<'_>> {
    candidates.into_iter().min_by_key(|candidate| {
        let victims = &candidate.victims;
        let highest = victims.first().map_or(0, |pod| pod.priority());
        // Shifted, so that many victims of a negative priority do not weigh less than few.
        let sum: i64 = victims.iter().map(|pod| i64::from(pod.priority()) + i64::from(i32::MAX) + 1).sum();
        let earliest = victims
            .iter()
            .filter(|pod| pod.priority() == highest)
            .map(|pod| started(pod))
            .min()
            .unwrap_or(i64::MAX);
        (candidate.violations, highest, sum, victims.len(), Reverse(earliest))
    })
}
