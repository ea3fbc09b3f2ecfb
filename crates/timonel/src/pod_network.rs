//! The pod network of this node: written for the container runtime as soon as the node knows its pod range.

use crate::layout::Layout;
use anyhow::{Context, Result};
use api::core::v1::Node;
use client::{Client, WatchEvent, WatchOptions};
use ipnet::IpNet;
use net::cni::Installation;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The wait before a watch that ended is begun again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct PodNetwork {
    pub node: String,
    pub program: PathBuf,
    /// Holds the plugin's links, its configuration and the reserved addresses.
    pub folder: PathBuf,
    pub cluster_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
}

impl PodNetwork {
    pub fn new(layout: &Layout, node: &str, cluster_cidr: &str, service_cidr: &str) -> Result<Self> {
        let ranges = |text: &str| text.split(',').map(range).collect::<Result<Vec<_>>>();
        Ok(PodNetwork {
            node: node.into(),
            program: std::env::current_exe().context("finding this program")?,
            folder: layout.cni(),
            cluster_cidrs: ranges(cluster_cidr)?,
            service_cidrs: ranges(service_cidr)?,
        })
    }

    /// Follows the node and keeps the configuration at its ranges.
    pub async fn run(self, client: Client, shutdown: CancellationToken) -> Result<()> {
        let options = WatchOptions {
            field_selector: format!("metadata.name={}", self.node),
            ..WatchOptions::default()
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                result = self.follow(&client, &options) => result?,
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(&self, client: &Client, options: &WatchOptions) -> Result<()> {
        let mut watch = client.watch::<Node>("", options).await.context("watching this node")?;
        while let Some(event) = watch.next().await {
            let (WatchEvent::Added(node) | WatchEvent::Modified(node)) = event? else { continue };
            if !node.spec.pod_cidrs.is_empty() {
                self.install(&node.spec.pod_cidrs)?;
            }
        }
        Ok(())
    }

    fn install(&self, ranges: &[String]) -> Result<()> {
        let installation = Installation {
            program: self.program.clone(),
            bin_dir: self.folder.join("bin"),
            conf_dir: self.folder.join("conf"),
            data_dir: self.folder.join("addresses"),
            subnets: ranges.iter().map(|text| range(text)).collect::<Result<_>>()?,
            cluster_cidrs: self.cluster_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            mtu: 0,
        };
        installation.install().context("installing the network plugin")?;
        Ok(())
    }
}

fn range(text: &str) -> Result<IpNet> {
    text.trim().parse().with_context(|| format!("{text:?} is no address range, such as 10.244.0.0/16"))
}
