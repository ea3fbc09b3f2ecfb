//! The chains: fixed ones that see every packet, and those shared by all services with the same number of endpoints.

use super::batch::{
    Base, Batch, Data, FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING, Part as KeyPart, Set,
};
use super::expression::{self as e, Expression, Rule};
use super::plane::Settings;
use ipnet::IpNet;
use services::Family;
use std::fmt;

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

    /// The rules of a shared chain; chains of single services are compiled with their service.
    pub fn rules(self, family: Family, settings: &Settings) -> Vec<Rule> {
        let address = |map: &str, count: u32| translate(family, e::place(family), map, count);
        let port = |map: &str, count: u32| translate(family, e::protocol_and_port(0).to_vec(), map, count);
        let mark = settings.mark();
        match self {
            Chain::Cluster(count) => {
                let mut rules: Vec<Rule> = settings.masquerade_cluster_ip(family).into_iter().collect();
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

/// Draws one of `count` endpoints of the place that `key` loads, and translates to it.
fn translate(family: Family, mut key: Rule, map: &str, count: u32) -> Rule {
    let word = if key.len() == 3 { e::words(family) + 2 } else { 2 };
    key.push(Expression::Random { modulus: count, word });
    key.push(Expression::Translate { map: map.into() });
    key.push(Expression::Dnat { family });
    key
}

/// A rule of several pieces.
pub fn rule(pieces: impl IntoIterator<Item = impl IntoIterator<Item = Expression>>) -> Rule {
    pieces.into_iter().flatten().collect()
}

impl Settings {
    pub(super) fn mark(&self) -> Rule {
        e::set_mark(self.masquerade_mark, true).to_vec()
    }

    /// Traffic to a cluster address from outside the cluster may come in here and leave to another node: the answer
    /// has to come back this way.
    pub(super) fn masquerade_cluster_ip(&self, family: Family) -> Option<Rule> {
        if self.masquerade_all {
            return Some(self.mark());
        }
        let mut rule = Rule::new();
        for net in of_family(&self.cluster_cidrs, family) {
            rule.extend(e::within(e::source(family, 0), net, false));
        }
        if rule.is_empty() {
            return None;
        }
        rule.extend(self.mark());
        Some(rule)
    }

    /// Pods and the node itself reach an external address as if they went out to its balancer and came back: the
    /// Local policy is for others.
    pub(super) fn short_circuit(&self, family: Family, inside: Chain) -> Vec<Rule> {
        let from_pods = of_family(&self.cluster_cidrs, family)
            .map(|net| rule([e::within(e::source(family, 0), net, true), vec![e::goto(inside)]]));
        let mut rules: Vec<Rule> = from_pods.collect();
        rules.push(rule([e::address_type(true, true).to_vec(), self.mark()]));
        rules.push(rule([e::address_type(true, true).to_vec(), vec![e::goto(inside)]]));
        rules
    }
}

pub fn of_family(nets: &[IpNet], family: Family) -> impl Iterator<Item = &IpNet> {
    nets.iter().filter(move |net| Family::of(&net.addr()) == family)
}

/// The sets and maps of a table. Their types never change with settings.
pub const SETS: [Set<'static>; 12] = {
    const ADDRESS: &[KeyPart] = &[KeyPart::Address];
    const PLACE: &[KeyPart] = &[KeyPart::Address, KeyPart::Protocol, KeyPart::Port];
    const PORT: &[KeyPart] = &[KeyPart::Protocol, KeyPart::Port];
    const PLACE_SLOT: &[KeyPart] = &[KeyPart::Address, KeyPart::Protocol, KeyPart::Port, KeyPart::Slot];
    const PORT_SLOT: &[KeyPart] = &[KeyPart::Protocol, KeyPart::Port, KeyPart::Slot];
    const fn set(name: &'static str, key: &'static [KeyPart], data: Data) -> Set<'static> {
        Set { name, key, data, timeout_seconds: None }
    }
    [
        set("cluster-ips", ADDRESS, Data::None),
        set("nodeport-ips", ADDRESS, Data::None),
        set("hairpin", &[KeyPart::Address, KeyPart::Address], Data::None),
        set("service-ips", PLACE, Data::Verdict),
        set("service-nodeports", PORT, Data::Verdict),
        set("endpoints", PLACE_SLOT, Data::Target),
        set("inside-endpoints", PLACE_SLOT, Data::Target),
        set("nodeport-endpoints", PORT_SLOT, Data::Target),
        set("nodeport-inside-endpoints", PORT_SLOT, Data::Target),
        set("no-endpoint-services", PLACE, Data::Verdict),
        set("no-endpoint-nodeports", PORT, Data::Verdict),
        set("firewall-ips", PLACE, Data::Verdict),
    ]
};

/// The base chains, and the fixed ones they jump to.
pub const FIXED: [(&str, Option<Base>); 11] = {
    const fn base(kind: &'static str, hook: u32, priority: i32) -> Option<Base> {
        Some(Base { kind, hook, priority })
    }
    [
        ("filter-prerouting-pre-dnat", base("filter", PREROUTING, -110)),
        ("filter-output-pre-dnat", base("filter", OUTPUT, -110)),
        ("filter-input", base("filter", INPUT, 0)),
        ("filter-forward", base("filter", FORWARD, 0)),
        ("filter-output", base("filter", OUTPUT, 0)),
        ("nat-prerouting", base("nat", PREROUTING, -100)),
        ("nat-output", base("nat", OUTPUT, -100)),
        ("nat-postrouting", base("nat", POSTROUTING, 100)),
        ("services", None),
        ("service-check", None),
        ("reject-chain", None),
    ]
};

/// Appends the fixed chains' rules.
pub fn fixed_rules(batch: &mut Batch, family: Family, settings: &Settings) {
    let node_port = |map: &str| {
        let mut rule = vec![e::destination(family, 0), e::member_of("nodeport-ips")];
        rule.extend(e::protocol_and_port(0));
        rule.push(e::verdict_from(map));
        rule
    };
    let at_place = |map: &str| rule([e::place(family), vec![e::verdict_from(map)]]);
    let fresh = |rest: Rule| rule([e::is_new().to_vec(), rest]);
    let mut add = |chain: &str, rule: Rule| batch.add_rule(chain, &rule);

    add("reject-chain", vec![Expression::Reject { family }]);
    add("services", at_place("service-ips"));
    add("services", node_port("service-nodeports"));
    add("service-check", at_place("no-endpoint-services"));
    // Addresses of the node itself are left to whoever listens there: the node's DNS serves at a cluster address.
    add(
        "service-check",
        rule([e::address_type(false, true).to_vec(), vec![Expression::Decide(e::Verdict::Return)]]),
    );
    let reject = vec![e::destination(family, 0), e::member_of("cluster-ips"), Expression::Reject { family }];
    add("service-check", reject);
    // What nobody was given is not worth a route to the internet.
    for net in of_family(&settings.service_cidrs, family) {
        add("service-check", rule([e::within(e::destination(family, 0), net, true), vec![e::drop()]]));
    }
    for chain in ["filter-prerouting-pre-dnat", "filter-output-pre-dnat"] {
        add(chain, fresh(at_place("firewall-ips")));
    }
    add("filter-input", fresh(node_port("no-endpoint-nodeports")));
    add("filter-input", fresh(at_place("no-endpoint-services")));
    add("filter-forward", fresh(vec![e::jump("service-check")]));
    add("filter-output", fresh(node_port("no-endpoint-nodeports")));
    add("filter-output", fresh(vec![e::jump("service-check")]));
    add("nat-prerouting", vec![e::jump("services")]);
    add("nat-output", vec![e::jump("services")]);
    let mark = settings.masquerade_mark;
    let masquerade = Expression::Masquerade { random: true };
    add(
        "nat-postrouting",
        rule([e::is_marked(mark).to_vec(), e::set_mark(mark, false).to_vec(), vec![masquerade.clone()]]),
    );
    add("nat-postrouting", hairpin(family, masquerade));
}

/// A pod that reached itself through a service: without masquerading it would answer itself directly.
pub fn hairpin(family: Family, masquerade: Expression) -> Rule {
    let own = vec![
        e::source(family, 0),
        e::destination(family, e::words(family)),
        e::member_of("hairpin"),
        masquerade,
    ];
    rule([e::is_translated().to_vec(), own])
}
