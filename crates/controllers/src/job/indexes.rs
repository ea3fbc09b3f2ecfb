//! Completion indexes: as text, as sets, and which pods have one too many.

use crate::pod;
use api::core::v1::Pod;
use meta::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A number, such as 3, or ranges of them, such as `0-2,5`.
pub(super) fn indexes(text: &str) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            found.extend(first..=last);
        }
    }
    found
}

pub(super) fn ranges(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => parts.push((*index, *index)),
        }
    }
    let text = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    parts.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// The index of a pod; none where it states nonsense.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// Active pods that no index needs: without one, beyond the last, or beside another of the same index, of which the
/// most deserving stays. Then the others.
pub(super) fn split_needless(
    active: &[Arc<Pod>],
    completions: i32,
    now: Time,
) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut by_index: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
    let (mut needless, mut kept) = (Vec::new(), Vec::new());
    for pod in active {
        match index_of(pod).filter(|index| *index < completions) {
            Some(index) => by_index.entry(index).or_default().push(pod.clone()),
            None => needless.push(pod.clone()),
        }
    }
    for pods in by_index.into_values() {
        let mut order = pod::deletion_order(pods, &[], now);
        kept.extend(order.pop());
        needless.extend(order);
    }
    (needless, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_written_as_ranges() {
        let set = indexes("0-2,5,7,8");
        assert_eq!(set.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(ranges(&set), "0-2,5,7,8");
        assert_eq!(ranges(&BTreeSet::new()), "");
    }
}
