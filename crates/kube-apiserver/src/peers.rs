//! Several servers on one store: each keeps a lease with its address, and the endpoints of the `kubernetes` Service are
//! those that live.
//!
//! A lease is kept alive in time with its length. With the embedded store there is only ever one server, and none of this.

use crate::bootstrap::{self, Published};
use api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use api::errors::ApiError;
use bytes::Bytes;
use registry::Registry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Op, RangeRequest, Store, Txn, prefix_end};
use tokio_util::sync::CancellationToken;

/// Upstream's place and times.
const PREFIX: &str = "/registry/masterleases/";
const LEASE_SECONDS: i64 = 15;
const RENEW_EVERY: Duration = Duration::from_secs(10);

fn store_error(error: store::Error) -> ApiError {
    ApiError::service_unavailable(error.to_string())
}

/// Keeps this server's lease, and the endpoints of all, until the token is cancelled; then gives the lease up.
pub async fn keep(registry: Arc<Registry>, published: Published, shutdown: CancellationToken) {
    let store = Arc::clone(registry.store());
    let mut lease = None;
    loop {
        match renew(&store, lease, published.address).await {
            Ok(id) => lease = Some(id),
            Err(error) => {
                tracing::warn!(%error, "Could not renew this server's lease");
                lease = None;
            }
        }
        if let Err(error) = reconcile(&registry, &store, &published).await {
            tracing::warn!(%error, "Could not bring the servers' endpoints up to date");
        }
        tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => {}
            () = shutdown.cancelled() => break,
        }
    }
    if let Some(id) = lease {
        // The others learn of it at once instead of when the lease would have ended.
        let _ = store.lease_revoke(id).await;
    }
}

/// Keeps the lease alive, or takes a new one: its ID.
async fn renew(store: &Arc<dyn Store>, lease: Option<i64>, address: IpAddr) -> Result<i64, ApiError> {
    if let Some(id) = lease
        && store.lease_keep_alive(id).await.is_ok()
    {
        return Ok(id);
    }
    let lease = store.lease_grant(LEASE_SECONDS).await.map_err(store_error)?;
    let ip = EndpointAddress { ip: address.to_string(), ..EndpointAddress::default() };
    let subset = EndpointSubset { addresses: vec![ip], ..EndpointSubset::default() };
    let endpoints = Endpoints { subsets: vec![subset], ..Endpoints::default() };
    let put = Op::Put {
        key: Bytes::from(format!("{PREFIX}{address}")),
        value: Bytes::from(api::codec::to_protobuf(&endpoints)),
        lease: lease.id,
        prev_kv: false,
    };
    store.txn(Txn { success: vec![put], ..Txn::default() }).await.map_err(store_error)?;
    Ok(lease.id)
}

async fn reconcile(
    registry: &Registry,
    store: &Arc<dyn Store>,
    published: &Published,
) -> Result<(), ApiError> {
    let answer = store
        .range(RangeRequest {
            key: Bytes::from_static(PREFIX.as_bytes()),
            range_end: prefix_end(PREFIX.as_bytes()),
            keys_only: true,
            ..RangeRequest::default()
        })
        .await
        .map_err(store_error)?;
    let mut addresses: Vec<IpAddr> = answer
        .kvs
        .iter()
        .filter_map(|entry| std::str::from_utf8(&entry.key).ok()?.strip_prefix(PREFIX)?.parse().ok())
        .collect();
    addresses.sort_unstable();
    bootstrap::publish_endpoints(registry, &addresses, published.port).await
}
