//! The chains: fixed ones that see every packet, and those shared by all services with the same number of endpoints.

use super::plane::Settings;
use services::Family;
use std::fmt::{self, Write};

/// A chain that a verdict may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    Reject,
    /// A cluster address with so many endpoints.
    Cluster(u32),
    /// An external address, policy Cluster.
    External(u32),
    /// An external address, policy Local: endpoints here, endpoints in the cluster.
    Local(u32, u32),
    /// The endpoints in the cluster, for pods and the node itself where the policy outside is Local.
    Inside(u32),
    NodePort(u32),
    NodePortLocal(u32, u32),
    NodePortInside(u32),
    /// Source ranges of one load balancer port; by hash of its name.
    Firewall(u64),
    /// Session affinity of one service port, by hash of its name; the part says which.
    Affinity(u64, Part),
}

/// The chains of one service port with session affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// From its cluster address, policy Cluster.
    ClusterIp,
    /// Chooses among the cluster's endpoints.
    Cluster,
    /// Chooses among this node's endpoints.
    Local,
    /// From its external addresses.
    External,
    /// One endpoint, by hash of its address and port.
    Endpoint(u32),
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chain::Reject => f.write_str("reject-chain"),
            Chain::Cluster(count) => write!(f, "cluster-{count}"),
            Chain::External(count) => write!(f, "external-{count}"),
            Chain::Local(local, cluster) => write!(f, "local-{local}-{cluster}"),
            Chain::Inside(count) => write!(f, "inside-{count}"),
            Chain::NodePort(count) => write!(f, "nodeport-{count}"),
            Chain::NodePortLocal(local, cluster) => write!(f, "nodeport-local-{local}-{cluster}"),
            Chain::NodePortInside(count) => write!(f, "nodeport-inside-{count}"),
            Chain::Firewall(hash) => write!(f, "firewall-{hash:016x}"),
            Chain::Affinity(hash, part) => {
                write!(f, "affinity-{hash:016x}-")?;
                match part {
                    Part::ClusterIp => f.write_str("clusterip"),
                    Part::Cluster => f.write_str("cluster"),
                    Part::Local => f.write_str("local"),
                    Part::External => f.write_str("external"),
                    Part::Endpoint(endpoint) => write!(f, "{endpoint:08x}"),
                }
            }
        }
    }
}

impl Chain {
    /// Shared chains that this one jumps to.
    pub fn needs(self) -> Option<Chain> {
        match self {
            Chain::Local(_, cluster) => Some(Chain::Inside(cluster)),
            Chain::NodePortLocal(_, cluster) => Some(Chain::NodePortInside(cluster)),
            _ => None,
        }
    }

    /// The rules of a shared chain; chains of single services are written with their service.
    pub fn rules(self, family: Family, settings: &Settings) -> Vec<String> {
        let ip = ip(family);
        let address = |map: &str, count: u32| {
            format!(
                "meta l4proto {{ tcp, udp, sctp }} dnat {ip} to {ip} daddr . meta l4proto . th dport . numgen random mod {count} map @{map}"
            )
        };
        let port = |map: &str, count: u32| {
            format!(
                "meta l4proto {{ tcp, udp, sctp }} dnat {ip} to meta l4proto . th dport . numgen random mod {count} map @{map}"
            )
        };
        let mark = settings.mark();
        match self {
            Chain::Cluster(count) => {
                let mut rules = Vec::new();
                rules.extend(settings.masquerade_cluster_ip(family));
                rules.push(address("endpoints", count));
                rules
            }
            Chain::External(count) => vec![mark, address("endpoints", count)],
            Chain::NodePort(count) => vec![mark, port("nodeport-endpoints", count)],
            Chain::Inside(count) => vec![address("inside-endpoints", count)],
            Chain::NodePortInside(count) => vec![port("nodeport-inside-endpoints", count)],
            Chain::Local(local, cluster) => {
                let mut rules = settings.short_circuit(family, Chain::Inside(cluster));
                rules.extend((local > 0).then(|| address("endpoints", local)));
                rules
            }
            Chain::NodePortLocal(local, cluster) => {
                let mut rules = settings.short_circuit(family, Chain::NodePortInside(cluster));
                rules.extend((local > 0).then(|| port("nodeport-endpoints", local)));
                rules
            }
            Chain::Reject | Chain::Firewall(_) | Chain::Affinity(..) => Vec::new(),
        }
    }
}

pub fn ip(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

pub fn address_type(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4_addr",
        Family::Ipv6 => "ipv6_addr",
    }
}

impl Settings {
    pub(super) fn mark(&self) -> String {
        let mark = self.masquerade_mark;
        format!("meta mark set meta mark | {mark:#x}")
    }

    /// Traffic to a cluster address from outside the cluster may come in here and leave to another node: the answer
    /// has to come back this way.
    pub(super) fn masquerade_cluster_ip(&self, family: Family) -> Option<String> {
        let pods = self.cluster_cidrs(family);
        if self.masquerade_all {
            Some(self.mark())
        } else if pods.is_empty() {
            None
        } else {
            Some(format!("{} saddr != {{ {pods} }} {}", ip(family), self.mark()))
        }
    }

    /// Pods and the node itself reach an external address as if they went out to its balancer and came back: the
    /// Local policy is for others.
    pub(super) fn short_circuit(&self, family: Family, inside: Chain) -> Vec<String> {
        let mut rules = Vec::new();
        let pods = self.cluster_cidrs(family);
        if !pods.is_empty() {
            rules.push(format!("{} saddr {{ {pods} }} goto {inside}", ip(family)));
        }
        rules.push(format!("fib saddr type local {}", self.mark()));
        rules.push(format!("fib saddr type local goto {inside}"));
        rules
    }

    fn cluster_cidrs(&self, family: Family) -> String {
        join(self.cluster_cidrs.iter().filter(|net| Family::of(&net.addr()) == family))
    }
}

pub fn join(items: impl Iterator<Item = impl fmt::Display>) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        write!(text, "{item}").expect("a String takes all");
    }
    text
}

/// The sets and maps of a table, all empty. Their types never change with settings.
pub fn containers(family: Family) -> String {
    let (ip, address) = (ip(family), address_type(family));
    let place = format!("{address} . inet_proto . inet_service");
    // Slots are numbers that numgen draws: only typeof can say so.
    let slot = "numgen random mod 65536";
    let target = format!("{ip} daddr . th dport");
    let mut text = String::new();
    for (kind, name, declared) in [
        ("set", "cluster-ips", format!("type {address}")),
        ("set", "nodeport-ips", format!("type {address}")),
        ("set", "hairpin", format!("type {address} . {address}")),
        ("map", "service-ips", format!("type {place} : verdict")),
        ("map", "service-nodeports", "type inet_proto . inet_service : verdict".into()),
        ("map", "endpoints", format!("typeof {ip} daddr . meta l4proto . th dport . {slot} : {target}")),
        (
            "map",
            "inside-endpoints",
            format!("typeof {ip} daddr . meta l4proto . th dport . {slot} : {target}"),
        ),
        ("map", "nodeport-endpoints", format!("typeof meta l4proto . th dport . {slot} : {target}")),
        ("map", "nodeport-inside-endpoints", format!("typeof meta l4proto . th dport . {slot} : {target}")),
        ("map", "no-endpoint-services", format!("type {place} : verdict")),
        ("map", "no-endpoint-nodeports", "type inet_proto . inet_service : verdict".into()),
        ("map", "firewall-ips", format!("type {place} : verdict")),
    ] {
        writeln!(text, "  {kind} {name} {{ {declared}; }}").expect("a String takes all");
    }
    text
}

/// Names of [`containers`], to tell leftovers.
pub const CONTAINERS: [&str; 12] = [
    "cluster-ips",
    "nodeport-ips",
    "hairpin",
    "service-ips",
    "service-nodeports",
    "endpoints",
    "inside-endpoints",
    "nodeport-endpoints",
    "nodeport-inside-endpoints",
    "no-endpoint-services",
    "no-endpoint-nodeports",
    "firewall-ips",
];

/// Names of the fixed chains, base chains first.
pub const FIXED: [&str; 11] = [
    "filter-prerouting-pre-dnat",
    "filter-output-pre-dnat",
    "filter-input",
    "filter-forward",
    "filter-output",
    "nat-prerouting",
    "nat-output",
    "nat-postrouting",
    "services",
    "service-check",
    "reject-chain",
];

/// The fixed chains with their rules.
pub fn fixed(family: Family, settings: &Settings) -> String {
    let ip = ip(family);
    let place = format!("{ip} daddr . meta l4proto . th dport");
    let mark = settings.masquerade_mark;
    let service_cidrs = join(settings.service_cidrs.iter().filter(|net| Family::of(&net.addr()) == family));
    // What nobody was given is not worth a route to the internet. Addresses of the node itself are left to whoever
    // listens there: the node's DNS serves at a cluster address.
    let unallocated = if service_cidrs.is_empty() {
        String::new()
    } else {
        format!("\n    {ip} daddr {{ {service_cidrs} }} drop")
    };
    format!(
        "  chain reject-chain {{
    reject
  }}
  chain service-check {{
    {place} vmap @no-endpoint-services
    fib daddr type local return
    {ip} daddr @cluster-ips reject{unallocated}
  }}
  chain services {{
    {place} vmap @service-ips
    {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }}
  chain filter-prerouting-pre-dnat {{
    type filter hook prerouting priority -110; policy accept;
    ct state new {place} vmap @firewall-ips
  }}
  chain filter-output-pre-dnat {{
    type filter hook output priority -110; policy accept;
    ct state new {place} vmap @firewall-ips
  }}
  chain filter-input {{
    type filter hook input priority 0; policy accept;
    ct state new {ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
    ct state new {place} vmap @no-endpoint-services
  }}
  chain filter-forward {{
    type filter hook forward priority 0; policy accept;
    ct state new jump service-check
  }}
  chain filter-output {{
    type filter hook output priority 0; policy accept;
    ct state new {ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
    ct state new jump service-check
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority -100; policy accept;
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority 100; policy accept;
    meta mark & {mark:#x} != 0 meta mark set meta mark ^ {mark:#x} masquerade fully-random
    ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random
  }}
"
    )
}
