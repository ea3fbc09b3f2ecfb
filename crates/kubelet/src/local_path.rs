//! The directories of volumes that this node keeps: removed when their volume is deleted, and then the volume is let go.
//!
//! Invariant: nothing is removed but a directory that lies directly under the node's own directory, bears the name of a
//! volume that is being deleted, and which no claim is bound to any more.

use crate::Context;
use api::Object;
use api::core::v1::{Node, PersistentVolume};
use client::Views;
use meta::ObjectKey;
use std::path::Path;
use std::time::Duration;
use volumes::local_path::{HOSTNAME, PROVISIONER, hostname_of, is_ours};

/// Between tries to remove a directory or to write that it is gone.
const RETRY: Duration = Duration::from_secs(5);

/// Follows the volumes until cancelled; returns at once where the node keeps none.
pub async fn keep(ctx: &Context) {
    let Some(directory) = &ctx.settings.local_path_dir else { return };
    let views = match Views::builder(&ctx.client).watch::<PersistentVolume>() {
        Ok(builder) => builder.start(&ctx.token),
        Err(error) => {
            tracing::warn!(error = %error.chain(), "Failed to follow persistent volumes");
            return;
        }
    };
    let mut changes = views.subscribe();
    loop {
        let mut all_done = true;
        for volume in views.view().list::<PersistentVolume>() {
            if concerns(ctx, &volume) {
                all_done &= release(ctx, directory, &volume).await;
            }
        }
        let retry = async {
            match all_done {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            changed = changes.recv() => {
                if changed.is_none() {
                    return;
                }
            }
            () = retry => {}
        }
    }
}

/// Whether a volume waits for this node to remove it.
fn concerns(ctx: &Context, volume: &PersistentVolume) -> bool {
    let metadata = &volume.metadata;
    let holds = |finalizer: &str| metadata.finalizers.iter().any(|own| own == finalizer);
    metadata.deletion_timestamp.is_some()
        && is_ours(volume)
        && holds(PROVISIONER)
        && !holds(volumes::VOLUME_PROTECTION)
        && hostname_of(volume).is_some_and(|host| host == hostname(ctx))
}

fn hostname(ctx: &Context) -> String {
    let name = &ctx.settings.node_name;
    let node = ctx.views.view().get::<Node>(&ObjectKey::cluster(name.as_str()));
    node.and_then(|node| node.metadata.labels.get(HOSTNAME).cloned()).unwrap_or_else(|| name.clone())
}

/// Removes the directory, where that is the policy, and the finalizer; `false` where it has to be tried again.
async fn release(ctx: &Context, directory: &Path, volume: &PersistentVolume) -> bool {
    let name = &volume.metadata.name;
    if volume.spec.persistent_volume_reclaim_policy == "Delete" {
        let path = directory.join(name);
        let stated = volume.spec.persistent_volume_source.local.as_ref().map(|local| local.path.as_str());
        if stated.map(Path::new) != Some(path.as_path()) {
            tracing::warn!(volume = name, path = stated, "Left a volume that lies elsewhere");
        } else if let Err(error) = remove(&path) {
            tracing::warn!(volume = name, %error, "Failed to remove a volume's directory");
            return false;
        }
    }
    let mut next = volume.clone();
    next.metadata_mut().finalizers.retain(|finalizer| finalizer != PROVISIONER);
    match ctx.client.update(&next).await {
        Ok(_) => {
            tracing::info!(volume = name, "Removed a volume");
            true
        }
        Err(error) if error.is_not_found() => true,
        Err(error) => {
            tracing::debug!(volume = name, error = %error.chain(), "Failed to let a volume go");
            // A conflict brings a newer state, which is looked at by itself.
            error.is_conflict()
        }
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
