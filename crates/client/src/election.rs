//! Who leads, by a Lease, with client-go's rules: a holder renews, others take over once they saw no renewal for the
//! lease's duration by their own clock.

use crate::{Client, Error};
use api::coordination::v1::Lease;
use jiff::Timestamp;
use meta::{MicroTime, ObjectKey};
use rand::Rng;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The times of an election; upstream's components use `Timing::default`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Others wait this long after the last renewal they saw.
    pub lease_duration: Duration,
    /// A leader that could not renew for this long gives up.
    pub renew_deadline: Duration,
    /// Between two tries, to acquire as to renew.
    pub retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// A candidate.
pub struct Election {
    client: Client,
    lease: ObjectKey,
    identity: String,
    timing: Timing,
    observed: Option<(Lease, Instant)>,
}

/// A won election: leads until `lost` is cancelled.
pub struct Leadership {
    lost: CancellationToken,
    stop: CancellationToken,
    renewing: tokio::task::JoinHandle<Election>,
}

impl Leadership {
    /// Cancelled when the lease could not be renewed in time: everything a leader does must stop at once.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Gives the lease up, so that another may take it without waiting.
    pub async fn release(self) {
        self.stop.cancel();
        if let Ok(mut election) = self.renewing.await
            && !self.lost.is_cancelled()
        {
            election.release().await;
        }
    }
}

impl Election {
    /// A candidate of this identity, which must be its own among all candidates that may ever run at once.
    pub fn new(client: Client, lease: ObjectKey, identity: String, timing: Timing) -> Self {
        Election { client, lease, identity, timing, observed: None }
    }

    /// Waits until this candidate leads; `None` where it was cancelled first.
    pub async fn acquire(mut self, token: &CancellationToken) -> Option<Leadership> {
        loop {
            match self.try_hold().await {
                Ok(true) => break,
                Ok(false) => debug!(lease = %self.lease, "Another leads"),
                Err(error) => {
                    debug!(lease = %self.lease, cause = error.chain(), "Failed to acquire the lease")
                }
            }
            let pause = self.timing.retry_period.mul_f64(rand::rng().random_range(1.0..2.2));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = token.cancelled() => return None,
            }
        }
        info!(lease = %self.lease, identity = self.identity, "Became leader");
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let renewing = tokio::spawn(self.renew(lost.clone(), stop.clone()));
        Some(Leadership { lost, stop, renewing })
    }

    async fn renew(mut self, lost: CancellationToken, stop: CancellationToken) -> Self {
        let mut renewed = Instant::now();
        loop {
            let deadline = renewed + self.timing.renew_deadline;
            tokio::select! {
                () = tokio::time::sleep(self.timing.retry_period) => {}
                () = stop.cancelled() => return self,
            }
            let held = tokio::time::timeout_at(deadline, self.try_hold()).await;
            match held {
                Ok(Ok(true)) => {
                    renewed = Instant::now();
                    continue;
                }
                Ok(Ok(false)) => {
                    warn!(lease = %self.lease, "Lost the lease to another");
                    break;
                }
                Ok(Err(error)) => {
                    debug!(lease = %self.lease, cause = error.chain(), "Failed to renew the lease");
                }
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                warn!(lease = %self.lease, "Failed to renew the lease in time");
                break;
            }
        }
        lost.cancel();
        self
    }

    /// Takes or renews the lease; false where another holds it.
    async fn try_hold(&mut self) -> Result<bool, Error> {
        let now = MicroTime::truncated(Timestamp::now());
        let current = match self.client.get::<Lease>(&self.lease).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let mut lease = Lease::default();
                lease.metadata.namespace.clone_from(&self.lease.namespace);
                lease.metadata.name.clone_from(&self.lease.name);
                self.claim(&mut lease, now, true);
                lease.spec.lease_transitions = Some(0);
                let created = self.client.create(&lease).await?;
                self.observed = Some((created, Instant::now()));
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if self.observed.as_ref().is_none_or(|(seen, _)| seen.spec != current.spec) {
            self.observed = Some((current.clone(), Instant::now()));
        }
        let holder = current.spec.holder_identity.clone().unwrap_or_default();
        let ours = holder == self.identity;
        if !ours && !holder.is_empty() && !self.lapsed(&current) {
            return Ok(false);
        }
        let mut next = current;
        self.claim(&mut next, now, !ours);
        if !ours {
            next.spec.lease_transitions = Some(next.spec.lease_transitions.unwrap_or(0) + 1);
        }
        match self.client.update(&next).await {
            Ok(updated) => {
                self.observed = Some((updated, Instant::now()));
                Ok(true)
            }
            // Another was quicker; a holder that sees this tries again before its deadline.
            Err(error) if error.is_conflict() && !ours => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lapsed(&self, current: &Lease) -> bool {
        let seconds = current.spec.lease_duration_seconds.unwrap_or(0).max(0);
        let duration = Duration::from_secs(u64::from(seconds.unsigned_abs()));
        self.observed.as_ref().is_some_and(|(_, seen)| seen.elapsed() > duration)
    }

    fn claim(&self, lease: &mut Lease, now: Option<MicroTime>, anew: bool) {
        lease.spec.holder_identity = Some(self.identity.clone());
        lease.spec.lease_duration_seconds =
            Some(i32::try_from(self.timing.lease_duration.as_secs()).unwrap_or(i32::MAX));
        lease.spec.renew_time = now;
        if anew {
            lease.spec.acquire_time = now;
        }
    }

    async fn release(&mut self) {
        let Some((mut lease, _)) = self.observed.take() else { return };
        let now = MicroTime::truncated(Timestamp::now());
        lease.spec.holder_identity = Some(String::new());
        lease.spec.lease_duration_seconds = Some(1);
        lease.spec.renew_time = now;
        lease.spec.acquire_time = now;
        if let Err(error) = self.client.update(&lease).await {
            warn!(lease = %self.lease, cause = error.chain(), "Failed to release the lease");
        }
    }
}
