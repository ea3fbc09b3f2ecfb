//! What a volume must state, and that where it is kept never changes.

use crate::core::persistent_volume_claim::validation::{access_modes, class_name, volume_mode};
use crate::core::{pod, resource_names};
use crate::object_meta::immutable;
use api::core::v1::{PersistentVolume, PersistentVolumeSource, PersistentVolumeSpec};
use meta::field::{Errors, Json, Path};

const KEEP_SOURCE: &str = "spec.persistentvolumesource is immutable after creation";

pub(super) fn volume(new: &PersistentVolume, old: Option<&PersistentVolume>, errors: &mut Errors) {
    spec(&new.spec, &Path::new("spec"), errors);
    let Some(old) = old else { return };
    let mut source = new.spec.persistent_volume_source.clone();
    // One secret may still be named later.
    if let (Some(csi), Some(before)) = (&mut source.csi, &old.spec.persistent_volume_source.csi)
        && before.controller_expand_secret_ref.is_none()
    {
        csi.controller_expand_secret_ref = None;
    }
    let path = Path::new("spec");
    if source != old.spec.persistent_volume_source {
        let detail = crate::difference::describe(KEEP_SOURCE, &old.spec.persistent_volume_source, &source);
        errors.forbidden(&path.child("persistentvolumesource"), detail);
    }
    immutable(&new.spec.volume_mode, &old.spec.volume_mode, &Path::new("volumeMode"), errors);
    if old.spec.node_affinity.is_some() && new.spec.node_affinity != old.spec.node_affinity {
        let value = new.spec.node_affinity.as_deref().cloned().unwrap_or_default();
        errors.invalid(&Path::new("nodeAffinity"), Json(&value), crate::object_meta::IMMUTABLE);
    }
    let class = path.child("volumeAttributesClassName");
    if old.spec.volume_attributes_class_name.is_some() && new.spec.volume_attributes_class_name.is_none() {
        errors.forbidden(&class, "update from non-nil value to nil is forbidden");
    }
}

fn spec(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    if spec.access_modes.is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    access_modes(&spec.access_modes, &path.child("accessModes"), errors);
    let capacity = path.child("capacity");
    if spec.capacity.is_empty() {
        errors.required(&capacity, "");
    }
    if !spec.capacity.contains_key("storage") || spec.capacity.len() > 1 {
        errors.not_supported(&capacity, Json(&spec.capacity), &["storage"]);
    }
    for (name, amount) in &spec.capacity {
        resource_names::positive(*amount, &capacity.key(name), errors);
    }
    let policy = &spec.persistent_volume_reclaim_policy;
    if !matches!(policy.as_str(), "" | "Delete" | "Recycle" | "Retain") {
        let field = path.child("persistentVolumeReclaimPolicy");
        errors.not_supported(&field, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = &spec.node_affinity {
        let path = path.child("nodeAffinity");
        match &affinity.required {
            Some(required) => pod::validation::node_selector(required, &path.child("required"), errors),
            None => errors.required(&path.child("required"), "must specify required node constraints"),
        }
    }
    source(spec, path, errors);
    if !spec.storage_class_name.is_empty() {
        class_name(&spec.storage_class_name, &path.child("storageClassName"), errors);
    }
    volume_mode(spec.volume_mode.as_deref(), &path.child("volumeMode"), errors);
    if let Some(class) = &spec.volume_attributes_class_name {
        let field = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.required(&field, "an empty string is disallowed");
        } else {
            class_name(class, &field, errors);
        }
        if spec.persistent_volume_source.csi.is_none() {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn source(spec: &PersistentVolumeSpec, path: &Path, errors: &mut Errors) {
    let source = &spec.persistent_volume_source;
    let mut set = sources(source).into_iter();
    if set.next().is_none() {
        errors.required(path, "must specify a volume type");
    }
    for extra in set {
        errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
    }
    if let Some(host) = &source.host_path {
        pod::validation::host_path(host, &path.child("hostPath"), errors);
        if host.path == "/" && spec.persistent_volume_reclaim_policy == "Recycle" {
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), detail);
        }
    }
    if let Some(nfs) = &source.nfs {
        pod::validation::nfs(nfs, &path.child("nfs"), errors);
    }
    if let Some(local) = &source.local {
        let path_of = path.child("local").child("path");
        if local.path.is_empty() {
            errors.required(&path_of, "");
        } else {
            pod::validation::no_backsteps(&local.path, &path_of, errors);
        }
        if spec.node_affinity.is_none() {
            let detail = "Local volume requires node affinity";
            errors.required(&path.child("nodeAffinity"), detail);
        }
    }
    if let Some(csi) = &source.csi {
        let path = path.child("csi");
        crate::storage::validate_driver_name(&csi.driver, &path.child("driver"), errors);
        if csi.volume_handle.is_empty() {
            errors.required(&path.child("volumeHandle"), "");
        }
    }
}

/// The kinds of storage that a volume names, in the order in which they are checked.
fn sources(source: &PersistentVolumeSource) -> Vec<&'static str> {
    let fields = <PersistentVolumeSource as meta::Message>::descriptor(source).fields;
    let set = |index: &usize| !meta::Message::field(source, *index).is_empty();
    (0..fields.len()).filter(set).map(|index| fields[index].name).collect()
}
