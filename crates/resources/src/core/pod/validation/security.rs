//! As whom and with which powers a pod runs.

use super::{Context, choice, volumes};
use api::core::v1::{AppArmorProfile, Container, PodSpec, SeccompProfile, Sysctl};
use meta::field::{Errors, Json, Path};
use meta::validation;
use std::collections::BTreeMap;

const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const PROFILE_MAX_BYTES: usize = 4095;
const SYSCTL_MAX_BYTES: usize = 253;
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// The annotation that came before the profile's own field.
pub(super) fn profile_annotations(
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    path: &Path,
    errors: &mut Errors,
) {
    for (key, profile) in annotations {
        let Some(name) = key.strip_prefix(APP_ARMOR_PREFIX) else { continue };
        let known =
            spec.containers.iter().chain(&spec.init_containers).any(|container| container.name == name)
                || spec
                    .ephemeral_containers
                    .iter()
                    .any(|container| container.ephemeral_container_common.name == name);
        if !known {
            errors.invalid(&path.key(key), name, "container not found");
        }
        let good = matches!(profile.as_str(), "" | "runtime/default" | "unconfined")
            || profile.starts_with("localhost/");
        if !good {
            errors.invalid(&path.key(key), profile, format!("invalid AppArmor profile name: {profile:?}"));
        }
    }
}

pub(super) fn pod(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if spec.share_process_namespace == Some(true) && spec.host_pid {
        let field = path.child("securityContext").child("shareProcessNamespace");
        errors.invalid(&field, true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    let Some(context) = &spec.security_context else { return };
    let path = path.child("securityContext");
    for (id, field) in [
        (context.fs_group, "fsGroup"),
        (context.run_as_user, "runAsUser"),
        (context.run_as_group, "runAsGroup"),
    ] {
        if let Some(id) = id {
            errors.invalid_each(&path.child(field), id, validation::user_id(id));
        }
    }
    for (index, group) in context.supplemental_groups.iter().enumerate() {
        let field = path.child("supplementalGroups").index(index);
        errors.invalid_each(&field, *group, validation::user_id(*group));
    }
    sysctls(&context.sysctls, spec, &path.child("sysctls"), errors);
    for (policy, allowed, field) in [
        (&context.fs_group_change_policy, ["Always", "OnRootMismatch"], "fsGroupChangePolicy"),
        (&context.supplemental_groups_policy, ["Merge", "Strict"], "supplementalGroupsPolicy"),
        (&context.se_linux_change_policy, ["MountOption", "Recursive"], "seLinuxChangePolicy"),
    ] {
        if let Some(policy) = policy {
            choice(policy, &allowed, &path.child(field), errors);
        }
    }
    seccomp(context.seccomp_profile.as_deref(), &path.child("seccompProfile"), errors);
    app_armor(context.app_armor_profile.as_deref(), &path.child("appArmorProfile"), errors);
}

pub(super) fn container(container: &Container, host_users: bool, path: &Path, errors: &mut Errors) {
    let Some(context) = &container.security_context else { return };
    for (id, field) in [(context.run_as_user, "runAsUser"), (context.run_as_group, "runAsGroup")] {
        if let Some(id) = id {
            errors.invalid_each(&path.child(field), id, validation::user_id(id));
        }
    }
    if let Some(mount) = &context.proc_mount {
        let field = path.child("procMount");
        if !matches!(mount.as_str(), "Default" | "Unmasked") {
            errors.not_supported(&field, mount, &["Default", "Unmasked"]);
        }
        if host_users && mount == "Unmasked" {
            errors.invalid(&field, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(context.seccomp_profile.as_deref(), &path.child("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        let shown = || Json(context.as_ref());
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, shown(), detail);
        }
        let added = context.capabilities.iter().flat_map(|capabilities| &capabilities.add);
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, shown(), detail);
        }
    }
    app_armor(context.app_armor_profile.as_deref(), &path.child("appArmorProfile"), errors);
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    match profile.r#type.as_str() {
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        kind if !PROFILE_TYPES.contains(&kind) => {
            errors.not_supported(&path.child("type"), kind, PROFILE_TYPES);
        }
        _ => {}
    }
    let field = path.child("localhostProfile");
    match (profile.r#type == "Localhost", &profile.localhost_profile) {
        (true, None) => errors.required(&field, "must be set when seccomp type is Localhost"),
        (true, Some(local)) => volumes::descending(local, &field, errors),
        (false, Some(_)) => {
            errors.invalid(&field, Json(profile), "can only be set when seccomp type is Localhost");
        }
        (false, None) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let field = path.child("localhostProfile");
    let local = profile.localhost_profile.as_deref();
    match profile.r#type.as_str() {
        "Localhost" => match local {
            None => errors.required(&field, "must be set when AppArmor type is Localhost"),
            Some(local) => {
                if local.trim() != local {
                    errors.invalid(&field, local, "must not be padded with whitespace");
                } else if local.is_empty() {
                    errors.required(&field, "must be set when AppArmor type is Localhost");
                }
                if local.len() > PROFILE_MAX_BYTES {
                    errors.too_long(&field, PROFILE_MAX_BYTES);
                }
            }
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(local) = local {
                errors.invalid(&field, local, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        other => errors.not_supported(&path.child("type"), other, PROFILE_TYPES),
    }
}

/// Parts of lower case letters, digits, `-` and `_`, joined by dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= SYSCTL_MAX_BYTES
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            bytes.iter().all(|byte| inner(*byte) || matches!(byte, b'-' | b'_'))
                && bytes.first().is_some_and(|byte| inner(*byte))
                && bytes.last().is_some_and(|byte| inner(*byte))
        })
}

fn sysctls(sysctls: &[Sysctl], spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index).child("name");
        if sysctl.name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !is_sysctl(&sysctl.name) {
            let detail = format!(
                "must have at most {SYSCTL_MAX_BYTES} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.invalid(&path, &sysctl.name, detail);
        }
        let dotted = sysctl.name.replace('/', ".");
        if sysctls[..index].iter().any(|other| other.name.replace('/', ".") == dotted) {
            errors.duplicate(&path, &sysctl.name);
        }
        if spec.host_network && dotted.starts_with("net.") {
            errors.invalid(&path, &sysctl.name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted == "kernel.sem"
            || dotted.starts_with("fs.mqueue.");
        if spec.host_ipc && ipc {
            errors.invalid(&path, &sysctl.name, "may not be specified when 'hostIPC' is true");
        }
    }
}

/// Users of a pod's own do not go together with other things of the node.
pub(super) fn host_users(context: &Context<'_>, path: &Path, errors: &mut Errors) {
    if context.host_users {
        return;
    }
    let spec = context.spec;
    for (shared, field) in
        [(spec.host_network, "hostNetwork"), (spec.host_pid, "HostPID"), (spec.host_ipc, "HostIPC")]
    {
        if shared {
            errors.forbidden(&path.child(field), "when `hostUsers` is false");
        }
    }
    for (list, field) in [(&spec.init_containers, "initContainers"), (&spec.containers, "containers")] {
        for (index, container) in list.iter().enumerate() {
            if !container.volume_devices.is_empty() {
                let field = path.child(field).index(index).child("volumeDevices");
                errors.forbidden(&field, "when `hostUsers` is false");
            }
        }
    }
}

/// A stated operating system rules out what only the other one has.
pub(super) fn operating_system(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(os) = &spec.os else { return };
    let name = path.child("os").child("name");
    match os.name.as_str() {
        "" => errors.required(&name, "cannot be empty"),
        "windows" => windows(spec, path, errors),
        "linux" => {
            let options = |context: bool, path: Path, errors: &mut Errors| {
                if context {
                    let detail = "windows options cannot be set for a linux pod";
                    errors.forbidden(&path.child("securityContext").child("windowsOptions"), detail);
                }
            };
            let own = spec.security_context.as_ref().is_some_and(|it| it.windows_options.is_some());
            options(own, path.clone(), errors);
            for (index, container) in spec.containers.iter().enumerate() {
                let own = container.security_context.as_ref().is_some_and(|it| it.windows_options.is_some());
                options(own, path.child("containers").index(index), errors);
            }
        }
        other => errors.not_supported(&name, other, &["linux", "windows"]),
    }
}

fn windows(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut forbid = |set: bool, path: Path| {
        if set {
            errors.forbidden(&path, "cannot be set for a windows pod");
        }
    };
    forbid(spec.host_pid, path.child("hostPID"));
    forbid(spec.host_ipc, path.child("hostIPC"));
    forbid(spec.share_process_namespace.is_some(), path.child("shareProcessNamespace"));
    if let Some(context) = &spec.security_context {
        let path = path.child("securityContext");
        forbid(context.app_armor_profile.is_some(), path.child("appArmorProfile"));
        forbid(context.se_linux_options.is_some(), path.child("seLinuxOptions"));
        forbid(context.seccomp_profile.is_some(), path.child("seccompProfile"));
        forbid(context.fs_group.is_some(), path.child("fsGroup"));
        forbid(context.fs_group_change_policy.is_some(), path.child("fsGroupChangePolicy"));
        forbid(!context.sysctls.is_empty(), path.child("sysctls"));
        forbid(context.run_as_user.is_some(), path.child("runAsUser"));
        forbid(context.run_as_group.is_some(), path.child("runAsGroup"));
        forbid(!context.supplemental_groups.is_empty(), path.child("supplementalGroups"));
        forbid(context.supplemental_groups_policy.is_some(), path.child("supplementalGroupsPolicy"));
        forbid(context.se_linux_change_policy.is_some(), path.child("seLinuxChangePolicy"));
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let Some(context) = &container.security_context else { continue };
        let path = path.child("containers").index(index).child("securityContext");
        forbid(context.capabilities.is_some(), path.child("capabilities"));
        forbid(context.read_only_root_filesystem.is_some(), path.child("readOnlyRootFilesystem"));
        forbid(context.privileged.is_some(), path.child("privileged"));
        forbid(context.allow_privilege_escalation.is_some(), path.child("allowPrivilegeEscalation"));
        forbid(context.proc_mount.is_some(), path.child("procMount"));
        forbid(context.run_as_user.is_some(), path.child("runAsUser"));
        forbid(context.run_as_group.is_some(), path.child("runAsGroup"));
    }
}
