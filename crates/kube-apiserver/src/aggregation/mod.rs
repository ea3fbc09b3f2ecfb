//! Aggregation: group versions that another server answers for, found through APIServices and served as if they were ours.
//!
//! Invariants: a server that is gone harms only its own group versions; without a registered server a request pays for
//! one look at an empty map.

mod availability;
mod discovery;
mod openapi;
mod proxy;
mod registration;
mod remote;

use crate::follow;
use crate::objects::{self, resource_of};
use crate::outbound::services::Services;
use crate::request::RequestInfo;
use api::apiregistration::v1::APIService;
use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use api::errors::ApiError;
use arc_swap::ArcSwap;
use meta::ObjectKey;
use parking_lot::Mutex;
use registry::{Event, Registry};
use remote::Remote;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use availability::AvailabilityMetrics;

/// Most servers that are aggregated; others stay unserved.
const REMOTES_MAX: usize = 500;

/// Group version to its server.
type Remotes = BTreeMap<(String, String), Arc<Remote>>;

/// The aggregator of one server.
pub struct Aggregator {
    registry: Weak<Registry>,
    services: Arc<Services>,
    /// Shown to aggregated servers: what lets them believe the headers that name the user.
    identity: Option<pki::CertifiedKey>,
    remotes: ArcSwap<Remotes>,
    /// Steps whenever a document of a remote server changes.
    generation: AtomicU64,
    merged: Mutex<discovery::Cache>,
    openapi: Mutex<openapi::Cache>,
    following: AtomicBool,
    pub metrics: AvailabilityMetrics,
}

impl Aggregator {
    pub fn new(
        registry: &Arc<Registry>,
        services: Arc<Services>,
        identity: Option<pki::CertifiedKey>,
    ) -> Arc<Self> {
        Arc::new(Aggregator {
            registry: Arc::downgrade(registry),
            services,
            identity,
            remotes: ArcSwap::default(),
            generation: AtomicU64::new(1),
            merged: Mutex::default(),
            openapi: Mutex::default(),
            following: AtomicBool::new(false),
            metrics: AvailabilityMetrics::default(),
        })
    }

    /// The server that answers for a request, if that is not this one.
    pub fn find(&self, info: &RequestInfo) -> Option<Arc<Remote>> {
        let remotes = self.remotes.load();
        if remotes.is_empty() {
            return None;
        }
        let mut parts = info.path.split('/').skip(1);
        let (group, version) = match parts.next()? {
            "api" => ("", parts.next()?),
            "apis" => (parts.next()?, parts.next()?),
            _ => return None,
        };
        remotes.get(&(group.to_string(), version.to_string())).cloned()
    }

    pub fn is_idle(&self) -> bool {
        self.remotes.load().is_empty()
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Registers what this server serves, then follows APIServices until the token is cancelled.
    pub async fn start(
        self: &Arc<Self>,
        local: Vec<(String, String)>,
        shutdown: &CancellationToken,
    ) -> Result<(), ApiError> {
        let Some(registry) = self.registry.upgrade() else { return Ok(()) };
        registration::register_built_in(&registry, &local).await?;
        let changed = Arc::new(Notify::new());
        follow::wake_on_change(&registry, resource_of::<APIService>(), Arc::clone(&changed), shutdown);
        let definitions = resource_of::<api::apiextensions::v1::CustomResourceDefinition>();
        follow::wake_on_change(&registry, definitions, Arc::clone(&changed), shutdown);
        self.reload(&registry, shutdown).await?;
        let (aggregator, shutdown) = (Arc::clone(self), shutdown.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = changed.notified() => {}
                    () = shutdown.cancelled() => return,
                }
                let Some(registry) = aggregator.registry.upgrade() else { return };
                if let Err(error) = registration::register_custom(&registry, &local).await {
                    tracing::warn!(%error, "Could not bring the APIServices of custom resources up to date");
                }
                if let Err(error) = aggregator.reload(&registry, &shutdown).await {
                    tracing::warn!(%error, "Could not read the APIServices; the last ones stay");
                }
            }
        });
        Ok(())
    }

    /// Takes in the APIServices as they are: new servers are watched from now on, those that are gone no more.
    async fn reload(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        shutdown: &CancellationToken,
    ) -> Result<(), ApiError> {
        let all = objects::list_typed::<APIService>(registry, "").await?;
        self.metrics.keep(&all);
        let known = self.remotes.load_full();
        let mut next = Remotes::new();
        for service in all.into_iter().filter(|service| service.spec.service.is_some()).take(REMOTES_MAX) {
            let key = (service.spec.group.clone(), service.spec.version.clone());
            let same = known.get(&key).filter(|known| known.spec == service.spec);
            let remote = match same {
                Some(remote) => Arc::clone(remote),
                None => self.add(&service, shutdown),
            };
            remote.take_in(&service);
            next.insert(key, remote);
        }
        for (key, old) in known.iter() {
            if !next.get(key).is_some_and(|new| Arc::ptr_eq(new, old)) {
                old.cancel.cancel();
            }
        }
        let members_changed = !known.keys().eq(next.keys());
        let any = !next.is_empty();
        self.remotes.store(Arc::new(next));
        if members_changed {
            self.changed();
        }
        if any && !self.following.swap(true, Ordering::AcqRel) {
            self.follow_backends(registry, shutdown);
        }
        Ok(())
    }

    fn add(self: &Arc<Self>, service: &APIService, shutdown: &CancellationToken) -> Arc<Remote> {
        let remote = Arc::new(Remote::new(service, &self.services, self.identity.as_ref(), shutdown));
        tokio::spawn(availability::keep(Arc::clone(self), Arc::clone(&remote)));
        remote
    }

    /// Looks at a server again when the Service before it, or what is behind that, changes.
    fn follow_backends(self: &Arc<Self>, registry: &Arc<Registry>, shutdown: &CancellationToken) {
        let aggregator = Arc::downgrade(self);
        follow::each_event(registry, resource_of::<Service>(), shutdown, move |event| {
            if let (Some(aggregator), Some(object)) = (aggregator.upgrade(), event.object()) {
                aggregator.look_again(object.key());
            }
        });
        let aggregator = Arc::downgrade(self);
        follow::each_event(registry, resource_of::<EndpointSlice>(), shutdown, move |event: &Event| {
            let (Some(aggregator), Some(object)) = (aggregator.upgrade(), event.object()) else { return };
            if !aggregator.has_backend_in(&object.key().namespace) {
                return;
            }
            let Ok(slice) = object.object() else { return };
            if let Some(name) = slice.metadata().labels.get("kubernetes.io/service-name") {
                aggregator.look_again(&ObjectKey::new(object.key().namespace.clone(), name.clone()));
            }
        });
    }

    fn has_backend_in(&self, namespace: &str) -> bool {
        self.remotes.load().values().any(|remote| remote.service.namespace == namespace)
    }

    fn look_again(&self, service: &ObjectKey) {
        for remote in self.remotes.load().values() {
            if remote.service.namespace == service.namespace && remote.service.name == service.name {
                remote.look.notify_one();
            }
        }
    }
}
