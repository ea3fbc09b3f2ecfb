//! Links, addresses and routes: the requests that attach a pod (rtnetlink).

use super::message::{Attributes, Builder};
use super::{Error, Socket};
use ipnet::IpNet;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const IFINFO_BYTES: usize = 16;
const IFADDR_BYTES: usize = 8;
/// From linux/veth.h and linux/if_link.h; libc does not carry them.
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// Index of the bridge it is a port of; 0 for none.
    pub master: u32,
    /// Hardware address in the usual text form; empty for links without one.
    pub mac: String,
    pub up: bool,
}

/// Where the other end of a new veth goes.
pub struct PeerPlace<'a> {
    pub name: &'a str,
    pub namespace: BorrowedFd<'a>,
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO_BYTES] {
    let mut fixed = [0; IFINFO_BYTES];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: &IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

impl Link {
    fn read(payload: &[u8]) -> Option<Link> {
        let word = |at: usize| Some(u32::from_ne_bytes(payload.get(at..at + 4)?.try_into().ok()?));
        let attributes = Attributes::after(payload, IFINFO_BYTES);
        let number = |kind: u16| {
            attributes
                .clone()
                .find(kind)
                .and_then(|value| Some(u32::from_ne_bytes(value.try_into().ok()?)))
                .unwrap_or(0)
        };
        let name = attributes.clone().find(libc::IFLA_IFNAME)?;
        let mac = attributes.clone().find(libc::IFLA_ADDRESS).unwrap_or(&[]);
        Some(Link {
            index: word(4)?,
            name: String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned(),
            mtu: number(libc::IFLA_MTU),
            master: number(libc::IFLA_MASTER),
            mac: mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
            up: word(8)? & libc::IFF_UP as u32 != 0,
        })
    }
}

impl Socket {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut links = Vec::new();
        let request = Builder::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0));
        self.dump("list links", request, |_, payload| links.extend(Link::read(payload)))?;
        Ok(links)
    }

    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = None;
        let request = Builder::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0)).text(libc::IFLA_IFNAME, name);
        let answer = self.exchange("find a link", request, libc::NLM_F_ACK as u16, |_, payload| {
            found = Link::read(payload);
        });
        match answer {
            Ok(()) => Ok(found),
            Err(error) if error.is(nix::Error::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Adds a link without further properties, such as a `bridge`.
    pub fn add_link(&mut self, name: &str, kind: &str, mtu: u32) -> Result<(), Error> {
        let request = Builder::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, 0, 0))
            .text(libc::IFLA_IFNAME, name)
            .number(libc::IFLA_MTU, mtu)
            .nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, kind));
        self.request("add a link", request)
    }

    /// Adds a pair of linked ends: `name` here, the peer in its namespace.
    pub fn add_veth(&mut self, name: &str, mtu: u32, peer: &PeerPlace<'_>) -> Result<(), Error> {
        let namespace = peer.namespace.as_raw_fd() as u32;
        let request = Builder::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, 0, 0))
            .text(libc::IFLA_IFNAME, name)
            .number(libc::IFLA_MTU, mtu)
            .nested(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |other| {
                        other
                            .raw(&ifinfo(0, 0, 0))
                            .text(libc::IFLA_IFNAME, peer.name)
                            .number(libc::IFLA_MTU, mtu)
                            .number(libc::IFLA_NET_NS_FD, namespace)
                    })
                })
            });
        self.request("add a veth pair", request)
    }

    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        let up = libc::IFF_UP as u32;
        self.request("set a link up", Builder::new(libc::RTM_NEWLINK, 0, &ifinfo(index, up, up)))
    }

    /// Makes a link a port of a bridge, in hairpin mode: where the bridge itself translates addresses (br_netfilter), a
    /// pod that reaches itself through a service needs its frame back on the port it came from.
    pub fn join_bridge(&mut self, index: u32, bridge: u32) -> Result<(), Error> {
        let request =
            Builder::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0)).number(libc::IFLA_MASTER, bridge);
        self.request("add a link to the bridge", request)?;
        let request =
            Builder::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0)).nested(libc::IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_SLAVE_KIND, "bridge")
                    .nested(IFLA_INFO_SLAVE_DATA, |data| data.attribute(IFLA_BRPORT_MODE, &[1]))
            });
        self.request("set a bridge port to hairpin mode", request)
    }

    pub fn set_mac(&mut self, index: u32, mac: &[u8; 6]) -> Result<(), Error> {
        let request =
            Builder::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0)).attribute(libc::IFLA_ADDRESS, mac);
        self.request("set a hardware address", request)
    }

    /// Deletes a link by name, its peer with it. `false` when there was none.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, Error> {
        let request = Builder::new(libc::RTM_DELLINK, 0, &ifinfo(0, 0, 0)).text(libc::IFLA_IFNAME, name);
        match self.request("delete a link", request) {
            Ok(()) => Ok(true),
            Err(error) if error.is(nix::Error::ENODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives a link an address. One that is there already is no error.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), Error> {
        let mut fixed = [0; IFADDR_BYTES];
        fixed[0] = family(&address.addr());
        fixed[1] = address.prefix_len();
        if address.addr().is_ipv6() {
            // Addresses are assigned uniquely here: waiting for duplicates to object would delay every pod by a second.
            fixed[2] = libc::IFA_F_NODAD as u8;
        }
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let bytes = octets(&address.addr());
        let request = Builder::new(libc::RTM_NEWADDR, CREATE, &fixed)
            .attribute(libc::IFA_LOCAL, &bytes)
            .attribute(libc::IFA_ADDRESS, &bytes);
        ignore(self.request("add an address", request), nix::Error::EEXIST)
    }

    /// The addresses of a link.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<IpNet>, Error> {
        let mut found = Vec::new();
        let request = Builder::new(libc::RTM_GETADDR, 0, &[0; IFADDR_BYTES]);
        self.dump("list addresses", request, |_, payload| {
            let on = payload.get(4..8).and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
            let attributes = Attributes::after(payload, IFADDR_BYTES);
            let bytes =
                attributes.clone().find(libc::IFA_LOCAL).or_else(|| attributes.find(libc::IFA_ADDRESS));
            let address = bytes.and_then(|bytes| match bytes.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
                16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
                _ => None,
            });
            if let (Some(address), true) = (address, on == Some(index)) {
                found.extend(IpNet::new(address, payload[1]).ok());
            }
        })?;
        Ok(found)
    }

    /// Adds a route through a link: directly reachable without a gateway. One that is there already is no error.
    pub fn add_route(&mut self, to: IpNet, gateway: Option<IpAddr>, index: u32) -> Result<(), Error> {
        let scope = if gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        let mut fixed = [0u8; 12];
        fixed[0] = family(&to.addr());
        fixed[1] = to.prefix_len();
        fixed[4] = libc::RT_TABLE_MAIN;
        fixed[5] = libc::RTPROT_BOOT;
        fixed[6] = scope;
        fixed[7] = libc::RTN_UNICAST;
        let mut request = Builder::new(libc::RTM_NEWROUTE, CREATE, &fixed);
        if to.prefix_len() > 0 {
            request = request.attribute(libc::RTA_DST, &octets(&to.addr()));
        }
        if let Some(gateway) = gateway {
            request = request.attribute(libc::RTA_GATEWAY, &octets(&gateway));
        }
        ignore(self.request("add a route", request.number(libc::RTA_OIF, index)), nix::Error::EEXIST)
    }
}

fn ignore(result: Result<(), Error>, errno: nix::Error) -> Result<(), Error> {
    match result {
        Err(error) if error.is(errno) => Ok(()),
        other => other,
    }
}
