//! Where a resource is served, from the table's facts or from discovery.

use crate::Error;
use crate::options::escape;
use api::{ResourceFacts, Typed};
use std::collections::HashMap;
use std::sync::OnceLock;

/// A resource's place in the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourcePath {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub namespaced: bool,
}

impl ResourcePath {
    /// The place of a built-in kind.
    pub fn of<T: Typed>() -> Result<Self, Error> {
        let gvk = T::gvk();
        Self::of_kind(gvk.group, gvk.version, gvk.kind)
    }

    /// The place of a built-in kind by its names.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Result<Self, Error> {
        let facts = facts(group, version, kind)
            .ok_or_else(|| Error::Request(format!("no resource serves kind {kind} of {group}/{version}")))?;
        Ok(ResourcePath {
            group: facts.group.into(),
            version: facts.version.into(),
            plural: facts.plural.into(),
            namespaced: facts.namespaced,
        })
    }

    /// `/api/v1`, `/apis/apps/v1`.
    pub fn prefix(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The collection: of one namespace, or of the whole cluster where `namespace` is empty.
    pub fn collection(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() {
            format!("{}/namespaces/{}/{}", self.prefix(), escape(namespace), self.plural)
        } else {
            format!("{}/{}", self.prefix(), self.plural)
        }
    }

    /// One object, or a subresource of it where `subresource` is not empty.
    pub fn object(&self, namespace: &str, name: &str, subresource: &str) -> Result<String, Error> {
        if name.is_empty() {
            return Err(Error::Request(format!("a name of {} is required", self.plural)));
        }
        if self.namespaced && namespace.is_empty() {
            return Err(Error::Request(format!("a namespace is required to name one of {}", self.plural)));
        }
        let mut path = format!("{}/{}", self.collection(namespace), escape(name));
        if !subresource.is_empty() {
            path.push('/');
            path.push_str(subresource);
        }
        Ok(path)
    }
}

fn facts(group: &str, version: &str, kind: &str) -> Option<&'static ResourceFacts> {
    type ByKind = HashMap<(&'static str, &'static str, &'static str), &'static ResourceFacts>;
    static BY_KIND: OnceLock<ByKind> = OnceLock::new();
    let table = BY_KIND
        .get_or_init(|| api::RESOURCES.iter().map(|row| ((row.group, row.version, row.kind), row)).collect());
    table.get(&(group, version, kind)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_table() {
        let pods = ResourcePath::of::<api::core::v1::Pod>().expect("pods are served");
        assert_eq!(pods.collection(""), "/api/v1/pods");
        assert_eq!(
            pods.object("shop", "web", "status").expect("it is named"),
            "/api/v1/namespaces/shop/pods/web/status"
        );
        assert!(pods.object("", "web", "").is_err());
        assert!(pods.object("shop", "", "").is_err());
        let nodes = ResourcePath::of::<api::core::v1::Node>().expect("nodes are served");
        assert_eq!(nodes.object("", "n1", "").expect("it is named"), "/api/v1/nodes/n1");
        let deployments = ResourcePath::of::<api::apps::v1::Deployment>().expect("deployments are served");
        assert_eq!(deployments.collection("shop"), "/apis/apps/v1/namespaces/shop/deployments");
    }
}
