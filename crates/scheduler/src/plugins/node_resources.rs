//! NodeResourcesFit and NodeResourcesBalancedAllocation: a pod needs room, prefers more of it, and evenly used.

use super::{Filter, Prepared, Reasons, SCORE_MAX, Score, Verdict, as_is};
use crate::hints::Event;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::resources::Resources;
use api::core::v1::Node;
use std::borrow::Cow;

pub const NAME: &str = "NodeResourcesFit";
pub const BALANCED_NAME: &str = "NodeResourcesBalancedAllocation";

pub const FILTER: Filter = Filter {
    name: NAME,
    prepare: |_| Prepared::Run,
    check: |cycle, node, reasons| fits(cycle.pod, node, reasons),
    hint,
};

fn fits(pod: &PodInfo, node: &NodeInfo, reasons: &mut Reasons) -> Verdict {
    let (wanted, has, used) = (&pod.requests, &node.allocatable, &node.requested);
    let mut verdict = Verdict::Fits;
    if node.pods.len() as i64 + 1 > has.pods {
        reasons.push(Cow::Borrowed("Too many pods"));
        verdict = Verdict::Rejected;
    }
    let mut ask = |wanted: i64, has: i64, used: i64, reason: &dyn Fn() -> Cow<'static, str>| {
        if wanted > 0 && wanted > has - used {
            reasons.push(reason());
            if wanted > has {
                verdict = Verdict::Unresolvable;
            } else if verdict == Verdict::Fits {
                verdict = Verdict::Rejected;
            }
        }
    };
    ask(wanted.milli_cpu, has.milli_cpu, used.milli_cpu, &|| Cow::Borrowed("Insufficient cpu"));
    ask(wanted.memory, has.memory, used.memory, &|| Cow::Borrowed("Insufficient memory"));
    ask(wanted.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage, &|| {
        Cow::Borrowed("Insufficient ephemeral-storage")
    });
    for (name, amount) in &wanted.scalar {
        let of = |all: &Resources| all.scalar.get(name).copied().unwrap_or(0);
        ask(*amount, of(has), of(used), &|| Cow::Owned(format!("Insufficient {name}")));
    }
    verdict
}

/// Whether a waiting pod may fit now: something left a node, a node came with enough, or a node grew in what it asks.
fn hint(event: &Event<'_>, pod: &PodInfo) -> bool {
    let fits_alone = |node: &Node| {
        let empty = NodeInfo::new(0, std::sync::Arc::new(node.clone()));
        fits(pod, &empty, &mut Vec::new()) == Verdict::Fits
    };
    match event {
        Event::NodeAdded(node) => fits_alone(node),
        Event::NodeChanged { old, new } => {
            if old.status.allocatable == new.status.allocatable {
                return false;
            }
            let before = Resources::from_list(&old.status.allocatable);
            let after = Resources::from_list(&new.status.allocatable);
            fits_alone(new) && (after.pods > before.pods || more(&before, &after, &pod.requests))
        }
        Event::PodRemoved(_) => true,
        Event::PodChanged { old, new } => more(&new.requests, &old.requests, &pod.requests),
        Event::SelfChanged { old, new } => more(&new.requests, &old.requests, &old.requests),
        _ => false,
    }
}

/// Whether there is more of anything that is wanted.
fn more(before: &Resources, after: &Resources, wanted: &Resources) -> bool {
    let grew = |wanted: i64, before: i64, after: i64| wanted > 0 && after > before;
    grew(wanted.milli_cpu, before.milli_cpu, after.milli_cpu)
        || grew(wanted.memory, before.memory, after.memory)
        || grew(wanted.ephemeral_storage, before.ephemeral_storage, after.ephemeral_storage)
        || wanted.scalar.iter().any(|(name, amount)| {
            let of = |all: &Resources| all.scalar.get(name).copied().unwrap_or(0);
            grew(*amount, of(before), of(after))
        })
}

/// How much of the node would be left, over cpu and memory alike.
pub const LEAST_ALLOCATED: Score = Score {
    name: NAME,
    weight: 1,
    prepare: |_, _| true,
    score: |cycle, node| {
        let (pod, has) = (cycle.pod, &node.allocatable);
        let parts = [
            (node.scored_milli_cpu + pod.scored_milli_cpu, has.milli_cpu),
            (node.scored_memory + pod.scored_memory, has.memory),
        ];
        let (mut sum, mut weights) = (0, 0);
        for (used, has) in parts.into_iter().filter(|(_, has)| *has != 0) {
            sum += if used > has { 0 } else { scaled(has - used, has) };
            weights += 1;
        }
        if weights == 0 { 0 } else { sum / weights }
    },
    normalize: as_is,
};

/// `SCORE_MAX * part / whole`, also for amounts in bytes that would overflow.
fn scaled(part: i64, whole: i64) -> i64 {
    part.checked_mul(SCORE_MAX).map_or_else(
        || (i128::from(part) * i128::from(SCORE_MAX) / i128::from(whole)) as i64,
        |product| product / whole,
    )
}

/// How much the pod would even out the shares of cpu and memory in use. Pods without requests have no say.
pub const BALANCED: Score = Score {
    name: BALANCED_NAME,
    weight: 1,
    prepare: |cycle, _| cycle.pod.requests.milli_cpu != 0 || cycle.pod.requests.memory != 0,
    score: |cycle, node| {
        let (wanted, used) = (&cycle.pod.requests, &node.requested);
        let with = balance(node, used.milli_cpu + wanted.milli_cpu, used.memory + wanted.memory);
        let without = balance(node, used.milli_cpu, used.memory);
        SCORE_MAX / 2 + (SCORE_MAX / 2 + with - without) / 2
    },
    normalize: as_is,
};

/// `SCORE_MAX` where both are used to the same share, half of it where one is full and the other empty.
fn balance(node: &NodeInfo, milli_cpu: i64, memory: i64) -> i64 {
    let has = &node.allocatable;
    if has.milli_cpu == 0 || has.memory == 0 {
        return SCORE_MAX;
    }
    let share = |used: i64, has: i64| (used as f64 / has as f64).min(1.0);
    let deviation = ((share(milli_cpu, has.milli_cpu) - share(memory, has.memory)) / 2.0).abs();
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}
