//! Reads: which revision a get, list or watch may answer with, and from where.

use crate::cache::Objects;
use crate::encoded::Encoded;
use crate::feed::{below, object_key};
use crate::request::ListOptions;
use crate::selection::Selection;
use crate::token::Token;
use crate::watch::{Start, Watcher, candidates, too_large};
use crate::{Registry, store_error};
use api::errors::{ApiError, Reason};
use meta::ObjectKey;
use meta::field::{Errors, Path};
use resources::Resource;
use std::sync::Arc;
use store::{RangeRequest, prefix_end};

/// Objects read at once from an old revision of the store.
const HISTORY_PAGE: i64 = 5_000;
const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// One page, or all, of a list.
#[derive(Debug)]
pub struct ListResult {
    /// The list's resourceVersion.
    pub revision: i64,
    /// Empty on the last page.
    pub continue_token: String,
    pub remaining: Option<i64>,
    pub items: Vec<Arc<Encoded>>,
}

/// Reads a resourceVersion of a request: `None` for the empty one.
pub(crate) fn parse_revision(text: &str) -> Result<Option<i64>, Errors> {
    if text.is_empty() {
        return Ok(None);
    }
    let why = match text.parse::<u64>() {
        Ok(revision) => return Ok(Some(i64::try_from(revision).unwrap_or(i64::MAX))),
        Err(error) if matches!(error.kind(), std::num::IntErrorKind::PosOverflow) => "value out of range",
        Err(_) => "invalid syntax",
    };
    let mut errors = Errors::default();
    let text_of = format!("strconv.ParseUint: parsing {text:?}: {why}");
    errors.invalid(&Path::new("resourceVersion"), text, text_of);
    Err(errors)
}

/// What upstream answers to a revision that is none: an error that it does not classify.
fn unreadable(errors: &Errors) -> ApiError {
    ApiError::new(Reason::Unknown, errors.to_string())
}

fn invalid_options(errors: &Errors) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", errors)) }
}

fn check_list_options(options: &ListOptions) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    let path = Path::new("resourceVersionMatch");
    let matching = options.resource_version_match.as_str();
    if !matching.is_empty() {
        if options.resource_version.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.continue_token.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if matching != EXACT && matching != NOT_OLDER_THAN {
            errors.not_supported(&path, matching, &[EXACT, NOT_OLDER_THAN, ""]);
        }
        if matching == EXACT && options.resource_version == "0" {
            errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if options.send_initial_events.is_some() {
        errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    invalid_options(&errors)
}

fn check_watch_options(options: &ListOptions) -> Result<(), ApiError> {
    let mut errors = Errors::default();
    let path = Path::new("resourceVersionMatch");
    let matching = options.resource_version_match.as_str();
    if options.send_initial_events.is_some() && matching != NOT_OLDER_THAN {
        errors.forbidden(
            &path,
            format!("sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER_THAN}"),
        );
    }
    if !matching.is_empty() {
        if options.send_initial_events.is_none() {
            errors.forbidden(
                &path,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
        if matching != NOT_OLDER_THAN {
            errors.not_supported(&path, matching, &[NOT_OLDER_THAN]);
        }
        if !options.continue_token.is_empty() {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
    }
    invalid_options(&errors)
}

/// Which state a list reads.
enum At {
    /// The newest, as of a revision that the store had when it was asked.
    Newest,
    /// Whatever the cache has.
    Any,
    NotOlderThan(i64),
    Exact(i64),
}

impl Registry {
    /// One object. An empty `resource_version` reads the newest state, `0` any, a revision one at least as new.
    pub async fn get(
        &self,
        resource: &'static dyn Resource,
        key: &ObjectKey,
        resource_version: &str,
    ) -> Result<Arc<Encoded>, ApiError> {
        let revision = parse_revision(resource_version).map_err(|errors| unreadable(&errors))?;
        let found = match revision {
            None => self.read(resource, key).await?,
            Some(revision) => {
                let cache = self.caches.cache(resource).await?;
                self.wait_for(revision).await?;
                cache.get(&resource.storage_key(key)[cache.prefix.len()..])
            }
        };
        let found =
            found.ok_or_else(|| ApiError::not_found(resource.group(), resource.plural(), &key.name))?;
        self.caches.in_version(&found, resource).await
    }

    /// The newest state of one object, in the hub's version, straight from the store; its encodings are the cache's
    /// where that has the same revision.
    pub(crate) async fn read(
        &self,
        resource: &'static dyn Resource,
        key: &ObjectKey,
    ) -> Result<Option<Arc<Encoded>>, ApiError> {
        let answer = self
            .caches
            .store
            .range(RangeRequest::key(resource.storage_key(key)))
            .await
            .map_err(store_error)?;
        match answer.kvs.first() {
            Some(entry) => self.shared(resource, entry).map(Some),
            None => Ok(None),
        }
    }

    /// An entry of the store as the cache's object, where the cache has it at that revision.
    pub(crate) fn shared(
        &self,
        resource: &'static dyn Resource,
        entry: &store::KeyValue,
    ) -> Result<Arc<Encoded>, ApiError> {
        let prefix = resource.storage_prefix().len() + 1;
        let below =
            below(&entry.key, prefix).ok_or_else(|| ApiError::internal("a key in the store is not UTF-8"))?;
        let known = self.caches.loaded(resource).and_then(|cache| cache.get(&below));
        match known.filter(|known| known.revision() == entry.mod_revision) {
            Some(known) => Ok(known),
            None => self.caches.encode(crate::feed::hub(resource), &below, entry),
        }
    }

    async fn wait_for(&self, revision: i64) -> Result<(), ApiError> {
        if self.caches.caught_up(revision).await {
            return Ok(());
        }
        Err(too_large(revision, self.caches.applied()))
    }

    /// Waits until the caches have everything that was written before this call.
    async fn catch_up(&self, resource: &'static dyn Resource, verb: &str) -> Result<i64, ApiError> {
        let revision = self.caches.store.revision().await.map_err(store_error)?;
        if self.caches.caught_up(revision).await {
            return Ok(revision);
        }
        Err(ApiError::server_timeout(resource.group(), resource.plural(), verb, 2))
    }

    /// Objects of one namespace, or of all where it is empty, in the order of their keys.
    pub async fn list(
        &self,
        resource: &'static dyn Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        let mut found = self.list_stored(resource, namespace, options).await?;
        if resource.converts_elsewhere() {
            found.items = self.caches.all_in_version(found.items, resource).await?;
        }
        Ok(found)
    }

    async fn list_stored(
        &self,
        resource: &'static dyn Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<ListResult, ApiError> {
        check_list_options(options)?;
        let selection = Selection::new(resource, namespace, options)?;
        let limit = usize::try_from(options.limit).unwrap_or(0);
        if !options.continue_token.is_empty() {
            return self.list_continued(resource, &selection, options, limit).await;
        }
        let revision = parse_revision(&options.resource_version).map_err(|errors| unreadable(&errors))?;
        let exact = options.resource_version_match == EXACT;
        let at = match revision {
            None => At::Newest,
            Some(0) => At::Any,
            Some(revision) if exact => At::Exact(revision),
            // Without a match, upstream pages at exactly the revision asked for.
            Some(revision) if limit > 0 && options.resource_version_match.is_empty() => At::Exact(revision),
            Some(revision) => At::NotOlderThan(revision),
        };
        let limit = if matches!(at, At::Any) { 0 } else { limit };
        let cache = self.caches.cache(resource).await?;
        match at {
            At::Newest => {
                self.catch_up(resource, "list").await?;
            }
            At::NotOlderThan(revision) => self.wait_for(revision).await?,
            At::Any => {}
            At::Exact(revision) => {
                let objects = self.objects_at(resource, &selection, revision, None).await?;
                return page(resource, &objects, &selection, "", limit, revision);
            }
        }
        let applied = self.caches.applied();
        // Pages that follow may select otherwise: they need all of the snapshot.
        let indexed = if limit == 0 { cache.indexed(&selection) } else { None };
        let snapshot = indexed.unwrap_or_else(|| cache.snapshot());
        let revision = applied.max(snapshot.revision);
        let result = page(resource, &snapshot.objects, &selection, "", limit, revision)?;
        if !result.continue_token.is_empty() {
            cache.keep_snapshot(revision, &snapshot.objects);
        }
        Ok(result)
    }

    async fn list_continued(
        &self,
        resource: &'static dyn Resource,
        selection: &Selection,
        options: &ListOptions,
        limit: usize,
    ) -> Result<ListResult, ApiError> {
        if !options.resource_version.is_empty() && options.resource_version != "0" {
            let text = "specifying resource version is not allowed when using continue";
            return Err(ApiError::bad_request(text));
        }
        let token = Token::decode(&options.continue_token)
            .map_err(|why| ApiError::bad_request(format!("invalid continue token: {why}")))?;
        let start = match selection.namespace.as_str() {
            "" => token.start.clone(),
            namespace => format!("{namespace}/{}", token.start),
        };
        let cache = self.caches.cache(resource).await?;
        if token.revision < 0 {
            self.catch_up(resource, "list").await?;
            let applied = self.caches.applied();
            let snapshot = cache.snapshot();
            let revision = applied.max(snapshot.revision);
            let result = page(resource, &snapshot.objects, selection, &start, limit, revision)?;
            if !result.continue_token.is_empty() {
                cache.keep_snapshot(revision, &snapshot.objects);
            }
            return Ok(result);
        }
        let objects = match cache.kept_snapshot(token.revision) {
            Some(objects) => objects,
            None => self.objects_at(resource, selection, token.revision, Some(&token)).await?,
        };
        page(resource, &objects, selection, &start, limit, token.revision)
    }

    /// What was there at an old revision, out of the store's history.
    async fn objects_at(
        &self,
        resource: &'static dyn Resource,
        selection: &Selection,
        revision: i64,
        token: Option<&Token>,
    ) -> Result<Objects, ApiError> {
        let namespaced = resource.namespaced();
        let root = format!("{}/", resource.storage_prefix());
        let under = match selection.only_namespace().filter(|_| namespaced) {
            Some(namespace) => format!("{root}{namespace}/"),
            None => root.clone(),
        };
        let end = prefix_end(under.as_bytes());
        let mut request = RangeRequest {
            key: under.into(),
            range_end: end,
            revision,
            limit: HISTORY_PAGE,
            ..RangeRequest::default()
        };
        let mut objects = Objects::new();
        loop {
            let answer = match self.caches.store.range(request.clone()).await {
                Ok(answer) => answer,
                Err(store::Error::Compacted { .. }) => return Err(expired(token)),
                Err(store::Error::FutureRevision { current }) => {
                    return Err(too_large(revision, current.max(self.caches.applied())));
                }
                Err(error) => return Err(store_error(error)),
            };
            for entry in &answer.kvs {
                let Some(below) = below(&entry.key, root.len()) else { continue };
                debug_assert_eq!(object_key(namespaced, &below).namespace.is_empty(), !namespaced);
                objects.insert(below, self.shared(resource, entry)?);
            }
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else { break };
            let mut next = last.key.to_vec();
            next.push(0);
            request.key = next.into();
        }
        Ok(objects)
    }

    /// Follows a resource.
    pub async fn watch(
        &self,
        resource: &'static dyn Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Watcher, ApiError> {
        check_watch_options(options)?;
        let revision = parse_revision(&options.resource_version)
            .map_err(|errors| ApiError::invalid(resource.group(), resource.plural(), "", &errors))?;
        let selection = Selection::new(resource, namespace, options)?;
        let initial = options.send_initial_events;
        if revision.is_none() {
            self.caches.cache(resource).await?;
            self.catch_up(resource, "watch").await?;
        }
        if let Some(revision) = revision.filter(|_| initial == Some(true)) {
            self.caches.cache(resource).await?;
            self.wait_for(revision).await?;
        }
        let start = match (revision, initial) {
            (_, Some(true)) => Start::Objects { bookmark: options.allow_bookmarks },
            (None | Some(0), None) => Start::Objects { bookmark: false },
            (None | Some(0), Some(false)) => Start::Now,
            (Some(revision), _) => Start::After(revision),
        };
        Watcher::open(resource, &self.caches, selection, start, options.allow_bookmarks).await
    }
}

/// A revision that is no longer kept; for a paged list with a token that goes on with the newest state.
fn expired(token: Option<&Token>) -> ApiError {
    let Some(token) = token else {
        return ApiError::expired(
            "The resourceVersion for the provided list is too old. A list at an exact revision is possible only \
             while the server keeps that revision's history; list again without it.",
        );
    };
    let text = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                list without the continue parameter, or use the continue token in this response to retrieve the \
                remainder of the results. Continuing with the provided token results in an inconsistent list - \
                objects that were created, modified, or deleted between the time the first chunk was returned and \
                now may show up in the list.";
    let mut error = ApiError::expired(text);
    error.details.get_or_insert_default().continue_token =
        Token { revision: -1, start: token.start.clone() }.encode();
    error
}

/// One page of what a selection matches in `objects`, from the key `start` on.
fn page(
    resource: &'static dyn Resource,
    objects: &Objects,
    selection: &Selection,
    start: &str,
    limit: usize,
    revision: i64,
) -> Result<ListResult, ApiError> {
    let everything = selection.is_everything();
    let mut found = candidates(objects, selection, resource.namespaced(), start)
        .filter(|(_, object)| everything || selection.matches(object));
    let mut items = Vec::new();
    let mut last: Option<&Arc<str>> = None;
    while limit == 0 || items.len() < limit {
        let Some((key, object)) = found.next() else { break };
        // Those that somebody else converts are asked for together, once they are chosen.
        items.push(if resource.converts_elsewhere() {
            Arc::clone(object)
        } else {
            object.in_version(resource)?
        });
        last = Some(key);
    }
    let mut result = ListResult { revision, continue_token: String::new(), remaining: None, items };
    let Some(last) = last.filter(|_| limit > 0) else { return Ok(result) };
    let more = if everything { found.count() } else { found.take(1).count() };
    if more > 0 {
        let below = match selection.namespace.as_str() {
            "" => last,
            namespace => last.strip_prefix(namespace).and_then(|key| key.strip_prefix('/')).unwrap_or(last),
        };
        result.continue_token = Token { revision, start: format!("{below}\0") }.encode();
        result.remaining = everything.then(|| i64::try_from(more).unwrap_or(i64::MAX));
    }
    Ok(result)
}
