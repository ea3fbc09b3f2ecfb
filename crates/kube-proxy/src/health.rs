//! Whether the rules keep up with the cluster: what load balancers and supervisors are told.

use crate::http::{self, Answer};
use jiff::Timestamp;
use serde_json::json;
use services::{Family, HealthCheck};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long a change may wait for the kernel before the proxy counts as unhealthy.
const LATE_SECONDS: i64 = 60;

struct State {
    /// When each family's rules were last known to be right.
    updated: BTreeMap<Family, Timestamp>,
    /// Since when a change waits.
    queued: Option<Timestamp>,
    node_eligible: bool,
}

/// The proxy's health.
pub struct Health {
    state: Mutex<State>,
}

const JSON: &str = "application/json";

impl Health {
    pub fn new() -> Health {
        Health { state: Mutex::new(State { updated: BTreeMap::new(), queued: None, node_eligible: false }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A state is written whole: one left by a panic is as good as any.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn queued(&self, now: Timestamp) {
        self.state().queued.get_or_insert(now);
    }

    pub fn updated(&self, families: &[Family], now: Timestamp) {
        let mut state = self.state();
        state.queued = None;
        state.updated.extend(families.iter().map(|family| (*family, now)));
    }

    pub fn set_node_eligible(&self, eligible: bool) {
        self.state().node_eligible = eligible;
    }

    pub fn healthy(&self, now: Timestamp) -> bool {
        self.state().queued.is_none_or(|queued| now.duration_since(queued).as_secs() < LATE_SECONDS)
    }

    /// `/livez` says whether rules keep up; `/healthz` also whether the node is to get traffic, which one that is
    /// about to be deleted is not.
    pub fn answer(&self, path: &str, now: Timestamp) -> Answer {
        let eligibility = match path {
            "/healthz" => true,
            "/livez" => false,
            _ => return (404, "text/plain; charset=utf-8", "404 page not found\n".into()),
        };
        let healthy = self.healthy(now);
        let state = self.state();
        let zero = "0001-01-01T00:00:00Z".to_owned();
        let last = state.updated.values().max().map_or(zero, Timestamp::to_string);
        let mut body = json!({"lastUpdated": last, "currentTime": now.to_string()});
        let mut good = healthy;
        if eligibility {
            body["nodeEligible"] = state.node_eligible.into();
            good &= state.node_eligible;
        }
        body["healthy"] = healthy.into();
        for (family, updated) in &state.updated {
            body["status"][family.to_string()] =
                json!({"lastUpdated": updated.to_string(), "healthy": healthy});
        }
        (if good { 200 } else { 503 }, JSON, body.to_string())
    }
}

/// A load balancer's check, as its server tells it.
struct Checked {
    check: HealthCheck,
    token: CancellationToken,
    shown: Arc<Mutex<HealthCheck>>,
}

/// The servers of `healthCheckNodePort`s: one per load balancer service with external policy Local.
pub struct HealthChecks {
    health: Arc<Health>,
    servers: BTreeMap<u16, Checked>,
    token: CancellationToken,
}

/// How long to wait before a taken port is tried again.
const BIND_RETRY: Duration = Duration::from_secs(5);

impl HealthChecks {
    pub fn new(health: Arc<Health>, token: CancellationToken) -> HealthChecks {
        HealthChecks { health, servers: BTreeMap::new(), token }
    }

    /// Makes the served checks those given.
    pub fn set<'a>(&mut self, checks: impl Iterator<Item = &'a HealthCheck>) {
        let wanted: BTreeMap<u16, &HealthCheck> = checks.map(|check| (check.port, check)).collect();
        self.servers.retain(|port, checked| {
            let stays = wanted.contains_key(port);
            if !stays {
                checked.token.cancel();
            }
            stays
        });
        for (port, check) in wanted {
            match self.servers.get_mut(&port) {
                Some(checked) if checked.check == *check => {}
                Some(checked) => {
                    checked.check = check.clone();
                    *checked.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = check.clone();
                }
                None => {
                    let shown = Arc::new(Mutex::new(check.clone()));
                    let token = self.token.child_token();
                    tokio::spawn(serve_check(port, shown.clone(), self.health.clone(), token.clone()));
                    self.servers.insert(port, Checked { check: check.clone(), token, shown });
                }
            }
        }
    }
}

async fn serve_check(
    port: u16,
    shown: Arc<Mutex<HealthCheck>>,
    health: Arc<Health>,
    token: CancellationToken,
) {
    loop {
        let (shown, health) = (shown.clone(), health.clone());
        let answer = move |_: &str| {
            let check = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let healthy = health.healthy(Timestamp::now());
            let body = json!({
                "service": {"namespace": check.namespace, "name": check.name},
                "localEndpoints": check.local_endpoints,
                "serviceProxyHealthy": healthy,
            });
            (if healthy && check.local_endpoints > 0 { 200 } else { 503 }, JSON, body.to_string())
        };
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        match http::serve(address, answer, token.clone()).await {
            Ok(()) => return,
            Err(error) => warn!(port, %error, "Could not serve a health check node port"),
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_RETRY) => {}
            () = token.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn health_is_told_in_upstreams_shape() {
        let health = Health::new();
        let at = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        health.updated(&[Family::Ipv4], at(0));
        health.queued(at(10));
        let (status, _, body) = health.answer("/healthz", at(20));
        expect![[r#"503 {"currentTime":"2023-11-14T22:13:40Z","healthy":true,"lastUpdated":"2023-11-14T22:13:20Z","nodeEligible":false,"status":{"IPv4":{"healthy":true,"lastUpdated":"2023-11-14T22:13:20Z"}}}"#]]
            .assert_eq(&format!("{status} {body}"));
        health.set_node_eligible(true);
        assert_eq!(health.answer("/healthz", at(20)).0, 200);
        assert_eq!(health.answer("/livez", at(69)).0, 200);
        assert_eq!(health.answer("/livez", at(70)).0, 503);
        health.updated(&[Family::Ipv4], at(71));
        assert_eq!(health.answer("/livez", at(71)).0, 200);
        assert_eq!(health.answer("/", at(71)).0, 404);
    }
}
