//! Decides what every engine of the store must do: one list of behaviours, run over each.

mod leases;
mod reads;
pub mod server;
mod watches;
mod writes;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{Error, Op, OpResponse, RangeRequest, Store, Txn, Watch, WatchRequest, WatchResponse};

/// One behaviour's share of a store: all its keys lie under a prefix of its own.
#[derive(Clone)]
pub struct Room {
    pub store: Arc<dyn Store>,
    pub prefix: String,
}

type Behaviour = (&'static str, fn(Room) -> Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! behaviours {
    ($($module:ident :: $name:ident),* $(,)?) => {
        &[$((stringify!($name), |room| Box::pin($module::$name(room)))),*]
    };
}

const BEHAVIOURS: &[Behaviour] = behaviours![
    reads::a_range_is_ordered_limited_and_counted,
    reads::a_range_end_of_zero_reads_to_the_end,
    reads::the_past_can_be_read_until_it_is_compacted,
    reads::the_future_cannot_be_read,
    reads::paging_at_a_revision_sees_one_state,
    reads::an_empty_key_is_refused,
    writes::revisions_and_versions_count_writes,
    writes::a_transaction_compares_and_takes_one_branch,
    writes::every_comparison_compares,
    writes::all_writes_of_a_transaction_share_a_revision,
    writes::a_read_in_a_transaction_sees_its_writes,
    writes::a_key_is_not_written_twice_in_a_transaction,
    writes::a_deletion_of_nothing_makes_no_revision,
    writes::what_a_key_held_before_is_answered,
    writes::too_large_a_request_is_refused,
    writes::concurrent_compare_and_swap_loses_nothing,
    watches::a_watch_tells_changes_in_its_range,
    watches::a_watch_starts_in_the_past,
    watches::a_watch_of_a_compacted_revision_is_told_so,
    watches::a_watch_starts_in_the_future,
    watches::a_watch_carries_what_was_before,
    watches::a_progress_mark_comes_when_asked_for,
    watches::progress_counts_what_the_reader_is_done_with,
    watches::many_events_all_come_in_order,
    leases::a_key_needs_an_existing_lease,
    leases::a_revoked_lease_deletes_its_keys_in_one_revision,
    leases::an_expired_lease_deletes_its_keys,
    leases::a_lease_is_kept_alive_and_told,
];

/// Runs all behaviours, each with a prefix of its own, on the stores that `open` gives.
pub async fn run<F>(open: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Store>>,
{
    for (name, behaviour) in BEHAVIOURS {
        println!("  {name}");
        let room = Room { store: open().await, prefix: format!("/test/{name}/") };
        tokio::time::timeout(Duration::from_secs(60), behaviour(room))
            .await
            .unwrap_or_else(|_| panic!("{name} did not end"));
    }
}

impl Room {
    pub fn key(&self, name: &str) -> Bytes {
        format!("{}{name}", self.prefix).into()
    }

    /// Writes a key and answers the revision.
    pub async fn put(&self, name: &str, value: &str) -> i64 {
        self.store.txn(Txn::put(self.key(name), value.to_owned())).await.unwrap().revision
    }

    pub async fn delete(&self, name: &str) -> i64 {
        self.store.txn(Txn::delete(self.key(name))).await.unwrap().revision
    }

    pub fn all(&self) -> RangeRequest {
        RangeRequest::prefix(self.prefix.clone())
    }

    /// The keys under the prefix with their values at a revision (0 for now), as `name=value` words.
    pub async fn read(&self, revision: i64) -> Result<String, Error> {
        let response = self.store.range(RangeRequest { revision, ..self.all() }).await?;
        Ok(self.words(&response.kvs))
    }

    pub fn words(&self, kvs: &[Arc<store::KeyValue>]) -> String {
        let words = kvs.iter().map(|kv| {
            let key = String::from_utf8_lossy(&kv.key[self.prefix.len()..]).into_owned();
            format!("{key}={}", String::from_utf8_lossy(&kv.value))
        });
        words.collect::<Vec<_>>().join(" ")
    }

    pub async fn watch(&self, start_revision: i64) -> Watch {
        self.store.watch(WatchRequest::prefix(self.prefix.clone(), start_revision)).await.unwrap()
    }

    /// Events as `+name=value` and `-name` words.
    pub fn told(&self, response: &WatchResponse) -> String {
        let words = response.events.iter().map(|event| {
            let key = String::from_utf8_lossy(&event.kv.key[self.prefix.len()..]).into_owned();
            match event.kind {
                store::EventKind::Put => format!("+{key}={}", String::from_utf8_lossy(&event.kv.value)),
                store::EventKind::Delete => format!("-{key}"),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Reads a watch until `count` events have come.
    pub async fn hear(&self, watch: &mut Watch, count: usize) -> String {
        let mut heard = Vec::new();
        while heard.len() < count {
            let response = watch.recv().await.expect("the watch goes on").expect("no error");
            heard.extend(self.told(&response).split(' ').filter(|word| !word.is_empty()).map(str::to_owned));
        }
        heard.join(" ")
    }

    pub async fn txn(&self, txn: Txn) -> store::TxnResponse {
        self.store.txn(txn).await.unwrap()
    }

    pub fn put_op(&self, name: &str, value: &str) -> Op {
        Op::put(self.key(name), value.to_owned())
    }
}

/// The only answer of a transaction, which must be a range.
pub fn only_range(response: &store::TxnResponse) -> &store::RangeResponse {
    match &response.responses[..] {
        [OpResponse::Range(range)] => range,
        other => panic!("one range was expected: {other:?}"),
    }
}
