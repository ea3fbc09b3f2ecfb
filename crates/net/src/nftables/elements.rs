//! From the rules of one service to map elements, and to chains of its own where it has session affinity or sources.

use super::batch::ElementData;
use super::chains::{Chain, Part, rule};
use super::expression::{self as e, Expression, Rule, Verdict, octets};
use super::plane::Settings;
use services::{Family, Frontend, Pool, PortRules, Protocol, Refusal, Role, ServiceRules, Target};
use std::net::IpAddr;

/// A set or map of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Container {
    ClusterIps,
    Hairpin,
    ServiceIps,
    NodePorts,
    Endpoints,
    InsideEndpoints,
    NodePortEndpoints,
    NodePortInsideEndpoints,
    NoEndpointServices,
    NoEndpointNodePorts,
    FirewallIps,
}

impl Container {
    pub fn name(self) -> &'static str {
        match self {
            Container::ClusterIps => "cluster-ips",
            Container::Hairpin => "hairpin",
            Container::ServiceIps => "service-ips",
            Container::NodePorts => "service-nodeports",
            Container::Endpoints => "endpoints",
            Container::InsideEndpoints => "inside-endpoints",
            Container::NodePortEndpoints => "nodeport-endpoints",
            Container::NodePortInsideEndpoints => "nodeport-inside-endpoints",
            Container::NoEndpointServices => "no-endpoint-services",
            Container::NoEndpointNodePorts => "no-endpoint-nodeports",
            Container::FirewallIps => "firewall-ips",
        }
    }
}

/// An element's key; which parts count, the container says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub family: Family,
    pub container: Container,
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
    pub slot: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Of sets.
    Member,
    Drop,
    Goto(Chain),
    Target(Target),
}

impl Key {
    /// The key as the kernel compares it: parts padded to words.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(28);
        if let Some(address) = self.address {
            bytes.extend(octets(&address));
            match self.container {
                Container::ClusterIps => return bytes,
                Container::Hairpin => {
                    bytes.extend(octets(&address));
                    return bytes;
                }
                _ => {}
            }
        }
        bytes.extend(port_bytes(self.protocol, self.port));
        match self.container {
            Container::Endpoints
            | Container::InsideEndpoints
            | Container::NodePortEndpoints
            | Container::NodePortInsideEndpoints => bytes.extend(self.slot.to_ne_bytes()),
            _ => {}
        }
        bytes
    }
}

/// Protocol and port, each padded to a word.
pub fn port_bytes(protocol: Protocol, port: u16) -> [u8; 8] {
    let [high, low] = port.to_be_bytes();
    [protocol.number(), 0, 0, 0, high, low, 0, 0]
}

/// An endpoint as a map's data: address and port, padded to words.
pub fn target_bytes(target: &Target) -> Vec<u8> {
    let mut bytes = octets(&target.ip());
    bytes.extend(target.port().to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

impl Value {
    pub fn data(&self) -> ElementData {
        match self {
            Value::Member => ElementData::None,
            Value::Drop => ElementData::Verdict(Verdict::Drop),
            Value::Goto(chain) => ElementData::Verdict(Verdict::Goto(chain.to_string())),
            Value::Target(target) => ElementData::Bytes(target_bytes(target)),
        }
    }
}

/// A chain that belongs to one service, with the set it fills if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnChain {
    pub family: Family,
    pub chain: Chain,
    pub rules: Vec<Rule>,
    /// Seconds a client stays in the set of the same name.
    pub clients_seconds: Option<u32>,
}

/// All that one service puts into the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub elements: Vec<(Key, Value)>,
    pub chains: Vec<OwnChain>,
}

/// Compiles a service's rules.
pub fn compile(rules: &ServiceRules, settings: &Settings) -> Compiled {
    let mut compiled = Compiled::default();
    let mut set = |container: Container, address: IpAddr| {
        let family = Family::of(&address);
        let key =
            Key { family, container, address: Some(address), protocol: Protocol::Tcp, port: 0, slot: 0 };
        compiled.elements.push((key, Value::Member));
    };
    for address in &rules.cluster_ips {
        set(Container::ClusterIps, *address);
    }
    for address in &rules.local_addresses {
        set(Container::Hairpin, *address);
    }
    for port in &rules.ports {
        if port.affinity_seconds.is_some() {
            affinity_chains(port, settings, &mut compiled.chains);
        }
        for frontend in &port.frontends {
            compile_frontend(port, frontend, &mut compiled);
        }
        firewall(port, &mut compiled);
    }
    compiled
}

fn compile_frontend(port: &PortRules, frontend: &Frontend, compiled: &mut Compiled) {
    let node_port = frontend.address.is_none();
    let key = |container: Container, slot: usize| Key {
        family: port.family,
        container,
        address: frontend.address,
        protocol: port.protocol,
        port: frontend.port,
        slot: slot as u32,
    };
    if let Some(refusal) = frontend.refusal {
        let container =
            if node_port { Container::NoEndpointNodePorts } else { Container::NoEndpointServices };
        let value = match refusal {
            Refusal::Drop => Value::Drop,
            Refusal::Reject => Value::Goto(Chain::Reject),
        };
        // A cluster address without endpoints is refused by its membership in cluster-ips already.
        if frontend.role.external() || refusal == Refusal::Drop {
            compiled.elements.push((key(container, 0), value));
        }
    }
    // Policy Local outside: insiders are served as long as anyone in the cluster serves.
    let inside = frontend.role.external() && frontend.pool == Pool::Local && !port.cluster.is_empty();
    if frontend.refusal.is_some() && !inside {
        return;
    }
    let verdict = if node_port { Container::NodePorts } else { Container::ServiceIps };
    compiled.elements.push((key(verdict, 0), Value::Goto(chain_of(port, frontend, inside))));
    if port.affinity_seconds.is_some() {
        return;
    }
    let mut slots = |container: Container, targets: &[Target]| {
        let elements = targets.iter().enumerate();
        compiled
            .elements
            .extend(elements.map(|(slot, target)| (key(container, slot), Value::Target(*target))));
    };
    let (own, insiders) = if node_port {
        (Container::NodePortEndpoints, Container::NodePortInsideEndpoints)
    } else {
        (Container::Endpoints, Container::InsideEndpoints)
    };
    slots(own, port.targets(frontend.pool));
    if inside {
        slots(insiders, &port.cluster);
    }
}

fn chain_of(port: &PortRules, frontend: &Frontend, inside: bool) -> Chain {
    if port.affinity_seconds.is_some() {
        let part = match (frontend.role.external(), frontend.pool) {
            (true, _) => Part::External,
            (false, _) => Part::ClusterIp,
        };
        return Chain::Affinity(hash(port), part);
    }
    let count = port.targets(frontend.pool).len() as u32;
    let cluster = port.cluster.len() as u32;
    match (frontend.role, inside) {
        (Role::ClusterIp, _) => Chain::Cluster(count),
        (Role::NodePort, true) => Chain::NodePortLocal(count, cluster),
        (Role::NodePort, false) => Chain::NodePort(count),
        (_, true) => Chain::Local(count, cluster),
        (_, false) => Chain::External(count),
    }
}

/// A client returns to the endpoint whose set it stands in, as long as that endpoint is in the pool; each of its
/// connections renews its stay. A new client gets any endpoint.
fn affinity_chains(port: &PortRules, settings: &Settings, chains: &mut Vec<OwnChain>) {
    let hash = hash(port);
    let family = port.family;
    let endpoint =
        |target: &Target| Chain::Affinity(hash, Part::Endpoint(fnv(target.to_string().as_bytes()) as u32));
    let mut own = |chain: Chain, rules: Vec<Rule>, clients_seconds: Option<u32>| {
        chains.push(OwnChain { family, chain, rules, clients_seconds });
    };
    let mut targets: Vec<&Target> = port.cluster.iter().chain(&port.local).collect();
    targets.sort();
    targets.dedup();
    for target in targets {
        let chain = endpoint(target);
        let enter = vec![e::source(family, 0), Expression::Update { set: chain.to_string() }];
        own(chain, vec![enter, e::dnat_to(target, port.protocol)], port.affinity_seconds);
    }
    for (part, pool) in [(Part::Cluster, &port.cluster), (Part::Local, &port.local)] {
        if !pool.is_empty() {
            own(Chain::Affinity(hash, part), choose(family, pool, endpoint), None);
        }
    }
    let chooser = |pool: Pool| {
        let part = if pool == Pool::Local { Part::Local } else { Part::Cluster };
        (!port.targets(pool).is_empty()).then(|| vec![e::goto(Chain::Affinity(hash, part))])
    };
    let pool_of =
        |external: bool| port.frontends.iter().find(|f| f.role.external() == external).map(|f| f.pool);
    if let Some(goto) = pool_of(false).and_then(chooser) {
        let mut rules: Vec<Rule> = settings.masquerade_cluster_ip(family).into_iter().collect();
        rules.push(goto);
        own(Chain::Affinity(hash, Part::ClusterIp), rules, None);
    }
    let external = match pool_of(true) {
        Some(_) if port.cluster.is_empty() => return,
        Some(Pool::Cluster) => std::iter::once(settings.mark()).chain(chooser(Pool::Cluster)).collect(),
        Some(Pool::Local) => {
            let mut rules = settings.short_circuit(family, Chain::Affinity(hash, Part::Cluster));
            rules.extend(chooser(Pool::Local));
            rules
        }
        None => return,
    };
    own(Chain::Affinity(hash, Part::External), external, None);
}

/// Goes to the endpoint that knows the client, else to one of the pool. Each rule but the last draws whether its
/// endpoint is the one, with the chance that makes all equal: a map inside a rule would need a set of its own.
fn choose(family: Family, pool: &[Target], endpoint: impl Fn(&Target) -> Chain) -> Vec<Rule> {
    let mut rules: Vec<Rule> = pool
        .iter()
        .map(|target| {
            let chain = endpoint(target);
            vec![e::source(family, 0), e::member_of(&chain.to_string()), e::goto(chain)]
        })
        .collect();
    for (at, target) in pool.iter().enumerate() {
        let left = (pool.len() - at) as u32;
        let drawn = [
            Expression::Random { modulus: left, word: 0 },
            Expression::Compare { equal: true, data: 0u32.to_ne_bytes().to_vec() },
        ];
        let drawn = if left > 1 { &drawn[..] } else { &[] };
        rules.push(rule([drawn.to_vec(), vec![e::goto(endpoint(target))]]));
    }
    rules
}

fn firewall(port: &PortRules, compiled: &mut Compiled) {
    let guarded: Vec<&Frontend> =
        port.frontends.iter().filter(|frontend| !frontend.sources.is_empty()).collect();
    let Some(first) = guarded.first() else { return };
    let chain = Chain::Firewall(hash(port));
    // The balancer's address may be the node's own: then what the node sends to it bears it as its source.
    let own_addresses = guarded.iter().filter_map(|frontend| frontend.address).map(ipnet::IpNet::from);
    let mut refuse = Rule::new();
    for net in first.sources.iter().copied().chain(own_addresses) {
        refuse.extend(e::within(e::source(port.family, 0), &net, false));
    }
    refuse.push(e::drop());
    compiled.chains.push(OwnChain { family: port.family, chain, rules: vec![refuse], clients_seconds: None });
    for frontend in guarded {
        let key = Key {
            family: port.family,
            container: Container::FirewallIps,
            address: frontend.address,
            protocol: port.protocol,
            port: frontend.port,
            slot: 0,
        };
        compiled.elements.push((key, Value::Goto(chain)));
    }
}

fn hash(port: &PortRules) -> u64 {
    fnv(format!("{}/{}", port.name, port.protocol).as_bytes())
}

/// FNV-1a: names of chains must be the same in every run, so that a restart finds its clients' sets.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
