//! Which resources the graph of owners follows: all that can be listed, watched and deleted, custom ones as they come.

use api::apiextensions::v1::CustomResourceDefinition;
use api::apiregistration::v1::APIService;
use client::{Client, Views};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use view::ResourceId;

/// Events expire by themselves and have no owners; following them would cost as much as everything else.
const LEFT_OUT: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// Changes of what is served come in groups: they settle for so long before they are looked at.
const SETTLE: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_secs(5);

/// Follows every resource until cancelled, and looks again whenever a definition changes what there is.
pub(crate) async fn follow_all(client: Client, views: Arc<Views>, token: CancellationToken) {
    let definitions = Views::builder(&client)
        .watch::<CustomResourceDefinition>()
        .and_then(|builder| builder.watch::<APIService>());
    let definitions = match definitions {
        Ok(builder) => builder.start(&token),
        Err(error) => {
            warn!(cause = error.chain(), "Failed to follow definitions of resources");
            return;
        }
    };
    let mut changes = definitions.subscribe();
    loop {
        let pause = match discover(&client, &views).await {
            Ok(()) => None,
            Err(error) => {
                debug!(cause = error.chain(), "Failed to discover resources");
                Some(RETRY)
            }
        };
        let retry = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            while let Some(changes) = changes.recv().await {
                if !changes.objects.is_empty() {
                    break;
                }
            }
        };
        tokio::select! {
            () = retry => {}
            () = changed => {}
            () = token.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(SETTLE) => {}
            () = token.cancelled() => return,
        }
    }
}

async fn discover(client: &Client, views: &Arc<Views>) -> Result<(), client::Error> {
    let discovery = client.discover().await?;
    let wanted: Vec<ResourceId> = discovery
        .resources
        .into_iter()
        .filter(|resource| ["list", "watch", "delete"].iter().all(|verb| resource.can(verb)))
        .map(|resource| resource.id)
        .filter(|id| !LEFT_OUT.contains(&(id.group.as_str(), id.plural.as_str())))
        .collect();
    let names: HashSet<(String, String)> =
        wanted.iter().map(|id| (id.group.clone(), id.plural.clone())).collect();
    for id in wanted {
        // Followed in another version is followed: an object is the same one in each.
        let view = views.view();
        let known =
            view.graph().resources().any(|known| known.group == id.group && known.plural == id.plural);
        if !known {
            views.follow_metadata(Arc::new(id));
        }
    }
    for followed in views.followed_metadata() {
        let served = names.contains(&(followed.group.clone(), followed.plural.clone()));
        let unsure = discovery.failed.iter().any(|failed| failed.split('/').next() == Some(&followed.group));
        if !served && !unsure {
            views.forget_metadata(&followed);
        }
    }
    Ok(())
}
