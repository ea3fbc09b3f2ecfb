//! The vocabulary of service rules: what a node's data plane is to do, in a form that can be printed and compared.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// An IP family; rules of the two never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    pub fn of(address: &IpAddr) -> Family {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        })
    }
}

/// A transport protocol that a service port may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Reads the API's name; empty means TCP, the API's default.
    pub fn parse(name: &str) -> Option<Protocol> {
        match name {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    pub fn lower(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// The number of RFC 790 and its successors.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// Where traffic is sent: an endpoint's address and port.
pub type Target = SocketAddr;

/// What the rules of one node depend on besides services and slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    pub node_name: String,
    /// The node's `topology.kubernetes.io/zone`; empty when it has none.
    pub zone: String,
}

/// How traffic reaches a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
    NodePort,
}

impl Role {
    /// External frontends follow `externalTrafficPolicy`, and their traffic is masqueraded unless it stays on the node.
    pub fn external(self) -> bool {
        self != Role::ClusterIp
    }
}

/// Which endpoints a frontend draws from: all that the cluster offers, or those of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    Cluster,
    Local,
}

/// What becomes of traffic that has no endpoint to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Nothing serves it anywhere: the client is told at once.
    Reject,
    /// The policy is Local and only other nodes serve it: a load balancer is expected to look elsewhere.
    Drop,
}

/// One address and port at which a service port is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub role: Role,
    /// `None` for node ports: the node's own addresses.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub pool: Pool,
    /// Set exactly when `pool` is empty.
    pub refusal: Option<Refusal>,
    /// Sources that a load balancer address admits; empty admits all.
    pub sources: Vec<IpNet>,
}

/// The rules of one service port in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRules {
    /// `namespace/name:port`, or `namespace/name` where the port has no name.
    pub name: String,
    pub family: Family,
    pub protocol: Protocol,
    /// Usable endpoints in the cluster, topology considered; sorted.
    pub cluster: Vec<Target>,
    /// Usable endpoints on this node; filled only when a policy is Local; sorted.
    pub local: Vec<Target>,
    /// How long a client sticks to its endpoint, for session affinity `ClientIP`.
    pub affinity_seconds: Option<u32>,
    pub frontends: Vec<Frontend>,
}

impl PortRules {
    pub fn targets(&self, pool: Pool) -> &[Target] {
        match pool {
            Pool::Cluster => &self.cluster,
            Pool::Local => &self.local,
        }
    }
}

/// The health check that a load balancer polls to find nodes with endpoints (`healthCheckNodePort`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    pub namespace: String,
    pub name: String,
    pub local_endpoints: usize,
}

/// The rules of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceRules {
    pub ports: Vec<PortRules>,
    /// The service's cluster addresses: ports of theirs that no rule names are refused.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses of usable endpoints on this node: they may reach themselves through the service.
    pub local_addresses: BTreeSet<IpAddr>,
    pub health_check: Option<HealthCheck>,
}

/// The rules of all services on one node, by `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub services: BTreeMap<String, ServiceRules>,
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rules in self.services.values() {
            write!(f, "{rules}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ServiceRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for port in &self.ports {
            write!(f, "{port}")?;
        }
        if !self.local_addresses.is_empty() {
            write!(f, "hairpin:")?;
            for address in &self.local_addresses {
                write!(f, " {address}")?;
            }
            writeln!(f)?;
        }
        if let Some(check) = &self.health_check {
            writeln!(f, "health check :{} {} local", check.port, check.local_endpoints)?;
        }
        Ok(())
    }
}

impl fmt::Display for PortRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.family, self.protocol)?;
        if let Some(seconds) = self.affinity_seconds {
            write!(f, " affinity {seconds}s")?;
        }
        writeln!(f)?;
        for (label, targets) in [("cluster", &self.cluster), ("local", &self.local)] {
            if !targets.is_empty() {
                write!(f, "  {label}:")?;
                for target in targets {
                    write!(f, " {target}")?;
                }
                writeln!(f)?;
            }
        }
        for frontend in &self.frontends {
            write!(f, "  {:?} ", frontend.role)?;
            match frontend.address {
                Some(address) => write!(f, "{}", SocketAddr::new(address, frontend.port))?,
                None => write!(f, "*:{}", frontend.port)?,
            }
            match frontend.refusal {
                Some(refusal) => write!(f, " -> {refusal:?}")?,
                None => write!(f, " -> {:?}", frontend.pool)?,
            }
            if !frontend.sources.is_empty() {
                write!(f, " from")?;
                for source in &frontend.sources {
                    write!(f, " {source}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
