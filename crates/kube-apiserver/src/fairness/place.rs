//! A request's place in its level: waited for, held while it runs, given back when it is dropped.

use super::Fairness;
use super::level::{Level, Limited};
use super::metrics::FlowCounts;
use flowcontrol::{Arrival, Refusal, RequestId, Work};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Held while a request runs.
pub struct Place {
    level: Arc<Level>,
    flow: Arc<FlowCounts>,
    seats: u64,
    running: Option<Instant>,
    /// `None` in an exempt level.
    counted: Option<(Arc<Fairness>, RequestId)>,
}

impl Place {
    /// Counts an exempt request: nothing is waited for.
    pub fn exempt(level: &Arc<Level>, flow: &Arc<FlowCounts>) -> Self {
        let mut place = Place {
            level: Arc::clone(level),
            flow: Arc::clone(flow),
            seats: 1,
            running: None,
            counted: None,
        };
        place.runs();
        place
    }

    pub async fn enter(
        fairness: &Arc<Fairness>,
        level: &Arc<Level>,
        limited: &Limited,
        flow: &Arc<FlowCounts>,
        work: Work,
        hash: u64,
    ) -> Result<Self, Refusal> {
        let id = fairness.next.fetch_add(1, Ordering::Relaxed);
        let came = Instant::now();
        flow.width.observe(work.max_seats() as f64);
        let (arrival, waiter) = {
            let now = fairness.now();
            let mut inner = limited.inner.lock();
            let arrival = inner.set.arrive(id, work, hash, now);
            let waiter = (arrival == Arrival::Waits).then(|| {
                let (sender, receiver) = oneshot::channel();
                inner.waiters.insert(id, (sender, Arc::clone(flow)));
                receiver
            });
            inner.note_demand(now);
            (arrival, waiter)
        };
        let mut place = Place {
            level: Arc::clone(level),
            flow: Arc::clone(flow),
            seats: work.max_seats(),
            running: None,
            counted: Some((Arc::clone(fairness), id)),
        };
        match (arrival, waiter) {
            (Arrival::Refused(why), _) => {
                place.counted = None;
                place.refused(why, came);
                return Err(why);
            }
            (_, Some(waiter)) => place.wait(fairness, waiter, came).await?,
            _ => {}
        }
        flow.wait_executed.observe(came.elapsed().as_secs_f64());
        place.runs();
        Ok(place)
    }

    /// Waits for its turn; dropped while it waits, it leaves its queue.
    async fn wait(
        &mut self,
        fairness: &Arc<Fairness>,
        waiter: oneshot::Receiver<()>,
        came: Instant,
    ) -> Result<(), Refusal> {
        let waits = Waits::new(&self.flow, self.seats);
        let turn = tokio::time::timeout(fairness.wait_max, waiter).await;
        drop(waits);
        if turn.is_ok() {
            return Ok(());
        }
        // Its turn may have come at the last moment: then it runs after all.
        if self.leave_queue() {
            self.counted = None;
            self.refused(Refusal::TimeOut, came);
            return Err(Refusal::TimeOut);
        }
        Ok(())
    }

    /// Takes a waiting request out of its queue. `false`: it runs already.
    fn leave_queue(&self) -> bool {
        let (Some((fairness, id)), Some(limited)) = (&self.counted, &self.level.limited) else { return true };
        let now = fairness.now();
        let mut inner = limited.inner.lock();
        inner.waiters.remove(id);
        let left = inner.set.cancel(*id, now);
        inner.note_demand(now);
        left
    }

    fn refused(&self, why: Refusal, came: Instant) {
        self.flow.refused(why);
        self.flow.wait_refused.observe(came.elapsed().as_secs_f64());
    }

    fn runs(&mut self) {
        self.running = Some(Instant::now());
        self.level.counts.executing.fetch_add(1, Ordering::Relaxed);
        self.flow.dispatched.fetch_add(1, Ordering::Relaxed);
        self.flow.executing.fetch_add(1, Ordering::Relaxed);
        self.flow.seats.fetch_add(self.seats, Ordering::Relaxed);
    }

    fn finish(&self) {
        let (Some((fairness, id)), Some(limited)) = (&self.counted, &self.level.limited) else { return };
        let lingers = {
            let now = fairness.now();
            let mut inner = limited.inner.lock();
            let finished = inner.set.finish(*id, now);
            inner.wake(finished.dispatched);
            inner.note_demand(now);
            finished.lingers
        };
        let (Some(lingers), Ok(runtime)) = (lingers, tokio::runtime::Handle::try_current()) else { return };
        let (fairness, id, level) = (Arc::clone(fairness), *id, Arc::clone(&self.level));
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_nanos(lingers)).await;
            let Some(limited) = &level.limited else { return };
            let now = fairness.now();
            let mut inner = limited.inner.lock();
            let dispatched = inner.set.release(id, now);
            inner.wake(dispatched);
            inner.note_demand(now);
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(since) = self.running else {
            if self.counted.is_some() && !self.leave_queue() {
                self.finish();
            }
            return;
        };
        self.level.counts.executing.fetch_sub(1, Ordering::Relaxed);
        self.flow.executing.fetch_sub(1, Ordering::Relaxed);
        self.flow.seats.fetch_sub(self.seats, Ordering::Relaxed);
        self.flow.execution.observe(since.elapsed().as_secs_f64());
        self.finish();
    }
}

/// Counts a request as waiting until it is dropped.
struct Waits<'a> {
    flow: &'a FlowCounts,
    seats: u64,
}

impl<'a> Waits<'a> {
    fn new(flow: &'a FlowCounts, seats: u64) -> Self {
        flow.waiting.fetch_add(1, Ordering::Relaxed);
        flow.seats_waiting.fetch_add(seats, Ordering::Relaxed);
        Waits { flow, seats }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.flow.waiting.fetch_sub(1, Ordering::Relaxed);
        self.flow.seats_waiting.fetch_sub(self.seats, Ordering::Relaxed);
    }
}
