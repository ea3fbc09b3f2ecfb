//! ServiceAccount: every pod runs as one, and finds its token, the cluster's CA and its namespace in a volume.

use super::{Chain, forbidden};
use api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, LocalObjectReference,
    ObjectFieldSelector, Pod, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection, VolumeSource,
};
use api::errors::ApiError;
use rand::Rng;
use registry::{Attributes, Operation};
use std::time::Duration;

const DEFAULT_ACCOUNT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const ROOT_CA: &str = "kube-root-ca.crt";
const MODE: i32 = 0o644;
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The default account of a new namespace is made a moment after it: a pod that comes at once is worth the wait.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

impl Chain {
    pub(super) async fn admit_service_account(
        &self,
        attributes: &Attributes<'_>,
        pod: &mut Pod,
    ) -> Result<(), ApiError> {
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        if pod.metadata.annotations.contains_key(MIRROR) {
            return check_mirror(attributes, pod);
        }
        if pod.spec.service_account_name.is_empty() {
            let deprecated = std::mem::take(&mut pod.spec.service_account);
            pod.spec.service_account_name =
                if deprecated.is_empty() { DEFAULT_ACCOUNT.into() } else { deprecated };
        }
        let name = pod.spec.service_account_name.clone();
        pod.spec.service_account = name.clone();
        let Some(account) = self.account(attributes.namespace, &name).await? else {
            let text = format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                attributes.namespace
            );
            return Err(forbidden(attributes, Some(pod), text));
        };
        let mounts = pod
            .spec
            .automount_service_account_token
            .or(account.automount_service_account_token)
            .unwrap_or(true);
        if mounts {
            mount_token(pod);
        }
        if pod.spec.image_pull_secrets.is_empty() {
            pod.spec.image_pull_secrets = account
                .image_pull_secrets
                .iter()
                .map(|secret| LocalObjectReference { name: secret.name.clone() })
                .collect();
        }
        Ok(())
    }

    async fn account(&self, namespace: &str, name: &str) -> Result<Option<ServiceAccount>, ApiError> {
        let attempts = if name == DEFAULT_ACCOUNT { ATTEMPTS } else { 1 };
        for attempt in 0..attempts {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            if let Some(account) = self.get::<ServiceAccount>(namespace, name).await? {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }
}

fn check_mirror(attributes: &Attributes<'_>, pod: &Pod) -> Result<(), ApiError> {
    if !pod.spec.service_account_name.is_empty() {
        return Err(forbidden(attributes, Some(pod), "a mirror pod may not reference service accounts"));
    }
    let tokens = pod.spec.volumes.iter().any(|volume| {
        let projected = volume.volume_source.projected.iter().flat_map(|source| &source.sources);
        projected.into_iter().any(|source| source.service_account_token.is_some())
    });
    if tokens {
        let text = "a mirror pod may not use ServiceAccountToken volume projections";
        return Err(forbidden(attributes, Some(pod), text));
    }
    Ok(())
}

/// Adds the volume with the token, and mounts it where nothing is mounted at its place.
fn mount_token(pod: &mut Pod) {
    let existing = pod.spec.volumes.iter().find(|volume| volume.name.starts_with(VOLUME_PREFIX));
    let fresh = existing.is_none();
    let name = existing.map_or_else(volume_name, |volume| volume.name.clone());
    let mut used = false;
    for container in pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers) {
        if container.volume_mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
            continue;
        }
        used = true;
        container.volume_mounts.push(VolumeMount {
            name: name.clone(),
            read_only: true,
            mount_path: MOUNT_PATH.into(),
            ..VolumeMount::default()
        });
    }
    if used && fresh {
        pod.spec.volumes.push(token_volume(name));
    }
}

fn volume_name() -> String {
    let mut rng = rand::rng();
    let tail: String = (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect();
    format!("{VOLUME_PREFIX}{tail}")
}

fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        expiration_seconds: Some(crate::tokens::WARN_ONLY_SECONDS),
        path: "token".into(),
        ..ServiceAccountTokenProjection::default()
    };
    let ca = ConfigMapProjection {
        local_object_reference: LocalObjectReference { name: ROOT_CA.into() },
        items: vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }],
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".into(),
        field_ref: Some(Box::new(ObjectFieldSelector {
            api_version: "v1".into(),
            field_path: "metadata.namespace".into(),
        })),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(Box::new(token)), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(Box::new(ca)), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(Box::new(DownwardAPIProjection { items: vec![namespace] })),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { sources, default_mode: Some(MODE) };
    Volume {
        name,
        volume_source: VolumeSource { projected: Some(Box::new(projected)), ..VolumeSource::default() },
    }
}
