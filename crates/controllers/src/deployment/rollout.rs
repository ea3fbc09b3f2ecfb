//! Exchanging old pods for new: step by step within surge and unavailability, or all at once after the old are gone.

use super::{Rollout, Which, size_of};
use crate::pod;
use api::apps::v1::ReplicaSet;
use api::core::v1::Pod;

/// The pods of a set that can be counted on: what its status says, but no more than it is to keep. The status of a
/// set that was made smaller tells for a while of pods that are going.
fn available(set: &ReplicaSet) -> i32 {
    set.status.available_replicas.min(size_of(set))
}

impl Rollout<'_> {
    /// How many pods the new set may have now.
    pub(super) fn new_set_size(&self) -> i32 {
        let current = self.new.as_ref().map_or(0, size_of);
        if !self.is_rolling() {
            return self.replicas;
        }
        let total: i32 = self.sets().map(size_of).sum();
        let room = self.replicas + self.max_surge - total;
        if room <= 0 {
            return current;
        }
        current + room.min(self.replicas - current)
    }

    /// One step of a rolling update: up if there is room, else down if enough are available.
    pub(super) fn roll(&mut self) {
        if !self.ensure_new_set() {
            self.update_rollout_status();
            return;
        }
        if self.grow_new() || self.shrink_old() {
            self.update_rollout_status();
            return;
        }
        if self.is_complete(&self.deployment.status) {
            self.clean_up();
        }
        self.update_rollout_status();
    }

    fn grow_new(&mut self) -> bool {
        // A set that this very plan makes already has the size that is right for it.
        let Some(new) = self.new.as_ref().filter(|set| !set.metadata.uid.is_empty()) else { return true };
        let current = size_of(new);
        let size = if current >= self.replicas { self.replicas } else { self.new_set_size() };
        self.resize(Which::New, size, false)
    }

    fn shrink_old(&mut self) -> bool {
        if self.old.iter().all(|set| size_of(set) == 0) {
            return false;
        }
        let total: i32 = self.sets().map(size_of).sum();
        let least = self.replicas - self.max_unavailable;
        let new_unavailable = self.new.as_ref().map_or(0, |set| size_of(set) - set.status.available_replicas);
        let room = total - least - new_unavailable;
        if room <= 0 {
            return false;
        }
        let unhealthy = self.drop_unhealthy(room);
        let healthy = self.drop_available(least);
        unhealthy + healthy > 0
    }

    /// Pods of old sets that are not available help no one: they go first, and free room for new ones.
    fn drop_unhealthy(&mut self, room: i32) -> i32 {
        let mut dropped = 0;
        for at in 0..self.old.len() {
            if dropped >= room {
                break;
            }
            let (size, available) = (size_of(&self.old[at]), available(&self.old[at]));
            if size == 0 || size == available {
                continue;
            }
            let count = (room - dropped).min(size - available);
            if count <= 0 {
                continue;
            }
            self.resize(Which::Old(at), size - count, false);
            dropped += count;
        }
        dropped
    }

    fn drop_available(&mut self, least: i32) -> i32 {
        let available: i32 = self.sets().map(available).sum();
        let mut room = available - least;
        let mut dropped = 0;
        for at in 0..self.old.len() {
            let size = size_of(&self.old[at]);
            if room <= 0 {
                break;
            }
            if size == 0 {
                continue;
            }
            let count = size.min(room);
            self.resize(Which::Old(at), size - count, false);
            room -= count;
            dropped += count;
        }
        dropped
    }

    /// Recreate: nothing new before everything old is gone.
    pub(super) fn recreate(&mut self) {
        self.sync_revision();
        let mut scaled = false;
        for at in 0..self.old.len() {
            scaled |= size_of(&self.old[at]) > 0 && self.resize(Which::Old(at), 0, false);
        }
        if scaled || self.old_pods_run() {
            self.update_rollout_status();
            return;
        }
        if self.new.is_none() {
            let made = self.ensure_new_set();
            if !made {
                self.update_rollout_status();
                return;
            }
        } else {
            self.resize(Which::New, self.replicas, false);
        }
        if self.is_complete(&self.deployment.status) {
            self.clean_up();
        }
        self.update_rollout_status();
    }

    fn old_pods_run(&self) -> bool {
        let runs = |set: &ReplicaSet| {
            let mut pods = self.context.view.owned_by::<Pod>(&set.metadata.uid);
            set.status.replicas > 0 || pods.any(|pod| !pod::is_finished(&pod))
        };
        self.old.iter().any(runs)
    }
}
