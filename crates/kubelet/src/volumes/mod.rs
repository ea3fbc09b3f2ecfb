//! A pod's volumes: made before its containers, kept up to date while it runs, taken away after it.

mod atomic;
mod claims;
mod content;
mod image;
mod mounts;
mod owner;

pub use claims::give;
pub use mounts::{devices, mounts};
pub use owner::fs_group;

use crate::{Context, csi, tokens};
use api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use nix::mount::{MsFlags, mount};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of one volume: `<root>/pods/<uid>/volumes/<plugin>/<name>`, upstream's layout.
pub fn folder(ctx: &Context, pod: &Pod, volume: &Volume) -> Option<PathBuf> {
    let source = &volume.volume_source;
    if let Some(host) = &source.host_path {
        return Some(PathBuf::from(&host.path));
    }
    if claims::is_claim(volume) {
        return Some(claims::link(ctx, pod, &volume.name));
    }
    if source.image.is_some() {
        return Some(image::target(ctx, pod, &volume.name));
    }
    if source.csi.is_some() {
        return Some(csi::inline_target(ctx, pod, &volume.name));
    }
    let plugin = if source.empty_dir.is_some() {
        "kubernetes.io~empty-dir"
    } else if source.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if source.secret.is_some() {
        "kubernetes.io~secret"
    } else if source.projected.is_some() {
        "kubernetes.io~projected"
    } else if source.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        return None;
    };
    Some(ctx.settings.pod_dir(&pod.metadata.uid).join("volumes").join(plugin).join(&volume.name))
}

/// Makes everything that the pod's containers mount. Safe to repeat.
pub async fn prepare(ctx: &Context, pod: &Pod) -> Result<(), String> {
    for volume in &pod.spec.volumes {
        let result = prepare_one(ctx, pod, volume).await;
        result.map_err(|words| format!("MountVolume.SetUp failed for volume {:?} : {words}", volume.name))?;
    }
    Ok(())
}

async fn prepare_one(ctx: &Context, pod: &Pod, volume: &Volume) -> Result<(), String> {
    let source = &volume.volume_source;
    let Some(folder) = folder(ctx, pod, volume) else {
        return Err("no volume plugin matched".into());
    };
    if let Some(host) = &source.host_path {
        return host_path(host);
    }
    if claims::is_claim(volume) {
        return claims::prepare(ctx, pod, volume).await;
    }
    if let Some(source) = &source.image {
        return image::prepare(ctx, pod, volume, source).await;
    }
    if source.csi.is_some() {
        return csi::publish_inline(ctx, pod, volume).await;
    }
    let io = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(io)?;
    if let Some(empty) = &source.empty_dir {
        return empty_dir(ctx, pod, empty, &folder).map_err(io);
    }
    if source.config_map.is_none() {
        mount_tmpfs(&folder, None).map_err(io)?;
    }
    write(ctx, pod, volume, &folder).await
}

/// Writes a volume's files anew where they changed.
async fn write(ctx: &Context, pod: &Pod, volume: &Volume, folder: &Path) -> Result<(), String> {
    let files = content::files(ctx, pod, volume).await?;
    let group = owner::fs_group(pod);
    atomic::write(folder, &files, group).map_err(|error| format!("{}: {error}", folder.display()))
}

/// Brings files up to what they refer to, in place.
pub async fn refresh(ctx: &Context, pod: &Pod) -> Result<(), String> {
    for volume in &pod.spec.volumes {
        let source = &volume.volume_source;
        let live = source.config_map.is_some()
            || source.secret.is_some()
            || source.projected.is_some()
            || source.downward_api.is_some();
        let Some(folder) = folder(ctx, pod, volume).filter(|folder| live && folder.is_dir()) else {
            continue;
        };
        write(ctx, pod, volume, &folder).await?;
    }
    Ok(())
}

/// When a pod's volumes are due without any change: for tokens.
pub fn refresh_after(pod: &Pod) -> Option<Duration> {
    tokens::refresh_after(pod)
}

/// Unmounts and removes a pod's volumes.
pub async fn release(ctx: &Context, uid: &str) -> Result<(), String> {
    csi::release(ctx, uid).await?;
    image::release(ctx, uid).await?;
    let dir = ctx.settings.pod_dir(uid);
    container_runtime::unmount_under(&dir);
    match std::fs::remove_dir_all(dir.join("volumes")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove the volumes of pod {uid}: {error}"))
        }
        _ => Ok(()),
    }
}

/// The uids of pods that have a folder.
pub fn uids_on_disk(ctx: &Context) -> Vec<String> {
    let entries = std::fs::read_dir(ctx.settings.root_dir.join("pods")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_mounted(folder: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    folder.parent().is_some_and(|parent| device(parent) != device(folder))
}

fn mount_tmpfs(folder: &Path, size_bytes: Option<i64>) -> std::io::Result<()> {
    if is_mounted(folder) {
        return Ok(());
    }
    let options = size_bytes.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .map_err(std::io::Error::from)
}

fn empty_dir(ctx: &Context, pod: &Pod, empty: &EmptyDirVolumeSource, folder: &Path) -> std::io::Result<()> {
    match empty.medium.as_str() {
        "" => {}
        "Memory" => {
            let limits = pods::resources::pod_limits(&pod.spec);
            let sizes =
                [empty.size_limit, limits.get("memory").copied(), ctx.allocatable().get("memory").copied()];
            let size =
                sizes.into_iter().flatten().map(|amount| amount.value()).filter(|bytes| *bytes > 0).min();
            mount_tmpfs(folder, size)?;
        }
        other => {
            let words = format!("unknown storage medium {other:?}");
            return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, words));
        }
    }
    crate::container::set_mode(folder, 0o777)?;
    if let Some(group) = owner::fs_group(pod) {
        owner::give(folder, group)?;
    }
    Ok(())
}

/// Checks that a path is a block device.
fn block(path: &Path) -> Result<(), String> {
    let found = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match found.file_type().is_block_device() {
        true => Ok(()),
        false => Err(format!("{} is not a block device", path.display())),
    }
}

/// Checks a path of the node, or makes it where its type says so.
fn host_path(host: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&host.path);
    let kind = host.r#type.as_deref().unwrap_or_default();
    let io = |error: std::io::Error| format!("{}: {error}", path.display());
    if kind == "DirectoryOrCreate" && !path.exists() {
        std::fs::create_dir_all(path).map_err(io)?;
        return crate::container::set_mode(path, 0o755).map_err(io);
    }
    if kind == "FileOrCreate" && !path.exists() {
        std::fs::File::create(path).map_err(io)?;
        return crate::container::set_mode(path, 0o644).map_err(io);
    }
    let found = std::fs::metadata(path).ok().map(|meta| meta.file_type());
    let (fits, words) = match kind {
        "" => return Ok(()),
        "Directory" | "DirectoryOrCreate" => (found.is_some_and(|kind| kind.is_dir()), "is not a directory"),
        "File" | "FileOrCreate" => (found.is_some_and(|kind| kind.is_file()), "is not a file"),
        "Socket" => (found.is_some_and(|kind| kind.is_socket()), "is not a socket file"),
        "CharDevice" => (found.is_some_and(|kind| kind.is_char_device()), "is not a character device"),
        "BlockDevice" => (found.is_some_and(|kind| kind.is_block_device()), "is not a block device"),
        other => return Err(format!("hostPath type {other:?} is not known")),
    };
    match fits {
        true => Ok(()),
        false => Err(format!("hostPath type check failed: {} {words}", host.path)),
    }
}
