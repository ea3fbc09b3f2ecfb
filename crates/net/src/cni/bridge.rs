//! The bridge that pods hang on, the sysctls that forwarding needs, and the plugin's own table.

use super::config::NetworkConfig;
use super::error::{Code, Error};
use super::{hostports, ipam};
use crate::netlink::{Link, Socket};
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::Path;

/// Ethernet's, for hosts without a default route.
const MTU_DEFAULT: u32 = 1500;

/// Makes sure that the bridge is there with its addresses, and returns it with the MTU for pods. Called under the
/// store's lock.
pub fn ensure(
    socket: &mut Socket,
    config: &NetworkConfig,
    store: &ipam::Store,
) -> Result<(Link, u32), Error> {
    let mut made = false;
    let bridge = match socket.link(&config.bridge)? {
        Some(bridge) => bridge,
        None => {
            let mtu = if config.mtu > 0 { config.mtu } else { default_mtu(socket)? };
            socket.add_link(&config.bridge, "bridge", mtu)?;
            made = true;
            let missing = || Error::new(Code::TryAgain, format!("the bridge {} vanished", config.bridge));
            socket.link(&config.bridge)?.ok_or_else(missing)?
        }
    };
    if made || !bridge.up {
        if let Some(IpAddr::V4(gateway)) = config.subnets.iter().map(ipam::gateway).find(IpAddr::is_ipv4) {
            // A bridge without an address of its own takes the lowest of its ports', which changes as pods come.
            socket.set_mac(bridge.index, &mac(&IpAddr::V4(gateway)).expect("IPv4 has a hardware address"))?;
        }
        socket.set_up(bridge.index)?;
    }
    let present = socket.addresses(bridge.index)?;
    for subnet in &config.subnets {
        let gateway =
            IpNet::new(ipam::gateway(subnet), subnet.prefix_len()).expect("the prefix is the subnet's");
        if !present.contains(&gateway) {
            socket.add_address(bridge.index, gateway)?;
        }
        sysctls(config, subnet, made)?;
    }
    hostports::ensure_table(config, &store.ports_folder(), made)?;
    let mtu = if config.mtu > 0 { config.mtu } else { bridge.mtu };
    Ok((bridge, mtu))
}

/// A pod's and a bridge's hardware address follow from the IPv4 address: when an address passes to another pod, what
/// neighbours remember of it stays true.
pub fn mac(address: &IpAddr) -> Option<[u8; 6]> {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Some([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(_) => None,
    }
}

fn sysctls(config: &NetworkConfig, subnet: &IpNet, made: bool) -> Result<(), Error> {
    if subnet.addr().is_ipv4() {
        set_sysctl("net/ipv4/ip_forward", "1")?;
        if made {
            // Host ports are served on loopback too; the table drops what comes from pods to such addresses.
            set_sysctl(&format!("net/ipv4/conf/{}/route_localnet", config.bridge), "1")?;
        }
    } else {
        set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Writes a sysctl unless it has the value already; read-only mounts are fine as long as the value is right.
fn set_sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|present| present.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value)
        .map_err(Error::io(format!("cannot set the sysctl {}", name.replace('/', "."))))
}

fn default_mtu(socket: &mut Socket) -> Result<u32, Error> {
    let table = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let name = table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then(|| name.to_owned())
    });
    let link = match name {
        Some(name) => socket.link(&name)?,
        None => None,
    };
    Ok(link.map(|link| link.mtu).filter(|mtu| *mtu >= 576).unwrap_or(MTU_DEFAULT))
}
