//! The proxy's rules as the kernel has them: takes new rules per service, keeps what changed, applies it at once.

use super::batch::{self, Batch, Data, Error, Listing, Part, Set};
use super::chains::{self, Chain};
use super::elements::{self, Compiled, Container, Key, OwnChain, Value};
use super::expression::octets;
use crate::PROXY_TABLE;
use ipnet::IpNet;
use services::{Family, PortRules, Protocol, Ruleset, ServiceRules, Target};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// What the rules depend on besides the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where pods' addresses come from: traffic to cluster addresses from elsewhere is masqueraded. Empty: unknown,
    /// and none is.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where cluster addresses come from; what is not allocated there is dropped. Empty: unknown.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of the node at which node ports are served; loopback addresses are passed over, because the kernel
    /// routes no answer to them.
    pub node_port_addresses: Vec<IpAddr>,
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerading.
    pub masquerade_mark: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            node_port_addresses: Vec::new(),
            masquerade_all: false,
            masquerade_mark: 1 << 14,
        }
    }
}

/// Which services put an element, almost always one. Where several do, the first by name prevails, and the others
/// step in when it goes.
#[derive(Debug)]
enum Claims {
    One(Arc<str>, Value),
    Many(BTreeMap<Arc<str>, Value>),
}

impl Claims {
    fn value(&self) -> Value {
        match self {
            Claims::One(_, value) => *value,
            Claims::Many(all) => *all.values().next().expect("claims without a claimant are removed"),
        }
    }
}

/// A UDP frontend whose endpoints changed: flows that the kernel remembers for others of its endpoints are stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFrontend {
    pub family: Family,
    /// `None` for node ports.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub targets: BTreeSet<Target>,
}

/// What a sync did.
#[derive(Debug, Default)]
pub struct Change {
    /// Elements added and deleted in the kernel.
    pub elements: usize,
    pub full: bool,
    pub udp: Vec<UdpFrontend>,
}

/// The tables of both families. Memory: about a hundred bytes per element.
pub struct Plane {
    settings: Settings,
    families: Vec<Family>,
    services: HashMap<Arc<str>, Compiled>,
    udp: HashMap<Arc<str>, Vec<UdpFrontend>>,
    claims: HashMap<Key, Claims>,
    chains: BTreeMap<(Family, Chain), OwnChain>,
    /// Shared chains that the kernel has.
    shared: BTreeSet<(Family, Chain)>,
    /// Elements whose value may differ from the kernel's, with what the kernel has.
    touched: BTreeMap<Key, Option<Value>>,
    touched_chains: BTreeMap<(Family, Chain), Option<OwnChain>>,
    touched_udp: BTreeSet<Arc<str>>,
    stale: BTreeSet<(Family, Chain)>,
    /// Whether the kernel's tables are known to be ours; otherwise the next sync writes them whole.
    in_step: bool,
}

impl Plane {
    /// An empty plane; nothing is touched until [`Plane::sync`].
    pub fn new(settings: Settings, families: &[Family]) -> Plane {
        Plane {
            settings,
            families: families.to_vec(),
            services: HashMap::new(),
            udp: HashMap::new(),
            claims: HashMap::new(),
            chains: BTreeMap::new(),
            shared: BTreeSet::new(),
            touched: BTreeMap::new(),
            touched_chains: BTreeMap::new(),
            touched_udp: BTreeSet::new(),
            stale: BTreeSet::new(),
            in_step: false,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes other settings: everything is written anew at the next sync. Chains of single services depend on settings
    /// too, so all services must be set again before it.
    pub fn set_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.in_step = false;
        }
    }

    /// Makes the next sync write everything, whatever the kernel has.
    pub fn forget_kernel(&mut self) {
        self.in_step = false;
    }

    /// Makes `ruleset` the whole of the rules.
    pub fn replace(&mut self, ruleset: &Ruleset) {
        let gone: Vec<Arc<str>> =
            self.services.keys().filter(|name| !ruleset.services.contains_key(&***name)).cloned().collect();
        for name in gone {
            self.set_service(&name, &ServiceRules::default());
        }
        for (name, rules) in &ruleset.services {
            self.set_service(name, rules);
        }
    }

    /// Replaces the rules of one service, named `namespace/name`; empty rules remove it.
    pub fn set_service(&mut self, name: &str, rules: &ServiceRules) {
        let mut compiled = elements::compile(rules, &self.settings);
        compiled.elements.retain(|(key, _)| self.families.contains(&key.family));
        compiled.chains.retain(|chain| self.families.contains(&chain.family));
        // Within one service the first rule for a place counts.
        let mut seen = std::collections::HashSet::with_capacity(compiled.elements.len());
        compiled.elements.retain(|(key, _)| seen.insert(*key));
        compiled.elements.shrink_to_fit();
        let name: Arc<str> = match self.services.get_key_value(name) {
            Some((known, old)) if *old == compiled => {
                let known = known.clone();
                self.note_udp(&known, rules);
                return;
            }
            Some((known, _)) => known.clone(),
            None => name.into(),
        };
        self.note_udp(&name, rules);
        let old = self.services.remove(&name).unwrap_or_default();
        let fresh: HashMap<Key, Value> = compiled.elements.iter().copied().collect();
        for (key, _) in old.elements.iter().filter(|(key, _)| !fresh.contains_key(key)) {
            self.unclaim(*key, &name);
        }
        for (key, value) in &compiled.elements {
            self.claim(*key, &name, *value);
        }
        for chain in &old.chains {
            self.touch_chain((chain.family, chain.chain));
            self.chains.remove(&(chain.family, chain.chain));
        }
        for chain in &compiled.chains {
            self.touch_chain((chain.family, chain.chain));
            self.chains.insert((chain.family, chain.chain), chain.clone());
        }
        if *rules != ServiceRules::default() {
            self.services.insert(name, compiled);
        }
    }

    fn touch(&mut self, key: Key) {
        let current = self.claims.get(&key).map(Claims::value);
        self.touched.entry(key).or_insert(current);
    }

    fn touch_chain(&mut self, key: (Family, Chain)) {
        let current = self.chains.get(&key).cloned();
        self.touched_chains.entry(key).or_insert(current);
    }

    fn claim(&mut self, key: Key, name: &Arc<str>, value: Value) {
        self.touch(key);
        match self.claims.get_mut(&key) {
            None => {
                self.claims.insert(key, Claims::One(name.clone(), value));
            }
            Some(Claims::One(owner, old)) if owner == name => *old = value,
            Some(Claims::Many(all)) => {
                all.insert(name.clone(), value);
            }
            Some(claims) => {
                let Claims::One(owner, old) = &*claims else { return };
                let all = BTreeMap::from([(owner.clone(), *old), (name.clone(), value)]);
                *claims = Claims::Many(all);
            }
        }
    }

    fn unclaim(&mut self, key: Key, name: &Arc<str>) {
        self.touch(key);
        let empty = match self.claims.get_mut(&key) {
            Some(Claims::One(owner, _)) => owner == name,
            Some(Claims::Many(all)) => {
                all.remove(name);
                all.is_empty()
            }
            None => false,
        };
        if empty {
            self.claims.remove(&key);
        }
    }

    fn note_udp(&mut self, name: &Arc<str>, rules: &ServiceRules) {
        let mut frontends = Vec::new();
        for port in rules.ports.iter().filter(|port| port.protocol == Protocol::Udp) {
            frontends.extend(udp_frontends(port));
        }
        let old = self.udp.remove(name).unwrap_or_default();
        if old != frontends {
            self.touched_udp.insert(name.clone());
        }
        if !frontends.is_empty() {
            self.udp.insert(name.clone(), frontends);
        }
    }

    /// Whether a sync has anything to do.
    pub fn pending(&self) -> bool {
        !self.in_step || !self.touched.is_empty() || !self.touched_chains.is_empty()
    }

    /// Brings the kernel into step, in one transaction per family. Where the kernel refuses a change, because someone
    /// took our table away, the table is written whole; after an error of that the next sync does so.
    pub fn sync(&mut self) -> Result<Change, Error> {
        let mut change = Change { full: !self.in_step, ..Change::default() };
        for family in self.families.clone() {
            let changed = if change.full { None } else { self.sync_changes(family).map_err(report).ok() };
            change.elements += match changed {
                Some(elements) => elements,
                None => {
                    change.full = true;
                    self.in_step = false;
                    self.sync_whole(family)?
                }
            };
        }
        self.in_step = true;
        self.touched.clear();
        self.touched_chains.clear();
        for name in std::mem::take(&mut self.touched_udp) {
            change.udp.extend(self.udp.get(&name).into_iter().flatten().cloned());
        }
        Ok(change)
    }

    fn sync_changes(&mut self, family: Family) -> Result<usize, Error> {
        let mut deleted: BTreeMap<Container, Vec<Key>> = BTreeMap::new();
        let mut added: BTreeMap<Container, Vec<(Key, Value)>> = BTreeMap::new();
        for (key, before) in self.touched.iter().filter(|(key, _)| key.family == family) {
            let after = self.claims.get(key).map(Claims::value);
            if *before == after {
                continue;
            }
            if before.is_some() {
                deleted.entry(key.container).or_default().push(*key);
            }
            if let Some(after) = after {
                added.entry(key.container).or_default().push((*key, after));
            }
        }
        let mut changed: Vec<(&OwnChain, Option<u32>)> = Vec::new();
        let mut gone = Vec::new();
        for ((_, chain), before) in self.touched_chains.iter().filter(|((of, _), _)| *of == family) {
            match self.chains.get(&(family, *chain)) {
                Some(after) if before.as_ref() != Some(after) => {
                    changed.push((after, before.as_ref().and_then(|before| before.clients_seconds)));
                }
                Some(_) => {}
                None => gone.extend(before.clone()),
            }
        }
        let shared = needed(added.values().flatten().map(|(_, value)| *value));
        let fresh: Vec<Chain> =
            shared.into_iter().filter(|chain| !self.shared.contains(&(family, *chain))).collect();
        let elements =
            deleted.values().map(Vec::len).sum::<usize>() + added.values().map(Vec::len).sum::<usize>();
        if elements == 0 && changed.is_empty() && gone.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::new(family, PROXY_TABLE);
        for chain in &fresh {
            batch.add_chain(&chain.to_string(), None);
            batch.flush_chain(&chain.to_string());
        }
        for (own, _) in &changed {
            batch.add_chain(&own.chain.to_string(), None);
            batch.flush_chain(&own.chain.to_string());
        }
        for own in &gone {
            batch.flush_chain(&own.chain.to_string());
        }
        for (container, keys) in &deleted {
            batch.delete_elements(container.name(), keys.iter().map(Key::bytes));
        }
        for own in gone.iter().filter(|own| own.clients_seconds.is_some()) {
            batch.delete_set(&own.chain.to_string());
        }
        for (own, before) in &changed {
            let Some(seconds) = own.clients_seconds else { continue };
            if before.is_some_and(|before| before != seconds) {
                batch.delete_set(&own.chain.to_string());
            }
            add_clients(&mut batch, own.chain, seconds);
        }
        for chain in &fresh {
            for rule in chain.rules(family, &self.settings) {
                batch.add_rule(&chain.to_string(), &rule);
            }
        }
        for (own, _) in &changed {
            for rule in &own.rules {
                batch.add_rule(&own.chain.to_string(), rule);
            }
        }
        for (container, list) in &added {
            batch.add_elements(container.name(), list.iter().map(|(key, value)| (key.bytes(), value.data())));
        }
        // Kernels before 6.2 hold a chain for a moment after the last element that names it is deleted: a chain is
        // emptied in the transaction that leaves it unused, and deleted in a later one.
        for (_, chain) in self.stale.iter().filter(|(of, _)| *of == family) {
            if !self.chains.contains_key(&(family, *chain)) {
                batch.delete_chain(&chain.to_string());
            }
        }
        batch.send()?;
        self.stale.retain(|(of, _)| *of != family);
        self.stale.extend(gone.iter().map(|own| (family, own.chain)));
        self.shared.extend(fresh.into_iter().map(|chain| (family, chain)));
        Ok(elements)
    }

    /// Writes one family's table whole. The first way keeps the sets of sticky clients; where the table that is there
    /// does not allow it (another version's, or damaged), the second replaces it. Either is one transaction: there is
    /// no moment without rules.
    fn sync_whole(&mut self, family: Family) -> Result<usize, Error> {
        let mut elements: BTreeMap<Container, Vec<(Key, Value)>> = BTreeMap::new();
        for (key, claims) in self.claims.iter().filter(|(key, _)| key.family == family) {
            elements.entry(key.container).or_default().push((*key, claims.value()));
        }
        for list in elements.values_mut() {
            list.sort_unstable_by_key(|(key, _)| *key);
        }
        let shared = needed(elements.values().flatten().map(|(_, value)| *value));
        let found = match batch::table_exists(family, PROXY_TABLE)? {
            true => Some(batch::list(family, PROXY_TABLE)?),
            false => None,
        };
        let kept = found.is_some_and(|found| {
            let batch = self.whole(family, &shared, &elements, Some(&found));
            batch.send().inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::info!(%family, error, "Replaced the nftables table: the one found could not be updated");
            })
            .is_ok()
        });
        if !kept {
            self.whole(family, &shared, &elements, None).send()?;
        }
        self.shared.retain(|(of, _)| *of != family);
        self.shared.extend(shared.into_iter().map(|chain| (family, chain)));
        self.stale.retain(|(of, _)| *of != family);
        Ok(elements.values().map(Vec::len).sum())
    }

    /// The transaction for a whole table. With `found` the table that is there is emptied and filled again, except for
    /// the sets of sticky clients that are still in use; without, it is replaced.
    fn whole(
        &self,
        family: Family,
        shared: &BTreeSet<Chain>,
        elements: &BTreeMap<Container, Vec<(Key, Value)>>,
        found: Option<&Listing>,
    ) -> Batch {
        let own: Vec<&OwnChain> =
            self.chains.iter().filter(|((of, _), _)| *of == family).map(|(_, chain)| chain).collect();
        let mut batch = Batch::new(family, PROXY_TABLE);
        batch.add_table();
        match found {
            None => {
                batch.delete_table();
                batch.add_table();
            }
            Some(found) => clear(&mut batch, found, shared, &own),
        }
        for set in &chains::SETS {
            batch.add_set(set);
        }
        for (name, base) in &chains::FIXED {
            batch.add_chain(name, *base);
        }
        for chain in shared {
            batch.add_chain(&chain.to_string(), None);
        }
        for own in &own {
            batch.add_chain(&own.chain.to_string(), None);
            if let Some(seconds) = own.clients_seconds {
                add_clients(&mut batch, own.chain, seconds);
            }
        }
        chains::fixed_rules(&mut batch, family, &self.settings);
        for chain in shared {
            for rule in chain.rules(family, &self.settings) {
                batch.add_rule(&chain.to_string(), &rule);
            }
        }
        for own in &own {
            for rule in &own.rules {
                batch.add_rule(&own.chain.to_string(), rule);
            }
        }
        let addresses = self.settings.node_port_addresses.iter();
        let addresses: BTreeSet<&IpAddr> =
            addresses.filter(|address| Family::of(address) == family && !address.is_loopback()).collect();
        batch.add_elements("nodeport-ips", addresses.iter().map(|a| (octets(a), batch::ElementData::None)));
        for (container, list) in elements {
            batch.add_elements(container.name(), list.iter().map(|(key, value)| (key.bytes(), value.data())));
        }
        batch
    }

    /// Deletes the proxy's tables. Missing ones are no error.
    pub fn remove() -> Result<(), Error> {
        for family in Family::ALL {
            batch::delete_table(family, PROXY_TABLE)?;
        }
        Ok(())
    }
}

fn report(error: Error) {
    let error: &dyn std::error::Error = &error;
    tracing::info!(error, "Rewrote the nftables table: it was not as this proxy had left it");
}

/// The set of clients that stick to an endpoint, named like its chain.
fn add_clients(batch: &mut Batch, chain: Chain, seconds: u32) {
    let name = chain.to_string();
    batch.add_set(&Set {
        name: &name,
        key: &[Part::Address],
        data: Data::None,
        timeout_seconds: Some(seconds),
    });
}

/// Empties a table that was found, and deletes what it is not to have.
fn clear(batch: &mut Batch, found: &Listing, shared: &BTreeSet<Chain>, own: &[&OwnChain]) {
    for chain in &found.chains {
        batch.flush_chain(chain);
    }
    let fixed = |name: &str| chains::SETS.iter().any(|set| set.name == name);
    let clients: BTreeSet<String> =
        own.iter().filter(|own| own.clients_seconds.is_some()).map(|own| own.chain.to_string()).collect();
    for set in &found.sets {
        if fixed(set) {
            batch.flush_set(set);
        } else if !clients.contains(set) {
            batch.delete_set(set);
        }
    }
    let wanted: BTreeSet<String> = shared
        .iter()
        .copied()
        .chain(own.iter().map(|own| own.chain))
        .map(|chain| chain.to_string())
        .collect();
    for chain in &found.chains {
        if !wanted.contains(chain) && !chains::FIXED.iter().any(|(name, _)| name == chain) {
            batch.delete_chain(chain);
        }
    }
}

/// The shared chains that verdicts name, with those they jump to.
fn needed(values: impl Iterator<Item = Value>) -> BTreeSet<Chain> {
    let mut chains = BTreeSet::new();
    for value in values {
        if let Value::Goto(chain) = value
            && !matches!(chain, Chain::Reject | Chain::Firewall(_) | Chain::Affinity(..))
        {
            chains.extend(chain.needs());
            chains.insert(chain);
        }
    }
    chains
}

fn udp_frontends(port: &PortRules) -> impl Iterator<Item = UdpFrontend> + '_ {
    port.frontends.iter().map(|frontend| UdpFrontend {
        family: port.family,
        address: frontend.address,
        port: frontend.port,
        // Insiders of a Local policy may hold flows to any of the cluster's endpoints.
        targets: port.cluster.iter().chain(&port.local).copied().collect(),
    })
}
