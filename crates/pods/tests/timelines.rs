//! Golden timelines: a pod and a script go in, everything that its machine asks for comes out, over a model runtime
//! that does at once what it is asked.

use api::core::v1::{Pod, PodStatus};
use expect_test::{Expect, expect};
use pods::resize::Answer;
use pods::{
    Container, Effect, Failure, Input, Machine, Observed, Op, Outcome, Phase, ProbeKind, Sandbox, State,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

struct Model {
    machine: Machine,
    pod: Pod,
    world: Observed,
    now: i64,
    timer: Option<i64>,
    /// Operations that fail, by their text, with reason and message.
    failing: BTreeMap<String, (String, String)>,
    probes: BTreeMap<String, bool>,
    out: String,
    last: PodStatus,
    restarted: usize,
}

impl Model {
    fn new(text: &str) -> Self {
        let json = api::codec::yaml_to_json(text.as_bytes()).unwrap();
        let mut pod: Pod = api::codec::from_json(&json).unwrap();
        pod.metadata.namespace = "ns".into();
        pod.metadata.uid = "uid".into();
        pod.metadata.generation = 1;
        if pod.spec.restart_policy.is_empty() {
            pod.spec.restart_policy = "Always".into();
        }
        let machine = Machine::new(Arc::new(pod.clone()), vec!["10.0.0.1".into()], Observed::default());
        Model {
            machine,
            pod,
            world: Observed::default(),
            now: 1_000_000,
            timer: None,
            failing: BTreeMap::new(),
            probes: BTreeMap::new(),
            out: String::new(),
            last: PodStatus::default(),
            restarted: 0,
        }
    }

    fn line(&mut self, text: &str) {
        let at = self.now - 1_000_000;
        writeln!(self.out, "{}.{:03} {text}", at / 1000, at % 1000).unwrap();
    }

    fn input(&mut self, input: Input) {
        let effects = self.machine.step(self.now, input);
        let mut follow = vec![];
        for effect in effects {
            if let Some(next) = self.perform(effect) {
                follow.push(next);
            }
        }
        for next in follow {
            self.input(next);
        }
    }

    fn done(&mut self, op: Op, ok: &str) -> Option<Input> {
        let key = format!("{op:?}").to_lowercase().replace(['(', ')', '"'], " ");
        let key = key.split_whitespace().collect::<Vec<_>>().join(" ");
        let result = match self.failing.get(&key) {
            Some((reason, message)) => Err(Failure::of(reason, message)),
            None => Ok(ok.to_string()),
        };
        self.world.sort();
        Some(Input::Done { op, result, observed: Some(self.world.clone()) })
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::PrepareVolumes => {
                self.line("prepare volumes");
                self.done(Op::Volumes, "")
            }
            Effect::CreateSandbox { attempt } => {
                self.line(&format!("create sandbox {attempt}"));
                let failed = self.failing.contains_key("sandbox");
                if !failed {
                    self.world.sandboxes.push(Sandbox {
                        id: format!("s{attempt}"),
                        attempt,
                        created_at: self.now,
                        ready: true,
                        ips: vec!["10.244.0.2".into()],
                    });
                }
                self.done(Op::Sandbox, "")
            }
            Effect::Pull { container } => {
                self.line(&format!("pull {container}"));
                self.done(Op::Pull(container), "image")
            }
            Effect::Start { container, attempt, sandbox_id, .. } => {
                self.line(&format!("start {container} {attempt} in {sandbox_id}"));
                if !self.failing.contains_key(&format!("start {container}")) {
                    self.started(&container, attempt, &sandbox_id);
                }
                self.done(Op::Start(container), "")
            }
            Effect::Stop(stop) => {
                self.line(&format!("stop {} grace {}: {}", stop.id, stop.grace_seconds, stop.message));
                self.exit(&stop.id, 143);
                self.done(Op::Stop(stop.id), "")
            }
            Effect::StopSandbox { id } => {
                self.line(&format!("stop sandbox {id}"));
                self.world.sandboxes.iter_mut().filter(|one| one.id == id).for_each(|one| one.ready = false);
                self.done(Op::StopSandbox(id), "")
            }
            Effect::Probe { container, container_id, kind } => {
                let success = self.probes.get(&format!("{container} {kind}")).copied().unwrap_or(true);
                self.line(&format!("probe {container_id} {kind}: {success}"));
                let outcome = if success { Outcome::Success } else { Outcome::Failure("no".into()) };
                Some(Input::Probe { container, container_id, kind, outcome })
            }
            Effect::Resize { container, id } => {
                self.line(&format!("resize {id}"));
                self.done(Op::Resize(container), "")
            }
            Effect::Collect { id } => {
                self.line(&format!("collect {id}"));
                self.world.containers.retain(|one| one.id != id);
                self.done(Op::Collect(id), "")
            }
            Effect::ArmTimer { at } => {
                self.timer = Some(at);
                None
            }
            Effect::ReportStatus(status) => {
                let text = brief(&status);
                self.last = *status;
                self.line(&text);
                None
            }
            Effect::Record { warning, reason, message, container } => {
                let kind = if warning { "Warning" } else { "Normal" };
                self.line(&format!("event {kind} {reason} {}: {message}", container.unwrap_or_default()));
                None
            }
            Effect::Cleanup => {
                self.line("cleanup");
                self.done(Op::Cleanup, "")
            }
            Effect::Delete => {
                self.line("delete");
                self.done(Op::Delete, "")
            }
            Effect::Finish => {
                self.line("finish");
                None
            }
        }
    }

    fn started(&mut self, name: &str, attempt: u32, sandbox: &str) {
        let spec = pods::spec::find(&self.pod.spec, name).unwrap();
        self.world.containers.push(Container {
            id: format!("{name}-{attempt}"),
            sandbox_id: sandbox.into(),
            name: name.into(),
            attempt,
            hash: pods::spec::hash(&spec),
            state: State::Running,
            created_at: self.now,
            started_at: self.now,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: spec.image,
            image_id: "sha256:1".into(),
        });
    }

    fn exit(&mut self, id: &str, code: i32) {
        for one in self.world.containers.iter_mut().filter(|one| one.id == id && one.state == State::Running)
        {
            one.state = State::Exited;
            one.exit_code = code;
            one.finished_at = self.now;
            one.reason = if code == 0 { "Completed" } else { "Error" }.into();
        }
    }

    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.line(&format!("> {line}"));
        match words.as_slice() {
            ["sync"] => self.input(Input::Desired(Arc::new(self.pod.clone()))),
            ["wait", seconds] => self.wait(seconds.parse::<i64>().unwrap() * 1000),
            ["exit", id, code] => {
                self.exit(id, code.parse().unwrap());
                self.look();
            }
            ["lose", "sandbox"] => {
                self.world.sandboxes.iter_mut().for_each(|one| one.ready = false);
                let ids: Vec<String> = self.world.containers.iter().map(|one| one.id.clone()).collect();
                ids.iter().for_each(|id| self.exit(id, 255));
                self.look();
            }
            ["fail", rest @ .., reason, message] => {
                self.failing.insert(rest.join(" "), (reason.to_string(), message.to_string()));
            }
            ["mend", rest @ ..] => drop(self.failing.remove(&rest.join(" "))),
            ["probe", container, kind, result] => {
                self.probes.insert(format!("{container} {kind}"), *result == "ok");
            }
            ["delete", grace] => {
                self.pod.metadata.deletion_timestamp = Some(pods::to_time(self.now));
                self.pod.metadata.deletion_grace_period_seconds = grace.parse().ok();
                self.input(Input::Desired(Arc::new(self.pod.clone())));
            }
            ["resources", text] => {
                let text = text.replace(';', ", ").replace('=', ": ");
                let json = api::codec::yaml_to_json(text.as_bytes()).unwrap();
                let resources = api::codec::from_json(&json).unwrap();
                self.pod.spec.containers[0].resources = resources;
                self.pod.metadata.generation += 1;
                self.input(Input::Desired(Arc::new(self.pod.clone())));
            }
            ["answer", "yes"] => self.input(Input::Resize(Answer::Accepted)),
            ["answer", "later", why] => self.input(Input::Resize(Answer::Deferred(why.to_string()))),
            ["removed"] => self.input(Input::Removed),
            ["evict", reason, message] => {
                self.input(Input::Evict {
                    reason: reason.to_string(),
                    message: message.to_string(),
                    grace_seconds: None,
                });
            }
            ["restart", "agent"] => {
                self.pod.status = self.last.clone();
                self.world.sort();
                let pod = Arc::new(self.pod.clone());
                self.machine = Machine::new(pod.clone(), vec!["10.0.0.1".into()], self.world.clone());
                self.timer = None;
                self.restarted += 1;
                self.input(Input::Desired(pod));
            }
            other => panic!("unknown command {other:?}"),
        }
    }

    fn look(&mut self) {
        self.world.sort();
        self.input(Input::Observed(self.world.clone()));
    }

    fn wait(&mut self, millis: i64) {
        let until = self.now + millis;
        while let Some(at) = self.timer.filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.timer = None;
            self.input(Input::Timer);
        }
        self.now = until;
    }
}

fn brief(status: &PodStatus) -> String {
    let mut text = format!("status {}", status.phase);
    if !status.reason.is_empty() {
        write!(text, " ({}: {})", status.reason, status.message).unwrap();
    }
    let conditions: Vec<String> = status
        .conditions
        .iter()
        .filter(|one| one.status == "True" && one.r#type != "PodScheduled")
        .map(|one| one.r#type.clone())
        .collect();
    write!(text, " {conditions:?}").unwrap();
    for one in status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .chain(&status.ephemeral_container_statuses)
    {
        let state = if let Some(waiting) = &one.state.waiting {
            format!(
                "{}{}{}",
                waiting.reason,
                if waiting.message.is_empty() { "" } else { ": " },
                waiting.message
            )
        } else if one.state.running.is_some() {
            format!("Running{}", if one.ready { "+ready" } else { "" })
        } else if let Some(end) = &one.state.terminated {
            format!("{} {}", end.reason, end.exit_code)
        } else {
            String::new()
        };
        write!(text, " | {} #{} {state}", one.name, one.restart_count).unwrap();
    }
    text
}

fn check(pod: &str, script: &str, expected: Expect) {
    let mut model = Model::new(pod);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        model.command(line);
        let running = model.world.containers.iter().any(|one| one.state == State::Running);
        if matches!(model.machine.phase(), Phase::Terminated | Phase::Finished) {
            assert!(!running, "a pod that ended has something running");
        }
    }
    expected.assert_eq(&model.out);
}

const ONE: &str = "
metadata: {name: p}
spec:
  containers: [{name: c, image: i}]
";

#[test]
fn a_pod_lives_and_is_deleted() {
    check(
        ONE,
        "sync\n delete 30\n removed",
        expect![[r#"
               0.000 > sync
               0.000 prepare volumes
               0.000 create sandbox 0
               0.000 pull c
               0.000 status Pending ["Initialized"] | c #0 ContainerCreating
               0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
               0.000 start c 0 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
               0.000 > delete 30
               0.000 stop c-0 grace 30: Stopping container c
               0.000 stop sandbox s0
               0.000 status Failed ["PodReadyToStartContainers", "Initialized"] | c #0 Error 143
               0.000 cleanup
               0.000 status Failed ["Initialized"] | c #0 Error 143
               0.000 delete
               0.000 > removed
               0.000 finish
        "#]],
    );
}

#[test]
fn a_crashing_container_backs_off() {
    check(
        ONE,
        "sync\n wait 1\n exit c-0 1\n wait 1\n exit c-1 1\n wait 15\n exit c-2 2\n wait 3\n",
        expect![[r#"
            0.000 > sync
            0.000 prepare volumes
            0.000 create sandbox 0
            0.000 pull c
            0.000 status Pending ["Initialized"] | c #0 ContainerCreating
            0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
            0.000 start c 0 in s0
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
            0.000 > wait 1
            1.000 > exit c-0 1
            1.000 pull c
            1.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Error 1
            1.000 start c 1 in s0
            1.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #1 Running+ready
            1.000 > wait 1
            2.000 > exit c-1 1
            2.000 event Warning BackOff c: Back-off restarting failed container c in pod p_ns(uid)
            2.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #1 CrashLoopBackOff: back-off 10s restarting failed container=c pod=p_ns(uid)
            2.000 > wait 15
            12.000 pull c
            12.000 start c 2 in s0
            12.000 collect c-0
            12.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #2 Running+ready
            17.000 > exit c-2 2
            17.000 event Warning BackOff c: Back-off restarting failed container c in pod p_ns(uid)
            17.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #2 CrashLoopBackOff: back-off 20s restarting failed container=c pod=p_ns(uid)
            17.000 > wait 3
        "#]],
    );
}

#[test]
fn a_job_runs_once() {
    let pod = "
metadata: {name: p}
spec:
  restartPolicy: OnFailure
  containers: [{name: c, image: i}]
";
    check(
        pod,
        "sync\n exit c-0 1\n wait 1\n exit c-1 0\n removed",
        expect![[r#"
               0.000 > sync
               0.000 prepare volumes
               0.000 create sandbox 0
               0.000 pull c
               0.000 status Pending ["Initialized"] | c #0 ContainerCreating
               0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
               0.000 start c 0 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
               0.000 > exit c-0 1
               0.000 pull c
               0.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Error 1
               0.000 start c 1 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #1 Running+ready
               0.000 > wait 1
               1.000 > exit c-1 0
               1.000 stop sandbox s0
               1.000 status Succeeded ["PodReadyToStartContainers", "Initialized"] | c #1 Completed 0
               1.000 cleanup
               1.000 status Succeeded ["Initialized"] | c #1 Completed 0
               1.000 > removed
               1.000 finish
        "#]],
    );
}

#[test]
fn init_containers_come_in_turn_and_sidecars_go_last() {
    let pod = "
metadata: {name: p}
spec:
  initContainers:
  - {name: i1, image: i}
  - {name: side, image: i, restartPolicy: Always, startupProbe: {periodSeconds: 1, failureThreshold: 3, successThreshold: 1}}
  - {name: i2, image: i}
  containers: [{name: c, image: i}]
";
    check(
        pod,
        "probe side Startup fail\n sync\n wait 1\n exit i1-0 0\n wait 1\n probe side Startup ok\n wait 1\n exit i2-0 0\n wait 1\n delete 10\n removed",
        expect![[r#"
               0.000 > probe side Startup fail
               0.000 > sync
               0.000 prepare volumes
               0.000 create sandbox 0
               0.000 pull i1
               0.000 status Pending [] | i1 #0 PodInitializing | side #0 PodInitializing | i2 #0 PodInitializing | c #0 PodInitializing
               0.000 status Pending ["PodReadyToStartContainers"] | i1 #0 PodInitializing | side #0 PodInitializing | i2 #0 PodInitializing | c #0 PodInitializing
               0.000 start i1 0 in s0
               0.000 status Pending ["PodReadyToStartContainers"] | i1 #0 Running | side #0 PodInitializing | i2 #0 PodInitializing | c #0 PodInitializing
               0.000 > wait 1
               1.000 > exit i1-0 0
               1.000 pull side
               1.000 status Pending ["PodReadyToStartContainers"] | i1 #0 Completed 0 | side #0 PodInitializing | i2 #0 PodInitializing | c #0 PodInitializing
               1.000 start side 0 in s0
               1.000 probe side-0 Startup: false
               1.000 status Pending ["PodReadyToStartContainers"] | i1 #0 Completed 0 | side #0 Running | i2 #0 PodInitializing | c #0 PodInitializing
               1.000 event Warning Unhealthy side: Startup probe failed: no
               1.000 > wait 1
               2.000 probe side-0 Startup: false
               2.000 event Warning Unhealthy side: Startup probe failed: no
               2.000 > probe side Startup ok
               2.000 > wait 1
               3.000 probe side-0 Startup: true
               3.000 pull i2
               3.000 status Pending ["PodReadyToStartContainers"] | i1 #0 Completed 0 | side #0 Running+ready | i2 #0 PodInitializing | c #0 PodInitializing
               3.000 start i2 0 in s0
               3.000 status Pending ["PodReadyToStartContainers"] | i1 #0 Completed 0 | side #0 Running+ready | i2 #0 Running | c #0 PodInitializing
               3.000 > exit i2-0 0
               3.000 pull c
               3.000 status Pending ["PodReadyToStartContainers", "Initialized"] | i1 #0 Completed 0 | side #0 Running+ready | i2 #0 Completed 0 | c #0 PodInitializing
               3.000 start c 0 in s0
               3.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | i1 #0 Completed 0 | side #0 Running+ready | i2 #0 Completed 0 | c #0 Running+ready
               3.000 > wait 1
               4.000 > delete 10
               4.000 stop c-0 grace 10: Stopping container c
               4.000 stop side-0 grace 10: Stopping container side
               4.000 status Running ["PodReadyToStartContainers", "Initialized"] | i1 #0 Completed 0 | side #0 Running+ready | i2 #0 Completed 0 | c #0 Error 143
               4.000 stop sandbox s0
               4.000 status Failed ["PodReadyToStartContainers", "Initialized"] | i1 #0 Completed 0 | side #0 Error 143 | i2 #0 Completed 0 | c #0 Error 143
               4.000 cleanup
               4.000 status Failed ["Initialized"] | i1 #0 Completed 0 | side #0 Error 143 | i2 #0 Completed 0 | c #0 Error 143
               4.000 delete
               4.000 > removed
               4.000 finish
        "#]],
    );
}

#[test]
fn probes_gate_and_kill() {
    let pod = "
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: c
    image: i
    readinessProbe: {periodSeconds: 2, failureThreshold: 1, successThreshold: 1}
    livenessProbe: {periodSeconds: 3, failureThreshold: 2, successThreshold: 1, initialDelaySeconds: 1, terminationGracePeriodSeconds: 1}
";
    check(
        pod,
        "sync\n wait 3\n probe c Readiness fail\n wait 2\n probe c Liveness fail\n wait 5\n",
        expect![[r#"
            0.000 > sync
            0.000 prepare volumes
            0.000 create sandbox 0
            0.000 pull c
            0.000 status Pending ["Initialized"] | c #0 ContainerCreating
            0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
            0.000 start c 0 in s0
            0.000 probe c-0 Readiness: true
            0.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Running
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
            0.000 > wait 3
            1.000 probe c-0 Liveness: true
            2.000 probe c-0 Readiness: true
            3.000 > probe c Readiness fail
            3.000 > wait 2
            4.000 probe c-0 Liveness: true
            4.000 probe c-0 Readiness: false
            4.000 event Warning Unhealthy c: Readiness probe failed: no
            4.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Running
            5.000 > probe c Liveness fail
            5.000 > wait 5
            6.000 probe c-0 Readiness: false
            6.000 event Warning Unhealthy c: Readiness probe failed: no
            7.000 probe c-0 Liveness: false
            7.000 event Warning Unhealthy c: Liveness probe failed: no
            8.000 probe c-0 Readiness: false
            8.000 event Warning Unhealthy c: Readiness probe failed: no
            10.000 probe c-0 Liveness: false
            10.000 probe c-0 Readiness: false
            10.000 event Warning Unhealthy c: Liveness probe failed: no
            10.000 stop c-0 grace 1: Container c failed liveness probe, will be restarted
            10.000 pull c
            10.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Error 143
            10.000 start c 1 in s0
            10.000 probe c-1 Readiness: false
            10.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #1 Running
            10.000 event Warning Unhealthy c: Readiness probe failed: no
        "#]],
    );
}

#[test]
fn an_image_that_cannot_be_pulled() {
    check(
        ONE,
        "fail pull c ErrImagePull nope\n sync\n wait 12\n mend pull c\n wait 20",
        expect![[r#"
            0.000 > fail pull c ErrImagePull nope
            0.000 > sync
            0.000 prepare volumes
            0.000 create sandbox 0
            0.000 pull c
            0.000 status Pending ["Initialized"] | c #0 ContainerCreating
            0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
            0.000 event Warning Failed c: Failed to pull image "i": nope
            0.000 event Warning Failed c: Error: ErrImagePull
            0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ErrImagePull: nope
            0.000 > wait 12
            1.000 event Normal BackOff c: Back-off pulling image "i"
            1.000 event Warning Failed c: Error: ImagePullBackOff
            1.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ImagePullBackOff: Back-off pulling image "i": ErrImagePull: nope
            10.000 pull c
            10.000 event Warning Failed c: Failed to pull image "i": nope
            10.000 event Warning Failed c: Error: ErrImagePull
            10.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ErrImagePull: nope
            11.000 event Normal BackOff c: Back-off pulling image "i"
            11.000 event Warning Failed c: Error: ImagePullBackOff
            11.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ImagePullBackOff: Back-off pulling image "i": ErrImagePull: nope
            12.000 > mend pull c
            12.000 > wait 20
            30.000 pull c
            30.000 start c 0 in s0
            30.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
        "#]],
    );
}

#[test]
fn what_fails_is_retried() {
    check(
        ONE,
        "fail volumes X gone\n fail sandbox X no-network\n sync\n wait 1\n mend volumes\n mend sandbox\n fail start c CreateContainerConfigError no-key\n wait 2\n mend start c\n wait 15",
        expect![[r#"
            0.000 > fail volumes X gone
            0.000 > fail sandbox X no-network
            0.000 > sync
            0.000 prepare volumes
            0.000 create sandbox 0
            0.000 pull c
            0.000 status Pending ["Initialized"] | c #0 ContainerCreating
            0.000 event Warning FailedCreatePodSandBox : Failed to create pod sandbox: no-network
            0.000 > wait 1
            0.500 prepare volumes
            0.500 create sandbox 0
            0.500 event Warning FailedCreatePodSandBox : Failed to create pod sandbox: no-network
            1.000 > mend volumes
            1.000 > mend sandbox
            1.000 > fail start c CreateContainerConfigError no-key
            1.000 > wait 2
            1.500 prepare volumes
            1.500 create sandbox 0
            1.500 start c 0 in s0
            1.500 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
            1.500 event Warning Failed c: Error: no-key
            1.500 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 CreateContainerConfigError: no-key
            3.000 > mend start c
            3.000 > wait 15
            11.500 pull c
            11.500 start c 0 in s0
            11.500 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
        "#]],
    );
}

#[test]
fn an_agent_restart_restarts_nothing() {
    check(
        ONE,
        "sync\n wait 1\n restart agent\n exit c-0 0\n",
        expect![[r#"
               0.000 > sync
               0.000 prepare volumes
               0.000 create sandbox 0
               0.000 pull c
               0.000 status Pending ["Initialized"] | c #0 ContainerCreating
               0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
               0.000 start c 0 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
               0.000 > wait 1
               1.000 > restart agent
               1.000 prepare volumes
               1.000 > exit c-0 0
               1.000 pull c
               1.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Completed 0
               1.000 start c 1 in s0
               1.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #1 Running+ready
        "#]],
    );
}

#[test]
fn a_lost_sandbox_is_replaced() {
    check(
        ONE,
        "sync\n lose sandbox\n wait 20",
        expect![[r#"
               0.000 > sync
               0.000 prepare volumes
               0.000 create sandbox 0
               0.000 pull c
               0.000 status Pending ["Initialized"] | c #0 ContainerCreating
               0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
               0.000 start c 0 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
               0.000 > lose sandbox
               0.000 event Normal SandboxChanged : Pod sandbox changed, it will be killed and re-created.
               0.000 create sandbox 1
               0.000 pull c
               0.000 status Running ["Initialized"] | c #0 Error 255
               0.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Error 255
               0.000 start c 1 in s1
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #1 Running+ready
               0.000 > wait 20
        "#]],
    );
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let pod = "
metadata: {name: p}
spec:
  activeDeadlineSeconds: 5
  containers: [{name: c, image: i}]
";
    check(
        pod,
        "sync\n wait 6\n delete 30",
        expect![[r#"
               0.000 > sync
               0.000 prepare volumes
               0.000 create sandbox 0
               0.000 pull c
               0.000 status Pending ["Initialized"] | c #0 ContainerCreating
               0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
               0.000 start c 0 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
               0.000 > wait 6
               5.000 event Normal DeadlineExceeded : Pod was active on the node longer than the specified deadline
               5.000 stop c-0 grace 30: Stopping container c
               5.000 stop sandbox s0
               5.000 status Failed (DeadlineExceeded: Pod was active on the node longer than the specified deadline) ["PodReadyToStartContainers", "Initialized"] | c #0 Error 143
               5.000 cleanup
               5.000 status Failed (DeadlineExceeded: Pod was active on the node longer than the specified deadline) ["Initialized"] | c #0 Error 143
               6.000 > delete 30
               6.000 delete
        "#]],
    );
}

#[test]
fn a_pod_turned_away_runs_nothing() {
    check(
        ONE,
        "evict OutOfcpu too-much\n",
        expect![[r#"
               0.000 > evict OutOfcpu too-much
               0.000 cleanup
               0.000 status Failed (OutOfcpu: too-much) ["Initialized"]
        "#]],
    );
}

#[test]
fn a_jobs_sidecar_ends_with_it() {
    let pod = "
metadata: {name: p}
spec:
  restartPolicy: Never
  initContainers: [{name: side, image: i, restartPolicy: Always}]
  containers: [{name: c, image: i}]
";
    check(
        pod,
        "sync\n exit c-0 0\n",
        expect![[r#"
           0.000 > sync
           0.000 prepare volumes
           0.000 create sandbox 0
           0.000 pull side
           0.000 status Pending [] | side #0 PodInitializing | c #0 PodInitializing
           0.000 status Pending ["PodReadyToStartContainers"] | side #0 PodInitializing | c #0 PodInitializing
           0.000 start side 0 in s0
           0.000 pull c
           0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | side #0 Running+ready | c #0 PodInitializing
           0.000 start c 0 in s0
           0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | side #0 Running+ready | c #0 Running+ready
           0.000 > exit c-0 0
           0.000 stop side-0 grace 30: Stopping container side
           0.000 status Running ["PodReadyToStartContainers", "Initialized"] | side #0 Running+ready | c #0 Completed 0
           0.000 stop sandbox s0
           0.000 status Succeeded ["PodReadyToStartContainers", "Initialized"] | side #0 Error 143 | c #0 Completed 0
           0.000 cleanup
           0.000 status Succeeded ["Initialized"] | side #0 Error 143 | c #0 Completed 0
    "#]],
    );
}

#[test]
fn restart_rules_outrank_policies() {
    let pod = "
metadata: {name: p}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: i
    restartPolicy: Never
    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
";
    check(
        pod,
        "sync\n exit c-0 42\n wait 1\n exit c-1 1",
        expect![[r#"
               0.000 > sync
               0.000 prepare volumes
               0.000 create sandbox 0
               0.000 pull c
               0.000 status Pending ["Initialized"] | c #0 ContainerCreating
               0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
               0.000 start c 0 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
               0.000 > exit c-0 42
               0.000 pull c
               0.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Error 42
               0.000 start c 1 in s0
               0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #1 Running+ready
               0.000 > wait 1
               1.000 > exit c-1 1
               1.000 stop sandbox s0
               1.000 status Failed ["PodReadyToStartContainers", "Initialized"] | c #1 Error 1
               1.000 cleanup
               1.000 status Failed ["Initialized"] | c #1 Error 1
        "#]],
    );
}

#[test]
fn kinds_print_as_upstream() {
    assert_eq!(ProbeKind::Liveness.to_string(), "Liveness");
}

#[test]
fn resources_change_in_place_or_with_a_restart() {
    let pod = "
metadata: {name: p}
spec:
  containers:
  - name: c
    image: i
    resources: {requests: {cpu: 100m, memory: 64Mi}}
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
";
    check(
        pod,
        "sync\n resources {requests={cpu=200m;memory=64Mi}}\n answer later full\n answer yes\n resources {requests={cpu=200m;memory=128Mi}}\n answer yes\n exit c-0 0\n wait 30",
        expect![[r#"
            0.000 > sync
            0.000 prepare volumes
            0.000 create sandbox 0
            0.000 pull c
            0.000 status Pending ["Initialized"] | c #0 ContainerCreating
            0.000 status Pending ["PodReadyToStartContainers", "Initialized"] | c #0 ContainerCreating
            0.000 start c 0 in s0
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
            0.000 > resources {requests={cpu=200m;memory=64Mi}}
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
            0.000 > answer later full
            0.000 event Warning ResizeDeferred : Pod resize Deferred: {"containers":[{"name":"c","resources":{"requests":{"cpu":"200m","memory":"64Mi"}}}],"error":"full","generation":2}
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodResizePending"] | c #0 Running+ready
            0.000 > answer yes
            0.000 event Normal ResizeStarted : Pod resize started: {"containers":[{"name":"c","resources":{"requests":{"cpu":"200m","memory":"64Mi"}}}],"generation":2}
            0.000 resize c-0
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodResizeInProgress"] | c #0 Running+ready
            0.000 event Normal ResizeCompleted : Pod resize completed: {"containers":[{"name":"c","resources":{"requests":{"cpu":"200m","memory":"64Mi"}}}],"generation":2}
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
            0.000 > resources {requests={cpu=200m;memory=128Mi}}
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #0 Running+ready
            0.000 > answer yes
            0.000 event Normal ResizeStarted : Pod resize started: {"containers":[{"name":"c","resources":{"requests":{"cpu":"200m","memory":"128Mi"}}}],"generation":3}
            0.000 stop c-0 grace 30: Container c resize requires restart
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodResizeInProgress"] | c #0 Running+ready
            0.000 pull c
            0.000 status Running ["PodReadyToStartContainers", "Initialized"] | c #0 Error 143
            0.000 start c 1 in s0
            0.000 event Normal ResizeCompleted : Pod resize completed: {"containers":[{"name":"c","resources":{"requests":{"cpu":"200m","memory":"128Mi"}}}],"generation":3}
            0.000 status Running ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"] | c #1 Running+ready
            0.000 > exit c-0 0
            0.000 > wait 30
        "#]],
    );
}
