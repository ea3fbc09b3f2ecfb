//! Priority and fairness: every request belongs to a flow, flows share the seats of their level, levels lend each other
//! seats. What is decided is in `flowcontrol`; here requests wait and clocks run.
//!
//! Invariants: an exempt request takes no lock; levels share no lock; a request that goes away while it waits or runs
//! gives back what it took.

mod config;
mod dump;
mod level;
mod metrics;
mod place;
mod work;

use crate::follow;
use crate::objects::resource_of;
use api::errors::ApiError;
use api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use arc_swap::ArcSwap;
use config::State;
use flowcontrol::{Digest, Refusal, Work};
use http::HeaderValue;
use parking_lot::Mutex;
use registry::Registry;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use place::Place;
pub use work::Asked;

/// How often seats are lent anew; upstream's.
const ADJUST_EVERY: Duration = Duration::from_secs(10);

/// Uids of what classified a request, for the answer's headers.
#[derive(Clone)]
pub struct Class {
    pub schema: HeaderValue,
    pub level: HeaderValue,
}

/// The flow control of one server.
pub struct Fairness {
    registry: Weak<Registry>,
    server_seats: u64,
    wait_max: Duration,
    started: Instant,
    next: AtomicU64,
    state: ArcSwap<State>,
    sizes: Mutex<HashMap<String, work::Known>>,
    /// Somebody has used a limited level since seats were last lent.
    busy: Notify,
    fair: Mutex<f64>,
}

impl Fairness {
    /// `server_seats` are shared by all levels; nobody waits longer than a quarter of `request_timeout`.
    pub fn new(registry: &Arc<Registry>, server_seats: usize, request_timeout: Duration) -> Arc<Self> {
        let started = Instant::now();
        let server_seats = server_seats as u64;
        Arc::new(Fairness {
            registry: Arc::downgrade(registry),
            server_seats,
            wait_max: request_timeout / 4,
            started,
            next: AtomicU64::new(1),
            state: ArcSwap::from_pointee(State::mandatory(server_seats)),
            sizes: Mutex::default(),
            busy: Notify::new(),
            fair: Mutex::new(0.0),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Classifies a request and waits for its seats. `work` is asked only where seats are counted.
    pub async fn enter(
        self: &Arc<Self>,
        digest: &Digest<'_>,
        work: impl FnOnce(u64) -> Work,
    ) -> (Class, Result<Place, Refusal>) {
        let state = self.state.load_full();
        let (entry, distinguisher) = state.classify(digest);
        let class = entry.class.clone();
        let level = &entry.level;
        let Some(limited) = &level.limited else {
            return (class, Ok(Place::exempt(level, &entry.flow)));
        };
        self.busy.notify_one();
        let width = work(level.seats_max());
        let hash = flowcontrol::flow_hash(&entry.name, distinguisher);
        let place = Place::enter(self, level, limited, &entry.flow, width, hash).await;
        (class, place)
    }

    /// Follows the configuration until the token is cancelled; reads it once before it returns.
    pub async fn start(self: &Arc<Self>, shutdown: &CancellationToken) -> Result<(), ApiError> {
        let Some(registry) = self.registry.upgrade() else { return Ok(()) };
        let changed = Arc::new(Notify::new());
        follow::wake_on_change(&registry, resource_of::<FlowSchema>(), Arc::clone(&changed), shutdown);
        let levels = resource_of::<PriorityLevelConfiguration>();
        follow::wake_on_change(&registry, levels, Arc::clone(&changed), shutdown);
        self.reload(&registry).await?;
        let (fairness, stop) = (Arc::clone(self), shutdown.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = changed.notified() => {}
                    () = stop.cancelled() => return,
                }
                let Some(registry) = fairness.registry.upgrade() else { return };
                let kept = crate::bootstrap::flow_control(&registry).await;
                if let Err(error) = kept.and(fairness.reload(&registry).await) {
                    tracing::warn!(%error, "Could not take in the flow control configuration; the last one stays");
                }
            }
        });
        let (fairness, stop) = (Arc::clone(self), shutdown.clone());
        tokio::spawn(async move {
            loop {
                // An idle server lends nothing, and does not wake up for it.
                tokio::select! {
                    () = fairness.busy.notified() => {}
                    () = stop.cancelled() => return,
                }
                tokio::select! {
                    () = tokio::time::sleep(ADJUST_EVERY) => fairness.adjust(),
                    () = stop.cancelled() => return,
                }
            }
        });
        Ok(())
    }
}
