//! Looks at what the node has left, tells its conditions, and ends pods when it runs out. Who goes is decided in `pods`.

use crate::worker::Message;
use crate::{Context, events, image_gc, sandbox, worker};
use api::core::v1::Pod;
use container_runtime::cgroups;
use pods::eviction::{
    Candidate, Condition, Eviction, IMMEDIATE_GRACE_SECONDS, Monitor, Observation, Observations, REASON,
    Signal, Use, is_critical,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks; upstream's. The kernel gives no notice of most of these.
const LOOK: Duration = Duration::from_secs(10);
/// After a pod was ended, the next look waits until it is gone, at most so long; upstream's.
const GONE_MAX: Duration = Duration::from_secs(30);
const GONE_LOOK: Duration = Duration::from_millis(500);
/// Files of one pod that are counted; beyond that its disk is taken as it is so far.
const FILES_MAX: usize = 100_000;

/// Looks until cancelled.
pub async fn keep(ctx: &Context) {
    let settings = &ctx.settings;
    let mut monitor = Monitor::new(
        settings.eviction.thresholds.clone(),
        settings.eviction.transition_seconds,
        settings.eviction.max_pod_grace_seconds,
    );
    loop {
        look(ctx, &mut monitor).await;
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(ctx: &Context, monitor: &mut Monitor) {
    if let Some((pod, message)) = over_limit(ctx) {
        end(ctx, &pod, &message, IMMEDIATE_GRACE_SECONDS).await;
        return;
    }
    let seen = observations(ctx);
    let now = worker::now();
    // Pods are asked what they use only when something is short.
    let at_ease = monitor.look(now, &seen, &[], false);
    ctx.set_pressure(at_ease.conditions.clone());
    if at_ease.conditions.is_empty() {
        return;
    }
    let candidates = candidates(ctx);
    let mut verdict = monitor.look(now, &seen, &candidates, false);
    if verdict.reclaim_disk {
        image_gc::free_all(ctx).await;
        verdict = monitor.look(worker::now(), &observations(ctx), &candidates, true);
    }
    let Some(Eviction { uid, message, grace_seconds }) = verdict.evict else { return };
    if let Some(one) = candidates.iter().find(|one| one.pod.metadata.uid == uid) {
        end(ctx, &one.pod, &message, grace_seconds).await;
    }
}

/// Ends one pod, and waits until it is gone: the next look must not count it.
async fn end(ctx: &Context, pod: &Arc<Pod>, message: &str, grace_seconds: i64) {
    let uid = &pod.metadata.uid;
    let Some(handle) = ctx.handle(uid) else { return };
    tracing::warn!(pod = %pods::spec::describe(pod), message, "Evicted pod");
    events::record(ctx, pod, None, true, REASON, message);
    handle.send(Message::Evict { reason: REASON.into(), message: message.into(), grace_seconds }).await;
    let gone = async {
        while ctx.handle(uid).is_some() {
            tokio::time::sleep(GONE_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(GONE_MAX, gone).await;
}

/// What the node has of everything that it can run out of.
fn observations(ctx: &Context) -> Observations {
    let mut seen = Observations::new();
    seen.insert(
        Signal::MemoryAvailable,
        Observation { available: crate::node_info::memory_available(), capacity: ctx.machine.memory_bytes },
    );
    let disks = [
        (&ctx.settings.root_dir, Signal::NodefsAvailable, Signal::NodefsInodesFree),
        (&ctx.settings.data_dir, Signal::ImagefsAvailable, Signal::ImagefsInodesFree),
    ];
    for (path, bytes, inodes) in disks {
        let Ok(stat) = nix::sys::statvfs::statvfs(path.as_path()) else { continue };
        let unit = stat.fragment_size() as i64;
        let of = |available: i64, capacity: i64| Observation { available, capacity };
        seen.insert(bytes, of(stat.blocks_available() as i64 * unit, stat.blocks() as i64 * unit));
        // File systems without a fixed number of inodes state none.
        if stat.files() > 0 {
            seen.insert(inodes, of(stat.files_available() as i64, stat.files() as i64));
        }
    }
    if let Some(processes) = processes() {
        seen.insert(Signal::PidAvailable, processes);
    }
    seen
}

/// Processes and threads that the machine may still have.
fn processes() -> Option<Observation> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let capacity = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    let running: i64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Observation { available: capacity - running, capacity })
}

/// The pods that run, with what their groups say. Disks are counted only when one is short.
fn candidates(ctx: &Context) -> Vec<Candidate> {
    let short = ctx.pressure().contains(&Condition::Disk);
    let running = ctx.pods().into_iter().filter(|pod| {
        let fresh = ctx.views.view().get::<Pod>(&view::key_of(&**pod));
        let phase = &fresh.as_ref().unwrap_or(pod).status.phase;
        pod.metadata.deletion_timestamp.is_none() && !matches!(phase.as_str(), "Succeeded" | "Failed")
    });
    running
        .map(|pod| {
            let group = sandbox::cgroup(&ctx.settings, &pod);
            let whole = cgroups::usage(&group);
            let mut used = Use {
                memory_bytes: whole.working_set_bytes as i64,
                processes: whole.processes as i64,
                ..Use::default()
            };
            for (name, id) in ctx.containers_of(&pod.metadata.uid) {
                let own = cgroups::usage(&format!("{group}/{id}"));
                used.containers.insert(name, own.working_set_bytes as i64);
            }
            if short {
                let (bytes, files) = disk_of(ctx, &pod);
                (used.disk_bytes, used.inodes) = (bytes, files);
            }
            Candidate { pod, used }
        })
        .collect()
}

/// Bytes and files of a pod's own folders and logs.
fn disk_of(ctx: &Context, pod: &Pod) -> (i64, i64) {
    let mut total = (0, 0);
    let mut left = FILES_MAX;
    let volumes = ctx.settings.pod_dir(&pod.metadata.uid).join("volumes/kubernetes.io~empty-dir");
    for folder in [volumes, sandbox::log_dir(&ctx.settings, pod)] {
        let (bytes, files) = size(&folder, &mut left);
        total = (total.0 + bytes, total.1 + files);
    }
    total
}

/// Bytes on disk and files below a folder, links not followed.
fn size(folder: &Path, left: &mut usize) -> (i64, i64) {
    use std::os::unix::fs::MetadataExt;
    let mut total = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let Ok(meta) = entry.metadata() else { continue };
        let within = if meta.is_dir() { size(&entry.path(), left) } else { (0, 0) };
        total = (total.0 + within.0 + meta.blocks() as i64 * 512, total.1 + within.1 + 1);
    }
    total
}

/// A pod that uses more disk than it may: an emptyDir beyond its size, or all of them and its logs beyond its limit.
fn over_limit(ctx: &Context) -> Option<(Arc<Pod>, String)> {
    ctx.pods().into_iter().filter(|pod| !is_critical(pod)).find_map(|pod| {
        let folder = ctx.settings.pod_dir(&pod.metadata.uid).join("volumes/kubernetes.io~empty-dir");
        for volume in &pod.spec.volumes {
            let Some(empty) = &volume.volume_source.empty_dir else { continue };
            let Some(limit) = empty.size_limit.filter(|limit| empty.medium.is_empty() && limit.value() > 0)
            else {
                continue;
            };
            if size(&folder.join(&volume.name), &mut FILES_MAX.clone()).0 > limit.value() {
                let message =
                    format!("Usage of EmptyDir volume {:?} exceeds the limit \"{limit}\". ", volume.name);
                return Some((pod, message));
            }
        }
        let limit = pods::resources::pod_limits(&pod.spec).get("ephemeral-storage").copied()?;
        (disk_of(ctx, &pod).0 > limit.value()).then(|| {
            let message =
                format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
            (pod, message)
        })
    })
}
