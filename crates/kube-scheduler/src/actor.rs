//! The one task that decides: it owns the snapshot and the queue, takes in what changed, and sends out what to write.

use crate::config::Config;
use crate::metrics::Metrics;
use crate::queue::{Failure, Queue};
use crate::volumes::{Binding, Volumes};
use crate::writes::{self, Nomination, Refusal};
use api::Object;
use api::apps::v1::{ReplicaSet, StatefulSet};
use api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use api::policy::v1::PodDisruptionBudget;
use api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use client::{Change, Client, EventType, Recorder, Subscription};
use scheduler::plugins::volume_binding;
use scheduler::{Decision, Event, Fact, PodInfo, Profile, Snapshot, Turn, Unschedulable, decide};
use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Bindings and evictions under way at once; beyond that, pods wait in the queue.
const WRITES_MAX: usize = 256;
/// Condition patches under way at once; more of them wait. There is at most one for each failed try.
const PATCHES_MAX: usize = 64;
/// Decisions in a row before changes are taken in again.
const BURST: usize = 32;

/// What became of a write.
enum Outcome {
    Bound {
        pod: Arc<PodInfo>,
        node: String,
        result: Result<(), client::Error>,
    },
    /// The volumes of a pod were asked for.
    VolumesAsked {
        binding: Binding,
        result: Result<(), client::Error>,
    },
    Evicted {
        pod: Arc<PodInfo>,
        victims: Vec<String>,
        plugins: Vec<&'static str>,
        succeeded: bool,
    },
}

/// The scheduler's state for one term of leading.
pub struct Actor {
    client: Client,
    profiles: Vec<Profile>,
    /// By the profile's name, which is the component that its events come from.
    recorders: HashMap<String, Recorder>,
    snapshot: Snapshot,
    queue: Queue,
    /// Pods whose binding is under way or not yet seen in the watch.
    assumed: HashSet<String>,
    /// Assumed pods that wait for their volumes.
    volumes: Volumes,
    turn: Turn,
    writing: usize,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// Unbounded, but never more than `WRITES_MAX` are under way.
    report: mpsc::UnboundedSender<Outcome>,
    patches: Arc<Semaphore>,
    /// The last condition patch of each waiting pod: what is written next about it waits for that.
    patching: HashMap<String, JoinHandle<()>>,
    metrics: Arc<Metrics>,
    token: CancellationToken,
}

impl Actor {
    pub fn new(config: &Config, client: &Client, metrics: Arc<Metrics>, token: &CancellationToken) -> Self {
        let (report, outcomes) = mpsc::unbounded_channel();
        let recorder = Recorder::start(client.clone(), "default-scheduler", "", token.clone());
        let names = config.profiles.iter().map(|profile| profile.scheduler_name.clone());
        Actor {
            client: client.clone(),
            recorders: names.map(|name| (name.clone(), recorder.for_component(&name))).collect(),
            profiles: config.profiles.clone(),
            snapshot: Snapshot::new(),
            queue: Queue::new(config.queue),
            assumed: HashSet::new(),
            volumes: Volumes::default(),
            turn: Turn::default(),
            writing: 0,
            outcomes,
            report,
            patches: Arc::new(Semaphore::new(PATCHES_MAX)),
            patching: HashMap::new(),
            metrics,
            token: token.clone(),
        }
    }

    /// Runs until the token is cancelled.
    pub async fn run(mut self, mut changes: Subscription, token: &CancellationToken) {
        loop {
            let busy = self.schedule_some();
            self.metrics.pending(self.queue.depth());
            let wake = self.queue.next_wake().filter(|_| self.writing < WRITES_MAX);
            let wake = wake.into_iter().chain(self.volumes.next_deadline()).min();
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                outcome = self.outcomes.recv() => {
                    let Some(outcome) = outcome else { return };
                    self.take(outcome);
                    while let Ok(outcome) = self.outcomes.try_recv() {
                        self.take(outcome);
                    }
                }
                changed = changes.recv() => {
                    let Some(changed) = changed else { return };
                    let now = Instant::now();
                    for change in changed.objects {
                        self.apply(change, now);
                    }
                }
                () = tokio::task::yield_now(), if busy => {}
                () = sleep_until(wake), if !busy => {}
            }
            self.look_at_volumes(Instant::now());
        }
    }

    /// Decides for a few pods; whether there are more.
    fn schedule_some(&mut self) -> bool {
        let now = Instant::now();
        for _ in 0..BURST {
            if self.writing >= WRITES_MAX {
                return false;
            }
            match self.queue.pop(now) {
                Some(pod) => self.schedule(pod, now),
                None => return false,
            }
        }
        self.queue.is_ready(now)
    }

    fn schedule(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let Some(profile) =
            self.profiles.iter().find(|own| own.scheduler_name == pod.pod.spec.scheduler_name)
        else {
            self.queue.remove(pod.uid());
            return;
        };
        self.turn.tie = rand::random();
        let decision = decide(&self.snapshot, profile, &pod, self.turn);
        self.turn.start = self.turn.start.wrapping_add(decision.evaluated());
        match decision {
            Decision::Bind { node, evaluated, feasible } => {
                debug!(pod = %writes::key_of(&pod.pod), node, evaluated, feasible, "Chose a node");
                self.assume(pod, node, now);
            }
            Decision::Unschedulable(why) => {
                self.metrics.unschedulable();
                let nomination = if why.clear_nomination {
                    self.snapshot.forget_nomination(pod.uid());
                    Nomination::Clear
                } else {
                    Nomination::Keep
                };
                self.queue.failed(pod.uid(), Failure::Unschedulable(why.plugins.clone()), now);
                self.refuse(&pod, "Unschedulable", why.message, nomination);
            }
            Decision::Nominate { node, victims, why } => self.preempt(pod, node, victims, why),
        }
    }

    /// Assumes the pod on the node; binds it, or first asks for the volumes that it needs there.
    fn assume(&mut self, pod: Arc<PodInfo>, node: String, now: Instant) {
        let plan = match volume_binding::plan(&self.snapshot, &pod, &node) {
            Ok(plan) => plan,
            Err(message) => {
                self.queue.failed(pod.uid(), Failure::Unschedulable(vec![volume_binding::NAME]), now);
                return self.refuse(&pod, "Unschedulable", message, Nomination::Keep);
            }
        };
        self.snapshot.set_pod(pod.clone(), &node);
        self.assumed.insert(pod.uid().to_owned());
        if plan.is_empty() {
            return self.bind(pod, node);
        }
        let binding = Binding::assume(&mut self.snapshot, pod, node, plan);
        let (client, report, token) = (self.client.clone(), self.report.clone(), self.token.clone());
        self.writing += 1;
        tokio::spawn(async move {
            tokio::select! {
                result = binding.write(&client) => {
                    let _ = report.send(Outcome::VolumesAsked { binding, result });
                }
                () = token.cancelled() => {}
            }
        });
    }

    /// Goes on with the pods whose volumes are there, and gives up those whose volumes will not come.
    fn look_at_volumes(&mut self, now: Instant) {
        for (binding, result) in self.volumes.settled(&self.snapshot, now) {
            match result {
                Ok(()) => self.bind(binding.pod, binding.node),
                Err(message) => {
                    warn!(pod = %writes::key_of(&binding.pod.pod), cause = message, "Could not bind volumes");
                    self.metrics.error();
                    let text =
                        format!("running PreBind plugin \"VolumeBinding\": binding volumes: {message}");
                    self.give_up(&binding.pod, text, now);
                }
            }
        }
    }

    /// A pod that was assumed on a node does not get there: it is tried again later.
    fn give_up(&mut self, pod: &Arc<PodInfo>, message: String, now: Instant) {
        // Unless the watch has meanwhile shown it bound after all, or gone.
        if self.assumed.remove(pod.uid()) {
            self.leave(pod, now);
            self.queue.failed(pod.uid(), Failure::Error, now);
            if self.queue.contains(pod.uid()) {
                self.refuse(pod, "SchedulerError", message, Nomination::Keep);
            }
        }
    }

    /// Binds a pod in the background.
    fn bind(&mut self, pod: Arc<PodInfo>, node: String) {
        let (client, report, token) = (self.client.clone(), self.report.clone(), self.token.clone());
        let before = self.patching.remove(pod.uid());
        self.writing += 1;
        tokio::spawn(async move {
            let bind = async {
                // A refusal that arrived after the binding would call a bound pod unscheduled.
                finished(before).await;
                writes::bind(&client, &pod.pod, &node).await
            };
            tokio::select! {
                result = bind => {
                    // Nobody listens once the term has ended.
                    let _ = report.send(Outcome::Bound { pod, node, result });
                }
                () = token.cancelled() => {}
            }
        });
    }

    /// Makes room by evicting pods. Until they are asked to go the pod stays out of the queue, lest it picks more.
    fn preempt(&mut self, pod: Arc<PodInfo>, node: String, victims: Vec<Arc<PodInfo>>, why: Unschedulable) {
        info!(pod = %writes::key_of(&pod.pod), node, victims = victims.len(), "Preempting pods");
        self.metrics.unschedulable();
        self.metrics.preempted(victims.len());
        self.snapshot.nominate(&pod, Some(&node));
        self.refuse(&pod, "Unschedulable", why.message, Nomination::Set(node.clone()));
        let (client, report, token) = (self.client.clone(), self.report.clone(), self.token.clone());
        let recorder = self.recorders[&pod.pod.spec.scheduler_name].clone();
        self.writing += 1;
        tokio::spawn(async move {
            tokio::select! {
                result = writes::evict(&client, &recorder, &pod.pod, &node, &victims) => {
                    let victims = victims.iter().map(|victim| victim.uid().to_owned()).collect();
                    let succeeded = result.is_ok();
                    let _ = report.send(Outcome::Evicted { pod, victims, plugins: why.plugins, succeeded });
                }
                () = token.cancelled() => {}
            }
        });
    }

    fn take(&mut self, outcome: Outcome) {
        self.writing -= 1;
        let now = Instant::now();
        match outcome {
            Outcome::Bound { pod, node, result: Ok(()) } => {
                let (namespace, name) = (pod.namespace(), &pod.pod.metadata.name);
                info!(pod = %writes::key_of(&pod.pod), node, "Bound pod");
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                self.record(&pod, EventType::Normal, "Scheduled", &message);
                self.metrics.scheduled();
                self.queue.remove(pod.uid());
            }
            Outcome::Bound { pod, node, result: Err(error) } => {
                warn!(pod = %writes::key_of(&pod.pod), node, cause = error.chain(), "Could not bind pod");
                self.metrics.error();
                let message = format!("running Bind plugin \"DefaultBinder\": {}", error.chain());
                self.give_up(&pod, message, now);
            }
            Outcome::VolumesAsked { binding, result: Ok(()) } => {
                if self.assumed.contains(binding.pod.uid()) {
                    self.volumes.wait(binding, now);
                }
            }
            Outcome::VolumesAsked { binding, result: Err(error) } => {
                warn!(pod = %writes::key_of(&binding.pod.pod), cause = error.chain(), "Could not ask for volumes");
                self.metrics.error();
                binding.revert(&mut self.snapshot);
                let message =
                    format!("running PreBind plugin \"VolumeBinding\": binding volumes: {}", error.chain());
                self.give_up(&binding.pod, message, now);
            }
            Outcome::Evicted { pod, victims, plugins, succeeded } => {
                self.queue.failed(pod.uid(), Failure::Unschedulable(plugins), now);
                // Victims that went before the pod was back in the queue called for it in vain.
                let gone = victims.iter().any(|victim| self.snapshot.node_of(victim).is_none());
                if gone || !succeeded {
                    self.queue.requeue(pod.uid(), now);
                }
            }
        }
    }

    /// Says why a pod is not scheduled: an event, and its condition.
    fn refuse(&mut self, pod: &Arc<PodInfo>, reason: &'static str, message: String, nomination: Nomination) {
        debug!(pod = %writes::key_of(&pod.pod), reason, message, "Found no node for pod");
        self.record(pod, EventType::Warning, "FailedScheduling", &writes::cut(&message));
        let refusal = Refusal { reason, message, nomination };
        let (client, patches, pod) = (self.client.clone(), self.patches.clone(), pod.pod.clone());
        let (uid, token) = (pod.metadata.uid.clone(), self.token.clone());
        let before = self.patching.remove(&uid);
        let written = tokio::spawn(async move {
            let write = async {
                finished(before).await;
                // Never closed.
                let _permit = patches.acquire().await;
                writes::refuse(&client, &pod, &refusal).await;
            };
            tokio::select! {
                () = write => {}
                () = token.cancelled() => {}
            }
        });
        self.patching.insert(uid, written);
    }

    fn record(&self, pod: &PodInfo, kind: EventType, reason: &str, message: &str) {
        if let Some(recorder) = self.recorders.get(&pod.pod.spec.scheduler_name) {
            recorder.event(&*pod.pod, kind, reason, message);
        }
    }

    /// Takes in one change of the cluster.
    fn apply(&mut self, change: Change, now: Instant) {
        if change.kind == kind::<Pod>() {
            self.apply_pod(typed(change.old), typed(change.new), now);
        } else if change.kind == kind::<Node>() {
            self.apply_node(typed(change.old), typed(change.new), now);
        } else if let Some((fact, present)) = fact(change) {
            self.volumes.changed(&fact);
            if present {
                self.snapshot.set_fact(fact.clone());
            } else {
                self.snapshot.remove_fact(&fact);
            }
            match &fact {
                Fact::Claim(claim) => self.queue.event(&Event::ClaimChanged(claim), now),
                Fact::Volume(_) => self.queue.event(&Event::VolumeChanged, now),
                Fact::Class(_) => self.queue.event(&Event::ClassChanged, now),
                Fact::Driver(_) | Fact::Capacity(_) => self.queue.event(&Event::CapacityChanged, now),
                Fact::CsiNode(_) => self.queue.event(&Event::LimitsChanged, now),
                Fact::Attachment(_) if !present => self.queue.event(&Event::AttachmentRemoved, now),
                _ => {}
            }
        }
    }

    fn apply_node(&mut self, old: Option<Arc<Node>>, new: Option<Arc<Node>>, now: Instant) {
        match (old, new) {
            (_, Some(new)) => match self.snapshot.set_node(new.clone()) {
                None => self.queue.event(&Event::NodeAdded(&new), now),
                Some(old) if decides_differently(&old, &new) => {
                    self.queue.event(&Event::NodeChanged { old: &old, new: &new }, now);
                }
                Some(_) => {}
            },
            (Some(old), None) => {
                self.snapshot.remove_node(&old.metadata.name);
                self.queue.event(&Event::NodeRemoved(&old), now);
            }
            (None, None) => {}
        }
    }

    fn apply_pod(&mut self, old: Option<Arc<Pod>>, new: Option<Arc<Pod>>, now: Instant) {
        if let Some(old) =
            old.filter(|old| new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid))
        {
            self.forget_pod(&old.metadata.uid, now);
        }
        let Some(new) = new else { return };
        let uid = new.metadata.uid.clone();
        if !new.spec.node_name.is_empty() {
            self.queue.remove(&uid);
            self.patching.remove(&uid);
            self.volumes.forget(&uid);
            let assumed = self.assumed.remove(&uid);
            self.place(Arc::new(PodInfo::new(new)), assumed, now);
            return;
        }
        let ours = self.profiles.iter().any(|profile| profile.scheduler_name == new.spec.scheduler_name);
        // A pod that is being deleted, or somebody else's, waits for no node.
        if !ours || new.metadata.deletion_timestamp.is_some() {
            if !self.assumed.contains(&uid) {
                self.forget_pod(&uid, now);
            }
            return;
        }
        if self.assumed.contains(&uid) {
            return;
        }
        let (info, node) =
            (Arc::new(PodInfo::new(new)), &|info: &PodInfo| info.pod.status.nominated_node_name.clone());
        if !self.queue.contains(&uid) && !node(&info).is_empty() {
            // Nominated before this scheduler began.
            self.snapshot.nominate(&info, Some(&node(&info)));
        }
        self.queue.set(info, now);
    }

    /// A pod that the watch shows on a node.
    fn place(&mut self, pod: Arc<PodInfo>, assumed: bool, now: Instant) {
        let before = self.snapshot.remove_pod(pod.uid());
        let node = pod.pod.spec.node_name.clone();
        self.snapshot.set_pod(pod.clone(), &node);
        match before.filter(|_| !assumed) {
            None => self.queue.event(&Event::PodPlaced(&pod), now),
            Some(before) => {
                let differs = before.requests != pod.requests
                    || before.labels() != pod.labels()
                    || before.is_terminating() != pod.is_terminating();
                if differs {
                    self.queue.event(&Event::PodChanged { old: &before, new: &pod }, now);
                }
            }
        }
    }

    /// A pod that is gone, or waits no more.
    fn forget_pod(&mut self, uid: &str, now: Instant) {
        self.assumed.remove(uid);
        self.volumes.forget(uid);
        self.queue.remove(uid);
        self.patching.remove(uid);
        if let Some(pod) = self.snapshot.remove_pod(uid) {
            self.queue.event(&Event::PodRemoved(&pod), now);
        }
        self.snapshot.forget_nomination(uid);
    }

    /// A pod that was assumed on a node and is not there.
    fn leave(&mut self, pod: &PodInfo, now: Instant) {
        if let Some(gone) = self.snapshot.remove_pod(pod.uid()) {
            self.queue.event(&Event::PodRemoved(&gone), now);
        }
    }
}

/// Whether a change of a node is one that decisions see: heartbeats are not.
fn decides_differently(old: &Node, new: &Node) -> bool {
    old.metadata.labels != new.metadata.labels
        || old.spec.unschedulable != new.spec.unschedulable
        || old.spec.taints != new.spec.taints
        || old.status.allocatable != new.status.allocatable
}

fn kind<T: 'static>() -> std::any::TypeId {
    std::any::TypeId::of::<T>()
}

fn typed<T: Object>(object: Option<Arc<dyn Object>>) -> Option<Arc<T>> {
    let object: Arc<dyn Any + Send + Sync> = object?;
    object.downcast().ok()
}

/// The fact that a change is about, and whether it still holds.
fn fact(change: Change) -> Option<(Fact, bool)> {
    let present = change.new.is_some();
    let (of, object) = (change.kind, change.new.or(change.old));
    let fact = if of == kind::<Namespace>() {
        Fact::Namespace(typed(object)?)
    } else if of == kind::<Service>() {
        Fact::Service(typed(object)?)
    } else if of == kind::<ReplicationController>() {
        Fact::ReplicationController(typed(object)?)
    } else if of == kind::<ReplicaSet>() {
        Fact::ReplicaSet(typed(object)?)
    } else if of == kind::<StatefulSet>() {
        Fact::StatefulSet(typed(object)?)
    } else if of == kind::<PersistentVolumeClaim>() {
        Fact::Claim(typed(object)?)
    } else if of == kind::<PersistentVolume>() {
        Fact::Volume(typed(object)?)
    } else if of == kind::<StorageClass>() {
        Fact::Class(typed(object)?)
    } else if of == kind::<CSINode>() {
        Fact::CsiNode(typed(object)?)
    } else if of == kind::<CSIDriver>() {
        Fact::Driver(typed(object)?)
    } else if of == kind::<CSIStorageCapacity>() {
        Fact::Capacity(typed(object)?)
    } else if of == kind::<VolumeAttachment>() {
        Fact::Attachment(typed(object)?)
    } else if of == kind::<PodDisruptionBudget>() {
        Fact::Budget(typed(object)?)
    } else {
        return None;
    };
    Some((fact, present))
}

/// Waits for an earlier write, whatever became of it.
async fn finished(write: Option<JoinHandle<()>>) {
    if let Some(write) = write {
        let _ = write.await;
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
