//! Gives out the node's pod addresses: a folder with one file per reserved address, under a lock.
//!
//! A file's name is the address, its two lines are container and interface. The next address follows the last one
//! given, so that a freed address rests as long as possible before it is used again.

use super::config::Attachment;
use super::error::{Code, Error};
use ipnet::IpNet;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Largest range searched for a free address: a /16.
const ADDRESSES_MAX: u128 = 1 << 16;

/// The folder, locked until dropped.
pub struct Store {
    folder: PathBuf,
    _lock: nix::fcntl::Flock<File>,
}

impl Store {
    /// Opens `<data>/<network>`, making it if needed, and waits for its lock.
    pub fn open(data: &Path, network: &str) -> Result<Store, Error> {
        let folder = data.join(network);
        fs::create_dir_all(folder.join("ports"))
            .map_err(Error::io(format!("cannot make the folder {}", folder.display())))?;
        let path = folder.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io(format!("cannot open {}", path.display())))?;
        let lock =
            nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| {
                Error::caused(Code::TryAgain, format!("cannot lock {}", path.display()), &errno)
            })?;
        Ok(Store { folder, _lock: lock })
    }

    pub fn ports_folder(&self) -> PathBuf {
        self.folder.join("ports")
    }

    /// The address reserved for an attachment in `subnet`, if any.
    fn reserved(&self, subnet: &IpNet, attachment: &Attachment) -> Result<Option<IpAddr>, Error> {
        Ok(self
            .all()?
            .into_iter()
            .find(|(at, owner)| owner == attachment && subnet.contains(at))
            .map(|(at, _)| at))
    }

    /// All reserved addresses with their owners. Unreadable owners are of a plugin that died between making a file
    /// and filling it: their files are removed.
    fn all(&self) -> Result<Vec<(IpAddr, Attachment)>, Error> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.folder).map_err(Error::io("cannot list reserved addresses"))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("cannot list reserved addresses"))?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse::<IpAddr>().ok())
            else {
                continue;
            };
            let text =
                fs::read_to_string(entry.path()).map_err(Error::io("cannot read a reserved address"))?;
            match text.split_once('\n') {
                Some((container_id, ifname)) => found.push((
                    address,
                    Attachment {
                        container_id: container_id.to_owned(),
                        ifname: ifname.trim_end().to_owned(),
                    },
                )),
                None => {
                    fs::remove_file(entry.path()).map_err(Error::io("cannot remove a broken reservation"))?
                }
            }
        }
        Ok(found)
    }

    /// Reserves an address of `subnet`; an attachment that has one keeps it. The first address of the range is the
    /// gateway's.
    pub fn reserve(&self, subnet: &IpNet, attachment: &Attachment) -> Result<IpAddr, Error> {
        if let Some(address) = self.reserved(subnet, attachment)? {
            return Ok(address);
        }
        let count = usable(subnet);
        let last_path = self.folder.join(if subnet.addr().is_ipv4() { "last.ipv4" } else { "last.ipv6" });
        let last = fs::read_to_string(&last_path).ok().and_then(|text| text.trim().parse::<IpAddr>().ok());
        let start = last
            .filter(|last| subnet.contains(last))
            .map_or(0, |last| number(&last) - number(&subnet.addr()));
        for step in 1..=count {
            // Offset 0 is the range itself, 1 the gateway.
            let offset = 2 + (start.max(1) - 1 + step - 1) % count;
            let address = at(subnet, offset);
            let path = self.folder.join(address.to_string());
            let file = File::options().create_new(true).write(true).open(&path);
            let mut file = match file {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("cannot reserve an address")(error)),
            };
            let text = format!("{}\n{}", attachment.container_id, attachment.ifname);
            file.write_all(text.as_bytes()).map_err(Error::io("cannot reserve an address"))?;
            fs::write(&last_path, address.to_string()).map_err(Error::io("cannot note the last address"))?;
            return Ok(address);
        }
        Err(Error::new(Code::NoAddress, format!("all {count} pod addresses of {subnet} are in use")))
    }

    /// Frees the addresses of an attachment; none is no error.
    pub fn release(&self, attachment: &Attachment) -> Result<(), Error> {
        self.release_where(|owner| owner == attachment).map(|_| ())
    }

    /// Frees the addresses whose owner matches, and returns the owners.
    pub fn release_where(&self, matches: impl Fn(&Attachment) -> bool) -> Result<Vec<Attachment>, Error> {
        let mut released = Vec::new();
        for (address, owner) in self.all()? {
            if matches(&owner) {
                let path = self.folder.join(address.to_string());
                fs::remove_file(path).map_err(Error::io("cannot free an address"))?;
                released.push(owner);
            }
        }
        released.sort();
        released.dedup();
        Ok(released)
    }

    /// The addresses that an attachment holds.
    pub fn addresses(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, Error> {
        Ok(self
            .all()?
            .into_iter()
            .filter(|(_, owner)| owner == attachment)
            .map(|(address, _)| address)
            .collect())
    }
}

/// The gateway: the first address after the range's own.
pub fn gateway(subnet: &IpNet) -> IpAddr {
    at(subnet, 1)
}

/// How many addresses are for pods: all but the range's own, the gateway's and, in IPv4, the broadcast address.
fn usable(subnet: &IpNet) -> u128 {
    let bits = u32::from(subnet.max_prefix_len() - subnet.prefix_len());
    let size = 1u128.checked_shl(bits).unwrap_or(u128::MAX).min(ADDRESSES_MAX);
    let broadcast = u128::from(subnet.addr().is_ipv4());
    size.saturating_sub(2 + broadcast)
}

fn number(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(*address)),
        IpAddr::V6(address) => u128::from(*address),
    }
}

fn at(subnet: &IpNet, offset: u128) -> IpAddr {
    match subnet.addr() {
        IpAddr::V4(first) => IpAddr::from((u32::from(first).wrapping_add(offset as u32)).to_be_bytes()),
        IpAddr::V6(first) => IpAddr::from((u128::from(first).wrapping_add(offset)).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(id: &str) -> Attachment {
        Attachment { container_id: id.into(), ifname: "eth0".into() }
    }

    #[test]
    fn addresses_are_given_once_in_turn_and_end() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path(), "net").unwrap();
        let subnet: IpNet = "10.1.0.0/29".parse().unwrap();
        let reserve = |id: &str| store.reserve(&subnet, &attachment(id)).map(|address| address.to_string());
        let given: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|id| reserve(id).unwrap()).collect();
        assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert_eq!(reserve("b").unwrap(), "10.1.0.3", "an attachment keeps its address");
        assert_eq!(reserve("f").unwrap_err().code, Code::NoAddress);
        store.release(&attachment("c")).unwrap();
        store.release(&attachment("a")).unwrap();
        store.release(&attachment("a")).unwrap();
        assert_eq!(reserve("f").unwrap(), "10.1.0.2", "the search goes on behind the last and starts over");
        assert_eq!(reserve("g").unwrap(), "10.1.0.4");
    }

    #[test]
    fn a_reservation_cut_short_is_free_again() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path(), "net").unwrap();
        let subnet: IpNet = "10.1.0.0/30".parse().unwrap();
        fs::write(data.path().join("net/10.1.0.2"), "").unwrap();
        assert_eq!(store.reserve(&subnet, &attachment("a")).unwrap().to_string(), "10.1.0.2");
    }
}
