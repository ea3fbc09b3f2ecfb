//! One priority level: its queues, who waits in them, and its seats now.

use super::metrics::{FlowCounts, LevelCounts};
use api::flowcontrol::v1::PriorityLevelConfiguration;
use flowcontrol::{Bounds, Demand, Integrator, QueueSet, Queuing, RequestId, Share};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// A request takes at most this part of its level's nominal seats.
const WIDEST: f64 = 0.15;

/// What changes while requests come and go.
pub struct Inner {
    pub set: QueueSet,
    pub waiters: HashMap<RequestId, (oneshot::Sender<()>, Arc<FlowCounts>)>,
    pub integrator: Integrator,
    pub demand: Demand,
    pub bounds: Bounds,
    pub target: f64,
}

impl Inner {
    /// Notes how many seats could be used now.
    pub fn note_demand(&mut self, now: u64) {
        let demand = self.set.demand() as f64;
        self.integrator.set(now, demand);
    }

    /// Wakes requests that run from now on. One that has gone away meanwhile notices that it runs, and ends.
    pub fn wake(&mut self, dispatched: Vec<RequestId>) {
        for id in dispatched {
            if let Some((waiter, _)) = self.waiters.remove(&id) {
                let _ = waiter.send(());
            }
        }
    }
}

/// A level whose seats are counted.
pub struct Limited {
    pub inner: Mutex<Inner>,
}

pub struct Level {
    pub name: String,
    /// `None`: exempt.
    pub limited: Option<Limited>,
    pub counts: LevelCounts,
    seats_max: AtomicU64,
}

impl Level {
    pub fn exempt(name: &str) -> Arc<Self> {
        Arc::new(Level {
            name: name.into(),
            limited: None,
            counts: LevelCounts::default(),
            seats_max: AtomicU64::new(0),
        })
    }

    pub fn limited(name: &str, queuing: Queuing, now: u64) -> Arc<Self> {
        let inner = Inner {
            set: QueueSet::new(queuing, 0, now),
            waiters: HashMap::new(),
            integrator: Integrator::new(now),
            demand: Demand::default(),
            bounds: Bounds::default(),
            target: 0.0,
        };
        Arc::new(Level {
            name: name.into(),
            limited: Some(Limited { inner: Mutex::new(inner) }),
            counts: LevelCounts::default(),
            seats_max: AtomicU64::new(0),
        })
    }

    /// The widest that one request may be.
    pub fn seats_max(&self) -> u64 {
        self.seats_max.load(Ordering::Relaxed)
    }

    /// Takes limits over.
    pub fn configure(&self, queuing: Queuing, bounds: Bounds, seats: Option<u64>, now: u64) {
        let widest = (bounds.nominal as f64 * WIDEST).ceil().max(1.0) as u64;
        self.seats_max.store(widest, Ordering::Relaxed);
        let Some(limited) = &self.limited else { return };
        let mut inner = limited.inner.lock();
        inner.bounds = bounds;
        let limit = seats.unwrap_or_else(|| match inner.set.limit() {
            0 => bounds.nominal,
            limit => limit.clamp(bounds.min, bounds.max),
        });
        let dispatched = inner.set.configure(queuing, limit, now);
        inner.wake(dispatched);
    }
}

fn count(value: Option<i32>, default: u64) -> u64 {
    value.map_or(default, |value| u64::try_from(value).unwrap_or(0))
}

/// How a level queues, and its share; `None` for a level that is exempt.
pub fn read(level: &PriorityLevelConfiguration) -> (Option<Queuing>, Share) {
    if level.spec.r#type == "Exempt" {
        let exempt = level.spec.exempt.as_deref();
        let share = Share {
            shares: count(exempt.and_then(|exempt| exempt.nominal_concurrency_shares), 0),
            lendable_percent: count(exempt.and_then(|exempt| exempt.lendable_percent), 0),
            borrowing_percent: None,
        };
        return (None, share);
    }
    let limited = level.spec.limited.as_deref().cloned().unwrap_or_default();
    let share = Share {
        shares: count(limited.nominal_concurrency_shares, 30),
        lendable_percent: count(limited.lendable_percent, 0),
        borrowing_percent: limited.borrowing_limit_percent.map(|percent| u64::try_from(percent).unwrap_or(0)),
    };
    let size = |value: i32| usize::try_from(value).unwrap_or(0);
    let queuing = match limited.limit_response.queuing.as_deref() {
        Some(queuing) if limited.limit_response.r#type == "Queue" => Queuing {
            queues: size(queuing.queues),
            hand_size: size(queuing.hand_size),
            queue_length_limit: size(queuing.queue_length_limit),
        },
        _ => Queuing { queues: 0, hand_size: 0, queue_length_limit: 0 },
    };
    (Some(queuing), share)
}
