//! Debian's image registry on loopback, in the open or behind a user name and password.

use crate::{cluster::free_port, eventually};
use anyhow::{Context, Result};
use std::process::{Child, Command, Stdio};

/// The one user of a guarded registry, and the same as a line of its password file.
pub const USER: &str = "sailor";
pub const PASSWORD: &str = "sailor-test";
const PASSWORD_LINE: &str = "sailor:$2b$04$iIsbXj9jyyolaTvWonR4r.5S7WFvZLKpylUzvpINnii3PmWBZkqxy";

pub struct Registry {
    child: Child,
    _folder: tempfile::TempDir,
    /// Host and port, as image names begin.
    pub host: String,
}

impl Registry {
    pub fn start(guarded: bool) -> Result<Registry> {
        let folder = tempfile::Builder::new().prefix("timonel-registry-").tempdir()?;
        let host = format!("127.0.0.1:{}", free_port()?);
        let storage = folder.path().join("images");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\n",
            storage.display()
        );
        if guarded {
            let passwords = folder.path().join("passwords");
            std::fs::write(&passwords, format!("{PASSWORD_LINE}\n"))?;
            config += &format!("auth: {{htpasswd: {{realm: harbour, path: {}}}}}\n", passwords.display());
        }
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the registry: is Debian's docker-registry installed?")?;
        let registry = Registry { child, _folder: folder, host };
        eventually(10, || {
            std::net::TcpStream::connect(&registry.host).context("the registry does not answer")
        })?;
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
