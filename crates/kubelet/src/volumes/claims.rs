//! Volumes that a claim stands for: finds the persistent volume, makes it reachable, and leaves a link to it in the pod's
//! folder, which is what containers mount. The link outlives this process, and removing it removes no data.

use super::{block, host_path, owner};
use crate::{Context, csi};
use api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use meta::ObjectKey;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use volumes::local_path;

/// Whether a claim stands for the volume.
pub fn is_claim(volume: &Volume) -> bool {
    volume.volume_source.persistent_volume_claim.is_some() || volume.volume_source.ephemeral.is_some()
}

/// The link to a volume's directory or device.
pub fn link(ctx: &Context, pod: &Pod, volume: &str) -> PathBuf {
    let folder = ctx.settings.pod_dir(&pod.metadata.uid).join("volumes/timonel.dev~claim");
    folder.join(volume)
}

/// Makes a claim's volume reachable for the pod. Safe to repeat.
pub async fn prepare(ctx: &Context, pod: &Pod, volume: &Volume) -> Result<(), String> {
    let (claim, persistent) = find(ctx, pod, volume).await?;
    let name = &persistent.metadata.name;
    reachable(ctx, &persistent)?;
    let is_block = persistent.spec.volume_mode.as_deref() == Some("Block");
    if uses(pod, &volume.name, Use::Mount) && is_block {
        return Err(format!("volume {name:?} has volumeMode Block, but is specified in volumeMounts"));
    }
    if uses(pod, &volume.name, Use::Device) && !is_block {
        return Err(format!("volume {name:?} has volumeMode Filesystem, but is specified in volumeDevices"));
    }
    let source = &persistent.spec.persistent_volume_source;
    let place = if let Some(host) = &source.host_path {
        host_path(host)?;
        if !Path::new(&host.path).exists() {
            std::fs::create_dir_all(&host.path).map_err(|error| format!("{}: {error}", host.path))?;
        }
        PathBuf::from(&host.path)
    } else if let Some(local) = &source.local {
        let path = PathBuf::from(&local.path);
        if local_path::is_ours(&persistent) {
            make_own(ctx, &path)?;
        }
        if is_block {
            block(&path)?;
        } else {
            if !path.is_dir() {
                return Err(format!("path {:?} does not exist", local.path));
            }
            give(pod, &path)?;
        }
        path
    } else if let Some(source) = &source.csi {
        let ask = csi::Persistent { pod, volume, claim: &claim, persistent: &persistent, source };
        csi::stage_and_publish(ctx, &ask).await?
    } else {
        return Err("no volume plugin matched".into());
    };
    relink(&place, &link(ctx, pod, &volume.name)).map_err(|error| format!("{}: {error}", place.display()))
}

/// The claim, and the volume that it is bound to.
async fn find(
    ctx: &Context,
    pod: &Pod,
    volume: &Volume,
) -> Result<(PersistentVolumeClaim, PersistentVolume), String> {
    let own = volumes::claims_of(pod)
        .find(|own| own.volume == volume.name)
        .ok_or_else(|| format!("volume {:?} names no claim", volume.name))?;
    let key = ObjectKey::new(pod.metadata.namespace.as_str(), own.claim.as_str());
    let claim: PersistentVolumeClaim = ctx.client.get(&key).await.map_err(|error| {
        format!("error processing PVC {key}: failed to fetch PVC from API server: {}", error.chain())
    })?;
    if own.ephemeral && !volumes::owned_by_pod(&claim, pod) {
        return Err(format!(
            "error processing PVC {key}: PVC {key} was not created for pod {}/{} (pod is not owner)",
            pod.metadata.namespace, pod.metadata.name
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        // What runs goes on; what has not begun must not.
        let begun = std::fs::symlink_metadata(link(ctx, pod, &volume.name)).is_ok();
        if !begun {
            return Err(format!("error processing PVC {key}: PVC is being deleted"));
        }
    }
    if claim.status.phase != "Bound" || claim.spec.volume_name.is_empty() {
        return Err(format!("error processing PVC {key}: PVC is not bound"));
    }
    let name = &claim.spec.volume_name;
    let persistent: PersistentVolume = ctx
        .client
        .get(&ObjectKey::cluster(name.as_str()))
        .await
        .map_err(|error| format!("failed to fetch PV {name:?} from API server: {}", error.chain()))?;
    let bound = persistent.spec.claim_ref.as_ref().is_some_and(|own| own.uid == claim.metadata.uid);
    if !bound {
        return Err(format!("found PV object {name:?} with unexpected claim reference"));
    }
    Ok((claim, persistent))
}

/// A volume that is elsewhere would be an empty directory here.
fn reachable(ctx: &Context, persistent: &PersistentVolume) -> Result<(), String> {
    if persistent.spec.node_affinity.is_none() {
        return Ok(());
    }
    let node = ctx.views.view().get::<Node>(&ObjectKey::cluster(ctx.settings.node_name.as_str()));
    let Some(node) = node else { return Err("the node is not registered yet".into()) };
    match volumes::reaches(persistent, &node) {
        true => Ok(()),
        false => Err("volume node affinity check failed: no matching NodeSelectorTerms".into()),
    }
}

/// A directory of ours comes into being with its first use, open to every user as an emptyDir is.
fn make_own(ctx: &Context, path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Ok(());
    }
    let within = ctx.settings.local_path_dir.as_ref().is_some_and(|own| path.parent() == Some(own));
    if !within {
        return Err(format!("{} is not a volume that this node keeps", path.display()));
    }
    let io = |error: std::io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(path).map_err(io)?;
    crate::container::set_mode(path, 0o777).map_err(io)
}

#[derive(Clone, Copy, PartialEq)]
enum Use {
    Mount,
    Device,
}

/// Whether a container of the pod uses a volume in this way.
fn uses(pod: &Pod, volume: &str, how: Use) -> bool {
    let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let mut all = all.filter(|container| match how {
        Use::Mount => container.volume_mounts.iter().any(|mount| mount.name == volume),
        Use::Device => container.volume_devices.iter().any(|device| device.name == volume),
    });
    all.next().is_some()
}

/// Gives a volume to the pod's group; only where its top is not the group's already, if the pod asks for that.
pub fn give(pod: &Pod, path: &Path) -> Result<(), String> {
    let Some(group) = owner::fs_group(pod) else { return Ok(()) };
    let policy = pod.spec.security_context.as_ref().and_then(|own| own.fs_group_change_policy.as_deref());
    let io = |error: std::io::Error| format!("applyFSGroup failed for vol {}: {error}", path.display());
    if policy == Some("OnRootMismatch") {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).map_err(io)?;
        if meta.gid() == group && meta.permissions().mode() & 0o2770 == 0o2770 {
            return Ok(());
        }
    }
    owner::give(path, group).map_err(io)
}

fn relink(place: &Path, link: &Path) -> std::io::Result<()> {
    if std::fs::read_link(link).is_ok_and(|old| old == place) {
        return Ok(());
    }
    if let Some(parent) = link.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(place, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_follows_its_volume_and_is_removed_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let (data, link) = (dir.path().join("data"), dir.path().join("pod/claim"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("file"), "kept").unwrap();
        relink(Path::new("/nowhere"), &link).unwrap();
        relink(&data, &link).unwrap();
        relink(&data, &link).unwrap();
        assert_eq!(std::fs::read_to_string(link.join("file")).unwrap(), "kept");
        std::fs::remove_dir_all(dir.path().join("pod")).unwrap();
        assert!(data.join("file").exists());
    }
}
