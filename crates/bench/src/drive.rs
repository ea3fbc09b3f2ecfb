//! Runs an operation many times over, by so many clients, and counts what came of it.
//!
//! Without a rate each client asks as soon as it was answered: what is measured is the most that the server does.
//! With a rate operations fall due at fixed times, and latency counts from there, whoever made it late.

use crate::process::Processes;
use crate::progress::Progress;
use anyhow::Result;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Latencies are kept from 1 us to 10 min, with three digits.
const MICROS_MAX: u64 = 600_000_000;
/// How many different failures are told.
const FAILURES_TOLD: usize = 5;

/// How much is done.
#[derive(Clone, Debug)]
pub struct Load {
    pub clients: usize,
    /// No more operations than these.
    pub count: u64,
    /// And no operation begins after this time.
    pub length: Duration,
    /// Operations a second; `None` is as fast as it goes.
    pub rate: Option<f64>,
}

/// What came of it.
pub struct Measured {
    /// Operations that succeeded.
    pub count: u64,
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    pub elapsed: Duration,
    pub latency: Histogram<u64>,
    /// The server's processor time, in microseconds.
    pub cpu_micros: u64,
}

/// A histogram for microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are in order and 3 digits are few enough")
}

/// Counts a time; what is longer than the histogram's end counts as its end.
pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(time.as_micros().clamp(1, u128::from(MICROS_MAX)) as u64);
}

struct Client {
    latency: Histogram<u64>,
    failed: u64,
    failures: Vec<String>,
}

/// Does `operation` with the numbers 0, 1, 2 and so on.
pub async fn drive<Op, Running>(load: &Load, servers: &Processes, what: &str, operation: Op) -> Measured
where
    Op: Fn(u64) -> Running + Clone + Send + Sync + 'static,
    Running: Future<Output = Result<()>> + Send,
{
    let bar = Progress::new(what, if load.count == u64::MAX { 0 } else { load.count });
    let next = Arc::new(AtomicU64::new(0));
    let cpu = servers.cpu_micros();
    let begun = Instant::now();
    let clients: Vec<_> = (0..load.clients.max(1))
        .map(|_| {
            let (next, load, operation, bar) = (next.clone(), load.clone(), operation.clone(), bar.handle());
            tokio::spawn(async move { client(&load, begun, &next, operation, &bar).await })
        })
        .collect();
    let mut measured = Measured {
        count: 0,
        failed: 0,
        failures: Vec::new(),
        elapsed: Duration::ZERO,
        latency: histogram(),
        cpu_micros: 0,
    };
    for client in clients {
        let client = client.await.expect("a client does not panic");
        measured.latency.add(&client.latency).expect("all histograms have the same bounds");
        measured.failed += client.failed;
        measured.failures.extend(client.failures);
    }
    measured.failures.truncate(FAILURES_TOLD);
    measured.elapsed = begun.elapsed();
    measured.count = measured.latency.len();
    measured.cpu_micros = servers.cpu_micros().saturating_sub(cpu);
    measured
}

async fn client<Op, Running>(
    load: &Load,
    begun: Instant,
    next: &AtomicU64,
    operation: Op,
    bar: &indicatif::ProgressBar,
) -> Client
where
    Op: Fn(u64) -> Running,
    Running: Future<Output = Result<()>>,
{
    let mut client = Client { latency: histogram(), failed: 0, failures: Vec::new() };
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.count {
            break;
        }
        let start = match load.rate {
            None => Instant::now(),
            Some(rate) => {
                let due = begun + Duration::from_secs_f64(number as f64 / rate);
                if due.duration_since(begun) >= load.length {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                due
            }
        };
        if load.rate.is_none() && start.duration_since(begun) >= load.length {
            break;
        }
        match operation(number).await {
            Ok(()) => record(&mut client.latency, start.elapsed()),
            Err(error) => {
                client.failed += 1;
                if client.failures.len() < FAILURES_TOLD {
                    client.failures.push(format!("{error:#}"));
                }
            }
        }
        bar.inc(1);
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(clients: usize, count: u64, rate: Option<f64>) -> Load {
        Load { clients, count, length: Duration::from_secs(60), rate }
    }

    #[tokio::test]
    async fn every_number_comes_once() {
        let sum = Arc::new(AtomicU64::new(0));
        let adding = sum.clone();
        let measured = drive(&load(7, 100, None), &Processes::default(), "", move |number| {
            let sum = adding.clone();
            async move {
                sum.fetch_add(number, Ordering::Relaxed);
                anyhow::ensure!(number % 10 != 3, "the number ends in 3");
                Ok(())
            }
        })
        .await;
        assert_eq!((sum.load(Ordering::Relaxed), measured.count, measured.failed), (4950, 90, 10));
        assert_eq!(measured.failures[0], "the number ends in 3");
    }

    /// One stall delays all that falls due behind it; each of them counts it.
    #[tokio::test]
    async fn a_stall_is_counted_by_those_behind_it() {
        let measured = drive(&load(1, 10, Some(1000.0)), &Processes::default(), "", |number| async move {
            if number == 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        })
        .await;
        assert_eq!(measured.count, 10);
        assert!(measured.latency.min() >= 30_000, "{}", measured.latency.min());
    }
}
