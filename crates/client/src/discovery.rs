//! Which resources the server has, custom ones and those of aggregated servers included.

use crate::{Client, Error};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use std::collections::HashSet;
use view::ResourceId;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList, application/json";

/// One resource with what can be done to it. Subresources are left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovered {
    pub id: ResourceId,
    pub verbs: Vec<String>,
}

impl Discovered {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// All resources in their preferred versions, and the group-versions that could not be asked.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    pub resources: Vec<Discovered>,
    pub failed: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Groups {
    kind: String,
    items: Vec<Group>,
    /// APIGroupList's field.
    groups: Vec<LegacyGroup>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Group {
    metadata: Metadata,
    versions: Vec<Version>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Version {
    version: String,
    resources: Vec<Resource>,
    freshness: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Resource {
    resource: String,
    response_kind: Kind,
    scope: String,
    verbs: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Kind {
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LegacyGroup {
    name: String,
    versions: Vec<LegacyVersion>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct LegacyVersion {
    group_version: String,
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LegacyResources {
    resources: Vec<LegacyResource>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LegacyResource {
    name: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
}

impl Client {
    /// Asks for every resource: in two calls where the server aggregates its discovery, else one a group-version.
    pub async fn discover(&self) -> Result<Discovery, Error> {
        let mut discovery = Discovery::default();
        let mut seen = HashSet::new();
        let core = self.discovery_document("/api").await?;
        if core.kind == "APIGroupDiscoveryList" {
            let others = self.discovery_document("/apis").await?;
            for group in core.items.into_iter().chain(others.items) {
                aggregated(group, &mut discovery, &mut seen);
            }
            return Ok(discovery);
        }
        self.discover_version("", "v1", "/api/v1", &mut discovery, &mut seen).await;
        for group in self.discovery_document("/apis").await?.groups {
            for version in &group.versions {
                let path = format!("/apis/{}", version.group_version);
                self.discover_version(&group.name, &version.version, &path, &mut discovery, &mut seen).await;
            }
        }
        Ok(discovery)
    }

    async fn discovery_document(&self, path: &str) -> Result<Groups, Error> {
        let request = http::Request::builder()
            .method(Method::GET)
            .uri(path)
            .header("accept", AGGREGATED)
            .body(Bytes::new())
            .map_err(|error| Error::Request(error.to_string()))?;
        let response = self.raw(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status != StatusCode::OK {
            return Err(Error::Decode(format!("discovery at {path} answered {status}")));
        }
        serde_json::from_slice(&body).map_err(|error| Error::Decode(error.to_string()))
    }

    async fn discover_version(
        &self,
        group: &str,
        version: &str,
        path: &str,
        discovery: &mut Discovery,
        seen: &mut HashSet<(String, String)>,
    ) {
        let document = match self.get_text(path).await {
            Ok(text) => serde_json::from_str::<LegacyResources>(&text).ok(),
            Err(_) => None,
        };
        let Some(document) = document else {
            discovery.failed.push(path.trim_start_matches("/apis/").trim_start_matches("/api/").to_string());
            return;
        };
        for resource in document.resources {
            if resource.name.contains('/') || !seen.insert((group.into(), resource.name.clone())) {
                continue;
            }
            discovery.resources.push(Discovered {
                id: ResourceId {
                    group: group.into(),
                    version: version.into(),
                    plural: resource.name,
                    kind: resource.kind,
                    namespaced: resource.namespaced,
                },
                verbs: resource.verbs,
            });
        }
    }
}

/// Takes each resource of a group in the first version that has it: versions come in order of preference.
fn aggregated(group: Group, discovery: &mut Discovery, seen: &mut HashSet<(String, String)>) {
    let name = group.metadata.name;
    for version in group.versions {
        if version.freshness == "Stale" {
            discovery.failed.push(format!("{name}/{}", version.version));
            continue;
        }
        for resource in version.resources {
            if !seen.insert((name.clone(), resource.resource.clone())) {
                continue;
            }
            discovery.resources.push(Discovered {
                id: ResourceId {
                    group: name.clone(),
                    version: version.version.clone(),
                    plural: resource.resource,
                    kind: resource.response_kind.kind,
                    namespaced: resource.scope == "Namespaced",
                },
                verbs: resource.verbs,
            });
        }
    }
}
