//! Puts the plugin where the container runtime looks for it: links to our binary, and a network configuration list.

use super::error::Error;
use ipnet::IpNet;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// The plugin's type, which is also the name under which the binary is called.
pub const PLUGIN_TYPE: &str = "timonel-cni";
/// The plugin that containerd calls first in each sandbox; ours serves for it.
pub const LOOPBACK_TYPE: &str = "loopback";
/// containerd takes the first list by name.
const FILE: &str = "10-timonel.conflist";

/// What a runtime needs to attach pods with this plugin.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Our binary: called as `timonel-cni` or `loopback` it must run [`super::main`].
    pub program: PathBuf,
    /// The runtime's plugin folder.
    pub bin_dir: PathBuf,
    /// The runtime's configuration folder.
    pub conf_dir: PathBuf,
    /// Where reserved addresses are written down.
    pub data_dir: PathBuf,
    /// The node's pod ranges, at most one per family.
    pub subnets: Vec<IpNet>,
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    /// 0: that of the link with the default route.
    pub mtu: u32,
}

impl Installation {
    /// The network configuration list.
    pub fn conflist(&self) -> serde_json::Value {
        let texts = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>();
        json!({
            // The newest version that containerd 1.6 reads.
            "cniVersion": "1.0.0",
            "name": "timonel",
            "plugins": [{
                "type": PLUGIN_TYPE,
                "bridge": crate::BRIDGE,
                "mtu": self.mtu,
                "subnets": texts(&self.subnets),
                "clusterCIDRs": texts(&self.cluster_cidrs),
                "serviceCIDRs": texts(&self.service_cidrs),
                "dataDir": self.data_dir,
                "capabilities": {"portMappings": true},
            }],
        })
    }

    /// Writes everything; what is right already is left untouched. Returns the list's path.
    pub fn install(&self) -> Result<PathBuf, Error> {
        for folder in [&self.bin_dir, &self.conf_dir, &self.data_dir] {
            fs::create_dir_all(folder)
                .map_err(Error::io(format!("cannot make the folder {}", folder.display())))?;
        }
        for name in [PLUGIN_TYPE, LOOPBACK_TYPE] {
            link(&self.program, &self.bin_dir.join(name))?;
        }
        let path = self.conf_dir.join(FILE);
        let text = format!("{:#}\n", self.conflist());
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(path);
        }
        // The runtime watches the folder: it must never see half a file.
        let draft = self.conf_dir.join(".10-timonel.draft");
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .map_err(Error::io(format!("cannot write {}", path.display())))?;
        Ok(path)
    }

    /// Takes away what [`Installation::install`] wrote, except for folders.
    pub fn uninstall(&self) -> Result<(), Error> {
        let paths =
            [self.conf_dir.join(FILE), self.bin_dir.join(PLUGIN_TYPE), self.bin_dir.join(LOOPBACK_TYPE)];
        for path in paths {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("cannot remove {}", path.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn link(program: &Path, at: &Path) -> Result<(), Error> {
    if fs::read_link(at).is_ok_and(|present| present == program) {
        return Ok(());
    }
    let draft = at.with_extension("draft");
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Error::io(format!("cannot remove {}", draft.display()))(error));
    }
    std::os::unix::fs::symlink(program, &draft)
        .and_then(|()| fs::rename(&draft, at))
        .map_err(Error::io(format!("cannot link {}", at.display())))
}
