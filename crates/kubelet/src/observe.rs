//! What the runtime has of one pod, read back from its labels and annotations: nothing else remembers it.

use crate::Context;
use container_runtime::Error;
use container_runtime::cri::messages::*;
use pods::{Container, Observed, Sandbox, State};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Labels and annotations, upstream's names: they are how a restarted kubelet finds its pods again.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// A termination message is at most this long, from a file as from the log's end.
const MESSAGE_BYTES_MAX: usize = 4096;
/// How much of a log serves as a message, at most.
const LOG_LINES_MAX: usize = 80;
const LOG_BYTES_MAX: usize = 2048;

/// Looks at everything that the runtime has of a pod.
pub async fn pod(ctx: &Context, uid: &str) -> Result<Observed, Error> {
    let selector = BTreeMap::from([(POD_UID.to_string(), uid.to_string())]);
    let filter = PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
    let sandboxes = ctx.runtime.list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await?.items;
    let filter = ContainerFilter { label_selector: selector, ..Default::default() };
    let containers =
        ctx.runtime.list_containers(ListContainersRequest { filter: Some(filter) }).await?.containers;
    let mut observed = Observed::default();
    for one in sandboxes {
        let request = PodSandboxStatusRequest { pod_sandbox_id: one.id.clone(), verbose: false };
        match ctx.runtime.pod_sandbox_status(request).await {
            Ok(answer) => observed.sandboxes.extend(answer.status.map(sandbox)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    for one in containers {
        let request = ContainerStatusRequest { container_id: one.id.clone(), verbose: false };
        match ctx.runtime.container_status(request).await {
            Ok(answer) => {
                observed.containers.extend(answer.status.map(|status| container(status, one.pod_sandbox_id)));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    observed.sort();
    Ok(observed)
}

/// The uids of all pods that the runtime has something of.
pub async fn uids(ctx: &Context) -> Result<BTreeSet<String>, Error> {
    let sandboxes = ctx.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await?.items;
    let containers = ctx.runtime.list_containers(ListContainersRequest::default()).await?.containers;
    let labels = sandboxes.iter().map(|one| &one.labels).chain(containers.iter().map(|one| &one.labels));
    Ok(labels.filter_map(|labels| labels.get(POD_UID).cloned()).collect())
}

fn sandbox(status: PodSandboxStatus) -> Sandbox {
    let mut ips = vec![];
    if let Some(network) = status.network {
        ips.extend(Some(network.ip).filter(|ip| !ip.is_empty()));
        ips.extend(network.additional_ips.into_iter().map(|one| one.ip));
    }
    Sandbox {
        id: status.id,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        created_at: millis(status.created_at),
        ready: status.state == sandbox_state::READY,
        ips,
    }
}

fn millis(nanoseconds: i64) -> i64 {
    nanoseconds / 1_000_000
}

fn container(status: ContainerStatus, sandbox_id: String) -> Container {
    let attempt = status.annotations.get(RESTART_COUNT).and_then(|count| count.parse().ok());
    let metadata = status.metadata.clone().unwrap_or_default();
    let state = match status.state {
        container_state::CREATED => State::Created,
        container_state::RUNNING => State::Running,
        container_state::EXITED => State::Exited,
        _ => State::Unknown,
    };
    let message = if state == State::Exited { termination_message(&status) } else { String::new() };
    Container {
        id: status.id,
        sandbox_id,
        name: status.labels.get(CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: attempt.unwrap_or(metadata.attempt),
        hash: status.annotations.get(HASH).cloned().unwrap_or_default(),
        state,
        created_at: millis(status.created_at),
        started_at: millis(status.started_at),
        finished_at: millis(status.finished_at),
        exit_code: status.exit_code,
        reason: if status.reason == "StartError" { "ContainerCannotRun".into() } else { status.reason },
        message,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_id: status.image_ref,
    }
}

/// What an ended container left to say: its message file, else (by policy, after a failure) its log's end.
fn termination_message(status: &ContainerStatus) -> String {
    let path = status.annotations.get(MESSAGE_PATH).map(String::as_str).unwrap_or_default();
    let mount = status.mounts.iter().find(|mount| !path.is_empty() && mount.container_path == path);
    let file =
        mount.map(|mount| read_tail(Path::new(&mount.host_path), MESSAGE_BYTES_MAX)).unwrap_or_default();
    if !file.is_empty() {
        return file;
    }
    let from_log =
        status.annotations.get(MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    if from_log && status.exit_code != 0 {
        let log = crate::log_files::tail_text(Path::new(&status.log_path), LOG_LINES_MAX, LOG_BYTES_MAX);
        if !log.is_empty() {
            return log;
        }
    }
    status.message.clone()
}

fn read_tail(path: &Path, limit: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit as u64)))?;
        let mut bytes = vec![];
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
