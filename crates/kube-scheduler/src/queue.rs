//! Pods that wait for a node: ready to be tried, backing off, or without hope until something changes.
//!
//! The queue has no clock of its own: each call says what time it is, and [`Queue::next_wake`] says when to call.
//! It is bounded by the pods there are.

use scheduler::plugins::scheduling_gates;
use scheduler::{Event, PodInfo, may_help};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long pods wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The wait after the first failure; it doubles up to the maximum.
    pub backoff_initial: Duration,
    pub backoff_max: Duration,
    /// The longest wait without an event: hints err toward trying, but an event may have been missed.
    pub unschedulable: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(10),
            unschedulable: Duration::from_secs(5 * 60),
        }
    }
}

/// Higher priority first, then who has waited longer.
type Rank = (Reverse<i32>, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Its scheduling gates are not lifted.
    Gated,
    Active(Rank),
    /// Until when, unless nothing else is ready: an event has already called for it.
    Backoff(Instant),
    /// Until when at least: a call failed.
    Held(Instant),
    /// Since when.
    Unschedulable(Instant),
    /// Handed out by [`Queue::pop`].
    Taken,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    /// Failures in a row, each of which doubles the backoff.
    failures: u32,
    failed_at: Option<Instant>,
    rejected_by: Vec<&'static str>,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// These plugins rejected it: wait for an event that concerns them.
    Unschedulable(Vec<&'static str>),
    /// A call failed: try again after the backoff.
    Error,
}

/// The queue of waiting pods.
#[derive(Debug, Default)]
pub struct Queue {
    timing: Timing,
    entries: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    backoff: BTreeSet<(Instant, String)>,
    held: BTreeSet<(Instant, String)>,
    /// Unschedulable pods by the plugins that rejected them: one look tells whether an event concerns a whole group.
    groups: HashMap<Vec<&'static str>, BTreeSet<String>>,
    /// The same pods, by since when.
    parked: BTreeSet<(Instant, String)>,
    gated: BTreeSet<String>,
    sequence: u64,
}

/// How many pods wait where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    /// Behind scheduling gates.
    pub gated: usize,
}

impl Queue {
    pub fn new(timing: Timing) -> Self {
        Queue { timing, ..Default::default() }
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    pub fn depth(&self) -> Depth {
        Depth {
            active: self.active.len(),
            backoff: self.backoff.len() + self.held.len(),
            unschedulable: self.parked.len(),
            gated: self.gated.len(),
        }
    }

    /// Takes a pod in, or its newer state, which may lift its gates or make it fit.
    pub fn set(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid().to_owned();
        let gated = scheduling_gates::waiting_for(&pod.pod).is_some();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let entry =
                Entry { pod, place: Place::Gated, failures: 0, failed_at: None, rejected_by: Vec::new() };
            self.entries.insert(uid.clone(), entry);
            if gated {
                self.gated.insert(uid);
            } else {
                self.activate(&uid);
            }
            return;
        };
        let old = std::mem::replace(&mut entry.pod, pod.clone());
        let changed = old.pod.spec != pod.pod.spec || old.pod.metadata.labels != pod.pod.metadata.labels;
        match entry.place {
            Place::Gated if !gated => self.activate(&uid),
            Place::Unschedulable(_) if changed => {
                let event = Event::SelfChanged { old: &old, new: &pod };
                if may_help(&event, &pod, &entry.rejected_by) {
                    self.requeue(&uid, now);
                }
            }
            Place::Active(rank) if rank.0.0 != pod.priority() => self.activate(&uid),
            _ => {}
        }
    }

    /// Lets a pod go: it is bound, gone, or somebody else's.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.leave(uid);
        self.entries.remove(uid).map(|entry| entry.pod)
    }

    /// The next pod to try: the first that is ready, else one whose backoff an event has cut short.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.flush(now);
        let uid = match self.active.first_key_value() {
            Some((_, uid)) => uid.clone(),
            None => self.backoff.first().map(|(_, uid)| uid.clone())?,
        };
        self.leave(&uid);
        let entry = self.entries.get_mut(&uid)?;
        entry.place = Place::Taken;
        Some(entry.pod.clone())
    }

    /// Whether [`Self::pop`] would answer.
    pub fn is_ready(&self, now: Instant) -> bool {
        !self.active.is_empty()
            || !self.backoff.is_empty()
            || self.held.first().is_some_and(|(until, _)| *until <= now)
            || self.parked.first().is_some_and(|(since, _)| *since + self.timing.unschedulable <= now)
    }

    /// A pod that was taken could not be placed.
    pub fn failed(&mut self, uid: &str, failure: Failure, now: Instant) {
        self.leave(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.failed_at = Some(now);
        match failure {
            Failure::Unschedulable(plugins) => {
                entry.rejected_by.clone_from(&plugins);
                entry.place = Place::Unschedulable(now);
                self.groups.entry(plugins).or_default().insert(uid.to_owned());
                self.parked.insert((now, uid.to_owned()));
            }
            Failure::Error => {
                entry.rejected_by.clear();
                let until = now + backoff(&self.timing, entry.failures);
                entry.place = Place::Held(until);
                self.held.insert((until, uid.to_owned()));
            }
        }
    }

    /// Gives another try to the pods that an event may help.
    pub fn event(&mut self, event: &Event<'_>, now: Instant) {
        let concerned = event.concerns();
        let mut helped = Vec::new();
        for (plugins, pods) in &self.groups {
            if plugins.is_empty() || plugins.iter().any(|plugin| concerned.contains(plugin)) {
                let may = |uid: &&String| may_help(event, &self.entries[*uid].pod, plugins);
                helped.extend(pods.iter().filter(may).cloned());
            }
        }
        for uid in helped {
            self.requeue(&uid, now);
        }
    }

    /// Gives a pod another try, once its backoff has run out.
    pub fn requeue(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get(uid) else { return };
        let until = entry.failed_at.map(|failed_at| failed_at + backoff(&self.timing, entry.failures));
        match until.filter(|until| *until > now) {
            None => self.activate(uid),
            Some(until) => {
                self.leave(uid);
                if let Some(entry) = self.entries.get_mut(uid) {
                    entry.place = Place::Backoff(until);
                    self.backoff.insert((until, uid.to_owned()));
                }
            }
        }
    }

    /// When something in here comes due by itself; `None` where nothing will.
    pub fn next_wake(&self) -> Option<Instant> {
        let timers = self.backoff.first().into_iter().chain(self.held.first()).map(|(until, _)| *until);
        let parked = self.parked.first().map(|(since, _)| *since + self.timing.unschedulable);
        timers.chain(parked).min()
    }

    /// Readies what has backed off or waited long enough.
    fn flush(&mut self, now: Instant) {
        while let Some((_, uid)) = self.backoff.first().filter(|(until, _)| *until <= now).cloned() {
            self.activate(&uid);
        }
        while let Some((_, uid)) = self.held.first().filter(|(until, _)| *until <= now).cloned() {
            self.activate(&uid);
        }
        while let Some((_, uid)) =
            self.parked.first().filter(|(since, _)| *since + self.timing.unschedulable <= now).cloned()
        {
            self.requeue(&uid, now);
        }
    }

    fn activate(&mut self, uid: &str) {
        self.leave(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        self.sequence += 1;
        let rank = (Reverse(entry.pod.priority()), self.sequence);
        entry.place = Place::Active(rank);
        self.active.insert(rank, uid.to_owned());
    }

    /// Takes a pod out of wherever it is.
    fn leave(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        match std::mem::replace(&mut entry.place, Place::Taken) {
            Place::Taken => {}
            Place::Gated => drop(self.gated.remove(uid)),
            Place::Active(rank) => drop(self.active.remove(&rank)),
            Place::Backoff(until) => drop(self.backoff.remove(&(until, uid.to_owned()))),
            Place::Held(until) => drop(self.held.remove(&(until, uid.to_owned()))),
            Place::Unschedulable(since) => {
                self.parked.remove(&(since, uid.to_owned()));
                if let Some(group) = self.groups.get_mut(&entry.rejected_by) {
                    group.remove(uid);
                    if group.is_empty() {
                        self.groups.remove(&entry.rejected_by);
                    }
                }
            }
        }
    }
}

fn backoff(timing: &Timing, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(30);
    timing.backoff_initial.saturating_mul(1 << doublings).min(timing.backoff_max)
}
