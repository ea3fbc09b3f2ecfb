//! Image volumes (KEP-4639): the files of an image, pulled as a container's would be, mounted to be read.

use crate::{Context, images};
use api::core::v1::{Container, ImageVolumeSource, Pod, Volume};
use std::path::{Path, PathBuf};

/// The folder of a pod's image volumes.
fn folder(ctx: &Context, uid: &str) -> PathBuf {
    ctx.settings.pod_dir(uid).join("volumes/kubernetes.io~image")
}

pub fn target(ctx: &Context, pod: &Pod, name: &str) -> PathBuf {
    folder(ctx, &pod.metadata.uid).join(name)
}

/// Pulls the image by its policy and mounts it. Safe to repeat.
pub async fn prepare(
    ctx: &Context,
    pod: &Pod,
    volume: &Volume,
    source: &ImageVolumeSource,
) -> Result<(), String> {
    let target = target(ctx, pod, &volume.name);
    std::fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    if super::is_mounted(&target) {
        return Ok(());
    }
    // Pulled under the rules of a container's image; what is said of it is said of the volume.
    let like = Container {
        name: volume.name.clone(),
        image: source.reference.clone(),
        image_pull_policy: source.pull_policy.clone(),
        ..Container::default()
    };
    images::ensure(ctx, pod, &like)
        .await
        .map_err(|failure| format!("{}: {}", failure.reason, failure.message))?;
    let name = images::with_tag(&source.reference).map_err(|failure| failure.message)?;
    let known = images::find(ctx, &name).await.map_err(|error| error.to_string())?;
    let name = known.and_then(|known| known.names.into_iter().next()).unwrap_or(name);
    container_runtime::mount_image(&ctx.runtime_socket, &name, &target)
        .await
        .map_err(|error| error.to_string())
}

/// Takes the mounts of a pod's image volumes off.
pub async fn release(ctx: &Context, uid: &str) -> Result<(), String> {
    for entry in std::fs::read_dir(folder(ctx, uid)).into_iter().flatten().flatten() {
        let target: &Path = &entry.path();
        if super::is_mounted(target) {
            container_runtime::unmount_image(&ctx.runtime_socket, target)
                .await
                .map_err(|error| format!("{}: {error}", target.display()))?;
        }
    }
    Ok(())
}
