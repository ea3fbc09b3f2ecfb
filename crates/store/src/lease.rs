//! Decides when leases end: deadlines on the monotonic clock, and one thread that sleeps until the next.
//!
//! Deadlines do not outlast the process: after a restart every lease has its full time again, as in etcd.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

/// How long after a failed attempt to end a lease the next one is made.
const RETRY: Duration = Duration::from_secs(1);

/// The deadlines of a store's leases.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<i64, Instant>,
    by_time: BTreeSet<(Instant, i64)>,
    running: bool,
    closed: bool,
}

impl Table {
    fn set(&mut self, id: i64, at: Instant) {
        if let Some(old) = self.by_id.insert(id, at) {
            self.by_time.remove(&(old, id));
        }
        self.by_time.insert((at, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some(old) = self.by_id.remove(&id) {
            self.by_time.remove(&(old, id));
        }
    }
}

impl Deadlines {
    /// Gives a lease its time to live in seconds from now on. Starts the thread with the first lease;
    /// `expire` ends a lease and answers whether that went well.
    pub(crate) fn set(
        self: &Arc<Self>,
        id: i64,
        ttl: i64,
        expire: impl FnOnce() -> Box<dyn Fn(i64) -> bool + Send>,
    ) {
        let mut table = self.table.lock();
        table.set(id, Instant::now() + Duration::from_secs(ttl.unsigned_abs()));
        if !table.running && !table.closed {
            let (deadlines, expire) = (self.clone(), expire());
            let thread = std::thread::Builder::new().name("store-leases".into());
            match thread.spawn(move || deadlines.run(&*expire)) {
                Ok(_) => table.running = true,
                Err(error) => tracing::error!(%error, "the thread that ends leases could not be started"),
            }
        }
        drop(table);
        self.changed.notify_one();
    }

    /// Gives a lease that has a deadline its full time again.
    pub(crate) fn renew(&self, id: i64, ttl: i64) {
        let mut table = self.table.lock();
        if table.by_id.contains_key(&id) {
            table.set(id, Instant::now() + Duration::from_secs(ttl.unsigned_abs()));
        }
    }

    pub(crate) fn remove(&self, id: i64) {
        self.table.lock().remove(id);
    }

    /// The time that a lease has left, in seconds.
    pub(crate) fn left(&self, id: i64) -> Option<i64> {
        let at = *self.table.lock().by_id.get(&id)?;
        Some(at.saturating_duration_since(Instant::now()).as_secs() as i64)
    }

    pub(crate) fn close(&self) {
        self.table.lock().closed = true;
        self.changed.notify_one();
    }

    fn run(&self, expire: &dyn Fn(i64) -> bool) {
        let mut table = self.table.lock();
        while !table.closed {
            let Some((at, id)) = table.by_time.first().copied() else {
                self.changed.wait(&mut table);
                continue;
            };
            if at > Instant::now() {
                self.changed.wait_until(&mut table, at);
                continue;
            }
            table.remove(id);
            drop(table);
            let ended = expire(id);
            table = self.table.lock();
            if !ended && !table.closed {
                table.set(id, Instant::now() + RETRY);
            }
        }
    }
}

/// An ID for a new lease: the clock's nanoseconds, which no lease granted before has.
pub(crate) fn new_id() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ((since.as_nanos() & 0x7fff_ffff_ffff_ffff) as i64).max(1)
}
