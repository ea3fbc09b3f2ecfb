//! The debug pages of flow control: levels, queues, and who waits in them, in upstream's columns.

use super::Fairness;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// Rows with their columns brought to one width.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0) + 2;
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            if at + 1 == columns {
                let _ = writeln!(out, "{cell}");
            } else {
                let _ = write!(out, "{:<1$}", format!("{cell},"), widths[at]);
            }
        }
    }
    out
}

fn row<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.iter().map(ToString::to_string).collect()
}

impl Fairness {
    /// `dump_priority_levels`, `dump_queues` or `dump_requests`.
    pub fn dump(&self, what: &str) -> Option<String> {
        match what {
            "dump_priority_levels" => Some(self.dump_levels()),
            "dump_queues" => Some(self.dump_queues()),
            "dump_requests" => Some(self.dump_requests()),
            _ => None,
        }
    }

    fn dump_levels(&self) -> String {
        let state = self.state.load();
        let mut rows = vec![row([
            &"PriorityLevelName",
            &"ActiveQueues",
            &"IsIdle",
            &"IsQuiescing",
            &"WaitingRequests",
            &"ExecutingRequests",
            &"DispatchedRequests",
            &"RejectedRequests",
            &"TimedoutRequests",
            &"CancelledRequests",
        ])];
        for level in state.levels.values() {
            let flows = || state.entries.iter().filter(|entry| entry.level.name == level.name);
            let dispatched: u64 = flows().map(|entry| entry.flow.dispatched.load(Ordering::Relaxed)).sum();
            let refused: u64 = flows().map(|entry| entry.flow.refusals()).sum();
            let late: u64 = flows().map(|entry| entry.flow.timeouts()).sum();
            let (active, waiting, executing) = match &level.limited {
                None => (0, 0, level.counts.executing.load(Ordering::Relaxed) as usize),
                Some(limited) => {
                    let inner = limited.inner.lock();
                    let active = inner.set.dump();
                    let active = active
                        .iter()
                        .filter(|queue| queue.executing > 0 || !queue.waiting.is_empty())
                        .count();
                    (active, inner.set.waiting(), inner.set.executing())
                }
            };
            let idle = waiting == 0 && executing == 0;
            rows.push(row([
                &level.name,
                &active,
                &idle,
                &false,
                &waiting,
                &executing,
                &dispatched,
                &refused,
                &late,
                &late,
            ]));
        }
        table(&rows)
    }

    fn dump_queues(&self) -> String {
        let mut rows = vec![row([
            &"PriorityLevelName",
            &"Index",
            &"PendingRequests",
            &"ExecutingRequests",
            &"SeatsInUse",
            &"NextDispatchR",
            &"InitialSeatsSum",
            &"MaxSeatsSum",
            &"TotalWorkSum",
        ])];
        for level in self.state.load().levels.values() {
            let Some(limited) = &level.limited else { continue };
            for (index, queue) in limited.inner.lock().set.dump().iter().enumerate() {
                let initial: u64 = queue.waiting.iter().map(|request| request.work.initial_seats).sum();
                rows.push(row([
                    &level.name,
                    &index,
                    &queue.waiting.len(),
                    &queue.executing,
                    &queue.seats_in_use,
                    &format!("{:.8}ss", queue.next_dispatch),
                    &initial,
                    &queue.seats_waiting,
                    &format!("{:.8}ss", queue.work_waiting),
                ]));
            }
        }
        table(&rows)
    }

    fn dump_requests(&self) -> String {
        let mut rows = vec![row([
            &"PriorityLevelName",
            &"QueueIndex",
            &"RequestIndexInQueue",
            &"WaitedSeconds",
            &"InitialSeats",
            &"FinalSeats",
            &"AdditionalLatency",
        ])];
        let now = self.now();
        for level in self.state.load().levels.values() {
            let Some(limited) = &level.limited else { continue };
            for (index, queue) in limited.inner.lock().set.dump().iter().enumerate() {
                for (place, request) in queue.waiting.iter().enumerate() {
                    let waited = now.saturating_sub(request.arrived) as f64 / 1e9;
                    rows.push(row([
                        &level.name,
                        &index,
                        &place,
                        &format!("{waited:.3}"),
                        &request.work.initial_seats,
                        &request.work.final_seats,
                        &format!("{}ms", request.work.lingers / 1_000_000),
                    ]));
                }
            }
        }
        table(&rows)
    }
}
