//! The plugin's own nftables table: masquerading of what leaves the cluster, and host ports.
//!
//! Host ports of all containers stand in one file each; the table's maps are always written whole from the files, in
//! one transaction, so that a lost or damaged table heals with the next pod.

use super::config::{Attachment, NetworkConfig, PortMapping};
use super::error::{Code, Error};
use crate::CNI_TABLE;
use crate::nftables::batch::{
    Base, Batch, Data, ElementData, OUTPUT, POSTROUTING, PREROUTING, Part, Set, table_exists,
};
use crate::nftables::expression::{self as e, Expression, Rule, octets};
use crate::nftables::{hairpin, of_family, port_bytes, target_bytes};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use services::{Family, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
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
        missing |= !own(config, family).is_empty() && !table_exists(family, CNI_TABLE)?;
    }
    if missing { write_table(config, folder, true) } else { Ok(()) }
}

fn own(config: &NetworkConfig, family: Family) -> Vec<&IpNet> {
    config.subnets.iter().filter(|net| Family::of(&net.addr()) == family).collect()
}

fn write_table(config: &NetworkConfig, folder: &Path, fresh: bool) -> Result<(), Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("cannot list host ports"))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let saved: Vec<Saved> = paths.iter().filter_map(|path| read(path)).collect();
    for family in Family::ALL {
        if !own(config, family).is_empty() {
            let missing = fresh || !table_exists(family, CNI_TABLE)?;
            table(config, family, missing, &saved).send()?;
        }
    }
    Ok(())
}

const ADDRESS_PORT: &[Part] = &[Part::Address, Part::Protocol, Part::Port];
const SETS: [Set<'static>; 3] = [
    Set { name: "hostports", key: &[Part::Protocol, Part::Port], data: Data::Target, timeout_seconds: None },
    Set { name: "hostports-at", key: ADDRESS_PORT, data: Data::Target, timeout_seconds: None },
    Set { name: "hairpin", key: &[Part::Address, Part::Address], data: Data::None, timeout_seconds: None },
];

/// The transaction for one family; `fresh` replaces the table, otherwise only its maps' elements.
fn table(config: &NetworkConfig, family: Family, fresh: bool, saved: &[Saved]) -> Batch {
    let mut batch = Batch::new(family, CNI_TABLE);
    if fresh {
        skeleton(config, family, &mut batch);
    } else {
        for set in &SETS {
            batch.flush_set(set.name);
        }
    }
    let mut maps: [BTreeMap<Vec<u8>, Vec<u8>>; 2] = Default::default();
    let mut hairpin = BTreeSet::new();
    for container in saved {
        let Some(address) = container.addresses.iter().find(|address| Family::of(address) == family) else {
            continue;
        };
        for mapping in &container.ports {
            let (Ok(protocol), Ok(host)) = (mapping.protocol(), mapping.host_address()) else { continue };
            if host.is_some_and(|host| Family::of(&host) != family) {
                continue;
            }
            let mut key = host.as_ref().map(octets).unwrap_or_default();
            key.extend(port_bytes(protocol, mapping.host_port));
            let target = target_bytes(&SocketAddr::new(*address, mapping.container_port));
            // Two containers with one port: the scheduler prevents it; the first keeps it.
            maps[usize::from(host.is_some())].entry(key).or_insert(target);
            hairpin.insert([octets(address), octets(address)].concat());
        }
    }
    let [everywhere, confined] = maps;
    for (name, map) in [("hostports", everywhere), ("hostports-at", confined)] {
        batch.add_elements(name, map.into_iter().map(|(key, target)| (key, ElementData::Bytes(target))));
    }
    batch.add_elements("hairpin", hairpin.into_iter().map(|key| (key, ElementData::None)));
    batch
}

fn skeleton(config: &NetworkConfig, family: Family, batch: &mut Batch) {
    const fn base(kind: &'static str, hook: u32, priority: i32) -> Option<Base> {
        Some(Base { kind, hook, priority })
    }
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for set in &SETS {
        batch.add_set(set);
    }
    // Translation just behind the proxy's: where both claim a port, the service has it.
    for (name, base) in [
        ("hostports", None),
        ("filter-prerouting", base("filter", PREROUTING, -300)),
        ("filter-output", base("filter", OUTPUT, 0)),
        ("nat-prerouting", base("nat", PREROUTING, -99)),
        ("nat-output", base("nat", OUTPUT, -99)),
        ("nat-postrouting", base("nat", POSTROUTING, 101)),
    ] {
        batch.add_chain(name, base);
    }
    let mut add = |chain: &str, pieces: &[Rule]| batch.add_rule(chain, &pieces.concat());
    let (source, destination) = (e::source(family, 0), e::destination(family, 0));
    let bridge = &config.bridge;
    // ICMP's and ICMPv6's type of a redirect. Pods of one bridge are to reach each other through the node.
    let (loopback, multicast, icmp, redirect) = match family {
        Family::Ipv4 => ("127.0.0.0/8", "224.0.0.0/4", libc::IPPROTO_ICMP as u8, 5),
        Family::Ipv6 => ("::1/128", "ff00::/8", libc::IPPROTO_ICMPV6 as u8, 137),
    };
    let net = |text: &str| text.parse::<IpNet>().expect("a constant range");
    let (loopback, multicast) = (net(loopback), net(multicast));

    for services in of_family(&config.service_cidrs, family) {
        let leave = vec![Expression::Decide(e::Verdict::Return)];
        add("hostports", &[e::within(destination.clone(), services, true), leave]);
    }
    let translate = |map: &str| vec![Expression::Translate { map: map.into() }, Expression::Dnat { family }];
    add("hostports", &[e::place(family), translate("hostports-at")]);
    let local = e::address_type(false, true).to_vec();
    add("hostports", &[local, e::protocol_and_port(0).to_vec(), translate("hostports")]);

    // The bridge routes loopback addresses for the sake of host ports; pods have no business with them.
    let incoming = e::on_link(bridge, false).to_vec();
    for address in [&destination, &source] {
        let spoofed = e::within(address.clone(), &loopback, true);
        add("filter-prerouting", &[incoming.clone(), spoofed, vec![e::drop()]]);
    }
    let outgoing = e::on_link(bridge, true).to_vec();
    let redirects = [e::is_protocol(icmp), e::first_byte(redirect)].concat();
    add("filter-output", &[outgoing.clone(), redirects, vec![e::drop()]]);
    add("nat-prerouting", &[vec![e::jump("hostports")]]);
    add("nat-output", &[vec![e::jump("hostports")]]);

    let masquerade = Expression::Masquerade { random: true };
    let from_loopback = e::within(source.clone(), &loopback, true);
    add("nat-postrouting", &[outgoing, from_loopback, vec![masquerade.clone()]]);
    add("nat-postrouting", &[hairpin(family, masquerade.clone())]);
    // What leaves the cluster bears the node's address: nobody outside knows the way to a pod.
    for pods in own(config, family) {
        let mut leaving = e::within(source.clone(), pods, true);
        let inside = of_family(&config.cluster_cidrs, family).chain([pods, &multicast]);
        for net in inside {
            leaving.extend(e::within(destination.clone(), net, false));
        }
        leaving.push(masquerade.clone());
        add("nat-postrouting", &[leaving]);
    }
}
