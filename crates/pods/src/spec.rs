//! Questions about a pod's specification that several rules ask.

use api::core::v1::{Container, Pod, PodSpec};

/// An init container that keeps running: a sidecar.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The container of this name, of whatever kind; ephemeral ones in the shape of a plain one.
pub fn find(spec: &PodSpec, name: &str) -> Option<Container> {
    let plain = spec.init_containers.iter().chain(&spec.containers).find(|container| container.name == name);
    plain.cloned().or_else(|| {
        let ephemeral = spec.ephemeral_containers.iter();
        ephemeral.map(|one| &one.ephemeral_container_common).find(|common| common.name == name).map(plain_of)
    })
}

fn plain_of(common: &api::core::v1::EphemeralContainerCommon) -> Container {
    let common = common.clone();
    Container {
        name: common.name,
        image: common.image,
        command: common.command,
        args: common.args,
        working_dir: common.working_dir,
        env_from: common.env_from,
        env: common.env,
        resources: common.resources,
        restart_policy: common.restart_policy,
        volume_mounts: common.volume_mounts,
        lifecycle: common.lifecycle,
        termination_message_path: common.termination_message_path,
        termination_message_policy: common.termination_message_policy,
        image_pull_policy: common.image_pull_policy,
        security_context: common.security_context,
        stdin: common.stdin,
        stdin_once: common.stdin_once,
        tty: common.tty,
        ..Container::default()
    }
}

/// The name in the API's words: `spec.containers{name}`.
pub fn field_path(spec: &PodSpec, name: &str) -> String {
    let list = if spec.containers.iter().any(|container| container.name == name) {
        "containers"
    } else if spec.init_containers.iter().any(|container| container.name == name) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    format!("spec.{list}{{{name}}}")
}

/// Whether a container that ended so is started again: its rules in order, its own policy, the pod's policy.
pub fn restarts(spec: &PodSpec, container: &Container, exit_code: i32) -> bool {
    let by_policy = |policy: &str| match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    };
    let Some(own) = &container.restart_policy else { return by_policy(&spec.restart_policy) };
    for rule in &container.restart_policy_rules {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.contains(&exit_code);
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches {
            match rule.action.as_str() {
                "Restart" => return true,
                _ => break,
            }
        }
    }
    by_policy(own)
}

/// What a running container is compared with: upstream restarts one whose name or image changed, nothing else.
pub fn hash(container: &Container) -> String {
    let text = serde_json::json!({ "image": container.image, "name": container.name }).to_string();
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

/// Seconds from the request to end to the kill: what the deletion said, else what the pod says; at least 1.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let asked =
        pod.metadata.deletion_grace_period_seconds.filter(|_| pod.metadata.deletion_timestamp.is_some());
    asked.or(pod.spec.termination_grace_period_seconds).unwrap_or(30).max(1)
}

/// `name_namespace(uid)`, as upstream names a pod in messages.
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
}
