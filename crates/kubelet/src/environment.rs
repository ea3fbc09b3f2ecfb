//! A container's variables, command and arguments: values, references, services, `$(NAME)` expansion.

use crate::Context;
use api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};
use meta::ObjectKey;
use pods::{env, fields};
use std::collections::BTreeMap;

/// Why a container's environment cannot be made: words for CreateContainerConfigError.
pub type Fault = String;

/// Variables in order, each name once, the last value winning.
pub async fn variables(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
) -> Result<Vec<(String, String)>, Fault> {
    let mut result: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = vec![];
    let mut put = |result: &mut BTreeMap<String, String>, name: String, value: String| {
        if result.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for source in &container.env_from {
        for (name, value) in from_source(ctx, pod, source).await? {
            put(&mut result, format!("{}{name}", source.prefix), value);
        }
    }
    let services = services(ctx, pod);
    for variable in &container.env {
        let value = if variable.value_from.is_some() {
            match referenced(ctx, pod, container, variable).await? {
                Some(value) => value,
                None => continue,
            }
        } else {
            env::expand(&variable.value, |name| result.get(name).or_else(|| services.get(name)).cloned())
        };
        put(&mut result, variable.name.clone(), value);
    }
    let mut list: Vec<(String, String)> =
        order.into_iter().filter_map(|name| result.remove(&name).map(|value| (name, value))).collect();
    let named: std::collections::BTreeSet<String> = list.iter().map(|(name, _)| name.clone()).collect();
    list.extend(services.into_iter().filter(|(name, _)| !named.contains(name)));
    Ok(list)
}

/// The variables that announce services: those of the pod's namespace, and the API server itself.
fn services(ctx: &Context, pod: &Pod) -> BTreeMap<String, String> {
    let view = ctx.views.view();
    let namespace = pod.metadata.namespace.as_str();
    let mut list: Vec<std::sync::Arc<Service>> = vec![];
    list.extend(view.get::<Service>(&ObjectKey::new("default", "kubernetes")));
    if pod.spec.enable_service_links.unwrap_or(true) {
        list.extend(view.in_namespace::<Service>(namespace));
    }
    env::services(list.iter().map(|service| &**service))
}

async fn from_source(
    ctx: &Context,
    pod: &Pod,
    source: &api::core::v1::EnvFromSource,
) -> Result<Vec<(String, String)>, Fault> {
    let namespace = &pod.metadata.namespace;
    if let Some(map) = &source.config_map_ref {
        let name = &map.local_object_reference.name;
        let found = ctx.references.config_map(namespace, name).await?;
        return match found {
            Some(found) => Ok(found.data.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
            None if map.optional == Some(true) => Ok(vec![]),
            None => Err(format!("configmap {name:?} not found")),
        };
    }
    if let Some(secret) = &source.secret_ref {
        let name = &secret.local_object_reference.name;
        let found = ctx.references.secret(namespace, name).await?;
        return match found {
            Some(found) => {
                let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
                Ok(found.data.iter().map(|(key, value)| (key.clone(), text(value))).collect())
            }
            None if secret.optional == Some(true) => Ok(vec![]),
            None => Err(format!("secret {name:?} not found")),
        };
    }
    Ok(vec![])
}

/// The value of a reference; `None` where an optional one has none.
async fn referenced(
    ctx: &Context,
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
) -> Result<Option<String>, Fault> {
    let Some(source) = &variable.value_from else { return Ok(None) };
    let namespace = &pod.metadata.namespace;
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, &reference.field_path).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        let other = match reference.container_name.as_str() {
            "" => container.clone(),
            name => pods::spec::find(&pod.spec, name)
                .ok_or_else(|| format!("failed to find container {name} in pod {}", pod.metadata.name))?,
        };
        return fields::resource(reference, &other, &ctx.allocatable()).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let name = &reference.local_object_reference.name;
        let found: Option<std::sync::Arc<ConfigMap>> = ctx.references.config_map(namespace, name).await?;
        let optional = reference.optional == Some(true);
        return match found {
            None if optional => Ok(None),
            None => Err(format!("configmap {name:?} not found")),
            Some(map) => match map.data.get(&reference.key) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{name}", reference.key)),
            },
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let name = &reference.local_object_reference.name;
        let found: Option<std::sync::Arc<Secret>> = ctx.references.secret(namespace, name).await?;
        let optional = reference.optional == Some(true);
        return match found {
            None if optional => Ok(None),
            None => Err(format!("secret {name:?} not found")),
            Some(secret) => match secret.data.get(&reference.key) {
                Some(bytes) => Ok(Some(String::from_utf8_lossy(bytes).into_owned())),
                None if optional => Ok(None),
                None => Err(format!("couldn't find key {} in Secret {namespace}/{name}", reference.key)),
            },
        };
    }
    Ok(None)
}

/// Command and arguments with `$(NAME)` replaced.
pub fn expand_all(list: &[String], variables: &[(String, String)]) -> Vec<String> {
    let lookup =
        |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    list.iter().map(|text| env::expand(text, lookup)).collect()
}
