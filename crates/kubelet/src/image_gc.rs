//! Removes images that no container uses, when the disk fills up. Which ones is decided in `pods`.

use crate::{Context, worker};
use api::core::v1::Node;
use client::EventType;
use container_runtime::cri::messages::*;
use meta::ObjectKey;
use pods::image_gc::{Collector, Image, Policy};
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two looks; upstream's.
const LOOK: Duration = Duration::from_secs(300);

/// Looks until cancelled.
pub async fn keep(ctx: &Context) {
    loop {
        if let Err(error) = look(ctx).await {
            tracing::warn!(%error, "Failed to collect images");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(ctx: &Context) -> Result<(), container_runtime::Error> {
    let (capacity, available) = disk(ctx);
    let wanted = Collector::wanted(&ctx.settings.image_gc, capacity, available);
    let freed = free(ctx, &ctx.settings.image_gc, wanted).await?;
    if freed < wanted {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
             {freed} bytes eligible to free."
        );
        if let Some(node) = ctx.views.view().get::<Node>(&ObjectKey::cluster(ctx.settings.node_name.as_str()))
        {
            ctx.recorder.event(&*node, EventType::Warning, "FreeDiskSpaceFailed", &message);
        }
    }
    Ok(())
}

/// Removes every image that nobody uses, for a node that is out of disk.
pub async fn free_all(ctx: &Context) {
    let policy = Policy { min_age_seconds: 0, ..ctx.settings.image_gc };
    if let Err(error) = free(ctx, &policy, u64::MAX).await {
        tracing::warn!(%error, "Failed to collect images");
    }
}

async fn free(ctx: &Context, policy: &Policy, wanted: u64) -> Result<u64, container_runtime::Error> {
    let images: Vec<Image> = ctx
        .runtime
        .list_images(ListImagesRequest::default())
        .await?
        .images
        .into_iter()
        .map(|image| Image {
            id: image.id,
            size_bytes: image.size,
            pinned: image.pinned || is_pause(&image.repo_tags),
        })
        .collect();
    let used = used(ctx).await?;
    let chosen = {
        let mut collector = ctx.images.lock();
        collector.note(worker::now(), &images, &used);
        collector.choose(worker::now(), policy, &images, &used, wanted)
    };
    let mut freed = 0;
    for id in chosen {
        let spec = ImageSpec { image: id.clone(), ..ImageSpec::default() };
        match ctx.runtime.remove_image(RemoveImageRequest { image: Some(spec) }).await {
            Ok(_) => {
                tracing::info!(image = id, "Removed an unused image");
                freed += images.iter().find(|image| image.id == id).map_or(0, |image| image.size_bytes);
            }
            Err(error) => tracing::warn!(image = id, %error, "Failed to remove an image"),
        }
    }
    if freed > 0 {
        ctx.node_images_changed();
    }
    Ok(freed)
}

/// The sandboxes' own image: without it no pod starts.
fn is_pause(tags: &[String]) -> bool {
    tags.iter().any(|tag| tag == container_runtime::pause::IMAGE)
}

/// The images of all containers that the runtime has, running or not.
async fn used(ctx: &Context) -> Result<BTreeSet<String>, container_runtime::Error> {
    let mut mounted = BTreeSet::new();
    for pod in ctx.pods() {
        for source in pod.spec.volumes.iter().filter_map(|volume| volume.volume_source.image.as_ref()) {
            if let Ok(name) = crate::images::with_tag(&source.reference)
                && let Some(known) = crate::images::find(ctx, &name).await?
            {
                mounted.insert(known.id);
            }
        }
    }
    let list = ctx.runtime.list_containers(ListContainersRequest::default()).await?.containers;
    Ok(list
        .into_iter()
        .flat_map(|one| [one.image_id, one.image_ref, one.image.unwrap_or_default().image])
        .chain(mounted)
        .filter(|id| !id.is_empty())
        .collect())
}

/// Capacity and available bytes of the file system that holds the images.
fn disk(ctx: &Context) -> (u64, u64) {
    nix::sys::statvfs::statvfs(ctx.settings.data_dir.as_path()).map_or((0, 0), |stat| {
        let unit = stat.fragment_size();
        (stat.blocks() * unit, stat.blocks_available() * unit)
    })
}
