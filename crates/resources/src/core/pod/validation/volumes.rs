//! Volumes of a pod: one source each, and mounts that find them.

use super::{Context, env};
use crate::core::persistent_volume_claim::validation as claim;
use api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, NFSVolumeSource, PodSpec,
    ProjectedVolumeSource, Volume, VolumeMount, VolumeProjection, VolumeSource,
};
use api::meta::v1::ObjectMeta;
use meta::field::{Errors, Json, Path};
use meta::{Message, validation};
use std::collections::{BTreeMap, BTreeSet};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TWO_SOURCES: &str = "may not specify more than 1 volume type";
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Checks all volumes; gives those in order, which mounts may name.
pub(super) fn validate<'a>(
    volumes: &'a [Volume],
    metadata: Option<&ObjectMeta>,
    path: &Path,
    errors: &mut Errors,
) -> BTreeMap<&'a str, &'a VolumeSource> {
    let pod = metadata.map_or("", |metadata| metadata.name.as_str());
    let created: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| !pod.is_empty() && volume.volume_source.ephemeral.is_some())
        .map(|volume| format!("{pod}-{}", volume.name))
        .collect();
    let mut good = BTreeMap::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        source(&volume.volume_source, &path, errors);
        let name = path.child("name");
        if volume.name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.invalid_each(&name, &volume.name, validation::dns1123_label(&volume.name));
        }
        if good.contains_key(volume.name.as_str()) {
            errors.duplicate(&name, &volume.name);
        }
        if errors.len() == before {
            good.insert(volume.name.as_str(), &volume.volume_source);
        }
        if let Some(claim) = &volume.volume_source.persistent_volume_claim
            && created.contains(&claim.claim_name)
        {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            let field = path.child("persistentVolumeClaim").child("claimName");
            errors.invalid(&field, &claim.claim_name, detail);
        }
    }
    good
}

fn source(source: &VolumeSource, path: &Path, errors: &mut Errors) {
    let fields = source.descriptor().fields;
    let mut set = (0..fields.len()).filter(|index| !source.field(*index).is_empty());
    if set.next().is_none() {
        errors.required(path, "must specify a volume type");
    }
    for extra in set {
        errors.forbidden(&path.child(fields[extra].name), TWO_SOURCES);
    }
    if let Some(empty) = &source.empty_dir
        && empty.size_limit.is_some_and(|limit| limit.is_negative())
    {
        let field = path.child("emptyDir").child("sizeLimit");
        errors.forbidden(&field, "SizeLimit field must be a valid resource quantity");
    }
    if let Some(host) = &source.host_path {
        host_path(host, &path.child("hostPath"), errors);
    }
    if let Some(secret) = &source.secret {
        let path = path.child("secret");
        if secret.secret_name.is_empty() {
            errors.required(&path.child("secretName"), "");
        }
        keys(&secret.items, secret.default_mode, &path, errors);
    }
    if let Some(config_map) = &source.config_map {
        let path = path.child("configMap");
        if config_map.local_object_reference.name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        keys(&config_map.items, config_map.default_mode, &path, errors);
    }
    if let Some(claim) = &source.persistent_volume_claim
        && claim.claim_name.is_empty()
    {
        errors.required(&path.child("persistentVolumeClaim").child("claimName"), "");
    }
    if let Some(downward) = &source.downward_api {
        let path = path.child("downwardAPI");
        mode(downward.default_mode, &path.child("defaultMode"), errors);
        downward.items.iter().for_each(|item| downward_file(item, &path, errors));
    }
    if let Some(given) = &source.projected {
        projected(given, &path.child("projected"), errors);
    }
    less_common(source, path, errors);
}

fn less_common(source: &VolumeSource, path: &Path, errors: &mut Errors) {
    if let Some(given) = &source.nfs {
        nfs(given, &path.child("nfs"), errors);
    }
    if let Some(repository) = &source.git_repo {
        let path = path.child("gitRepo");
        if repository.repository.is_empty() {
            errors.required(&path.child("repository"), "");
        }
        local_path(&repository.directory, &path.child("directory"), errors);
    }
    if let Some(csi) = &source.csi {
        let path = path.child("csi");
        crate::storage::validate_driver_name(&csi.driver, &path.child("driver"), errors);
        if csi.node_publish_secret_ref.as_ref().is_some_and(|secret| secret.name.is_empty()) {
            errors.required(&path.child("nodePublishSecretRef").child("name"), "");
        }
    }
    if let Some(ephemeral) = &source.ephemeral {
        let path = path.child("ephemeral").child("volumeClaimTemplate");
        match &ephemeral.volume_claim_template {
            None => errors.required(&path, ""),
            Some(template) => claim::spec(&template.spec, &path.child("spec"), errors),
        }
    }
    if let Some(image) = &source.image {
        let path = path.child("image");
        if image.reference.is_empty() {
            errors.required(&path.child("reference"), "");
        }
        let known = ["Always", "IfNotPresent", "Never"];
        super::choice(&image.pull_policy, &known, &path.child("pullPolicy"), errors);
    }
}

pub(crate) fn host_path(host: &HostPathVolumeSource, path: &Path, errors: &mut Errors) {
    if host.path.is_empty() {
        return errors.required(&path.child("path"), "");
    }
    no_backsteps(&host.path, &path.child("path"), errors);
    let known =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if let Some(kind) = host.r#type.as_ref().filter(|kind| !known.contains(&kind.as_str())) {
        errors.not_supported(&path.child("type"), kind, &known);
    }
}

pub(crate) fn nfs(nfs: &NFSVolumeSource, path: &Path, errors: &mut Errors) {
    if nfs.server.is_empty() {
        errors.required(&path.child("server"), "");
    }
    if nfs.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    if !nfs.path.starts_with('/') {
        errors.invalid(&path.child("path"), &nfs.path, "must be an absolute path");
    }
}

pub(crate) fn no_backsteps(text: &str, path: &Path, errors: &mut Errors) {
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
}

/// A path that leads downwards.
pub(super) fn descending(text: &str, path: &Path, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(text, path, errors);
}

/// The same, whose first part is not one of the node's own either.
fn local_path(text: &str, path: &Path, errors: &mut Errors) {
    descending(text, path, errors);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(path, text, "must not start with '..'");
    }
}

fn mode(mode: Option<i32>, path: &Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, MODE);
    }
}

fn keys(items: &[KeyToPath], default_mode: Option<i32>, path: &Path, errors: &mut Errors) {
    mode(default_mode, &path.child("defaultMode"), errors);
    for (index, item) in items.iter().enumerate() {
        let path = path.child("items").index(index);
        if item.key.is_empty() {
            errors.required(&path.child("key"), "");
        }
        if item.path.is_empty() {
            errors.required(&path.child("path"), "");
        }
        local_path(&item.path, &path.child("path"), errors);
        mode(item.mode, &path.child("mode"), errors);
    }
}

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut Errors) {
    if file.path.is_empty() {
        errors.required(&path.child("path"), "");
    }
    local_path(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::field_ref(field, env::FILE_FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", detail);
            }
        }
        (None, Some(resource)) => {
            env::resource_ref(resource, true, &path.child("resourceFieldRef"), errors);
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file.mode, &path.child("mode"), errors);
}

fn projected(volume: &ProjectedVolumeSource, path: &Path, errors: &mut Errors) {
    mode(volume.default_mode, &path.child("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for (index, source) in volume.sources.iter().enumerate() {
        projection(source, &mut paths, &path.child("sources").index(index), path, errors);
    }
}

fn projection<'a>(
    source: &'a VolumeProjection,
    paths: &mut BTreeSet<&'a str>,
    path: &Path,
    volume: &Path,
    errors: &mut Errors,
) {
    let mut take = |written: &'a str, shown: &str, errors: &mut Errors| {
        if !written.is_empty() && !paths.insert(written) {
            errors.invalid(volume, shown, "conflicting duplicate paths");
        }
    };
    let secret = source.secret.as_ref().map(|it| (&it.local_object_reference.name, &it.items, "secret"));
    let config_map =
        source.config_map.as_ref().map(|it| (&it.local_object_reference.name, &it.items, "configMap"));
    for (name, items, field) in [secret, config_map].into_iter().flatten() {
        let path = path.child(field);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        keys(items, None, &path, errors);
        items.iter().for_each(|item| take(&item.path, name, errors));
    }
    if let Some(downward) = &source.downward_api {
        for file in &downward.items {
            downward_file(file, &path.child("downwardAPI"), errors);
            take(&file.path, &file.path, errors);
        }
    }
    if let Some(token) = &source.service_account_token {
        let field = path.child("serviceAccountToken").child("expirationSeconds");
        let seconds = token.expiration_seconds.unwrap_or_default();
        if seconds < TOKEN_SECONDS_MIN {
            errors.invalid(&field, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > TOKEN_SECONDS_MAX {
            errors.invalid(&field, seconds, "may not specify a duration larger than 2^32 seconds");
        }
        if token.path.is_empty() {
            errors.required(&volume.child("path"), "");
        } else {
            local_path(&token.path, &volume.child("path"), errors);
            take(&token.path, &token.path, errors);
        }
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        let path = path.child("clusterTrustBundle");
        match (&bundle.name, &bundle.signer_name) {
            (Some(_), Some(_)) => {
                errors.invalid(&path, Json(bundle.as_ref()), "only one of name and signerName may be used");
            }
            (None, None) => {
                let detail = "either name or signerName must be specified";
                errors.required(&path, detail);
            }
            _ => {}
        }
        if bundle.path.is_empty() {
            errors.required(&path.child("path"), "");
        }
        local_path(&bundle.path, &path.child("path"), errors);
        take(&bundle.path, &bundle.path, errors);
    }
    let count = (0..source.descriptor().fields.len()).filter(|at| !source.field(*at).is_empty()).count();
    if count > 1 {
        errors.forbidden(path, TWO_SOURCES);
    }
}

/// A token speaks for an account, so the pod must name one.
pub(super) fn tokens_without_account(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (index, volume) in spec.volumes.iter().enumerate() {
        let Some(projected) = &volume.volume_source.projected else { continue };
        let path = path.index(index).child("projected").child("sources");
        for (index, source) in projected.sources.iter().enumerate() {
            if source.service_account_token.is_some() {
                let field = path.index(index).child("serviceAccountToken");
                errors.forbidden(&field, "must not be specified when serviceAccountName is not set");
            }
        }
    }
}

pub(super) fn mounts(container: &Container, context: &Context<'_>, path: &Path, errors: &mut Errors) {
    let list = path.child("volumeMounts");
    let mut taken = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let item = list.index(index);
        let (name, place) = (item.child("name"), item.child("mountPath"));
        if mount.name.is_empty() {
            errors.required(&name, "");
        }
        if !context.volumes.contains_key(mount.name.as_str()) {
            errors.not_found(&name, &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(&place, "");
        }
        if !taken.insert(&mount.mount_path) {
            errors.invalid(&place, &mount.mount_path, "must be unique");
        }
        let devices = &container.volume_devices;
        if devices.iter().any(|device| device.name == mount.name) {
            errors.invalid(&name, &mount.name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| device.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(&place, &mount.mount_path, detail);
        }
        // Upstream reports what follows at the list, not at the mount.
        mount_options(mount, container, &item, &list, errors);
    }
    devices(container, context, &path.child("volumeDevices"), errors);
}

fn mount_options(mount: &VolumeMount, container: &Container, item: &Path, list: &Path, errors: &mut Errors) {
    if !mount.sub_path.is_empty() {
        descending(&mount.sub_path, &list.child("subPath"), errors);
    }
    if !mount.sub_path_expr.is_empty() {
        if !mount.sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&item.child("subPathExpr"), &mount.sub_path_expr, detail);
        }
        descending(&mount.sub_path_expr, &list.child("subPathExpr"), errors);
    }
    if let Some(propagation) = &mount.mount_propagation {
        let field = list.child("mountPropagation");
        let known = ["Bidirectional", "HostToContainer", "None"];
        if !known.contains(&propagation.as_str()) {
            errors.not_supported(&field, propagation, &known);
        }
        let privileged =
            container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true));
        if propagation == "Bidirectional" && !privileged {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&field, detail);
        }
    }
    let field = list.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !mount.read_only {
                errors.forbidden(&field, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(&field, detail);
            }
        }
        Some(other) => errors.not_supported(&field, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Container, context: &Context<'_>, list: &Path, errors: &mut Errors) {
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in container.volume_devices.iter().enumerate() {
        let item = list.index(index);
        let (name, place) = (item.child("name"), item.child("devicePath"));
        if device.name.is_empty() {
            errors.required(&name, "");
        }
        if names.contains(&device.name) {
            errors.invalid(&name, &device.name, "must be unique");
        }
        match context.volumes.get(device.name.as_str()) {
            None => errors.not_found(&name, &device.name),
            Some(source) if source.persistent_volume_claim.is_none() && source.ephemeral.is_none() => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name, &device.name, detail);
            }
            Some(_) => {}
        }
        if device.device_path.is_empty() {
            errors.required(&place, "");
        }
        if places.contains(&device.device_path) {
            errors.invalid(&place, &device.device_path, "must be unique");
        }
        if device.device_path.split('/').any(|part| part == "..") {
            errors.invalid(&place, &device.device_path, "can not contain backsteps ('..')");
        } else {
            places.insert(&device.device_path);
        }
        let mounts = &container.volume_mounts;
        if mounts.iter().any(|mount| mount.name == device.name) {
            errors.invalid(&name, &device.name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| mount.mount_path == device.device_path) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.invalid(&place, &device.device_path, detail);
        }
        if !device.name.is_empty() {
            names.insert(&device.name);
        }
    }
}
