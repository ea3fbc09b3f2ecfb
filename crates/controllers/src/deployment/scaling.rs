//! A change of `replicas` amid a rollout: spread over the sets in proportion, so that it hastens nothing.

use super::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout, Which, size_of};
use api::apps::v1::ReplicaSet;

fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    let number: i32 = set.metadata.annotations.get(annotation)?.parse().ok()?;
    (number >= 0).then_some(number)
}

impl Rollout<'_> {
    /// Whether `replicas` is another than when the active sets were last sized.
    pub(super) fn is_scaling(&self) -> bool {
        self.sets()
            .filter(|set| size_of(set) > 0)
            .any(|set| number(set, DESIRED_REPLICAS).is_some_and(|desired| desired != self.replicas))
    }

    pub(super) fn scale(&mut self) {
        let active: Vec<Which> = self.all().into_iter().filter(|which| self.size(*which) > 0).collect();
        if active.len() <= 1 {
            // One set, or none: then the newest gets everything.
            let latest = if self.new.is_some() {
                Some(Which::New)
            } else {
                self.old.len().checked_sub(1).map(Which::Old)
            };
            if let Some(which) = active.first().copied().or(latest) {
                // Marked even where its size is right already, or it would seem to be scaling for ever.
                self.resize(which, self.replicas, true);
            }
            return;
        }
        if self.is_saturated() {
            for at in 0..self.old.len() {
                if size_of(&self.old[at]) > 0 {
                    self.resize(Which::Old(at), 0, false);
                }
            }
            return;
        }
        if self.is_rolling() {
            self.scale_in_proportion(active);
        }
    }

    fn all(&self) -> Vec<Which> {
        let mut all: Vec<Which> = (0..self.old.len()).map(Which::Old).collect();
        all.extend(self.new.is_some().then_some(Which::New));
        all
    }

    fn set(&self, which: Which) -> Option<&ReplicaSet> {
        match which {
            Which::Old(at) => self.old.get(at),
            Which::New => self.new.as_ref(),
        }
    }

    fn size(&self, which: Which) -> i32 {
        self.set(which).map_or(0, size_of)
    }

    /// Whether the new set has all pods it should have, available.
    fn is_saturated(&self) -> bool {
        self.new.as_ref().is_some_and(|set| {
            size_of(set) == self.replicas
                && number(set, DESIRED_REPLICAS) == Some(self.replicas)
                && set.status.available_replicas == self.replicas
        })
    }

    fn scale_in_proportion(&mut self, mut active: Vec<Which>) {
        let total: i32 = active.iter().map(|which| self.size(*which)).sum();
        let allowed = if self.replicas > 0 { self.replicas + self.max_surge } else { 0 };
        let missing = allowed - total;
        // The largest first; among equals the newer grow first, the older shrink first.
        active.sort_by(|a, b| {
            let created = |which: &Which| self.set(*which).map(|set| set.metadata.creation_timestamp);
            let by_age = if missing > 0 { created(b).cmp(&created(a)) } else { created(a).cmp(&created(b)) };
            self.size(*b).cmp(&self.size(*a)).then(by_age)
        });
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
        for which in &active {
            let share = self.share(*which, missing, added);
            added += share;
            sizes.push(self.size(*which) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + missing - added).max(0);
        }
        for (which, size) in active.into_iter().zip(sizes) {
            self.resize(which, size, true);
        }
    }

    /// A set's part of what is missing, or too much.
    fn share(&self, which: Which, missing: i32, added: i32) -> i32 {
        let Some(set) = self.set(which) else { return 0 };
        if size_of(set) == 0 || missing == 0 || missing == added {
            return 0;
        }
        let fraction = self.fraction(set);
        let allowed = missing - added;
        if missing > 0 { fraction.min(allowed) } else { fraction.max(allowed) }
    }

    fn fraction(&self, set: &ReplicaSet) -> i32 {
        if self.replicas == 0 {
            return -size_of(set);
        }
        let before = number(set, MAX_REPLICAS).filter(|limit| *limit > 0);
        let before = before.unwrap_or(self.deployment.status.replicas);
        if before == 0 {
            return 0;
        }
        let limit = f64::from(self.replicas + self.max_surge);
        let size = f64::from(size_of(set)) * limit / f64::from(before);
        // The cast saturates; sizes are far below its bounds.
        size.round() as i32 - size_of(set)
    }
}
