//! The facts of volumes that are directories of one node: who makes them, where they are, and what keeps them until
//! the node has removed them.

use api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    VolumeNodeAffinity,
};

/// The provisioner, as storage classes name it, and the finalizer of its volumes.
pub const PROVISIONER: &str = "timonel.dev/local-path";
/// On a node: the directory under which it keeps such volumes. A node without it offers none.
pub const DIRECTORY: &str = "timonel.dev/local-path-directory";
/// The label by which a volume names its node, as volumes of other local provisioners do.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Whether the volume is a directory that its node makes and removes.
pub fn is_ours(volume: &PersistentVolume) -> bool {
    volume.metadata.annotations.get(super::PROVISIONED_BY).is_some_and(|by| by == PROVISIONER)
        && volume.spec.persistent_volume_source.local.is_some()
}

/// The name of the volume that is made for a claim: one for each claim, whoever makes it and how often.
pub fn volume_name(claim_uid: &str) -> String {
    format!("pvc-{claim_uid}")
}

/// A volume's directory, and the affinity that names its node.
pub fn source(directory: &str, volume: &str, node: &Node) -> (LocalVolumeSource, VolumeNodeAffinity) {
    let path = format!("{}/{volume}", directory.trim_end_matches('/'));
    let hostname = node.metadata.labels.get(HOSTNAME).unwrap_or(&node.metadata.name);
    let term = NodeSelectorTerm {
        match_expressions: vec![NodeSelectorRequirement {
            key: HOSTNAME.into(),
            operator: "In".into(),
            values: vec![hostname.clone()],
        }],
        ..NodeSelectorTerm::default()
    };
    let required = NodeSelector { node_selector_terms: vec![term] };
    (LocalVolumeSource { path, fs_type: None }, VolumeNodeAffinity { required: Some(Box::new(required)) })
}

/// The value of the hostname label of the node that a volume of ours is on.
pub fn hostname_of(volume: &PersistentVolume) -> Option<&str> {
    let required = volume.spec.node_affinity.as_ref()?.required.as_ref()?;
    let wanted = required.node_selector_terms.first()?.match_expressions.first()?;
    (wanted.key == HOSTNAME).then(|| wanted.values.first().map(String::as_str))?
}
