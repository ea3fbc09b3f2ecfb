//! Decides how the engines of this process serve the trait: reads from the published snapshot, writes either
//! under a lock (memory) or by way of the log's thread (embedded).

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Instant;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::Store;
use crate::embedded::{self, Options, Threads};
use crate::error::Error;
use crate::history::Limits;
use crate::hub::{Hub, Watch};
use crate::lease::{Deadlines, new_id};
use crate::mvcc::{Record, State};
use crate::types::{Lease, RangeRequest, RangeResponse, Txn, TxnResponse, WatchRequest};

/// The longest time to live of a lease, in seconds: etcd's limit.
const MAX_TTL: i64 = 9_000_000_000;

/// A write, as it goes to whoever holds the newest state.
#[derive(Debug)]
pub(crate) enum Request {
    Txn(Txn),
    Compact(i64),
    Grant { ttl: i64 },
    Revoke { id: i64 },
}

/// The answer to a write.
#[derive(Debug)]
pub(crate) enum Reply {
    Txn(TxnResponse),
    Granted(Lease),
    Done,
}

/// A write on its way to the log's thread.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Result<Reply, Error>>,
}

impl State {
    /// Carries out a write and notes what has to outlast the process; nothing is noted if it fails.
    pub(crate) fn apply(&mut self, request: &Request, records: &mut Vec<Record>) -> Result<Reply, Error> {
        match request {
            Request::Txn(txn) => {
                let (response, record) = self.txn(txn)?;
                records.extend(record);
                Ok(Reply::Txn(response))
            }
            Request::Compact(revision) => {
                records.push(self.compact(*revision)?);
                Ok(Reply::Done)
            }
            Request::Grant { ttl } => {
                let mut id = new_id();
                while self.leases.contains_key(&id) {
                    id = id.wrapping_add(1).max(1);
                }
                records.push(self.grant(id, *ttl)?);
                Ok(Reply::Granted(Lease { id, granted_ttl: *ttl, ttl: *ttl, keys: Vec::new() }))
            }
            Request::Revoke { id } => {
                records.extend(self.revoke(*id)?);
                Ok(Reply::Done)
            }
        }
    }
}

impl Hub {
    /// Makes a state and the records that led to it visible, and keeps the history within its limits.
    pub(crate) fn commit(&self, state: &mut State, records: &[Record], limits: &Limits) {
        self.publish(|published| {
            let mut commits = Vec::with_capacity(records.len());
            for record in records {
                match record {
                    Record::Commit(commit) => {
                        published.history.push(commit.clone());
                        commits.push(commit.clone());
                    }
                    Record::Compact(revision) => published.history.compact(*revision),
                    Record::Grant { .. } | Record::Revoke { .. } => {}
                }
            }
            let now = Instant::now();
            published.history.mark(state, now);
            if let Some(revision) = published.history.surplus(limits, now) {
                published.history.compact(revision);
                state.compacted = state.compacted.max(revision);
            }
            published.state = state.clone();
            commits
        });
    }
}

/// An engine of this process.
pub(crate) struct Local {
    inner: Arc<Inner>,
    /// Waited for when the store is dropped, so that its directory can be opened again at once.
    threads: Option<Threads>,
}

struct Inner {
    hub: Arc<Hub>,
    limits: Limits,
    writer: Writer,
    deadlines: Arc<Deadlines>,
}

/// Who holds the newest state.
pub(crate) enum Writer {
    Memory(Mutex<State>),
    /// None once the store is being closed.
    Log(RwLock<Option<mpsc::Sender<Command>>>),
}

impl Writer {
    fn commands(&self) -> Option<mpsc::Sender<Command>> {
        match self {
            Writer::Memory(_) => None,
            Writer::Log(commands) => commands.read().clone(),
        }
    }
}

impl Local {
    pub(crate) fn in_memory(limits: Limits) -> Local {
        Local::new(Arc::new(Hub::start(Default::default())), limits, Writer::Memory(Mutex::default()), None)
    }

    /// Opens a directory. Leases get their full time again.
    pub(crate) fn embedded(dir: &Path, options: Options) -> Result<Local, Error> {
        let (hub, commands, threads) = embedded::open(dir, &options)?;
        let writer = Writer::Log(RwLock::new(Some(commands)));
        Ok(Local::new(hub, options.history, writer, Some(threads)))
    }

    fn new(hub: Arc<Hub>, limits: Limits, writer: Writer, threads: Option<Threads>) -> Local {
        let inner = Arc::new(Inner { hub, limits, writer, deadlines: Arc::default() });
        let leases = inner.hub.published.read().state.leases.clone();
        for (id, lease) in &leases {
            inner.schedule(*id, lease.ttl);
        }
        Local { inner, threads }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.inner.deadlines.close();
        self.inner.hub.close();
        if let Writer::Log(commands) = &self.inner.writer {
            commands.write().take();
        }
        // Without a sender left, the log's thread ends.
        self.threads.take();
    }
}

impl Inner {
    fn schedule(self: &Arc<Self>, id: i64, ttl: i64) {
        let weak: Weak<Inner> = Arc::downgrade(self);
        self.deadlines
            .set(id, ttl, || Box::new(move |id| weak.upgrade().is_none_or(|inner| inner.expire(id))));
    }

    /// Ends a lease whose time is over; called from the thread that watches over leases.
    fn expire(&self, id: i64) -> bool {
        let request = Request::Revoke { id };
        let ended = match (&self.writer, self.writer.commands()) {
            (Writer::Memory(state), _) => self.apply(state, &request).map(|_| ()),
            (Writer::Log(_), None) => Err(Error::Closed),
            (Writer::Log(_), Some(commands)) => {
                let (reply, answer) = oneshot::channel();
                match commands.blocking_send(Command { request, reply }) {
                    Ok(()) => answer.blocking_recv().unwrap_or(Err(Error::Closed)).map(|_| ()),
                    Err(_) => Err(Error::Closed),
                }
            }
        };
        match ended {
            Ok(()) | Err(Error::LeaseNotFound | Error::Closed) => true,
            Err(error) => {
                tracing::warn!(lease = id, %error, "an expired lease could not be ended, it is tried again");
                false
            }
        }
    }

    fn apply(&self, state: &Mutex<State>, request: &Request) -> Result<Reply, Error> {
        let mut state = state.lock();
        let mut records = Vec::new();
        let reply = state.apply(request, &mut records)?;
        if !records.is_empty() {
            self.hub.commit(&mut state, &records, &self.limits);
        }
        Ok(reply)
    }

    async fn write(&self, request: Request) -> Result<Reply, Error> {
        match &self.writer {
            Writer::Memory(state) => self.apply(state, &request),
            Writer::Log(_) => {
                let commands = self.writer.commands().ok_or(Error::Closed)?;
                let (reply, answer) = oneshot::channel();
                commands.send(Command { request, reply }).await.map_err(|_| Error::Closed)?;
                answer.await.unwrap_or(Err(Error::Closed))
            }
        }
    }

    fn lease(&self, id: i64, with_keys: bool) -> Result<Lease, Error> {
        let leases = self.hub.published.read().state.leases.clone();
        let lease = leases.get(&id).ok_or(Error::LeaseNotFound)?;
        let keys = if with_keys { lease.keys.iter().cloned().collect() } else { Vec::new() };
        Ok(Lease { id, granted_ttl: lease.ttl, ttl: self.deadlines.left(id).unwrap_or(0), keys })
    }
}

#[async_trait]
impl Store for Local {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let view = self.inner.hub.published.read().view(&request)?;
        Ok(view.answer(&request))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        if !txn.writes() {
            let mut snapshot = self.inner.hub.published.read().state.clone();
            return snapshot.txn(&txn).map(|(response, _)| response);
        }
        match self.inner.write(Request::Txn(txn)).await? {
            Reply::Txn(response) => Ok(response),
            Reply::Granted(_) | Reply::Done => Err(Error::Unavailable("the wrong answer came".into())),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        self.inner.hub.watch(&request)
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        self.inner.write(Request::Compact(revision)).await.map(|_| ())
    }

    async fn revision(&self) -> Result<i64, Error> {
        Ok(self.inner.hub.published.read().state.revision)
    }

    async fn request_progress(&self) -> Result<bool, Error> {
        self.inner.hub.request_progress();
        Ok(true)
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<Lease, Error> {
        if ttl_seconds < 1 {
            return Err(Error::invalid("a lease's time to live must be at least one second"));
        }
        if ttl_seconds > MAX_TTL {
            return Err(Error::invalid("too large lease TTL"));
        }
        match self.inner.write(Request::Grant { ttl: ttl_seconds }).await? {
            Reply::Granted(lease) => {
                self.inner.schedule(lease.id, lease.granted_ttl);
                Ok(lease)
            }
            Reply::Txn(_) | Reply::Done => Err(Error::Unavailable("the wrong answer came".into())),
        }
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        self.inner.write(Request::Revoke { id }).await?;
        self.inner.deadlines.remove(id);
        Ok(())
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<Lease, Error> {
        let lease = self.inner.lease(id, false)?;
        self.inner.deadlines.renew(id, lease.granted_ttl);
        Ok(Lease { ttl: lease.granted_ttl, ..lease })
    }

    async fn lease_time_to_live(&self, id: i64) -> Result<Lease, Error> {
        self.inner.lease(id, true)
    }
}
