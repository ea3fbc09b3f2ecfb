//! A pod as the scheduler sees it: everything it asks for, read once.

use crate::resources::{self, Missing, Resources};
use crate::selectors::{self, NodeTerm, RequiredNodes};
use api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use meta::labels::Selector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A port of the node that a container takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Two ports collide when one of them listens on every address, or both on the same.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == ANY || other.ip == ANY || self.ip == other.ip)
    }
}

/// A term of the affinity between pods.
#[derive(Debug, Clone)]
pub struct Term {
    namespaces: BTreeSet<String>,
    selector: Selector,
    namespace_selector: Selector,
    pub topology_key: String,
}

impl Term {
    /// `None` for a term that cannot be read.
    fn new(term: &PodAffinityTerm, namespace: &str) -> Option<Self> {
        let namespaces = if term.namespaces.is_empty() && term.namespace_selector.is_none() {
            BTreeSet::from([namespace.to_owned()])
        } else {
            term.namespaces.iter().cloned().collect()
        };
        Some(Term {
            namespaces,
            selector: api::optional_selector(term.label_selector.as_deref()).ok()?,
            namespace_selector: api::optional_selector(term.namespace_selector.as_deref()).ok()?,
            topology_key: term.topology_key.clone(),
        })
    }

    /// Whether pods of a namespace with these labels can be meant.
    pub fn selects_namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.contains(name) || self.namespace_selector.matches(labels)
    }
    /// Whether pods with these labels, in a namespace that is selected, are meant.
    pub fn selects_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }
    /// Whether a pod is meant.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &BTreeMap<String, String>) -> bool {
        self.selects_namespace(pod.namespace(), namespace_labels) && self.selects_labels(pod.labels())
    }

    /// [`Self::matches`] where the namespace's labels are not known: a namespace selector selects it.
    pub fn may_match(&self, pod: &PodInfo) -> bool {
        let by_selector =
            self.namespace_selector.is_everything() || !self.namespace_selector.requirements().is_empty();
        (by_selector || self.namespaces.contains(pod.namespace())) && self.selects_labels(pod.labels())
    }

    fn write(&self, out: &mut String) {
        use std::fmt::Write;
        let (selector, of) = (&self.selector, &self.namespace_selector);
        // Writing into a String cannot fail.
        let _ = write!(out, "{:?} {selector:?} / {of:?} @{};", self.namespaces, self.topology_key);
    }
}

/// A claim that a pod mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimReference {
    pub name: String,
    /// Made from the pod's own template: it must be owned by the pod.
    pub ephemeral: bool,
}

/// A pod and what it asks for.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Resources,
    /// What it counts for when nodes are compared: see [`resources::DEFAULT_MILLI_CPU`].
    pub scored_milli_cpu: i64,
    pub scored_memory: i64,
    pub host_ports: Vec<HostPort>,
    pub required_nodes: RequiredNodes,
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    pub preferred_affinity: Vec<(i64, Term)>,
    pub preferred_anti_affinity: Vec<(i64, Term)>,
    /// All its terms as text: pods alike in it are alike to any other pod. Empty without terms.
    pub affinity_text: String,
    /// The images of its containers and image volumes, with a tag.
    pub images: Vec<String>,
    pub claims: Vec<ClaimReference>,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let spec = &pod.spec;
        let scored = resources::requests(&pod, Missing::Default);
        let namespace = &pod.metadata.namespace;
        let affinity = spec.affinity.as_deref();
        let of = affinity.and_then(|own| own.pod_affinity.as_deref());
        let anti = affinity.and_then(|own| own.pod_anti_affinity.as_deref());
        let required = |terms: &[PodAffinityTerm]| -> Vec<Term> {
            terms.iter().filter_map(|term| Term::new(term, namespace)).collect()
        };
        let preferred = |terms: &[WeightedPodAffinityTerm]| -> Vec<(i64, Term)> {
            let read = |term: &WeightedPodAffinityTerm| {
                Some((i64::from(term.weight), Term::new(&term.pod_affinity_term, namespace)?))
            };
            terms.iter().filter_map(read).collect()
        };
        let mut info = PodInfo {
            requests: resources::requests(&pod, Missing::Nothing),
            scored_milli_cpu: scored.milli_cpu,
            scored_memory: scored.memory,
            host_ports: host_ports(&pod),
            required_nodes: RequiredNodes::new(spec),
            preferred_nodes: selectors::preferred_nodes(spec),
            affinity: of
                .map(|own| required(&own.required_during_scheduling_ignored_during_execution))
                .unwrap_or_default(),
            anti_affinity: anti
                .map(|own| required(&own.required_during_scheduling_ignored_during_execution))
                .unwrap_or_default(),
            preferred_affinity: of
                .map(|own| preferred(&own.preferred_during_scheduling_ignored_during_execution))
                .unwrap_or_default(),
            preferred_anti_affinity: anti
                .map(|own| preferred(&own.preferred_during_scheduling_ignored_during_execution))
                .unwrap_or_default(),
            affinity_text: String::new(),
            images: images(&pod),
            claims: claims(&pod),
            pod: pod.clone(),
        };
        info.affinity_text = info.write_affinity();
        info
    }

    pub fn uid(&self) -> &str {
        &self.pod.metadata.uid
    }
    pub fn namespace(&self) -> &str {
        &self.pod.metadata.namespace
    }
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.pod.metadata.labels
    }
    pub fn priority(&self) -> i32 {
        self.pod.spec.priority.unwrap_or(0)
    }
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
    /// How many containers it has, init containers included.
    pub fn containers(&self) -> usize {
        self.pod.spec.init_containers.len() + self.pod.spec.containers.len()
    }

    fn write_affinity(&self) -> String {
        let mut out = String::new();
        for (mark, terms) in [("+", &self.affinity), ("-", &self.anti_affinity)] {
            for term in terms {
                out.push_str(mark);
                term.write(&mut out);
            }
        }
        for (mark, terms) in [("~+", &self.preferred_affinity), ("~-", &self.preferred_anti_affinity)] {
            for (weight, term) in terms {
                out.push_str(&format!("{mark}{weight} "));
                term.write(&mut out);
            }
        }
        out
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let sidecars = pod.spec.init_containers.iter().filter(|container| resources::is_sidecar(container));
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let or =
        |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    ports
        .filter(|port| port.host_port > 0)
        .map(|port| HostPort {
            ip: or(&port.host_ip, "0.0.0.0"),
            protocol: or(&port.protocol, "TCP"),
            port: port.host_port,
        })
        .collect()
}

fn images(pod: &Pod) -> Vec<String> {
    let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
    let volumes = pod.spec.volumes.iter().filter_map(|volume| volume.volume_source.image.as_ref());
    containers
        .map(|container| tagged(&container.image))
        .chain(volumes.map(|image| tagged(&image.reference)))
        .collect()
}

/// An image's name with `:latest` where it has no tag.
fn tagged(image: &str) -> String {
    if image.rfind(':') <= image.rfind('/') { format!("{image}:latest") } else { image.to_owned() }
}

fn claims(pod: &Pod) -> Vec<ClaimReference> {
    let mut out = Vec::new();
    for volume in &pod.spec.volumes {
        let source = &volume.volume_source;
        if let Some(claim) = &source.persistent_volume_claim {
            out.push(ClaimReference { name: claim.claim_name.clone(), ephemeral: false });
        } else if source.ephemeral.is_some() {
            let name = format!("{}-{}", pod.metadata.name, volume.name);
            out.push(ClaimReference { name, ephemeral: true });
        }
    }
    out
}
