//! What the runtime is told of a container: command, variables, mounts, resources, security, labels.

use crate::observe::*;
use crate::{Context, environment, images, sandbox, security, volumes};
use api::core::v1::{Container, Pod};
use container_runtime::cgroups;
use container_runtime::cri::messages::*;
use meta::Quantity;
use pods::{Failure, resources};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a container cannot be configured; the API's reason for it.
pub const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// Everything for `CreateContainer`. `pod` carries the status that downward references read.
pub async fn config(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image_id: &str,
    target: Option<&str>,
) -> Result<ContainerConfig, Failure> {
    let fault = |message: String| Failure::of(CONFIG_ERROR, message);
    let known = images::find(ctx, image_id)
        .await
        .map_err(|error| Failure::of("ImageInspectError", error.to_string()))?;
    if let Some(known) = &known {
        security::check_non_root(pod, container, known.uid, &known.username).map_err(fault)?;
    }
    let variables = environment::variables(ctx, pod, container).await.map_err(fault)?;
    let mut mounts = volumes::mounts(ctx, pod, container, &variables).map_err(fault)?;
    mounts.extend(own_mounts(ctx, pod, container, attempt).map_err(|error| fault(error.to_string()))?);
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(ImageSpec {
            image: image_id.into(),
            user_specified_image: container.image.clone(),
            ..Default::default()
        }),
        command: environment::expand_all(&container.command, &variables),
        args: environment::expand_all(&container.args, &variables),
        working_dir: container.working_dir.clone(),
        envs: variables.into_iter().map(|(key, value)| KeyValue { key, value: value.into_bytes() }).collect(),
        mounts,
        devices: volumes::devices(ctx, pod, container).map_err(fault)?,
        labels: labels(pod, container),
        annotations: annotations(pod, container, attempt),
        log_path: format!("{}/{attempt}.log", container.name),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(LinuxContainerConfig {
            resources: Some(linux_resources(ctx, pod, container)),
            security_context: Some(security::of_container(&ctx.settings, pod, container, target)),
        }),
        stop_signal: 0,
    })
}

fn labels(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    let meta = &pod.metadata;
    BTreeMap::from([
        (POD_NAME.into(), meta.name.clone()),
        (POD_NAMESPACE.into(), meta.namespace.clone()),
        (POD_UID.into(), meta.uid.clone()),
        (CONTAINER_NAME.into(), container.name.clone()),
    ])
}

fn annotations(pod: &Pod, container: &Container, attempt: u32) -> BTreeMap<String, String> {
    let policy = match container.termination_message_policy.as_str() {
        "" => "File",
        policy => policy,
    };
    let mut map = BTreeMap::from([
        (HASH.into(), pods::spec::hash(container)),
        (RESTART_COUNT.into(), attempt.to_string()),
        (MESSAGE_PATH.into(), message_path(container).into()),
        (MESSAGE_POLICY.into(), policy.into()),
    ]);
    if let Some(seconds) = pod.spec.termination_grace_period_seconds {
        map.insert(POD_GRACE.into(), seconds.to_string());
    }
    map
}

fn message_path(container: &Container) -> &str {
    match container.termination_message_path.as_str() {
        "" => "/dev/termination-log",
        path => path,
    }
}

pub fn linux_resources(ctx: &Context, pod: &Pod, container: &Container) -> LinuxContainerResources {
    let own = &container.resources;
    let milli = |amount: Option<&Quantity>| amount.map_or(0, Quantity::milli_value);
    let asked = own.requests.get("cpu").or_else(|| own.limits.get("cpu"));
    let memory = own.limits.get("memory").map_or(0, Quantity::value);
    LinuxContainerResources {
        cpu_period: resources::CPU_PERIOD,
        cpu_quota: resources::cpu_quota(milli(own.limits.get("cpu"))),
        cpu_shares: resources::cpu_shares(milli(asked)),
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: if cgroups::bounds_swap(&ctx.settings.kubepods()) { memory } else { 0 },
        oom_score_adj: resources::oom_score_adj(pod, container, ctx.machine.memory_bytes),
        ..Default::default()
    }
}

/// The mounts that every container has: the hosts file and the place of its last words.
fn own_mounts(ctx: &Context, pod: &Pod, container: &Container, attempt: u32) -> std::io::Result<Vec<Mount>> {
    let mut mounts = vec![];
    let taken = |path: &str| {
        container.volume_mounts.iter().any(|mount| mount.mount_path.trim_end_matches('/') == path)
    };
    if !taken("/etc/hosts") {
        let host_path = write_hosts(ctx, pod)?;
        mounts.push(bind("/etc/hosts", &host_path));
    }
    let folder = ctx.settings.pod_dir(&pod.metadata.uid).join("containers").join(&container.name);
    std::fs::create_dir_all(&folder)?;
    let path = message_path(container);
    if !taken(path) {
        let file = folder.join(attempt.to_string());
        std::fs::write(&file, b"")?;
        // Whatever user the container runs as may leave a message.
        set_mode(&file, 0o666)?;
        mounts.push(bind(path, &file));
    }
    Ok(mounts)
}

fn bind(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.into(),
        host_path: host_path.to_string_lossy().into(),
        ..Default::default()
    }
}

pub fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// The pod's hosts file: the node's own for pods on its network.
fn write_hosts(ctx: &Context, pod: &Pod) -> std::io::Result<PathBuf> {
    let path = ctx.settings.pod_dir(&pod.metadata.uid).join("etc-hosts");
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut text = if pod.spec.host_network {
        let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        format!("# Kubernetes-managed hosts file (host network).\n{own}")
    } else {
        hosts(ctx, pod)
    };
    if !pod.spec.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.join("\t")));
        }
    }
    std::fs::write(&path, text)?;
    set_mode(&path, 0o644)?;
    Ok(path)
}

fn hosts(ctx: &Context, pod: &Pod) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let hostname = sandbox::hostname(pod);
    for ip in &pod.status.pod_ips {
        match sandbox::domain_name(&ctx.settings, pod) {
            Some(full) => text.push_str(&format!("{}\t{full}\t{hostname}\n", ip.ip)),
            None => text.push_str(&format!("{}\t{hostname}\n", ip.ip)),
        }
    }
    text
}
