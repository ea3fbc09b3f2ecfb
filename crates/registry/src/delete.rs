//! Deletes: at once, after a grace period, or when the last finalizer has left.

use crate::encoded::Encoded;
use crate::read::ListResult;
use crate::request::{DeleteOptions, ListOptions, Operation, Propagation, Request, UpdateKind};
use crate::write::{Committed, Target, now};
use crate::{Registry, store_error};
use api::Object;
use api::errors::ApiError;
use futures::stream::{StreamExt, TryStreamExt};
use meta::{ObjectKey, Time};
use resources::Resource;
use std::sync::Arc;

/// How often a delete that keeps losing against other writers starts again.
const ATTEMPTS_MAX: usize = 256;
/// Objects of a collection that are deleted at the same time.
const COLLECTION_PARALLEL: usize = 64;
/// Kept while dependents are orphaned, or deleted first.
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What a delete answers with.
#[derive(Debug)]
pub struct Deleted {
    /// The object as it is now: its last state where it is gone.
    pub object: Arc<Encoded>,
    /// It is gone. Most kinds then answer with a Status (see `status`), some with the object.
    pub gone: bool,
}

impl Deleted {
    /// The Status that upstream answers with when the object is gone: success, and what was deleted.
    pub fn status(&self) -> Result<api::meta::v1::Status, ApiError> {
        let resource = self.object.resource();
        let details = api::meta::v1::StatusDetails {
            name: self.object.key().name.clone(),
            group: resource.group().into(),
            kind: resource.plural().into(),
            uid: self.object.object()?.metadata().uid.clone(),
            ..Default::default()
        };
        Ok(api::meta::v1::Status {
            status: "Success".into(),
            details: Some(Box::new(details)),
            ..Default::default()
        })
    }
}

/// How far a delete goes now.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Remove it.
    Erase,
    /// Write the object, changed, and leave it there.
    Mark,
    /// Write the object, changed, then remove it.
    MarkAndErase,
    /// Its deletion goes on as it is.
    Pending,
}

impl Registry {
    /// Deletes an object, or begins to.
    pub async fn delete(
        &self,
        request: &Request,
        resource: &'static dyn Resource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let target = Target { request, resource, key, kind: UpdateKind::Spec };
        for _ in 0..ATTEMPTS_MAX {
            let Some(current) = self.read(resource, key).await? else { return Err(target.not_found()) };
            let old = self.caches.in_version(&current, resource).await?.decode()?;
            check_preconditions(&target, options, &*old)?;
            let attributes = target.attributes(Operation::Delete, Some(&*old));
            self.admission().admit(&attributes, None).await?;
            self.admission().validate(&attributes, None).await?;
            let mut object = old.clone_object();
            let step = plan(resource, &mut *object, options, now());
            if let Some(deleted) = self.take(&target, &current, object, step).await? {
                return Ok(deleted);
            }
        }
        Err(ApiError::server_timeout(resource.group(), resource.plural(), "delete", 1))
    }

    async fn take(
        &self,
        target: &Target<'_>,
        current: &Arc<Encoded>,
        object: Box<dyn Object>,
        step: Step,
    ) -> Result<Option<Deleted>, ApiError> {
        let resource = target.resource;
        match step {
            Step::Pending => {
                let object = self.caches.in_version(current, resource).await?;
                Ok(Some(Deleted { object, gone: false }))
            }
            Step::Mark => match self.commit(target, object, Some(current)).await? {
                Committed::Done(object) => Ok(Some(Deleted { object, gone: false })),
                Committed::Lost => Ok(None),
            },
            Step::Erase | Step::MarkAndErase => {
                let last = if step == Step::MarkAndErase {
                    let budget = &self.caches.budget;
                    Encoded::from_object(resource, object, current.revision(), budget)?
                } else {
                    self.caches.in_version(current, resource).await?
                };
                if target.request.dry_run {
                    return Ok(Some(Deleted { object: last, gone: true }));
                }
                let Some(revision) = self.erase(resource, current).await? else { return Ok(None) };
                Ok(Some(Deleted { object: last.at_revision(revision), gone: true }))
            }
        }
    }

    /// Deletes what a list with these options selects: the objects as `delete` left them.
    pub async fn delete_collection(
        &self,
        request: &Request,
        resource: &'static dyn Resource,
        namespace: &str,
        options: &DeleteOptions,
        list: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        let mut found = self.list(resource, namespace, list).await?;
        let deletes = found.items.drain(..).map(|item| async move {
            match self.delete(request, resource, item.key(), options).await {
                Ok(deleted) => Ok(Some(deleted.object)),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        });
        let deleted: Vec<_> =
            futures::stream::iter(deletes).buffered(COLLECTION_PARALLEL).try_collect().await?;
        found.items = deleted.into_iter().flatten().collect();
        found.revision = self.caches.store.revision().await.map_err(store_error)?;
        Ok(found)
    }
}

fn check_preconditions(
    target: &Target<'_>,
    options: &DeleteOptions,
    object: &dyn Object,
) -> Result<(), ApiError> {
    let metadata = object.metadata();
    if let Some(uid) = options.uid.as_ref().filter(|uid| **uid != metadata.uid) {
        return Err(target.conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            metadata.uid
        )));
    }
    let wanted = options.resource_version.as_ref();
    if let Some(version) = wanted.filter(|version| **version != metadata.resource_version) {
        return Err(target.conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            metadata.resource_version
        )));
    }
    Ok(())
}

/// Decides how far a delete goes, and changes the object accordingly.
fn plan(
    resource: &'static dyn Resource,
    object: &mut dyn Object,
    options: &DeleteOptions,
    now: Time,
) -> Step {
    // Upstream takes a negative period for the shortest there is.
    let requested = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let granted = resource.deletion_grace_seconds(object, requested);
    let graceful = match granted {
        None => false,
        Some(grace) => match begin_grace(object, requested, grace, now) {
            Some(graceful) => graceful,
            None => return Step::Pending,
        },
    };
    set_finalizers(object, options.propagation, resource.orphans_by_default());
    let own = resource.outlives_deletion(object);
    let waits = own || !object.metadata().finalizers.is_empty();
    match (graceful, waits) {
        (false, true) => {
            if object.metadata().deletion_timestamp.is_none() {
                resource.begin_deletion(object);
            }
            mark_deleting(object, own, now);
            Step::Mark
        }
        (false, false) => Step::Erase,
        (true, true) => Step::Mark,
        (true, false) if object.metadata().deletion_grace_period_seconds.unwrap_or(0) > 0 => Step::Mark,
        (true, false) => Step::MarkAndErase,
    }
}

/// Starts or shortens the grace period: `Some(true)`; `Some(false)` where there is none to wait for; `None` where one
/// is running that the request does not shorten.
fn begin_grace(object: &mut dyn Object, requested: Option<i64>, grace: i64, now: Time) -> Option<bool> {
    let metadata = object.metadata_mut();
    if let Some(deadline) = metadata.deletion_timestamp {
        // Marked by something that gave no period: nothing is waited for.
        let Some(running) = metadata.deletion_grace_period_seconds else { return Some(false) };
        let shorter = requested.filter(|seconds| *seconds < running)?;
        metadata.deletion_timestamp = Time::from_seconds(deadline.seconds() - running + shorter);
        metadata.deletion_grace_period_seconds = Some(shorter);
        return Some(true);
    }
    metadata.deletion_timestamp = Time::from_seconds(now.seconds() + grace);
    metadata.deletion_grace_period_seconds = Some(grace);
    // Controllers act differently on an object that is being deleted: that is a change of what is wanted.
    if metadata.generation > 0 {
        metadata.generation += 1;
    }
    Some(true)
}

/// `own`: the kind itself decides how long the object stays, so no period is stated.
fn mark_deleting(object: &mut dyn Object, own: bool, now: Time) {
    let metadata = object.metadata_mut();
    if metadata.deletion_timestamp.is_none() && metadata.generation > 0 {
        metadata.generation += 1;
    }
    if metadata.deletion_timestamp.is_none_or(|deadline| now < deadline) {
        metadata.deletion_timestamp = Some(now);
    }
    if !own {
        metadata.deletion_grace_period_seconds = Some(0);
    }
}

/// Adds or removes the garbage collector's finalizers as the request, else the object, else the kind asks for.
fn set_finalizers(object: &mut dyn Object, propagation: Option<Propagation>, orphans: bool) {
    let finalizers = &mut object.metadata_mut().finalizers;
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match propagation {
        Some(propagation) => (propagation == Propagation::Orphan, propagation == Propagation::Foreground),
        None => (has(ORPHAN) || (orphans && !has(FOREGROUND)), has(FOREGROUND) && !has(ORPHAN)),
    };
    for (name, wanted) in [(ORPHAN, orphan), (FOREGROUND, foreground)] {
        let present = finalizers.iter().any(|finalizer| finalizer == name);
        if wanted && !present {
            finalizers.push(name.into());
        } else if !wanted && present {
            finalizers.retain(|finalizer| finalizer != name);
        }
    }
}
