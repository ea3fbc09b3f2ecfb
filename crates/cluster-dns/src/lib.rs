//! The cluster DNS server of a node: answers the cluster's names at the cluster DNS address, and asks the host's
//! resolvers for all others.
//!
//! The address sits on a link of the node itself, so that pods reach their node's server without address translation.
//! Invariants: names of the cluster are never forwarded; nothing is answered for them before services, slices and
//! namespaces have been listed once (SERVFAIL: ask again), and what is known stays answered while the API server is
//! away; an answer from the host's resolvers is used beyond its time when they are away.
#![forbid(unsafe_code)]

mod cache;
mod feed;
mod forward;
mod options;
mod resolver;
mod serve;

#[cfg(test)]
mod tests;

pub use options::Options;

use anyhow::Context;
use client::Client;
use options::Config;
use resolver::Resolver;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Runs the server until the token is cancelled.
pub async fn run(options: Options, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let config = Config::load(&options)?;
    let resolver = Arc::new(Resolver::new(&config)?);
    let servers = token.child_token();
    // Whatever ends this function ends the servers.
    let _end = servers.clone().drop_guard();
    if !config.addresses.is_empty() {
        net::ensure_address_link(net::DNS_LINK, &config.addresses)
            .with_context(|| format!("giving the link {} the cluster DNS address", net::DNS_LINK))?;
    }
    for address in config.listeners() {
        serve::udp(address, resolver.clone(), servers.clone())
            .with_context(|| format!("serving DNS on {address}/udp"))?;
        serve::tcp(address, resolver.clone(), servers.clone())
            .await
            .with_context(|| format!("serving DNS on {address}/tcp"))?;
    }
    if let Some(address) = config.ready_address {
        serve::ready(address, resolver.clone(), servers.clone())
            .await
            .with_context(|| format!("serving readiness on {address}"))?;
    }
    let views = feed::follow(&client, &token).context("following services")?;
    if !views.synced().await {
        return Ok(());
    }
    let mut changes = views.subscribe();
    let mut feed = feed::Feed::new(resolver.clone());
    while let Some(received) = changes.recv().await {
        feed.take(&received.objects);
        if resolver.set_ready() {
            info!(domain = config.domain, "Started answering the cluster's names");
        }
    }
    Ok(())
}
