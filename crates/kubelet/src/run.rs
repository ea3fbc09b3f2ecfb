//! Brings the kubelet up: the runtime, the views of the API, the node, a task per pod, the server; and keeps the
//! pods' tasks in step with the API.

use crate::node_info::Machine;
use crate::options::{Options, Settings};
use crate::references::{self, References};
use crate::worker::{self, Handle, Message};
use crate::{
    admission, csi, eviction, image_gc, local_path, log_files, node, observe, perform, server, static_pods,
    volumes,
};
use anyhow::{Context as _, Result};
use api::core::v1::{Node, Pod, Service};
use client::{Change, Client, Recorder, Selection, Views};
use container_runtime::cri::messages::VersionRequest;
use container_runtime::{Containerd, TaskEvent};
use meta::{ObjectKey, Quantity};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between tries to subscribe to the runtime's events.
const SUBSCRIBE_RETRY: Duration = Duration::from_millis(500);

/// What everything in the kubelet shares.
pub struct Context {
    pub settings: Settings,
    pub client: Client,
    pub runtime: container_runtime::Client,
    pub runtime_socket: PathBuf,
    pub runtime_version: String,
    pub recorder: Recorder,
    pub views: Arc<Views>,
    pub references: References,
    pub machine: Machine,
    pub token: CancellationToken,
    /// One for each image that may be pulled at once.
    pub pulls: tokio::sync::Semaphore,
    /// When images were found and used.
    pub images: Mutex<pods::image_gc::Collector>,
    /// What the node is short of.
    pressure: Mutex<Vec<pods::eviction::Condition>>,
    /// Something in the node's status may have changed.
    pub node_changed: tokio::sync::Notify,
    pub tokens: crate::tokens::Tokens,
    /// The storage drivers of this node.
    pub drivers: csi::Drivers,
    /// Volumes that are or may be mounted, as the node's status names them.
    volumes_in_use: Mutex<BTreeSet<String>>,
    workers: Mutex<HashMap<String, Handle>>,
    /// Which pod a container or sandbox belongs to.
    owners: Mutex<HashMap<String, String>>,
}

impl Context {
    pub fn host_ips(&self) -> Vec<String> {
        self.settings.node_ips.iter().map(ToString::to_string).collect()
    }
    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        self.machine.allocatable(&self.settings)
    }
    pub fn node_images_changed(&self) {
        self.node_changed.notify_one();
    }
    /// Remembers whose these containers are, for the runtime's events.
    pub fn index(&self, uid: &str, observed: &pods::Observed) {
        let mut owners = self.owners.lock();
        for id in
            observed.containers.iter().map(|one| &one.id).chain(observed.sandboxes.iter().map(|one| &one.id))
        {
            owners.insert(id.clone(), uid.to_string());
        }
    }
    pub fn own(&self, id: &str, uid: &str) {
        self.owners.lock().insert(id.to_string(), uid.to_string());
    }
    pub fn forget(&self, uid: &str) {
        self.workers.lock().remove(uid);
        self.owners.lock().retain(|_, owner| owner != uid);
        self.tokens.forget(uid);
        let pods = self.pods();
        self.references.retain(&pods);
        for handle in self.handles() {
            handle.nudge(Message::Room);
        }
    }
    /// A volume is about to be mounted: it must not be detached.
    pub fn use_volume(&self, unique: &str) {
        if self.volumes_in_use.lock().insert(unique.to_string()) {
            self.node_changed.notify_one();
        }
    }
    /// A volume is mounted nowhere any more.
    pub fn leave_volume(&self, unique: &str) {
        if self.volumes_in_use.lock().remove(unique) {
            self.node_changed.notify_one();
        }
    }
    pub fn pressure(&self) -> Vec<pods::eviction::Condition> {
        self.pressure.lock().clone()
    }
    pub fn set_pressure(&self, conditions: Vec<pods::eviction::Condition>) {
        let mut own = self.pressure.lock();
        if *own != conditions {
            *own = conditions;
            self.node_changed.notify_one();
        }
    }
    /// Names and ids of a pod's running containers, as its newest status has them.
    pub fn containers_of(&self, uid: &str) -> Vec<(String, String)> {
        let Some(handle) = self.handle(uid) else { return Vec::new() };
        let fresh = self.views.view().get::<Pod>(&view::key_of(&*handle.pod));
        let status = &fresh.as_ref().unwrap_or(&handle.pod).status;
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        all.filter(|one| one.state.running.is_some())
            .filter_map(|one| Some((one.name.clone(), one.container_id.split_once("://")?.1.to_string())))
            .collect()
    }
    pub fn volumes_in_use(&self) -> Vec<String> {
        self.volumes_in_use.lock().iter().cloned().collect()
    }
    /// What failed may be tried at once: something that pods wait for has come.
    pub async fn retry_pods(&self) {
        for handle in self.handles() {
            handle.send(references::message()).await;
        }
    }
    /// The pods that the node has taken.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.workers.lock().values().map(|handle| handle.pod.clone()).collect()
    }
    /// The pods with the resources that they were given.
    pub fn allocations(&self) -> Vec<Arc<Pod>> {
        self.workers.lock().values().map(|handle| handle.allocated.clone()).collect()
    }
    /// A pod was given what it asks for.
    pub(crate) fn allocate(&self, pod: &Arc<Pod>) {
        let mut workers = self.workers.lock();
        workers.entry(pod.metadata.uid.clone()).and_modify(|handle| handle.allocated = pod.clone());
    }
    pub(crate) fn adopt(&self, uid: &str, handle: Handle) {
        self.workers.lock().insert(uid.to_string(), handle);
    }
    fn handles(&self) -> Vec<Handle> {
        self.workers.lock().values().cloned().collect()
    }
    pub(crate) fn handle(&self, uid: &str) -> Option<Handle> {
        self.workers.lock().get(uid).cloned()
    }
}

/// Runs a node until cancelled. Containers keep running then; the next kubelet finds them again.
pub async fn run(options: Options, client: Client, token: CancellationToken) -> Result<()> {
    let settings = options.settle()?;
    for folder in [&settings.root_dir, &settings.pod_logs_dir, &settings.container_logs_dir] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let (socket, supervisor) = runtime(&settings).await?;
    let runtime = container_runtime::connect(&socket);
    let version =
        runtime.version(VersionRequest::default()).await.context("the container runtime does not answer")?;
    let client = client.with_user_agent("kubelet/v1.36.0 (linux/amd64) timonel");
    let node_name = settings.node_name.clone();
    let views = Views::builder(&client)
        .watch_selected::<Pod>(Selection::fields(format!("spec.nodeName={node_name}")))?
        .watch::<Service>()?
        .watch_selected::<Node>(Selection::fields(format!("metadata.name={node_name}")))?
        .start(&token);
    let (references, changes) = References::start(client.clone(), token.clone());
    let machine = Machine::look(&settings);
    let pulls = settings.parallel_pulls;
    let in_use = csi::in_use(&settings).into_iter().collect();
    let ctx = Arc::new(Context {
        recorder: Recorder::start(client.clone(), "kubelet", &node_name, token.clone()),
        runtime_version: format!("{}://{}", version.runtime_name, version.runtime_version),
        runtime_socket: socket,
        settings,
        client,
        runtime,
        views,
        references,
        machine,
        token: token.clone(),
        pulls: tokio::sync::Semaphore::new(pulls),
        images: Mutex::default(),
        pressure: Mutex::default(),
        node_changed: tokio::sync::Notify::new(),
        tokens: crate::tokens::Tokens::default(),
        drivers: csi::Drivers::default(),
        volumes_in_use: Mutex::new(in_use),
        workers: Mutex::default(),
        owners: Mutex::default(),
    });
    create_cgroups(&ctx)?;
    let server = server::start(ctx.clone()).await?;
    let work = async {
        tokio::join!(
            node::run(&ctx),
            keep_pods(&ctx),
            static_pods::keep(&ctx),
            follow_references(&ctx, changes),
            follow_runtime(&ctx),
            log_files::rotate(&ctx),
            keep_local_paths(&ctx),
            keep_drivers(&ctx),
            eviction::keep(&ctx),
            image_gc::keep(&ctx),
            supervise(supervisor.as_ref()),
            server,
        );
    };
    tokio::select! {
        () = token.cancelled() => {}
        () = work => {}
    }
    tracing::info!("Stopped kubelet; containers keep running");
    Ok(())
}

/// The parents of pods' groups, by quality of service: those that ask for nothing get what the others leave.
fn create_cgroups(ctx: &Context) -> Result<()> {
    use container_runtime::cgroups::{Limits, create};
    let root = ctx.settings.kubepods();
    let shares = |shares| Limits { cpu_shares: Some(shares), ..Limits::default() };
    let all = [
        (root.clone(), shares(ctx.machine.cpus.unsigned_abs() * 1024)),
        (format!("{root}/burstable"), Limits::default()),
        (format!("{root}/besteffort"), shares(2)),
    ];
    for (group, limits) in all {
        create(&group, limits).with_context(|| format!("cannot make the control group {group}"))?;
    }
    Ok(())
}

/// The runtime's socket; and our private containerd, where no other runtime was named.
async fn runtime(settings: &Settings) -> Result<(PathBuf, Option<Containerd>)> {
    if !settings.runtime_endpoint.is_empty() {
        let path = settings.runtime_endpoint.trim_start_matches("unix://");
        return Ok((Path::new(path).to_path_buf(), None));
    }
    let config = container_runtime::Config::under(&settings.data_dir, &settings.run_dir);
    let containerd = Containerd::start(config).await?;
    Ok((containerd.socket().to_path_buf(), Some(containerd)))
}

/// A node that keeps no volumes has nothing to follow; the others go on.
async fn keep_local_paths(ctx: &Context) {
    local_path::keep(ctx).await;
    std::future::pending::<()>().await;
}

/// Without the folder of plugins there are no drivers; the others go on.
async fn keep_drivers(ctx: &Context) {
    if ctx.views.synced().await {
        csi::keep(ctx).await;
    }
    std::future::pending::<()>().await;
}

async fn supervise(containerd: Option<&Containerd>) {
    match containerd {
        Some(containerd) => containerd.supervise().await,
        None => std::future::pending().await,
    }
}

/// Keeps one task per pod that the API binds to this node.
async fn keep_pods(ctx: &Arc<Context>) {
    if !ctx.views.synced().await {
        return;
    }
    remove_orphans(ctx).await;
    let mut subscription = ctx.views.subscribe();
    while let Some(changes) = subscription.recv().await {
        for change in &changes.objects {
            if let Some((old, new)) = change.of::<Pod>() {
                take_change(ctx, change, old, new).await;
            }
        }
    }
}

async fn take_change(ctx: &Arc<Context>, change: &Change, old: Option<&Pod>, new: Option<&Pod>) {
    // A name may have been given to another pod while we looked away.
    if let Some(old) = old
        && new.is_none_or(|new| new.metadata.uid != old.metadata.uid)
        && let Some(handle) = ctx.handle(&old.metadata.uid)
    {
        handle.send(Message::Removed).await;
    }
    let Some(new) = new.filter(|pod| !static_pods::is_mirror(pod)) else { return };
    let pod = match ctx.views.view().get::<Pod>(&change.key) {
        Some(pod) if pod.metadata.uid == new.metadata.uid => pod,
        _ => Arc::new(new.clone()),
    };
    let uid = pod.metadata.uid.clone();
    if let Some(handle) = ctx.handle(&uid) {
        ctx.workers.lock().entry(uid).and_modify(|handle| handle.pod = pod.clone());
        return handle.send(Message::Desired(pod)).await;
    }
    let verdict = judge(ctx, &pod);
    if let Some((reason, message)) = &verdict {
        crate::events::record(ctx, &pod, None, true, reason, message);
    }
    let handle = worker::start(ctx, pod, verdict);
    ctx.adopt(&uid, handle);
}

/// Whether the node takes a pod it has not seen; one that has begun already is not judged again.
fn judge(ctx: &Context, pod: &Pod) -> Option<(String, String)> {
    let begun = pod.status.start_time.is_some() || pod.metadata.deletion_timestamp.is_some();
    if begun || matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        return None;
    }
    let node = ctx.views.view().get::<Node>(&ObjectKey::cluster(ctx.settings.node_name.as_str()));
    let over = |pod: &Arc<Pod>| {
        let fresh = ctx.views.view().get::<Pod>(&view::key_of(&**pod));
        matches!(fresh.as_ref().unwrap_or(pod).status.phase.as_str(), "Succeeded" | "Failed")
    };
    let taken: Vec<Arc<Pod>> = ctx.pods().into_iter().filter(|pod| !over(pod)).collect();
    if let Some(message) = pods::eviction::refusal(pod, &ctx.pressure()) {
        return Some((pods::eviction::REASON.into(), message));
    }
    admission::admit(node.as_deref(), &ctx.allocatable(), pod, &taken).err()
}

/// Ends pods that the runtime or the disk still has and the API has not.
async fn remove_orphans(ctx: &Arc<Context>) {
    let view = ctx.views.view();
    let listed = view.list::<Pod>().map(|pod| pod.metadata.uid.clone());
    let known: std::collections::BTreeSet<String> =
        listed.chain(static_pods::load(ctx).into_keys()).collect();
    let mut found = observe::uids(ctx).await.unwrap_or_default();
    found.extend(volumes::uids_on_disk(ctx));
    for uid in found.difference(&known) {
        tracing::info!(uid, "Removing a pod that the API does not have");
        let (ctx, uid) = (ctx.clone(), uid.clone());
        tokio::spawn(async move { perform::finish(&ctx, &uid).await });
    }
}

async fn follow_references(ctx: &Context, mut changes: tokio::sync::mpsc::Receiver<(ObjectKey, bool)>) {
    while let Some((key, secret)) = changes.recv().await {
        for handle in ctx.handles() {
            if references::refers(&handle.pod, &key, secret) {
                handle.send(references::message()).await;
            }
        }
    }
    std::future::pending::<()>().await;
}

/// Tells pods of the ends of their containers, as the runtime tells us.
async fn follow_runtime(ctx: &Context) {
    loop {
        match container_runtime::subscribe(&ctx.runtime_socket).await {
            Ok(mut events) => {
                // What happened before the subscription.
                for handle in ctx.handles() {
                    handle.send(Message::Look).await;
                }
                ctx.node_changed.notify_one();
                while let Some(event) = events.recv().await {
                    take_event(ctx, event).await;
                }
                tracing::warn!("The runtime's events ended");
            }
            Err(error) => tracing::warn!(%error, "Failed to subscribe to the runtime's events"),
        }
        ctx.node_changed.notify_one();
        tokio::time::sleep(SUBSCRIBE_RETRY).await;
    }
}

async fn take_event(ctx: &Context, event: TaskEvent) {
    match event {
        TaskEvent::Exited { container_id } => {
            let owner = ctx.owners.lock().get(&container_id).cloned();
            if let Some(handle) = owner.and_then(|uid| ctx.handle(&uid)) {
                handle.send(Message::Exited(container_id)).await;
            }
        }
        TaskEvent::ImagesChanged => ctx.node_changed.notify_one(),
        TaskEvent::Started { .. } | TaskEvent::OutOfMemory { .. } => {}
    }
}
