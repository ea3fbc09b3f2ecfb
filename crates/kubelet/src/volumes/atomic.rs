//! Changing all files of a volume at once: a new folder is written, then one symbolic link is swapped to it.
//!
//! `<volume>/..data` points to the folder of the moment; each file's name at the top points through it. A reader that
//! opens through the link sees the old files or the new, never a mixture. The names are upstream's.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::Path;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// One file: its bytes, mode, and the user it is given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub user: Option<u32>,
}

/// Files by their path within the volume; paths have been checked to stay within it.
pub type Files = BTreeMap<String, File>;

/// Makes the volume hold exactly these files. Does nothing where it does already.
pub fn write(volume: &Path, files: &Files, group: Option<u32>) -> std::io::Result<()> {
    let current = std::fs::read_link(volume.join(DATA)).ok();
    if let Some(current) = &current
        && same(&volume.join(current), files)
    {
        return Ok(());
    }
    let stamp = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    let name = format!("..{stamp}.{:09}", rand::random::<u32>());
    let next = volume.join(&name);
    std::fs::create_dir(&next)?;
    crate::container::set_mode(&next, 0o755)?;
    for (path, file) in files {
        let target = next.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, &file.bytes)?;
        crate::container::set_mode(&target, file.mode)?;
        if file.user.is_some() {
            std::os::unix::fs::chown(&target, file.user, None)?;
        }
    }
    if let Some(group) = group {
        super::owner::give_read_only(&next, group)?;
    }
    let link = volume.join(DATA_NEXT);
    let _ = std::fs::remove_file(&link);
    symlink(&name, &link)?;
    std::fs::rename(&link, volume.join(DATA))?;
    tops(volume, files)?;
    if let Some(old) = current {
        let _ = std::fs::remove_dir_all(volume.join(old));
    }
    Ok(())
}

/// The names at the top: one link per first part of a path; those of no file go.
fn tops(volume: &Path, files: &Files) -> std::io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in std::fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = volume.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

fn same(folder: &Path, files: &Files) -> bool {
    let mut found = 0;
    count(folder, &mut found);
    found == files.len()
        && files
            .iter()
            .all(|(path, file)| std::fs::read(folder.join(path)).is_ok_and(|bytes| bytes == file.bytes))
}

fn count(folder: &Path, found: &mut usize) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            count(&entry.path(), found);
        } else {
            *found += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644, user: None };
        list.iter().map(|(path, text)| (path.to_string(), file(text))).collect()
    }

    #[test]
    fn files_change_all_at_once_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        let first = std::fs::read_link(dir.path().join(DATA)).unwrap();
        write(dir.path(), &files(&[("a", "1"), ("d/b", "2")]), None).unwrap();
        assert_eq!(std::fs::read_link(dir.path().join(DATA)).unwrap(), first);
        write(dir.path(), &files(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("..2"))
            .collect();
        names.sort();
        assert_eq!(names, ["..data", "a", "c"]);
        assert!(!dir.path().join(first).exists());
    }
}
