//! Where events go: written while the request waits, or put into a bounded queue that a task empties.

use super::event;
use super::flags::{AuditFlags, Mode};
use super::log::{Limits, Log};
use super::webhook::Server;
use crate::families::Counters;
use anyhow::Result;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const MEGABYTE: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Lists on their way to a server at once.
const SENDING_MAX: usize = 8;

/// One place that events go to.
enum Sink {
    Log(Arc<Mutex<Log>>),
    Server(Arc<Server>),
    Queue { plugin: &'static str, queue: mpsc::Sender<Arc<str>> },
}

/// All places.
pub struct Sinks {
    all: Vec<Sink>,
    pub errors: Arc<Counters>,
}

impl Sinks {
    pub fn open(flags: &AuditFlags, shutdown: &CancellationToken) -> Result<Self> {
        let errors = Arc::new(Counters::default());
        let mut all = Vec::new();
        if let Some(path) = &flags.audit_log_path {
            let limits = Limits {
                bytes: flags.audit_log_maxsize * MEGABYTE,
                backups: flags.audit_log_maxbackup,
                age: DAY * u32::try_from(flags.audit_log_maxage).unwrap_or(u32::MAX / 2),
            };
            let log = Arc::new(Mutex::new(Log::open(path, limits)?));
            if flags.audit_log_mode == Mode::Batch {
                let (queue, waiting) = mpsc::channel(flags.audit_log_batch_buffer_size.max(1));
                tokio::spawn(write_all(log, waiting, shutdown.clone(), Arc::clone(&errors)));
                all.push(Sink::Queue { plugin: "log", queue });
            } else {
                all.push(Sink::Log(log));
            }
        }
        if let Some(path) = &flags.audit_webhook_config_file {
            let server = Arc::new(Server::open(path, flags.audit_webhook_initial_backoff)?);
            if flags.audit_webhook_mode == Mode::Batch {
                let (queue, waiting) = mpsc::channel(flags.audit_webhook_batch_buffer_size.max(1));
                let batches = Batches {
                    server,
                    size: flags.audit_webhook_batch_max_size.max(1),
                    wait: flags.audit_webhook_batch_max_wait,
                    throttle: flags.audit_webhook_batch_throttle_enable.then(|| {
                        Throttle::new(
                            flags.audit_webhook_batch_throttle_qps,
                            flags.audit_webhook_batch_throttle_burst,
                        )
                    }),
                    errors: Arc::clone(&errors),
                };
                tokio::spawn(batches.send_all(waiting, shutdown.clone()));
                all.push(Sink::Queue { plugin: "webhook", queue });
            } else {
                all.push(Sink::Server(server));
            }
        }
        Ok(Sinks { all, errors })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn failed(&self, plugin: &str, events: f64) {
        self.errors.add(crate::families::labels(&[("plugin", plugin)]), events);
    }

    /// Hands an event to every place; whether all have taken it.
    pub async fn take(&self, body: String) -> bool {
        let mut taken = true;
        let body: Arc<str> = body.into();
        for sink in &self.all {
            let (plugin, done) = match sink {
                Sink::Log(log) => ("log", log.lock().write(&event::line(&body), SystemTime::now()).is_ok()),
                Sink::Server(server) => ("webhook", server.send(&[body.to_string()]).await.is_ok()),
                // A full queue drops: auditing must not stop the server.
                Sink::Queue { plugin, queue } => (*plugin, queue.try_send(Arc::clone(&body)).is_ok()),
            };
            if !done {
                self.failed(plugin, 1.0);
                taken = false;
            }
        }
        taken
    }
}

async fn write_all(
    log: Arc<Mutex<Log>>,
    mut waiting: mpsc::Receiver<Arc<str>>,
    shutdown: CancellationToken,
    errors: Arc<Counters>,
) {
    loop {
        let body = tokio::select! {
            body = waiting.recv() => body,
            () = shutdown.cancelled() => waiting.try_recv().ok(),
        };
        let Some(body) = body else { return };
        if let Err(error) = log.lock().write(&event::line(&body), SystemTime::now()) {
            tracing::warn!(%error, "Could not write an audit event");
            errors.one(&[("plugin", "log")]);
        }
    }
}

/// A bucket of tokens, each a list that may be sent.
struct Throttle {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new(per_second: f64, burst: u32) -> Self {
        Throttle {
            per_second: per_second.max(0.001),
            burst: f64::from(burst),
            tokens: f64::from(burst),
            at: Instant::now(),
        }
    }

    async fn pass(&mut self) {
        let now = Instant::now();
        self.tokens = (self.tokens + (now - self.at).as_secs_f64() * self.per_second).min(self.burst);
        self.at = now;
        if self.tokens < 1.0 {
            let wait = (1.0 - self.tokens) / self.per_second;
            tokio::time::sleep(Duration::from_secs_f64(wait)).await;
            (self.tokens, self.at) = (1.0, Instant::now());
        }
        self.tokens -= 1.0;
    }
}

struct Batches {
    server: Arc<Server>,
    size: usize,
    wait: Duration,
    throttle: Option<Throttle>,
    errors: Arc<Counters>,
}

impl Batches {
    /// Sends what comes: a full list at once, others when the first of them has waited long enough.
    async fn send_all(mut self, mut waiting: mpsc::Receiver<Arc<str>>, shutdown: CancellationToken) {
        let sending = Arc::new(tokio::sync::Semaphore::new(SENDING_MAX));
        let mut ended = false;
        while !ended {
            let mut bodies: Vec<String> = Vec::new();
            let first = tokio::select! {
                body = waiting.recv() => body,
                () = shutdown.cancelled() => waiting.try_recv().ok(),
            };
            let Some(first) = first else { return };
            bodies.push(first.to_string());
            let until = Instant::now() + self.wait;
            while bodies.len() < self.size {
                let next = tokio::select! {
                    body = waiting.recv() => body,
                    () = tokio::time::sleep_until(until) => break,
                    () = shutdown.cancelled() => waiting.try_recv().ok(),
                };
                match next {
                    Some(body) => bodies.push(body.to_string()),
                    None => {
                        ended = true;
                        break;
                    }
                }
            }
            if let Some(throttle) = &mut self.throttle {
                throttle.pass().await;
            }
            let Ok(place) = Arc::clone(&sending).acquire_owned().await else { return };
            let (server, errors) = (Arc::clone(&self.server), Arc::clone(&self.errors));
            let send = async move {
                let _place = place;
                if let Err(error) = server.send(&bodies).await {
                    tracing::warn!(
                        error,
                        events = bodies.len(),
                        "Gave up on audit events that the server did not take"
                    );
                    let count = u32::try_from(bodies.len()).unwrap_or(u32::MAX);
                    errors.add(crate::families::labels(&[("plugin", "webhook")]), f64::from(count));
                }
            };
            if ended {
                send.await;
            } else {
                tokio::spawn(send);
            }
        }
    }
}
