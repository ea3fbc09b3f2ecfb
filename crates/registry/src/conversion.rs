//! Versions of kinds whose conversion somebody else decides: asked once for each object and revision, and remembered.

use crate::encoded::Encoded;
use crate::feed::{Caches, hub};
use api::Object;
use api::errors::ApiError;
use async_trait::async_trait;
use resources::Resource;
use std::sync::Arc;

/// Objects sent to be converted at once.
const BATCH_MAX: usize = 500;

/// Who converts objects of kinds that [`Resource::converts_elsewhere`].
#[async_trait]
pub trait Converter: Send + Sync + 'static {
    /// The objects, all of one version of the kind, in the version of `to` and in the same order.
    async fn convert(
        &self,
        to: &'static dyn Resource,
        objects: Vec<Box<dyn Object>>,
    ) -> Result<Vec<Box<dyn Object>>, ApiError>;
}

impl Caches {
    async fn convert(
        &self,
        to: &'static dyn Resource,
        objects: Vec<Box<dyn Object>>,
    ) -> Result<Vec<Box<dyn Object>>, ApiError> {
        let count = objects.len();
        let converter = self.converter.get().ok_or_else(|| ApiError::internal("nobody converts objects"))?;
        let converted = converter.convert(to, objects).await?;
        if converted.len() == count {
            Ok(converted)
        } else {
            Err(ApiError::internal("not every object was converted"))
        }
    }

    /// One object in the version of `resource`.
    pub async fn in_version(
        &self,
        object: &Arc<Encoded>,
        resource: &'static dyn Resource,
    ) -> Result<Arc<Encoded>, ApiError> {
        if !resource.converts_elsewhere() {
            return object.in_version(resource);
        }
        let mut all = self.all_in_version(vec![Arc::clone(object)], resource).await?;
        all.pop().ok_or_else(|| ApiError::internal("an object was lost in its conversion"))
    }

    /// Objects in the version of `resource`, those of each other version asked for together.
    pub async fn all_in_version(
        &self,
        mut objects: Vec<Arc<Encoded>>,
        resource: &'static dyn Resource,
    ) -> Result<Vec<Arc<Encoded>>, ApiError> {
        let mut missing: Vec<usize> = Vec::new();
        for (at, object) in objects.iter_mut().enumerate() {
            match object.known_version(resource) {
                Some(known) => *object = known,
                None => missing.push(at),
            }
        }
        while let Some(first) = missing.first() {
            let version = objects[*first].resource().gvk();
            let (mut batch, rest): (Vec<usize>, Vec<usize>) =
                missing.iter().partition(|at| objects[**at].resource().gvk() == version);
            let mut later = batch.split_off(batch.len().min(BATCH_MAX));
            later.extend(rest);
            missing = later;
            let decoded = batch.iter().map(|at| objects[*at].decode()).collect::<Result<Vec<_>, _>>()?;
            let converted = self.convert(resource, decoded).await?;
            for (at, object) in batch.into_iter().zip(converted) {
                objects[at] = objects[at].keep_version(resource, object)?;
            }
        }
        Ok(objects)
    }

    /// An object as it is stored.
    pub async fn to_storage(
        &self,
        resource: &'static dyn Resource,
        object: Box<dyn Object>,
    ) -> Result<Box<dyn Object>, ApiError> {
        let stored = hub(resource);
        if !resource.converts_elsewhere() || object.descriptor().gvk == Some(stored.gvk()) {
            return resource.to_storage(object).map_err(|error| ApiError::internal(error.to_string()));
        }
        let mut all = self.convert(stored, vec![object]).await?;
        all.pop().ok_or_else(|| ApiError::internal("an object was lost in its conversion"))
    }
}
