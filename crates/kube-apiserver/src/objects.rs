//! Typed reads of the server's own: admission, authentication and allocation look at objects through here.

use api::errors::ApiError;
use api::{Object, Typed};
use meta::ObjectKey;
use registry::{ListOptions, Registry};
use resources::Resource;
use std::sync::Arc;

/// The table's row of a kind in the version of its type.
pub fn resource_of<T: Typed>() -> &'static dyn Resource {
    let gvk = T::gvk();
    resources::find_kind(gvk.group, gvk.version, gvk.kind)
        .expect("every generated kind has a row in the table")
}

/// An object as the cache has it, else as the store has it: the cache may be a moment late, never wrong about absence for long.
pub async fn get<T: Typed + Object + Clone>(
    registry: &Registry,
    key: &ObjectKey,
) -> Result<Option<T>, ApiError> {
    let resource = resource_of::<T>();
    let found = match registry.get(resource, key, "0").await {
        Err(error) if error.is_not_found() => registry.get(resource, key, "").await,
        other => other,
    };
    match found {
        Ok(found) => Ok(found.object()?.downcast::<T>().cloned()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Objects of a namespace (all where empty) as the cache has them.
pub async fn list<T: Typed + Object>(
    registry: &Registry,
    namespace: &str,
) -> Result<Vec<Arc<dyn Object>>, ApiError> {
    let options = ListOptions { resource_version: "0".into(), ..ListOptions::default() };
    let found = registry.list(resource_of::<T>(), namespace, &options).await?;
    found.items.iter().map(|item| item.object()).collect()
}

/// Objects of a namespace, cloned out of the cache.
pub async fn list_typed<T: Typed + Object + Clone>(
    registry: &Registry,
    namespace: &str,
) -> Result<Vec<T>, ApiError> {
    let all = list::<T>(registry, namespace).await?;
    Ok(all.iter().filter_map(|object| object.downcast::<T>().cloned()).collect())
}
