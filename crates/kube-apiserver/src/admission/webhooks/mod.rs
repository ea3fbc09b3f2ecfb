//! Admission webhooks: which of the configured ones a request concerns, and what their answers do to it.
//!
//! Invariants: a request that no webhook matches costs a look at the rules and nothing more; a webhook that does not
//! answer harms only what it matches, and only as its failurePolicy says.

mod call;
mod conditions;
mod hook;
mod metrics;
mod mutate;
mod review;
pub(crate) mod rules;
mod validate;

pub use metrics::WebhookMetrics;
pub use mutate::Round;
pub(crate) use mutate::{take_over, tree};
pub(crate) use review::{kind_json, options_json, resource_json, user_json, versioned};
pub(crate) use rules::namespace_of;

use crate::access::Access;
use crate::follow;
use crate::objects::{self, resource_of};
use crate::outbound::webhook::WebhookClient;
use api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use api::core::v1::Namespace;
use api::errors::ApiError;
use api::{Object, Typed};
use arc_swap::ArcSwap;
use hook::Hook;
use meta::ObjectKey;
use registry::{Attributes, Operation, Registry};
use resources::Resource;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All webhooks, in the order in which they are called.
#[derive(Default)]
struct Hooks {
    mutating: Vec<Arc<Hook>>,
    validating: Vec<Arc<Hook>>,
}

/// The webhooks of one server.
pub struct Webhooks {
    registry: Weak<Registry>,
    access: Arc<Access>,
    client: Arc<WebhookClient>,
    hooks: ArcSwap<Hooks>,
    pub metrics: WebhookMetrics,
    mutates: bool,
    validates: bool,
    loaded: AtomicBool,
}

/// What a webhook is asked about: the object's place and kind in the version that its rule names.
struct Invocation {
    hook: Arc<Hook>,
    resource: &'static dyn Resource,
    kind: Kind,
}

/// Group, version and kind of what is admitted: the resource's own, or that of a subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    group: String,
    version: String,
    pub kind: String,
}

impl Kind {
    pub(crate) fn of(resource: &dyn Resource, subresource: &str) -> Self {
        let sub = resource.facts().subresources.iter().find(|sub| sub.name == subresource);
        match sub {
            Some(sub) if !subresource.is_empty() => {
                Kind { group: sub.group.into(), version: sub.version.into(), kind: sub.kind.into() }
            }
            _ => Kind {
                group: resource.group().into(),
                version: resource.version().into(),
                kind: resource.kind().into(),
            },
        }
    }
}

impl Webhooks {
    /// `mutates` and `validates`: which of the two plugins are enabled.
    pub fn new(
        registry: &Arc<Registry>,
        access: Arc<Access>,
        client: Arc<WebhookClient>,
        mutates: bool,
        validates: bool,
    ) -> Arc<Self> {
        Arc::new(Webhooks {
            registry: Arc::downgrade(registry),
            access,
            client,
            hooks: ArcSwap::default(),
            metrics: WebhookMetrics::default(),
            mutates,
            validates,
            loaded: AtomicBool::new(false),
        })
    }

    /// Reads the configurations and follows their changes. Returns when they were read once.
    pub async fn start(self: &Arc<Self>, shutdown: &CancellationToken) -> Result<(), ApiError> {
        let Some(registry) = self.registry.upgrade() else { return Ok(()) };
        let changed = Arc::new(Notify::new());
        let configurations: [&'static dyn Resource; 2] =
            [resource_of::<MutatingWebhookConfiguration>(), resource_of::<ValidatingWebhookConfiguration>()];
        for resource in configurations {
            registry.warm(resource).await?;
            follow::wake_on_change(&registry, resource, Arc::clone(&changed), shutdown);
        }
        self.load(&registry).await?;
        let (webhooks, shutdown) = (Arc::clone(self), shutdown.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = changed.notified() => {}
                    () = shutdown.cancelled() => return,
                }
                let Some(registry) = webhooks.registry.upgrade() else { return };
                if let Err(error) = webhooks.load(&registry).await {
                    tracing::warn!(%error, "Could not read the webhook configurations; the last ones stay");
                }
            }
        });
        Ok(())
    }

    async fn load(&self, registry: &Registry) -> Result<(), ApiError> {
        let mut hooks = Hooks::default();
        let mutating = listed::<MutatingWebhookConfiguration>(registry).await?;
        for configuration in &mutating {
            hooks.mutating.extend(hook::mutating(configuration));
        }
        let validating = listed::<ValidatingWebhookConfiguration>(registry).await?;
        for configuration in &validating {
            hooks.validating.extend(hook::validating(configuration));
        }
        self.hooks.store(Arc::new(hooks));
        self.loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether webhooks may look at this at all. Objects that configure admission are out of their reach, so that
    /// nobody can lock the door from inside.
    fn concerns(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
        let resource = attributes.resource;
        if resource.group() == "admissionregistration.k8s.io" {
            return false;
        }
        // Where a subresource has a kind of its own, the parent object on its way through the registry is not what
        // a webhook is asked about.
        let Some(object) = object.filter(|_| !attributes.subresource.is_empty()) else { return true };
        let kind = Kind::of(resource, attributes.subresource);
        object.gvk().kind == kind.kind
    }

    /// The invocation of a hook that the request concerns.
    async fn matching(
        &self,
        hook: &Arc<Hook>,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<Option<Invocation>, ApiError> {
        // The rules cost least, so they come first; what upstream looks at first only matters where they match.
        let Some(resource) = matching_resource(hook, attributes) else { return Ok(None) };
        if !self.namespace_matches(hook, attributes, object).await? {
            return Ok(None);
        }
        let selector = hook.objects.as_ref().map_err(ApiError::internal)?;
        if !selector.is_everything() {
            let fits = |object: Option<&dyn Object>| {
                object.is_some_and(|object| selector.matches(&object.metadata().labels))
            };
            if !fits(object) && !fits(attributes.old) {
                return Ok(None);
            }
        }
        let kind = Kind::of(resource, attributes.subresource);
        Ok(Some(Invocation { hook: Arc::clone(hook), resource, kind }))
    }

    async fn namespace_matches(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<bool, ApiError> {
        let selector = hook.namespaces.as_ref().map_err(ApiError::internal)?;
        let own = rules::is_namespace(attributes);
        if selector.is_everything() || (attributes.namespace.is_empty() && !own) {
            return Ok(true);
        }
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if own && writes && attributes.subresource.is_empty() {
            let none = BTreeMap::new();
            return Ok(selector.matches(object.map_or(&none, |object| &object.metadata().labels)));
        }
        let name = rules::namespace_of(attributes);
        let Some(registry) = self.registry.upgrade() else { return Ok(false) };
        let namespace = objects::get::<Namespace>(&registry, &ObjectKey::cluster(name)).await?;
        match namespace {
            Some(namespace) => Ok(selector.matches(&namespace.metadata.labels)),
            None => Err(ApiError::not_found("", "namespaces", name)),
        }
    }

    /// Whether there is any webhook.
    pub fn any(&self) -> bool {
        let hooks = self.hooks.load();
        !hooks.mutating.is_empty() || !hooks.validating.is_empty()
    }

    fn ready(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        if self.loaded.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(super::forbidden(attributes, None, "not yet ready to handle request"))
    }
}

/// The resource as the hook's rules name it: itself, or with matchPolicy Equivalent another version of it.
fn matching_resource(hook: &Hook, attributes: &Attributes<'_>) -> Option<&'static dyn Resource> {
    let matches = |resource: &'static dyn Resource| {
        hook.rules.iter().any(|rule| rules::matches(rule, attributes, resource))
    };
    if matches(attributes.resource) {
        return Some(attributes.resource);
    }
    if !hook.equivalent {
        return None;
    }
    equivalents(attributes.resource).find(|other| matches(*other))
}

/// The other versions of a resource.
pub(crate) fn equivalents(of: &'static dyn Resource) -> impl Iterator<Item = &'static dyn Resource> {
    resources::resources().iter().copied().filter(move |other| {
        other.storage_prefix() == of.storage_prefix()
            && other.stored()
            && (other.group(), other.version()) != (of.group(), of.version())
    })
}

async fn listed<T: Typed + Object + Clone>(registry: &Registry) -> Result<Vec<T>, ApiError> {
    let mut all = objects::list_typed::<T>(registry, "").await?;
    all.sort_by(|a, b| a.metadata().name.cmp(&b.metadata().name));
    Ok(all)
}
