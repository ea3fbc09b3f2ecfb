//! Fair queues of one level: who runs next.
//!
//! Every queue has a virtual time at which its next request starts, in seat-nanoseconds that a queue has had since the
//! beginning. The request that would finish first in virtual time runs next; a queue that was idle starts at now, so
//! that nobody saves up. A request takes all its seats at once and, where it must wait for them, the others wait with
//! it.

use crate::{Nanos, Work, deal};
use std::collections::{BTreeMap, VecDeque};

/// Names a request; the caller never uses one twice.
pub type RequestId = u64;

/// What a request is reckoned to take while it runs; corrected when it has ended.
const ESTIMATE: Nanos = 3_000_000;

/// How a level queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    /// 0: nothing waits, what does not fit is refused.
    pub queues: usize,
    pub hand_size: usize,
    pub queue_length_limit: usize,
}

/// Why a request is refused; metrics name it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
}

impl Refusal {
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::QueueFull => "queue-full",
            Refusal::TimeOut => "time-out",
        }
    }
}

/// What becomes of a request that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    Runs,
    Waits,
    Refused(Refusal),
}

/// What a request that has ended leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Requests that run from now on.
    pub dispatched: Vec<RequestId>,
    /// Its seats stay taken for this long; then `release` must be called.
    pub lingers: Option<Nanos>,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    waiting: VecDeque<RequestId>,
    executing: usize,
    seats_in_use: u64,
    /// Seat-nanoseconds of what waits.
    work_waiting: i128,
    seats_waiting: u64,
    next_dispatch: i128,
}

impl Queue {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || self.executing > 0
    }
}

#[derive(Clone, Debug)]
struct Request {
    queue: Option<usize>,
    work: Work,
    arrived: Nanos,
    arrived_virtual: i128,
    started: Option<Nanos>,
}

impl Request {
    fn total(&self) -> i128 {
        i128::from(self.work.initial_seats) * i128::from(ESTIMATE)
            + i128::from(self.work.final_seats) * i128::from(self.work.lingers)
    }
}

/// The queues of one level.
#[derive(Clone, Debug)]
pub struct QueueSet {
    queuing: Queuing,
    limit: u64,
    queues: Vec<Queue>,
    requests: BTreeMap<RequestId, Request>,
    /// Seat-nanoseconds per queue since the beginning.
    virtual_now: i128,
    at: Nanos,
    robin: usize,
    arrivals: usize,
    waiting: usize,
    executing: usize,
    seats_in_use: u64,
    seats_waiting: u64,
}

/// One queue, for the debug pages.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDump {
    pub waiting: Vec<RequestDump>,
    pub executing: usize,
    pub seats_in_use: u64,
    /// Seat-seconds.
    pub next_dispatch: f64,
    pub seats_waiting: u64,
    pub work_waiting: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDump {
    pub id: RequestId,
    pub arrived: Nanos,
    pub work: Work,
}

const NANOS: f64 = 1e9;

impl QueueSet {
    pub fn new(queuing: Queuing, limit: u64, now: Nanos) -> Self {
        let mut set = QueueSet {
            queuing,
            limit,
            queues: Vec::new(),
            requests: BTreeMap::new(),
            virtual_now: 0,
            at: now,
            robin: 0,
            arrivals: 0,
            waiting: 0,
            executing: 0,
            seats_in_use: 0,
            seats_waiting: 0,
        };
        set.resize();
        set
    }

    /// New queues come at once; those that are too many go when they are empty.
    fn resize(&mut self) {
        while self.queues.len() < self.queuing.queues {
            self.queues.push(Queue::default());
        }
        while self.queues.len() > self.queuing.queues
            && self.queues.last().is_some_and(|queue| !queue.is_active())
        {
            self.queues.pop();
        }
    }

    /// Takes another configuration on; what can run under it runs.
    pub fn configure(&mut self, queuing: Queuing, limit: u64, now: Nanos) -> Vec<RequestId> {
        self.advance(now);
        (self.queuing, self.limit) = (queuing, limit);
        self.resize();
        self.dispatch(now)
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }
    pub fn waiting(&self) -> usize {
        self.waiting
    }
    pub fn executing(&self) -> usize {
        self.executing
    }
    pub fn seats_in_use(&self) -> u64 {
        self.seats_in_use
    }
    /// Seats that could be used now, if there were enough.
    pub fn demand(&self) -> u64 {
        self.seats_in_use + self.seats_waiting
    }
    /// Seat-seconds per queue since the beginning.
    pub fn progress(&self) -> f64 {
        self.virtual_now as f64 / NANOS
    }

    /// Virtual time goes by as fast as active queues get seats.
    fn advance(&mut self, now: Nanos) {
        let span = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        if span == 0 || self.demand() == 0 {
            return;
        }
        let active = self.queues.iter().filter(|queue| queue.is_active()).count();
        if active == 0 {
            return;
        }
        let seats = self.demand().min(self.limit);
        self.virtual_now += i128::from(span) * i128::from(seats) / active as i128;
    }

    fn fits(&self, seats: u64) -> bool {
        if seats > self.limit {
            // Wider than the level: it runs alone.
            return self.executing == 0;
        }
        self.seats_in_use + seats <= self.limit
    }

    /// A request comes. Others never start because of it.
    pub fn arrive(&mut self, id: RequestId, work: Work, hash: u64, now: Nanos) -> Arrival {
        self.advance(now);
        let request =
            Request { queue: None, work, arrived: now, arrived_virtual: self.virtual_now, started: None };
        if self.queuing.queues == 0 {
            if !self.fits(work.max_seats()) {
                return Arrival::Refused(Refusal::ConcurrencyLimit);
            }
            self.executing += 1;
            self.seats_in_use += work.max_seats();
            self.requests.insert(id, Request { started: Some(now), ..request });
            return Arrival::Runs;
        }
        let at = self.choose(hash);
        let full = self.queues[at].waiting.len() >= self.queuing.queue_length_limit;
        if self.seats_in_use >= self.limit && full {
            return Arrival::Refused(Refusal::QueueFull);
        }
        let queue = &mut self.queues[at];
        if !queue.is_active() {
            queue.next_dispatch = self.virtual_now;
        }
        queue.waiting.push_back(id);
        queue.work_waiting += request.total();
        queue.seats_waiting += work.max_seats();
        self.waiting += 1;
        self.seats_waiting += work.max_seats();
        self.requests.insert(id, Request { queue: Some(at), ..request });
        self.bound(at);
        if self.dispatch(now).contains(&id) { Arrival::Runs } else { Arrival::Waits }
    }

    /// The queue of a flow's hand with the least work before it.
    fn choose(&mut self, hash: u64) -> usize {
        let hand = deal(hash, self.queuing.queues, self.queuing.hand_size.max(1));
        let offset = self.arrivals % hand.len();
        self.arrivals = self.arrivals.wrapping_add(1);
        let turned = (0..hand.len()).map(|at| hand[(offset + at) % hand.len()]);
        turned.min_by_key(|at| self.queues[*at].work_waiting).unwrap_or(0)
    }

    /// A queue never starts its oldest request before that arrived: idle time is not saved up.
    fn bound(&mut self, at: usize) {
        let queue = &mut self.queues[at];
        if let Some(oldest) = queue.waiting.front().and_then(|id| self.requests.get(id)) {
            queue.next_dispatch = queue.next_dispatch.max(oldest.arrived_virtual);
        }
    }

    fn dispatch(&mut self, now: Nanos) -> Vec<RequestId> {
        let mut out = Vec::new();
        while self.waiting > 0 && self.seats_in_use < self.limit {
            match self.dispatch_one(now) {
                Some(id) => out.push(id),
                None => break,
            }
        }
        out
    }

    fn dispatch_one(&mut self, now: Nanos) -> Option<RequestId> {
        let count = self.queues.len();
        let mut best: Option<(i128, usize)> = None;
        for step in 1..=count {
            let at = (self.robin + step) % count;
            let Some(oldest) = self.queues[at].waiting.front().and_then(|id| self.requests.get(id)) else {
                continue;
            };
            let finish = self.queues[at].next_dispatch + oldest.total();
            if best.is_none_or(|(known, _)| finish < known) {
                best = Some((finish, at));
            }
        }
        let (_, at) = best?;
        let id = *self.queues[at].waiting.front()?;
        let work = self.requests.get(&id)?.work;
        if !self.fits(work.max_seats()) {
            return None;
        }
        self.robin = at;
        self.take_out(id, at);
        let limit = self.limit.max(1);
        let request = self.requests.get_mut(&id)?;
        if request.work.final_seats > limit {
            // As much work, over fewer seats, takes longer.
            request.work.lingers = request.work.final_seats * request.work.lingers / limit;
            request.work.final_seats = limit;
        }
        request.started = Some(now);
        let (seats, total) = (request.work.max_seats(), request.total());
        let queue = &mut self.queues[at];
        queue.executing += 1;
        queue.seats_in_use += seats;
        queue.next_dispatch += total;
        self.executing += 1;
        self.seats_in_use += seats;
        self.bound(at);
        Some(id)
    }

    /// Takes a request out of what waits.
    fn take_out(&mut self, id: RequestId, at: usize) {
        let Some(request) = self.requests.get(&id) else { return };
        let (total, seats) = (request.total(), request.work.max_seats());
        let queue = &mut self.queues[at];
        queue.waiting.retain(|known| *known != id);
        queue.work_waiting -= total;
        queue.seats_waiting -= seats;
        self.waiting -= 1;
        self.seats_waiting -= seats;
    }

    /// A request no longer waits. `false`: it runs already, and must be finished.
    pub fn cancel(&mut self, id: RequestId, now: Nanos) -> bool {
        self.advance(now);
        let Some(request) = self.requests.get(&id).filter(|request| request.started.is_none()) else {
            return false;
        };
        let Some(at) = request.queue else { return false };
        self.take_out(id, at);
        self.requests.remove(&id);
        self.bound(at);
        true
    }

    /// A request has been answered.
    pub fn finish(&mut self, id: RequestId, now: Nanos) -> Finished {
        self.advance(now);
        let Some(request) = self.requests.get(&id).cloned() else { return Finished::default() };
        let took = now.saturating_sub(request.started.unwrap_or(now));
        self.executing -= 1;
        if let Some(at) = request.queue {
            let queue = &mut self.queues[at];
            queue.executing -= 1;
            // The estimate is corrected by what it really took.
            queue.next_dispatch -=
                i128::from(request.work.initial_seats) * (i128::from(ESTIMATE) - i128::from(took));
            self.bound(at);
        }
        if request.work.lingers > 0 {
            return Finished { dispatched: self.dispatch(now), lingers: Some(request.work.lingers) };
        }
        Finished { dispatched: self.release(id, now), lingers: None }
    }

    /// The seats of a request that has ended are free.
    pub fn release(&mut self, id: RequestId, now: Nanos) -> Vec<RequestId> {
        self.advance(now);
        let Some(request) = self.requests.remove(&id) else { return Vec::new() };
        let seats = request.work.max_seats();
        self.seats_in_use -= seats;
        if let Some(at) = request.queue {
            self.queues[at].seats_in_use -= seats;
        }
        self.resize();
        self.dispatch(now)
    }

    pub fn dump(&self) -> Vec<QueueDump> {
        let one = |queue: &Queue| QueueDump {
            waiting: queue
                .waiting
                .iter()
                .filter_map(|id| {
                    let request = self.requests.get(id)?;
                    Some(RequestDump { id: *id, arrived: request.arrived, work: request.work })
                })
                .collect(),
            executing: queue.executing,
            seats_in_use: queue.seats_in_use,
            next_dispatch: queue.next_dispatch as f64 / NANOS,
            seats_waiting: queue.seats_waiting,
            work_waiting: queue.work_waiting as f64 / NANOS,
        };
        self.queues.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests;
