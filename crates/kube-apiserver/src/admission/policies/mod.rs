//! Admission policies: which of the configured ones a request concerns, and what their expressions make of it.
//!
//! Policies and bindings are followed by a watch and compiled when they change. A request that no policy's rules name
//! pays for the look at the rules and nothing more.

mod matching;
mod mutate;
mod params;
mod policy;
mod validate;

pub use mutate::PolicyRound;

use super::expressions::{Data, RequestAuthorizer, namespace_json, request_json};
use super::webhooks::{Kind, versioned};
use crate::access::Access;
use crate::follow;
use crate::kinds::Kinds;
use crate::objects::{self, resource_of};
use api::Object;
use api::admissionregistration::{v1, v1beta1};
use api::errors::ApiError;
use arc_swap::ArcSwap;
use matching::{Matched, NamespaceOf};
use policy::{Mutating, Validating};
use registry::{Attributes, Registry};
use resources::Resource;
use serde_json::Value as Json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All policies that have a binding, by name.
#[derive(Default)]
struct All {
    validating: Vec<Validating>,
    mutating: Vec<Mutating>,
}

/// The policies of one server.
pub struct Policies {
    registry: Weak<Registry>,
    access: Arc<Access>,
    /// What kinds are served, once the server knows.
    kinds: OnceLock<Arc<Kinds>>,
    all: ArcSwap<All>,
    validates: bool,
    mutates: bool,
    loaded: AtomicBool,
}

impl Policies {
    /// `mutates` and `validates`: which of the two plugins are enabled.
    pub fn new(registry: &Arc<Registry>, access: Arc<Access>, mutates: bool, validates: bool) -> Arc<Self> {
        Arc::new(Policies {
            registry: Arc::downgrade(registry),
            access,
            kinds: OnceLock::new(),
            all: ArcSwap::default(),
            validates,
            mutates,
            loaded: AtomicBool::new(false),
        })
    }

    /// Reads the policies and follows their changes. Returns when they were read once.
    pub async fn start(
        self: &Arc<Self>,
        kinds: &Arc<Kinds>,
        shutdown: &CancellationToken,
    ) -> Result<(), ApiError> {
        self.kinds.get_or_init(|| Arc::clone(kinds));
        let Some(registry) = self.registry.upgrade() else { return Ok(()) };
        let changed = Arc::new(Notify::new());
        let followed: [&'static dyn Resource; 4] = [
            resource_of::<v1::ValidatingAdmissionPolicy>(),
            resource_of::<v1::ValidatingAdmissionPolicyBinding>(),
            resource_of::<v1beta1::MutatingAdmissionPolicy>(),
            resource_of::<v1beta1::MutatingAdmissionPolicyBinding>(),
        ];
        for resource in followed {
            registry.warm(resource).await?;
            follow::wake_on_change(&registry, resource, Arc::clone(&changed), shutdown);
        }
        self.load(&registry).await?;
        let (policies, shutdown) = (Arc::clone(self), shutdown.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = changed.notified() => {}
                    () = shutdown.cancelled() => return,
                }
                let Some(registry) = policies.registry.upgrade() else { return };
                if let Err(error) = policies.load(&registry).await {
                    tracing::warn!(%error, "Could not read the admission policies; the last ones stay");
                }
            }
        });
        Ok(())
    }

    async fn load(&self, registry: &Registry) -> Result<(), ApiError> {
        let validating = objects::list_typed::<v1::ValidatingAdmissionPolicy>(registry, "").await?;
        let bindings = objects::list_typed::<v1::ValidatingAdmissionPolicyBinding>(registry, "").await?;
        let mutating = objects::list_typed::<v1beta1::MutatingAdmissionPolicy>(registry, "").await?;
        let mutating_bindings =
            objects::list_typed::<v1beta1::MutatingAdmissionPolicyBinding>(registry, "").await?;
        let mut all = All::default();
        for policy in &validating {
            all.validating.extend(Validating::new(policy, &bindings));
        }
        for policy in &mutating {
            all.mutating.extend(Mutating::new(policy, &mutating_bindings));
        }
        all.validating.sort_by(|a, b| a.head.name.cmp(&b.head.name));
        all.mutating.sort_by(|a, b| a.head.name.cmp(&b.head.name));
        self.all.store(Arc::new(all));
        self.loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether there is any policy.
    pub fn any(&self) -> bool {
        let all = self.all.load();
        !all.validating.is_empty() || !all.mutating.is_empty()
    }

    /// Whether policies may look at this at all: what configures admission is out of their reach.
    fn concerns(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
        if attributes.resource.group() == "admissionregistration.k8s.io" {
            return false;
        }
        let Some(object) = object.filter(|_| !attributes.subresource.is_empty()) else { return true };
        object.gvk().kind == Kind::of(attributes.resource, attributes.subresource).kind
    }

    fn ready(&self, attributes: &Attributes<'_>) -> Result<Arc<Registry>, ApiError> {
        if !self.loaded.load(Ordering::Acquire) {
            return Err(super::forbidden(attributes, None, "not yet ready to handle request"));
        }
        self.registry.upgrade().ok_or_else(|| ApiError::service_unavailable("the server is shutting down"))
    }

    fn kinds(&self) -> &Kinds {
        self.kinds.get().expect("a server is ready only after it has started, which sets the kinds")
    }

    fn authorizer<'a>(&'a self, attributes: &Attributes<'a>) -> RequestAuthorizer<'a> {
        RequestAuthorizer::new(&self.access, attributes)
    }
}

/// What expressions see of a request that a policy matched; the parameters are put in one after the other.
async fn data(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    connect: Option<&Json>,
    matched: &Matched,
    namespace: &NamespaceOf<'_>,
) -> Result<Data, ApiError> {
    let own = object.is_none_or(|object| object.gvk() == attributes.resource.gvk());
    let to = if own { matched.resource } else { attributes.resource };
    let new = match connect {
        Some(options) => options.clone(),
        None => versioned(object, attributes.resource, to)?,
    };
    let old_object = match connect {
        Some(_) => Json::Null,
        None => versioned(attributes.old, attributes.resource, to)?,
    };
    // A namespace is not in itself here.
    let inside = !attributes.namespace.is_empty() && !super::webhooks::rules::is_namespace(attributes);
    let namespace = match inside {
        true => {
            let found = namespace.get().await.map_err(ApiError::internal)?;
            match found {
                Some(found) => namespace_json(Some(found)),
                None => return Err(ApiError::not_found("", "namespaces", attributes.namespace)),
            }
        }
        false => Json::Null,
    };
    let request = request_json(attributes, &matched.kind, matched.resource);
    Ok(Data { object: new, old_object, params: None, request, namespace })
}
