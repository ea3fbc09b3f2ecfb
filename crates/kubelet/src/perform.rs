//! Carries out what a pod's machine asks for. It decides nothing: each function does one effect and tells how it ended.

use crate::{Context, container, events, hooks, images, observe, probing, sandbox, volumes};
use api::core::v1::{Pod, PodStatus};
use container_runtime::cgroups;
use container_runtime::cri::messages::*;
use pods::{Failure, Observed, Outcome, ProbeKind, Stop};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between stopping a pod and its control group being empty, looks at most this often, this far apart.
const CGROUP_LOOKS: u32 = 50;
const CGROUP_LOOK: Duration = Duration::from_millis(20);
/// A hook after the start may take as long as it likes; this bounds a forgotten one.
const POST_START_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is left of a pod's volumes is taken back with so many tries, so far apart; the next start tries again.
const RELEASES_MAX: u32 = 60;
const RELEASE_AGAIN: Duration = Duration::from_secs(10);

/// What a container's start needs to know.
pub struct Start {
    pub container: String,
    pub attempt: u32,
    pub sandbox_id: String,
    pub image_id: String,
    /// For an ephemeral container: the id of the container whose processes it sees.
    pub target: Option<String>,
}

pub async fn volumes(ctx: &Context, pod: &Pod) -> Result<String, Failure> {
    match volumes::prepare(ctx, pod).await {
        Ok(()) => Ok(String::new()),
        Err(fault) => {
            events::record(ctx, pod, None, true, "FailedMount", &fault);
            Err(Failure::of("FailedMount", fault))
        }
    }
}

pub async fn sandbox(ctx: &Context, pod: &Pod, attempt: u32) -> Result<String, Failure> {
    let fault = |words: String| Failure::of("CreatePodSandboxError", words);
    let logs = sandbox::log_dir(&ctx.settings, pod);
    std::fs::create_dir_all(&logs)
        .map_err(|error| fault(format!("cannot make {}: {error}", logs.display())))?;
    sandbox::create_cgroup(&ctx.settings, pod)
        .map_err(|error| fault(format!("unable to ensure pod container exists: {error}")))?;
    let config = sandbox::config(ctx, pod, attempt);
    let handler = pod.spec.runtime_class_name.clone().unwrap_or_default();
    let handler =
        if handler.is_empty() { handler } else { runtime_handler(ctx, &handler).await.map_err(fault)? };
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
    let answer = ctx.runtime.run_pod_sandbox(request).await.map_err(|error| fault(error.to_string()))?;
    Ok(answer.pod_sandbox_id)
}

/// The handler that a RuntimeClass names.
async fn runtime_handler(ctx: &Context, name: &str) -> Result<String, String> {
    let key = meta::ObjectKey::cluster(name);
    let class: api::node::v1::RuntimeClass = ctx
        .client
        .get(&key)
        .await
        .map_err(|error| format!("failed to get RuntimeClass {name}: {}", error.chain()))?;
    Ok(class.handler)
}

pub async fn pull(ctx: &Context, pod: &Pod, name: &str) -> Result<String, Failure> {
    let Some(container) = pods::spec::find(&pod.spec, name) else {
        return Err(Failure::of(container::CONFIG_ERROR, format!("container {name} is not in the pod")));
    };
    images::ensure(ctx, pod, &container).await
}

/// Creates and starts a container, and runs its hook. `pod` carries the newest status.
pub async fn start(ctx: &Context, pod: &Pod, start: &Start) -> Result<String, Failure> {
    let name = start.container.as_str();
    let Some(container) = pods::spec::find(&pod.spec, name) else {
        return Err(Failure::of(container::CONFIG_ERROR, format!("container {name} is not in the pod")));
    };
    let target = start.target.as_deref();
    let config = container::config(ctx, pod, &container, start.attempt, &start.image_id, target).await?;
    let log = sandbox::log_dir(&ctx.settings, pod);
    let folder = log.join(name);
    std::fs::create_dir_all(&folder).map_err(|error| {
        Failure::of("CreateContainerError", format!("cannot make {}: {error}", folder.display()))
    })?;
    let log_path = log.join(&config.log_path);
    let request = CreateContainerRequest {
        pod_sandbox_id: start.sandbox_id.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox::config(ctx, pod, 0)),
    };
    let id = match ctx.runtime.create_container(request).await {
        Ok(answer) => answer.container_id,
        Err(error) => return Err(Failure::of("CreateContainerError", error.description())),
    };
    ctx.own(&id, &pod.metadata.uid);
    events::record(ctx, pod, Some(name), false, "Created", "Container created");
    if let Err(error) = ctx.runtime.start_container(ContainerIdRequest { container_id: id.clone() }).await {
        return Err(Failure::of("RunContainerError", error.description()));
    }
    events::record(ctx, pod, Some(name), false, "Started", "Container started");
    link_log(ctx, pod, name, &id, &log_path);
    if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) {
        // The hook may ask the pod by its address, which the caller's status already has.
        if let Err(words) = hooks::run(ctx, pod, &container, &id, hook, POST_START_MAX).await {
            events::record(ctx, pod, Some(name), true, "FailedPostStartHook", "PostStartHook failed");
            tracing::warn!(pod = %pods::spec::describe(pod), container = name, words, "A hook after start failed");
            events::record(ctx, pod, Some(name), false, "Killing", "FailedPostStartHook");
            let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
            let _ = ctx.runtime.stop_container(&id, grace).await;
            return Err(Failure::of("PostStartHookError", words));
        }
    }
    Ok(id)
}

/// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`: where log collectors look.
fn link_log(ctx: &Context, pod: &Pod, container: &str, id: &str, log: &Path) {
    let link = link_path(ctx, &pod.metadata.name, &pod.metadata.namespace, container, id);
    let _ = std::fs::create_dir_all(&ctx.settings.container_logs_dir);
    let _ = std::os::unix::fs::symlink(log, link);
}

fn link_path(ctx: &Context, pod: &str, namespace: &str, container: &str, id: &str) -> std::path::PathBuf {
    ctx.settings.container_logs_dir.join(format!("{pod}_{namespace}_{container}-{id}.log"))
}

/// Gives a running container other resources: the pod's group first where it grows, last where it shrinks.
pub async fn resize(ctx: &Context, pod: &Pod, name: &str, id: &str) -> Result<String, Failure> {
    let fault = |words: String| Failure::of("ResizeError", words);
    let Some(container) = pods::spec::find(&pod.spec, name) else {
        return Err(fault(format!("container {name} is not in the pod")));
    };
    let wanted = container::linux_resources(ctx, pod, &container);
    // A pod's group must hold what its container is given; a group that is to shrink refuses that until its container has.
    let grown = sandbox::create_cgroup(&ctx.settings, pod);
    let request = UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(wanted),
        ..UpdateContainerResourcesRequest::default()
    };
    ctx.runtime.update_container_resources(request).await.map_err(|error| fault(error.description()))?;
    if grown.is_err() {
        sandbox::create_cgroup(&ctx.settings, pod).map_err(|error| fault(error.to_string()))?;
    }
    Ok(String::new())
}

/// The hook before the stop, then the stop; the hook's time counts against the grace.
pub async fn stop(ctx: &Context, pod: &Pod, stop: &Stop) -> Result<String, Failure> {
    events::record(ctx, pod, Some(&stop.container), false, "Killing", &stop.message);
    let began = Instant::now();
    let container = pods::spec::find(&pod.spec, &stop.container);
    let hook = container.as_ref().and_then(|one| one.lifecycle.as_ref()?.pre_stop.as_ref());
    if let (Some(container), Some(hook), true) = (&container, hook, stop.grace_seconds > 0) {
        let limit = Duration::from_secs(stop.grace_seconds.unsigned_abs());
        if let Err(words) = hooks::run(ctx, pod, container, &stop.id, hook, limit).await {
            events::record(ctx, pod, Some(&stop.container), true, "FailedPreStopHook", "PreStopHook failed");
            tracing::warn!(pod = %pods::spec::describe(pod), container = stop.container, words, "A hook before stop failed");
        }
    }
    let spent = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
    // A little is left to end in peace even where the hook took everything.
    let left = (stop.grace_seconds - spent).max(2.min(stop.grace_seconds));
    match ctx.runtime.stop_container(&stop.id, left).await {
        Ok(()) => Ok(String::new()),
        Err(error) if error.is_not_found() => Ok(String::new()),
        Err(error) => Err(Failure::of("KillContainerError", error.to_string())),
    }
}

pub async fn stop_sandbox(ctx: &Context, id: &str) -> Result<String, Failure> {
    match ctx.runtime.stop_pod_sandbox(PodSandboxIdRequest { pod_sandbox_id: id.into() }).await {
        Ok(_) => Ok(String::new()),
        Err(error) if error.is_not_found() => Ok(String::new()),
        Err(error) => Err(Failure::of("KillPodSandboxError", error.to_string())),
    }
}

pub async fn collect(ctx: &Context, pod: &Pod, observed: &Observed, id: &str) -> Result<String, Failure> {
    let name = observed.containers.iter().find(|one| one.id == id).map(|one| (one.name.clone(), one.attempt));
    let result = ctx.runtime.remove_container(ContainerIdRequest { container_id: id.into() }).await;
    if let Err(error) = result
        && !error.is_not_found()
    {
        return Err(Failure::of("RemoveContainerError", error.to_string()));
    }
    if let Some((name, attempt)) = name {
        let _ = std::fs::remove_file(link_path(ctx, &pod.metadata.name, &pod.metadata.namespace, &name, id));
        crate::log_files::remove(&sandbox::log_dir(&ctx.settings, pod).join(&name), attempt);
    }
    Ok(String::new())
}

pub async fn probe(ctx: &Context, pod: &Pod, name: &str, id: &str, kind: ProbeKind) -> Outcome {
    let Some(container) = pods::spec::find(&pod.spec, name) else {
        return Outcome::Error("no such container".into());
    };
    match pods::probes::spec(&container, kind) {
        Some(probe) => probing::run(ctx, pod, &container, id, probe).await,
        None => Outcome::Success,
    }
}

/// Unmounts volumes and removes the pod's control group, once it is empty.
pub async fn cleanup(ctx: &Context, pod: &Pod) -> Result<String, Failure> {
    let group = sandbox::cgroup(&ctx.settings, pod);
    for _ in 0..CGROUP_LOOKS {
        if cgroups::pids(&group).is_empty() {
            break;
        }
        tokio::time::sleep(CGROUP_LOOK).await;
    }
    cgroups::remove(&group);
    volumes::release(ctx, &pod.metadata.uid).await.map_err(|words| Failure::of("FailedUnmount", words))?;
    Ok(String::new())
}

/// Deletes the API's object: nothing of the pod runs any more.
pub async fn delete(ctx: &Context, pod: &Pod) -> Result<String, Failure> {
    if crate::static_pods::is_static(pod) {
        return Ok(String::new());
    }
    let options = client::DeleteOptions {
        grace_seconds: Some(0),
        ..client::DeleteOptions::of_uid(pod.metadata.uid.clone())
    };
    match ctx.client.delete::<Pod>(&view::key_of(pod), &options).await {
        Ok(_) => Ok(String::new()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(String::new()),
        Err(error) => Err(Failure::of("FailedDelete", error.chain())),
    }
}

/// Removes what the runtime and the disk still have of a pod.
pub async fn finish(ctx: &Context, uid: &str) {
    let Ok(observed) = observe::pod(ctx, uid).await else { return };
    for container in &observed.containers {
        let _ = ctx.runtime.remove_container(ContainerIdRequest { container_id: container.id.clone() }).await;
        remove_links(ctx, &container.id);
    }
    for sandbox in &observed.sandboxes {
        let request = || PodSandboxIdRequest { pod_sandbox_id: sandbox.id.clone() };
        let _ = ctx.runtime.stop_pod_sandbox(request()).await;
        if let Err(error) = ctx.runtime.remove_pod_sandbox(request()).await {
            tracing::warn!(sandbox = sandbox.id, %error, "Failed to remove a pod sandbox");
        }
    }
    // A driver may not have registered yet since this process began.
    for attempt in 1..=RELEASES_MAX {
        match volumes::release(ctx, uid).await {
            Ok(()) => break,
            Err(words) => tracing::warn!(uid, attempt, words, "Failed to unmount a pod's volumes"),
        }
        if attempt == RELEASES_MAX {
            return;
        }
        tokio::time::sleep(RELEASE_AGAIN).await;
    }
    let _ = std::fs::remove_dir_all(ctx.settings.pod_dir(uid));
    remove_log_dir(ctx, uid);
}

fn remove_links(ctx: &Context, id: &str) {
    let suffix = format!("-{id}.log");
    for entry in std::fs::read_dir(&ctx.settings.container_logs_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(&suffix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn remove_log_dir(ctx: &Context, uid: &str) {
    let suffix = format!("_{uid}");
    for entry in std::fs::read_dir(&ctx.settings.pod_logs_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(&suffix) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The pod with the status that its machine knows: what downward references, hooks and probes read.
pub fn with_status(pod: &Arc<Pod>, status: &PodStatus) -> Arc<Pod> {
    let mut pod = Pod::clone(pod);
    pod.status = status.clone();
    Arc::new(pod)
}
