//! Taking away what a cluster made on this machine: what runs (`down`), or all of it (`reset`).

use crate::layout::Layout;
use crate::standalone::block_on;
use anyhow::{Context, Result};
use std::path::Path;

/// The cgroup below which pods live.
const POD_CGROUP: &str = "/kubepods";

/// Ends pods, runtime and network of this machine's node; images, volumes and the store stay.
pub fn stop_node(layout: &Layout) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let config = container_runtime::Config::under(&layout.data_dir, &layout.run_dir);
    // Cgroups, links and rules are the machine's: without a runtime of ours they are another node's.
    if !config.root.exists() && !config.state.exists() {
        return Ok(());
    }
    block_on(async {
        container_runtime::stop(&config, POD_CGROUP).await.context("stopping the container runtime")
    })?;
    container_runtime::unmount_under(&layout.kubelet());
    net::reset(&layout.cni()).context("removing the node's network")?;
    Ok(())
}

/// Stops everything, then removes both directories. Nothing that the cluster made stays behind.
pub fn reset(layout: &Layout) -> Result<()> {
    crate::up::down(layout)?;
    container_runtime::unmount_under(&layout.data_dir);
    container_runtime::unmount_under(&layout.run_dir);
    remove_pod_logs(layout)?;
    remove(&layout.data_dir)?;
    remove(&layout.run_dir)?;
    println!("Removed {} and {}.", layout.data_dir.display(), layout.run_dir.display());
    Ok(())
}

/// Container logs lie where every log collector looks for them; only those that the kubelet noted as its own go.
fn remove_pod_logs(layout: &Layout) -> Result<()> {
    for uid in std::fs::read_dir(layout.kubelet().join("pods")).into_iter().flatten().flatten() {
        let uid = uid.file_name().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/var/log/pods").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(&format!("_{uid}")) {
                remove(&entry.path())?;
            }
        }
    }
    // Links whose log is gone.
    for entry in std::fs::read_dir("/var/log/containers").into_iter().flatten().flatten() {
        if !entry.path().exists() {
            std::fs::remove_file(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    for folder in ["/var/log/pods", "/var/log/containers"] {
        // Only when nothing else is in it.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
