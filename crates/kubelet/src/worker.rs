//! One task per pod: feeds its machine, has its effects carried out, keeps its timer. It decides nothing itself.
//!
//! Invariant: the runtime is looked at in this task only, after an effect has ended, so that looks never overtake each
//! other; a look that is older than an effect's end would make the machine do things twice.

use crate::status_writer::StatusWriter;
use crate::{Context, events, observe, perform, volumes};
use api::core::v1::Pod;
use pods::{Effect, Failure, Input, Machine, Observed, Op, Outcome, Phase, ProbeKind, State};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Messages not yet taken by a pod's task; senders wait beyond it.
const MESSAGES_MAX: usize = 256;
/// How long the runtime may lag behind its own event, and the step of looking again.
const LAG_LOOKS: u32 = 200;
const LAG_LOOK: Duration = Duration::from_millis(10);
/// Between looks at a runtime that does not answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);

/// What a pod's task is told.
#[derive(Debug)]
pub enum Message {
    Desired(Arc<Pod>),
    Removed,
    /// Something may have happened in the runtime.
    Look,
    /// The runtime said that this container ended.
    Exited(String),
    Done(Op, Result<String, Failure>),
    Probed {
        container: String,
        container_id: String,
        kind: ProbeKind,
        outcome: Outcome,
    },
    ReferencesChanged,
    /// Another pod has left its place.
    Room,
    /// The node has run out of something: this pod goes.
    Evict {
        reason: String,
        message: String,
        grace_seconds: i64,
    },
}

/// The sending end of a pod's task.
#[derive(Clone)]
pub struct Handle {
    pub pod: Arc<Pod>,
    /// The pod with the resources that it was given.
    pub allocated: Arc<Pod>,
    sender: mpsc::Sender<Message>,
}

impl Handle {
    /// Tells, where the task has room to hear it.
    pub fn nudge(&self, message: Message) {
        let _ = self.sender.try_send(message);
    }
    pub async fn send(&self, message: Message) {
        let _ = self.sender.send(message).await;
    }
}

struct Worker {
    ctx: Arc<Context>,
    machine: Machine,
    inbox: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    status: StatusWriter,
    timer: Option<Instant>,
    refresh: Option<Instant>,
    refreshing: bool,
}

/// Starts a pod's task; it ends when the pod is finished, or with the process.
pub fn start(ctx: &Arc<Context>, pod: Arc<Pod>, verdict: Option<(String, String)>) -> Handle {
    let (sender, inbox) = mpsc::channel(MESSAGES_MAX);
    let handle = Handle {
        pod: pod.clone(),
        allocated: Arc::new(pods::resize::with(&pod, &pods::resize::given(&pod))),
        sender: sender.clone(),
    };
    let ctx = ctx.clone();
    tokio::spawn(async move {
        let token = ctx.token.clone();
        tokio::select! {
            () = token.cancelled() => {}
            () = run(ctx, pod, verdict, inbox, sender) => {}
        }
    });
    handle
}

async fn run(
    ctx: Arc<Context>,
    pod: Arc<Pod>,
    verdict: Option<(String, String)>,
    inbox: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
) {
    let uid = pod.metadata.uid.clone();
    let observed = look(&ctx, &uid).await;
    let status = StatusWriter::start(&ctx, &pod);
    let machine = Machine::new(pod.clone(), ctx.host_ips(), observed);
    let mut worker = Worker {
        ctx: ctx.clone(),
        machine,
        inbox,
        sender,
        status,
        timer: None,
        refresh: None,
        refreshing: false,
    };
    let first = match verdict {
        Some((reason, message)) => Input::Evict { reason, message, grace_seconds: None },
        None => Input::Desired(pod),
    };
    worker.step(first);
    worker.answer_resize();
    while worker.machine.phase() != Phase::Finished {
        worker.turn().await;
    }
    worker.status.close();
    perform::finish(&ctx, &uid).await;
    ctx.forget(&uid);
}

/// What the runtime has of the pod; waits for a runtime that is away.
async fn look(ctx: &Context, uid: &str) -> Observed {
    loop {
        match observe::pod(ctx, uid).await {
            Ok(observed) => {
                ctx.index(uid, &observed);
                return observed;
            }
            Err(error) => {
                tracing::warn!(uid, %error, "Failed to look at a pod in the runtime");
                tokio::time::sleep(RUNTIME_RETRY).await;
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Worker {
    async fn turn(&mut self) {
        tokio::select! {
            message = self.inbox.recv() => {
                if let Some(message) = message {
                    self.take(message).await;
                }
            }
            () = at(self.timer) => {
                self.timer = None;
                self.step(Input::Timer);
            }
            () = at(self.refresh) => self.refresh_volumes(),
        }
    }

    async fn take(&mut self, message: Message) {
        match message {
            Message::Desired(pod) => {
                let old = self.machine.pod().clone();
                let changed = old.metadata.labels != pod.metadata.labels
                    || old.metadata.annotations != pod.metadata.annotations;
                self.step(Input::Desired(pod));
                self.answer_resize();
                if changed {
                    self.refresh_volumes();
                }
            }
            Message::Removed => self.step(Input::Removed),
            Message::Look => self.look().await,
            Message::Exited(id) => self.exited(&id).await,
            Message::Done(op, result) => self.done(op, result).await,
            Message::Probed { container, container_id, kind, outcome } => {
                self.step(Input::Probe { container, container_id, kind, outcome });
            }
            Message::Evict { reason, message, grace_seconds } => {
                self.step(Input::Evict { reason, message, grace_seconds: Some(grace_seconds) });
            }
            Message::Room => self.answer_resize(),
            Message::ReferencesChanged => {
                self.step(Input::Retry);
                self.refresh_volumes();
            }
        }
    }

    /// Answers a wish for other resources: whether the node can give them is for the node to say.
    fn answer_resize(&mut self) {
        if !self.machine.wants_resize() {
            return;
        }
        let pod = self.machine.pod().clone();
        let answer = pods::resize::judge(&pod, &self.ctx.allocatable(), &self.ctx.allocations());
        if answer == pods::resize::Answer::Accepted {
            self.ctx.allocate(&pod);
        }
        tracing::info!(pod = %pods::spec::describe(&pod), ?answer, "Answered a resize");
        self.step(Input::Resize(answer));
    }

    async fn look(&mut self) {
        let observed = look(&self.ctx, &self.machine.pod().metadata.uid).await;
        self.step(Input::Observed(observed));
    }

    /// The runtime's lists may lag behind its event: looks until they show the end.
    async fn exited(&mut self, id: &str) {
        let uid = self.machine.pod().metadata.uid.clone();
        let mut observed = look(&self.ctx, &uid).await;
        for _ in 0..LAG_LOOKS {
            let running = |one: &pods::Container| one.id == id && one.state == State::Running;
            let ready = |one: &pods::Sandbox| one.id == id && one.ready;
            if !observed.containers.iter().any(running) && !observed.sandboxes.iter().any(ready) {
                break;
            }
            tokio::time::sleep(LAG_LOOK).await;
            observed = look(&self.ctx, &uid).await;
        }
        self.step(Input::Observed(observed));
    }

    async fn done(&mut self, op: Op, result: Result<String, Failure>) {
        match &op {
            Op::Volumes => {
                if result.is_ok() {
                    self.refresh =
                        volumes::refresh_after(self.machine.pod()).map(|wait| Instant::now() + wait);
                }
                self.step(Input::Done { op, result, observed: None });
            }
            Op::Pull(_) | Op::Resize(_) | Op::Cleanup | Op::Delete => {
                self.step(Input::Done { op, result, observed: None })
            }
            _ => {
                let observed = look(&self.ctx, &self.machine.pod().metadata.uid).await;
                self.step(Input::Done { op, result, observed: Some(observed) });
            }
        }
    }

    /// Brings the files of volumes up to what they refer to. Containers need not be up for it.
    fn refresh_volumes(&mut self) {
        self.refresh = None;
        if self.refreshing || self.machine.phase() != Phase::Syncing {
            return;
        }
        self.refresh = volumes::refresh_after(self.machine.pod()).map(|wait| Instant::now() + wait);
        let (ctx, pod) =
            (self.ctx.clone(), perform::with_status(&self.machine.allocated(), self.machine.status()));
        tokio::spawn(async move {
            if let Err(words) = volumes::refresh(&ctx, &pod).await {
                tracing::debug!(pod = %pods::spec::describe(&pod), words, "Failed to refresh a pod's volumes");
            }
        });
    }

    fn step(&mut self, input: Input) {
        let now = now();
        let effects = self.machine.step(now, input);
        for effect in effects {
            self.perform(now, effect);
        }
    }

    fn perform(&mut self, now: i64, effect: Effect) {
        let pod = perform::with_status(&self.machine.allocated(), self.machine.status());
        let ctx = self.ctx.clone();
        match effect {
            Effect::ArmTimer { at } => {
                let wait = Duration::from_millis((at - now).max(0).unsigned_abs());
                self.timer = Some(Instant::now() + wait);
            }
            Effect::ReportStatus(status) => self.status.write(*status),
            Effect::Record { warning, reason, message, container } => {
                events::record(&ctx, &pod, container.as_deref(), warning, &reason, &message);
            }
            Effect::PrepareVolumes => {
                self.run(Op::Volumes, async move { perform::volumes(&ctx, &pod).await })
            }
            Effect::CreateSandbox { attempt } => {
                self.run(Op::Sandbox, async move { perform::sandbox(&ctx, &pod, attempt).await });
            }
            Effect::Pull { container } => {
                let op = Op::Pull(container.clone());
                self.run(op, async move { perform::pull(&ctx, &pod, &container).await });
            }
            Effect::Start { container, attempt, sandbox_id, image_id } => {
                let target = self.target(&container);
                let start =
                    perform::Start { container: container.clone(), attempt, sandbox_id, image_id, target };
                self.run(Op::Start(container), async move { perform::start(&ctx, &pod, &start).await });
            }
            Effect::Resize { container, id } => {
                let op = Op::Resize(container.clone());
                self.run(op, async move { perform::resize(&ctx, &pod, &container, &id).await });
            }
            Effect::Stop(stop) => {
                let op = Op::Stop(stop.id.clone());
                self.run(op, async move { perform::stop(&ctx, &pod, &stop).await });
            }
            Effect::StopSandbox { id } => {
                let op = Op::StopSandbox(id.clone());
                self.run(op, async move { perform::stop_sandbox(&ctx, &id).await });
            }
            Effect::Probe { container, container_id, kind } => {
                let sender = self.sender.clone();
                tokio::spawn(async move {
                    let outcome = perform::probe(&ctx, &pod, &container, &container_id, kind).await;
                    let _ = sender.send(Message::Probed { container, container_id, kind, outcome }).await;
                });
            }
            Effect::Collect { id } => {
                let observed = self.machine.observed().clone();
                let op = Op::Collect(id.clone());
                self.run(op, async move { perform::collect(&ctx, &pod, &observed, &id).await });
            }
            Effect::Cleanup => self.run(Op::Cleanup, async move { perform::cleanup(&ctx, &pod).await }),
            Effect::Delete => {
                // The last status first: who waits for the pod's end reads it there.
                let written = self.status.flushed();
                self.run(Op::Delete, async move {
                    written.await;
                    perform::delete(&ctx, &pod).await
                });
            }
            Effect::Finish => {}
        }
    }

    /// The container whose processes an ephemeral container sees, by id.
    fn target(&self, name: &str) -> Option<String> {
        let ephemeral = &self.machine.pod().spec.ephemeral_containers;
        let own = ephemeral.iter().find(|one| one.ephemeral_container_common.name == name)?;
        let running = self.machine.observed().newest(&own.target_container_name)?;
        (running.state == State::Running).then(|| running.id.clone())
    }

    fn run(&self, op: Op, work: impl Future<Output = Result<String, Failure>> + Send + 'static) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let result = work.await;
            if let Err(failure) = &result {
                tracing::debug!(
                    ?op,
                    reason = failure.reason,
                    message = failure.message,
                    "A piece of work failed"
                );
            }
            let _ = sender.send(Message::Done(op, result)).await;
        });
    }
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
