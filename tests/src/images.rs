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

/// Where the test server's libraries lie: not where the static busybox beside it would find and mix them in.
const LIBRARIES: &str = "opt/testserver";

/// The test server, with busybox beside it for `exec`.
pub fn server(name: &str) -> Result<Vec<u8>> {
    let program = binary("testserver")?;
    let mut entries = busybox_entries()?;
    entries.extend(["opt", LIBRARIES].map(|path| Entry::folder(path, 0o755)));
    let mut loader = None;
    for library in libraries(&program)? {
        let file = library.rsplit('/').next().context("a path has a last part")?;
        let place = format!("{LIBRARIES}/{file}");
        if file.starts_with("ld-linux") {
            loader = Some(format!("/{place}"));
        }
        entries.push(Entry::file(&place, 0o755, std::fs::read(&library)?));
    }
    entries.push(Entry::file("bin/testserver", 0o755, std::fs::read(&program)?));
    let loader = loader.context("ldd names no loader")?;
    let entrypoint = [loader.as_str(), "--library-path", &format!("/{LIBRARIES}"), "/bin/testserver"];
    Ok(Archive {
        name: name.into(),
        entries,
        entrypoint: entrypoint.map(String::from).to_vec(),
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
