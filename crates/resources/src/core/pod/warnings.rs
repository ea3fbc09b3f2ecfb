//! What users should hear about pods and templates though they are valid.

use api::core::v1::{Container, Pod, PodSpec};
use api::meta::v1::ObjectMeta;
use meta::field::Path;
use meta::validation;
use std::collections::{BTreeMap, BTreeSet};

/// Warnings of a new pod.
pub(super) fn create(pod: &Pod) -> Vec<String> {
    let mut warnings = Vec::new();
    let faults = validation::dns1123_label(&pod.metadata.name);
    if !faults.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            faults.join(" ")
        ));
    }
    spec(&pod.spec, &pod.metadata, &Path::new("spec"), &mut warnings);
    warnings
}

/// Warnings of a template's spec.
pub(crate) fn template(spec_given: &PodSpec, metadata: &ObjectMeta, path: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    spec(spec_given, metadata, path, &mut warnings);
    warnings
}

fn spec(spec: &PodSpec, metadata: &ObjectMeta, path: &Path, warnings: &mut Vec<String>) {
    node_labels(spec, path, warnings);
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = path.child("volumes").index(index);
        let source = &volume.volume_source;
        for (gone, text) in [
            (source.git_repo.is_some(), "gitRepo: deprecated in v1.11, and disabled by default in v1.33+"),
            (
                source.glusterfs.is_some(),
                "glusterfs: deprecated in v1.25, this feature will be removed soon after in a subsequent release",
            ),
            (source.cephfs.is_some(), "cephfs: deprecated in v1.28, non-functional in v1.31+"),
            (source.rbd.is_some(), "rbd: deprecated in v1.28, non-functional in v1.31+"),
            (
                source.photon_persistent_disk.is_some(),
                "photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+",
            ),
            (source.scale_io.is_some(), "scaleIO: deprecated in v1.16, non-functional in v1.22+"),
            (source.storageos.is_some(), "storageOS: deprecated in v1.22, non-functional in v1.25+"),
        ] {
            if gone {
                warnings.push(format!("{path}.{text}"));
            }
        }
    }
    duplicates(
        &spec.image_pull_secrets,
        |secret| &secret.name,
        &path.child("imagePullSecrets"),
        "name",
        warnings,
    );
    for (index, secret) in spec.image_pull_secrets.iter().enumerate() {
        if secret.name.is_empty() {
            let path = path.child("imagePullSecrets").index(index);
            warnings.push(format!("{path}: invalid empty name {:?}", secret.name));
        }
    }
    duplicate_hosts(spec, path, warnings);
    for (list, field) in [(&spec.init_containers, "initContainers"), (&spec.containers, "containers")] {
        for (index, container) in list.iter().enumerate() {
            one_container(container, &path.child(field).index(index), warnings);
        }
    }
    duplicate_ports(spec, path, warnings);
    if spec.containers.iter().any(|container| !container.resources.requests.is_empty()) {
        fractions(spec, path, warnings);
    }
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let path = path.child("terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for key in metadata.annotations.keys() {
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            continue;
        }
        if key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
        {
            warnings.push(format!(
                "metadata.annotations[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"
            ));
        }
    }
    let selector = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    for (index, term) in
        selector.iter().flat_map(|it| &it.preferred_during_scheduling_ignored_during_execution).enumerate()
    {
        for expression in &term.preference.match_expressions {
            if let Some(text) = renamed_label(&expression.key) {
                let path = path
                    .child("affinity")
                    .child("nodeAffinity")
                    .child("preferredDuringSchedulingIgnoredDuringExecution")
                    .index(index)
                    .child("preference")
                    .child("matchExpressions")
                    .index(0)
                    .child("key");
                warnings.push(format!("{path}: {} {text}", expression.key));
            }
        }
    }
}

/// Labels of nodes that have newer names.
fn renamed_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "is deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "is deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "is deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        _ => return None,
    })
}

fn node_labels(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    for key in spec.node_selector.keys() {
        if let Some(text) = renamed_label(key) {
            let path = path.child("nodeSelector").key(key);
            let text = text.replacen("is deprecated", "deprecated", 1);
            warnings.push(format!("{path}: {text}"));
        }
    }
}

/// Entries that a merge by key would make one of.
fn duplicates<T>(list: &[T], key: fn(&T) -> &str, path: &Path, field: &str, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, item) in list.iter().enumerate() {
        if !seen.insert(key(item)) {
            warnings.push(format!("{}: duplicate {field} {:?}", path.index(index), key(item)));
        }
    }
}

fn duplicate_hosts(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, alias) in spec.host_aliases.iter().enumerate() {
        if !seen.insert(&alias.ip) {
            let path = path.child("hostAliases").index(index).child("ip");
            warnings.push(format!("{path}: duplicate ip {:?}", alias.ip));
        }
    }
}

fn one_container(container: &Container, path: &Path, warnings: &mut Vec<String>) {
    // The last of several variables wins, unless each refers to the ones before.
    let mut seen = BTreeSet::new();
    for (index, variable) in container.env.iter().enumerate() {
        let refers = variable.value.contains(&format!("$({})", variable.name));
        if !seen.insert(&variable.name) && !refers {
            warnings.push(format!(
                "{}: hides previous definition of {:?}, which may be dropped when using apply",
                path.child("env").index(index),
                variable.name
            ));
        }
    }
}

fn duplicate_ports(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<(i32, i32, &str, &str), Path> = BTreeMap::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.child("containers").index(index).child("ports");
        for (index, port) in container.ports.iter().enumerate() {
            let key = (port.container_port, port.host_port, port.protocol.as_str(), port.host_ip.as_str());
            let path = path.index(index);
            if let Some(before) = seen.get(&key) {
                let same_container = before.as_str().rsplit_once('[').map(|it| it.0)
                    == path.as_str().rsplit_once('[').map(|it| it.0);
                if same_container {
                    warnings.push(format!("{path}: duplicate port definition with {before}"));
                }
                continue;
            }
            seen.insert(key, path);
        }
    }
}

/// Memory and storage come in whole bytes.
fn fractions(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    for (list, field) in [(&spec.init_containers, "initContainers"), (&spec.containers, "containers")] {
        for (index, container) in list.iter().enumerate() {
            let path = path.child(field).index(index).child("resources").child("requests");
            for (name, amount) in &container.resources.requests {
                let bytes = matches!(name.as_str(), "memory" | "ephemeral-storage");
                if bytes && amount.milli_value() % 1000 != 0 {
                    warnings.push(format!(
                        "{}: fractional byte value {:?} is invalid, must be an integer",
                        path.key(name),
                        amount.to_string()
                    ));
                }
            }
        }
    }
}
