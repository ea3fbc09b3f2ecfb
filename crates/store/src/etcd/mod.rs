//! Decides how an etcd v3 server or cluster is used as a store.

mod channel;
mod convert;
mod proto;
mod watch;

use async_trait::async_trait;
use tokio::sync::{OnceCell, watch as signal};

use self::channel::Endpoints;
pub use self::channel::EtcdTls;
use crate::Store;
use crate::error::Error;
use crate::hub::Watch;
use crate::types::{Lease, RangeRequest, RangeResponse, Txn, TxnResponse, WatchRequest};

/// A store kept by etcd.
pub(crate) struct Etcd {
    endpoints: Endpoints,
    /// Counts the calls for progress marks; every watch listens.
    progress: signal::Sender<u64>,
    /// Whether progress marks come in order with changes; asked of the servers once.
    ordered: OnceCell<bool>,
}

impl Etcd {
    pub(crate) fn new(endpoints: &[String], tls: Option<&EtcdTls>) -> Result<Etcd, Error> {
        Ok(Etcd {
            endpoints: Endpoints::new(endpoints, tls)?,
            progress: signal::Sender::new(0),
            ordered: OnceCell::new(),
        })
    }

    async fn marks_are_ordered(&self) -> Result<bool, Error> {
        let statuses: Vec<proto::StatusResponse> =
            self.endpoints.every("/etcdserverpb.Maintenance/Status", proto::Nothing {}).await?;
        Ok(statuses.iter().all(|status| version_orders_marks(&status.version)))
    }
}

/// Whether an etcd of this version sends progress marks in order with changes (its issue 15220).
fn version_orders_marks(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

#[async_trait]
impl Store for Etcd {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let request = convert::range_request(request);
        let response = self.endpoints.read("/etcdserverpb.KV/Range", request).await?;
        Ok(convert::range_response(response))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        let writes = txn.writes();
        let request = convert::txn_request(txn);
        let path = "/etcdserverpb.KV/Txn";
        let response = if writes {
            self.endpoints.write(path, request).await?
        } else {
            self.endpoints.read(path, request).await?
        };
        convert::txn_response(response)
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        watch::start(self.endpoints.clone(), request, self.progress.subscribe()).await
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        let request = proto::CompactionRequest { revision };
        let _: proto::Nothing = self.endpoints.write("/etcdserverpb.KV/Compact", request).await?;
        Ok(())
    }

    async fn revision(&self) -> Result<i64, Error> {
        // Any linearizable read tells the revision; this key sorts first and is nobody's.
        let request = proto::RangeRequest { key: "\0".into(), count_only: true, ..Default::default() };
        let response: proto::RangeResponse = self.endpoints.read("/etcdserverpb.KV/Range", request).await?;
        Ok(convert::revision(response.header.as_ref()))
    }

    async fn request_progress(&self) -> Result<bool, Error> {
        let ordered = *self.ordered.get_or_try_init(|| self.marks_are_ordered()).await?;
        if ordered {
            self.progress.send_modify(|count| *count += 1);
        }
        Ok(ordered)
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<Lease, Error> {
        if ttl_seconds < 1 {
            return Err(Error::invalid("a lease's time to live must be at least one second"));
        }
        let request = proto::LeaseGrantRequest { ttl: ttl_seconds };
        let granted: proto::LeaseGrantResponse =
            self.endpoints.write("/etcdserverpb.Lease/LeaseGrant", request).await?;
        Ok(Lease { id: granted.id, granted_ttl: granted.ttl, ttl: granted.ttl, keys: Vec::new() })
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        let request = proto::LeaseRequest { id };
        let _: proto::Nothing = self.endpoints.write("/etcdserverpb.Lease/LeaseRevoke", request).await?;
        Ok(())
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, Error> {
        let kept: proto::LeaseKeepAliveResponse = self
            .endpoints
            .first_of_stream("/etcdserverpb.Lease/LeaseKeepAlive", proto::LeaseRequest { id })
            .await?;
        if kept.ttl <= 0 {
            return Err(Error::LeaseNotFound);
        }
        Ok(Lease { id, granted_ttl: kept.ttl, ttl: kept.ttl, keys: Vec::new() })
    }

    async fn lease_time_to_live(&self, id: i64) -> Result<Lease, Error> {
        let request = proto::LeaseTimeToLiveRequest { id, keys: true };
        let told: proto::LeaseTimeToLiveResponse =
            self.endpoints.read("/etcdserverpb.Lease/LeaseTimeToLive", request).await?;
        if told.ttl < 0 {
            return Err(Error::LeaseNotFound);
        }
        let keys = told.keys.into_iter().map(Into::into).collect();
        Ok(Lease { id, granted_ttl: told.granted_ttl, ttl: told.ttl, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::version_orders_marks;

    #[test]
    fn old_servers_marks_are_not_relied_on() {
        for old in ["3.3.25", "3.4.23", "3.4.30", "3.5.0", "3.5.12", "", "strange"] {
            assert!(!version_orders_marks(old), "{old}");
        }
        for new in ["3.4.31", "3.4.40", "3.5.13", "3.5.21", "3.6.0-rc.1", "3.6.8", "4.0.0"] {
            assert!(version_orders_marks(new), "{new}");
        }
    }
}
