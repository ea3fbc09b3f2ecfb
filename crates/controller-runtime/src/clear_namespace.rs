//! Deletes what a namespace holds: of every resource that discovery knows, whatever it is, and counts what remains.

use client::{Client, DeleteOptions, Discovered, Error, ListOptions, Propagation, ResourcePath};
use controllers::Remains;
use futures::StreamExt;
use futures::stream;

/// Resources that are emptied at once.
const SIDE_BY_SIDE: usize = 8;
/// Remaining objects of one resource that are looked at for their finalizers.
const LOOKED_AT: i64 = 500;

/// Empties a namespace once; what waits for finalizers or for its grace period remains.
pub(crate) async fn clear(client: &Client, namespace: &str) -> Result<Remains, Error> {
    let discovery = client.discover().await?;
    let mut remains = Remains { discovery_errors: discovery.failed, ..Remains::default() };
    let resources = discovery
        .resources
        .into_iter()
        .filter(|resource| resource.id.namespaced && resource.can("delete") && resource.can("list"));
    let mut results = stream::iter(resources)
        .map(|resource| async move {
            let left = empty(client, namespace, &resource).await;
            (resource, left)
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some((resource, left)) = results.next().await {
        match left {
            Ok(left) => {
                if left.count > 0 {
                    remains.resources.insert(resource.id.group_resource(), left.count);
                }
                for finalizer in left.finalizers {
                    *remains.finalizers.entry(finalizer).or_default() += 1;
                }
            }
            // A resource that is gone by now holds nothing.
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                remains.deletion_errors.push(format!("{}: {}", resource.id.group_resource(), error.chain()));
            }
        }
    }
    remains.deletion_errors.sort();
    Ok(remains)
}

#[derive(Default)]
struct Left {
    count: usize,
    finalizers: Vec<String>,
}

async fn empty(client: &Client, namespace: &str, resource: &Discovered) -> Result<Left, Error> {
    let path = ResourcePath {
        group: resource.id.group.clone(),
        version: resource.id.version.clone(),
        plural: resource.id.plural.clone(),
        namespaced: true,
    };
    if left(client, &path, namespace).await?.count == 0 {
        return Ok(Left::default());
    }
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    if resource.can("deletecollection") {
        client.delete_collection_at(&path, namespace, &ListOptions::default(), &options).await?;
    } else {
        let list = client.list_metadata_at(&path, namespace, &ListOptions::default()).await?;
        for object in list.items {
            let key = meta::ObjectKey::new(namespace, object.metadata.name.clone());
            match client.delete_at(&path, &key, &options).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
    }
    left(client, &path, namespace).await
}

async fn left(client: &Client, path: &ResourcePath, namespace: &str) -> Result<Left, Error> {
    let options = ListOptions { limit: Some(LOOKED_AT), ..ListOptions::default() };
    let list = client.list_metadata_at(path, namespace, &options).await?;
    let more = list.remaining.and_then(|more| usize::try_from(more).ok()).unwrap_or(0);
    Ok(Left {
        count: list.items.len() + more,
        finalizers: list.items.into_iter().flat_map(|object| object.metadata.finalizers).collect(),
    })
}
