//! The admission chain: built-in plugins in upstream's order, each a small decision over what the cache knows.
//!
//! Invariant: `admit` may change the object, `validate` only refuses; both may run again for one request.

mod certificates;
mod expressions;
mod limits;
mod namespaces;
mod nodes;
mod own;
mod pod_security;
mod pods;
mod policies;
mod quota;
mod rbac;
mod service_accounts;
mod services;
mod storage;
mod webhooks;

pub(crate) use nodes::restrict_token;
pub(crate) use policies::{Policies, PolicyRound};
pub(crate) use webhooks::{Round, Webhooks, user_json};

use crate::access::Access;
use crate::allocation::Allocator;
use crate::objects;
use api::errors::ApiError;
use api::{Object, Typed};
use async_trait::async_trait;
use meta::ObjectKey;
use registry::{Admission, Attributes, Operation, Registry};
use std::sync::{Arc, Weak};

/// The plugins there are, in their order; the flag says whether they run without being asked for.
pub const PLUGINS: &[(&str, bool)] = &[
    ("NamespaceLifecycle", true),
    ("LimitRanger", true),
    ("ServiceAccount", true),
    ("NodeRestriction", true),
    ("TaintNodesByCondition", true),
    ("PodSecurity", true),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("DefaultStorageClass", true),
    ("StorageObjectInUseProtection", true),
    ("PersistentVolumeClaimResize", true),
    ("RuntimeClass", true),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("CertificateSubjectRestriction", true),
    ("DefaultIngressClass", true),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
    ("ResourceQuota", true),
];

/// Upstream's plugins that a configuration may name though they do nothing here.
const ACCEPTED: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysPullImages",
    "ClusterTrustBundleAttest",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "OwnerReferencesPermissionEnforcement",
    "PodNodeSelector",
    "PodTolerationRestriction",
    "PodTopologyLabels",
];

/// All plugins that run, and what they look at.
pub struct Chain {
    registry: Weak<Registry>,
    access: Arc<Access>,
    allocator: Arc<Allocator>,
    enabled: Vec<&'static str>,
    not_ready_seconds: i64,
    unreachable_seconds: i64,
    webhooks: Arc<Webhooks>,
    policies: Arc<Policies>,
}

/// Which plugins run, by flags; an unknown name is an error.
pub fn enabled(enable: &[String], disable: &[String]) -> anyhow::Result<Vec<&'static str>> {
    for name in enable.iter().chain(disable).filter(|name| !name.is_empty()) {
        let known = PLUGINS.iter().any(|(plugin, _)| plugin == name) || ACCEPTED.contains(&name.as_str());
        if !known {
            anyhow::bail!("--enable-admission-plugins: {name:?} is unknown");
        }
    }
    let wanted = |name: &str, default: bool| {
        (default || enable.iter().any(|known| known == name)) && !disable.iter().any(|known| known == name)
    };
    Ok(PLUGINS.iter().filter(|(name, default)| wanted(name, *default)).map(|(name, _)| *name).collect())
}

impl Chain {
    pub fn new(
        registry: &Arc<Registry>,
        access: Arc<Access>,
        allocator: Arc<Allocator>,
        enabled: Vec<&'static str>,
        webhooks: Arc<Webhooks>,
        policies: Arc<Policies>,
        options: &crate::Options,
    ) -> Arc<Self> {
        Arc::new(Chain {
            registry: Arc::downgrade(registry),
            access,
            allocator,
            enabled,
            not_ready_seconds: options.default_not_ready_toleration_seconds,
            unreachable_seconds: options.default_unreachable_toleration_seconds,
            webhooks,
            policies,
        })
    }

    fn has(&self, plugin: &str) -> bool {
        self.enabled.contains(&plugin)
    }

    fn registry(&self) -> Result<Arc<Registry>, ApiError> {
        self.registry.upgrade().ok_or_else(|| ApiError::service_unavailable("the server is shutting down"))
    }

    async fn get<T: Typed + Object + Clone>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        objects::get::<T>(&*self.registry()?, &ObjectKey::new(namespace, name)).await
    }

    async fn list<T: Typed + Object + Clone>(&self, namespace: &str) -> Result<Vec<T>, ApiError> {
        objects::list_typed::<T>(&*self.registry()?, namespace).await
    }
}

/// What is asked, without borrowing more than plugins need.
pub(crate) fn is(attributes: &Attributes<'_>, group: &str, plural: &str) -> bool {
    attributes.resource.plural() == plural && attributes.resource.group() == group
}

/// A refusal in upstream's words: the resource and the object's name, or what its name will be made from.
pub(crate) fn forbidden(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    text: impl std::fmt::Display,
) -> ApiError {
    let mut name = attributes.name;
    if name.is_empty()
        && let Some(object) = object
    {
        let metadata = object.metadata();
        name = if metadata.name.is_empty() { &metadata.generate_name } else { &metadata.name };
    }
    ApiError::forbidden(attributes.resource.group(), attributes.resource.plural(), name, text)
}

impl Chain {
    /// The plugins of the server itself that may change the object.
    async fn admit_built_in(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
    ) -> Result<(), ApiError> {
        if self.has("NamespaceLifecycle") {
            self.namespace_lifecycle(attributes, object.as_deref()).await?;
        }
        let Some(object) = object else { return Ok(()) };
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !writes || !attributes.subresource.is_empty() {
            return Ok(());
        }
        if is(attributes, "certificates.k8s.io", "certificatesigningrequests") {
            self.stamp_requester(attributes, object);
        } else if is(attributes, "", "pods") {
            self.admit_pod(attributes, object).await?;
        } else if is(attributes, "", "services") {
            self.allocate(attributes, object).await?;
        } else if is(attributes, "", "nodes") {
            self.admit_node(attributes, object);
        } else if is(attributes, "", "persistentvolumeclaims")
            || is(attributes, "", "persistentvolumes")
            || is(attributes, "storage.k8s.io", "volumeattributesclasses")
        {
            self.admit_storage(attributes, object).await?;
        } else if is(attributes, "networking.k8s.io", "ingresses") {
            self.default_ingress_class(attributes, object).await?;
        } else if is(attributes, "scheduling.k8s.io", "priorityclasses") {
            self.check_priority_class(attributes, object).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Admission for Chain {
    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut dyn Object>,
    ) -> Result<(), ApiError> {
        self.admit_built_in(attributes, object.as_deref_mut()).await?;
        let (mut policies, mut round) = (PolicyRound::default(), Round::default());
        self.policies.mutate(attributes, object.as_deref_mut(), &mut policies).await?;
        self.webhooks.mutate(attributes, object.as_deref_mut(), None, &mut round).await?;
        if policies.changed || round.changed {
            // Once more, on what these have changed; only those of them that want to are asked again.
            self.admit_built_in(attributes, object.as_deref_mut()).await?;
            self.policies.mutate(attributes, object.as_deref_mut(), &mut policies.next()).await?;
            self.webhooks.mutate(attributes, object, None, &mut round.next()).await?;
        }
        Ok(())
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        if self.has("NodeRestriction") {
            self.node_restriction(attributes, object).await?;
        }
        if attributes.resource.group() == "rbac.authorization.k8s.io"
            && let Some(object) = object
        {
            self.escalation(attributes, object)?;
        }
        if is(attributes, "certificates.k8s.io", "certificatesigningrequests")
            && let Some(object) = object
        {
            self.check_certificates(attributes, object)?;
        }
        if is(attributes, "", "pods")
            && let Some(object) = object
        {
            if self.has("LimitRanger") && attributes.subresource.is_empty() {
                self.check_limits(attributes, object).await?;
            }
            if self.has("PodSecurity") {
                self.pod_security(attributes, object).await?;
            }
        }
        if is(attributes, "", "persistentvolumeclaims")
            && attributes.subresource.is_empty()
            && let Some(object) = object
        {
            self.check_resize(attributes, object).await?;
        }
        self.policies.validate(attributes, object, None).await?;
        self.webhooks.validate(attributes, object, None).await?;
        if self.has("ResourceQuota")
            && let Some(object) = object
        {
            self.check_quota(attributes, object).await?;
        }
        Ok(())
    }
}
