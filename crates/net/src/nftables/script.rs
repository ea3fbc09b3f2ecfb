//! Writes nft scripts: whole tables and changes to them.

use super::chains::{self, Chain};
use super::elements::{Container, Key, OwnChain, Value};
use super::plane::Settings;
use super::run::Nft;
use crate::PROXY_TABLE;
use services::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Everything of one family.
pub struct Whole<'a> {
    pub shared: &'a BTreeSet<Chain>,
    pub chains: &'a [&'a OwnChain],
    pub elements: &'a BTreeMap<Container, Vec<(Key, Value)>>,
}

/// A change of one family.
pub struct Update<'a> {
    pub shared: &'a [Chain],
    /// Chains with rules other than before, and the time of the set they had.
    pub changed: &'a [(&'a OwnChain, Option<u32>)],
    /// Chains that nothing names any more.
    pub gone: &'a [OwnChain],
    /// Chains that were gone in an earlier change.
    pub buried: &'a [Chain],
    pub deleted: &'a BTreeMap<Container, Vec<Key>>,
    pub added: &'a BTreeMap<Container, Vec<(Key, Value)>>,
}

/// Names of chains and sets in a table of ours that an earlier run left.
#[derive(Debug, Default)]
pub struct Leftover {
    chains: BTreeSet<String>,
    sets: BTreeSet<String>,
    maps: BTreeSet<String>,
}

impl Leftover {
    /// Reads the table without its elements; `None` when there is none.
    pub fn read(nft: &Nft, family: Family) -> Option<Leftover> {
        let text = nft.query(&["-j", "-t", "list", "table", chains::ip(family), PROXY_TABLE]).ok()?;
        let listing: serde_json::Value = serde_json::from_str(&text).ok()?;
        let mut leftover = Leftover::default();
        for item in listing["nftables"].as_array()? {
            for (kind, names) in
                [("chain", &mut leftover.chains), ("set", &mut leftover.sets), ("map", &mut leftover.maps)]
            {
                names.extend(item[kind]["name"].as_str().map(str::to_owned));
            }
        }
        Some(leftover)
    }
}

/// Writing to a String cannot fail.
macro_rules! line {
    ($text:expr, $($argument:tt)*) => { writeln!($text, $($argument)*).expect("a String takes all") };
}

/// A script for the whole table. With `leftover` the table that is there is emptied and filled again, except for the
/// sets of sticky clients that are still in use; without, it is replaced.
pub fn whole(family: Family, settings: &Settings, whole: &Whole<'_>, leftover: Option<&Leftover>) -> String {
    let ip = chains::ip(family);
    let elements: usize = whole.elements.values().map(Vec::len).sum();
    let mut text = String::with_capacity(4096 + elements * 64);
    line!(text, "add table {ip} {PROXY_TABLE}");
    match leftover {
        None => line!(text, "delete table {ip} {PROXY_TABLE}"),
        Some(leftover) => clear(family, whole, leftover, &mut text),
    }
    // Chains are declared before containers and rules may name them.
    line!(text, "table {ip} {PROXY_TABLE} {{");
    text.push_str(&chains::containers(family));
    for chain in whole.shared {
        line!(text, "  chain {chain} {{ }}");
    }
    for own in whole.chains {
        if let Some(seconds) = own.clients_seconds {
            declare_clients(family, own.chain, seconds, &mut text);
        }
        line!(text, "  chain {} {{ }}", own.chain);
    }
    text.push_str(&chains::fixed(family, settings));
    line!(text, "}}");
    for chain in whole.shared {
        rules(family, *chain, &chain.rules(family, settings), &mut text);
    }
    for own in whole.chains {
        rules(family, own.chain, &own.rules, &mut text);
    }
    let addresses: Vec<_> = settings
        .node_port_addresses
        .iter()
        .filter(|address| Family::of(address) == family && !address.is_loopback())
        .collect();
    if !addresses.is_empty() {
        line!(
            text,
            "add element {ip} {PROXY_TABLE} nodeport-ips {{ {} }}",
            chains::join(addresses.into_iter())
        );
    }
    for (container, list) in whole.elements {
        add(family, *container, list, &mut text);
    }
    text
}

fn clear(family: Family, whole: &Whole<'_>, leftover: &Leftover, text: &mut String) {
    let ip = chains::ip(family);
    for chain in &leftover.chains {
        line!(text, "flush chain {ip} {PROXY_TABLE} {chain}");
    }
    for map in leftover.maps.iter().filter(|name| chains::CONTAINERS.contains(&name.as_str())) {
        line!(text, "flush map {ip} {PROXY_TABLE} {map}");
    }
    for set in leftover.sets.iter().filter(|name| chains::CONTAINERS.contains(&name.as_str())) {
        line!(text, "flush set {ip} {PROXY_TABLE} {set}");
    }
    let clients: BTreeSet<String> = whole
        .chains
        .iter()
        .filter(|own| own.clients_seconds.is_some())
        .map(|own| own.chain.to_string())
        .collect();
    let known = |name: &String| chains::CONTAINERS.contains(&name.as_str()) || clients.contains(name);
    for map in leftover.maps.iter().filter(|name| !known(name)) {
        line!(text, "delete map {ip} {PROXY_TABLE} {map}");
    }
    for set in leftover.sets.iter().filter(|name| !known(name)) {
        line!(text, "delete set {ip} {PROXY_TABLE} {set}");
    }
    let wanted: BTreeSet<String> = whole
        .shared
        .iter()
        .copied()
        .chain(whole.chains.iter().map(|own| own.chain))
        .map(|chain| chain.to_string())
        .chain(chains::FIXED.map(str::to_owned))
        .collect();
    for chain in leftover.chains.difference(&wanted) {
        line!(text, "delete chain {ip} {PROXY_TABLE} {chain}");
    }
}

/// A script that changes the table.
pub fn update(family: Family, settings: &Settings, update: &Update<'_>) -> String {
    let ip = chains::ip(family);
    let mut text = String::with_capacity(1024);
    for chain in update.shared {
        line!(text, "add chain {ip} {PROXY_TABLE} {chain}");
        line!(text, "flush chain {ip} {PROXY_TABLE} {chain}");
    }
    for (own, _) in update.changed {
        line!(text, "add chain {ip} {PROXY_TABLE} {}", own.chain);
        line!(text, "flush chain {ip} {PROXY_TABLE} {}", own.chain);
    }
    for own in update.gone {
        line!(text, "flush chain {ip} {PROXY_TABLE} {}", own.chain);
    }
    for (container, keys) in update.deleted {
        line!(
            text,
            "delete element {ip} {PROXY_TABLE} {} {{ {} }}",
            container.name(),
            chains::join(keys.iter())
        );
    }
    for own in update.gone.iter().filter(|own| own.clients_seconds.is_some()) {
        line!(text, "delete set {ip} {PROXY_TABLE} {}", own.chain);
    }
    for (own, before) in update.changed {
        let Some(seconds) = own.clients_seconds else { continue };
        if before.is_some_and(|before| before != seconds) {
            line!(text, "delete set {ip} {PROXY_TABLE} {}", own.chain);
        }
        line!(text, "table {ip} {PROXY_TABLE} {{");
        declare_clients(family, own.chain, seconds, &mut text);
        line!(text, "}}");
    }
    for chain in update.shared {
        rules(family, *chain, &chain.rules(family, settings), &mut text);
    }
    for (own, _) in update.changed {
        rules(family, own.chain, &own.rules, &mut text);
    }
    for (container, list) in update.added {
        add(family, *container, list, &mut text);
    }
    for chain in update.buried {
        line!(text, "delete chain {ip} {PROXY_TABLE} {chain}");
    }
    text
}

/// The set of clients that stick to an endpoint, named like its chain. `dynamic` because packets fill it.
fn declare_clients(family: Family, chain: Chain, seconds: u32, text: &mut String) {
    let address = chains::address_type(family);
    line!(text, "  set {chain} {{ type {address}; flags dynamic,timeout; timeout {seconds}s; }}");
}

fn rules(family: Family, chain: Chain, rules: &[String], text: &mut String) {
    for rule in rules {
        line!(text, "add rule {} {PROXY_TABLE} {chain} {rule}", chains::ip(family));
    }
}

fn add(family: Family, container: Container, list: &[(Key, Value)], text: &mut String) {
    write!(text, "add element {} {PROXY_TABLE} {} {{ ", chains::ip(family), container.name())
        .expect("a String takes all");
    for (at, (key, value)) in list.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        write!(text, "{separator}{key}{value}").expect("a String takes all");
    }
    text.push_str(" }\n");
}
