//! The parameters of a binding: objects of the policy's paramKind, by name or by labels.

use crate::kinds::Kinds;
use api::admissionregistration::v1::{ParamKind, ParamRef};
use meta::ObjectKey;
use registry::{ListOptions, Registry};
use resources::Resource;
use serde_json::Value as Json;

/// All parameters that a policy is to be evaluated with under a binding; `None` among them is one evaluation without.
/// An error says that the binding is not configured rightly.
pub async fn collect(
    registry: &Registry,
    kinds: &Kinds,
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Option<Json>>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![None]) };
    let resource = resource_of(kinds, kind)?;
    let place = match (resource.namespaced(), reference.namespace.as_str()) {
        (true, "") if namespace.is_empty() => {
            let why =
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.into());
        }
        (true, "") => namespace,
        (true, own) => own,
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
    };
    let found = match &reference.selector {
        _ if !reference.name.is_empty() => named(registry, resource, place, &reference.name).await?,
        Some(selector) => {
            let selector = api::selector(selector)?;
            labelled(registry, resource, place, &selector).await?
        }
        None => return Err("one of name or selector must be provided".into()),
    };
    if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found.into_iter().map(Some).collect())
}

/// The resource of a policy's paramKind; an error where there is none.
pub fn resource_of(kinds: &Kinds, kind: &ParamKind) -> Result<&'static dyn Resource, String> {
    let (group, version) = kind.api_version.split_once('/').unwrap_or(("", &kind.api_version));
    kinds.resource_of_kind(group, version, &kind.kind).ok_or_else(|| {
        format!(
            "failed to find resource referenced by paramKind: '{}, Kind={}'",
            if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") },
            kind.kind
        )
    })
}

async fn named(
    registry: &Registry,
    resource: &'static dyn Resource,
    namespace: &str,
    name: &str,
) -> Result<Vec<Json>, String> {
    let key = ObjectKey::new(namespace, name);
    match registry.get(resource, &key, "0").await {
        Ok(found) => {
            let object = found.object().map_err(|error| error.to_string())?;
            Ok(vec![api::codec::to_value(object.as_dyn())])
        }
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

async fn labelled(
    registry: &Registry,
    resource: &'static dyn Resource,
    namespace: &str,
    selector: &meta::labels::Selector,
) -> Result<Vec<Json>, String> {
    let options = ListOptions { resource_version: "0".into(), ..ListOptions::default() };
    let all = registry.list(resource, namespace, &options).await.map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for item in &all.items {
        let object = item.object().map_err(|error| error.to_string())?;
        if selector.matches(&object.metadata().labels) {
            found.push(api::codec::to_value(object.as_dyn()));
        }
    }
    Ok(found)
}
