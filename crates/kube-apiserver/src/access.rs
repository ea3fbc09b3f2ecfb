//! The policy as the server holds it: fed from watches of roles, bindings and what the node graph is made of, asked
//! before every verb.

use crate::objects::resource_of;
use crate::request::RequestInfo;
use api::Object;
use api::core::v1::{PersistentVolume, Pod};
use api::errors::ApiError;
use api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use api::storage::v1::VolumeAttachment;
use authz::{Attributes, Decision, Policy, User};
use meta::fields;
use parking_lot::RwLock;
use registry::{Event, ListOptions, Registry, UserInfo};
use resources::Resource;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause before a watch that failed is opened again.
const RETRY: Duration = Duration::from_millis(200);

/// The policy, shared by all requests.
pub struct Access {
    policy: RwLock<Policy>,
}

fn user_of(user: &UserInfo) -> User<'_> {
    User { name: &user.name, groups: &user.groups }
}

impl Access {
    pub fn new(modes: Vec<authz::Mode>) -> Arc<Self> {
        Arc::new(Access { policy: RwLock::new(Policy::new(modes)) })
    }

    /// Reads under the lock.
    pub fn with<T>(&self, read: impl FnOnce(&Policy) -> T) -> T {
        read(&self.policy.read())
    }

    pub fn decide(&self, request: &Attributes<'_>) -> Decision {
        authz::decide(&self.policy.read(), request)
    }

    /// 403 in upstream's words unless the request is allowed; why it is.
    pub fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<String, ApiError> {
        let selector = fields_of(info);
        let request = Attributes {
            user: user_of(user),
            verb: &info.verb,
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            field_selector: &selector,
        };
        match self.decide(&request) {
            Decision::Allow(reason) => Ok(reason),
            refused => Err(forbidden(user, info, refused.reason())),
        }
    }

    /// Whether `user` may act as `wanted`: each of name, groups, uid and extras is asked for.
    pub fn may_impersonate(&self, user: &UserInfo, wanted: &UserInfo) -> Result<(), ApiError> {
        let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
            let info = RequestInfo {
                is_resource: true,
                verb: "impersonate".into(),
                group: group.into(),
                version: "v1".into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..RequestInfo::default()
            };
            self.authorize(user, &info).map(drop)
        };
        match pki::token::split_user_name(&wanted.name) {
            Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name)?,
            None => ask("", "users", "", "", &wanted.name)?,
        }
        for group in &wanted.groups {
            ask("", "groups", "", "", group)?;
        }
        if !wanted.uid.is_empty() {
            ask("authentication.k8s.io", "uids", "", "", &wanted.uid)?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                ask("authentication.k8s.io", "userextras", key, "", value)?;
            }
        }
        Ok(())
    }

    /// Loads the policy and keeps it fed until the token is cancelled. Returns when everything was read once.
    pub async fn start(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        shutdown: &CancellationToken,
    ) -> Result<(), ApiError> {
        let resources: [&'static dyn Resource; 7] = [
            resource_of::<ClusterRole>(),
            resource_of::<ClusterRoleBinding>(),
            resource_of::<Role>(),
            resource_of::<RoleBinding>(),
            resource_of::<Pod>(),
            resource_of::<PersistentVolume>(),
            resource_of::<VolumeAttachment>(),
        ];
        let mut loaded = Vec::new();
        for resource in resources {
            let (access, registry, shutdown) = (Arc::clone(self), Arc::clone(registry), shutdown.clone());
            let (done, wait) = tokio::sync::oneshot::channel();
            loaded.push(wait);
            tokio::spawn(async move {
                tokio::select! {
                    () = access.follow(registry, resource, done) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        for wait in loaded {
            wait.await.map_err(|_| ApiError::internal("the policy could not be read"))?;
        }
        Ok(())
    }

    /// Follows one resource for ever: its objects, then its changes; again from the start when a watch ends.
    async fn follow(
        self: Arc<Self>,
        registry: Arc<Registry>,
        resource: &'static dyn Resource,
        done: tokio::sync::oneshot::Sender<()>,
    ) {
        let mut done = Some(done);
        let mut revision = String::new();
        loop {
            let initial = revision.is_empty();
            let options = ListOptions {
                resource_version: revision.clone(),
                resource_version_match: if initial { "NotOlderThan" } else { "" }.into(),
                send_initial_events: initial.then_some(true),
                allow_bookmarks: true,
                ..ListOptions::default()
            };
            match registry.watch(resource, "", &options).await {
                Ok(mut watcher) => {
                    while let Some(event) = watcher.recv().await {
                        match &event {
                            Event::Added(object) | Event::Modified(object) => {
                                if let Ok(object) = object.object() {
                                    self.take_in(&*object);
                                }
                            }
                            Event::Deleted(object) => {
                                if let Ok(object) = object.object() {
                                    self.forget(&*object);
                                }
                            }
                            Event::Bookmark(_) => {
                                if let Some(done) = done.take() {
                                    let _ = done.send(());
                                }
                            }
                            Event::Error(error) => {
                                tracing::warn!(%error, resource = resource.plural(), "Lost a watch of the policy");
                                if error.is_expired() {
                                    revision.clear();
                                }
                                break;
                            }
                        }
                        if let Some(object) = event.object() {
                            revision = object.resource_version();
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, resource = resource.plural(), "Could not watch the policy");
                    if error.is_expired() {
                        revision.clear();
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn take_in(&self, object: &dyn Object) {
        let mut policy = self.policy.write();
        if let Some(role) = object.downcast::<ClusterRole>() {
            policy.rbac.set_cluster_role(role);
        } else if let Some(role) = object.downcast::<Role>() {
            policy.rbac.set_role(role);
        } else if let Some(binding) = object.downcast::<ClusterRoleBinding>() {
            policy.rbac.set_cluster_role_binding(binding);
        } else if let Some(binding) = object.downcast::<RoleBinding>() {
            policy.rbac.set_role_binding(binding);
        } else if let Some(pod) = object.downcast::<Pod>() {
            policy.graph.set_pod(pod);
        } else if let Some(volume) = object.downcast::<PersistentVolume>() {
            policy.graph.set_volume(volume);
        } else if let Some(attachment) = object.downcast::<VolumeAttachment>() {
            policy.graph.set_attachment(&attachment.metadata.name, &attachment.spec.node_name);
        }
    }

    fn forget(&self, object: &dyn Object) {
        let mut policy = self.policy.write();
        let (namespace, name) = (&object.metadata().namespace, &object.metadata().name);
        if object.is::<ClusterRole>() || object.is::<Role>() {
            policy.rbac.remove_role(namespace, name);
        } else if object.is::<ClusterRoleBinding>() || object.is::<RoleBinding>() {
            policy.rbac.remove_binding(namespace, name);
        } else if object.is::<Pod>() {
            policy.graph.remove_pod(namespace, name);
        } else if object.is::<PersistentVolume>() {
            policy.graph.remove_volume(name);
        } else if object.is::<VolumeAttachment>() {
            policy.graph.remove_attachment(name);
        }
    }
}

fn fields_of(info: &RequestInfo) -> Vec<(String, String)> {
    demands(&info.field_selector)
}

/// What a field selector demands; nothing where it is none.
pub fn demands(selector: &str) -> Vec<(String, String)> {
    let Ok(selector) = fields::Selector::parse(selector) else { return Vec::new() };
    let terms = selector.terms().iter().filter(|term| !term.negated);
    terms.map(|term| (term.field.clone(), term.value.clone())).collect()
}

/// The refusal, in upstream's words.
pub fn forbidden(user: &UserInfo, info: &RequestInfo, reason: &str) -> ApiError {
    let name = &user.name;
    let mut text = if !info.is_resource {
        format!("User {name:?} cannot {} path {:?}", info.verb, info.path)
    } else {
        let place = if info.namespace.is_empty() {
            "at the cluster scope".to_string()
        } else {
            format!("in the namespace {:?}", info.namespace)
        };
        format!(
            "User {name:?} cannot {} resource {:?} in API group {:?} {place}",
            info.verb,
            info.resource_path(),
            info.group
        )
    };
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    ApiError::forbidden(&info.group, &info.resource, &info.name, text)
}
