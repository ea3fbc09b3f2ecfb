//! How many requests are answered at once: a bounded number reads, a bounded number writes, a bounded number waits.

use crate::metrics::Metrics;
use api::errors::ApiError;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest a request waits for its turn before it is refused.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Requests that may wait; more are refused at once.
const WAITING_MAX: usize = 5000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Reading,
    Mutating,
}

impl Kind {
    pub fn of(verb: &str) -> Self {
        match verb {
            "get" | "list" | "watch" | "proxy" | "head" | "options" => Kind::Reading,
            _ => Kind::Mutating,
        }
    }
    fn name(self) -> &'static str {
        match self {
            Kind::Reading => "readOnly",
            Kind::Mutating => "mutating",
        }
    }
}

/// Both limits; 0 is none.
pub struct Limits {
    reading: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
}

/// A request's place; given back when dropped.
pub struct Slot {
    _permit: Option<OwnedSemaphorePermit>,
    metrics: Arc<Metrics>,
    kind: Kind,
}

impl Drop for Slot {
    fn drop(&mut self) {
        gauge(&self.metrics, self.kind).fetch_sub(1, Ordering::Relaxed);
    }
}

fn gauge(metrics: &Metrics, kind: Kind) -> &AtomicI64 {
    match kind {
        Kind::Reading => &metrics.reading,
        Kind::Mutating => &metrics.mutating,
    }
}

impl Limits {
    pub fn new(reading: usize, mutating: usize) -> Self {
        let semaphore = |limit| (limit > 0).then(|| Arc::new(Semaphore::new(limit)));
        Limits { reading: semaphore(reading), mutating: semaphore(mutating), waiting: AtomicUsize::new(0) }
    }

    /// Waits for a place, or refuses with 429.
    pub fn enter(&self, kind: Kind, metrics: Arc<Metrics>) -> BoxFuture<'_, Result<Slot, ApiError>> {
        Box::pin(self.entered(kind, metrics))
    }

    async fn entered(&self, kind: Kind, metrics: Arc<Metrics>) -> Result<Slot, ApiError> {
        let semaphore = match kind {
            Kind::Reading => &self.reading,
            Kind::Mutating => &self.mutating,
        };
        let permit = match semaphore {
            None => None,
            Some(semaphore) => match Arc::clone(semaphore).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => match self.wait(Arc::clone(semaphore)).await {
                    Some(permit) => Some(permit),
                    None => {
                        metrics.reject(kind.name());
                        return Err(ApiError::too_many_requests(
                            "too many requests, please try again later",
                            1,
                        ));
                    }
                },
            },
        };
        gauge(&metrics, kind).fetch_add(1, Ordering::Relaxed);
        Ok(Slot { _permit: permit, metrics, kind })
    }

    async fn wait(&self, semaphore: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        /// Counts a waiting request until it stops waiting, for whatever reason.
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let _waiting = Waiting(&self.waiting);
        tokio::time::timeout(WAIT_MAX, semaphore.acquire_owned()).await.ok()?.ok()
    }
}
