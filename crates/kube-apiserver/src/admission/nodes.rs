//! Nodes: a new one is not ready until it says so, and a kubelet touches only its own node and the pods on it.

use super::{Chain, forbidden, is};
use api::Object;
use api::authentication::v1::TokenRequest;
use api::core::v1::{Node, PersistentVolume, Pod, Taint};
use api::errors::ApiError;
use authz::User;
use registry::{Attributes, Operation};
use volumes::local_path;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels below these domains are the administrator's; a kubelet sets only those it is known for.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

impl Chain {
    /// TaintNodesByCondition: no pod is placed on a node before its kubelet has reported.
    pub(super) fn admit_node(&self, attributes: &Attributes<'_>, object: &mut dyn Object) {
        if !self.has("TaintNodesByCondition") || attributes.operation != Operation::Create {
            return;
        }
        let Some(node) = object.downcast_mut::<Node>() else { return };
        let known =
            node.spec.taints.iter().any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule");
        if !known {
            node.spec.taints.push(Taint {
                key: NOT_READY.into(),
                effect: "NoSchedule".into(),
                ..Taint::default()
            });
        }
    }

    pub(super) async fn node_restriction(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let who = &attributes.request.user;
        let user = User { name: &who.name, groups: &who.groups };
        let Some(node) = authz::node::identity(user) else { return Ok(()) };
        if is(attributes, "", "pods") {
            return self.restrict_pod(attributes, object, node).await;
        }
        if is(attributes, "", "nodes") {
            return restrict_node(attributes, object, node);
        }
        if is(attributes, "coordination.k8s.io", "leases") {
            let name = object.map_or(attributes.name, |object| object.metadata().name.as_str());
            if attributes.namespace != "kube-node-lease" {
                let text = format!(
                    "can only access leases in the \"kube-node-lease\" system namespace, not {:?}",
                    attributes.namespace
                );
                return Err(forbidden(attributes, object, text));
            }
            if name != node {
                let text = "can only access node lease with the same name as the requesting node";
                return Err(forbidden(attributes, object, text));
            }
        }
        if is(attributes, "", "persistentvolumes") {
            return self.restrict_volume(attributes, object, node).await;
        }
        if is(attributes, "storage.k8s.io", "csinodes") {
            let name = object.map_or(attributes.name, |object| object.metadata().name.as_str());
            if name != node {
                return Err(forbidden(
                    attributes,
                    object,
                    "can only access CSINode with the same name as the requesting node",
                ));
            }
        }
        Ok(())
    }

    /// A node only says that it has removed a volume which it kept and which is being deleted.
    async fn restrict_volume(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        node: &str,
    ) -> Result<(), ApiError> {
        let text = format!("node {node:?} can only take its finalizer off volumes of its own");
        let (Some(new), Some(old)) = (
            object.and_then(|object| object.downcast::<PersistentVolume>()),
            attributes.old.and_then(|old| old.downcast::<PersistentVolume>()),
        ) else {
            return Err(forbidden(attributes, object, text));
        };
        let own = self.get::<Node>("", node).await?;
        let hostname = own
            .as_ref()
            .and_then(|own| own.metadata.labels.get(local_path::HOSTNAME))
            .map_or(node, String::as_str);
        let mut expected = old.clone();
        expected.metadata.finalizers.retain(|finalizer| finalizer != local_path::PROVISIONER);
        let bare = |volume: &PersistentVolume| {
            let mut volume = volume.clone();
            volume.metadata.managed_fields.clear();
            volume.metadata.resource_version.clear();
            volume
        };
        let allowed = attributes.operation == Operation::Update
            && attributes.subresource.is_empty()
            && old.metadata.deletion_timestamp.is_some()
            && local_path::is_ours(old)
            && local_path::hostname_of(old) == Some(hostname)
            && bare(&expected) == bare(new);
        if allowed { Ok(()) } else { Err(forbidden(attributes, object, text)) }
    }

    async fn restrict_pod(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        node: &str,
    ) -> Result<(), ApiError> {
        let refuse = |text: String| Err(forbidden(attributes, object, text));
        match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => {
                let Some(pod) = object.and_then(|object| object.downcast::<Pod>()) else { return Ok(()) };
                if !pod.metadata.annotations.contains_key(MIRROR) {
                    return refuse(format!(
                        "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                    ));
                }
                if pod.spec.node_name != node {
                    return refuse(format!(
                        "node {node:?} can only create pods with spec.nodeName set to itself"
                    ));
                }
                let references = !pod.spec.service_account_name.is_empty()
                    || pod.spec.volumes.iter().any(|volume| {
                        volume.volume_source.secret.is_some()
                            || volume.volume_source.config_map.is_some()
                            || volume.volume_source.persistent_volume_claim.is_some()
                    });
                if references {
                    return refuse(format!(
                        "node {node:?} can not create pods that reference a service account, secrets, configmaps or claims"
                    ));
                }
                Ok(())
            }
            (Operation::Delete | Operation::Update, _) => {
                let pod = attributes.old.and_then(|old| old.downcast::<Pod>());
                match pod {
                    Some(pod) if pod.spec.node_name != node => {
                        let what = if attributes.operation == Operation::Delete {
                            "can only delete pods with spec.nodeName set to itself"
                        } else {
                            "can only update pod status for pods with spec.nodeName set to itself"
                        };
                        refuse(format!("node {node:?} {what}"))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// A kubelet gets tokens only for its own pods' accounts, bound to those pods. `runs_on` is the bound pod's node.
pub(crate) fn restrict_token(
    user: User<'_>,
    request: &TokenRequest,
    runs_on: Option<&str>,
) -> Result<(), &'static str> {
    let Some(node) = authz::node::identity(user) else { return Ok(()) };
    match request.spec.bound_object_ref.as_deref() {
        Some(bound) if bound.kind == "Pod" && !bound.name.is_empty() => {
            if bound.uid.is_empty() {
                return Err("node requested token with a pod binding without a uid");
            }
        }
        _ => return Err("node requested token not bound to a pod"),
    }
    if runs_on == Some(node) {
        return Ok(());
    }
    Err("node requested token bound to a pod scheduled on a different node")
}

fn restrict_node(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    node: &str,
) -> Result<(), ApiError> {
    let name = object.map_or(attributes.name, |object| object.metadata().name.as_str());
    if name != node {
        let text = format!("node {node:?} is not allowed to modify node {name:?}");
        return Err(forbidden(attributes, object, text));
    }
    if attributes.operation == Operation::Delete {
        let text = format!("node {node:?} cannot delete node {name:?}");
        return Err(forbidden(attributes, object, text));
    }
    let Some(new) = object.and_then(|object| object.downcast::<Node>()) else { return Ok(()) };
    let old = attributes.old.and_then(|old| old.downcast::<Node>());
    if let Some(old) = old
        && attributes.subresource.is_empty()
        && new.spec.taints != old.spec.taints
    {
        return Err(forbidden(attributes, object, format!("node {node:?} is not allowed to modify taints")));
    }
    let before = old.map(|old| old.metadata.labels.clone()).unwrap_or_default();
    let changed: Vec<&str> = new
        .metadata
        .labels
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, _)| key.as_str())
        .chain(before.keys().filter(|key| !new.metadata.labels.contains_key(*key)).map(String::as_str))
        .filter(|key| is_restricted(key))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let text = format!("node {node:?} is not allowed to modify labels: {}", changed.join(", "));
    Err(forbidden(attributes, object, text))
}

/// Labels of Kubernetes' own domains that a kubelet has no business with.
fn is_restricted(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    if domain == RESTRICTED_DOMAIN || domain.ends_with(&format!(".{RESTRICTED_DOMAIN}")) {
        return true;
    }
    let theirs = domain == "kubernetes.io"
        || domain.ends_with(".kubernetes.io")
        || domain == "k8s.io"
        || domain.ends_with(".k8s.io");
    if !theirs {
        return false;
    }
    let kubelet = domain == "kubelet.kubernetes.io"
        || domain.ends_with(".kubelet.kubernetes.io")
        || domain == "node.kubernetes.io"
        || domain.ends_with(".node.kubernetes.io");
    const KNOWN: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "node.kubernetes.io/instance-type",
    ];
    !(kubelet || KNOWN.contains(&key))
}

#[cfg(test)]
mod tests {
    use super::is_restricted;

    #[test]
    fn kubelets_label_only_what_is_theirs() {
        assert!(!is_restricted("kubernetes.io/hostname"));
        assert!(!is_restricted("example.com/rack"));
        assert!(!is_restricted("node.kubernetes.io/x"));
        assert!(is_restricted("node-role.kubernetes.io/control-plane"));
        assert!(is_restricted("pool.node-restriction.kubernetes.io/a"));
    }
}
