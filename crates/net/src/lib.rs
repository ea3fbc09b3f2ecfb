//! What a node does to the kernel's network: service rules in nftables, links, addresses and routes over netlink, and
//! the CNI plugin that attaches pods.
//!
//! Everything made here bears a name of ours (tables `timonel` and `timonel-cni`, link `timonel0`, veths `tml...`), is
//! found again by it, and is taken away by [`reset`]. Nothing of the host's own is read or changed, with the one
//! exception of the sysctls that forwarding needs.

pub mod cni;
pub mod conntrack;
pub mod datagrams;
pub mod netlink;
pub mod netns;
pub mod nftables;
mod reset;

pub use reset::{Error as ResetError, Leftovers, reset};

/// The bridge that pods of this node hang on.
pub const BRIDGE: &str = "timonel0";
/// Prefix of the host's ends of pod links.
pub const VETH_PREFIX: &str = "tml";
/// The link that carries the cluster DNS address.
pub const DNS_LINK: &str = "timonel-dns";
/// The nftables table of the service proxy, in each family.
pub const PROXY_TABLE: &str = "timonel";
/// The nftables table of the network plugin: masquerading and host ports.
pub const CNI_TABLE: &str = "timonel-cni";

/// Makes sure that a link of ours that carries addresses only is there, up, and has them. It is a bridge without ports:
/// not every kernel has dummy links, and bridges are needed for pods anyway.
pub fn ensure_address_link(name: &str, addresses: &[std::net::IpAddr]) -> Result<(), netlink::Error> {
    let mut socket = netlink::Socket::route()?;
    let mut link = socket.link(name)?;
    if link.is_none() {
        socket.add_link(name, "bridge", 1500)?;
        link = socket.link(name)?;
    }
    let link = link.ok_or(netlink::Error::Vanished)?;
    for address in addresses {
        socket.add_address(link.index, (*address).into())?;
    }
    if !link.up {
        socket.set_up(link.index)?;
    }
    Ok(())
}
