//! Takes away all that this crate put into the kernel and its folder.

use crate::netlink::{self, Socket};
use crate::nftables::{self, Plane};
use services::Family;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot remove links")]
    Links(#[from] netlink::Error),
    #[error("cannot remove nftables tables")]
    Tables(#[from] nftables::Error),
    #[error("cannot remove {path}")]
    Files { path: String, source: std::io::Error },
}

/// What a reset took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub links: Vec<String>,
}

/// Removes the links, tables and CNI data of this node; `data_dir` is the plugin's. What is missing is no error, so
/// it can be repeated. Pods lose their network: their sandboxes should be gone before.
pub fn reset(data_dir: &Path) -> Result<Leftovers, Error> {
    let mut socket = Socket::route()?;
    let mut removed = Leftovers::default();
    let links = socket.links()?;
    let bridge = links.iter().find(|link| link.name == crate::BRIDGE).map(|link| link.index);
    let ports = links.iter().filter(|link| {
        link.name.starts_with(crate::VETH_PREFIX) && (bridge.is_none() || Some(link.master) == bridge)
    });
    let own = links.iter().filter(|link| [crate::BRIDGE, crate::DNS_LINK].contains(&link.name.as_str()));
    for link in ports.chain(own) {
        if socket.delete_link(&link.name)? {
            removed.links.push(link.name.clone());
        }
    }
    Plane::remove()?;
    for family in Family::ALL {
        nftables::batch::delete_table(family, crate::CNI_TABLE)?;
    }
    match std::fs::remove_dir_all(data_dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Files { path: data_dir.display().to_string(), source })
        }
        _ => Ok(removed),
    }
}
