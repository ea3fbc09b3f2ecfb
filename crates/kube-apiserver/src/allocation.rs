//! Cluster IPs and node ports: who has which, so that no two services ever share one.
//!
//! Invariants: an address is taken by creating its IPAddress object, a port by setting its bit in the stored range, both
//! under the store's compare-and-swap, so several servers on one store agree. The bitmap in memory only says where to
//! look first.

use crate::objects::{self, resource_of};
use api::core::v1::{RangeAllocation, Service};
use api::errors::ApiError;
use api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use bytes::Bytes;
use ipnet::IpNet;
use meta::ObjectKey;
use parking_lot::Mutex;
use rand::Rng;
use registry::{DeleteOptions, Event, ListOptions, Registry, Request};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{Compare, Op, RangeRequest, Txn};
use tokio_util::sync::CancellationToken;

const MANAGER: &str = "kube-apiserver";
const PORTS_KEY: &str = "/registry/ranges/servicenodeports";
const FAMILY_LABEL: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY_LABEL: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGED_BY: &str = "ipallocator.kubernetes.io";
/// Addresses of a range that are looked at: upstream's limit for wide IPv6 ranges.
const MAX_ADDRESSES: u32 = 1 << 20;
/// How often a random address that turns out to be taken is replaced by another.
const ATTEMPTS: usize = 64;
/// How often a lost race for the ports is run again.
const PORT_ATTEMPTS: usize = 64;
/// After this, an address taken for a service that was never stored is given back.
const UNCLAIMED: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(200);

/// Which offsets of a range are taken.
#[derive(Debug)]
struct Bitmap {
    words: Vec<u64>,
    size: u32,
}

impl Bitmap {
    fn new(size: u32) -> Self {
        Bitmap { words: vec![0; size.div_ceil(64) as usize], size }
    }
    fn set(&mut self, at: u32, taken: bool) {
        if at < self.size {
            let (word, bit) = ((at / 64) as usize, 1u64 << (at % 64));
            if taken { self.words[word] |= bit } else { self.words[word] &= !bit }
        }
    }
    fn is_set(&self, at: u32) -> bool {
        at < self.size && self.words[(at / 64) as usize] & (1 << (at % 64)) != 0
    }
    /// A free offset in `low..high`, from `start` on and around.
    fn free(&self, low: u32, high: u32, start: u32) -> Option<u32> {
        let scan = |from: u32, to: u32| (from..to).find(|at| !self.is_set(*at));
        scan(start.clamp(low, high), high).or_else(|| scan(low, start.clamp(low, high)))
    }
}

/// Everything that hands out addresses and ports.
pub struct Allocator {
    registry: Weak<Registry>,
    range: IpNet,
    ports: (u16, u16),
    taken: Mutex<Bitmap>,
}

/// The lower part of a range, kept for addresses that are asked for by name: a sixteenth, from 16 up to 256.
fn static_band(size: u32) -> u32 {
    if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
}

/// The same for ports: a thirty-second, from 16 up to 128.
fn static_ports(size: u32) -> u32 {
    if size <= 16 { 0 } else { (size / 32).clamp(16, 128) }
}

impl Allocator {
    pub fn new(registry: &Arc<Registry>, range: IpNet, ports: (u16, u16)) -> Arc<Self> {
        let room = u32::from(range.max_prefix_len() - range.prefix_len());
        let all = if room >= 20 { MAX_ADDRESSES } else { 1 << room };
        // The first and, for IPv4, the last address of a range are no host's.
        let size = all - if range.addr().is_ipv4() { 2 } else { 1 };
        Arc::new(Allocator {
            registry: Arc::downgrade(registry),
            range,
            ports,
            taken: Mutex::new(Bitmap::new(size)),
        })
    }

    fn registry(&self) -> Result<Arc<Registry>, ApiError> {
        self.registry.upgrade().ok_or_else(|| ApiError::service_unavailable("the server is shutting down"))
    }

    /// The host address at an offset: offset 0 is the address after the network's.
    fn address(&self, offset: u32) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(base) => IpAddr::V4((u32::from(base) + 1 + offset).into()),
            IpAddr::V6(base) => IpAddr::V6((u128::from(base) + 1 + u128::from(offset)).into()),
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u32> {
        let distance = match (self.range.network(), address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                u128::from(u32::from(address)).checked_sub(u128::from(u32::from(base)) + 1)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => u128::from(address).checked_sub(u128::from(base) + 1),
            _ => None,
        };
        let offset = u32::try_from(distance?).ok()?;
        (offset < self.taken.lock().size).then_some(offset)
    }

    pub fn family(&self) -> &'static str {
        if self.range.addr().is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// Any free address, for the service `owner`. With `dry_run` nothing is taken.
    pub async fn next_address(&self, owner: &ObjectKey, dry_run: bool) -> Result<IpAddr, String> {
        for _ in 0..ATTEMPTS {
            let offset = {
                let taken = self.taken.lock();
                let (band, size) = (static_band(taken.size), taken.size);
                let start = rand::rng().random_range(band..size);
                taken.free(band, size, start).or_else(|| taken.free(0, band, 0))
            };
            let Some(offset) = offset else { return Err("range is full".into()) };
            let address = self.address(offset);
            if dry_run || self.create(address, owner).await? {
                if !dry_run {
                    self.taken.lock().set(offset, true);
                }
                return Ok(address);
            }
            self.taken.lock().set(offset, true);
        }
        Err("range is full".into())
    }

    /// One address that was asked for.
    pub async fn take_address(&self, text: &str, owner: &ObjectKey, dry_run: bool) -> Result<(), String> {
        let offset = text.parse().ok().and_then(|address| self.offset(address));
        let Some(offset) = offset else {
            return Err(format!(
                "the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                self.range
            ));
        };
        let address = self.address(offset);
        let taken = "provided IP is already allocated";
        if dry_run {
            let registry = self.registry().map_err(|error| error.to_string())?;
            let key = ObjectKey::cluster(address.to_string());
            let known =
                objects::get::<IPAddress>(&registry, &key).await.map_err(|error| error.to_string())?;
            return if known.is_some() { Err(taken.into()) } else { Ok(()) };
        }
        if self.create(address, owner).await? || self.take_over(address, owner).await? {
            self.taken.lock().set(offset, true);
            return Ok(());
        }
        Err(taken.into())
    }

    /// Creates the object that holds an address; false if somebody has it.
    async fn create(&self, address: IpAddr, owner: &ObjectKey) -> Result<bool, String> {
        let registry = self.registry().map_err(|error| error.to_string())?;
        let object = self.object(address, owner);
        let resource = resource_of::<IPAddress>();
        match registry.create(&Request::internal(MANAGER), resource, "", Box::new(object)).await {
            Ok(_) => {
                self.check_later(address, owner.clone());
                Ok(true)
            }
            Err(error) if error.is_already_exists() => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    fn object(&self, address: IpAddr, owner: &ObjectKey) -> IPAddress {
        let parent = ParentReference {
            resource: "services".into(),
            namespace: owner.namespace.clone(),
            name: owner.name.clone(),
            ..ParentReference::default()
        };
        let mut object =
            IPAddress { spec: IPAddressSpec { parent_ref: Some(Box::new(parent)) }, ..IPAddress::default() };
        object.metadata.name = address.to_string();
        object.metadata.labels.insert(FAMILY_LABEL.into(), self.family().into());
        object.metadata.labels.insert(MANAGED_BY_LABEL.into(), MANAGED_BY.into());
        object
    }

    /// An address whose owner is gone, but not yet given back, may be taken: a service that is replaced keeps its own.
    async fn take_over(&self, address: IpAddr, owner: &ObjectKey) -> Result<bool, String> {
        self.release(address).await.map_err(|error| error.to_string())?;
        self.create(address, owner).await
    }

    /// Gives an address back if the service it is for does not have it.
    pub async fn release(&self, address: IpAddr) -> Result<(), ApiError> {
        let registry = self.registry()?;
        let key = ObjectKey::cluster(address.to_string());
        let Some(object) = objects::get::<IPAddress>(&registry, &key).await? else {
            if let Some(offset) = self.offset(address) {
                self.taken.lock().set(offset, false);
            }
            return Ok(());
        };
        if object.metadata.labels.get(MANAGED_BY_LABEL).is_none_or(|by| by != MANAGED_BY) {
            return Ok(());
        }
        if let Some(parent) = &object.spec.parent_ref {
            let owner = ObjectKey::new(parent.namespace.clone(), parent.name.clone());
            let held = newest_service(&registry, &owner).await?;
            if held.is_some_and(|service| addresses_of(&service).contains(&address)) {
                return Ok(());
            }
        }
        let options = DeleteOptions { uid: Some(object.metadata.uid.clone()), ..DeleteOptions::default() };
        let resource = resource_of::<IPAddress>();
        match registry.delete(&Request::internal(MANAGER), resource, &key, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Looks after a while whether the service that an address was taken for was stored at all.
    fn check_later(&self, address: IpAddr, owner: ObjectKey) {
        let (registry, range, ports) = (self.registry.clone(), self.range, self.ports);
        let size = self.taken.lock().size;
        tokio::spawn(async move {
            tokio::time::sleep(UNCLAIMED).await;
            let late = Allocator { registry, range, ports, taken: Mutex::new(Bitmap::new(size)) };
            if let Err(error) = late.release(address).await {
                tracing::warn!(%error, %address, %owner, "Could not check an address that was taken");
            }
        });
    }

    /// Takes ports in the stored range: the wanted ones (0 for any). All or none; the error names the place in the list.
    pub async fn take_ports(&self, wanted: &[u16], dry_run: bool) -> Result<Vec<u16>, (usize, String)> {
        let fail = |error: String| (0, error);
        let registry = self.registry().map_err(|error| fail(error.to_string()))?;
        for _ in 0..PORT_ATTEMPTS {
            let (mut bits, revision) = self.read_ports(&registry).await.map_err(fail)?;
            let mut chosen = Vec::with_capacity(wanted.len());
            for (at, port) in wanted.iter().enumerate() {
                let port = self.choose_port(&mut bits, *port).map_err(|error| (at, error))?;
                chosen.push(port);
            }
            if dry_run || self.write_ports(&registry, &bits, revision).await.map_err(fail)? {
                return Ok(chosen);
            }
        }
        Err(fail("could not allocate a port: too many others did at the same time".into()))
    }

    fn choose_port(&self, bits: &mut Bitmap, wanted: u16) -> Result<u16, String> {
        let (low, high) = self.ports;
        if wanted == 0 {
            let band = static_ports(bits.size);
            let start = rand::rng().random_range(band..bits.size);
            let offset = bits.free(band, bits.size, start).or_else(|| bits.free(0, band, 0));
            let offset = offset.ok_or("range is full")?;
            bits.set(offset, true);
            return Ok(low + u16::try_from(offset).expect("a port range has at most 65536 ports"));
        }
        if wanted < low || wanted > high {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {low}-{high}"
            ));
        }
        let offset = u32::from(wanted - low);
        if bits.is_set(offset) {
            return Err("provided port is already allocated".into());
        }
        bits.set(offset, true);
        Ok(wanted)
    }

    async fn read_ports(&self, registry: &Registry) -> Result<(Bitmap, i64), String> {
        let size = u32::from(self.ports.1 - self.ports.0) + 1;
        let answer = registry
            .store()
            .range(RangeRequest::key(PORTS_KEY.to_string()))
            .await
            .map_err(|error| error.to_string())?;
        let Some(entry) = answer.kvs.first() else { return Ok((Bitmap::new(size), 0)) };
        let stored: RangeAllocation =
            api::codec::from_protobuf(&entry.value).map_err(|error| error.to_string())?;
        let mut bits = Bitmap::new(size);
        if stored.range == self.port_range() {
            // Upstream's bitmap is a big-endian number: the last byte holds the lowest offsets.
            for (at, byte) in stored.data.iter().rev().enumerate() {
                for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                    bits.set(at as u32 * 8 + bit, true);
                }
            }
        }
        Ok((bits, entry.mod_revision))
    }

    fn port_range(&self) -> String {
        format!("{}-{}", self.ports.0, self.ports.1)
    }

    async fn write_ports(&self, registry: &Registry, bits: &Bitmap, revision: i64) -> Result<bool, String> {
        let mut data: Vec<u8> = bits.words.iter().rev().flat_map(|word| word.to_be_bytes()).collect();
        let zeros = data.iter().take_while(|byte| **byte == 0).count();
        data.drain(..zeros);
        let allocation = RangeAllocation { range: self.port_range(), data, ..RangeAllocation::default() };
        let value = Bytes::from(api::codec::to_protobuf(&allocation));
        let key = Bytes::from_static(PORTS_KEY.as_bytes());
        let answer = registry
            .store()
            .txn(Txn {
                compares: vec![Compare::mod_revision(key.clone(), revision)],
                success: vec![Op::Put { key, value, lease: 0, prev_kv: false }],
                failure: Vec::new(),
            })
            .await
            .map_err(|error| error.to_string())?;
        Ok(answer.succeeded)
    }

    /// Gives ports back that no service has.
    async fn release_ports(&self, ports: &[u16]) -> Result<(), String> {
        let registry = self.registry().map_err(|error| error.to_string())?;
        let held = held_ports(&registry).await.map_err(|error| error.to_string())?;
        for _ in 0..PORT_ATTEMPTS {
            let (mut bits, revision) = self.read_ports(&registry).await?;
            for port in ports.iter().filter(|port| !held.contains(port)) {
                bits.set(u32::from(port.saturating_sub(self.ports.0)), false);
            }
            if self.write_ports(&registry, &bits, revision).await? {
                return Ok(());
            }
        }
        Err("too many others allocated at the same time".into())
    }

    /// Brings what is recorded in line with the services, and follows them from then on.
    pub async fn start(self: &Arc<Self>, shutdown: &CancellationToken) -> Result<(), ApiError> {
        let registry = self.registry()?;
        let services = objects::list_typed::<Service>(&registry, "").await?;
        let mut kept: HashMap<IpAddr, ObjectKey> = HashMap::new();
        for service in &services {
            let key = ObjectKey::new(service.metadata.namespace.clone(), service.metadata.name.clone());
            kept.extend(addresses_of(service).into_iter().map(|address| (address, key.clone())));
        }
        for known in objects::list_typed::<IPAddress>(&registry, "").await? {
            let Ok(address) = known.metadata.name.parse::<IpAddr>() else { continue };
            if let Some(offset) = self.offset(address) {
                self.taken.lock().set(offset, true);
            }
            if kept.remove(&address).is_none() {
                self.release(address).await?;
            }
        }
        for (address, owner) in kept {
            self.create(address, &owner).await.map_err(ApiError::internal)?;
            if let Some(offset) = self.offset(address) {
                self.taken.lock().set(offset, true);
            }
        }
        let ports: Vec<u16> = services.iter().flat_map(ports_of).collect();
        self.repair_ports(&registry, &ports).await.map_err(ApiError::internal)?;
        for follow in [Follow::Services, Follow::Addresses] {
            let (this, shutdown) = (Arc::clone(self), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = this.follow(follow) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        Ok(())
    }

    async fn repair_ports(&self, registry: &Registry, ports: &[u16]) -> Result<(), String> {
        for _ in 0..PORT_ATTEMPTS {
            let (bits, revision) = self.read_ports(registry).await?;
            let mut wanted = Bitmap::new(bits.size);
            for port in ports.iter().filter(|port| **port >= self.ports.0) {
                wanted.set(u32::from(port - self.ports.0), true);
            }
            if bits.words == wanted.words && revision > 0 {
                return Ok(());
            }
            if self.write_ports(registry, &wanted, revision).await? {
                return Ok(());
            }
        }
        Err("too many others allocated at the same time".into())
    }

    /// Follows services to give back what they leave, or address objects to know what is taken.
    async fn follow(&self, what: Follow) {
        let mut known: HashMap<ObjectKey, (Vec<IpAddr>, Vec<u16>)> = HashMap::new();
        loop {
            let Ok(registry) = self.registry() else { return };
            let resource = match what {
                Follow::Services => resource_of::<Service>(),
                Follow::Addresses => resource_of::<IPAddress>(),
            };
            let watch = registry.watch(resource, "", &ListOptions::default()).await;
            drop(registry);
            if let Ok(mut watcher) = watch {
                while let Some(event) = watcher.recv().await {
                    match what {
                        Follow::Services => self.service_changed(&event, &mut known).await,
                        Follow::Addresses => self.address_changed(&event),
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn service_changed(&self, event: &Event, known: &mut HashMap<ObjectKey, (Vec<IpAddr>, Vec<u16>)>) {
        let Some(object) = event.object().and_then(|object| object.object().ok()) else { return };
        let Some(service) = object.downcast::<Service>() else { return };
        let key = ObjectKey::new(service.metadata.namespace.clone(), service.metadata.name.clone());
        let now = (addresses_of(service), ports_of(service));
        let (left_addresses, left_ports) = match event {
            Event::Deleted(_) => {
                known.remove(&key);
                now
            }
            Event::Added(_) | Event::Modified(_) => {
                let before = known.insert(key, now.clone()).unwrap_or_default();
                let addresses = before.0.into_iter().filter(|address| !now.0.contains(address)).collect();
                (addresses, before.1.into_iter().filter(|port| !now.1.contains(port)).collect())
            }
            Event::Bookmark(_) | Event::Error(_) => return,
        };
        for address in left_addresses {
            if let Err(error) = self.release(address).await {
                tracing::warn!(%error, %address, "Could not give a cluster IP back");
            }
        }
        if !left_ports.is_empty()
            && let Err(error) = self.release_ports(&left_ports).await
        {
            tracing::warn!(error, ?left_ports, "Could not give node ports back");
        }
    }

    fn address_changed(&self, event: &Event) {
        let taken = match event {
            Event::Added(_) | Event::Modified(_) => true,
            Event::Deleted(_) => false,
            Event::Bookmark(_) | Event::Error(_) => return,
        };
        let address = event.object().and_then(|object| object.key().name.parse().ok());
        if let Some(offset) = address.and_then(|address| self.offset(address)) {
            self.taken.lock().set(offset, taken);
        }
    }
}

#[derive(Clone, Copy)]
enum Follow {
    Services,
    Addresses,
}

async fn newest_service(registry: &Registry, key: &ObjectKey) -> Result<Option<Service>, ApiError> {
    match registry.get(resource_of::<Service>(), key, "").await {
        Ok(found) => Ok(found.object()?.downcast::<Service>().cloned()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn held_ports(registry: &Registry) -> Result<Vec<u16>, ApiError> {
    let all = registry.list(resource_of::<Service>(), "", &ListOptions::default()).await?;
    let mut ports = Vec::new();
    for item in &all.items {
        if let Some(service) = item.object()?.downcast::<Service>() {
            ports.extend(ports_of(service));
        }
    }
    Ok(ports)
}

fn addresses_of(service: &Service) -> Vec<IpAddr> {
    let spec = &service.spec;
    let all = if spec.cluster_ips.is_empty() {
        std::slice::from_ref(&spec.cluster_ip)
    } else {
        &spec.cluster_ips[..]
    };
    all.iter().filter_map(|text| text.parse().ok()).collect()
}

fn ports_of(service: &Service) -> Vec<u16> {
    let spec = &service.spec;
    let ports = spec.ports.iter().map(|port| port.node_port).chain([spec.health_check_node_port]);
    let mut out: Vec<u16> =
        ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0).collect();
    out.sort_unstable();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_find_what_is_free() {
        let mut bits = Bitmap::new(70);
        (0..70).filter(|at| *at != 3).for_each(|at| bits.set(at, true));
        assert_eq!(bits.free(0, 70, 40), Some(3));
        assert_eq!(bits.free(4, 70, 40), None);
        bits.set(69, false);
        assert_eq!(bits.free(4, 70, 40), Some(69));
        assert_eq!((static_band(14), static_band(254), static_band(65534)), (0, 16, 256));
        assert_eq!(static_ports(2768), 86);
    }
}
