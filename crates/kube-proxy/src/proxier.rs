//! The loop: changes in, rules of the touched services computed, one transaction out.

use crate::health::{Health, HealthChecks};
use crate::metrics::{Metrics, Synced};
use crate::options::{Config, NodePortAddresses};
use anyhow::Context;
use api::core::v1::{Node, Service};
use api::discovery::v1::EndpointSlice;
use api::networking::v1::ServiceCIDR;
use client::{Change, Subscription};
use ipnet::IpNet;
use jiff::Timestamp;
use meta::ObjectKey;
use net::nftables::{self, Plane, Settings};
use services::{Family, HealthCheck, NodeConfig, Refusal, ServiceRules};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// A node with this taint is about to be deleted by the cluster's autoscaler: load balancers should leave it.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// Waits before a failed sync is tried again: doubled each time, up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What one service is made of.
#[derive(Default)]
struct Parts {
    service: Option<Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
}

/// What a computed service contributes besides its rules.
#[derive(Default)]
struct Facts {
    check: Option<HealthCheck>,
    no_local_internal: bool,
    no_local_external: bool,
}

pub struct Proxier {
    config: Config,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    checks: HealthChecks,
    families: Vec<Family>,
    node: NodeConfig,
    primary: Vec<IpAddr>,
    service_cidrs: BTreeMap<String, Vec<IpNet>>,
    parts: BTreeMap<ObjectKey, Parts>,
    facts: BTreeMap<ObjectKey, Facts>,
    dirty: BTreeSet<ObjectKey>,
    /// Taken out while a sync runs on a thread of its own.
    plane: Option<Plane>,
}

impl Proxier {
    pub fn new(
        config: Config,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        token: CancellationToken,
    ) -> Proxier {
        // A kernel started without IPv6 has no tables for it.
        let ipv6 = std::path::Path::new("/proc/net/if_inet6").exists();
        let families = if ipv6 { Family::ALL.to_vec() } else { vec![Family::Ipv4] };
        let node = NodeConfig { node_name: config.node_name.clone(), zone: String::new() };
        let mut proxier = Proxier {
            checks: HealthChecks::new(health.clone(), token),
            primary: config.primary_address.into_iter().collect(),
            config,
            health,
            metrics,
            families,
            node,
            service_cidrs: BTreeMap::new(),
            parts: BTreeMap::new(),
            facts: BTreeMap::new(),
            dirty: BTreeSet::new(),
            plane: None,
        };
        proxier.plane = Some(Plane::new(proxier.settings(), &proxier.families));
        proxier
    }

    /// Follows changes until the token or the subscription ends.
    pub async fn run(mut self, mut changes: Subscription, token: &CancellationToken) -> anyhow::Result<()> {
        let mut retry = RETRY_FIRST;
        let mut failed = false;
        let mut whole_at = self.next_whole();
        loop {
            tokio::select! {
                received = changes.recv() => match received {
                    Some(received) => self.take(&received.objects),
                    None => return Ok(()),
                },
                () = token.cancelled() => return Ok(()),
                () = tokio::time::sleep(retry), if failed => {}
                () = until(whole_at) => {
                    self.forget_kernel();
                    whole_at = self.next_whole();
                }
            }
            let started = Instant::now();
            match self.sync().await {
                Ok(()) => {
                    failed = false;
                    retry = RETRY_FIRST;
                }
                Err(error) => {
                    warn!(error = format!("{error:#}"), "Could not bring the service rules into step");
                    self.metrics.failed();
                    if failed {
                        retry = (retry * 2).min(RETRY_MAX);
                    }
                    failed = true;
                }
            }
            let rest = self.config.min_sync_period.saturating_sub(started.elapsed());
            if !rest.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = token.cancelled() => return Ok(()),
                }
            }
        }
    }

    fn next_whole(&self) -> Option<Instant> {
        (!self.config.sync_period.is_zero()).then(|| Instant::now() + self.config.sync_period)
    }

    fn forget_kernel(&mut self) {
        if let Some(plane) = &mut self.plane {
            plane.forget_kernel();
        }
    }

    /// Notes changes; what they touch is computed by the next sync.
    pub(crate) fn take(&mut self, changes: &[Change]) {
        let (mut services, mut endpoints) = (0, 0);
        for change in changes {
            if change.kind == view::kind_id::<Service>() {
                services += 1;
                let parts = self.parts.entry(change.key.clone()).or_default();
                parts.service = downcast::<Service>(change);
                self.dirty.insert(change.key.clone());
            } else if change.kind == view::kind_id::<EndpointSlice>() {
                endpoints += 1;
                self.take_slice(change);
            } else if change.kind == view::kind_id::<ServiceCIDR>() {
                self.service_cidrs.remove(&change.key.name);
                if let Some(cidr) = downcast::<ServiceCIDR>(change) {
                    let nets = cidr.spec.cidrs.iter().filter_map(|text| text.parse().ok()).collect();
                    self.service_cidrs.insert(change.key.name.clone(), nets);
                }
            } else if change.kind == view::kind_id::<Node>() {
                self.take_node(downcast::<Node>(change).as_deref());
            }
        }
        if services + endpoints > 0 {
            let now = Timestamp::now();
            self.health.queued(now);
            self.metrics.queued(services, endpoints, seconds(now));
        }
    }

    fn take_slice(&mut self, change: &Change) {
        let owner = |object: &Option<Arc<dyn api::Object>>| {
            let slice = object.as_deref()?.downcast::<EndpointSlice>()?;
            services::service_of(slice).map(|(namespace, name)| ObjectKey::new(namespace, name))
        };
        if let Some(old) = owner(&change.old)
            && let Some(parts) = self.parts.get_mut(&old)
        {
            parts.slices.remove(&change.key.name);
            self.dirty.insert(old);
        }
        if let (Some(owner), Some(slice)) = (owner(&change.new), downcast::<EndpointSlice>(change)) {
            self.parts.entry(owner.clone()).or_default().slices.insert(change.key.name.clone(), slice);
            self.dirty.insert(owner);
        }
    }

    fn take_node(&mut self, node: Option<&Node>) {
        let eligible = node.is_some_and(|node| {
            node.metadata.deletion_timestamp.is_none()
                && !node.spec.taints.iter().any(|taint| taint.key == TO_BE_DELETED_TAINT)
        });
        self.health.set_node_eligible(eligible);
        // A node that is gone keeps its last rules.
        let Some(node) = node else { return };
        if self.config.primary_address.is_none() {
            let addresses = node.status.addresses.iter().filter(|address| address.r#type == "InternalIP");
            self.primary = addresses.filter_map(|address| address.address.parse().ok()).collect();
        }
        let zone = node.metadata.labels.get("topology.kubernetes.io/zone").cloned().unwrap_or_default();
        if self.node.zone != zone {
            self.node.zone = zone;
            self.dirty.extend(self.parts.keys().cloned());
        }
    }

    fn settings(&self) -> Settings {
        let node_port_addresses = match &self.config.node_port_addresses {
            NodePortAddresses::Primary => self.primary.clone(),
            NodePortAddresses::Within(nets) => own_addresses(nets).unwrap_or_else(|error| {
                warn!(%error, "Could not list the node's addresses: node ports are served at the primary one");
                self.primary.clone()
            }),
        };
        Settings {
            cluster_cidrs: self.config.cluster_cidrs.clone(),
            service_cidrs: self.service_cidrs.values().flatten().copied().collect(),
            node_port_addresses,
            masquerade_all: self.config.masquerade_all,
            masquerade_mark: self.config.masquerade_mark,
        }
    }

    /// Computes what is dirty and applies it.
    pub(crate) async fn sync(&mut self) -> anyhow::Result<()> {
        let mut plane = self.plane.take().context("the rules were lost in a sync that panicked")?;
        let settings = self.settings();
        if *plane.settings() != settings {
            info!(?settings, "Took other settings");
            plane.set_settings(settings);
            // Chains of single services are written with the settings in them.
            self.dirty.extend(self.parts.keys().cloned());
        }
        for key in std::mem::take(&mut self.dirty) {
            let rules = self.compute(&key);
            plane.set_service(&format!("{}/{}", key.namespace, key.name), &rules);
        }
        let started = Instant::now();
        let addresses = plane.settings().node_port_addresses.clone();
        let (plane, result) = tokio::task::spawn_blocking(move || {
            let result = plane.sync();
            if let Ok(change) = &result {
                forget_flows(change, &addresses);
            }
            (plane, result)
        })
        .await
        .context("applying the rules")?;
        self.plane = Some(plane);
        let change = result.context("applying the rules")?;
        let now = Timestamp::now();
        self.health.updated(&self.families, now);
        self.metrics.synced(&Synced {
            seconds: started.elapsed().as_secs_f64(),
            full: change.full,
            now: seconds(now),
        });
        let (internal, external) = self.facts.values().fold((0, 0), |(internal, external), facts| {
            (internal + usize::from(facts.no_local_internal), external + usize::from(facts.no_local_external))
        });
        self.metrics.no_local_endpoints(internal, external);
        self.checks.set(self.facts.values().filter_map(|facts| facts.check.as_ref()));
        debug!(elements = change.elements, full = change.full, "Brought the service rules into step");
        Ok(())
    }

    fn compute(&mut self, key: &ObjectKey) -> ServiceRules {
        let parts = self.parts.get(key);
        let rules =
            match parts.and_then(|parts| parts.service.as_ref().map(|service| (service, &parts.slices))) {
                Some((service, slices)) => {
                    let slices: Vec<&EndpointSlice> = slices.values().map(|slice| &**slice).collect();
                    services::service_rules(service, &slices, &self.node)
                }
                None => ServiceRules::default(),
            };
        if parts.is_some_and(|parts| parts.service.is_none() && parts.slices.is_empty()) {
            self.parts.remove(key);
        }
        let dropped = |external: bool| {
            let frontends = rules.ports.iter().flat_map(|port| &port.frontends);
            let mut of_side = frontends.filter(|frontend| frontend.role.external() == external);
            of_side.any(|frontend| frontend.refusal == Some(Refusal::Drop))
        };
        let facts = Facts {
            check: rules.health_check.clone(),
            no_local_internal: dropped(false),
            no_local_external: dropped(true),
        };
        if facts.check.is_some() || facts.no_local_internal || facts.no_local_external {
            self.facts.insert(key.clone(), facts);
        } else {
            self.facts.remove(key);
        }
        rules
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn seconds(now: Timestamp) -> f64 {
    now.as_microsecond() as f64 / 1e6
}

fn downcast<T: api::Object>(change: &Change) -> Option<Arc<T>> {
    let object: Arc<dyn std::any::Any + Send + Sync> = change.new.clone()?;
    object.downcast().ok()
}

fn forget_flows(change: &nftables::Change, node_port_addresses: &[IpAddr]) {
    if change.udp.is_empty() {
        return;
    }
    match net::conntrack::forget(&change.udp, node_port_addresses) {
        Ok(0) => {}
        Ok(flows) => debug!(flows, "Forgot UDP flows to endpoints that are gone"),
        Err(error) => warn!(%error, "Could not forget UDP flows to endpoints that are gone"),
    }
}

/// The node's own addresses within ranges.
fn own_addresses(nets: &[IpNet]) -> Result<Vec<IpAddr>, net::netlink::Error> {
    let mut socket = net::netlink::Socket::route()?;
    let mut found = BTreeSet::new();
    for link in socket.links()? {
        for address in socket.addresses(link.index)? {
            let address = address.addr();
            if !address.is_loopback() && nets.iter().any(|net| net.contains(&address)) {
                found.insert(address);
            }
        }
    }
    Ok(found.into_iter().collect())
}
