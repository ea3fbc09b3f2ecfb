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
    each_event(registry, resource, shutdown, move |_| changed.notify_one());
}

async fn follow(
    registry: Weak<Registry>,
    resource: &'static dyn Resource,
    take: &(impl Fn(&Event) + Send + Sync),
) {
    loop {
        let options = ListOptions {
            resource_version: "0".into(),
            resource_version_match: "NotOlderThan".into(),
            send_initial_events: Some(true),
            allow_bookmarks: true,
            ..ListOptions::default()
        };
        let Some(strong) = registry.upgrade() else { return };
        let watch = strong.watch(resource, "", &options).await;
        drop(strong);
        match watch {
            // Objects that went away while nobody watched are not told: the bookmark after the first ones is an event
            // too, and wakes those who read everything anew.
            Ok(mut watcher) => {
                while let Some(event) = watcher.recv().await {
                    if let Event::Error(error) = &event {
                        tracing::debug!(%error, resource = resource.plural(), "Lost a watch");
                        break;
                    }
                    if event.object().is_some() || matches!(event, Event::Bookmark(_)) {
                        take(&event);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, resource = resource.plural(), "Could not watch a resource");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Hands every event of the resource to `take`, its objects as they are first, until the end.
pub fn each_event(
    registry: &Arc<Registry>,
    resource: &'static dyn Resource,
    shutdown: &CancellationToken,
    take: impl Fn(&Event) + Send + Sync + 'static,
) {
    let (registry, shutdown) = (Arc::downgrade(registry), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = follow(registry, resource, &take) => {}
            () = shutdown.cancelled() => {}
        }
    });
}
