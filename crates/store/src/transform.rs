//! A store whose values are kept in another form than they are read in, such as encrypted.
//!
//! Only keys that the transformer covers pay for it; everything else passes through untouched and shared.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Error, EventKind, KeyValue, Lease, Op, OpResponse, RangeRequest, RangeResponse, Store, Txn, TxnResponse,
    Watch, WatchRequest, WatchResponse,
};

/// Most keys remembered as stale; those beyond are rewritten when they change.
const STALE_MAX: usize = 1_000_000;

/// Turns values into what is kept, and back.
#[async_trait]
pub trait Transformer: Send + Sync + 'static {
    /// Whether values of this key may be kept in another form at all.
    fn covers(&self, key: &[u8]) -> bool;
    /// The form to keep a value in.
    ///
    /// # Errors
    /// Why it cannot be written.
    async fn to_storage(&self, key: &[u8], value: Bytes) -> Result<Bytes, String>;
    /// The value, and whether what is kept is in an outdated form and should be written anew.
    ///
    /// # Errors
    /// Why it cannot be read.
    #[allow(clippy::wrong_self_convention)] // The storage is meant, not the type.
    async fn from_storage(&self, key: &[u8], kept: Bytes) -> Result<(Bytes, bool), String>;
}

/// Puts a transformer between a store and its users.
#[must_use]
pub fn transformed(inner: Arc<dyn Store>, transformer: Arc<dyn Transformer>) -> Arc<dyn Store> {
    Arc::new(Transformed { inner, reader: Arc::new(Reader { transformer, stale: Mutex::default() }) })
}

struct Transformed {
    inner: Arc<dyn Store>,
    reader: Arc<Reader>,
}

/// The reading side, which watches share.
pub(crate) struct Reader {
    transformer: Arc<dyn Transformer>,
    stale: Mutex<HashSet<Bytes>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    async fn open(&self, kv: &mut Arc<KeyValue>) -> Result<(), Error> {
        if kv.value.is_empty() || !self.transformer.covers(&kv.key) {
            return Ok(());
        }
        let opened = self.transformer.from_storage(&kv.key, kv.value.clone()).await;
        let (value, stale) = opened.map_err(|reason| failure(&kv.key, reason))?;
        self.remember(&kv.key, stale);
        *kv = Arc::new(KeyValue { value, ..KeyValue::clone(kv) });
        Ok(())
    }

    fn remember(&self, key: &Bytes, stale: bool) {
        let mut all = self.stale.lock();
        if !stale {
            all.remove(key);
        } else if all.len() < STALE_MAX {
            all.insert(key.clone());
        }
    }

    async fn open_range(&self, response: &mut RangeResponse) -> Result<(), Error> {
        for kv in &mut response.kvs {
            self.open(kv).await?;
        }
        Ok(())
    }

    /// What cannot be read is told as it is kept: whoever decodes it finds that it is nothing.
    pub(crate) async fn open_events(&self, response: &mut WatchResponse) {
        for event in &mut response.events {
            if event.kind == EventKind::Put
                && let Err(error) = self.open(&mut event.kv).await
            {
                tracing::error!(%error, "Could not read a value that changed");
            }
            if let Some(kv) = &mut event.prev_kv {
                let _ = self.open(kv).await;
            }
        }
    }
}

fn failure(key: &[u8], reason: String) -> Error {
    Error::Transform { key: String::from_utf8_lossy(key).into_owned(), reason }
}

impl Transformed {
    async fn close(&self, ops: &mut [Op]) -> Result<(), Error> {
        for op in ops {
            if let Op::Put { key, value, .. } = op
                && self.reader.transformer.covers(key)
            {
                let kept = self.reader.transformer.to_storage(key, value.clone()).await;
                *value = kept.map_err(|reason| failure(key, reason))?;
                self.reader.remember(key, false);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Transformed {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let mut response = self.inner.range(request).await?;
        self.reader.open_range(&mut response).await?;
        Ok(response)
    }

    async fn txn(&self, mut txn: Txn) -> Result<TxnResponse, Error> {
        self.close(&mut txn.success).await?;
        self.close(&mut txn.failure).await?;
        let mut response = self.inner.txn(txn).await?;
        for answer in &mut response.responses {
            match answer {
                OpResponse::Range(range) => self.reader.open_range(range).await?,
                OpResponse::Put { prev_kv: Some(kv) } => self.reader.open(kv).await?,
                OpResponse::Put { prev_kv: None } => {}
                OpResponse::DeleteRange { prev_kvs, .. } => {
                    for kv in prev_kvs {
                        self.reader.open(kv).await?;
                    }
                }
            }
        }
        Ok(response)
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        Ok(self.inner.watch(request).await?.read_by(Arc::clone(&self.reader)))
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        self.inner.compact(revision).await
    }
    async fn revision(&self) -> Result<i64, Error> {
        self.inner.revision().await
    }
    async fn request_progress(&self) -> Result<bool, Error> {
        self.inner.request_progress().await
    }
    async fn lease_grant(&self, ttl_seconds: i64) -> Result<Lease, Error> {
        self.inner.lease_grant(ttl_seconds).await
    }
    async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        self.inner.lease_revoke(id).await
    }
    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, Error> {
        self.inner.lease_keep_alive(id).await
    }
    async fn lease_time_to_live(&self, id: i64) -> Result<Lease, Error> {
        self.inner.lease_time_to_live(id).await
    }
    fn is_stale(&self, key: &[u8]) -> bool {
        self.reader.stale.lock().contains(key)
    }
}
