//! ResourceQuota: what a namespace may hold in all. A new object is added to what its quotas have counted, or refused.
//!
//! The counts in a quota's status are kept right by the quota controller; between its rounds they only grow here.

use super::{Chain, forbidden};
use crate::objects::resource_of;
use api::Object;
use api::core::v1::{Pod, ResourceQuota};
use api::errors::ApiError;
use meta::{ObjectKey, Quantity};
use registry::{Attributes, Operation, Request, UpdateKind};
use resources::quota::{self, Amounts};
use std::collections::{BTreeMap, BTreeSet};

/// What a quota that limits compute makes every container state.
const COMPUTE: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Whether a write can use more than before: creations, updates of what is billed by its fields, resizes.
fn can_grow(attributes: &Attributes<'_>, object: &dyn Object) -> bool {
    let resource = (attributes.resource.group(), attributes.resource.plural());
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "resize") => resource == ("", "pods"),
        (Operation::Update, "") => match resource {
            ("", "services" | "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims") => true,
            ("", "pods") => {
                let ends = |object: &dyn Object| {
                    object.downcast::<Pod>().is_some_and(|pod| pod.spec.active_deadline_seconds.is_some())
                };
                attributes.old.is_some_and(|old| ends(old) != ends(object))
            }
            _ => false,
        },
        _ => false,
    }
}

impl Chain {
    pub(super) async fn check_quota(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        if attributes.namespace.is_empty() || !can_grow(attributes, object) {
            return Ok(());
        }
        let quotas = self.list::<ResourceQuota>(attributes.namespace).await?;
        if quotas.is_empty() {
            return Ok(());
        }
        let (group, plural) = (attributes.resource.group(), attributes.resource.plural());
        let now = crate::verbs::now();
        let usage = |object: &dyn Object| quota::usage(group, plural, object, now);
        let wanted = usage(object);
        let counts = |name: &str| {
            quota::counted(name).is_some_and(|(g, p)| (g.as_str(), p.as_str()) == (group, plural))
        };
        for quota in quotas {
            // A quota holds from when its controller has counted what is there.
            let limited: BTreeSet<&str> =
                quota.status.hard.keys().map(String::as_str).filter(|name| counts(name)).collect();
            if limited.is_empty() || !quota::in_scopes(&quota.spec, object) {
                continue;
            }
            if let Some(pod) = object.downcast::<Pod>() {
                check_stated(attributes, pod, &quota, &limited)?;
            }
            if limited.iter().any(|name| !quota.status.used.contains_key(*name)) {
                let names: Vec<&str> = limited.iter().copied().collect();
                let text = format!(
                    "status unknown for quota: {}, resources: {}",
                    quota.metadata.name,
                    names.join(",")
                );
                return Err(forbidden(attributes, Some(object), text));
            }
            let billed = attributes.old.filter(|old| quota::in_scopes(&quota.spec, *old)).map(usage);
            let more = increase(&wanted, billed.as_ref());
            if more.keys().any(|name| limited.contains(name.as_str())) {
                self.charge(attributes, object, &quota, &more).await?;
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

/// What is used beyond what was billed already; nothing of what is not more.
fn increase(wanted: &Amounts, billed: Option<&Amounts>) -> Amounts {
    let before = |name: &String| billed.and_then(|billed| billed.get(name)).copied().unwrap_or_default();
    wanted
        .iter()
        .map(|(name, amount)| (name.clone(), amount.minus(before(name))))
        .filter(|(_, more)| !more.is_zero() && !more.is_negative())
        .collect()
}

/// Containers must state what is limited of processors and memory, unless the pod does for all of them.
fn check_stated(
    attributes: &Attributes<'_>,
    pod: &Pod,
    quota: &ResourceQuota,
    limited: &BTreeSet<&str>,
) -> Result<(), ApiError> {
    let own = pod.spec.resources.as_ref();
    if own.is_some_and(|own| !own.requests.is_empty() || !own.limits.is_empty()) {
        return Ok(());
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in COMPUTE.into_iter().filter(|name| limited.contains(name)) {
        let (limits, bare) = match name.strip_prefix("limits.") {
            Some(bare) => (true, bare),
            None => (false, name.trim_start_matches("requests.")),
        };
        for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
            let amounts = if limits { &container.resources.limits } else { &container.resources.requests };
            if !amounts.contains_key(bare) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let parts: Vec<String> = missing
        .iter()
        .map(|(name, containers)| {
            let names: Vec<&str> = containers.iter().copied().collect();
            format!("{name} for: {}", names.join(","))
        })
        .collect();
    let text = format!("failed quota: {}: must specify {}", quota.metadata.name, parts.join("; "));
    Err(forbidden(attributes, Some(pod), text))
}

fn add(quota: &mut ResourceQuota, wanted: &Amounts) -> Result<(), String> {
    let mut exceeded: Vec<(&String, Quantity, Quantity, Quantity)> = Vec::new();
    for (name, hard) in &quota.status.hard {
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

    fn amounts(list: &[(&str, &str)]) -> Amounts {
        list.iter().map(|(name, amount)| (name.to_string(), Quantity::parse(amount).unwrap())).collect()
    }

    #[test]
    fn a_quota_counts_up_and_says_what_is_too_much() {
        let mut quota = ResourceQuota::default();
        quota.metadata.name = "q".into();
        quota.status.hard = amounts(&[("pods", "1")]);
        let wanted = amounts(&[("pods", "1")]);
        assert_eq!(add(&mut quota, &wanted), Ok(()));
        assert_eq!(
            add(&mut quota, &wanted),
            Err("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1".into())
        );
    }

    #[test]
    fn only_what_is_more_than_before_is_charged() {
        let (old, new) = (
            amounts(&[("services", "1"), ("services.nodeports", "2")]),
            amounts(&[("services", "1"), ("services.nodeports", "3"), ("services.loadbalancers", "1")]),
        );
        let expected = amounts(&[("services.nodeports", "1"), ("services.loadbalancers", "1")]);
        assert_eq!(increase(&new, Some(&old)), expected);
        assert_eq!(increase(&old, Some(&new)), Amounts::new());
    }
}
