//! Lifecycle hooks: after a container's start, before its stop.

use crate::{Context, probing};
use api::core::v1::{Container, LifecycleHandler, Pod};
use std::time::Duration;

/// Runs a hook to its end, at most `limit`. The error's words are for logs and events.
pub async fn run(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    container_id: &str,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    let work = async {
        if let Some(exec) = &hook.exec {
            let answer = ctx
                .runtime
                .exec_sync(container_id, exec.command.clone(), limit)
                .await
                .map_err(|error| error.description())?;
            return match answer.exit_code {
                0 => Ok(()),
                code => Err(format!(
                    "command '{}' exited with {code}: {}",
                    exec.command.join(" "),
                    String::from_utf8_lossy(&answer.stderr).trim()
                )),
            };
        }
        if let Some(http) = &hook.http_get {
            return match probing::http_get(pod, container, http, limit).await {
                pods::Outcome::Success | pods::Outcome::Warning(_) => Ok(()),
                pods::Outcome::Failure(words) | pods::Outcome::Error(words) => Err(words),
            };
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        }
        Ok(())
    };
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err("the hook did not end within the grace period".into()),
    }
}
