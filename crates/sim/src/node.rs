//! One simulated node: its task, which watches its pods, renews its lease, tells its status, and sends what pods ask for.

use crate::api_objects::{self, LEASE_NAMESPACE};
use crate::args::NodesArgs;
use crate::pods_of_node::{Ended, PodsOfNode, Request};
use crate::stats::{Stats, Timed};
use anyhow::Result;
use api::coordination::v1::Lease;
use api::core::v1::{Event, Node, Pod, PodStatus};
use client::{
    Client, DeleteOptions, List, ListOptions, Patch, PatchOptions, WatchEvent, WatchOptions, Watcher,
};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use meta::ObjectKey;
use rand::Rng;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Waits after a failure to register, to list or to renew: doubled from the first to the last.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A lease is renewed so often in its time, as upstream does.
const RENEWALS_PER_LEASE: u32 = 4;

/// What all nodes share.
pub struct Shared {
    pub args: Arc<NodesArgs>,
    pub stats: Arc<Stats>,
    pub clients: Vec<Client>,
    /// Bounds the calls under way of all nodes together.
    pub calls: Semaphore,
    pub token: CancellationToken,
    pub began: Instant,
}

impl Shared {
    fn failed(&self, what: &str, error: &client::Error) {
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(error = %error.chain(), what, "A simulated node's call failed");
    }
}

/// A call that has ended.
enum Call {
    Status(Arc<str>, Box<PodStatus>, Ended),
    Delete(Arc<str>, Ended),
    Event,
    Lease(Option<Box<Lease>>),
    Heartbeat,
}

/// All pods of the node, and what follows them.
type Opened = Result<(List<Pod>, Watcher<Pod>), client::Error>;

/// Where the node's pods come from.
enum Feed {
    /// Nothing is asked until then.
    Wait(Instant),
    Opening(BoxFuture<'static, Opened>),
    Watching(Box<Watcher<Pod>>),
}

enum Fed {
    Nothing,
    All(Vec<Pod>),
    One(Box<Pod>),
    Gone(String),
}

struct Running {
    shared: Arc<Shared>,
    client: Client,
    name: String,
    pods: PodsOfNode,
    feed: Feed,
    backoff: Duration,
    calls: FuturesUnordered<BoxFuture<'static, Call>>,
    lease: Option<Lease>,
    lease_at: Option<Instant>,
    heartbeat_at: Option<Instant>,
    /// When the node is cut off, and when it is back.
    cut: Option<(Instant, Instant)>,
}

/// Joins a node and lives its life until cancelled.
pub async fn run(shared: Arc<Shared>, number: u32) {
    let name = format!("{}{number}", shared.args.prefix);
    let client = shared.clients[number as usize % shared.clients.len()].clone();
    let mut wait = RETRY_MIN;
    while let Err(error) = register(&shared, &client, &name, number).await {
        tracing::warn!(node = name, error = format!("{error:#}"), "Failed to register a simulated node");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
    shared.stats.nodes.fetch_add(1, Ordering::Relaxed);
    let now = Instant::now();
    let cut = (rand::rng().random_range(0.0..100.0) < shared.args.partition).then(|| {
        let from = shared.began + shared.args.partition_after;
        (from, from + shared.args.partition_for)
    });
    let mut running = Running {
        client,
        name,
        pods: PodsOfNode::new(shared.args.clone(), shared.stats.clone(), number),
        feed: Feed::Wait(now),
        backoff: RETRY_MIN,
        calls: FuturesUnordered::new(),
        lease: None,
        lease_at: Some(now),
        heartbeat_at: Some(now + shared.args.status_every.mul_f64(rand::rng().random_range(0.5..1.0))),
        cut,
        shared,
    };
    while !running.shared.token.is_cancelled() {
        running.turn().await;
    }
}

async fn register(shared: &Shared, client: &Client, name: &str, number: u32) -> Result<()> {
    let _permit = shared.calls.acquire().await?;
    let node = api_objects::node(&shared.args, name, number)?;
    match client.create(&node).await {
        Ok(_) => {}
        Err(error) if error.is_already_exists() => {
            let patch = Patch::Strategic(json!({"status": {"conditions": api_objects::conditions()}}));
            let key = ObjectKey::cluster(name);
            client.patch_status::<Node>(&key, &patch, &PatchOptions::default()).await?;
        }
        Err(error) => return Err(error.into()),
    }
    if shared.args.untaint {
        let patch = Patch::Merge(json!({"spec": {"taints": null}}));
        client.patch::<Node>(&ObjectKey::cluster(name), &patch, &PatchOptions::default()).await?;
    }
    Ok(())
}

/// Ready at this time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Running {
    async fn turn(&mut self) {
        let due = self
            .pods
            .next_due()
            .map(|at| Instant::now() + Duration::from_millis((at - now()).max(0).unsigned_abs()));
        let cut = self.cut.map(|(from, _)| from);
        let token = self.shared.token.clone();
        tokio::select! {
            () = token.cancelled() => return,
            () = at(cut) => self.cut_off(),
            fed = self.feed.next(&self.client, &self.shared, &self.name, &mut self.backoff) => self.take(fed),
            Some(call) = self.calls.next() => self.ended(call),
            () = at(due) => self.pods.work(now()),
            () = at(self.lease_at) => self.renew(),
            () = at(self.heartbeat_at) => self.heartbeat(),
        }
        for request in self.pods.take_requests() {
            self.send(request);
        }
    }

    /// Nothing comes from the API server and nothing gets there; what runs on the node goes on.
    fn cut_off(&mut self) {
        let Some((_, until)) = self.cut.take() else { return };
        tracing::info!(node = self.name, "Cut a simulated node off");
        self.feed = Feed::Wait(until);
        self.lease_at = Some(until);
        self.heartbeat_at = Some(until);
    }

    fn take(&mut self, fed: Fed) {
        match fed {
            Fed::Nothing => {}
            Fed::All(pods) => self.pods.replace(now(), pods),
            Fed::One(pod) => self.pods.desired(now(), *pod),
            Fed::Gone(uid) => self.pods.removed(now(), &uid),
        }
    }

    fn ended(&mut self, call: Call) {
        match call {
            Call::Status(uid, status, ended) => self.pods.status_ended(now(), &uid, status, ended),
            Call::Delete(uid, ended) => self.pods.deletion_ended(now(), &uid, ended),
            Call::Event => {}
            Call::Lease(lease) => {
                let period = self.shared.args.lease / RENEWALS_PER_LEASE;
                let wait = if lease.is_some() {
                    period.mul_f64(rand::rng().random_range(0.96..1.04))
                } else {
                    RETRY_MIN
                };
                self.lease = lease.map(|lease| *lease);
                self.lease_at = Some(Instant::now() + wait);
            }
            Call::Heartbeat => self.heartbeat_at = Some(Instant::now() + self.shared.args.status_every),
        }
    }

    fn renew(&mut self) {
        self.lease_at = None;
        let (shared, client, name) = (self.shared.clone(), self.client.clone(), self.name.clone());
        let held = self.lease.take();
        self.calls.push(Box::pin(async move {
            let Ok(_permit) = shared.calls.acquire().await else { return Call::Lease(None) };
            let start = Instant::now();
            match renew(&client, &name, held, &shared.args).await {
                Ok(lease) => {
                    shared.stats.time(Timed::Lease, start.elapsed());
                    shared.stats.leases.fetch_add(1, Ordering::Relaxed);
                    Call::Lease(Some(Box::new(lease)))
                }
                Err(error) => {
                    shared.failed("lease", &error);
                    Call::Lease(None)
                }
            }
        }));
    }

    fn heartbeat(&mut self) {
        self.heartbeat_at = None;
        let (shared, client, key) =
            (self.shared.clone(), self.client.clone(), ObjectKey::cluster(self.name.as_str()));
        self.calls.push(Box::pin(async move {
            let Ok(_permit) = shared.calls.acquire().await else { return Call::Heartbeat };
            let patch = Patch::Strategic(api_objects::heartbeat());
            if let Err(error) = client.patch_status::<Node>(&key, &patch, &PatchOptions::default()).await {
                shared.failed("node status", &error);
            }
            Call::Heartbeat
        }));
    }

    fn send(&mut self, request: Request) {
        let (shared, client) = (self.shared.clone(), self.client.clone());
        let call: BoxFuture<'static, Call> = match request {
            Request::Status { uid, key, status } => Box::pin(async move {
                let Ok(_permit) = shared.calls.acquire().await else {
                    return Call::Status(uid, status, Ended::Failed);
                };
                let start = Instant::now();
                let patch = Patch::Strategic(api_objects::status_patch(&uid, &status));
                let result = client.patch_status::<Pod>(&key, &patch, &PatchOptions::default()).await;
                shared.stats.time(Timed::Status, start.elapsed());
                let ended = ended(&shared, "pod status", result, &shared.stats.statuses);
                Call::Status(uid, status, ended)
            }),
            Request::Delete { uid, key } => Box::pin(async move {
                let Ok(_permit) = shared.calls.acquire().await else {
                    return Call::Delete(uid, Ended::Failed);
                };
                let options = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::of_uid(&*uid) };
                let result = client.delete::<Pod>(&key, &options).await;
                let ended = ended(&shared, "deletion", result, &shared.stats.deletions);
                Call::Delete(uid, ended)
            }),
            Request::Event { pod, warning, reason, message } => {
                let node = self.name.clone();
                Box::pin(async move {
                    let Ok(_permit) = shared.calls.acquire().await else { return Call::Event };
                    let event = event(&pod, &node, warning, reason, message);
                    let _ = ended(&shared, "event", client.create(&event).await, &shared.stats.events);
                    Call::Event
                })
            }
        };
        self.calls.push(call);
    }
}

fn ended<T>(shared: &Shared, what: &str, result: Result<T, client::Error>, counter: &AtomicU64) -> Ended {
    match result {
        Ok(_) => {
            counter.fetch_add(1, Ordering::Relaxed);
            Ended::Done
        }
        Err(error) if error.is_not_found() || error.is_conflict() => Ended::Gone,
        Err(error) => {
            shared.failed(what, &error);
            Ended::Failed
        }
    }
}

async fn renew(
    client: &Client,
    name: &str,
    held: Option<Lease>,
    args: &NodesArgs,
) -> Result<Lease, client::Error> {
    let seconds = i32::try_from(args.lease.as_secs()).unwrap_or(i32::MAX);
    if held.is_some() {
        return client.update(&api_objects::renewed(held, name, seconds)).await;
    }
    match client.create(&api_objects::renewed(None, name, seconds)).await {
        Err(error) if error.is_already_exists() => {
            let held = client.get::<Lease>(&ObjectKey::new(LEASE_NAMESPACE, name)).await?;
            client.update(&api_objects::renewed(Some(held), name, seconds)).await
        }
        result => result,
    }
}

fn event(pod: &Pod, node: &str, warning: bool, reason: String, message: String) -> Event {
    let mut event = Event::default();
    event.metadata.namespace = pod.metadata.namespace.clone();
    event.metadata.name = format!("{}.{:016x}", pod.metadata.name, rand::random::<u64>());
    event.involved_object.kind = "Pod".into();
    event.involved_object.api_version = "v1".into();
    event.involved_object.namespace = pod.metadata.namespace.clone();
    event.involved_object.name = pod.metadata.name.clone();
    event.involved_object.uid = pod.metadata.uid.clone();
    event.r#type = if warning { "Warning" } else { "Normal" }.into();
    event.source.component = "kubelet".into();
    event.source.host = node.into();
    event.first_timestamp = meta::Time::truncated(jiff::Timestamp::now());
    event.last_timestamp = event.first_timestamp;
    event.count = 1;
    event.reason = reason;
    event.message = message;
    event
}

impl Feed {
    /// The next thing that the API tells. Dropping the future loses nothing.
    async fn next(
        &mut self,
        client: &Client,
        shared: &Arc<Shared>,
        node: &str,
        backoff: &mut Duration,
    ) -> Fed {
        match self {
            Feed::Wait(until) => {
                tokio::time::sleep_until(*until).await;
                *self = Feed::Opening(Box::pin(open(client.clone(), shared.clone(), node.to_string())));
                Fed::Nothing
            }
            Feed::Opening(opening) => match opening.await {
                Ok((list, watcher)) => {
                    shared.stats.lists.fetch_add(1, Ordering::Relaxed);
                    *backoff = RETRY_MIN;
                    *self = Feed::Watching(Box::new(watcher));
                    Fed::All(list.items)
                }
                Err(error) => {
                    shared.failed("list", &error);
                    self.wait(backoff)
                }
            },
            Feed::Watching(watcher) => match watcher.next().await {
                Some(Ok(event)) => {
                    shared.stats.watch_events.fetch_add(1, Ordering::Relaxed);
                    match event {
                        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => Fed::One(Box::new(pod)),
                        WatchEvent::Deleted(pod) => Fed::Gone(pod.metadata.uid),
                        WatchEvent::Bookmark { .. } => Fed::Nothing,
                    }
                }
                Some(Err(error)) => {
                    shared.failed("watch", &error);
                    self.wait(backoff)
                }
                // Servers end every watch after a while.
                None => self.wait(backoff),
            },
        }
    }

    fn wait(&mut self, backoff: &mut Duration) -> Fed {
        *self = Feed::Wait(Instant::now() + backoff.mul_f64(rand::rng().random_range(0.5..1.5)));
        *backoff = (*backoff * 2).min(RETRY_MAX);
        Fed::Nothing
    }
}

async fn open(client: Client, shared: Arc<Shared>, node: String) -> Opened {
    let field_selector = format!("spec.nodeName={node}");
    let list = {
        let _permit = shared.calls.acquire().await;
        let options = ListOptions { field_selector: field_selector.clone(), ..ListOptions::default() };
        client.list_all::<Pod>("", &options).await?
    };
    let options = WatchOptions {
        field_selector,
        resource_version: list.resource_version.clone(),
        allow_bookmarks: true,
        ..WatchOptions::default()
    };
    let watcher = client.watch::<Pod>("", &options).await?;
    Ok((list, watcher))
}
