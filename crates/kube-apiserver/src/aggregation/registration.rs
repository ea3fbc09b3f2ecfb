//! APIServices of what this server answers itself: made at the start for the built-in group versions, and kept in step
//! with the versions that custom resource definitions serve.

use crate::objects::{self, resource_of};
use api::apiextensions::v1::CustomResourceDefinition;
use api::apiregistration::v1::{APIService, APIServiceSpec};
use api::errors::ApiError;
use meta::ObjectKey;
use registry::{DeleteOptions, Registry, Request, UpdateKind};
use std::collections::BTreeSet;

/// Says that a server keeps the object: `onstart` for built-in versions, `true` for those of custom resources.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const ON_START: &str = "onstart";
const ALWAYS: &str = "true";

/// Upstream's places of the built-in groups, and of their versions within them; the higher comes first.
const PRIORITIES: &[(&str, &str, i32, i32)] = &[
    ("", "v1", 18000, 1),
    ("apps", "v1", 17800, 15),
    ("events.k8s.io", "v1", 17750, 15),
    ("authentication.k8s.io", "v1", 17700, 15),
    ("authentication.k8s.io", "v1beta1", 17700, 9),
    ("authentication.k8s.io", "v1alpha1", 17700, 1),
    ("authorization.k8s.io", "v1", 17600, 15),
    ("autoscaling", "v1", 17500, 15),
    ("autoscaling", "v2", 17500, 30),
    ("batch", "v1", 17400, 15),
    ("certificates.k8s.io", "v1", 17300, 15),
    ("certificates.k8s.io", "v1beta1", 17300, 9),
    ("certificates.k8s.io", "v1alpha1", 17300, 1),
    ("networking.k8s.io", "v1", 17200, 15),
    ("networking.k8s.io", "v1beta1", 17200, 9),
    ("policy", "v1", 17100, 15),
    ("rbac.authorization.k8s.io", "v1", 17000, 15),
    ("storage.k8s.io", "v1", 16800, 15),
    ("storage.k8s.io", "v1beta1", 16800, 9),
    ("storage.k8s.io", "v1alpha1", 16800, 1),
    ("apiextensions.k8s.io", "v1", 16700, 15),
    ("admissionregistration.k8s.io", "v1", 16700, 15),
    ("admissionregistration.k8s.io", "v1beta1", 16700, 12),
    ("admissionregistration.k8s.io", "v1alpha1", 16700, 9),
    ("scheduling.k8s.io", "v1", 16600, 15),
    ("scheduling.k8s.io", "v1alpha2", 16600, 2),
    ("coordination.k8s.io", "v1", 16500, 15),
    ("coordination.k8s.io", "v1beta1", 16500, 13),
    ("coordination.k8s.io", "v1alpha2", 16500, 12),
    ("node.k8s.io", "v1", 16300, 15),
    ("discovery.k8s.io", "v1", 16200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16100, 21),
    ("internal.apiserver.k8s.io", "v1alpha1", 16000, 9),
    ("resource.k8s.io", "v1", 16200, 21),
    ("resource.k8s.io", "v1beta2", 16200, 15),
    ("resource.k8s.io", "v1beta1", 16200, 9),
    ("resource.k8s.io", "v1alpha3", 16200, 1),
    ("storagemigration.k8s.io", "v1beta1", 15800, 9),
];
/// The place of every group of custom resources, and of each of its versions.
const CUSTOM: (i32, i32) = (1000, 100);
/// The aggregator's own group comes before all others.
const OWN_GROUP: &str = "apiregistration.k8s.io";
const OWN_PRIORITY: i32 = 20_000;

/// The place of a group in discovery; groups that are not built in have that of custom resources.
pub fn group_priority(group: &str) -> i32 {
    if group == OWN_GROUP {
        return OWN_PRIORITY;
    }
    PRIORITIES.iter().find(|(known, ..)| *known == group).map_or(CUSTOM.0, |(_, _, priority, _)| *priority)
}

fn wanted(group: &str, version: &str, priorities: (i32, i32), managed: &str) -> APIService {
    let mut service = APIService {
        spec: APIServiceSpec {
            group: group.into(),
            version: version.into(),
            group_priority_minimum: priorities.0,
            version_priority: priorities.1,
            ..APIServiceSpec::default()
        },
        ..APIService::default()
    };
    service.metadata.name = format!("{version}.{group}");
    service.metadata.labels.insert(MANAGED.into(), managed.into());
    service
}

/// The APIServices that built-in versions have; those that upstream has no place for have none.
fn built_in(local: &[(String, String)]) -> Vec<APIService> {
    let known = |group: &str, version: &str| {
        PRIORITIES
            .iter()
            .find(|(known, at, ..)| *known == group && *at == version)
            .map(|(_, _, group, version)| (*group, *version))
    };
    local
        .iter()
        .filter_map(|(group, version)| {
            known(group, version).map(|places| wanted(group, version, places, ON_START))
        })
        .collect()
}

/// The APIServices of served versions of custom resources.
fn custom(definitions: &[CustomResourceDefinition], local: &[(String, String)]) -> Vec<APIService> {
    let mut versions: BTreeSet<(&str, &str)> = BTreeSet::new();
    for definition in definitions {
        for version in definition.spec.versions.iter().filter(|version| version.served) {
            versions.insert((definition.spec.group.as_str(), version.name.as_str()));
        }
    }
    versions
        .into_iter()
        .filter(|(group, version)| !local.iter().any(|(known, at)| known == group && at == version))
        .map(|(group, version)| wanted(group, version, CUSTOM, ALWAYS))
        .collect()
}

/// Brings the kept objects of one sort up to what is wanted; those of others are left alone.
async fn bring(registry: &Registry, wanted: Vec<APIService>, managed: &str) -> Result<(), ApiError> {
    let resource = resource_of::<APIService>();
    let request = Request::internal("kube-apiserver");
    let stored = objects::list_typed::<APIService>(registry, "").await?;
    let kept = |service: &APIService| service.metadata.labels.get(MANAGED).is_some_and(|by| by == managed);
    for service in &wanted {
        let known = stored.iter().find(|known| known.metadata.name == service.metadata.name);
        let done = match known {
            None => {
                let mut fresh = service.clone();
                resource.default(&mut fresh);
                registry.create(&request, resource, "", Box::new(fresh)).await.map(|_| ())
            }
            Some(known) if !kept(known) || known.spec == service.spec => Ok(()),
            Some(known) => {
                let next = APIService { spec: service.spec.clone(), ..known.clone() };
                let key = ObjectKey::cluster(service.metadata.name.clone());
                registry.update(&request, resource, &key, UpdateKind::Spec, Box::new(next)).await.map(|_| ())
            }
        };
        match done {
            // Another server, or an administrator, was first.
            Err(error) if error.is_already_exists() || error.is_conflict() || error.is_not_found() => {}
            other => other?,
        }
    }
    for known in stored.iter().filter(|known| kept(known)) {
        if wanted.iter().any(|service| service.metadata.name == known.metadata.name) {
            continue;
        }
        let options = DeleteOptions { uid: Some(known.metadata.uid.clone()), ..DeleteOptions::default() };
        let key = ObjectKey::cluster(known.metadata.name.clone());
        match registry.delete(&request, resource, &key, &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}

/// Once, at the start: the built-in versions, and those of custom resources as they are then.
pub async fn register_built_in(registry: &Registry, local: &[(String, String)]) -> Result<(), ApiError> {
    bring(registry, built_in(local), ON_START).await?;
    register_custom(registry, local).await
}

/// Whenever definitions of custom resources change.
pub async fn register_custom(registry: &Registry, local: &[(String, String)]) -> Result<(), ApiError> {
    let definitions = objects::list_typed::<CustomResourceDefinition>(registry, "").await?;
    bring(registry, custom(&definitions, local), ALWAYS).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn served_versions_of_custom_resources_are_registered_once() {
        let definition: CustomResourceDefinition = api::codec::from_value(&json!({"spec": {"group": "x.io",
            "versions": [{"name": "v1", "served": true}, {"name": "v2", "served": false}]}}))
        .unwrap();
        let names = |services: Vec<APIService>| -> Vec<String> {
            services.into_iter().map(|service| service.metadata.name).collect()
        };
        assert_eq!(names(custom(&[definition.clone(), definition], &[])), ["v1.x.io"]);
        let local = [("apps".to_string(), "v1".to_string()), (OWN_GROUP.to_string(), "v1".to_string())];
        assert_eq!(names(built_in(&local)), ["v1.apps"]);
        assert!(group_priority("apps") > group_priority("x.io"));
    }
}
