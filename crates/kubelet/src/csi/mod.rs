//! Volumes of CSI drivers: staged once on the node, published for each pod, and taken back in the opposite order.
//!
//! What is published is noted in a file beside it, so that it can be taken back by a process that did not publish it.

mod attached;
mod places;
mod registry;
mod requests;

pub use places::in_use;
pub use registry::{Drivers, keep};

use crate::Context;
use crate::volumes::give;
use api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, SecretReference, Volume,
};
use api::storage::v1::CSIDriver;
use csi::messages::*;
use meta::ObjectKey;
use places::Note;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A persistent volume of a driver, for a pod.
pub struct Persistent<'a> {
    pub pod: &'a Pod,
    pub volume: &'a Volume,
    pub claim: &'a PersistentVolumeClaim,
    pub persistent: &'a PersistentVolume,
    pub source: &'a CSIPersistentVolumeSource,
}

/// Makes a driver's persistent volume appear for a pod; gives the path. Safe to repeat.
pub async fn stage_and_publish(ctx: &Context, ask: &Persistent<'_>) -> Result<PathBuf, String> {
    let source = ask.source;
    let driver = ctx.drivers.get(&source.driver)?;
    let about = about(ctx, &source.driver).await?;
    let block = ask.persistent.spec.volume_mode.as_deref() == Some("Block");
    let unique = volumes::attachments::unique_name(&source.driver, &source.volume_handle);
    let mut publish_context = BTreeMap::new();
    if about.as_ref().is_none_or(|about| about.spec.attach_required.unwrap_or(true)) {
        ctx.use_volume(&unique);
        publish_context = attached::wait(ctx, source, &unique).await?;
    }
    let group = crate::volumes::fs_group(ask.pod).filter(|_| driver.can(capability::VOLUME_MOUNT_GROUP));
    let wanted =
        requests::capability(ask.persistent, source, group, driver.can(capability::SINGLE_NODE_MULTI_WRITER));
    let staging = places::staging(&ctx.settings, &source.driver, &source.volume_handle);
    let mut staged = String::new();
    if driver.can(capability::STAGE_UNSTAGE_VOLUME) {
        let note = Note::of(&source.driver, &source.volume_handle, "Persistent");
        note.write(staging.parent().ok_or("the staging path has no parent")?)
            .map_err(|error| error.to_string())?;
        if !block {
            std::fs::create_dir_all(&staging).map_err(|error| format!("{}: {error}", staging.display()))?;
        }
        staged = staging.to_string_lossy().into_owned();
        let request = NodeStageVolumeRequest {
            volume_id: source.volume_handle.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: staged.clone(),
            volume_capability: Some(wanted.clone()),
            secrets: secrets(ctx, source.node_stage_secret_ref.as_deref()).await?,
            volume_context: source.volume_attributes.clone(),
        };
        driver
            .client
            .stage(request)
            .await
            .map_err(|error| format!("MountVolume.MountDevice failed: {error}"))?;
    }
    let target = places::target(&ctx.settings, &ask.pod.metadata.uid, &ask.persistent.metadata.name);
    Note::of(&source.driver, &source.volume_handle, "Persistent")
        .write(target.parent().ok_or("the target path has no parent")?)
        .map_err(|error| error.to_string())?;
    let read_only = source.read_only || requests::only_read(ask.pod, ask.volume);
    let request = NodePublishVolumeRequest {
        volume_id: source.volume_handle.clone(),
        publish_context,
        staging_target_path: staged,
        target_path: target.to_string_lossy().into_owned(),
        volume_capability: Some(wanted),
        readonly: read_only,
        secrets: secrets(ctx, source.node_publish_secret_ref.as_deref()).await?,
        volume_context: requests::context(about.as_ref(), ask.pod, &source.volume_attributes, false),
    };
    driver.client.publish(request).await.map_err(|error| error.to_string())?;
    let modes = &ask.persistent.spec.access_modes;
    if !block
        && group.is_none()
        && !read_only
        && requests::takes_group(about.as_ref(), &source.fs_type, modes)
    {
        give(ask.pod, &target)?;
    }
    expand_if_wanted(&driver, ask, &target, &staging).await?;
    Ok(target)
}

/// Lets the driver grow a file system whose volume has grown.
async fn expand_if_wanted(
    driver: &registry::Driver,
    ask: &Persistent<'_>,
    target: &Path,
    staging: &Path,
) -> Result<(), String> {
    let (have, want) =
        (volumes::storage(&ask.claim.status.capacity), volumes::storage(&ask.persistent.spec.capacity));
    let pending = ask.claim.status.conditions.iter().any(|own| own.r#type == "FileSystemResizePending");
    if !driver.can(capability::EXPAND_VOLUME) || !pending || want <= have {
        return Ok(());
    }
    let request = NodeExpandVolumeRequest {
        volume_id: ask.source.volume_handle.clone(),
        volume_path: target.to_string_lossy().into_owned(),
        capacity_range: Some(CapacityRange { required_bytes: want.value(), limit_bytes: 0 }),
        staging_target_path: staging.to_string_lossy().into_owned(),
        volume_capability: None,
    };
    driver.client.expand(request).await.map(drop).map_err(|error| format!("NodeExpandVolume failed: {error}"))
}

/// Makes a volume appear that a pod states by itself and that lives as long as the pod.
pub async fn publish_inline(ctx: &Context, pod: &Pod, volume: &Volume) -> Result<(), String> {
    let Some(source) = volume.volume_source.csi.as_deref() else {
        return Err("no volume plugin matched".into());
    };
    let driver = ctx.drivers.get(&source.driver)?;
    let about = about(ctx, &source.driver).await?;
    let Some(object) = &about else {
        return Err(format!(
            "volume mode \"Ephemeral\" not supported by driver {} (no CSIDriver object)",
            source.driver
        ));
    };
    if !object.spec.volume_lifecycle_modes.iter().any(|mode| mode == "Ephemeral") {
        return Err(format!(
            "volume mode \"Ephemeral\" not supported by driver {} (only supports {:?})",
            source.driver, object.spec.volume_lifecycle_modes
        ));
    }
    let handle = places::inline_handle(&pod.metadata.uid, &volume.name);
    let target = places::target(&ctx.settings, &pod.metadata.uid, &volume.name);
    Note::of(&source.driver, &handle, "Ephemeral")
        .write(target.parent().ok_or("the target path has no parent")?)
        .map_err(|error| error.to_string())?;
    let fs_type = source.fs_type.clone().unwrap_or_default();
    let secret = source
        .node_publish_secret_ref
        .as_deref()
        .map(|own| SecretReference { name: own.name.clone(), namespace: pod.metadata.namespace.clone() });
    let read_only = source.read_only == Some(true);
    let request = NodePublishVolumeRequest {
        volume_id: handle,
        target_path: target.to_string_lossy().into_owned(),
        volume_capability: Some(requests::mount(&fs_type, access::SINGLE_NODE_WRITER)),
        readonly: read_only,
        secrets: secrets(ctx, secret.as_ref()).await?,
        volume_context: requests::context(about.as_ref(), pod, &source.volume_attributes, true),
        ..NodePublishVolumeRequest::default()
    };
    driver.client.publish(request).await.map_err(|error| error.to_string())?;
    if !read_only && object.spec.fs_group_policy.as_deref() == Some("File") {
        give(pod, &target)?;
    }
    Ok(())
}

/// Where a pod's own volume of a driver lies.
pub fn inline_target(ctx: &Context, pod: &Pod, volume: &str) -> PathBuf {
    places::target(&ctx.settings, &pod.metadata.uid, volume)
}

/// Takes back every driver's volume of a pod, and what no other pod needs staged.
pub async fn release(ctx: &Context, uid: &str) -> Result<(), String> {
    for (folder, note) in places::published(&ctx.settings, uid) {
        let driver = ctx.drivers.get(&note.driver_name)?;
        let request = NodeUnpublishVolumeRequest {
            volume_id: note.volume_handle.clone(),
            target_path: folder.join(places::MOUNT).to_string_lossy().into_owned(),
        };
        match driver.client.unpublish(request).await {
            Err(error) if !error.is_not_found() => {
                return Err(format!("rpc of {}: {error}", note.driver_name));
            }
            _ => {}
        }
        container_runtime::unmount_under(&folder);
        places::remove(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        if note.volume_lifecycle_mode == "Persistent" {
            unstage(ctx, &driver, &note).await?;
        }
    }
    Ok(())
}

async fn unstage(ctx: &Context, driver: &registry::Driver, note: &Note) -> Result<(), String> {
    if places::is_published(&ctx.settings, note) {
        return Ok(());
    }
    let staging = places::staging(&ctx.settings, &note.driver_name, &note.volume_handle);
    let folder = staging.parent().unwrap_or(&staging).to_path_buf();
    if folder.exists() {
        let request = NodeUnstageVolumeRequest {
            volume_id: note.volume_handle.clone(),
            staging_target_path: staging.to_string_lossy().into_owned(),
        };
        match driver.client.unstage(request).await {
            Err(error) if !error.is_not_found() && !error.is_unimplemented() => {
                return Err(format!("UnmountDevice failed: {error}"));
            }
            _ => {}
        }
        container_runtime::unmount_under(&folder);
        places::remove(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    ctx.leave_volume(&volumes::attachments::unique_name(&note.driver_name, &note.volume_handle));
    Ok(())
}

/// What the cluster says of a driver; nothing where it says nothing.
async fn about(ctx: &Context, driver: &str) -> Result<Option<CSIDriver>, String> {
    match ctx.client.get::<CSIDriver>(&ObjectKey::cluster(driver)).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(format!("failed to get CSIDriver {driver:?}: {}", error.chain())),
    }
}

async fn secrets(
    ctx: &Context,
    reference: Option<&SecretReference>,
) -> Result<BTreeMap<String, String>, String> {
    let Some(reference) = reference else { return Ok(BTreeMap::new()) };
    let key = ObjectKey::new(reference.namespace.as_str(), reference.name.as_str());
    let secret: api::core::v1::Secret = ctx.client.get(&key).await.map_err(|error| {
        format!(
            "failed to find the secret {} in the namespace {}: {}",
            key.name,
            key.namespace,
            error.chain()
        )
    })?;
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    Ok(secret.data.iter().map(|(name, bytes)| (name.clone(), text(bytes))).collect())
}
