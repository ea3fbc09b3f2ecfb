//! Keeps the index of names in step with the cluster: only what changed is computed anew.

use crate::resolver::Resolver;
use api::core::v1::{Namespace, Service};
use api::discovery::v1::EndpointSlice;
use client::{Change, Client, Views};
use meta::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub fn follow(client: &Client, token: &CancellationToken) -> Result<Arc<Views>, client::Error> {
    let builder =
        Views::builder(client).watch::<Service>()?.watch::<EndpointSlice>()?.watch::<Namespace>()?;
    Ok(builder.start(token))
}

#[derive(Default)]
struct Parts {
    service: Option<Arc<Service>>,
    slices: BTreeMap<String, Arc<EndpointSlice>>,
}

pub struct Feed {
    resolver: Arc<Resolver>,
    parts: BTreeMap<ObjectKey, Parts>,
}

fn downcast<T: api::Object>(object: Option<&Arc<dyn api::Object>>) -> Option<Arc<T>> {
    let object: Arc<dyn std::any::Any + Send + Sync> = object?.clone();
    object.downcast().ok()
}

impl Feed {
    pub fn new(resolver: Arc<Resolver>) -> Feed {
        Feed { resolver, parts: BTreeMap::new() }
    }

    pub fn take(&mut self, changes: &[Change]) {
        let mut dirty = BTreeSet::new();
        for change in changes {
            if change.kind == view::kind_id::<Service>() {
                let parts = self.parts.entry(change.key.clone()).or_default();
                parts.service = downcast(change.new.as_ref());
                dirty.insert(change.key.clone());
            } else if change.kind == view::kind_id::<EndpointSlice>() {
                self.take_slice(change, &mut dirty);
            } else if change.kind == view::kind_id::<Namespace>() {
                self.resolver.change(|index| match change.new {
                    Some(_) => index.insert_namespace(&change.key.name),
                    None => index.remove_namespace(&change.key.name),
                });
            }
        }
        for key in dirty {
            self.compute(&key);
        }
    }

    fn take_slice(&mut self, change: &Change, dirty: &mut BTreeSet<ObjectKey>) {
        let owner = |slice: &EndpointSlice| {
            services::service_of(slice).map(|(namespace, name)| ObjectKey::new(namespace, name))
        };
        let old = change.old.as_deref().and_then(|object| owner(object.downcast::<EndpointSlice>()?));
        if let Some(old) = old
            && let Some(parts) = self.parts.get_mut(&old)
        {
            parts.slices.remove(&change.key.name);
            dirty.insert(old);
        }
        if let Some(slice) = downcast::<EndpointSlice>(change.new.as_ref())
            && let Some(owner) = owner(&slice)
        {
            self.parts.entry(owner.clone()).or_default().slices.insert(change.key.name.clone(), slice);
            dirty.insert(owner);
        }
    }

    fn compute(&mut self, key: &ObjectKey) {
        let Some(parts) = self.parts.get(key) else { return };
        let slices: Vec<&EndpointSlice> = parts.slices.values().map(|slice| &**slice).collect();
        self.resolver.change(|index| match &parts.service {
            Some(service) => index.insert_service(service, &slices),
            None => index.remove_service(&key.namespace, &key.name),
        });
        if parts.service.is_none() && slices.is_empty() {
            self.parts.remove(key);
        }
    }
}
