//! How many bytes derived encodings may hold: what is over the budget is dropped, oldest first, and made again on demand.

use crate::encoded::Encoded;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Bytes that JSON texts and decoded objects of one registry may hold, unless told otherwise.
pub const DERIVED_BYTES_MAX: usize = 64 << 20;

/// Counts derived bytes, and drops the oldest when there are too many.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Whose derived values came first. An object is listed once for each time it grew.
    order: Mutex<VecDeque<Weak<Encoded>>>,
}

impl Budget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0), order: Mutex::default() })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, owner: &Arc<Encoded>, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        let mut victims = Vec::new();
        {
            let mut order = self.order.lock();
            order.push_back(Arc::downgrade(owner));
            let mut over = self.used().saturating_sub(self.limit);
            while over > 0 && order.len() > 1 {
                let Some(victim) = order.pop_front().and_then(|weak| weak.upgrade()) else { continue };
                over = over.saturating_sub(victim.derived_bytes());
                victims.push(victim);
            }
            // Objects that are gone leave their entries behind; they must not outnumber what is held.
            if order.len() > 1024 && order.len() > 4 * (self.used() / 256 + 256) {
                order.retain(|weak| weak.strong_count() > 0);
            }
        }
        for victim in victims {
            if !Arc::ptr_eq(&victim, owner) {
                victim.drop_derived();
            }
        }
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
