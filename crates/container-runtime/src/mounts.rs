//! Which mounts lie under a folder, and taking them off, deepest and newest first.

use std::path::{Path, PathBuf};

/// Unmounts everything mounted at or under `folder`, lazily; returns what was taken off.
pub fn unmount_under(folder: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = under(&table, folder);
    found.reverse();
    found.retain(|target| nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH).is_ok());
    found
}

/// The mount points of a mountinfo table at or under `folder`, in the table's order (older first).
fn under(table: &str, folder: &Path) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape(field)))
        .filter(|target| target.starts_with(folder))
        .collect()
}

/// The kernel writes space, tab, newline and backslash as octal.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_from_their_neighbours() {
        let table = "36 35 98:0 / /run/a rw - tmpfs x rw\n37 35 98:0 / /run/a/b\\040c rw - tmpfs x rw\n38 35 98:0 / /run/ab rw - tmpfs x rw\n";
        assert_eq!(under(table, Path::new("/run/a")), [PathBuf::from("/run/a"), PathBuf::from("/run/a/b c")]);
    }
}
