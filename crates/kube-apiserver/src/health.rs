//! Whether the server lives and is ready: named checks, each asked for alone or all together.

use crate::query::Query;
use crate::respond::{self, Body};
use http::{Response, StatusCode};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

struct Named {
    check: Check,
    live: bool,
}

/// The checks, by name, in the order in which they were added.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<(String, Named)>>,
    /// Post-start hooks that are still to finish, or have failed.
    hooks: RwLock<BTreeMap<String, Option<String>>>,
}

impl Health {
    pub fn new() -> Self {
        let health = Health::default();
        health.add("ping", true, || Ok(()));
        health.add("log", true, || Ok(()));
        health
    }

    /// `live`: the check counts for /livez and /healthz too, not only for /readyz.
    pub fn add(
        &self,
        name: &str,
        live: bool,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.checks.write().push((name.to_string(), Named { check: Arc::new(check), live }));
    }

    /// A step of the start that readiness waits for.
    pub fn expect_hook(&self, name: &str) {
        self.hooks.write().insert(name.to_string(), Some("not finished".into()));
    }
    pub fn hook_done(&self, name: &str) {
        self.hooks.write().insert(name.to_string(), None);
    }

    /// Every check's result, for `livez`, `readyz` or `healthz`.
    fn run(&self, kind: &str) -> Vec<(String, Result<(), String>)> {
        let mut out = Vec::new();
        for (name, named) in self.checks.read().iter() {
            if named.live || kind == "readyz" {
                out.push((name.clone(), (named.check)()));
            }
        }
        for (name, failure) in self.hooks.read().iter() {
            let result = failure.clone().map_or(Ok(()), Err);
            out.push((format!("poststarthook/{name}"), result));
        }
        out
    }

    pub fn is_ready(&self) -> bool {
        self.run("readyz").iter().all(|(_, result)| result.is_ok())
    }

    /// Answers a path of health; `None` for other paths.
    pub fn answer(&self, path: &str, query: &Query) -> Option<Response<Body>> {
        let rest = path.strip_prefix('/')?;
        let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(kind, "healthz" | "livez" | "readyz") {
            return None;
        }
        let results = self.run(kind);
        if !name.is_empty() {
            let (_, result) = results.into_iter().find(|(known, _)| known == name)?;
            return Some(match result {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(reason) => respond::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {reason}\n"),
                ),
            });
        }
        let excluded: Vec<&str> = query.all("exclude").collect();
        let (mut text, mut failed) = (String::new(), Vec::new());
        for (name, result) in &results {
            if excluded.contains(&name.as_str()) {
                text.push_str(&format!("[+]{name} excluded: ok\n"));
            } else if result.is_ok() {
                text.push_str(&format!("[+]{name} ok\n"));
            } else {
                // The reason may tell more than everyone should read; it is in the log and at the check's own path.
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(name.as_str());
            }
        }
        let unknown: Vec<&&str> =
            excluded.iter().filter(|name| !results.iter().any(|(known, _)| known == **name)).collect();
        if !unknown.is_empty() {
            text.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {unknown:?}\n"
            ));
        }
        if !failed.is_empty() {
            tracing::debug!(kind, ?failed, "Failed a health check");
            text.push_str(&format!("{kind} check failed\n"));
            return Some(respond::text(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
        if query.first("verbose").is_none() {
            return Some(respond::text(StatusCode::OK, "ok"));
        }
        text.push_str(&format!("{kind} check passed\n"));
        Some(respond::text(StatusCode::OK, text))
    }
}
