//! The commands: attach a pod, check it, let it go, collect what was forgotten.

use super::config::{Attachment, Environment, NetworkConfig};
use super::error::{Code, Error};
use super::{bridge, hostports, ipam};
use crate::netlink::{PeerPlace, Socket};
use crate::netns;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

fn open_namespace(environment: &Environment) -> Result<File, Error> {
    netns::open(Path::new(&environment.netns)).map_err(|cause| {
        Error::caused(
            Code::UnknownContainer,
            format!("cannot open the network namespace {}", environment.netns),
            &cause,
        )
    })
}

fn socket_within(namespace: &File) -> Result<Socket, Error> {
    let opened = netns::within(namespace, Socket::route).map_err(|cause| {
        Error::caused(Code::UnknownContainer, "cannot enter the network namespace", &cause)
    })?;
    Ok(opened?)
}

/// `lo` is set up: the whole of the `loopback` plugin that runtimes call first.
pub fn loopback(environment: &Environment, config: &NetworkConfig) -> Result<Value, Error> {
    match environment.command.as_str() {
        "ADD" => {
            let namespace = open_namespace(environment)?;
            let mut socket = socket_within(&namespace)?;
            set_loopback_up(&mut socket)?;
            Ok(json!({
                "cniVersion": config.version,
                "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": environment.netns}],
                "ips": [ip_json(config, "127.0.0.1/8", None, 0), ip_json(config, "::1/128", None, 0)],
                "dns": {},
            }))
        }
        _ => Ok(Value::Null),
    }
}

fn set_loopback_up(socket: &mut Socket) -> Result<(), Error> {
    if let Some(link) = socket.link("lo")? {
        socket.set_up(link.index)?;
    }
    Ok(())
}

/// Attaches a pod; on failure nothing of it stays.
pub fn add(environment: &Environment, config: &NetworkConfig) -> Result<Value, Error> {
    let attachment = environment.attachment()?;
    let namespace = open_namespace(environment)?;
    let result = attach(environment, config, &attachment, &namespace);
    if result.is_err() {
        // The first error is the one to report.
        if let Err(error) = detach(config, &attachment) {
            tracing::warn!(%error, container = attachment.container_id, "Could not undo a failed attachment");
        }
    }
    result
}

fn attach(
    environment: &Environment,
    config: &NetworkConfig,
    attachment: &Attachment,
    namespace: &File,
) -> Result<Value, Error> {
    let mut host = Socket::route()?;
    let (bridge, mtu, pod) = {
        let store = ipam::Store::open(&config.data_dir, &config.name)?;
        let (bridge, mtu) = bridge::ensure(&mut host, config, &store)?;
        let mut pod = Vec::new();
        for subnet in &config.subnets {
            pod.push((store.reserve(subnet, attachment)?, ipam::gateway(subnet)));
        }
        (bridge, mtu, pod)
    };
    let host_link = attachment.host_link();
    // A former attempt for the same attachment may have come this far.
    host.delete_link(&host_link)?;
    let peer = PeerPlace { name: &attachment.ifname, namespace: namespace.as_fd() };
    host.add_veth(&host_link, mtu, &peer)?;
    let vanished = |what: &str| Error::new(Code::TryAgain, format!("the link {what} vanished"));
    let outer = host.link(&host_link)?.ok_or_else(|| vanished(&host_link))?;
    host.join_bridge(outer.index, bridge.index)?;
    host.set_up(outer.index)?;

    let mut inside = socket_within(namespace)?;
    let inner = inside.link(&attachment.ifname)?.ok_or_else(|| vanished(&attachment.ifname))?;
    if let Some(mac) = pod.iter().find_map(|(address, _)| bridge::mac(address)) {
        inside.set_mac(inner.index, &mac)?;
    }
    set_loopback_up(&mut inside)?;
    inside.set_up(inner.index)?;
    for (address, gateway) in &pod {
        inside.add_address(inner.index, IpNet::from(*address))?;
        inside.add_route(IpNet::from(*gateway), None, inner.index)?;
        inside.add_route(everything(gateway), Some(*gateway), inner.index)?;
    }
    let inner = inside.link(&attachment.ifname)?.ok_or_else(|| vanished(&attachment.ifname))?;

    let addresses: Vec<IpAddr> = pod.iter().map(|(address, _)| *address).collect();
    if !config.port_mappings.is_empty() {
        let store = ipam::Store::open(&config.data_dir, &config.name)?;
        hostports::add(config, &store.ports_folder(), attachment, &addresses)?;
    }
    let ips: Vec<Value> = pod
        .iter()
        .map(|(address, gateway)| ip_json(config, &IpNet::from(*address).to_string(), Some(gateway), 2))
        .collect();
    let routes: Vec<Value> = pod
        .iter()
        .map(|(_, gateway)| json!({"dst": everything(gateway).to_string(), "gw": gateway.to_string()}))
        .collect();
    Ok(json!({
        "cniVersion": config.version,
        "interfaces": [
            {"name": bridge.name, "mac": bridge.mac},
            {"name": outer.name, "mac": outer.mac},
            {"name": inner.name, "mac": inner.mac, "sandbox": environment.netns},
        ],
        "ips": ips,
        "routes": routes,
        "dns": {},
    }))
}

fn everything(like: &IpAddr) -> IpNet {
    let text = if like.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    text.parse().expect("a constant range")
}

/// An address of a result; before 1.0.0 it also names its family.
fn ip_json(config: &NetworkConfig, address: &str, gateway: Option<&IpAddr>, interface: usize) -> Value {
    let mut ip = json!({"address": address, "interface": interface});
    if let Some(gateway) = gateway {
        ip["gateway"] = gateway.to_string().into();
    }
    if config.version.starts_with("0.") {
        ip["version"] = if address.contains(':') { "6" } else { "4" }.into();
    }
    ip
}

/// Lets a pod go. Everything that is gone already is as it should be.
pub fn delete(environment: &Environment, config: &NetworkConfig) -> Result<(), Error> {
    detach(config, &environment.attachment()?)
}

fn detach(config: &NetworkConfig, attachment: &Attachment) -> Result<(), Error> {
    // The link goes first: its address may only pass to another pod when nothing answers to it any more.
    Socket::route()?.delete_link(&attachment.host_link())?;
    let store = ipam::Store::open(&config.data_dir, &config.name)?;
    hostports::remove(config, &store.ports_folder(), attachment)?;
    store.release(attachment)
}

/// Whether the pod's link is there with the addresses that are reserved for it.
pub fn check(environment: &Environment, config: &NetworkConfig) -> Result<(), Error> {
    let attachment = environment.attachment()?;
    let namespace = open_namespace(environment)?;
    let wanted = ipam::Store::open(&config.data_dir, &config.name)?.addresses(&attachment)?;
    let missing = |what: String| Error::new(Code::UnknownContainer, what);
    if wanted.is_empty() {
        return Err(missing(format!("no address is reserved for container {}", attachment.container_id)));
    }
    let host_link = attachment.host_link();
    if Socket::route()?.link(&host_link)?.is_none() {
        return Err(missing(format!("the host's link {host_link} is missing")));
    }
    let mut inside = socket_within(&namespace)?;
    let link = inside
        .link(&attachment.ifname)?
        .ok_or_else(|| missing(format!("the pod's link {} is missing", attachment.ifname)))?;
    let present = inside.addresses(link.index)?;
    for address in wanted {
        if !present.contains(&IpNet::from(address)) {
            return Err(missing(format!("the pod's link {} lacks the address {address}", link.name)));
        }
    }
    Ok(())
}

/// Frees what belongs to no valid attachment.
pub fn collect(config: &NetworkConfig) -> Result<(), Error> {
    let Some(valid) = &config.valid_attachments else {
        return Err(Error::new(Code::InvalidConfig, "GC needs cni.dev/valid-attachments"));
    };
    let store = ipam::Store::open(&config.data_dir, &config.name)?;
    let released = store.release_where(|owner| !valid.contains(owner))?;
    let mut socket = Socket::route()?;
    for attachment in &released {
        socket.delete_link(&attachment.host_link())?;
    }
    hostports::retain(config, &store.ports_folder(), valid)
}

/// Whether ADD can be served: the folder is writable.
pub fn status(config: &NetworkConfig) -> Result<(), Error> {
    ipam::Store::open(&config.data_dir, &config.name)
        .map(|_| ())
        .map_err(|cause| Error::caused(Code::NotAvailable, "addresses cannot be reserved", &cause))
}
