//! The verbs over every resource of the table: nothing in here knows a kind.

use crate::answers;
use crate::filters::{self, Passed};
use crate::negotiate::{self, Forms, Shape};
use crate::paths::method_not_allowed;
use crate::respond::{self, Body};
use crate::{Api, decode, objects, parameters, watching};
use api::errors::{ApiError, Reason};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use meta::{ObjectKey, Time};
use rand::Rng;
use registry::{Patch, PatchType, UpdateKind};
use resources::Resource;
use std::sync::Arc;
use std::time::Duration;

/// Media types of patches, in the order in which a refusal lists them.
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Now, to the second.
pub fn now() -> Time {
    Time::from_seconds(crate::authn::now()).unwrap_or_default()
}

/// Where a request points: a row of the table and a key in it.
pub struct Target {
    pub resource: &'static dyn Resource,
    pub key: ObjectKey,
}

pub type Answer<'a> = BoxFuture<'a, Result<Response<Body>, ApiError>>;

impl Api {
    /// Answers a request that has passed the filters.
    pub(crate) async fn dispatch(self: Arc<Self>, mut passed: Passed) -> Result<Response<Body>, ApiError> {
        if let Some(remote) = self.aggregator.find(&passed.info) {
            let answer: Answer<'static> = Box::pin(self.proxy_aggregated(passed, remote));
            return answer.await;
        }
        if !passed.info.is_resource {
            let answer: Answer<'static> = Box::pin(self.path(passed));
            return answer.await;
        }
        let info = &passed.info;
        let Some(resource) = self.kinds.resource(&info.group, &info.version, &info.resource) else {
            return Ok(filters::no_such_path());
        };
        if resource.custom().is_some() {
            passed.forms = Forms::NoProtobuf;
            before_custom(resource, &passed)?;
        }
        let info = &passed.info;
        let namespace = if resource.namespaced() { info.namespace.clone() } else { String::new() };
        let misplaced = !resource.namespaced() && !info.namespace.is_empty() && info.resource != "namespaces";
        let nameless =
            resource.namespaced() && namespace.is_empty() && !matches!(info.verb.as_str(), "list" | "watch");
        if misplaced {
            return Ok(filters::no_such_path());
        }
        if nameless {
            // A name, or a change, needs its namespace in the path; reviews of self have none.
            return Ok(if info.name.is_empty() { method_not_allowed() } else { filters::no_such_path() });
        }
        let target = Target { resource, key: ObjectKey::new(namespace, info.name.clone()) };
        if !info.subresource.is_empty() {
            let answer: Answer<'static> = Box::pin(self.subresource(passed, target));
            return answer.await;
        }
        let verb = info.verb.clone();
        let needs_name = matches!(verb.as_str(), "get" | "update" | "patch" | "delete");
        if !resource.supports(&verb) || (needs_name && target.key.name.is_empty()) {
            return Ok(method_not_allowed());
        }
        // Each verb's future is large; boxed, a request carries only its own.
        let answer: Answer<'_> = match verb.as_str() {
            "get" => Box::pin(self.get(&passed, &target)),
            "list" => Box::pin(self.list(&passed, &target)),
            "watch" => Box::pin(self.watch(&passed, &target)),
            "create" => Box::pin(self.create(&mut passed, &target)),
            "update" => Box::pin(self.update(&mut passed, &target, UpdateKind::Spec)),
            "patch" => Box::pin(self.patch(&mut passed, &target, UpdateKind::Spec)),
            "delete" => Box::pin(self.delete(&mut passed, &target)),
            "deletecollection" => Box::pin(self.delete_collection(&mut passed, &target)),
            _ => return Ok(method_not_allowed()),
        };
        let mut response = answer.await?;
        respond::warn(&mut response, &passed.request.warnings.take());
        Ok(response)
    }

    async fn get(&self, passed: &Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        let version = passed.query.first("resourceVersion").unwrap_or_default();
        let found = self.registry.get(target.resource, &target.key, version).await?;
        answers::object(StatusCode::OK, target.resource, &found, output, accepts_gzip(passed), now())
    }

    async fn list(&self, passed: &Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        let options = parameters::list(&passed.query)?;
        let found = self.registry.list(target.resource, &target.key.namespace, &options).await?;
        answers::list(target.resource, found, output, accepts_gzip(passed), now())
    }

    async fn watch(&self, passed: &Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, true)?;
        let mut options = parameters::list(&passed.query)?;
        if passed.info.watch_in_path && !target.key.name.is_empty() {
            options.fields = meta::fields::Selector::exact("metadata.name", &target.key.name);
        }
        let least = self.options.min_request_timeout;
        let lasts = match passed.query.integer("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
            // Spread, so that many watches that began together do not all end together.
            _ => Duration::from_secs(least + rand::rng().random_range(0..=least)),
        };
        let watcher = self.registry.watch(target.resource, &target.key.namespace, &options).await?;
        let guard = self.count_watch(passed);
        Ok(watching::answer(watching::Watch {
            resource: target.resource,
            watcher,
            output,
            bookmarks: options.allow_bookmarks,
            lasts,
            shutdown: self.shutdown.clone(),
            _guard: guard,
            now,
        }))
    }

    async fn create(&self, passed: &mut Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        parameters::write(passed, "CreateOptions")?;
        let body = read_body(passed).await?;
        let object = decode::object(passed, target.resource, &body)?;
        if !target.resource.stored() {
            return self.act(passed, target, object, output).await;
        }
        let made =
            self.registry.create(&passed.request, target.resource, &target.key.namespace, object).await?;
        answers::object(StatusCode::CREATED, target.resource, &made, output, accepts_gzip(passed), now())
    }

    pub(crate) async fn update(
        &self,
        passed: &mut Passed,
        target: &Target,
        kind: UpdateKind,
    ) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        parameters::write(passed, "UpdateOptions")?;
        let body = read_body(passed).await?;
        let object = decode::object(passed, target.resource, &body)?;
        let updated =
            self.registry.update(&passed.request, target.resource, &target.key, kind, object).await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        answers::object(code, target.resource, &updated.object, output, accepts_gzip(passed), now())
    }

    pub(crate) async fn patch(
        &self,
        passed: &mut Passed,
        target: &Target,
        kind: UpdateKind,
    ) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        let patch = read_patch(passed).await?;
        let updated =
            self.registry.patch(&passed.request, target.resource, &target.key, kind, &patch).await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        answers::object(code, target.resource, &updated.object, output, accepts_gzip(passed), now())
    }

    async fn delete(&self, passed: &mut Passed, target: &Target) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        let body = read_body(passed).await?;
        let options = parameters::delete(passed, &body)?;
        let deleted = self.registry.delete(&passed.request, target.resource, &target.key, &options).await?;
        if deleted.gone && !returns_deleted(target.resource) {
            return Ok(respond::message(
                StatusCode::OK,
                &deleted.status()?,
                negotiate::Output { shape: Shape::Object, ..output },
            ));
        }
        answers::object(StatusCode::OK, target.resource, &deleted.object, output, accepts_gzip(passed), now())
    }

    async fn delete_collection(
        &self,
        passed: &mut Passed,
        target: &Target,
    ) -> Result<Response<Body>, ApiError> {
        let output = self.output(passed, false)?;
        let list = parameters::list(&passed.query)?;
        let body = read_body(passed).await?;
        let options = parameters::delete(passed, &body)?;
        let deleted = self
            .registry
            .delete_collection(&passed.request, target.resource, &target.key.namespace, &options, &list)
            .await?;
        answers::list(target.resource, deleted, output, accepts_gzip(passed), now())
    }

    pub(crate) fn output(&self, passed: &Passed, stream: bool) -> Result<negotiate::Output, ApiError> {
        let accept = passed.headers.get(http::header::ACCEPT).and_then(|value| value.to_str().ok());
        negotiate::output(accept, &passed.query, &passed.request.user_agent, stream, passed.forms)
    }

    fn count_watch(&self, passed: &Passed) -> Box<dyn Send> {
        struct Open(Arc<crate::metrics::Metrics>, crate::metrics::RequestLabels);
        impl Drop for Open {
            fn drop(&mut self) {
                self.0.end_long_running(&self.1);
            }
        }
        let labels = filters::labels(&passed.info);
        self.metrics.begin_long_running(&labels);
        Box::new(Open(Arc::clone(&self.metrics), labels))
    }

    /// Reads the newest state of an object as a typed one; absence is a 404.
    pub(crate) async fn find<T: api::Typed + api::Object + Clone>(
        &self,
        key: &ObjectKey,
    ) -> Result<T, ApiError> {
        let resource = objects::resource_of::<T>();
        objects::get::<T>(&self.registry, key)
            .await?
            .ok_or_else(|| ApiError::not_found(resource.group(), resource.plural(), &key.name))
    }
}

/// What every request for a kind made at run time hears first.
fn before_custom(resource: &dyn Resource, passed: &Passed) -> Result<(), ApiError> {
    if let Some(warning) = resource.deprecation() {
        passed.request.warnings.add(warning);
    }
    let verb = passed.info.verb.as_str();
    let going = || resource.custom().and_then(|row| row.definition()).is_some_and(|it| it.terminating);
    if verb == "create" && going() {
        let text = format!("{verb} not allowed while custom resource definition is terminating");
        return Err(ApiError::new(Reason::MethodNotAllowed, text));
    }
    Ok(())
}

/// Kinds whose delete answers with the object, as upstream's strategies choose.
fn returns_deleted(resource: &dyn Resource) -> bool {
    matches!(
        (resource.group(), resource.plural()),
        (
            "",
            "services"
                | "pods"
                | "secrets"
                | "serviceaccounts"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "resourcequotas"
                | "podtemplates"
                | "replicationcontrollers"
        ) | ("policy", "podsecuritypolicies")
            | ("storage.k8s.io", "storageclasses" | "volumeattachments" | "csinodes" | "csidrivers")
    )
}

pub fn accepts_gzip(passed: &Passed) -> bool {
    let accepted = filters::header(&passed.headers, "accept-encoding");
    accepted.split(',').any(|coding| coding.split(';').next().is_some_and(|name| name.trim() == "gzip"))
}

/// Takes the body out of the request and reads it.
pub async fn read_body(passed: &mut Passed) -> Result<Bytes, ApiError> {
    let body = std::mem::replace(&mut passed.body, crate::body::RequestBody::Whole(Bytes::new()));
    let body = body.read().await?;
    if let Some(record) = &passed.audit {
        record.request_body(&body, filters::header(&passed.headers, "content-type"));
    }
    Ok(body)
}

/// Reads a patch and the options that go with its kind.
pub async fn read_patch(passed: &mut Passed) -> Result<Patch, ApiError> {
    let content_type = filters::header(&passed.headers, "content-type");
    let base = content_type.split(';').next().unwrap_or_default().trim().to_string();
    let accepted: Vec<&str> = PATCH_TYPES
        .into_iter()
        .filter(|media| passed.forms == Forms::All || PatchType::of(media) != Some(PatchType::StrategicMerge))
        .collect();
    let kind = PatchType::of(&base)
        .filter(|_| accepted.contains(&base.as_str()))
        .ok_or_else(|| ApiError::unsupported_media_type(&accepted))?;
    parameters::write(passed, "PatchOptions")?;
    let force = passed.query.optional_boolean("force");
    let mut errors = meta::field::Errors::default();
    if kind == PatchType::Apply {
        if passed.request.field_manager.is_empty() {
            errors.required(&meta::field::Path::new("fieldManager"), "is required for apply patch");
        }
    } else if force.is_some() {
        errors.forbidden(&meta::field::Path::new("force"), "may not be specified for non-apply patch");
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &errors));
    }
    let mut body = read_body(passed).await?;
    if kind == PatchType::Apply {
        let text = api::codec::yaml_to_json(&body)
            .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
        body = text.into();
    }
    Ok(Patch { kind, body, force: force.unwrap_or(false) })
}
