//! Discovery of all servers as one: what remote servers say of themselves, placed among the local groups.

use super::remote::{Documents, Remote};
use super::{Aggregator, registration};
use crate::discovery::{self as local, Aggregated};
use api::apidiscovery::v2::{
    APIGroupDiscovery, APIResourceDiscovery, APISubresourceDiscovery, APIVersionDiscovery,
};
use api::meta::v1::{APIGroup, APIResourceList, GroupVersionForDiscovery, GroupVersionKind};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// The merged document, and of which state it is.
#[derive(Default)]
pub struct Cache {
    of: (u64, String),
    document: Option<Arc<Aggregated>>,
}

/// Reads a server's documents anew; whether anything in them is new.
pub async fn refresh(remote: &Remote) -> bool {
    let discovery = read_discovery(remote).await;
    let v3 = remote.read("/openapi/v3", "application/json").await;
    let v2 = remote.read("/openapi/v2", "application/json").await;
    let old = remote.documents.load();
    let next = Documents {
        discovery: discovery.or_else(|| {
            old.discovery.clone().map(|known| APIVersionDiscovery { freshness: "Stale".into(), ..known })
        }),
        openapi_v3: v3.map(|(_, index)| own_paths(remote, &index)).unwrap_or_default(),
        openapi_v2: v2.map(|(_, document)| Bytes::from(document.to_string())),
    };
    let same = old.discovery == next.discovery
        && old.openapi_v3 == next.openapi_v3
        && old.openapi_v2 == next.openapi_v2;
    if !same {
        remote.documents.store(Arc::new(next));
    }
    !same
}

/// A server that does not answer is still in discovery, as stale; whether that is news.
pub fn mark_stale(remote: &Remote) -> bool {
    let old = remote.documents.load();
    let stale = APIVersionDiscovery {
        freshness: "Stale".into(),
        version: remote.spec.version.clone(),
        ..old.discovery.clone().unwrap_or_default()
    };
    if old.discovery.as_ref() == Some(&stale) {
        return false;
    }
    remote.documents.store(Arc::new(Documents {
        discovery: Some(stale),
        openapi_v3: old.openapi_v3.clone(),
        openapi_v2: old.openapi_v2.clone(),
    }));
    true
}

/// The paths of a v3 index that belong to the server's group version.
fn own_paths(remote: &Remote, index: &Value) -> BTreeMap<String, String> {
    let root = remote.root();
    let own = root.trim_start_matches('/');
    let paths = index["paths"].as_object().into_iter().flatten();
    paths
        .filter(|(path, _)| *path == own)
        .filter_map(|(path, at)| Some((path.clone(), at["serverRelativeURL"].as_str()?.to_string())))
        .collect()
}

async fn read_discovery(remote: &Remote) -> Option<APIVersionDiscovery> {
    let (group, version) = (&remote.spec.group, &remote.spec.version);
    if let Some((headers, list)) = remote.read("/apis", AGGREGATED).await {
        let kind = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if kind.is_some_and(|kind| kind.contains("as=APIGroupDiscoveryList")) {
            return Some(from_aggregated(&list, group, version));
        }
    }
    let (_, list) = remote.read(&remote.root(), "application/json").await?;
    let list: APIResourceList = api::codec::from_value(&list).ok()?;
    Some(from_old(&list, version))
}

/// The server's own version out of its aggregated document; without resources where it does not name it.
fn from_aggregated(list: &Value, group: &str, version: &str) -> APIVersionDiscovery {
    let groups = list["items"].as_array().into_iter().flatten();
    let versions = groups
        .filter(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group)
        .flat_map(|item| item["versions"].as_array().into_iter().flatten());
    let found = versions
        .filter(|item| item["version"] == version)
        .find_map(|item| api::codec::from_value::<APIVersionDiscovery>(item).ok());
    let mut out = found.unwrap_or_default();
    for resource in &mut out.resources {
        // Old clients look into it without asking whether it is there.
        resource.response_kind.get_or_insert_default();
        for sub in &mut resource.subresources {
            sub.response_kind.get_or_insert_default();
        }
    }
    APIVersionDiscovery { version: version.into(), freshness: "Current".into(), ..out }
}

/// The old list of a version as the aggregated form of it.
fn from_old(list: &APIResourceList, version: &str) -> APIVersionDiscovery {
    let kind = |resource: &api::meta::v1::APIResource| {
        Some(Box::new(GroupVersionKind {
            group: resource.group.clone(),
            version: resource.version.clone(),
            kind: resource.kind.clone(),
        }))
    };
    let mut resources: Vec<APIResourceDiscovery> = Vec::new();
    for resource in list.resources.iter().filter(|resource| !resource.name.contains('/')) {
        resources.push(APIResourceDiscovery {
            resource: resource.name.clone(),
            response_kind: kind(resource),
            scope: if resource.namespaced { "Namespaced" } else { "Cluster" }.into(),
            singular_resource: resource.singular_name.clone(),
            verbs: resource.verbs.0.clone(),
            short_names: resource.short_names.clone(),
            categories: resource.categories.clone(),
            subresources: Vec::new(),
        });
    }
    for sub in &list.resources {
        let Some((parent, name)) = sub.name.split_once('/') else { continue };
        if let Some(resource) = resources.iter_mut().find(|resource| resource.resource == parent) {
            resource.subresources.push(APISubresourceDiscovery {
                subresource: name.into(),
                response_kind: kind(sub),
                verbs: sub.verbs.0.clone(),
                ..Default::default()
            });
        }
    }
    APIVersionDiscovery { version: version.into(), resources, freshness: "Current".into() }
}

impl Aggregator {
    /// Remote groups: name, priority, and their versions, best first.
    fn groups(&self) -> Vec<(String, i32, Vec<Arc<Remote>>)> {
        let mut groups: BTreeMap<String, (i32, Vec<Arc<Remote>>)> = BTreeMap::new();
        for remote in self.remotes.load().values() {
            let entry = groups.entry(remote.spec.group.clone()).or_default();
            entry.0 = entry.0.max(remote.spec.group_priority_minimum);
            entry.1.push(Arc::clone(remote));
        }
        let mut out: Vec<_> = groups.into_iter().map(|(name, (place, all))| (name, place, all)).collect();
        for (_, _, versions) in &mut out {
            versions.sort_by_key(|remote| {
                std::cmp::Reverse((remote.spec.version_priority, local::version_rank(&remote.spec.version)))
            });
        }
        out
    }

    /// Puts remote groups into the old list of groups.
    pub fn add_groups(&self, groups: &mut Vec<APIGroup>) {
        for (name, priority, versions) in self.groups() {
            if name.is_empty() {
                continue;
            }
            let versions: Vec<GroupVersionForDiscovery> = versions
                .iter()
                .map(|remote| GroupVersionForDiscovery {
                    group_version: format!("{name}/{}", remote.spec.version),
                    version: remote.spec.version.clone(),
                })
                .collect();
            if let Some(known) = groups.iter_mut().find(|known| known.name == name) {
                let new: Vec<_> =
                    versions.into_iter().filter(|version| !known.versions.contains(version)).collect();
                known.versions.extend(new);
                continue;
            }
            let group = APIGroup {
                preferred_version: versions.first().cloned().unwrap_or_default(),
                name,
                versions,
                ..APIGroup::default()
            };
            let at = place(groups, priority, |group| &group.name);
            groups.insert(at, group);
        }
    }

    /// The aggregated document of `/apis`, remote groups among the local ones.
    pub fn merged(&self, local: &local::Discovery) -> Arc<Aggregated> {
        let of = (self.generation.load(Ordering::Acquire), local.aggregated(false).etag.clone());
        let mut cache = self.merged.lock();
        if let Some(known) = cache.document.as_ref().filter(|_| cache.of == of) {
            return Arc::clone(known);
        }
        let mut documents = local.documents();
        for (name, priority, versions) in self.groups() {
            if name.is_empty() {
                continue;
            }
            let said = |remote: &Arc<Remote>| {
                let known = remote.documents.load().discovery.clone();
                known.unwrap_or_else(|| APIVersionDiscovery {
                    version: remote.spec.version.clone(),
                    freshness: "Stale".into(),
                    ..Default::default()
                })
            };
            let versions: Vec<APIVersionDiscovery> = versions.iter().map(said).collect();
            match documents.iter_mut().find(|known| known.metadata.name == name) {
                Some(known) => {
                    known
                        .versions
                        .retain(|version| !versions.iter().any(|remote| remote.version == version.version));
                    known.versions.extend(versions);
                }
                None => {
                    let mut group = APIGroupDiscovery { versions, ..Default::default() };
                    group.metadata.name = name;
                    let at = place(&documents, priority, |group| &group.metadata.name);
                    documents.insert(at, group);
                }
            }
        }
        let document = Arc::new(local::encode(&documents));
        *cache = Cache { of, document: Some(Arc::clone(&document)) };
        document
    }
}

/// Where a group of this priority goes: behind all that come before it.
fn place<T>(groups: &[T], priority: i32, name: impl Fn(&T) -> &String) -> usize {
    groups
        .iter()
        .position(|group| registration::group_priority(name(group)) < priority)
        .unwrap_or(groups.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_old_form_becomes_the_new_one() {
        let list = json!({"groupVersion": "metrics.k8s.io/v1beta1", "resources": [
            {"name": "pods", "kind": "PodMetrics", "namespaced": true, "singularName": "", "verbs": ["get", "list"]},
            {"name": "pods/x", "kind": "X", "namespaced": true, "singularName": "", "verbs": ["get"]}]});
        let read = from_old(&api::codec::from_value(&list).unwrap(), "v1beta1");
        let text = api::codec::to_value(&read);
        assert_eq!(text["resources"][0]["resource"], "pods");
        assert_eq!(text["resources"][0]["scope"], "Namespaced");
        assert_eq!(text["resources"][0]["subresources"][0]["subresource"], "x");
        let document = json!({"items": [{"metadata": {"name": "metrics.k8s.io"}, "versions": [text]}]});
        assert_eq!(from_aggregated(&document, "metrics.k8s.io", "v1beta1"), read);
        assert!(from_aggregated(&document, "metrics.k8s.io", "v2").resources.is_empty());
    }
}
