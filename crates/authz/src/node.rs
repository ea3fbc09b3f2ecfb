//! The Node authorizer: a kubelet reads only what the pods bound to its node refer to, and writes only about itself.
//!
//! Invariant: a relation in the graph exists exactly as long as the object that states it. Mirror pods state none, or a
//! node could grant itself access by creating one.

use crate::{Attributes, Decision, User, bootstrap, rule};
use api::core::v1::{Container, EnvFromSource, EnvVar, PersistentVolume, Pod, Volume};
use api::rbac::v1::PolicyRule;
use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The name of the node a user is, by its name and group; `None` for anyone else.
pub fn identity<'a>(user: User<'a>) -> Option<&'a str> {
    let name = user.name.strip_prefix("system:node:")?;
    user.groups.iter().any(|group| group == "system:nodes").then_some(name)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum What {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
    Pod,
    Volume,
    Attachment,
    Slice,
    CertificateRequest,
}

type Vertex = (What, String, String);

/// Which objects each node has business with.
#[derive(Default)]
pub struct Graph {
    /// Object to nodes, with how many sources state it.
    nodes: HashMap<Vertex, HashMap<String, usize>>,
    /// What each source (pod, attachment, slice, ...) states: its node and the objects.
    sources: HashMap<Vertex, (String, BTreeSet<Vertex>)>,
    /// Persistent volume to its claim.
    claims: HashMap<String, Vertex>,
    /// Secret to the persistent volumes whose plugins the kubelet hands it to.
    volume_secrets: HashMap<Vertex, BTreeSet<String>>,
}

impl Graph {
    /// Whether nothing is related to any node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.sources.is_empty() && self.claims.is_empty()
    }
    /// Takes in a pod as it stands; one that is not bound states nothing.
    pub fn set_pod(&mut self, pod: &Pod) {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        let source = (What::Pod, namespace.clone(), name.clone());
        let node = &pod.spec.node_name;
        if node.is_empty() {
            self.forget(&source);
            return;
        }
        let mut objects = BTreeSet::from([source.clone()]);
        if !pod.metadata.annotations.contains_key(MIRROR_ANNOTATION) {
            objects.extend(references(pod));
        }
        self.state(source, node, objects);
    }
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        self.forget(&(What::Pod, namespace.into(), name.into()));
    }
    pub fn set_attachment(&mut self, name: &str, node: &str) {
        self.set_single(What::Attachment, "", name, node);
    }
    pub fn remove_attachment(&mut self, name: &str) {
        self.forget(&(What::Attachment, String::new(), name.into()));
    }
    /// A ResourceSlice of a node; one without a node belongs to none.
    pub fn set_slice(&mut self, name: &str, node: &str) {
        self.set_single(What::Slice, "", name, node);
    }
    pub fn remove_slice(&mut self, name: &str) {
        self.forget(&(What::Slice, String::new(), name.into()));
    }
    pub fn set_certificate_request(&mut self, namespace: &str, name: &str, node: &str) {
        self.set_single(What::CertificateRequest, namespace, name, node);
    }
    pub fn remove_certificate_request(&mut self, namespace: &str, name: &str) {
        self.forget(&(What::CertificateRequest, namespace.into(), name.into()));
    }
    pub fn set_volume(&mut self, volume: &PersistentVolume) {
        let name = &volume.metadata.name;
        self.remove_volume(name);
        let Some(claim) = &volume.spec.claim_ref else { return };
        self.claims.insert(name.clone(), (What::Claim, claim.namespace.clone(), claim.name.clone()));
        for (namespace, secret) in volume_secrets(volume, &claim.namespace) {
            let vertex = (What::Secret, namespace, secret);
            self.volume_secrets.entry(vertex).or_default().insert(name.clone());
        }
    }
    pub fn remove_volume(&mut self, name: &str) {
        self.claims.remove(name);
        self.volume_secrets.retain(|_, volumes| {
            volumes.remove(name);
            !volumes.is_empty()
        });
    }

    fn set_single(&mut self, what: What, namespace: &str, name: &str, node: &str) {
        let source = (what, namespace.to_string(), name.to_string());
        if node.is_empty() {
            self.forget(&source);
        } else {
            self.state(source.clone(), node, BTreeSet::from([source]));
        }
    }

    fn state(&mut self, source: Vertex, node: &str, objects: BTreeSet<Vertex>) {
        if self.sources.get(&source).is_some_and(|(known, said)| known == node && *said == objects) {
            return;
        }
        self.forget(&source);
        for object in &objects {
            *self.nodes.entry(object.clone()).or_default().entry(node.to_string()).or_insert(0) += 1;
        }
        self.sources.insert(source, (node.to_string(), objects));
    }

    fn forget(&mut self, source: &Vertex) {
        let Some((node, objects)) = self.sources.remove(source) else { return };
        for object in objects {
            let Some(nodes) = self.nodes.get_mut(&object) else { continue };
            if let Some(count) = nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&object);
            }
        }
    }

    fn direct(&self, vertex: &Vertex, node: &str) -> bool {
        self.nodes.get(vertex).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn volume_reaches(&self, volume: &str, node: &str) -> bool {
        self.claims.get(volume).is_some_and(|claim| self.direct(claim, node))
    }

    fn reaches(&self, what: What, namespace: &str, name: &str, node: &str) -> bool {
        let vertex = (what, namespace.to_string(), name.to_string());
        match what {
            What::Volume => self.volume_reaches(name, node),
            What::Secret => {
                self.direct(&vertex, node)
                    || self
                        .volume_secrets
                        .get(&vertex)
                        .is_some_and(|volumes| volumes.iter().any(|volume| self.volume_reaches(volume, node)))
            }
            _ => self.direct(&vertex, node),
        }
    }
}

/// Every object of its own namespace that a pod refers to.
fn references(pod: &Pod) -> BTreeSet<Vertex> {
    let mut found = Vec::new();
    if !pod.spec.service_account_name.is_empty() {
        found.push((What::ServiceAccount, pod.spec.service_account_name.clone()));
    }
    for secret in &pod.spec.image_pull_secrets {
        found.push((What::Secret, secret.name.clone()));
    }
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        container_references(container, &mut found);
    }
    for container in &pod.spec.ephemeral_containers {
        env_references(
            &container.ephemeral_container_common.env,
            &container.ephemeral_container_common.env_from,
            &mut found,
        );
    }
    for volume in &pod.spec.volumes {
        volume_references(pod, volume, &mut found);
    }
    for claim in &pod.spec.resource_claims {
        let made = pod.status.resource_claim_statuses.iter().find(|status| status.name == claim.name);
        let name = claim
            .resource_claim_name
            .clone()
            .or_else(|| made.and_then(|status| status.resource_claim_name.clone()));
        if let Some(name) = name {
            found.push((What::ResourceClaim, name));
        }
    }
    if let Some(status) = &pod.status.extended_resource_claim_status {
        found.push((What::ResourceClaim, status.resource_claim_name.clone()));
    }
    found
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(what, name)| (what, pod.metadata.namespace.clone(), name))
        .collect()
}

fn container_references(container: &Container, found: &mut Vec<(What, String)>) {
    env_references(&container.env, &container.env_from, found);
}

fn env_references(env: &[EnvVar], from: &[EnvFromSource], found: &mut Vec<(What, String)>) {
    for source in from {
        if let Some(secret) = &source.secret_ref {
            found.push((What::Secret, secret.local_object_reference.name.clone()));
        }
        if let Some(map) = &source.config_map_ref {
            found.push((What::ConfigMap, map.local_object_reference.name.clone()));
        }
    }
    for source in env.iter().filter_map(|variable| variable.value_from.as_ref()) {
        if let Some(secret) = &source.secret_key_ref {
            found.push((What::Secret, secret.local_object_reference.name.clone()));
        }
        if let Some(map) = &source.config_map_key_ref {
            found.push((What::ConfigMap, map.local_object_reference.name.clone()));
        }
    }
}

fn volume_references(pod: &Pod, volume: &Volume, found: &mut Vec<(What, String)>) {
    let mut secret = |name: &str| found.push((What::Secret, name.to_string()));
    if let Some(source) = &volume.volume_source.secret {
        secret(&source.secret_name);
    }
    if let Some(source) = &volume.volume_source.azure_file {
        secret(&source.secret_name);
    }
    let references = [
        volume.volume_source.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.volume_source.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.volume_source.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.volume_source.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.volume_source.scale_io.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.volume_source.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.volume_source.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()),
        volume.volume_source.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
    ];
    for reference in references.into_iter().flatten() {
        secret(&reference.name);
    }
    if let Some(source) = &volume.volume_source.config_map {
        found.push((What::ConfigMap, source.local_object_reference.name.clone()));
    }
    for source in volume.volume_source.projected.iter().flat_map(|projected| &projected.sources) {
        if let Some(secret) = &source.secret {
            found.push((What::Secret, secret.local_object_reference.name.clone()));
        }
        if let Some(map) = &source.config_map {
            found.push((What::ConfigMap, map.local_object_reference.name.clone()));
        }
    }
    if let Some(claim) = &volume.volume_source.persistent_volume_claim {
        found.push((What::Claim, claim.claim_name.clone()));
    }
    if volume.volume_source.ephemeral.is_some() {
        found.push((What::Claim, format!("{}-{}", pod.metadata.name, volume.name)));
    }
}

/// Namespace and name of each secret that the kubelet reads to mount a volume.
fn volume_secrets(volume: &PersistentVolume, claim_namespace: &str) -> Vec<(String, String)> {
    let spec = &volume.spec;
    let mut out = Vec::new();
    let mut add = |namespace: &str, name: &str| {
        let namespace = if namespace.is_empty() { claim_namespace } else { namespace };
        out.push((namespace.to_string(), name.to_string()));
    };
    if let Some(azure) = &spec.persistent_volume_source.azure_file {
        add(azure.secret_namespace.as_deref().unwrap_or_default(), &azure.secret_name);
    }
    let references = [
        spec.persistent_volume_source.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.persistent_volume_source.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.persistent_volume_source.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.persistent_volume_source.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.persistent_volume_source.scale_io.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.persistent_volume_source.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()),
        spec.persistent_volume_source.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()),
        spec.persistent_volume_source.csi.as_ref().and_then(|source| source.node_stage_secret_ref.as_ref()),
        spec.persistent_volume_source.csi.as_ref().and_then(|source| source.node_expand_secret_ref.as_ref()),
    ];
    for reference in references.into_iter().flatten() {
        add(&reference.namespace, &reference.name);
    }
    out
}

fn rules() -> &'static [PolicyRule] {
    static RULES: OnceLock<Vec<PolicyRule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let roles = bootstrap::policy().cluster_roles;
        roles
            .into_iter()
            .find(|role| role.metadata.name == "system:node")
            .map(|role| role.rules)
            .unwrap_or_default()
    })
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

fn refuse(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

pub fn decide(graph: &Graph, request: &Attributes<'_>) -> Decision {
    let Some(node) = identity(request.user) else { return refuse("") };
    if node.is_empty() {
        return refuse(format!("unknown node for user {:?}", request.user.name));
    }
    match (request.group, request.resource) {
        ("", "secrets") => read(graph, node, What::Secret, request),
        ("", "configmaps") => read(graph, node, What::ConfigMap, request),
        ("", "persistentvolumeclaims") if request.subresource == "status" => match request.verb {
            "update" | "patch" => related(graph, node, What::Claim, request),
            _ => refuse("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims") => get(graph, node, What::Claim, request),
        ("", "persistentvolumes") => get(graph, node, What::Volume, request),
        ("resource.k8s.io", "resourceclaims") => get(graph, node, What::ResourceClaim, request),
        ("storage.k8s.io", "volumeattachments") => get(graph, node, What::Attachment, request),
        ("", "serviceaccounts") => service_account(graph, node, request),
        ("coordination.k8s.io", "leases") => lease(node, request),
        ("storage.k8s.io", "csinodes") => csi_node(node, request),
        ("resource.k8s.io", "resourceslices") => slice(graph, node, request),
        ("", "nodes") => own_node(node, request),
        ("", "pods") => pod(graph, node, request),
        ("certificates.k8s.io", "podcertificaterequests") => certificate_request(graph, node, request),
        _ if rules().iter().any(|rule| rule::allows(rule, request)) => allow(),
        _ => refuse(""),
    }
}

fn related(graph: &Graph, node: &str, what: What, request: &Attributes<'_>) -> Decision {
    if request.name.is_empty() {
        return refuse("No Object name found");
    }
    if graph.reaches(what, request.namespace, request.name, node) {
        return allow();
    }
    refuse(format!("no relationship found between node '{node}' and this object"))
}

fn get(graph: &Graph, node: &str, what: What, request: &Attributes<'_>) -> Decision {
    if request.verb != "get" {
        return refuse("can only get individual resources of this type");
    }
    if !request.subresource.is_empty() {
        return refuse("cannot get subresource");
    }
    related(graph, node, what, request)
}

fn read(graph: &Graph, node: &str, what: What, request: &Attributes<'_>) -> Decision {
    if !matches!(request.verb, "get" | "list" | "watch") {
        return refuse("can only read resources of this type");
    }
    if !request.subresource.is_empty() {
        return refuse("cannot read subresource");
    }
    if request.namespace.is_empty() {
        return refuse("can only read namespaced object of this type");
    }
    related(graph, node, what, request)
}

fn service_account(graph: &Graph, node: &str, request: &Attributes<'_>) -> Decision {
    if request.verb == "get" && request.subresource.is_empty() {
        return read(graph, node, What::ServiceAccount, request);
    }
    if request.verb != "create" || request.name.is_empty() {
        return refuse("can only create tokens for individual service accounts");
    }
    if request.subresource != "token" {
        return refuse("can only create token subresource of serviceaccount");
    }
    related(graph, node, What::ServiceAccount, request)
}

fn lease(node: &str, request: &Attributes<'_>) -> Decision {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != "kube-node-lease" {
        return refuse("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if request.verb != "create" && request.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    allow()
}

fn csi_node(node: &str, request: &Attributes<'_>) -> Decision {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if request.verb != "create" && request.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    allow()
}

fn selects(request: &Attributes<'_>, field: &str, node: &str) -> bool {
    request.field_selector.iter().any(|(name, value)| name == field && value == node)
}

fn slice(graph: &Graph, node: &str, request: &Attributes<'_>) -> Decision {
    if !request.subresource.is_empty() {
        return refuse("cannot authorize ResourceSlice subresources");
    }
    match request.verb {
        "create" => allow(),
        "get" | "update" | "patch" | "delete" => related(graph, node, What::Slice, request),
        "watch" | "list" | "deletecollection" if selects(request, "spec.nodeName", node) => allow(),
        "watch" | "list" | "deletecollection" => {
            refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => refuse(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

fn own_node(node: &str, request: &Attributes<'_>) -> Decision {
    match (request.subresource, request.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => allow(),
        ("", "get" | "list" | "watch") if request.name == node => allow(),
        ("", "get" | "list" | "watch") if request.name.is_empty() => {
            refuse(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            refuse(format!("node '{node}' cannot read '{}', only its own Node object", request.name))
        }
        _ => refuse(""),
    }
}

fn pod(graph: &Graph, node: &str, request: &Attributes<'_>) -> Decision {
    match (request.subresource, request.verb) {
        ("", "get") => get(graph, node, What::Pod, request),
        ("", "list" | "watch") if selects(request, "spec.nodeName", node) => allow(),
        ("", "list" | "watch") if !request.name.is_empty() => related(graph, node, What::Pod, request),
        ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => allow(),
        _ => refuse(""),
    }
}

fn certificate_request(graph: &Graph, node: &str, request: &Attributes<'_>) -> Decision {
    if !request.subresource.is_empty() {
        return refuse("nodes may not access the status subresource of PodCertificateRequests");
    }
    match request.verb {
        "create" => allow(),
        "get" => related(graph, node, What::CertificateRequest, request),
        "list" | "watch" if selects(request, "spec.nodeName", node) => allow(),
        "list" | "watch" => refuse("can only list/watch podcertificaterequests with nodeName field selector"),
        verb => refuse(format!("nodes may not {verb} podcertificaterequests")),
    }
}
