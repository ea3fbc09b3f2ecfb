//! Images made of what the machine has: Debian's static busybox, and our test server with the libraries it needs.

use crate::{binary, output};
use anyhow::{Context, Result};
use container_runtime::archive::{Archive, Entry};
use std::path::Path;
use std::process::Command;

pub const BUSYBOX: &str = "docker.io/library/busybox:1.36";
pub const SERVER: &str = "timonel.dev/testserver:1";
pub const SERVER_NEXT: &str = "timonel.dev/testserver:2";

/// Folders that programs expect.
fn folders() -> Vec<Entry> {
    let plain = ["bin", "etc", "lib", "lib64", "root", "usr", "usr/bin", "var", "var/log"];
    let mut folders: Vec<Entry> = plain.iter().map(|path| Entry::folder(path, 0o755)).collect();
    folders.push(Entry::folder("tmp", 0o1777));
    folders
}

/// Busybox under the names of all its applets.
fn busybox_entries() -> Result<Vec<Entry>> {
    let program = std::fs::read("/bin/busybox").context("Debian's busybox-static is not installed")?;
    let mut entries = folders();
    entries.push(Entry::file("bin/busybox", 0o755, program));
    entries.push(Entry::file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n".to_vec()));
    entries.push(Entry::file("etc/group", 0o644, b"root:x:0:\n".to_vec()));
    for applet in output(Command::new("/bin/busybox").arg("--list"))?.lines() {
        if applet != "busybox" {
            entries.push(Entry::link(&format!("bin/{applet}"), "busybox"));
        }
    }
    Ok(entries)
}

pub fn busybox(name: &str) -> Result<Vec<u8>> {
    Ok(Archive {
        name: name.into(),
        entries: busybox_entries()?,
        cmd: vec!["sh".into()],
        ..Archive::default()
    }
    .to_tar())
}

/// The test server, with busybox beside it for `exec`.
pub fn server(name: &str) -> Result<Vec<u8>> {
    let program = binary("testserver")?;
    let mut entries = busybox_entries()?;
    for library in libraries(&program)? {
        entries.push(Entry::file(library.trim_start_matches('/'), 0o755, std::fs::read(&library)?));
    }
    let mut known = std::collections::BTreeSet::new();
    for entry in entries.clone() {
        for folder in Path::new(&entry.path).ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
            if known.insert(folder.to_path_buf())
                && !entries.iter().any(|other| Path::new(&other.path) == folder)
            {
                entries.insert(0, Entry::folder(&folder.to_string_lossy(), 0o755));
            }
        }
    }
    entries.sort_by_key(|entry| entry.path.matches('/').count());
    entries.push(Entry::file("bin/testserver", 0o755, std::fs::read(&program)?));
    Ok(Archive {
        name: name.into(),
        entries,
        entrypoint: vec!["/bin/testserver".into()],
        ..Archive::default()
    }
    .to_tar())
}

/// The shared libraries, and the loader, that a program needs.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let text = output(Command::new("ldd").arg(program))?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(text.lines().filter_map(path).collect())
}
