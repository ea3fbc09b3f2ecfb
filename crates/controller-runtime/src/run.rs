//! The tasks: one that turns changes into keys, and some workers for each controller.

use crate::carry_out::{Errands, Hands};
use crate::metrics::{Metrics, QueueMetrics, queue_name};
use crate::queue::{Memory, Outcome, Queue};
use client::{Change, Client, Recorder, Subscription, VertexChange, Views};
use controllers::{Context, Controller, Watch};
use jiff::Timestamp;
use meta::{ObjectKey, Time};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};
use view::{KindId, View};

fn wall_clock() -> Time {
    Time::truncated(Timestamp::now()).unwrap_or_default()
}

/// A controller with the hands that it writes with.
pub struct Employed {
    pub controller: Arc<dyn Controller>,
    /// Speaks with the controller's own identity.
    pub client: Client,
    pub recorder: Recorder,
    /// Holds the keys that some controllers need.
    pub errands: Arc<dyn Errands>,
    /// Keys that are worked on at once.
    pub workers: usize,
}

/// One controller at work.
struct Work {
    employed: Employed,
    watches: HashMap<KindId, Vec<Watch>>,
    queue: Mutex<Queue>,
    metrics: Arc<QueueMetrics>,
    notify: Notify,
    views: Arc<Views>,
}

/// Runs the controllers until the token is cancelled. Returns when every worker has put its key down.
pub async fn run(views: Arc<Views>, employed: Vec<Employed>, metrics: &Metrics, token: CancellationToken) {
    if !views.synced().await {
        return;
    }
    let mut tasks = JoinSet::new();
    let works: Vec<Arc<Work>> =
        employed.into_iter().map(|employed| Arc::new(Work::new(employed, views.clone(), metrics))).collect();
    for work in &works {
        for _ in 0..work.employed.workers.max(1) {
            tasks.spawn(work.clone().labour(token.clone()));
        }
        debug!(controller = work.employed.controller.name(), "Started controller");
    }
    tasks.spawn(dispatch(views.subscribe(), views.clone(), works, token));
    while tasks.join_next().await.is_some() {}
    info!("Stopped controllers");
}

/// Turns changes into keys, and lets keys go whose writes the view shows.
async fn dispatch(
    mut subscription: Subscription,
    views: Arc<Views>,
    works: Vec<Arc<Work>>,
    token: CancellationToken,
) {
    loop {
        let changes = tokio::select! {
            changes = subscription.recv() => changes,
            () = token.cancelled() => return,
        };
        let Some(changes) = changes else { return };
        let view = views.view();
        for work in &works {
            work.changed(&view, &changes.objects, &changes.vertices);
        }
    }
}

impl Work {
    fn new(employed: Employed, views: Arc<Views>, metrics: &Metrics) -> Self {
        let metrics = metrics.queue(&queue_name(employed.controller.name()));
        let mut watches: HashMap<KindId, Vec<Watch>> = HashMap::new();
        for watch in employed.controller.watches() {
            watches.entry(watch.kind).or_default().push(watch);
        }
        Work {
            employed,
            watches,
            queue: Mutex::new(Queue::new(Instant::now(), metrics.clone())),
            metrics,
            notify: Notify::new(),
            views,
        }
    }

    fn changed(&self, view: &View, changes: &[Change], vertices: &[VertexChange]) {
        let mut keys: Vec<ObjectKey> = Vec::new();
        for change in changes {
            for watch in self.watches.get(&change.kind).into_iter().flatten() {
                keys.extend(watch.keys(view, change.old.as_deref(), change.new.as_deref()));
            }
        }
        if self.employed.controller.uses_graph() {
            for change in vertices {
                keys.extend(self.employed.controller.vertex_keys(
                    view,
                    change.old.as_ref(),
                    change.new.as_ref(),
                ));
            }
        }
        let mut queue = self.queue.lock();
        if keys.is_empty() && queue.fenced() == 0 {
            return;
        }
        for key in keys {
            queue.add(key);
        }
        queue.check_fences(view, Instant::now());
        drop(queue);
        self.notify.notify_one();
    }

    /// Works on one key after another.
    async fn labour(self: Arc<Self>, token: CancellationToken) {
        while let Some((key, memory)) = self.next(&token).await {
            let number = self.metrics.begin(Instant::now());
            let outcome = self.work(&key, memory).await;
            self.metrics.end(number, Instant::now());
            self.queue.lock().finish(key, outcome, &self.views.view(), Instant::now(), wall_clock());
        }
    }

    async fn next(&self, token: &CancellationToken) -> Option<(ObjectKey, Memory)> {
        loop {
            if token.is_cancelled() {
                return None;
            }
            let notified = self.notify.notified();
            let due = {
                let mut queue = self.queue.lock();
                let now = Instant::now();
                if queue.next_due().is_some_and(|due| due <= now) {
                    queue.check_fences(&self.views.view(), now);
                }
                if let Some(next) = queue.pop(now) {
                    // There may be more than one: wake the next worker.
                    self.notify.notify_one();
                    return Some(next);
                }
                queue.next_due()
            };
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = notified => {}
                () = sleep => {}
                () = token.cancelled() => return None,
            }
        }
    }

    async fn work(&self, key: &ObjectKey, memory: Memory) -> Outcome {
        let controller = &self.employed.controller;
        let view = self.views.view();
        let context = Context {
            view: &view,
            key,
            now: wall_clock(),
            report: memory.report.as_ref(),
            marked: (!memory.mark.is_empty()).then_some((memory.mark.as_str(), memory.marked)),
        };
        // A panic costs this one decision: the key comes back after its backoff.
        let Ok(plan) = catch_unwind(AssertUnwindSafe(|| controller.reconcile(&context))) else {
            error!(controller = controller.name(), key = %key, "Panicked in a decision");
            return Outcome { failed: true, ..Outcome::default() };
        };
        drop(view);
        if plan.is_empty() {
            return Outcome { again: plan.again, mark: plan.mark, ..Outcome::default() };
        }
        debug!(controller = controller.name(), key = %key, steps = plan.steps.len(), "Planned");
        let hands = Hands {
            client: &self.employed.client,
            recorder: &self.employed.recorder,
            controller: controller.name(),
            errands: self.employed.errands.as_ref(),
        };
        hands.carry_out(plan).await
    }
}
