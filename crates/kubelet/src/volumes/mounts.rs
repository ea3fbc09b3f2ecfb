//! Where a container's volumes lie on the node, and how they are mounted; subpaths do not leave their volume.

use crate::Context;
use api::core::v1::{Container, Pod, VolumeMount};
use container_runtime::cri::messages::{Device, Mount, propagation};
use pods::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

pub fn mounts(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    variables: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    container.volume_mounts.iter().map(|mount| one(ctx, pod, mount, variables)).collect()
}

/// The block devices that a container is given.
pub fn devices(ctx: &Context, pod: &Pod, container: &Container) -> Result<Vec<Device>, String> {
    let wanted = container.volume_devices.iter();
    wanted
        .map(|device| {
            let claim = claim_of(pod, &device.name);
            let link = super::claims::link(ctx, pod, &device.name);
            let path = std::fs::read_link(&link)
                .map_err(|_| format!("cannot find volume {:?} to pass into container", device.name))?;
            let read_only = claim.is_some_and(|claim| claim.read_only);
            Ok(Device {
                container_path: device.device_path.clone(),
                host_path: path.to_string_lossy().into(),
                permissions: if read_only { "r" } else { "mrw" }.into(),
            })
        })
        .collect()
}

fn claim_of(pod: &Pod, name: &str) -> Option<volumes::PodClaim> {
    volumes::claims_of(pod).find(|own| own.volume == name)
}

fn one(
    ctx: &Context,
    pod: &Pod,
    mount: &VolumeMount,
    variables: &[(String, String)],
) -> Result<Mount, String> {
    let volume = pod
        .spec
        .volumes
        .iter()
        .find(|volume| volume.name == mount.name)
        .ok_or_else(|| format!("cannot find volume {:?} to mount into container", mount.name))?;
    let folder = super::folder(ctx, pod, volume).ok_or("no volume plugin matched")?;
    let subpath = if mount.sub_path_expr.is_empty() {
        mount.sub_path.clone()
    } else {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let text = env::expand(&mount.sub_path_expr, lookup);
        if text.contains("$(") {
            return Err(format!("failed to expand subPath for volumeMount {:?}: {text}", mount.name));
        }
        text
    };
    // A claim's volume lies behind a link.
    let folder = match super::claims::is_claim(volume) {
        true => folder.canonicalize().map_err(|error| format!("volume {:?}: {error}", mount.name))?,
        false => folder,
    };
    let mut host_path = folder.clone();
    if !subpath.is_empty() {
        host_path = within(&folder, &subpath).map_err(|words| {
            format!(
                "failed to create subPath directory for volumeMount {:?} of container: {words}",
                mount.name
            )
        })?;
    } else if volume.volume_source.host_path.is_some() && !host_path.exists() {
        // As the runtimes do for a bind mount whose source is missing.
        std::fs::create_dir_all(&host_path).map_err(|error| error.to_string())?;
    }
    let path = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    let source = &volume.volume_source;
    let content = source.config_map.is_some()
        || source.secret.is_some()
        || source.projected.is_some()
        || source.downward_api.is_some()
        || source.image.is_some();
    Ok(Mount {
        container_path: path,
        host_path: host_path.to_string_lossy().into(),
        // Volumes of content are written by the node alone.
        readonly: mount.read_only || content || claim_of(pod, &mount.name).is_some_and(|own| own.read_only),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => propagation::HOST_TO_CONTAINER,
            Some("Bidirectional") => propagation::BIDIRECTIONAL,
            _ => propagation::PRIVATE,
        },
        ..Mount::default()
    })
}

/// The real place of a subpath, made as a folder where it is missing, open to whom the volume is open to (so that an
/// fsGroup may write there too). Links that lead out of the volume are refused.
fn within(volume: &Path, subpath: &str) -> Result<PathBuf, String> {
    let io = |error: std::io::Error| error.to_string();
    let root = volume.canonicalize().map_err(io)?;
    if !root.is_dir() {
        return Err("the volume is not a directory".into());
    }
    let mode = root.metadata().map_err(io)?.permissions().mode() & 0o7777;
    let mut place = root.clone();
    for part in Path::new(subpath).components() {
        let Component::Normal(name) = part else {
            return Err(format!("subpath {subpath:?} must be relative and may not contain \"..\""));
        };
        place.push(name);
        match place.canonicalize() {
            Ok(real) => place = real,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir(&place).map_err(io)?;
                crate::container::set_mode(&place, mode).map_err(io)?;
            }
            Err(error) => return Err(io(error)),
        }
        if !place.starts_with(&root) {
            return Err(format!("subpath {subpath:?} leads out of the volume"));
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subpaths_do_not_leave_their_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o2777)).unwrap();
        assert_eq!(within(&root, "a/b").unwrap(), root.join("a/b"));
        assert_eq!(root.join("a/b").metadata().unwrap().permissions().mode() & 0o7777, 0o2777);
        assert!(within(&root, "../x").is_err());
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        assert!(within(&root, "out/passwd").is_err());
        std::os::unix::fs::symlink("a", root.join("in")).unwrap();
        assert_eq!(within(&root, "in/b").unwrap(), root.join("a/b"));
    }
}
