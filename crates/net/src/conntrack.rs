//! Forgets UDP flows that the kernel still sends to endpoints which are gone.
//!
//! TCP ends by itself when its endpoint does. A UDP flow has no end: as long as the client keeps sending from the same
//! port, the kernel keeps translating to the first choice. So after a UDP service changed, its flows to other than its
//! present endpoints are deleted, and the next packet is a new flow.

use crate::netlink::{Attributes, Builder, Error, Socket};
use crate::nftables::UdpFrontend;
use services::{Family, Protocol};
use std::net::{IpAddr, SocketAddr};

// From linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const NFGENMSG_BYTES: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;

/// One direction of a flow.
#[derive(Debug)]
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
}

impl Tuple {
    fn read(bytes: &[u8]) -> Option<Tuple> {
        let ip = Attributes::after(Attributes::after(bytes, 0).find(CTA_TUPLE_IP)?, 0);
        let proto = Attributes::after(Attributes::after(bytes, 0).find(CTA_TUPLE_PROTO)?, 0);
        let address = |v4: u16, v6: u16| -> Option<IpAddr> {
            if let Some(bytes) = ip.clone().find(v4) {
                return Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?));
            }
            Some(IpAddr::from(<[u8; 16]>::try_from(ip.clone().find(v6)?).ok()?))
        };
        let port = |kind: u16| Some(u16::from_be_bytes(proto.clone().find(kind)?.try_into().ok()?));
        Some(Tuple {
            source: SocketAddr::new(address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)?),
            destination: SocketAddr::new(address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT)?),
            protocol: *proto.clone().find(CTA_PROTO_NUM)?.first()?,
        })
    }
}

/// Deletes flows to the frontends that lead elsewhere than to their present targets. Returns how many.
///
/// `node_port_addresses` are the node's addresses at which frontends without an address are served.
pub fn forget(frontends: &[UdpFrontend], node_port_addresses: &[IpAddr]) -> Result<usize, Error> {
    let mut forgotten = 0;
    for family in Family::ALL {
        let own: Vec<&UdpFrontend> = frontends.iter().filter(|frontend| frontend.family == family).collect();
        if !own.is_empty() {
            forgotten += forget_where(family, &|original, reply| {
                own.iter().any(|frontend| {
                    frontend.port == original.destination.port()
                        && match frontend.address {
                            Some(address) => address == original.destination.ip(),
                            None => node_port_addresses.contains(&original.destination.ip()),
                        }
                        && !frontend.targets.contains(&reply.source)
                })
            })?;
        }
    }
    Ok(forgotten)
}

/// Deletes UDP flows whose original destination has one of these ports: host ports that came or went.
pub fn forget_ports(family: Family, ports: &[u16]) -> Result<usize, Error> {
    if ports.is_empty() {
        return Ok(0);
    }
    forget_where(family, &|original, _| ports.contains(&original.destination.port()))
}

fn forget_where(family: Family, stale: &dyn Fn(&Tuple, &Tuple) -> bool) -> Result<usize, Error> {
    let mut socket = Socket::netfilter()?;
    let number = match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    };
    let fixed = [number, 0, 0, 0];
    let kind = |message: u16| (NFNL_SUBSYS_CTNETLINK << 8) | message;
    let mut deletions = Vec::new();
    socket.dump("list flows", Builder::new(kind(IPCTNL_MSG_CT_GET), 0, &fixed), |_, payload| {
        let attributes = Attributes::after(payload, NFGENMSG_BYTES);
        let (Some(original), Some(reply)) =
            (attributes.clone().find(CTA_TUPLE_ORIG), attributes.clone().find(CTA_TUPLE_REPLY))
        else {
            return;
        };
        let (Some(forth), Some(back)) = (Tuple::read(original), Tuple::read(reply)) else { return };
        if forth.protocol != Protocol::Udp.number() || !stale(&forth, &back) {
            return;
        }
        let mut request = Builder::new(kind(IPCTNL_MSG_CT_DELETE), 0, &fixed)
            .attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, original);
        for kept in [CTA_ID, CTA_ZONE] {
            if let Some(value) = attributes.clone().find(kept) {
                request = request.attribute(kept, value);
            }
        }
        deletions.push(request);
    })?;
    let mut forgotten = 0;
    for request in deletions {
        match socket.request("delete a flow", request) {
            Ok(()) => forgotten += 1,
            // It ended by itself in the meantime.
            Err(error) if error.is(nix::Error::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}
