//! Environment variables and the fields, keys and files they are filled from.

use super::volumes::no_backsteps;
use api::core::v1::{
    Container, EnvFromSource, EnvVar, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector,
};
use meta::field::{Errors, Path};
use meta::validation;

/// Fields of the pod that an environment variable can take.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of the pod that a file can take.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
const ONE_OF: &str =
    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
const MORE_THAN_ONE: &str = "may not have more than one field specified at a time";

/// Anything printable but the equals sign names a variable.
pub(super) fn name(value: &str, path: &Path, errors: &mut Errors) {
    let printable =
        !value.is_empty() && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    if !printable {
        errors.invalid(
            path,
            value,
            "a valid environment variable name must consist only of printable ASCII characters other than '='",
        );
    }
}

pub(super) fn validate(variables: &[EnvVar], path: &Path, errors: &mut Errors) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        if variable.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            name(&variable.name, &path.child("name"), errors);
        }
        value_from(variable, &path.child("valueFrom"), errors);
    }
}

fn value_from(variable: &EnvVar, path: &Path, errors: &mut Errors) {
    let Some(source) = &variable.value_from else { return };
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_ref(field, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_ref(resource, false, &path.child("resourceFieldRef"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        key_ref(&key.local_object_reference.name, &key.key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        key_ref(&key.local_object_reference.name, &key.key, &path.child("secretKeyRef"), errors);
    }
    if let Some(file) = &source.file_key_ref {
        sources += 1;
        file_ref(file, &path.child("fileKeyRef"), errors);
    }
    if sources == 0 {
        errors.invalid(path, "", ONE_OF);
    } else if !variable.value.is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", MORE_THAN_ONE);
    }
}

/// `metadata.labels['app']` as its path and its subscript.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let (path, rest) = field.strip_suffix("']")?.split_once("['")?;
    Some((path, rest))
}

pub(super) fn field_ref(field: &ObjectFieldSelector, known: &[&str], path: &Path, errors: &mut Errors) {
    if field.api_version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    let at = path.child("fieldPath");
    if field.field_path.is_empty() {
        return errors.required(&at, "");
    }
    let unconvertible = |text: &str| format!("error converting fieldPath: {text}");
    if field.api_version != "v1" {
        let detail = unconvertible(&format!("unsupported pod version: {}", field.api_version));
        return errors.invalid(&at, &field.field_path, detail);
    }
    if let Some((base, key)) = subscript(&field.field_path) {
        return match base {
            "metadata.annotations" => {
                errors.invalid_each(path, key, validation::qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => errors.invalid_each(path, key, validation::qualified_name(key)),
            _ => {
                let detail =
                    unconvertible(&format!("field label does not support subscript: {}", field.field_path));
                errors.invalid(&at, &field.field_path, detail);
            }
        };
    }
    let label = if field.field_path == "spec.host" { "spec.nodeName" } else { &field.field_path };
    let exists = ENV_FIELDS.contains(&label)
        || FILE_FIELDS.contains(&label)
        || matches!(label, "spec.restartPolicy" | "spec.schedulerName" | "status.phase");
    if !exists {
        let detail = unconvertible(&format!("field label not supported: {label}"));
        errors.invalid(&at, &field.field_path, detail);
    } else if !known.contains(&label) {
        errors.not_supported(&at, label, known);
    }
}

pub(super) fn resource_ref(
    resource: &ResourceFieldSelector,
    in_volume: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let name = resource.resource.as_str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if in_volume && resource.container_name.is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if name.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&name) && !huge {
        errors.not_supported(&path.child("resource"), name, RESOURCES);
    }
    if resource.divisor.is_zero() {
        return;
    }
    let divisor = resource.divisor.to_string();
    let (known, what) = match name {
        "limits.cpu" | "requests.cpu" => {
            if !["1m", "1"].contains(&divisor.as_str()) {
                let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
                errors.invalid(&path.child("divisor"), name, detail);
            }
            return;
        }
        "limits.memory" | "requests.memory" => (true, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (true, "local ephemeral storage"),
        _ => (huge, "hugepages"),
    };
    if known && !DIVISORS.split(", ").any(|allowed| allowed == divisor) {
        let detail = format!("only divisor's values {DIVISORS} are supported with the {what} resource");
        errors.invalid(&path.child("divisor"), name, detail);
    }
}

fn key_ref(object: &str, key: &str, path: &Path, errors: &mut Errors) {
    errors.invalid_each(&path.child("name"), object, validation::dns1123_subdomain(object));
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.invalid_each(&path.child("key"), key, validation::config_map_key(key));
    }
}

fn file_ref(file: &FileKeySelector, path: &Path, errors: &mut Errors) {
    if file.key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        name(&file.key, &path.child("key"), errors);
    }
    let volume = path.child("volumeName");
    if file.volume_name.is_empty() {
        errors.required(&volume, "");
    } else {
        errors.invalid_each(&volume, &file.volume_name, validation::dns1123_label(&file.volume_name));
    }
    if file.path.is_empty() {
        errors.required(&path.child("path"), "");
    } else {
        no_backsteps(&file.path, &path.child("path"), errors);
    }
}

pub(super) fn sources(sources: &[EnvFromSource], path: &Path, errors: &mut Errors) {
    for (index, source) in sources.iter().enumerate() {
        let item = path.index(index);
        if !source.prefix.is_empty() {
            name(&source.prefix, &item.child("prefix"), errors);
        }
        let config_map = source.config_map_ref.as_ref().map(|from| &from.local_object_reference.name);
        let secret = source.secret_ref.as_ref().map(|from| &from.local_object_reference.name);
        for (name, field) in [(config_map, "configMapRef"), (secret, "secretRef")] {
            let Some(name) = name else { continue };
            let field = item.child(field).child("name");
            if name.is_empty() {
                errors.required(&field, "");
            } else {
                errors.invalid_each(&field, name, crate::names::dns_subdomain(name, true));
            }
        }
        match (config_map, secret) {
            (None, None) => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            (Some(_), Some(_)) => errors.invalid(path, "", MORE_THAN_ONE),
            _ => {}
        }
    }
}

/// A variable read from a file names an emptyDir of the pod.
pub(super) fn file_volumes(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut check = |container: &Container, path: &Path| {
        for (index, variable) in container.env.iter().enumerate() {
            let file = variable.value_from.as_ref().and_then(|source| source.file_key_ref.as_ref());
            let Some(file) = file else { continue };
            let field =
                path.child("env").index(index).child("valueFrom").child("fileKeyRef").child("volumeName");
            match spec.volumes.iter().find(|volume| volume.name == file.volume_name) {
                None => errors.not_found(&field, &file.volume_name),
                Some(volume) if volume.volume_source.empty_dir.is_none() => {
                    let detail = "referenced volume must be of type emptyDir";
                    errors.invalid(&field, &file.volume_name, detail);
                }
                Some(_) => {}
            }
        }
    };
    for (list, field) in [(&spec.init_containers, "initContainers"), (&spec.containers, "containers")] {
        for (index, container) in list.iter().enumerate() {
            check(container, &path.child(field).index(index));
        }
    }
}
