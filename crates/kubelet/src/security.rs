//! Security contexts of pods and containers as the runtime takes them; a container's word outranks its pod's.

use api::core::v1::{Container, Pod, SeccompProfile};
use container_runtime::cri::messages::*;
use std::collections::BTreeMap;
use std::path::Path;

/// What an unprivileged container may not see, and not write; the runtimes' usual lists.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let list = pod.spec.security_context.iter().flat_map(|context| &context.sysctls);
    list.map(|one| (one.name.clone(), one.value.clone())).collect()
}

fn mode(host: bool) -> i32 {
    if host { namespace_mode::NODE } else { namespace_mode::POD }
}

/// Which namespaces are shared with the node, the pod, or another container (`target`, by id).
fn namespaces(pod: &Pod, target: Option<&str>) -> NamespaceOption {
    let spec = &pod.spec;
    let pid = if spec.host_pid {
        namespace_mode::NODE
    } else if target.is_some() {
        namespace_mode::TARGET
    } else if spec.share_process_namespace == Some(true) {
        namespace_mode::POD
    } else {
        namespace_mode::CONTAINER
    };
    NamespaceOption {
        network: mode(spec.host_network),
        pid,
        ipc: mode(spec.host_ipc),
        target_id: target.unwrap_or_default().into(),
        userns_options: None,
    }
}

pub fn of_sandbox(pod: &Pod) -> LinuxSandboxSecurityContext {
    let context = pod.spec.security_context.as_deref();
    let privileged = pod.spec.containers.iter().chain(&pod.spec.init_containers).any(is_privileged);
    let value = |value: Option<i64>| value.map(|value| Int64Value { value });
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        run_as_user: value(context.and_then(|one| one.run_as_user)),
        // The runtime takes a group with a user only.
        run_as_group: value(context.filter(|one| one.run_as_user.is_some()).and_then(|one| one.run_as_group)),
        supplemental_groups: groups(pod),
        privileged,
        seccomp: Some(SecurityProfile {
            profile_type: profile::RUNTIME_DEFAULT,
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true))
}

/// Supplementary groups: those asked for, and the owner of the volumes.
fn groups(pod: &Pod) -> Vec<i64> {
    let context = pod.spec.security_context.iter();
    context.flat_map(|one| one.supplemental_groups.iter().copied().chain(one.fs_group)).collect()
}

/// The user that a container runs as, where the specification says.
pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
    own.or(pod.spec.security_context.as_ref().and_then(|context| context.run_as_user))
}

/// Refuses a container that must not run as root but would. `image` is the image's user: a number, or a name.
pub fn check_non_root(pod: &Pod, container: &Container, uid: Option<i64>, name: &str) -> Result<(), String> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    let pods = pod.spec.security_context.as_ref().and_then(|context| context.run_as_non_root);
    if own.or(pods) != Some(true) {
        return Ok(());
    }
    let about = format!("(pod: \"{}\", container: {})", pods::spec::describe(pod), container.name);
    match run_as_user(pod, container) {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {about}")),
        Some(_) => Ok(()),
        None if uid == Some(0) || (uid.is_none() && name.is_empty()) => {
            Err(format!("container has runAsNonRoot and image will run as root {about}"))
        }
        None if uid.is_none() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {about}"
        )),
        None => Ok(()),
    }
}

fn seccomp(chosen: Option<&SeccompProfile>, by_default: bool, root: &Path) -> SecurityProfile {
    let of = |profile_type| SecurityProfile { profile_type, localhost_ref: String::new() };
    match chosen.map(|one| one.r#type.as_str()) {
        Some("RuntimeDefault") => of(profile::RUNTIME_DEFAULT),
        Some("Localhost") => {
            let file = chosen.and_then(|one| one.localhost_profile.as_deref()).unwrap_or_default();
            let path = root.join("seccomp").join(file);
            SecurityProfile { profile_type: profile::LOCALHOST, localhost_ref: path.to_string_lossy().into() }
        }
        None if by_default => of(profile::RUNTIME_DEFAULT),
        _ => of(profile::UNCONFINED),
    }
}

/// How a container is confined. `target` is the id of the container whose processes it shares.
pub fn of_container(
    settings: &crate::Settings,
    pod: &Pod,
    container: &Container,
    target: Option<&str>,
) -> LinuxContainerSecurityContext {
    let own = container.security_context.as_deref();
    let pods = pod.spec.security_context.as_deref();
    let privileged = is_privileged(container);
    let profile = own
        .and_then(|one| one.seccomp_profile.as_deref())
        .or(pods.and_then(|one| one.seccomp_profile.as_deref()));
    let seccomp = if privileged {
        SecurityProfile { profile_type: profile::UNCONFINED, localhost_ref: String::new() }
    } else {
        seccomp(profile, settings.seccomp_default, &settings.root_dir)
    };
    let user = run_as_user(pod, container);
    let group = own.and_then(|one| one.run_as_group).or(pods.and_then(|one| one.run_as_group));
    let unmasked = own.and_then(|one| one.proc_mount.as_deref()) == Some("Unmasked") || privileged;
    let texts =
        |list: &[&str]| if unmasked { vec![] } else { list.iter().map(ToString::to_string).collect() };
    LinuxContainerSecurityContext {
        capabilities: own.and_then(|one| one.capabilities.as_deref()).map(|one| Capability {
            add_capabilities: one.add.clone(),
            drop_capabilities: one.drop.clone(),
            add_ambient_capabilities: vec![],
        }),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        run_as_user: user.map(|value| Int64Value { value }),
        run_as_group: group.map(|value| Int64Value { value }),
        readonly_rootfs: own.and_then(|one| one.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: groups(pod),
        no_new_privs: own.and_then(|one| one.allow_privilege_escalation) == Some(false),
        masked_paths: texts(MASKED),
        readonly_paths: texts(READ_ONLY),
        seccomp: Some(seccomp),
        ..Default::default()
    }
}
