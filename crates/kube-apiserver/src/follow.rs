//! Being woken when resources change, for parts that then read the cache anew: few objects, rare changes.

use registry::{Event, ListOptions, Registry};
use resources::Resource;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Pause before a watch that failed is opened again.
const RETRY: Duration = Duration::from_millis(200);

/// Wakes `changed` at every change of the resource, and whenever its watch had to be opened anew, until the end.
pub fn wake_on_change(
    registry: &Arc<Registry>,
    resource: &'static dyn Resource,
    changed: Arc<Notify>,
    shutdown: &CancellationToken,
) {
    let (registry, shutdown) = (Arc::downgrade(registry), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = follow(registry, resource, changed) => {}
            () = shutdown.cancelled() => {}
        }
    });
}

async fn follow(registry: Weak<Registry>, resource: &'static dyn Resource, changed: Arc<Notify>) {
    let options = ListOptions { resource_version: "0".into(), ..ListOptions::default() };
    loop {
        let Some(strong) = registry.upgrade() else { return };
        let watch = strong.watch(resource, "", &options).await;
        drop(strong);
        match watch {
            Ok(mut watcher) => {
                changed.notify_one();
                while let Some(event) = watcher.recv().await {
                    if let Event::Error(error) = &event {
                        tracing::debug!(%error, resource = resource.plural(), "Lost a watch");
                        break;
                    }
                    changed.notify_one();
                }
            }
            Err(error) => {
                tracing::warn!(%error, resource = resource.plural(), "Could not watch a resource");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
