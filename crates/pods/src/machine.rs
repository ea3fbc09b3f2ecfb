//! The machine of one pod: which phase it is in, what is under way, what happens next.

mod resizing;

use crate::actions::{self, Health};
use crate::backoff::{self, Backoff};
use crate::input::{Container as Seen, Effect, Failure, Input, Observed, Op, State, Stop};
use crate::probes::{self, KINDS, Outcome, ProbeKind, Watch};
use crate::resize::{self, Answer, Given};
use crate::status::{self, Facts, Resizing};
use crate::{Millis, spec};
use api::core::v1::{Container, Pod, PodStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Retries of a sandbox and of volumes: from half a second, doubled up to these.
const RETRY_MIN: Millis = 500;
const SANDBOX_RETRY_MAX: Millis = 10_000;
const VOLUMES_RETRY_MAX: Millis = 122_000;
/// After a container could not be created; a change of what it refers to retries at once.
const START_RETRY: Millis = 10_000;
/// What a container is left with to end in peace when the pod's grace is used up; upstream's minimum.
const GRACE_MIN_SECONDS: i64 = 2;

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Syncing,
    /// Containers are being stopped; the grace ends at `deadline`.
    Terminating {
        deadline: Millis,
    },
    /// Nothing of it runs and its volumes are gone; the API still has it.
    Terminated,
    /// Nothing is left on the node.
    Finished,
}

/// Something that is retried with a growing wait.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    failures: u32,
    at: Millis,
}

impl Retry {
    fn fail(&mut self, now: Millis, max: Millis) {
        self.at = now + (RETRY_MIN << self.failures.min(16)).min(max);
        self.failures += 1;
    }
}

/// What the machine remembers of one container.
#[derive(Clone, Debug, Default)]
struct Track {
    /// The image of the start to come.
    image: Option<String>,
    pull: Option<(Backoff, Millis, Failure)>,
    crash: Option<Backoff>,
    /// The dead container for which the crash backoff has been passed, and the one for which it was told.
    passed: String,
    told: String,
    retry_at: Option<Millis>,
    waiting: Option<Failure>,
    probes: BTreeMap<ProbeKind, Watch>,
}

pub struct Machine {
    pod: Arc<Pod>,
    host_ips: Vec<String>,
    phase: Phase,
    removed: bool,
    observed: Observed,
    in_flight: BTreeSet<Op>,
    volumes_ready: bool,
    volumes_retry: Retry,
    sandbox_retry: Retry,
    tracks: BTreeMap<String, Track>,
    verdict: Option<(String, String)>,
    /// The grace of an eviction.
    eviction_grace: Option<i64>,
    /// What the node has taken on, and what the runtime has been told.
    allocated: Given,
    actuated: Given,
    /// What the starts and changes under way tell it.
    telling: Given,
    /// The answer to a wish that was not taken on.
    unmet: Option<Answer>,
    resize_retry: Retry,
    resize_fault: Option<String>,
    /// A wish was taken on and is not met everywhere yet.
    resizing: bool,
    status: PodStatus,
    armed: Option<Millis>,
    due: Option<Millis>,
    asked_grace: Option<i64>,
    cleaned: bool,
    deleted: bool,
}

impl Machine {
    /// A pod new to this process. `observed` is what the runtime already has of it.
    pub fn new(pod: Arc<Pod>, host_ips: Vec<String>, observed: Observed) -> Self {
        let status = pod.status.clone();
        let allocated = resize::given(&pod);
        Machine {
            actuated: allocated.clone(),
            allocated,
            telling: Given::new(),
            unmet: None,
            resize_retry: Retry::default(),
            resize_fault: None,
            resizing: false,
            pod,
            host_ips,
            phase: Phase::Syncing,
            removed: false,
            observed,
            in_flight: BTreeSet::new(),
            volumes_ready: false,
            volumes_retry: Retry::default(),
            sandbox_retry: Retry::default(),
            tracks: BTreeMap::new(),
            verdict: None,
            eviction_grace: None,
            status,
            armed: None,
            due: None,
            asked_grace: None,
            cleaned: false,
            deleted: false,
        }
    }

    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// The status as last computed.
    pub fn status(&self) -> &PodStatus {
        &self.status
    }
    pub fn observed(&self) -> &Observed {
        &self.observed
    }
    /// Whether the runtime is being worked on, so that a look at it is worth its price.
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// One thing happened: what is to be done about it.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Effect> {
        let mut effects = vec![];
        self.due = None;
        self.take(now, input, &mut effects);
        self.advance(now, &mut effects);
        if self.due != self.armed
            && let Some(at) = self.due
        {
            effects.push(Effect::ArmTimer { at });
        }
        self.armed = self.due;
        effects
    }

    fn take(&mut self, now: Millis, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Desired(pod) => self.pod = pod,
            Input::Removed => self.removed = true,
            Input::Observed(observed) => self.observe(observed),
            Input::Done { op, result, observed } => {
                if let Some(observed) = observed {
                    self.observe(observed);
                }
                self.in_flight.remove(&op);
                self.done(now, op, result, effects);
            }
            Input::Probe { container, container_id, kind, outcome } => {
                self.probed(&container, &container_id, kind, &outcome, effects);
            }
            Input::Timer => self.armed = None,
            Input::Evict { reason, message, grace_seconds } => {
                if self.phase == Phase::Syncing && self.verdict.is_none() {
                    self.verdict = Some((reason, message));
                    self.eviction_grace = grace_seconds;
                }
            }
            Input::Resize(answer) => self.answered(answer, effects),
            Input::Retry => {
                self.volumes_retry = Retry::default();
                self.tracks.values_mut().for_each(|track| track.retry_at = None);
            }
        }
    }

    fn observe(&mut self, mut observed: Observed) {
        observed.sort();
        self.observed = observed;
    }

    fn done(&mut self, now: Millis, op: Op, result: Result<String, Failure>, effects: &mut Vec<Effect>) {
        match (op, result) {
            (Op::Volumes, Ok(_)) => self.volumes_ready = true,
            (Op::Volumes, Err(_)) => self.volumes_retry.fail(now, VOLUMES_RETRY_MAX),
            (Op::Sandbox, Ok(_)) => self.sandbox_retry = Retry::default(),
            (Op::Sandbox, Err(failure)) => {
                self.sandbox_retry.fail(now, SANDBOX_RETRY_MAX);
                let message = format!("Failed to create pod sandbox: {}", failure.message);
                effects.push(record(true, "FailedCreatePodSandBox", message, None));
            }
            (Op::Pull(name), Ok(image)) => {
                let track = self.tracks.entry(name).or_default();
                track.image = Some(image);
                track.pull = None;
            }
            (Op::Pull(name), Err(failure)) => self.pull_failed(now, &name, failure, effects),
            (Op::Resize(name), result) => self.resized(now, &name, result, effects),
            (Op::Start(name), Ok(_)) => {
                self.told(&name, effects);
                // Started, and already gone from the runtime: not to be tried again in a loop.
                let vanished = self.observed.newest(&name).is_none();
                let track = self.tracks.entry(name).or_default();
                track.image = None;
                track.waiting = None;
                track.retry_at = vanished.then_some(now + START_RETRY);
            }
            (Op::Start(name), Err(failure)) => {
                if failure.reason != "PostStartHookError" {
                    effects.push(record(true, "Failed", format!("Error: {}", failure.message), Some(&name)));
                }
                let track = self.tracks.entry(name).or_default();
                track.image = None;
                track.waiting = Some(failure);
                track.retry_at = Some(now + START_RETRY);
            }
            (Op::StopSandbox(_) | Op::Stop(_), Err(failure)) => {
                effects.push(record(
                    true,
                    "FailedKillPod",
                    format!("error killing pod: {}", failure.message),
                    None,
                ));
                self.sandbox_retry.fail(now, SANDBOX_RETRY_MAX);
            }
            (Op::Cleanup, Ok(_)) => {
                self.volumes_ready = false;
                self.cleaned = true;
            }
            (Op::Delete, Ok(_)) => self.deleted = true,
            (Op::Cleanup | Op::Delete, Err(_)) => self.volumes_retry.fail(now, SANDBOX_RETRY_MAX),
            _ => {}
        }
    }

    fn pull_failed(&mut self, now: Millis, name: &str, failure: Failure, effects: &mut Vec<Effect>) {
        let image = self.container(name).map(|container| container.image).unwrap_or_default();
        if failure.reason == "ErrImagePull" {
            let message = format!("Failed to pull image {image:?}: {}", failure.message);
            effects.push(record(true, "Failed", message, Some(name)));
        } else if failure.reason == "ErrImageNeverPull" {
            effects.push(record(true, "ErrImageNeverPull", failure.message.clone(), Some(name)));
        }
        effects.push(record(true, "Failed", format!("Error: {}", failure.reason), Some(name)));
        let track = self.tracks.entry(name.into()).or_default();
        let entry = Backoff::next(track.pull.as_ref().map(|(entry, ..)| entry), now, now);
        track.pull = Some((entry, now, failure.clone()));
        track.waiting = Some(failure);
        track.told.clear();
    }

    fn probed(
        &mut self,
        name: &str,
        id: &str,
        kind: ProbeKind,
        outcome: &Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let Some(container) = self.container(name) else { return };
        let Some(probe) = probes::spec(&container, kind) else { return };
        let Some(watch) = self.tracks.get_mut(name).and_then(|track| track.probes.get_mut(&kind)) else {
            return;
        };
        if watch.container_id != id {
            return;
        }
        let event = match outcome {
            Outcome::Success => None,
            Outcome::Warning(words) => Some(("ProbeWarning", format!("{kind} probe warning: {words}"))),
            Outcome::Failure(words) => Some(("Unhealthy", format!("{kind} probe failed: {words}"))),
            Outcome::Error(words) => {
                Some(("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {words}")))
            }
        };
        if let Some((reason, message)) = event {
            effects.push(record(true, reason, message, Some(name)));
        }
        watch.take(probe, outcome.is_success());
    }

    fn container(&self, name: &str) -> Option<Container> {
        spec::find(&self.pod.spec, name)
    }

    fn wake(&mut self, at: Millis) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    // === advancing ===

    fn advance(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.watch_probes(now);
        self.check_deadline(now, effects);
        self.change_phase(now);
        match self.phase {
            Phase::Syncing => self.sync(now, effects),
            Phase::Terminating { deadline } => self.terminate(now, deadline, effects),
            Phase::Terminated | Phase::Finished => {}
        }
        self.report(now, effects);
        // The status may have shown the pod's end: then its end begins in the same step.
        if self.phase == Phase::Syncing && matches!(self.status.phase.as_str(), "Succeeded" | "Failed") {
            self.change_phase(now);
            if let Phase::Terminating { deadline } = self.phase {
                self.terminate(now, deadline, effects);
                self.report(now, effects);
            }
        }
        if self.phase == Phase::Terminated {
            self.leave(now, effects);
        }
    }

    fn check_deadline(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Some(seconds) = self.pod.spec.active_deadline_seconds else { return };
        let Some(start) = self.status.start_time.filter(|_| self.phase == Phase::Syncing) else { return };
        let at = (start.seconds() + seconds) * 1000;
        if now < at {
            self.wake(at);
        } else if self.verdict.is_none() {
            let message = "Pod was active on the node longer than the specified deadline";
            effects.push(record(false, "DeadlineExceeded", message.into(), None));
            self.verdict = Some(("DeadlineExceeded".into(), message.into()));
        }
    }

    fn change_phase(&mut self, now: Millis) {
        let deleted = self.pod.metadata.deletion_timestamp.is_some();
        let over = self.verdict.is_some()
            || matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
            || actions::finished(&self.pod, &self.observed);
        if self.phase == Phase::Syncing && (deleted || self.removed || over) {
            let grace = self.eviction_grace.unwrap_or_else(|| spec::grace_seconds(&self.pod));
            self.asked_grace = Some(grace);
            self.phase = Phase::Terminating { deadline: now + grace * 1000 };
        }
        // A second, more impatient deletion.
        if let Phase::Terminating { deadline } = &mut self.phase
            && deleted
            && self.asked_grace.is_some_and(|asked| spec::grace_seconds(&self.pod) < asked)
        {
            let grace = spec::grace_seconds(&self.pod);
            self.asked_grace = Some(grace);
            *deadline = (*deadline).min(now + grace * 1000);
            self.in_flight.retain(|op| !matches!(op, Op::Stop(_)));
        }
    }

    fn sync(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if !self.volumes_ready && self.may(&Op::Volumes, now, self.volumes_retry.at) {
            self.begin(Op::Volumes, Effect::PrepareVolumes, effects);
        }
        let actions = actions::compute(&self.pod, &self.observed, &Probed(&self.tracks));
        for ending in actions.stop {
            let probe = ending.probe.and_then(|kind| {
                let container = self.container(&ending.container)?;
                probes::spec(&container, kind)?.termination_grace_period_seconds
            });
            let grace = probe.or(self.pod.spec.termination_grace_period_seconds).unwrap_or(30);
            let stop = Stop {
                container: ending.container,
                id: ending.id,
                grace_seconds: grace,
                message: ending.message,
            };
            self.stop(stop, effects);
        }
        if !actions.start.is_empty() {
            self.ensure_sandbox(now, effects);
        }
        for name in &actions.start {
            self.start(now, name, effects);
        }
        for (name, track) in &mut self.tracks {
            if !actions.start.contains(name) && !self.in_flight.contains(&Op::Start(name.clone())) {
                track.waiting = None;
            }
        }
        self.resize(now, effects);
        self.collect(effects);
        self.run_probes(now, effects);
    }

    /// Whether a piece of work may begin: not under way, and its wait over.
    fn may(&mut self, op: &Op, now: Millis, not_before: Millis) -> bool {
        if self.in_flight.contains(op) {
            return false;
        }
        if now < not_before {
            self.wake(not_before);
            return false;
        }
        true
    }

    fn begin(&mut self, op: Op, effect: Effect, effects: &mut Vec<Effect>) {
        self.in_flight.insert(op);
        effects.push(effect);
    }

    fn ensure_sandbox(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if actions::usable_sandbox(&self.pod, &self.observed).is_some() {
            return;
        }
        let newest = self.observed.sandboxes.first().cloned();
        if let Some(old) = &newest {
            let holds = |seen: &Seen| seen.sandbox_id == old.id && seen.state == State::Running;
            if old.ready || self.observed.containers.iter().any(holds) {
                let op = Op::StopSandbox(old.id.clone());
                if self.may(&op, now, self.sandbox_retry.at) {
                    self.begin(op, Effect::StopSandbox { id: old.id.clone() }, effects);
                }
                return;
            }
        }
        if self.may(&Op::Sandbox, now, self.sandbox_retry.at) {
            let attempt = newest.map_or(0, |old| old.attempt + 1);
            if attempt > 0 {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                effects.push(record(false, "SandboxChanged", message.into(), None));
            }
            self.begin(Op::Sandbox, Effect::CreateSandbox { attempt }, effects);
        }
    }

    fn start(&mut self, now: Millis, name: &str, effects: &mut Vec<Effect>) {
        let (pull, start) = (Op::Pull(name.into()), Op::Start(name.into()));
        if self.in_flight.contains(&pull) || self.in_flight.contains(&start) {
            return;
        }
        if let Some(until) =
            self.crash_wait(now, name, effects).or_else(|| self.pull_wait(now, name, effects))
        {
            return self.wake(until);
        }
        let track = self.tracks.entry(name.into()).or_default();
        if let Some(at) = track.retry_at.filter(|at| now < *at) {
            return self.wake(at);
        }
        let Some(image_id) = track.image.clone() else {
            return self.begin(pull, Effect::Pull { container: name.into() }, effects);
        };
        let Some(sandbox) = actions::usable_sandbox(&self.pod, &self.observed) else { return };
        if !self.volumes_ready {
            return;
        }
        let attempt = self.next_attempt(name);
        let sandbox_id = sandbox.id.clone();
        self.tell(name);
        self.begin(start, Effect::Start { container: name.into(), attempt, sandbox_id, image_id }, effects);
    }

    fn next_attempt(&self, name: &str) -> u32 {
        if let Some(seen) = self.observed.newest(name) {
            return seen.attempt + 1;
        }
        // The runtime has forgotten it (a machine restarted): the API has not.
        let all = self.status.container_statuses.iter().chain(&self.status.init_container_statuses);
        let ran = all.into_iter().find(|one| one.name == name && !one.container_id.is_empty());
        ran.map_or(0, |one| u32::try_from(one.restart_count).unwrap_or(0) + 1)
    }

    /// Until when a crashed container waits; says so in status and event.
    fn crash_wait(&mut self, now: Millis, name: &str, effects: &mut Vec<Effect>) -> Option<Millis> {
        let dead = self.observed.newest(name).filter(|seen| seen.state == State::Exited)?;
        let (id, since) = (dead.id.clone(), dead.finished_at);
        let describe = spec::describe(&self.pod);
        let track = self.tracks.entry(name.into()).or_default();
        if track.passed == id {
            return None;
        }
        let Some((delay, until)) = Backoff::remaining(track.crash.as_ref(), since, now) else {
            track.crash = Some(Backoff::next(track.crash.as_ref(), since, now));
            track.passed = id;
            return None;
        };
        let message =
            format!("back-off {} restarting failed container={name} pod={describe}", backoff::text(delay));
        track.waiting = Some(Failure::of("CrashLoopBackOff", message));
        if track.told != id {
            track.told = id;
            let message = format!("Back-off restarting failed container {name} in pod {describe}");
            effects.push(record(true, "BackOff", message, Some(name)));
        }
        Some(until)
    }

    fn pull_wait(&mut self, now: Millis, name: &str, effects: &mut Vec<Effect>) -> Option<Millis> {
        let image = self.container(name)?.image;
        let track = self.tracks.get_mut(name)?;
        let (entry, since, failure) = track.pull.as_ref()?;
        let (_, until) = Backoff::remaining(Some(entry), *since, now)?;
        // The failure itself is shown until the wait is noticed; then the wait, with the failure behind it.
        if failure.reason == "ErrImagePull" && now > *since {
            let words = format!("Back-off pulling image {image:?}");
            let message = format!("{words}: {}: {}", failure.reason, failure.message);
            track.waiting = Some(Failure::of("ImagePullBackOff", message));
            if track.told != "pull" {
                track.told = "pull".into();
                effects.push(record(false, "BackOff", words, Some(name)));
                effects.push(record(true, "Failed", "Error: ImagePullBackOff".into(), Some(name)));
            }
        }
        // Look again soon after a failure, to tell of the wait.
        let told = failure.reason != "ErrImagePull" || now > *since;
        Some(if told { until } else { (*since + 1000).min(until) })
    }

    fn stop(&mut self, stop: Stop, effects: &mut Vec<Effect>) {
        let op = Op::Stop(stop.id.clone());
        if !self.in_flight.contains(&op) {
            self.begin(op, Effect::Stop(stop), effects);
        }
    }

    /// Dead containers beyond the newest two of a name, and dead sandboxes without containers, are of no more use.
    fn collect(&mut self, effects: &mut Vec<Effect>) {
        let mut kept: BTreeMap<&str, u32> = BTreeMap::new();
        let mut spare = vec![];
        for seen in &self.observed.containers {
            let count = kept.entry(&seen.name).or_default();
            *count += 1;
            if *count > 2 && seen.state == State::Exited {
                spare.push(seen.id.clone());
            }
        }
        for id in spare {
            let op = Op::Collect(id.clone());
            if !self.in_flight.contains(&op) {
                self.begin(op, Effect::Collect { id }, effects);
            }
        }
    }

    // === probes ===

    /// Makes the watches of running containers, drops those of others.
    fn watch_probes(&mut self, _now: Millis) {
        let spec = &self.pod.spec;
        let sidecars = spec.init_containers.iter().filter(|one| spec::is_sidecar(one));
        for container in spec.containers.iter().chain(sidecars) {
            let seen = self.observed.newest(&container.name).filter(|seen| seen.state == State::Running);
            let track = self.tracks.entry(container.name.clone()).or_default();
            let Some(seen) = seen else {
                track.probes.clear();
                continue;
            };
            for kind in KINDS {
                let Some(probe) = probes::spec(container, kind) else { continue };
                let known = track.probes.get(&kind).is_some_and(|watch| watch.container_id == seen.id);
                if !known {
                    let mut watch = Watch::start(&seen.id, probe, seen.started_at);
                    watch.settled = told_before(&self.status, seen, kind);
                    track.probes.insert(kind, watch);
                }
            }
        }
    }

    fn run_probes(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let mut due: Option<Millis> = None;
        let pod = self.pod.clone();
        let sidecars = pod.spec.init_containers.iter().filter(|one| spec::is_sidecar(one));
        for container in pod.spec.containers.iter().chain(sidecars) {
            let Some(track) = self.tracks.get_mut(&container.name) else { continue };
            let startup = track.probes.get(&ProbeKind::Startup).map(|watch| watch.settled);
            let started = startup.is_none_or(|settled| settled == Some(true));
            for kind in KINDS {
                let Some(probe) = probes::spec(container, kind) else { continue };
                let Some(watch) = track.probes.get_mut(&kind) else { continue };
                let over = match kind {
                    ProbeKind::Startup => watch.settled.is_some(),
                    // Condemned: the container is being stopped.
                    ProbeKind::Liveness => !started || watch.settled == Some(false),
                    ProbeKind::Readiness => !started,
                };
                if over || watch.in_flight {
                    continue;
                }
                if now >= watch.next {
                    watch.begin(probe, now);
                    let (name, id) = (container.name.clone(), watch.container_id.clone());
                    effects.push(Effect::Probe { container: name, container_id: id, kind });
                } else {
                    due = Some(due.map_or(watch.next, |due| due.min(watch.next)));
                }
            }
        }
        if let Some(due) = due {
            self.wake(due);
        }
    }

    // === ending ===

    fn terminate(&mut self, now: Millis, deadline: Millis, effects: &mut Vec<Effect>) {
        let starting = self.in_flight.iter().any(|op| matches!(op, Op::Start(_) | Op::Sandbox | Op::Volumes));
        let alive = |seen: &&Seen| seen.state != State::Exited;
        let running: Vec<Seen> = self.observed.containers.iter().filter(alive).cloned().collect();
        let sidecars: Vec<String> = self
            .pod
            .spec
            .init_containers
            .iter()
            .filter(|one| spec::is_sidecar(one))
            .map(|one| one.name.clone())
            .collect();
        let mut now_ending: Vec<&Seen> =
            running.iter().filter(|seen| !sidecars.contains(&seen.name)).collect();
        if now_ending.is_empty() && !starting {
            // Sidecars last, one after the other, the last started first.
            let last = sidecars.iter().rev().find_map(|name| running.iter().find(|seen| &seen.name == name));
            now_ending.extend(last);
        }
        let left = ((deadline - now).max(0) + 999) / 1000;
        for seen in now_ending {
            if now < self.sandbox_retry.at {
                self.wake(self.sandbox_retry.at);
                return;
            }
            let stop = Stop {
                container: seen.name.clone(),
                id: seen.id.clone(),
                grace_seconds: left.max(GRACE_MIN_SECONDS.min(spec::grace_seconds(&self.pod))),
                message: format!("Stopping container {}", seen.name),
            };
            self.stop(stop, effects);
        }
        if !running.is_empty() || starting {
            return;
        }
        let ready =
            self.observed.sandboxes.iter().find(|sandbox| sandbox.ready).map(|sandbox| sandbox.id.clone());
        if let Some(id) = ready {
            let op = Op::StopSandbox(id.clone());
            if self.may(&op, now, self.sandbox_retry.at) {
                self.begin(op, Effect::StopSandbox { id }, effects);
            }
        } else if !self.cleaned {
            if self.may(&Op::Cleanup, now, self.volumes_retry.at) {
                self.begin(Op::Cleanup, Effect::Cleanup, effects);
            }
        } else {
            self.phase = Phase::Terminated;
        }
    }

    fn leave(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.removed {
            self.phase = Phase::Finished;
            effects.push(Effect::Finish);
        } else if self.pod.metadata.deletion_timestamp.is_some()
            && !self.deleted
            && self.may(&Op::Delete, now, self.volumes_retry.at)
        {
            self.begin(Op::Delete, Effect::Delete, effects);
        }
    }

    // === status ===

    fn report(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let waiting = self
            .tracks
            .iter()
            .filter_map(|(name, track)| Some((name.clone(), track.waiting.clone()?)))
            .collect();
        let health = self.health();
        let ended = self.ended();
        let status = status::build(&Facts {
            pod: &self.pod,
            observed: &self.observed,
            waiting: &waiting,
            health: &health,
            // Told once nothing runs any more: others act on a failed pod's place as free.
            verdict: self
                .verdict
                .as_ref()
                .filter(|_| ended)
                .map(|(reason, message)| (reason.as_str(), message.as_str())),
            disrupted: self.eviction_grace.is_some(),
            resizing: Resizing {
                allocated: &self.allocated,
                actuated: &self.actuated,
                unmet: self.unmet.as_ref(),
                fault: self.resize_fault.as_deref(),
            },
            ending: self.phase != Phase::Syncing,
            ended,
            host_ips: &self.host_ips,
            previous: &self.status,
            now,
        });
        if status != self.status {
            self.status = status.clone();
            effects.push(Effect::ReportStatus(Box::new(status)));
        }
    }

    /// Nothing runs, and nothing will.
    fn ended(&self) -> bool {
        let starting = self.in_flight.iter().any(|op| matches!(op, Op::Start(_)));
        self.phase != Phase::Syncing
            && !starting
            && self.observed.containers.iter().all(|seen| seen.state == State::Exited)
    }

    /// Started and ready of each running container.
    fn health(&self) -> BTreeMap<String, (bool, bool)> {
        let probed = Probed(&self.tracks);
        let spec = &self.pod.spec;
        let mut health = BTreeMap::new();
        for container in spec.containers.iter().chain(&spec.init_containers) {
            let Some(seen) = self.observed.newest(&container.name) else { continue };
            let settled = |kind| probed.settled(&container.name, &seen.id, kind);
            let ready = container.readiness_probe.is_none() || settled(ProbeKind::Readiness) == Some(true);
            health.insert(container.name.clone(), (probed.started(container, seen), ready));
        }
        health
    }
}

fn record(warning: bool, reason: &str, message: String, container: Option<&str>) -> Effect {
    Effect::Record { warning, reason: reason.into(), message, container: container.map(String::from) }
}

/// What the API says of this very container, for a node agent that has just restarted.
fn told_before(status: &PodStatus, seen: &Seen, kind: ProbeKind) -> Option<bool> {
    let id = format!("containerd://{}", seen.id);
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let told = all.into_iter().find(|one| one.container_id == id)?;
    match kind {
        ProbeKind::Startup => told.started.filter(|started| *started),
        ProbeKind::Readiness => told.ready.then_some(true),
        ProbeKind::Liveness => None,
    }
}

struct Probed<'a>(&'a BTreeMap<String, Track>);

impl Probed<'_> {
    fn settled(&self, name: &str, id: &str, kind: ProbeKind) -> Option<bool> {
        let watch = self.0.get(name)?.probes.get(&kind)?;
        watch.settled.filter(|_| watch.container_id == id)
    }
}

impl Health for Probed<'_> {
    fn started(&self, container: &Container, seen: &Seen) -> bool {
        container.startup_probe.is_none()
            || self.settled(&container.name, &seen.id, ProbeKind::Startup) == Some(true)
    }
    fn failed(&self, container: &Container, seen: &Seen) -> Option<ProbeKind> {
        [ProbeKind::Liveness, ProbeKind::Startup]
            .into_iter()
            .find(|kind| self.settled(&container.name, &seen.id, *kind) == Some(false))
    }
}
