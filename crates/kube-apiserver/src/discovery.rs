//! What the server says it serves: groups, versions and resources, walked off the table, in the old form and aggregated.

use api::apidiscovery::v2 as aggregated;
use api::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, APIVersions, GroupVersionForDiscovery,
    GroupVersionKind, ServerAddressByClientCIDR,
};
use base64::Engine;
use bytes::Bytes;
use meta::{StringList, proto};
use resources::Resource;
use sha2::{Digest, Sha256};

/// The order in which upstream lists its groups; others come after, by name.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

/// One served version and its resources.
pub struct Version {
    pub name: String,
    pub resources: Vec<&'static dyn Resource>,
}

/// One served group, its versions best first.
pub struct Group {
    pub name: String,
    pub versions: Vec<Version>,
}

/// Everything served, with the aggregated documents made once.
pub struct Discovery {
    pub groups: Vec<Group>,
    address: String,
    /// For `/api` and `/apis`: JSON, protobuf, and the entity tag of both.
    core: Aggregated,
    named: Aggregated,
}

pub struct Aggregated {
    pub json: Bytes,
    pub protobuf: Bytes,
    pub etag: String,
}

impl Discovery {
    /// `address` is what clients inside are told to reach the server by.
    pub fn new(resources: &[&'static dyn Resource], address: String) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for resource in resources {
            let at = groups.iter().position(|group| group.name == resource.group()).unwrap_or_else(|| {
                groups.push(Group { name: resource.group().into(), versions: Vec::new() });
                groups.len() - 1
            });
            let versions = &mut groups[at].versions;
            let at =
                versions.iter().position(|known| known.name == resource.version()).unwrap_or_else(|| {
                    versions.push(Version { name: resource.version().into(), resources: Vec::new() });
                    versions.len() - 1
                });
            versions[at].resources.push(*resource);
        }
        let order = |name: &str| GROUP_ORDER.iter().position(|known| *known == name).unwrap_or(usize::MAX);
        groups.sort_by(|a, b| order(&a.name).cmp(&order(&b.name)).then_with(|| a.name.cmp(&b.name)));
        for group in &mut groups {
            group.versions.sort_by_key(|version| std::cmp::Reverse(version_rank(&version.name)));
            for version in &mut group.versions {
                version.resources.sort_by(|a, b| a.plural().cmp(b.plural()));
            }
        }
        let (core, named): (Vec<&Group>, Vec<&Group>) =
            groups.iter().partition(|group| group.name.is_empty());
        let (core, named) = (aggregate(&core), aggregate(&named));
        Discovery { groups, address, core, named }
    }

    pub fn find(&self, group: &str, version: &str) -> Option<&Version> {
        let group = self.groups.iter().find(|known| known.name == group)?;
        group.versions.iter().find(|known| known.name == version)
    }

    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static dyn Resource> {
        self.find(group, version)?.resources.iter().copied().find(|known| known.plural() == plural)
    }

    /// The resource that serves a kind.
    pub fn resource_of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&'static dyn Resource> {
        self.find(group, version)?.resources.iter().copied().find(|known| known.kind() == kind)
    }

    pub fn api_versions(&self) -> APIVersions {
        APIVersions {
            versions: vec!["v1".into()],
            server_address_by_client_cidrs: vec![ServerAddressByClientCIDR {
                client_cidr: "0.0.0.0/0".into(),
                server_address: self.address.clone(),
            }],
            ..APIVersions::default()
        }
    }

    pub fn group_list(&self) -> APIGroupList {
        let groups = self.groups.iter().filter(|group| !group.name.is_empty()).map(api_group).collect();
        APIGroupList { groups, ..APIGroupList::default() }
    }

    pub fn resource_list(&self, group: &str, version: &str) -> Option<APIResourceList> {
        let found = self.find(group, version)?;
        let mut list: Vec<APIResource> = Vec::new();
        for resource in &found.resources {
            list.push(api_resource(*resource));
            list.extend(subresources(*resource));
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Some(APIResourceList {
            group_version: group_version(group, version),
            resources: list,
            ..APIResourceList::default()
        })
    }

    /// The groups of `/apis` in their aggregated form.
    pub fn documents(&self) -> Vec<aggregated::APIGroupDiscovery> {
        self.groups.iter().filter(|group| !group.name.is_empty()).map(group_discovery).collect()
    }

    /// All group versions served.
    pub fn versions(&self) -> Vec<(String, String)> {
        let each = |group: &Group| -> Vec<(String, String)> {
            group.versions.iter().map(|version| (group.name.clone(), version.name.clone())).collect()
        };
        self.groups.iter().flat_map(each).collect()
    }

    pub fn aggregated(&self, core: bool) -> &Aggregated {
        if core { &self.core } else { &self.named }
    }
}

pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

/// Generally available before beta before alpha, higher numbers first; what is no version comes last.
pub fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    let stage = &rest[digits..];
    let minor = |text: &str| text.parse().unwrap_or(0);
    if stage.is_empty() {
        (3, major, 0)
    } else if let Some(number) = stage.strip_prefix("beta") {
        (2, major, minor(number))
    } else if let Some(number) = stage.strip_prefix("alpha") {
        (1, major, minor(number))
    } else {
        (0, 0, 0)
    }
}

fn api_group(group: &Group) -> APIGroup {
    let version = |version: &Version| GroupVersionForDiscovery {
        group_version: group_version(&group.name, &version.name),
        version: version.name.clone(),
    };
    APIGroup {
        name: group.name.clone(),
        versions: group.versions.iter().map(version).collect(),
        preferred_version: version(&group.versions[0]),
        ..APIGroup::default()
    }
}

/// Upstream's hash of the version that objects are stored in: clients migrate storage by it.
fn storage_version_hash(resource: &dyn Resource) -> String {
    let gvk = resource.storage_gvk();
    let digest = Sha256::digest(format!("{}/{}/{}", gvk.group, gvk.version, gvk.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| text.to_string()).collect()
}

fn api_resource(resource: &dyn Resource) -> APIResource {
    let facts = resource.facts();
    APIResource {
        name: facts.plural.into(),
        singular_name: facts.singular.into(),
        namespaced: facts.namespaced,
        kind: facts.kind.into(),
        verbs: StringList(strings(facts.verbs)),
        short_names: strings(facts.short_names),
        categories: strings(facts.categories),
        storage_version_hash: if resource.stored() { storage_version_hash(resource) } else { String::new() },
        ..APIResource::default()
    }
}

fn subresources(resource: &dyn Resource) -> impl Iterator<Item = APIResource> + '_ {
    let facts = resource.facts();
    facts.subresources.iter().map(move |sub| {
        let same = sub.group == facts.group && sub.version == facts.version;
        APIResource {
            name: format!("{}/{}", facts.plural, sub.name),
            namespaced: facts.namespaced,
            kind: sub.kind.into(),
            group: if same { String::new() } else { sub.group.into() },
            version: if same { String::new() } else { sub.version.into() },
            verbs: StringList(strings(sub.verbs)),
            ..APIResource::default()
        }
    })
}

fn aggregate(groups: &[&Group]) -> Aggregated {
    let documents: Vec<aggregated::APIGroupDiscovery> =
        groups.iter().map(|group| group_discovery(group)).collect();
    encode(&documents)
}

/// The aggregated document of these groups.
pub fn encode(documents: &[aggregated::APIGroupDiscovery]) -> Aggregated {
    let mut json =
        br#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":["#
            .to_vec();
    for (at, document) in documents.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        meta::json::write_message(document, &mut json);
    }
    json.extend_from_slice(b"]}");
    let protobuf = api::codec::wrap("apidiscovery.k8s.io/v2", "APIGroupDiscoveryList", |out| {
        proto::write_nested(1, out, |_| {});
        for document in documents {
            proto::write_nested(2, out, |out| proto::write_fields(document, out));
        }
    });
    let hex: String = Sha256::digest(&json).iter().map(|byte| format!("{byte:02X}")).collect();
    Aggregated { json: json.into(), protobuf: protobuf.into(), etag: format!("\"{hex}\"") }
}

fn group_discovery(group: &Group) -> aggregated::APIGroupDiscovery {
    let versions = group.versions.iter().map(|version| aggregated::APIVersionDiscovery {
        version: version.name.clone(),
        resources: version.resources.iter().map(|resource| resource_discovery(*resource)).collect(),
        freshness: "Current".into(),
    });
    let mut out = aggregated::APIGroupDiscovery { versions: versions.collect(), ..Default::default() };
    out.metadata.name = group.name.clone();
    out
}

fn resource_discovery(resource: &dyn Resource) -> aggregated::APIResourceDiscovery {
    let facts = resource.facts();
    // Upstream leaves group and version empty where they are the resource's own.
    let kind = |group: &str, version: &str, kind: &str| {
        let same = group == facts.group && version == facts.version;
        Some(Box::new(GroupVersionKind {
            group: if same { "" } else { group }.into(),
            version: if same { "" } else { version }.into(),
            kind: kind.into(),
        }))
    };
    let subresources = facts.subresources.iter().map(|sub| aggregated::APISubresourceDiscovery {
        subresource: sub.name.into(),
        response_kind: kind(sub.group, sub.version, sub.kind),
        verbs: strings(sub.verbs),
        ..Default::default()
    });
    aggregated::APIResourceDiscovery {
        resource: facts.plural.into(),
        response_kind: kind(facts.group, facts.version, facts.kind),
        scope: if facts.namespaced { "Namespaced" } else { "Cluster" }.into(),
        singular_resource: facts.singular.into(),
        verbs: strings(facts.verbs),
        short_names: strings(facts.short_names),
        categories: strings(facts.categories),
        subresources: subresources.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::version_rank;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = ["v1alpha1", "v2", "v1beta2", "v1", "v1beta1", "x"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "x"]);
    }
}
