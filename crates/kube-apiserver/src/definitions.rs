//! Follows the definitions of custom resources: names, conditions, what is served, and the end of their objects.
//!
//! Each server follows for itself; what they write, they write level by level and under preconditions, so that several
//! come to the same.

use crate::kinds::Kinds;
use crate::objects::resource_of;
use api::Object;
use api::apiextensions::v1::CustomResourceDefinition;
use api::errors::ApiError;
use apiextensions::definition::is_true;
use apiextensions::names::{self, ESTABLISHED, FINALIZER, NAMES_ACCEPTED};
use meta::ObjectKey;
use registry::{
    DeleteOptions, Event, INITIAL_EVENTS_END, ListOptions, Registry, Request, UpdateKind, Watcher,
};
use resources::custom::CustomRow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause before a watch that failed is opened again, and before what could not be written is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Objects of a definition are deleted this many at a time.
const DELETE_PAGE: i64 = 500;

type Definitions = BTreeMap<String, Arc<CustomResourceDefinition>>;

/// Follows definitions for as long as the server lives.
pub struct Follower {
    kinds: Arc<Kinds>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
    known: Definitions,
    /// Definitions whose objects are being deleted.
    clearing: BTreeSet<String>,
}

/// Serves what is defined, and goes on in the background; what there is already is served when this returns.
pub async fn start(
    kinds: Arc<Kinds>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let mut follower =
        Follower { kinds, registry, shutdown, known: BTreeMap::new(), clearing: BTreeSet::new() };
    let mut watcher = follower.open().await?;
    follower.read_initial(&mut watcher).await;
    tokio::spawn(follower.run(watcher));
    Ok(())
}

fn definition_of(event: &Event) -> Option<Arc<CustomResourceDefinition>> {
    let object = event.object()?.object().ok()?;
    object.downcast::<CustomResourceDefinition>().cloned().map(Arc::new)
}

impl Follower {
    async fn open(&self) -> Result<Watcher, ApiError> {
        let options = ListOptions {
            send_initial_events: Some(true),
            resource_version_match: "NotOlderThan".into(),
            allow_bookmarks: true,
            ..ListOptions::default()
        };
        self.registry.watch(resource_of::<CustomResourceDefinition>(), "", &options).await
    }

    /// Takes what there is as the watch begins, all at once.
    async fn read_initial(&mut self, watcher: &mut Watcher) {
        let mut found: Definitions = BTreeMap::new();
        while let Some(event) = watcher.recv().await {
            if let Event::Bookmark(object) = &event {
                let ends = object
                    .object()
                    .is_ok_and(|object| object.metadata().annotations.contains_key(INITIAL_EVENTS_END));
                if ends {
                    break;
                }
                continue;
            }
            if let Some(definition) = definition_of(&event) {
                found.insert(definition.metadata.name.clone(), definition);
            }
        }
        let gone: Vec<String> =
            self.known.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            self.kinds.remove(&self.registry, &name);
        }
        self.known = found;
        for definition in self.known.values() {
            self.kinds.take(&self.registry, definition);
        }
        self.kinds.publish();
        let all: Vec<String> = self.known.keys().cloned().collect();
        for name in all {
            self.settle(&name).await;
        }
    }

    async fn run(mut self, mut watcher: Watcher) {
        loop {
            let event = tokio::select! {
                event = watcher.recv() => event,
                () = self.shutdown.cancelled() => return,
            };
            match event {
                Some(Event::Bookmark(_)) => {}
                Some(event @ (Event::Added(_) | Event::Modified(_) | Event::Deleted(_))) => {
                    let mut changed = self.hear(&event).await;
                    // What comes together is told together.
                    while let Some(event) = watcher.try_recv() {
                        changed |= self.hear(&event).await;
                    }
                    if changed {
                        self.kinds.publish();
                    }
                }
                Some(Event::Error(_)) | None => match self.reopen().await {
                    Some(again) => watcher = again,
                    None => return,
                },
            }
        }
    }

    async fn reopen(&mut self) -> Option<Watcher> {
        loop {
            match self.open().await {
                Ok(mut watcher) => {
                    self.read_initial(&mut watcher).await;
                    return Some(watcher);
                }
                Err(error) => tracing::warn!(%error, "Lost the watch on custom resource definitions"),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    /// Takes one change. Whether what is served has changed.
    async fn hear(&mut self, event: &Event) -> bool {
        let Some(definition) = definition_of(event) else { return false };
        let name = definition.metadata.name.clone();
        if matches!(event, Event::Deleted(_)) {
            self.known.remove(&name);
            self.clearing.remove(&name);
            let changed = self.kinds.remove(&self.registry, &name);
            // Its names are free: who waited for them gets them.
            self.settle_group(&definition.spec.group).await;
            return changed;
        }
        let released = self
            .known
            .get(&name)
            .is_some_and(|before| before.status.accepted_names != definition.status.accepted_names);
        self.known.insert(name.clone(), Arc::clone(&definition));
        let changed = self.kinds.take(&self.registry, &definition);
        self.settle(&name).await;
        if released {
            self.settle_group(&definition.spec.group).await;
        }
        changed
    }

    async fn settle_group(&mut self, group: &str) {
        let waiting: Vec<String> = self
            .known
            .values()
            .filter(|it| it.spec.group == group && it.spec.names != it.status.accepted_names)
            .map(|it| it.metadata.name.clone())
            .collect();
        for name in waiting {
            self.settle(&name).await;
        }
    }

    /// Brings a definition one step further: its names, its being served, its end.
    async fn settle(&mut self, name: &str) {
        let Some(definition) = self.known.get(name).cloned() else { return };
        if definition.metadata.deletion_timestamp.is_some() {
            if definition.metadata.finalizers.iter().any(|it| it == FINALIZER)
                && self.clearing.insert(name.to_string())
            {
                let row = self.kinds.storage_row(&definition);
                let (registry, shutdown) = (Arc::clone(&self.registry), self.shutdown.clone());
                let name = name.to_string();
                tokio::spawn(async move {
                    let clear = Clear { registry, name, row };
                    tokio::select! {
                        () = clear.run() => {}
                        () = shutdown.cancelled() => {}
                    }
                });
            }
            return;
        }
        let others: Vec<Arc<CustomResourceDefinition>> = self.known.values().cloned().collect();
        let change = |definition: &mut CustomResourceDefinition| {
            let now = crate::verbs::now();
            let others: Vec<&CustomResourceDefinition> = others.iter().map(|it| &**it).collect();
            if definition.spec.names != definition.status.accepted_names
                || !definition.status.conditions.iter().any(|it| it.r#type == NAMES_ACCEPTED)
            {
                names::accept(definition, &others, now);
            }
            if is_true(definition, NAMES_ACCEPTED) && !is_true(definition, ESTABLISHED) {
                names::set_condition(definition, names::established(), now);
            }
        };
        let mut proposed = CustomResourceDefinition::clone(&definition);
        change(&mut proposed);
        if proposed.status == definition.status {
            return;
        }
        match write_status(&self.registry, name, &change).await {
            // What others of the group settle next must see it, before the watch tells of it.
            Ok(Some(written)) => {
                self.known.insert(name.to_string(), Arc::new(written));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(definition = name, %error, "Could not write a definition's conditions")
            }
        }
    }
}

type StatusChange<'a> = &'a (dyn Fn(&mut CustomResourceDefinition) + Send + Sync);

/// Changes a definition's status; `None` where it is gone.
async fn write_status(
    registry: &Registry,
    name: &str,
    change: StatusChange<'_>,
) -> Result<Option<CustomResourceDefinition>, ApiError> {
    let change = |object: &mut dyn Object| {
        if let Some(definition) = object.downcast_mut::<CustomResourceDefinition>() {
            change(definition);
        }
        Ok(())
    };
    let resource = resource_of::<CustomResourceDefinition>();
    let request = Request::internal("kube-apiserver");
    let key = ObjectKey::cluster(name);
    match registry.modify(&request, resource, &key, UpdateKind::Status, &change).await {
        Ok(updated) => Ok(updated.object.object()?.downcast::<CustomResourceDefinition>().cloned()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes all objects of a definition, then lets it go.
struct Clear {
    registry: Arc<Registry>,
    name: String,
    row: Option<&'static CustomRow>,
}

impl Clear {
    async fn run(self) {
        self.tell("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress").await;
        if let Some(row) = self.row {
            while let Err(error) = self.empty(row).await {
                tracing::warn!(definition = self.name, %error, "Could not delete all custom resources");
                let why = format!("could not list instances: {}", error.message);
                self.tell("True", "InstanceDeletionFailed", &why).await;
                tokio::time::sleep(RETRY).await;
            }
        }
        self.tell("False", "InstanceDeletionCompleted", "removed all instances").await;
        while let Err(error) = self.release().await {
            tracing::warn!(definition = self.name, %error, "Could not let go of a definition");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn tell(&self, status: &str, reason: &str, message: &str) {
        let change = |definition: &mut CustomResourceDefinition| {
            let condition = names::terminating(status, reason, message);
            names::set_condition(definition, condition, crate::verbs::now());
        };
        if let Err(error) = write_status(&self.registry, &self.name, &change).await {
            tracing::debug!(definition = self.name, %error, "Could not write that a definition is going");
        }
    }

    /// Deletes page by page, and waits for those that their finalizers keep.
    async fn empty(&self, row: &'static CustomRow) -> Result<(), ApiError> {
        let request = Request::internal("kube-apiserver");
        let page = ListOptions { limit: DELETE_PAGE, ..ListOptions::default() };
        loop {
            let deleted =
                self.registry.delete_collection(&request, row, "", &DeleteOptions::default(), &page).await?;
            if deleted.continue_token.is_empty() {
                break;
            }
            let all_wait = self.registry.list(row, "", &page).await?;
            if all_wait
                .items
                .iter()
                .all(|item| item.object().is_ok_and(|object| object.metadata().deletion_timestamp.is_some()))
            {
                let rest = ListOptions::default();
                self.registry.delete_collection(&request, row, "", &DeleteOptions::default(), &rest).await?;
                break;
            }
        }
        loop {
            let left = self.registry.list(row, "", &ListOptions::default()).await?;
            if left.items.is_empty() {
                return Ok(());
            }
            let options =
                ListOptions { resource_version: left.revision.to_string(), ..ListOptions::default() };
            let mut watcher = self.registry.watch(row, "", &options).await?;
            loop {
                match watcher.recv().await {
                    Some(Event::Deleted(_)) | None => break,
                    Some(Event::Error(error)) => return Err(*error),
                    Some(_) => {}
                }
            }
        }
    }

    async fn release(&self) -> Result<(), ApiError> {
        let change = |object: &mut dyn Object| {
            object.metadata_mut().finalizers.retain(|finalizer| finalizer != FINALIZER);
            Ok(())
        };
        let resource = resource_of::<CustomResourceDefinition>();
        let (request, key) = (Request::internal("kube-apiserver"), ObjectKey::cluster(&self.name));
        match self.registry.modify(&request, resource, &key, UpdateKind::Spec, &change).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
