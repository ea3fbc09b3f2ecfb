//! Leases of objects that expire: events live for a time, then the store removes them.

use crate::store_error;
use api::errors::ApiError;
use resources::Resource;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;

/// What expires, by its place in the store.
const EVENTS: &str = "/registry/events";
/// Objects that share a lease at most, and how long a lease takes new ones: many objects, few leases.
const LEASE_OBJECTS_MAX: u32 = 1000;
const LEASE_OPEN: Duration = Duration::from_secs(60);

struct Open {
    id: i64,
    until: Instant,
    objects: u32,
}

/// Hands out leases for events.
pub(crate) struct Leases {
    ttl_seconds: i64,
    open: tokio::sync::Mutex<Option<Open>>,
}

impl Leases {
    pub fn new(ttl_seconds: i64) -> Self {
        Leases { ttl_seconds, open: tokio::sync::Mutex::default() }
    }

    /// The lease to write an object of this resource with; 0 for what does not expire.
    pub async fn lease_for(
        &self,
        store: &Arc<dyn Store>,
        resource: &'static dyn Resource,
    ) -> Result<i64, ApiError> {
        if self.ttl_seconds <= 0 || resource.storage_prefix() != EVENTS {
            return Ok(0);
        }
        let mut open = self.open.lock().await;
        let usable = |lease: &&mut Open| lease.until > Instant::now() && lease.objects < LEASE_OBJECTS_MAX;
        if let Some(lease) = open.as_mut().filter(usable) {
            lease.objects += 1;
            return Ok(lease.id);
        }
        // Whoever takes the lease late still lives as long as promised.
        let seconds = self.ttl_seconds + LEASE_OPEN.as_secs() as i64;
        let lease = store.lease_grant(seconds).await.map_err(store_error)?;
        *open = Some(Open { id: lease.id, until: Instant::now() + LEASE_OPEN, objects: 1 });
        Ok(lease.id)
    }
}
