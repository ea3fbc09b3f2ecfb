//! Creates and updates: upstream's order from the decoded object to the transaction.
//!
//! Every write reads the object from the store, proposes the next state, and writes it under the condition that nobody
//! wrote in between; whoever loses starts again from what the winner wrote.

use crate::encoded::Encoded;
use crate::feed::hub;
use crate::ownership;
use crate::request::{Attributes, Operation, Patch, PatchType, Request, UpdateKind};
use crate::{Registry, patching, store_error};
use api::Object;
use api::errors::{ApiError, Reason};
use bytes::Bytes;
use meta::field::{Errors, Path};
use meta::{ObjectKey, Time};
use rand::Rng;
use resources::Resource;
use std::sync::Arc;
use store::{Compare, Op, Txn};

/// How often a write that keeps losing against others starts again.
const ATTEMPTS_MAX: usize = 256;
/// How many names are tried for a `generateName`.
const NAMES_MAX: usize = 8;
/// Letters and digits that make no words, as upstream picks them; five of them follow a `generateName`.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_RANDOM: usize = 5;
const NAME_MAX: usize = 63;

/// The answer to an update or patch.
#[derive(Debug)]
pub struct Updated {
    pub object: Arc<Encoded>,
    /// The object did not exist before: the answer is 201.
    pub created: bool,
}

/// A change of an object in place; may be called several times.
pub type Change<'a> = &'a (dyn Fn(&mut dyn Object) -> Result<(), ApiError> + Send + Sync);

/// Where the next state of an object comes from.
pub(crate) enum Source<'a> {
    Object(Box<dyn Object>),
    Patch(&'a Patch),
    Change(Change<'a>),
}

/// What a write is about.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub request: &'a Request,
    pub resource: &'static dyn Resource,
    pub key: &'a ObjectKey,
    pub kind: UpdateKind,
}

impl<'a> Target<'a> {
    pub fn attributes(&self, operation: Operation, old: Option<&'a dyn Object>) -> Attributes<'a> {
        Attributes {
            request: self.request,
            resource: self.resource,
            subresource: self.kind.subresource(),
            namespace: &self.key.namespace,
            name: &self.key.name,
            operation,
            old,
        }
    }

    pub fn not_found(&self) -> ApiError {
        ApiError::not_found(self.resource.group(), self.resource.plural(), &self.key.name)
    }

    pub fn conflict(&self, text: impl std::fmt::Display) -> ApiError {
        ApiError::conflict(self.resource.group(), self.resource.plural(), &self.key.name, text)
    }

    /// The update is meant for an object of another uid; the words are those of upstream's storage.
    fn wrong_uid(&self, wanted: &str, found: &str) -> ApiError {
        self.conflict(format!(
            "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
             failed: UID in precondition: {wanted}, UID in object meta: {found}",
            self.resource.storage_key(self.key)
        ))
    }

    fn modified(&self) -> ApiError {
        ApiError::modified(self.resource.group(), self.resource.plural(), &self.key.name)
    }

    pub fn invalid(&self, errors: &Errors) -> Result<(), ApiError> {
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(self.resource.group(), self.resource.kind(), &self.key.name, errors))
    }
}

pub(crate) fn now() -> Time {
    Time::from_seconds(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

/// A name for a `generateName`.
fn generated_name(base: &str) -> String {
    let mut base = base;
    while base.len() > NAME_MAX - NAME_RANDOM {
        let mut characters = base.chars();
        characters.next_back();
        base = characters.as_str();
    }
    let mut rng = rand::rng();
    let random: String = (0..NAME_RANDOM)
        .map(|_| char::from(NAME_ALPHABET[rng.random_range(0..NAME_ALPHABET.len())]))
        .collect();
    format!("{base}{random}")
}

/// Puts the request's namespace into an object that names none; one that names another is refused.
fn match_namespace(namespace: &str, object: &mut dyn Object) -> Result<(), ApiError> {
    let metadata = object.metadata_mut();
    if metadata.namespace.is_empty() || namespace.is_empty() {
        metadata.namespace = namespace.into();
    }
    if metadata.namespace == namespace {
        return Ok(());
    }
    let text = "the namespace of the provided object does not match the namespace sent on the request";
    Err(ApiError::bad_request(text))
}

pub(crate) enum Committed {
    Done(Arc<Encoded>),
    /// Somebody else wrote in between.
    Lost,
}

impl Registry {
    /// Stores a new object, decoded and defaulted in the version of `resource`; its name may come from `generateName`.
    pub async fn create(
        &self,
        request: &Request,
        resource: &'static dyn Resource,
        namespace: &str,
        mut object: Box<dyn Object>,
    ) -> Result<Arc<Encoded>, ApiError> {
        match_namespace(namespace, &mut *object)?;
        let key = ObjectKey::new(namespace, object.metadata().name.clone());
        let target = Target { request, resource, key: &key, kind: UpdateKind::Spec };
        ownership::claim_created(&target, &mut *object);
        self.create_claimed(&target, object).await
    }

    /// The create of an object whose managed fields are settled.
    pub(crate) async fn create_claimed(
        &self,
        target: &Target<'_>,
        mut object: Box<dyn Object>,
    ) -> Result<Arc<Encoded>, ApiError> {
        let Target { request, resource, key, .. } = *target;
        if !object.metadata().resource_version.is_empty() {
            let text = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::new(Reason::Unknown, text));
        }
        let attributes = target.attributes(Operation::Create, None);
        self.admission().admit(&attributes, Some(&mut *object)).await?;
        resource.default(&mut *object);
        match_namespace(&key.namespace, &mut *object)?;
        let metadata = object.metadata_mut();
        let generate = metadata.name.is_empty() && !metadata.generate_name.is_empty();
        if generate {
            metadata.name = generated_name(&metadata.generate_name);
        }
        metadata.uid = uuid::Uuid::new_v4().to_string();
        metadata.creation_timestamp = Some(now());
        metadata.deletion_timestamp = None;
        metadata.deletion_grace_period_seconds = None;
        metadata.self_link.clear();
        metadata.generation = 0;
        resource.prepare_for_create(&mut *object);
        let user = &request.user;
        let requester = resources::Requester {
            name: &user.name,
            uid: &user.uid,
            groups: &user.groups,
            extra: &user.extra,
        };
        resource.set_requester(&mut *object, &requester);
        let key = ObjectKey::new(key.namespace.clone(), object.metadata().name.clone());
        let target = Target { key: &key, ..*target };
        target.invalid(&resource.validate_create(&*object))?;
        for warning in resource.warnings(&*object, None) {
            request.warnings.add(warning);
        }
        self.admission().validate(&target.attributes(Operation::Create, None), Some(&*object)).await?;
        self.insert(&target, object, generate).await
    }

    async fn insert(
        &self,
        target: &Target<'_>,
        object: Box<dyn Object>,
        generate: bool,
    ) -> Result<Arc<Encoded>, ApiError> {
        let Target { resource, key, .. } = *target;
        let mut key = key.clone();
        let mut object = Some(object);
        for attempt in 1..=NAMES_MAX {
            let Some(mut candidate) = object.take() else { break };
            if attempt > 1 {
                let metadata = candidate.metadata_mut();
                metadata.name = generated_name(&metadata.generate_name);
                key.name = metadata.name.clone();
            }
            if generate {
                object = Some(candidate.clone_object());
            }
            let step = Target { key: &key, ..*target };
            if let Committed::Done(stored) = self.commit(&step, candidate, None).await? {
                return Ok(stored);
            }
        }
        if generate {
            return Err(ApiError::generate_name_conflict(resource.group(), resource.plural(), &key.name));
        }
        let mut error = ApiError::already_exists(resource.group(), resource.plural(), &key.name);
        if let Some(existing) = self.read(resource, &key).await?
            && existing.object()?.metadata().deletion_timestamp.is_some()
        {
            error.message = format!("object is being deleted: {}", error.message);
        }
        Err(error)
    }

    /// Replaces an object, or the part of it that `kind` names. `object` is decoded and defaulted in the version of
    /// `resource`; with a resourceVersion the write is refused if the object has changed since.
    pub async fn update(
        &self,
        request: &Request,
        resource: &'static dyn Resource,
        key: &ObjectKey,
        kind: UpdateKind,
        mut object: Box<dyn Object>,
    ) -> Result<Updated, ApiError> {
        match_namespace(&key.namespace, &mut *object)?;
        let target = Target { request, resource, key, kind };
        self.write(&target, Source::Object(object), false).await
    }

    /// Patches an object, or the part of it that `kind` names. An apply creates the object where there is none.
    pub async fn patch(
        &self,
        request: &Request,
        resource: &'static dyn Resource,
        key: &ObjectKey,
        kind: UpdateKind,
        patch: &Patch,
    ) -> Result<Updated, ApiError> {
        let target = Target { request, resource, key, kind };
        let create = patch.kind == PatchType::Apply && kind == UpdateKind::Spec;
        self.write(&target, Source::Patch(patch), create).await
    }

    /// Changes an object in place, through all of the write path: bindings, scales, approvals, finalizing.
    pub async fn modify(
        &self,
        request: &Request,
        resource: &'static dyn Resource,
        key: &ObjectKey,
        kind: UpdateKind,
        change: Change<'_>,
    ) -> Result<Updated, ApiError> {
        let target = Target { request, resource, key, kind };
        self.write(&target, Source::Change(change), false).await
    }

    async fn write(
        &self,
        target: &Target<'_>,
        source: Source<'_>,
        create: bool,
    ) -> Result<Updated, ApiError> {
        let Target { resource, key, kind, .. } = *target;
        for _ in 0..ATTEMPTS_MAX {
            let Some(current) = self.read(resource, key).await? else {
                let may = create || (resource.allow_create_on_update() && kind == UpdateKind::Spec);
                if !may {
                    return Err(match &source {
                        Source::Object(object) if !object.metadata().uid.is_empty() => {
                            target.wrong_uid(&object.metadata().uid, "")
                        }
                        _ => target.not_found(),
                    });
                }
                match self.create_missing(target, &source).await {
                    // Somebody else created it just now: update that.
                    Err(error) if error.is_already_exists() => continue,
                    result => return result.map(|object| Updated { object, created: true }),
                }
            };
            let old = self.caches.in_version(&current, resource).await?.decode()?;
            let object = propose(target, &source, &*old)?;
            let next = self.prepare_update(target, object, &*old).await?;
            let last = empties_finalizers(&*next, &*old) && !resource.outlives_deletion(&*next);
            let committed = if last {
                self.remove(target, &current, next).await?
            } else {
                self.commit(target, next, Some(&current)).await?
            };
            match committed {
                Committed::Done(object) => return Ok(Updated { object, created: false }),
                Committed::Lost if matches!(&source, Source::Object(object) if !object.metadata().resource_version.is_empty()) =>
                {
                    return Err(target.modified());
                }
                Committed::Lost => {}
            }
        }
        Err(ApiError::server_timeout(resource.group(), resource.plural(), "update", 1))
    }

    async fn create_missing(
        &self,
        target: &Target<'_>,
        source: &Source<'_>,
    ) -> Result<Arc<Encoded>, ApiError> {
        let mut object = match source {
            Source::Object(object) => {
                let mut object = object.clone_object();
                ownership::claim_created(target, &mut *object);
                object
            }
            Source::Patch(patch) => patching::apply_to_nothing(target, patch)?,
            Source::Change(_) => return Err(target.not_found()),
        };
        let metadata = object.metadata_mut();
        if !metadata.uid.is_empty() {
            let text = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                metadata.uid
            );
            return Err(target.conflict(text));
        }
        if matches!(source, Source::Object(_)) {
            // A client that read the object before it was deleted meant to update that one.
            if !metadata.resource_version.is_empty() {
                return Err(target.not_found());
            }
        }
        check_name(target, &*object)?;
        match_namespace(&target.key.namespace, &mut *object)?;
        self.create_claimed(target, object).await
    }

    /// Everything between the proposed state and the transaction.
    async fn prepare_update(
        &self,
        target: &Target<'_>,
        mut object: Box<dyn Object>,
        old: &dyn Object,
    ) -> Result<Box<dyn Object>, ApiError> {
        let Target { request, resource, kind, .. } = *target;
        check_name(target, &*object)?;
        match_namespace(&target.key.namespace, &mut *object)?;
        check_identity(target, &mut *object, old)?;
        let attributes = target.attributes(Operation::Update, Some(old));
        self.admission().admit(&attributes, Some(&mut *object)).await?;
        resource.default(&mut *object);
        object.metadata_mut().generation = old.metadata().generation;
        let errors = match kind {
            UpdateKind::Spec => {
                resource.prepare_for_update(&mut *object, old);
                keep_system_fields(&mut *object, old);
                resource.validate_update(&*object, old)
            }
            UpdateKind::Status | UpdateKind::Sub(_) => {
                let subresource = kind.subresource();
                resource.prepare_for_subresource(subresource, &mut *object, old);
                keep_system_fields(&mut *object, old);
                resource.validate_subresource(subresource, &*object, old)
            }
        };
        target.invalid(&errors)?;
        for warning in resource.warnings(&*object, Some(old)) {
            request.warnings.add(warning);
        }
        self.admission().validate(&attributes, Some(&*object)).await?;
        ownership::keep_unchanged_times(&mut *object, old);
        Ok(object)
    }

    /// Writes `object` if nobody wrote since `current` (if nothing is there, without it). Writes nothing where nothing
    /// would change, or in a dry run.
    pub(crate) async fn commit(
        &self,
        target: &Target<'_>,
        object: Box<dyn Object>,
        current: Option<&Arc<Encoded>>,
    ) -> Result<Committed, ApiError> {
        let Target { request, resource, key, .. } = *target;
        let mut stored = self.caches.to_storage(resource, object).await?;
        stored.metadata_mut().resource_version.clear();
        let document = Bytes::from(api::codec::to_stored(&*stored));
        if let Some(current) = current.filter(|current| *current.document() == document)
            && (request.dry_run || !self.caches.store.is_stale(resource.storage_key(key).as_bytes()))
        {
            return Ok(Committed::Done(self.caches.in_version(current, resource).await?));
        }
        let revision = current.map_or(0, |current| current.revision());
        if request.dry_run {
            if current.is_none() && self.read(resource, key).await?.is_some() {
                return Ok(Committed::Lost);
            }
            let shown = Encoded::from_object(hub(resource), stored, revision, &self.caches.budget)?;
            return Ok(Committed::Done(self.caches.in_version(&shown, resource).await?));
        }
        let place = Bytes::from(resource.storage_key(key));
        let lease = self.leases.lease_for(&self.caches.store, resource).await?;
        let announced = self.caches.announce(place.clone(), document.clone(), stored);
        let answer = self
            .caches
            .store
            .txn(Txn {
                compares: vec![Compare::mod_revision(place.clone(), revision)],
                success: vec![Op::Put { key: place, value: document, lease, prev_kv: false }],
                failure: Vec::new(),
            })
            .await
            .map_err(store_error)?;
        if !answer.succeeded {
            return Ok(Committed::Lost);
        }
        let written = announced.write.encoded(hub(resource), key, answer.revision, &self.caches.budget)?;
        Ok(Committed::Done(self.caches.in_version(&written, resource).await?))
    }

    /// The last finalizer has left an object that is being deleted: the update removes it.
    async fn remove(
        &self,
        target: &Target<'_>,
        current: &Arc<Encoded>,
        last: Box<dyn Object>,
    ) -> Result<Committed, ApiError> {
        if target.request.dry_run || self.erase(target.resource, current).await?.is_some() {
            let budget = &self.caches.budget;
            let shown = Encoded::from_object(target.resource, last, current.revision(), budget)?;
            return Ok(Committed::Done(shown));
        }
        Ok(Committed::Lost)
    }

    /// Deletes an object if nobody wrote since `current`: the revision of the deletion.
    pub(crate) async fn erase(
        &self,
        resource: &'static dyn Resource,
        current: &Arc<Encoded>,
    ) -> Result<Option<i64>, ApiError> {
        let place = Bytes::from(resource.storage_key(current.key()));
        let answer = self
            .caches
            .store
            .txn(Txn {
                compares: vec![Compare::mod_revision(place.clone(), current.revision())],
                success: vec![Op::delete(place)],
                failure: Vec::new(),
            })
            .await
            .map_err(store_error)?;
        Ok(answer.succeeded.then_some(answer.revision))
    }
}

/// The proposed state, its managed fields settled.
fn propose(target: &Target<'_>, source: &Source<'_>, old: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
    match source {
        Source::Object(object) => {
            let mut object = object.clone_object();
            ownership::claim_updated(target, &mut *object, old);
            Ok(object)
        }
        Source::Patch(patch) if patch.kind == PatchType::Apply => patching::apply(target, patch, old),
        Source::Patch(patch) => {
            let mut object = patching::patched(target, patch, old)?;
            ownership::claim_updated(target, &mut *object, old);
            Ok(object)
        }
        Source::Change(change) => {
            let mut object = old.clone_object();
            change(&mut *object)?;
            ownership::claim_updated(target, &mut *object, old);
            Ok(object)
        }
    }
}

fn check_name(target: &Target<'_>, object: &dyn Object) -> Result<(), ApiError> {
    let (name, wanted) = (&object.metadata().name, &target.key.name);
    if name == wanted {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({wanted})"
    )))
}

/// The uid and resourceVersion of an update must be the object's, where they are given.
fn check_identity(target: &Target<'_>, object: &mut dyn Object, old: &dyn Object) -> Result<(), ApiError> {
    let metadata = object.metadata_mut();
    let before = old.metadata();
    if metadata.uid.is_empty() {
        metadata.uid = before.uid.clone();
    }
    if metadata.uid != before.uid {
        return Err(target.wrong_uid(&metadata.uid, &before.uid));
    }
    if metadata.resource_version.is_empty() || metadata.resource_version == "0" {
        if target.resource.allow_unconditional_update() {
            metadata.resource_version = before.resource_version.clone();
            return Ok(());
        }
        let mut errors = Errors::default();
        let path = Path::new("metadata").child("resourceVersion");
        errors.invalid(&path, 0_i64, "must be specified for an update");
        return target.invalid(&errors);
    }
    if let Err(errors) = crate::read::parse_revision(&metadata.resource_version) {
        let mut renamed = errors;
        for error in &mut renamed.0 {
            error.field = "metadata.resourceVersion".into();
        }
        return target.invalid(&renamed);
    }
    if metadata.resource_version != before.resource_version {
        return Err(target.modified());
    }
    Ok(())
}

/// What no update changes: when the object came to be, and that it is being deleted.
fn keep_system_fields(object: &mut dyn Object, old: &dyn Object) {
    let before = old.metadata();
    let metadata = object.metadata_mut();
    metadata.creation_timestamp = before.creation_timestamp;
    metadata.self_link.clear();
    if before.deletion_timestamp.is_some() {
        metadata.deletion_timestamp = before.deletion_timestamp;
    }
    if metadata.deletion_grace_period_seconds.is_none() {
        metadata.deletion_grace_period_seconds = before.deletion_grace_period_seconds;
    }
}

/// Whether an update takes the last finalizer of an object whose deletion waits for nothing else.
fn empties_finalizers(new: &dyn Object, old: &dyn Object) -> bool {
    let before = old.metadata();
    new.metadata().finalizers.is_empty()
        && before.deletion_timestamp.is_some()
        && before.deletion_grace_period_seconds.unwrap_or(0) == 0
}
