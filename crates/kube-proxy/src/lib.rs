//! The service proxy as a process: follows services and endpoint slices, and keeps this node's rules in step.
//!
//! What the rules are, `services` decides; how the kernel gets them, `net`. Invariants: no rule is written before
//! services and slices have been listed once, so that a restart never serves less than before; rules stay when the
//! process ends, and only `--cleanup` takes them away; changes that arrive while a sync runs are joined into the next.
#![forbid(unsafe_code)]

mod health;
mod http;
mod metrics;
mod options;
mod proxier;
#[cfg(test)]
mod tests;

pub use options::Options;

use anyhow::Context;
use api::core::v1::{Node, Service};
use api::discovery::v1::EndpointSlice;
use api::networking::v1::ServiceCIDR;
use client::{Client, Selection, Views};
use health::Health;
use metrics::Metrics;
use options::Config;
use proxier::Proxier;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Runs the proxy until the token is cancelled. With `--cleanup` it removes the proxy's rules and returns.
pub async fn run(options: Options, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    if options.cleanup {
        return cleanup();
    }
    let config = Config::load(&options)?;
    let health = Arc::new(Health::new());
    let metrics = Arc::new(Metrics::default());
    let servers = token.child_token();
    // Whatever ends this function ends the servers.
    let _end = servers.clone().drop_guard();
    if let Some(address) = config.healthz_bind_address {
        let health = health.clone();
        let answer = move |path: &str| health.answer(path, jiff::Timestamp::now());
        http::serve(address, answer, servers.clone())
            .await
            .with_context(|| format!("serving health on {address}"))?;
    }
    if let Some(address) = config.metrics_bind_address {
        let metrics = metrics.clone();
        let answer = move |path: &str| metrics.answer(path);
        http::serve(address, answer, servers.clone())
            .await
            .with_context(|| format!("serving metrics on {address}"))?;
    }
    let views = follow(&client, &config, &token).context("following services")?;
    if !views.synced().await {
        return Ok(());
    }
    info!(node = config.node_name, "Started proxying");
    Proxier::new(config, health, metrics, servers.clone()).run(views.subscribe(), &token).await
}

/// Removes the proxy's rules from this node.
pub fn cleanup() -> anyhow::Result<()> {
    net::nftables::Plane::remove().context("removing the proxy's nftables tables")?;
    info!("Removed the proxy's rules");
    Ok(())
}

fn follow(client: &Client, config: &Config, token: &CancellationToken) -> Result<Arc<Views>, client::Error> {
    let builder = Views::builder(client)
        .watch::<Service>()?
        .watch::<EndpointSlice>()?
        .watch::<ServiceCIDR>()?
        .watch_selected::<Node>(Selection::fields(format!("metadata.name={}", config.node_name)))?;
    Ok(builder.start(token))
}
