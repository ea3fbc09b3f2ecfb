//! Waits until a volume is attached to this node: the controller says so in the node's status.

use crate::Context;
use api::core::v1::{CSIPersistentVolumeSource, Node};
use api::storage::v1::VolumeAttachment;
use meta::ObjectKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one try waits. The pod tries again after its backoff; a pod that is deleted meanwhile waits no longer.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// What the driver's attacher left for the node. `unique`: the volume as the node's status names it.
pub async fn wait(
    ctx: &Context,
    source: &CSIPersistentVolumeSource,
    unique: &str,
) -> Result<BTreeMap<String, String>, String> {
    let key = ObjectKey::cluster(ctx.settings.node_name.as_str());
    let mut changes = ctx.views.subscribe();
    let attached = async {
        loop {
            let node = ctx.views.view().get::<Node>(&key);
            if node.is_some_and(|node| node.status.volumes_attached.iter().any(|own| own.name == unique)) {
                return true;
            }
            if changes.recv().await.is_none() {
                return false;
            }
        }
    };
    if tokio::time::timeout(WAIT_MAX, attached).await != Ok(true) {
        return Err(format!(
            "timed out waiting for external-attacher of {} CSI driver to attach volume {}",
            source.driver, source.volume_handle
        ));
    }
    let name =
        volumes::attachments::attachment_name(&source.volume_handle, &source.driver, &ctx.settings.node_name);
    let attachment: VolumeAttachment = ctx
        .client
        .get(&ObjectKey::cluster(name.as_str()))
        .await
        .map_err(|error| format!("volumeattachment {name}: {}", error.chain()))?;
    if let Some(error) = &attachment.status.attach_error {
        return Err(error.message.clone());
    }
    Ok(attachment.status.attachment_metadata)
}
