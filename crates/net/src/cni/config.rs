//! What the runtime tells the plugin: environment variables and the network configuration on standard input.

use super::error::{Code, Error};
use super::{VERSIONS, install};
use ipnet::IpNet;
use serde::Deserialize;
use services::Protocol;
use std::net::IpAddr;
use std::path::PathBuf;

/// The CNI_* variables.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
}

impl Environment {
    pub fn from_process() -> Environment {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        Environment {
            command: variable("CNI_COMMAND"),
            container_id: variable("CNI_CONTAINERID"),
            netns: variable("CNI_NETNS"),
            ifname: variable("CNI_IFNAME"),
        }
    }

    /// The container and interface, checked: they become parts of file names.
    pub fn attachment(&self) -> Result<Attachment, Error> {
        let plain = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        };
        if !plain(&self.container_id) || self.container_id.len() > 200 {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!("CNI_CONTAINERID {:?} is not an identifier", self.container_id),
            ));
        }
        if !plain(&self.ifname) || self.ifname.len() > 15 {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!("CNI_IFNAME {:?} is not an interface name", self.ifname),
            ));
        }
        Ok(Attachment { container_id: self.container_id.clone(), ifname: self.ifname.clone() })
    }
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

impl Attachment {
    /// The name of the host's end: found again from the attachment alone.
    pub fn host_link(&self) -> String {
        let text = format!("{}/{}", self.container_id, self.ifname);
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // Fifteen characters are all that the kernel takes.
        format!("{}{:012x}", crate::VETH_PREFIX, hash >> 16)
    }
}

/// A host port, as the runtime passes it under the capability `portMappings`.
///
/// The convention writes `hostPort`; containerd writes Go's field names, which Go's decoder takes in any case.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(default, alias = "Protocol")]
    pub protocol: String,
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    pub host_ip: String,
}

impl PortMapping {
    pub fn protocol(&self) -> Result<Protocol, Error> {
        Protocol::parse(&self.protocol.to_ascii_uppercase()).ok_or_else(|| {
            Error::new(
                Code::InvalidConfig,
                format!("port mapping has the unknown protocol {:?}", self.protocol),
            )
        })
    }

    /// The address that the port is confined to; none for all of the node's.
    pub fn host_address(&self) -> Result<Option<IpAddr>, Error> {
        match self.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Error::new(Code::InvalidConfig, format!("port mapping has the invalid hostIP {text:?}"))
            }),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RuntimeConfig {
    #[serde(rename = "portMappings")]
    port_mappings: Vec<PortMapping>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Stated {
    cni_version: String,
    name: String,
    r#type: String,
    bridge: String,
    mtu: u32,
    subnets: Vec<String>,
    #[serde(rename = "clusterCIDRs")]
    cluster_cidrs: Vec<String>,
    #[serde(rename = "serviceCIDRs")]
    service_cidrs: Vec<String>,
    data_dir: PathBuf,
    runtime_config: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
}

/// One plugin's part of a network configuration list.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    pub version: String,
    pub name: String,
    pub plugin_type: String,
    pub bridge: String,
    /// 0: that of the link with the default route.
    pub mtu: u32,
    /// Ranges that this node gives to its pods, at most one per family.
    pub subnets: Vec<IpNet>,
    /// Ranges of all pods: traffic within is not masqueraded.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of service addresses: host ports never apply to them.
    pub service_cidrs: Vec<IpNet>,
    pub data_dir: PathBuf,
    pub port_mappings: Vec<PortMapping>,
    /// Of GC: the attachments that are to stay.
    pub valid_attachments: Option<Vec<Attachment>>,
}

impl NetworkConfig {
    pub fn read(input: &[u8]) -> Result<NetworkConfig, Error> {
        let stated: Stated = serde_json::from_slice(input).map_err(|cause| {
            Error::caused(Code::Undecodable, "cannot read the network configuration", &cause)
        })?;
        if !VERSIONS.contains(&stated.cni_version.as_str()) {
            return Err(Error::new(
                Code::IncompatibleVersion,
                format!("cniVersion {:?} is not one of {}", stated.cni_version, VERSIONS.join(", ")),
            ));
        }
        let nets = |field: &str, texts: &[String]| -> Result<Vec<IpNet>, Error> {
            texts
                .iter()
                .map(|text| {
                    let net: Result<IpNet, _> = text.parse();
                    net.map(|net| net.trunc()).map_err(|_| {
                        Error::new(Code::InvalidConfig, format!("{field} holds the invalid range {text:?}"))
                    })
                })
                .collect()
        };
        let loopback = stated.r#type == install::LOOPBACK_TYPE;
        let config = NetworkConfig {
            subnets: nets("subnets", &stated.subnets)?,
            cluster_cidrs: nets("clusterCIDRs", &stated.cluster_cidrs)?,
            service_cidrs: nets("serviceCIDRs", &stated.service_cidrs)?,
            version: stated.cni_version,
            name: stated.name,
            plugin_type: stated.r#type,
            bridge: if stated.bridge.is_empty() { crate::BRIDGE.into() } else { stated.bridge },
            mtu: stated.mtu,
            data_dir: stated.data_dir,
            port_mappings: stated
                .runtime_config
                .port_mappings
                .into_iter()
                .filter(|m| m.host_port != 0)
                .collect(),
            valid_attachments: stated.valid_attachments,
        };
        if !loopback && (config.subnets.is_empty() || !config.data_dir.is_absolute()) {
            return Err(Error::new(Code::InvalidConfig, "subnets and an absolute dataDir are needed"));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if !loopback
            && (config.name.is_empty() || config.name.starts_with('.') || !config.name.bytes().all(plain))
        {
            return Err(Error::new(
                Code::InvalidConfig,
                format!("name {:?} cannot be a folder's", config.name),
            ));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_are_read_in_both_spellings() {
        let ours = r#"{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "192.0.2.1"}"#;
        let containerds =
            r#"{"HostPort": 80, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": "192.0.2.1"}"#;
        let read = |text| serde_json::from_str::<PortMapping>(text).unwrap();
        assert_eq!(read(ours), read(containerds));
        assert_eq!(read(containerds).host_port, 80);
    }
}
