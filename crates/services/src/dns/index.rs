//! Which names the cluster has: services by namespace, addresses in reverse, and what stands at the top of the domain.

use super::records::{self, Records};
use super::wire;
use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// What the answers depend on besides the cluster's objects.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster domain, such as `cluster.local`.
    pub domain: String,
    /// Time to live of the cluster's records, positive and negative.
    pub ttl_seconds: u32,
    /// Addresses of the DNS service: `ns.dns.<domain>`.
    pub server_addresses: Vec<IpAddr>,
    /// Ranges for whose addresses the absence of a PTR record is final: services and pods.
    pub reverse_ranges: Vec<IpNet>,
}

#[derive(Debug, Default)]
pub(super) struct Namespace {
    /// Whether the namespace object itself was seen; its services alone make it exist too.
    declared: bool,
    pub services: HashMap<Box<str>, Records>,
}

/// All names of the cluster. Grows with the cluster's services and their endpoints, and with nothing else.
#[derive(Debug)]
pub struct Index {
    pub(super) config: Config,
    /// The domain's labels, outermost last.
    pub(super) zone: Vec<Box<[u8]>>,
    pub(super) soa: Vec<u8>,
    pub(super) name_server: Vec<u8>,
    pub(super) namespaces: HashMap<Box<str>, Namespace>,
    pub(super) reverse: HashMap<IpAddr, BTreeMap<(String, String), Vec<u8>>>,
}

impl Index {
    /// An index without names. `None` when the domain is not a DNS name.
    pub fn new(config: Config) -> Option<Index> {
        let domain = wire::name(&config.domain)?;
        let name_server = wire::name(&format!("ns.dns.{}", config.domain))?;
        let mut soa = name_server.clone();
        soa.extend(wire::name(&format!("hostmaster.{}", config.domain))?);
        // Serial, refresh, retry and expire speak to secondaries, of which there are none; the last one bounds how
        // long a client may remember that a name was absent.
        for number in [1u32, 7200, 1800, 86400, config.ttl_seconds] {
            soa.extend_from_slice(&number.to_be_bytes());
        }
        Some(Index {
            zone: wire::labels(&domain).map(Box::from).collect(),
            soa,
            name_server,
            config,
            namespaces: HashMap::new(),
            reverse: HashMap::new(),
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn insert_namespace(&mut self, name: &str) {
        self.namespaces.entry(name.into()).or_default().declared = true;
    }

    pub fn remove_namespace(&mut self, name: &str) {
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.declared = false;
            if namespace.services.is_empty() {
                self.namespaces.remove(name);
            }
        }
    }

    /// Replaces the records of one service with those of its present state; `slices` are its own.
    pub fn insert_service(&mut self, service: &Service, slices: &[&EndpointSlice]) {
        let meta = &service.metadata;
        self.remove_service(&meta.namespace, &meta.name);
        let suffix = format!("svc.{}", self.config.domain);
        let records = records::records(service, slices, &suffix, self.config.ttl_seconds);
        for (address, name) in &records.reverse {
            let owner = (meta.namespace.clone(), meta.name.clone());
            self.reverse.entry(*address).or_default().insert(owner, name.clone());
        }
        let namespace = self.namespaces.entry(meta.namespace.as_str().into()).or_default();
        namespace.services.insert(meta.name.as_str().into(), records);
    }

    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return };
        let Some(records) = entry.services.remove(name) else { return };
        if entry.services.is_empty() && !entry.declared {
            self.namespaces.remove(namespace);
        }
        let owner = (namespace.to_owned(), name.to_owned());
        for (address, _) in records.reverse {
            if let Some(owners) = self.reverse.get_mut(&address) {
                owners.remove(&owner);
                if owners.is_empty() {
                    self.reverse.remove(&address);
                }
            }
        }
    }

    /// How many services have names.
    pub fn len(&self) -> usize {
        self.namespaces.values().map(|namespace| namespace.services.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.namespaces.values().all(|namespace| namespace.services.is_empty())
    }
}
