//! The plugin's own nftables table: masquerading of what leaves the cluster, and host ports.
//!
//! Host ports of all containers stand in one file each; the table's maps are always written whole from the files, in
//! one transaction, so that a lost or damaged table heals with the next pod.

use super::config::{Attachment, NetworkConfig, PortMapping};
use super::error::{Code, Error};
use crate::CNI_TABLE;
use crate::netlink::{Builder, Socket};
use crate::nftables::Nft;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use services::{Family, Protocol};
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
struct Saved {
    addresses: Vec<IpAddr>,
    ports: Vec<PortMapping>,
}

fn file(folder: &Path, attachment: &Attachment) -> PathBuf {
    folder.join(format!("{}@{}", attachment.container_id, attachment.ifname))
}

/// Publishes the configuration's port mappings for a container with these addresses.
pub fn add(
    config: &NetworkConfig,
    folder: &Path,
    attachment: &Attachment,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    for mapping in &config.port_mappings {
        mapping.protocol()?;
        mapping.host_address()?;
    }
    let saved = Saved { addresses: addresses.to_vec(), ports: config.port_mappings.clone() };
    let text = serde_json::to_string(&saved)
        .map_err(|cause| Error::caused(Code::Io, "cannot write down the host ports", &cause))?;
    // Renamed into place: a reader never sees half a file.
    let (path, draft) = (file(folder, attachment), folder.join(".draft"));
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .map_err(Error::io("cannot write down the host ports"))?;
    write_table(config, folder, false)?;
    forget_flows(&config.port_mappings);
    Ok(())
}

/// Withdraws a container's host ports; none is no error.
pub fn remove(config: &NetworkConfig, folder: &Path, attachment: &Attachment) -> Result<(), Error> {
    remove_files(config, folder, &[file(folder, attachment)])
}

/// Withdraws the host ports of all but the given attachments.
pub fn retain(config: &NetworkConfig, folder: &Path, valid: &[Attachment]) -> Result<(), Error> {
    let kept: Vec<PathBuf> = valid.iter().map(|attachment| file(folder, attachment)).collect();
    let entries = fs::read_dir(folder).map_err(Error::io("cannot list host ports"))?;
    let gone: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| !kept.contains(path)).collect();
    remove_files(config, folder, &gone)
}

fn remove_files(config: &NetworkConfig, folder: &Path, paths: &[PathBuf]) -> Result<(), Error> {
    let mut ports = Vec::new();
    let mut removed = false;
    for path in paths {
        let saved = read(path);
        match fs::remove_file(path) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("cannot withdraw host ports")(error)),
        }
        ports.extend(saved.into_iter().flat_map(|saved| saved.ports));
    }
    if removed {
        write_table(config, folder, false)?;
        forget_flows(&ports);
    }
    Ok(())
}

fn read(path: &Path) -> Option<Saved> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// UDP flows to a port that changed hands would go on to the former container.
fn forget_flows(mappings: &[PortMapping]) {
    let ports: Vec<u16> = mappings
        .iter()
        .filter(|m| m.protocol().is_ok_and(|p| p == Protocol::Udp))
        .map(|m| m.host_port)
        .collect();
    for family in Family::ALL {
        if let Err(error) = crate::conntrack::forget_ports(family, &ports) {
            tracing::warn!(%error, ?ports, "Could not forget flows to host ports");
        }
    }
}

/// Writes the table unless it is there; `fresh` writes it in any case.
pub fn ensure_table(config: &NetworkConfig, folder: &Path, fresh: bool) -> Result<(), Error> {
    let mut missing = fresh;
    for family in Family::ALL {
        missing |= !own(config, family).is_empty() && !table_exists(family)?;
    }
    if missing { write_table(config, folder, true) } else { Ok(()) }
}

/// Asks the kernel over netlink: a process of nft would cost each pod some milliseconds.
fn table_exists(family: Family) -> Result<bool, Error> {
    // From linux/netfilter/nfnetlink.h and nf_tables.h.
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    const NFT_MSG_GETTABLE: u16 = 1;
    const NFTA_TABLE_NAME: u16 = 1;
    let number = match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    };
    let request = Builder::new((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETTABLE, 0, &[number, 0, 0, 0])
        .text(NFTA_TABLE_NAME, CNI_TABLE);
    match Socket::netfilter()?.request("find a table", request) {
        Ok(()) => Ok(true),
        Err(error) if error.is(nix::Error::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn own(config: &NetworkConfig, family: Family) -> Vec<&IpNet> {
    config.subnets.iter().filter(|net| Family::of(&net.addr()) == family).collect()
}

fn write_table(config: &NetworkConfig, folder: &Path, fresh: bool) -> Result<(), Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("cannot list host ports"))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let saved: Vec<Saved> = paths.iter().filter_map(|path| read(path)).collect();
    let mut script = String::new();
    for family in Family::ALL {
        if !own(config, family).is_empty() {
            let missing = fresh || !table_exists(family)?;
            table(config, family, missing, &saved, &mut script);
        }
    }
    Ok(Nft::default().apply(&script)?)
}

/// The script for one family; `fresh` replaces the table, otherwise only its maps.
fn table(config: &NetworkConfig, family: Family, fresh: bool, saved: &[Saved], script: &mut String) {
    let ip = match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    };
    if fresh {
        skeleton(config, family, script);
    } else {
        for (kind, name) in [("map", "hostports"), ("map", "hostports-at"), ("set", "hairpin")] {
            script.push_str(&format!("flush {kind} {ip} {CNI_TABLE} {name}\n"));
        }
    }
    let mut taken = std::collections::BTreeSet::new();
    for container in saved {
        let Some(address) = container.addresses.iter().find(|address| Family::of(address) == family) else {
            continue;
        };
        let mut published = false;
        for mapping in &container.ports {
            let (Ok(protocol), Ok(host)) = (mapping.protocol(), mapping.host_address()) else { continue };
            if host.is_some_and(|host| Family::of(&host) != family) {
                continue;
            }
            // Two containers with one port: the scheduler prevents it; the first keeps it.
            if !taken.insert((host, protocol, mapping.host_port)) {
                continue;
            }
            published = true;
            let place = format!("{} . {}", protocol.lower(), mapping.host_port);
            let target = format!("{address} . {}", mapping.container_port);
            let (map, key) = match host {
                Some(host) => ("hostports-at", format!("{host} . {place}")),
                None => ("hostports", place),
            };
            writeln!(script, "add element {ip} {CNI_TABLE} {map} {{ {key} : {target} }}")
                .expect("a String takes all");
        }
        if published {
            writeln!(script, "add element {ip} {CNI_TABLE} hairpin {{ {address} . {address} }}")
                .expect("a String takes all");
        }
    }
}

fn skeleton(config: &NetworkConfig, family: Family, script: &mut String) {
    let (ip, kind, loopback, multicast, redirect) = match family {
        Family::Ipv4 => ("ip", "ipv4_addr", "127.0.0.0/8", "224.0.0.0/4", "icmp type redirect"),
        Family::Ipv6 => ("ip6", "ipv6_addr", "::1", "ff00::/8", "icmpv6 type nd-redirect"),
    };
    let list = |nets: &[IpNet]| {
        let own: Vec<String> =
            nets.iter().filter(|net| Family::of(&net.addr()) == family).map(|net| net.to_string()).collect();
        own.join(", ")
    };
    let pods = list(&config.subnets);
    let mut inside: Vec<IpNet> = config.cluster_cidrs.clone();
    inside.extend(
        config.subnets.iter().filter(|net| !config.cluster_cidrs.iter().any(|all| all.contains(*net))),
    );
    let cluster = list(&inside);
    let services = match list(&config.service_cidrs) {
        services if services.is_empty() => String::new(),
        services => format!("{ip} daddr {{ {services} }} return\n    "),
    };
    let bridge = &config.bridge;
    // Table first added, then deleted: the deletion must not fail when there is none.
    script.push_str(&format!(
        "add table {ip} {CNI_TABLE}
delete table {ip} {CNI_TABLE}
table {ip} {CNI_TABLE} {{
  map hostports {{ type inet_proto . inet_service : {kind} . inet_service; }}
  map hostports-at {{ type {kind} . inet_proto . inet_service : {kind} . inet_service; }}
  set hairpin {{ type {kind} . {kind}; }}
  chain hostports {{
    {services}meta l4proto {{ tcp, udp, sctp }} dnat {ip} to {ip} daddr . meta l4proto . th dport map @hostports-at
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} dnat {ip} to meta l4proto . th dport map @hostports
  }}
  chain filter-prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname \"{bridge}\" {ip} daddr {loopback} drop
    iifname \"{bridge}\" {ip} saddr {loopback} drop
  }}
  chain filter-output {{
    type filter hook output priority 0; policy accept;
    oifname \"{bridge}\" {redirect} drop
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority -99; policy accept;
    jump hostports
  }}
  chain nat-output {{
    type nat hook output priority -99; policy accept;
    jump hostports
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority 101; policy accept;
    oifname \"{bridge}\" {ip} saddr {loopback} masquerade
    ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade
    {ip} saddr {{ {pods} }} {ip} daddr != {{ {cluster} }} {ip} daddr != {multicast} masquerade fully-random
  }}
}}
"
    ));
}
