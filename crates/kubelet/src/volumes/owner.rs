//! Giving volumes to the pod's group.

use api::core::v1::Pod;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Gives everything below a folder to a group that may read and write it; new files inherit the group.
pub fn give(path: &Path, group: u32) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, None, Some(group))?;
    let meta = std::fs::symlink_metadata(path)?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let extra = if meta.is_dir() { 0o2770 } else { 0o660 };
    let mode = meta.permissions().mode() & 0o7777 | extra;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give(&entry?.path(), group)?;
        }
    }
    Ok(())
}

/// The same for files that nobody writes: the group may read them.
pub fn give_read_only(path: &Path, group: u32) -> std::io::Result<()> {
    std::os::unix::fs::lchown(path, None, Some(group))?;
    let meta = std::fs::symlink_metadata(path)?;
    if meta.file_type().is_symlink() {
        return Ok(());
    }
    let extra = if meta.is_dir() { 0o2550 } else { 0o440 };
    let mode = meta.permissions().mode() & 0o7777 | extra;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_read_only(&entry?.path(), group)?;
        }
    }
    Ok(())
}
