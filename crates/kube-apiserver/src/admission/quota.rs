//! ResourceQuota: what a namespace may hold in all. A new object is added to what its quotas have counted, or refused.
//!
//! The counts in a quota's status are kept right by the quota controller; between its rounds they only grow here.

use super::limits::total;
use super::{Chain, forbidden};
use crate::objects::resource_of;
use api::Object;
use api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use api::errors::{ApiError, qualified};
use meta::{ObjectKey, Quantity};
use registry::{Attributes, Request, UpdateKind};
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;

/// Nothing is kept between requests: what counts is in the quotas' own status.
#[derive(Default)]
pub struct Quotas;

/// Kinds with a name of their own in quotas, beside `count/...`.
const NAMED: &[(&str, &str)] = &[
    ("pods", "pods"),
    ("services", "services"),
    ("configmaps", "configmaps"),
    ("secrets", "secrets"),
    ("persistentvolumeclaims", "persistentvolumeclaims"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("resourcequotas", "resourcequotas"),
];

impl Quotas {
    fn usage(&self, attributes: &Attributes<'_>, object: &dyn Object) -> Amounts {
        usage(attributes.resource.group(), attributes.resource.plural(), object)
    }
}

fn one(name: impl Into<String>) -> (String, Quantity) {
    (name.into(), Quantity::from_units(1, meta::quantity::Format::DecimalSi))
}

/// What an object uses of each thing that a quota may limit.
fn usage(group: &str, plural: &str, object: &dyn Object) -> Amounts {
    let mut out = Amounts::from([one(format!("count/{}", qualified(group, plural)))]);
    if group.is_empty()
        && let Some((_, name)) = NAMED.iter().find(|(kind, _)| *kind == plural)
    {
        out.extend([one(*name)]);
    }
    if let Some(pod) = object.downcast::<Pod>() {
        let requests = total(pod, |container| &container.resources.requests);
        let limits = total(pod, |container| &container.resources.limits);
        for (name, amount) in requests {
            out.insert(format!("requests.{name}"), amount);
            if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                out.insert(name, amount);
            }
        }
        out.extend(limits.into_iter().map(|(name, amount)| (format!("limits.{name}"), amount)));
    }
    if let Some(service) = object.downcast::<Service>() {
        let ports = service.spec.ports.iter().filter(|port| port.node_port > 0).count();
        if service.spec.r#type == "LoadBalancer" {
            out.extend([one("services.loadbalancers")]);
        }
        if ports > 0 {
            let amount = Quantity::from_units(ports as i64, meta::quantity::Format::DecimalSi);
            out.insert("services.nodeports".into(), amount);
        }
    }
    if let Some(claim) = object.downcast::<PersistentVolumeClaim>()
        && let Some(amount) = claim.spec.resources.requests.get("storage")
    {
        out.insert("requests.storage".into(), *amount);
        if let Some(class) = &claim.spec.storage_class_name {
            out.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), *amount);
            out.extend([one(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"))]);
        }
    }
    out
}

/// What a quota that limits compute makes every container state.
const COMPUTE: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

impl Chain {
    pub(super) async fn check_quota(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        if attributes.namespace.is_empty() {
            return Ok(());
        }
        let quotas = self.list::<ResourceQuota>(attributes.namespace).await?;
        let quotas: Vec<_> = quotas.into_iter().filter(|quota| applies(quota, object)).collect();
        if quotas.is_empty() {
            return Ok(());
        }
        let wanted = self.quota.usage(attributes, object);
        if let Some(pod) = object.downcast::<Pod>() {
            for quota in &quotas {
                check_stated(attributes, object, pod, quota)?;
            }
        }
        for quota in quotas {
            let touched = quota.spec.hard.keys().any(|name| wanted.contains_key(name));
            if touched {
                self.charge(attributes, object, &quota, &wanted).await?;
            }
        }
        Ok(())
    }

    /// Adds to a quota's count under the store's compare-and-swap, or refuses.
    async fn charge(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
        quota: &ResourceQuota,
        wanted: &Amounts,
    ) -> Result<(), ApiError> {
        let key = ObjectKey::new(quota.metadata.namespace.clone(), quota.metadata.name.clone());
        let mut request = Request::internal("kube-apiserver");
        request.dry_run = attributes.request.dry_run;
        let add = |stored: &mut dyn Object| match stored.downcast_mut::<ResourceQuota>() {
            Some(quota) => add(quota, wanted).map_err(|text| forbidden(attributes, Some(object), text)),
            None => Err(ApiError::internal("a quota is not a quota")),
        };
        let resource = resource_of::<ResourceQuota>();
        self.registry()?.modify(&request, resource, &key, UpdateKind::Status, &add).await?;
        Ok(())
    }
}

/// Quotas with scopes count only pods that are in them.
fn applies(quota: &ResourceQuota, object: &dyn Object) -> bool {
    if quota.spec.scopes.is_empty() && quota.spec.scope_selector.is_none() {
        return true;
    }
    let Some(pod) = object.downcast::<Pod>() else { return false };
    let stated =
        pod.spec.containers.iter().any(|container| {
            !container.resources.requests.is_empty() || !container.resources.limits.is_empty()
        });
    let fits = |scope: &str| match scope {
        "Terminating" => pod.spec.active_deadline_seconds.is_some(),
        "NotTerminating" => pod.spec.active_deadline_seconds.is_none(),
        "BestEffort" => !stated,
        "NotBestEffort" => stated,
        _ => true,
    };
    let classes = quota.spec.scope_selector.iter().flat_map(|selector| &selector.match_expressions);
    let class_fits = |term: &api::core::v1::ScopedResourceSelectorRequirement| {
        if term.scope_name != "PriorityClass" {
            return fits(&term.scope_name);
        }
        let class = &pod.spec.priority_class_name;
        match term.operator.as_str() {
            "In" => term.values.contains(class),
            "NotIn" => !term.values.contains(class),
            "Exists" => !class.is_empty(),
            _ => class.is_empty(),
        }
    };
    quota.spec.scopes.iter().all(|scope| fits(scope)) && classes.into_iter().all(class_fits)
}

fn check_stated(
    attributes: &Attributes<'_>,
    object: &dyn Object,
    pod: &Pod,
    quota: &ResourceQuota,
) -> Result<(), ApiError> {
    let missing: Vec<&str> = COMPUTE
        .into_iter()
        .filter(|name| quota.spec.hard.contains_key(*name))
        .filter(|name| {
            let (limits, bare) = match name.strip_prefix("limits.") {
                Some(bare) => (true, bare),
                None => (false, name.trim_start_matches("requests.")),
            };
            pod.spec.containers.iter().chain(&pod.spec.init_containers).any(|container| {
                let amounts =
                    if limits { &container.resources.limits } else { &container.resources.requests };
                !amounts.contains_key(bare)
            })
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("failed quota: {}: must specify {}", quota.metadata.name, missing.join(","));
    Err(forbidden(attributes, Some(object), text))
}

fn add(quota: &mut ResourceQuota, wanted: &Amounts) -> Result<(), String> {
    let mut exceeded: Vec<(&String, Quantity, Quantity, Quantity)> = Vec::new();
    for (name, hard) in &quota.spec.hard {
        let Some(amount) = wanted.get(name) else { continue };
        let used = quota.status.used.get(name).copied().unwrap_or_default();
        let next = used.plus(*amount);
        if next > *hard {
            exceeded.push((name, *amount, used, *hard));
        } else {
            quota.status.used.insert(name.clone(), next);
        }
    }
    if exceeded.is_empty() {
        quota.status.hard = quota.spec.hard.clone();
        return Ok(());
    }
    let list = |pick: fn(&(&String, Quantity, Quantity, Quantity)) -> Quantity| {
        let items: Vec<String> = exceeded.iter().map(|item| format!("{}={}", item.0, pick(item))).collect();
        items.join(",")
    };
    Err(format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.metadata.name,
        list(|item| item.1),
        list(|item| item.2),
        list(|item| item.3)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_counts_up_and_says_what_is_too_much() {
        let mut quota = ResourceQuota::default();
        quota.metadata.name = "q".into();
        quota.spec.hard = Amounts::from([("pods".into(), Quantity::parse("1").unwrap())]);
        let wanted = Amounts::from([one("pods")]);
        assert_eq!(add(&mut quota, &wanted), Ok(()));
        assert_eq!(
            add(&mut quota, &wanted),
            Err("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1".into())
        );
    }
}
