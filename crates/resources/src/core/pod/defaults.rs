//! What a pod means by what it leaves out. The rules of `PodSpec` reach every pod template; those of `Pod` are for pods alone.

use api::core::v1::*;
use meta::Quantity;
use std::collections::BTreeMap;

pub(crate) type ResourceList = BTreeMap<String, Quantity>;

/// Files of secrets, config maps and the like, unless stated: rw-r--r--.
const VOLUME_MODE: i32 = 0o644;
const GRACE_SECONDS: i64 = 30;
const TOKEN_SECONDS: i64 = 3600;

pub(crate) fn fill(field: &mut String, value: &str) {
    if field.is_empty() {
        *field = value.into();
    }
}

fn fill_number(field: &mut i32, value: i32) {
    if *field == 0 {
        *field = value;
    }
}

/// Defaults of a pod: its spec's, and those that templates do not materialize.
pub(crate) fn pod(pod: &mut Pod) {
    let spec = &mut pod.spec;
    let containers = spec.containers.iter_mut().chain(&mut spec.init_containers);
    for container in containers {
        let ResourceRequirements { limits, requests, .. } = &mut container.resources;
        for (name, limit) in limits.iter() {
            requests.entry(name.clone()).or_insert(*limit);
        }
        if spec.host_network {
            for port in &mut container.ports {
                fill_number(&mut port.host_port, port.container_port);
            }
        }
    }
    super::resources::default_pod_level(spec);
    spec.enable_service_links.get_or_insert(true);
    pod_spec(spec);
    status(&mut pod.status);
}

/// The first of several addresses also stands alone, for clients that know one family only.
fn status(status: &mut PodStatus) {
    if status.pod_ip.is_empty() {
        if let Some(first) = status.pod_ips.first() {
            status.pod_ip = first.ip.clone();
        }
    } else if status.pod_ips.first().is_none_or(|first| first.ip != status.pod_ip) {
        status.pod_ips = vec![PodIP { ip: status.pod_ip.clone() }];
    }
}

/// Defaults of a template's spec, and of a pod's.
pub(crate) fn pod_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(GRACE_SECONDS);
    // The older name is written beside the newer one, which wins.
    if spec.service_account_name.is_empty() {
        spec.service_account_name = spec.service_account.clone();
    }
    spec.service_account = spec.service_account_name.clone();
    for volume in &mut spec.volumes {
        volume_source(&mut volume.volume_source);
    }
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        container_defaults(container);
    }
    for ephemeral in &mut spec.ephemeral_containers {
        common_defaults(&mut ephemeral.ephemeral_container_common);
    }
    round_up(&mut spec.overhead);
    if let Some(resources) = &mut spec.resources {
        round_up(&mut resources.limits);
        round_up(&mut resources.requests);
    }
}

/// Amounts finer than a thousandth are rounded up to one.
pub(crate) fn round_up(list: &mut ResourceList) {
    for amount in list.values_mut() {
        let rounded = Quantity::from_millis(amount.milli_value());
        if rounded != *amount && amount.milli_value() != i64::MAX {
            *amount = rounded;
        }
    }
}

/// `Always` when the image is named by the tag `latest` or by no tag or digest at all.
pub(crate) fn pull_policy(image: &str) -> &'static str {
    match image_tag(image) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The tag by which an image is pulled: `latest` when it has neither tag nor digest.
fn image_tag(image: &str) -> Option<&str> {
    if image.is_empty() {
        return None;
    }
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    // A colon before the last slash belongs to the registry's port.
    match (name[last..].split_once(':'), digest) {
        (Some((_, tag)), _) => Some(tag),
        (None, Some(_)) => None,
        (None, None) => Some("latest"),
    }
}

macro_rules! container_rules {
    ($name:ident, $type:ty) => {
        fn $name(container: &mut $type) {
            let policy = pull_policy(&container.image);
            fill(&mut container.image_pull_policy, policy);
            fill(&mut container.termination_message_path, "/dev/termination-log");
            fill(&mut container.termination_message_policy, "File");
            for port in &mut container.ports {
                fill(&mut port.protocol, "TCP");
            }
            for variable in &mut container.env {
                env_source(variable.value_from.as_deref_mut());
            }
            round_up(&mut container.resources.limits);
            round_up(&mut container.resources.requests);
            probe(container.liveness_probe.as_deref_mut());
            probe(container.readiness_probe.as_deref_mut());
            probe(container.startup_probe.as_deref_mut());
            if let Some(lifecycle) = &mut container.lifecycle {
                for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
                    http_get(hook.http_get.as_deref_mut());
                }
            }
        }
    };
}
container_rules!(container_defaults, Container);
container_rules!(common_defaults, EphemeralContainerCommon);

fn env_source(source: Option<&mut EnvVarSource>) {
    let Some(source) = source else { return };
    field_ref(source.field_ref.as_deref_mut());
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

fn field_ref(field: Option<&mut ObjectFieldSelector>) {
    if let Some(field) = field {
        fill(&mut field.api_version, "v1");
    }
}

fn probe(probe: Option<&mut Probe>) {
    let Some(probe) = probe else { return };
    fill_number(&mut probe.timeout_seconds, 1);
    fill_number(&mut probe.period_seconds, 10);
    fill_number(&mut probe.success_threshold, 1);
    fill_number(&mut probe.failure_threshold, 3);
    http_get(probe.handler.http_get.as_deref_mut());
    if let Some(grpc) = &mut probe.handler.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_get(action: Option<&mut HTTPGetAction>) {
    if let Some(action) = action {
        fill(&mut action.path, "/");
        fill(&mut action.scheme, "HTTP");
    }
}

fn volume_source(source: &mut VolumeSource) {
    if *source == VolumeSource::default() {
        source.empty_dir = Some(Box::default());
    }
    if let Some(image) = &mut source.image {
        let policy = pull_policy(&image.reference);
        fill(&mut image.pull_policy, policy);
    }
    if let Some(path) = &mut source.host_path {
        path.r#type.get_or_insert_default();
    }
    if let Some(secret) = &mut source.secret {
        secret.default_mode.get_or_insert(VOLUME_MODE);
    }
    if let Some(config_map) = &mut source.config_map {
        config_map.default_mode.get_or_insert(VOLUME_MODE);
    }
    if let Some(downward) = &mut source.downward_api {
        downward.default_mode.get_or_insert(VOLUME_MODE);
        downward.items.iter_mut().for_each(|item| field_ref(item.field_ref.as_deref_mut()));
    }
    if let Some(projected) = &mut source.projected {
        projected.default_mode.get_or_insert(VOLUME_MODE);
        projected.sources.iter_mut().for_each(projection);
    }
    if let Some(template) = source.ephemeral.as_mut().and_then(|claim| claim.volume_claim_template.as_mut()) {
        claim_spec(&mut template.spec);
    }
    legacy_volume_source(source);
}

fn projection(projection: &mut VolumeProjection) {
    if let Some(downward) = &mut projection.downward_api {
        downward.items.iter_mut().for_each(|item| field_ref(item.field_ref.as_deref_mut()));
    }
    if let Some(token) = &mut projection.service_account_token {
        token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
    }
}

/// In-tree drivers that are only kept so that stored pods read back unchanged.
fn legacy_volume_source(source: &mut VolumeSource) {
    if let Some(iscsi) = &mut source.iscsi {
        fill(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut source.rbd {
        fill(&mut rbd.pool, "rbd");
        fill(&mut rbd.user, "admin");
        fill(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut source.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".into());
        disk.fs_type.get_or_insert_with(|| "ext4".into());
        disk.read_only.get_or_insert(false);
        disk.kind.get_or_insert_with(|| "Shared".into());
    }
    if let Some(scale_io) = &mut source.scale_io {
        fill(&mut scale_io.storage_mode, "ThinProvisioned");
        fill(&mut scale_io.fs_type, "xfs");
    }
}

/// Defaults of a claim's spec, also in templates of claims.
pub(crate) fn claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    round_up(&mut spec.resources.limits);
    round_up(&mut spec.resources.requests);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_images_are_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:2", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
