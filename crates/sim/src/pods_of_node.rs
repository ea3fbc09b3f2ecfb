//! All pods of one node: feeds their machines, lets the pretended runtime do what they ask, and says what to write.
//!
//! Nothing here waits and nothing here sends: work falls due at a time, requests are handed to the node.

use crate::api_objects::pod_address;
use crate::args::NodesArgs;
use crate::runtime::{self, Work, World};
use crate::stats::{Stats, Timed};
use api::core::v1::{Pod, PodStatus};
use meta::ObjectKey;
use pods::{Effect, Failure, Input, Machine, Millis, Observed, Op, Outcome, Phase};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// After a write that failed.
const RETRY: Millis = 1000;
/// A sandbox takes this part of a container's start.
const SANDBOX_PART: u32 = 5;

/// Something to ask of the API server.
#[derive(Debug)]
pub enum Request {
    Status { uid: Arc<str>, key: ObjectKey, status: Box<PodStatus> },
    Delete { uid: Arc<str>, key: ObjectKey },
    Event { pod: Arc<Pod>, warning: bool, reason: String, message: String },
}

/// How a request ended that can be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// The pod is gone or another: there is nothing left to write to.
    Gone,
    Failed,
}

struct Entry {
    machine: Machine,
    world: World,
    number: u32,
    timer: Option<Millis>,
    /// The newest status that is not being written yet.
    pending: Option<Box<PodStatus>>,
    writing: bool,
    wrote_at: Option<Instant>,
    /// Asked for by the machine; waits for the last status.
    delete_wanted: bool,
    runs: bool,
}

pub struct PodsOfNode {
    args: Arc<NodesArgs>,
    stats: Arc<Stats>,
    node: u32,
    host_ips: Vec<String>,
    pods: HashMap<Arc<str>, Entry>,
    due: BTreeMap<(Millis, u64), (Arc<str>, Work)>,
    turn: u64,
    made: u32,
    requests: Vec<Request>,
}

impl PodsOfNode {
    pub fn new(args: Arc<NodesArgs>, stats: Arc<Stats>, node: u32) -> Self {
        let host_ips = vec![crate::api_objects::address(node)];
        let (pods, due) = (HashMap::new(), BTreeMap::new());
        PodsOfNode { args, stats, node, host_ips, pods, due, turn: 0, made: 0, requests: Vec::new() }
    }

    /// What is to be asked of the API server, once.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }

    /// When the next work is due.
    pub fn next_due(&self) -> Option<Millis> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// The API has this pod.
    pub fn desired(&mut self, now: Millis, mut pod: Pod) {
        // Of no use to a node, and often half of the object.
        pod.metadata.managed_fields.clear();
        let uid: Arc<str> = Arc::from(pod.metadata.uid.as_str());
        let pod = Arc::new(pod);
        if let Some(entry) = self.pods.get_mut(&uid) {
            if let Some(wrote) = entry.wrote_at.take() {
                self.stats.time(Timed::Echo, wrote.elapsed());
            }
        } else {
            let machine = Machine::new(pod.clone(), self.host_ips.clone(), Observed::default());
            let entry = Entry {
                machine,
                world: World::default(),
                number: self.made,
                timer: None,
                pending: None,
                writing: false,
                wrote_at: None,
                delete_wanted: false,
                runs: false,
            };
            self.made += 1;
            self.pods.insert(uid.clone(), entry);
            self.stats.pods.fetch_add(1, Ordering::Relaxed);
        }
        self.input(now, &uid, Input::Desired(pod));
        // A simulated node has room for everything.
        if self.pods.get(&uid).is_some_and(|entry| entry.machine.wants_resize()) {
            self.input(now, &uid, Input::Resize(pods::resize::Answer::Accepted));
        }
    }

    /// The API has the pod of this uid no more.
    pub fn removed(&mut self, now: Millis, uid: &str) {
        if let Some((uid, _)) = self.pods.get_key_value(uid) {
            let uid = uid.clone();
            self.input(now, &uid, Input::Removed);
        }
    }

    /// The API has these pods and no others.
    pub fn replace(&mut self, now: Millis, pods: Vec<Pod>) {
        let known: std::collections::HashSet<String> =
            pods.iter().map(|pod| pod.metadata.uid.clone()).collect();
        let gone: Vec<Arc<str>> = self.pods.keys().filter(|uid| !known.contains(&***uid)).cloned().collect();
        for uid in gone {
            self.input(now, &uid, Input::Removed);
        }
        for pod in pods {
            self.desired(now, pod);
        }
    }

    /// Does the work that is due.
    pub fn work(&mut self, now: Millis) {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                return;
            }
            let (uid, work) = first.remove();
            self.finish(now, &uid, work);
        }
    }

    /// A status was written, or was not.
    pub fn status_ended(&mut self, now: Millis, uid: &Arc<str>, status: Box<PodStatus>, ended: Ended) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.writing = false;
        match ended {
            Ended::Done => {}
            Ended::Gone => entry.pending = None,
            Ended::Failed => {
                entry.wrote_at = None;
                entry.pending.get_or_insert(status);
                // It counts as being written until it is tried again.
                entry.writing = true;
                self.later(now, RETRY, uid, Work::WriteAgain);
                return;
            }
        }
        self.write(uid);
    }

    /// A pod was deleted, or was not.
    pub fn deletion_ended(&mut self, now: Millis, uid: &Arc<str>, ended: Ended) {
        match ended {
            Ended::Done | Ended::Gone => self.input(now, uid, done(Op::Delete, None)),
            Ended::Failed => self.later(now, RETRY, uid, Work::DeleteAgain),
        }
    }

    fn later(&mut self, now: Millis, wait: Millis, uid: &Arc<str>, work: Work) {
        self.turn += 1;
        self.due.insert((now + wait.max(0), self.turn), (uid.clone(), work));
    }

    /// Asks for what a pod waits to have written: its status first, then its deletion.
    fn write(&mut self, uid: &Arc<str>) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.writing {
            return;
        }
        let key = view::key_of(&**entry.machine.pod());
        if let Some(status) = entry.pending.take() {
            entry.writing = true;
            entry.wrote_at = Some(Instant::now());
            self.requests.push(Request::Status { uid: uid.clone(), key, status });
        } else if std::mem::take(&mut entry.delete_wanted) {
            self.requests.push(Request::Delete { uid: uid.clone(), key });
        }
    }

    fn input(&mut self, now: Millis, uid: &Arc<str>, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(entry) = self.pods.get_mut(uid) else { return };
            for effect in entry.machine.step(now, input) {
                self.perform(now, uid, effect, &mut inputs);
            }
        }
        self.settle(uid);
        self.write(uid);
    }

    /// Counts whether the pod runs, and forgets one that is over.
    fn settle(&mut self, uid: &Arc<str>) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let finished = entry.machine.phase() == Phase::Finished;
        let runs = !finished && entry.machine.status().phase == "Running";
        if runs != entry.runs {
            entry.runs = runs;
            self.stats.running.fetch_add(if runs { 1 } else { -1 }, Ordering::Relaxed);
        }
        if finished {
            self.pods.remove(uid);
            self.stats.pods.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn perform(&mut self, now: Millis, uid: &Arc<str>, effect: Effect, inputs: &mut VecDeque<Input>) {
        let (start, stop) = (self.args.start_delay, self.args.stop_delay);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        match effect {
            Effect::PrepareVolumes => inputs.push_back(done(Op::Volumes, None)),
            Effect::Cleanup => inputs.push_back(done(Op::Cleanup, None)),
            Effect::Resize { container, .. } => inputs.push_back(done(Op::Resize(container), None)),
            Effect::CreateSandbox { attempt } => {
                self.later(now, runtime::about(start / SANDBOX_PART), uid, Work::Sandbox { attempt });
            }
            Effect::Pull { container } => inputs.push_back(Input::Done {
                op: Op::Pull(container),
                result: Ok("sha256:simulated".into()),
                observed: None,
            }),
            Effect::Start { container, attempt, sandbox_id, image_id } => {
                let work = Work::Start { container, attempt, sandbox_id, image_id };
                self.later(now, runtime::about(start), uid, work);
            }
            Effect::Stop(order) => {
                let grace = Duration::from_secs(order.grace_seconds.max(0).unsigned_abs());
                self.later(now, runtime::about(stop.min(grace)), uid, Work::Stop { id: order.id });
            }
            Effect::StopSandbox { id } => self.later(now, 0, uid, Work::StopSandbox { id }),
            Effect::Collect { id } => {
                entry.world.collect(&id);
                inputs.push_back(done(Op::Collect(id), Some(entry.world.observed())));
            }
            // Everything that runs is well.
            Effect::Probe { container, container_id, kind } => {
                inputs.push_back(Input::Probe { container, container_id, kind, outcome: Outcome::Success });
            }
            Effect::ArmTimer { at } => {
                entry.timer = Some(at);
                self.later(now, at - now, uid, Work::Timer(at));
            }
            Effect::ReportStatus(status) => entry.pending = Some(status),
            Effect::Record { warning, reason, message, .. } => {
                if self.args.events {
                    let pod = entry.machine.pod().clone();
                    self.requests.push(Request::Event { pod, warning, reason, message });
                }
            }
            Effect::Delete => entry.delete_wanted = true,
            Effect::Finish => {}
        }
    }

    /// The end of a piece of work.
    fn finish(&mut self, now: Millis, uid: &Arc<str>, work: Work) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let input = match work {
            Work::Timer(at) => {
                // Another was armed since.
                if entry.timer != Some(at) {
                    return;
                }
                entry.timer = None;
                Input::Timer
            }
            Work::Sandbox { attempt } => {
                let address = pod_address(self.node, entry.number);
                entry.world.make_sandbox(uid, attempt, address, now);
                done(Op::Sandbox, Some(entry.world.observed()))
            }
            Work::Start { container, attempt, sandbox_id, image_id } => {
                return self.started(now, uid, container, attempt, &sandbox_id, &image_id);
            }
            Work::Stop { id } => {
                entry.world.stop(&id, now);
                done(Op::Stop(id), Some(entry.world.observed()))
            }
            Work::StopSandbox { id } => {
                entry.world.stop_sandbox(&id, now);
                done(Op::StopSandbox(id), Some(entry.world.observed()))
            }
            Work::Exit { id, code } => {
                if !entry.world.exit(&id, code, now) {
                    return;
                }
                Input::Observed(entry.world.observed())
            }
            Work::WriteAgain => {
                entry.writing = false;
                return self.write(uid);
            }
            Work::DeleteAgain => {
                entry.delete_wanted = true;
                return self.write(uid);
            }
        };
        self.input(now, uid, input);
    }

    fn started(
        &mut self,
        now: Millis,
        uid: &Arc<str>,
        name: String,
        attempt: u32,
        sandbox: &str,
        image_id: &str,
    ) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if let Some(failure) = runtime::start_fails(&self.args) {
            let observed = Some(entry.world.observed());
            return self.input(now, uid, Input::Done { op: Op::Start(name), result: Err(failure), observed });
        }
        let pod = entry.machine.pod().clone();
        let image = pods::spec::find(&pod.spec, &name).map(|container| container.image).unwrap_or_default();
        let id = entry.world.start(uid, &name, attempt, sandbox, image_id, &image, now);
        let observed = Some(entry.world.observed());
        let init = pod.spec.init_containers.iter().find(|one| one.name == name);
        let ends = init.is_some_and(|one| !pods::spec::is_sidecar(one));
        let forever = init.is_some() || matches!(pod.spec.restart_policy.as_str(), "" | "Always");
        if let Some((wait, code)) = runtime::life(&self.args, ends, forever) {
            self.later(now, wait, uid, Work::Exit { id, code });
        }
        self.input(now, uid, done(Op::Start(name), observed));
    }
}

fn done(op: Op, observed: Option<Observed>) -> Input {
    Input::Done { op, result: Ok::<String, Failure>(String::new()), observed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(text: &str) -> Pod {
        let json = api::codec::yaml_to_json(text.as_bytes()).unwrap();
        let mut pod: Pod = api::codec::from_json(&json).unwrap();
        pod.metadata.namespace = "ns".into();
        pod.metadata.uid = "uid".into();
        pod
    }

    /// Lets everything happen that falls due, and writes succeed, until nothing is left to do before `until`.
    fn settle(pods: &mut PodsOfNode, now: &mut Millis, until: Millis) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let requests = pods.take_requests();
            let idle = requests.is_empty();
            for request in requests {
                match request {
                    Request::Status { uid, status, .. } => {
                        let ready =
                            status.conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True");
                        told.push(format!(
                            "{} {}{}",
                            status.phase,
                            status.pod_ip,
                            if ready { " ready" } else { "" }
                        ));
                        pods.status_ended(*now, &uid, status, Ended::Done);
                    }
                    Request::Delete { uid, .. } => {
                        told.push("delete".into());
                        pods.deletion_ended(*now, &uid, Ended::Done);
                        pods.removed(*now, &uid);
                    }
                    Request::Event { reason, .. } => told.push(reason),
                }
            }
            match pods.next_due() {
                _ if !idle => {}
                Some(at) if at <= until => {
                    *now = at.max(*now);
                    pods.work(*now);
                }
                _ => return told,
            }
        }
    }

    fn node() -> PodsOfNode {
        PodsOfNode::new(Arc::new(NodesArgs::default()), Arc::default(), 3)
    }

    #[test]
    fn a_pod_starts_and_is_deleted() {
        let (mut pods, mut now) = (node(), 1_000_000);
        let mut web =
            pod("{metadata: {name: web}, spec: {restartPolicy: Always, containers: [{name: a, image: i}]}}");
        pods.desired(now, web.clone());
        let told = settle(&mut pods, &mut now, 1_010_000);
        assert_eq!(told.last().unwrap(), "Running 10.0.3.0 ready", "{told:?}");
        assert_eq!(pods.stats.snapshot().running, 1);
        web.metadata.deletion_timestamp = pods::to_time(now).into();
        web.metadata.deletion_grace_period_seconds = Some(1);
        pods.desired(now, web);
        let told = settle(&mut pods, &mut now, 1_020_000);
        assert_eq!(told.last().unwrap(), "delete", "{told:?}");
        assert_eq!((pods.stats.snapshot().pods, pods.stats.snapshot().running), (0, 0));
        assert!(pods.pods.is_empty());
    }

    #[test]
    fn a_job_s_pod_succeeds_after_its_init_container() {
        let (mut pods, mut now) = (node(), 1_000_000);
        pods.desired(now, pod("{metadata: {name: job}, spec: {restartPolicy: Never, initContainers: [{name: i, image: i}], containers: [{name: a, image: i}]}}"));
        let told = settle(&mut pods, &mut now, 1_020_000);
        assert!(told.last().unwrap().starts_with("Succeeded"), "{told:?}");
    }

    #[test]
    fn a_failed_write_is_tried_again_with_the_newest_status() {
        let (mut pods, mut now) = (node(), 1_000_000);
        pods.desired(now, pod("{metadata: {name: web}, spec: {containers: [{name: a, image: i}]}}"));
        let mut first = pods.take_requests();
        let Some(Request::Status { uid, status, .. }) = first.pop() else { panic!("{first:?}") };
        pods.status_ended(now, &uid, status, Ended::Failed);
        assert!(pods.take_requests().is_empty());
        let told = settle(&mut pods, &mut now, 1_010_000);
        assert_eq!(told.last().unwrap(), "Running 10.0.3.0 ready", "{told:?}");
    }
}
