//! Resource quotas: what a namespace holds of each thing that a quota limits, counted anew whenever it changes.
//!
//! Admission adds to a count what it lets in; nothing but this takes anything off it. The quota's own status therefore
//! wakes nobody here: a charge is in it before its object is in the view.

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Plan};
use api::Object;
use api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use api::resource::v1::ResourceClaim;
use meta::quantity::Format;
use meta::{ObjectKey, Quantity};
use resources::quota::{self, Amounts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use view::{ResourceId, Vertex, View};

pub struct ResourceQuotas {
    /// How often everything is counted anew: what admission charged for and then was not stored is found only so.
    pub resync_seconds: i64,
}

/// Resources whose objects are looked at one by one, as (group, plural); of all others only the number is asked.
fn is_typed(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        ("", "pods" | "services" | "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims")
    )
}

/// The quotas of a namespace that count objects of a resource.
fn quotas_for(view: &View, namespace: &str, group: &str, plural: &str) -> Vec<ObjectKey> {
    let counts = |quota: &ResourceQuota| {
        let mut named = quota.spec.hard.keys().filter_map(|name| quota::counted(name));
        named.any(|(g, p)| g == group && p == plural)
    };
    let quotas = view.in_namespace::<ResourceQuota>(namespace);
    quotas.filter(|quota| counts(quota)).map(|quota| view::key_of(quota.as_ref())).collect()
}

/// Objects that come, go, or come to use something else.
fn on<T: api::Typed + Object>(group: &'static str, plural: &'static str) -> Watch {
    Watch::new::<T>(move |view, old, new| {
        let Some(metadata) = new.or(old).map(|object| object.metadata()) else { return Vec::new() };
        let quotas = quotas_for(view, &metadata.namespace, group, plural);
        if quotas.is_empty() {
            return quotas;
        }
        let uses = |object: Option<&T>| {
            object.map(|object| quota::usage(group, plural, object, meta::Time::default()))
        };
        let scopes = |object: Option<&T>, key: &ObjectKey| {
            let quota = view.get::<ResourceQuota>(key);
            object.zip(quota).map(|(object, quota)| quota::in_scopes(&quota.spec, object))
        };
        let changed = uses(old) != uses(new);
        let leaving = old.is_some_and(|old| old.metadata().deletion_timestamp.is_none())
            && metadata.deletion_timestamp.is_some();
        quotas.into_iter().filter(|key| changed || leaving || scopes(old, key) != scopes(new, key)).collect()
    })
}

impl Controller for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::new::<ResourceQuota>(|_, old, new| {
                let Some(quota) = new else { return Vec::new() };
                let uncounted = quota.spec.hard != quota.status.hard
                    || quota.status.hard.keys().any(|name| !quota.status.used.contains_key(name));
                let concerns = old.is_none_or(|old| old.spec != quota.spec) || uncounted;
                concerns.then(|| view::key_of(quota)).into_iter().collect()
            }),
            on::<Pod>("", "pods"),
            on::<Service>("", "services"),
            on::<PersistentVolumeClaim>("", "persistentvolumeclaims"),
            on::<ResourceClaim>("resource.k8s.io", "resourceclaims"),
        ]
    }

    fn uses_graph(&self) -> bool {
        true
    }

    fn vertex_keys(
        &self,
        view: &View,
        old: Option<&Arc<Vertex>>,
        new: Option<&Arc<Vertex>>,
    ) -> Vec<ObjectKey> {
        let (Some(vertex), true) = (new.or(old), old.is_none() || new.is_none()) else { return Vec::new() };
        let id = &vertex.resource;
        if is_typed(&id.group, &id.plural) || vertex.key.namespace.is_empty() {
            return Vec::new();
        }
        quotas_for(view, &vertex.key.namespace, &id.group, &id.plural)
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(quota) = context.view.get::<ResourceQuota>(context.key) else { return plan };
        if self.resync_seconds > 0 {
            plan.again_after_seconds(self.resync_seconds);
        }
        // What cannot be counted now keeps the count it has.
        let mut used: Amounts = quota.status.used.clone();
        used.retain(|name, _| quota.spec.hard.contains_key(name));
        used.extend(count(&quota, context, &mut plan));
        if quota.spec.hard != quota.status.hard || !same(&used, &quota.status.used) {
            let mut next = ResourceQuota::clone(&quota);
            next.status.hard = quota.spec.hard.clone();
            next.status.used = used;
            plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
        }
        plan
    }
}

/// Equal as amounts, however they are written.
fn same(a: &Amounts, b: &Amounts) -> bool {
    a.len() == b.len() && a.iter().all(|(name, amount)| b.get(name).is_some_and(|other| amount == other))
}

/// What is used of each limited thing that can be counted.
fn count(quota: &ResourceQuota, context: &Context<'_>, plan: &mut Plan) -> Amounts {
    let mut wanted: BTreeMap<(String, String), BTreeSet<&String>> = BTreeMap::new();
    for name in quota.spec.hard.keys() {
        if let Some(resource) = quota::counted(name) {
            wanted.entry(resource).or_default().insert(name);
        }
    }
    let namespace = &quota.metadata.namespace;
    let mut used = Amounts::new();
    for ((group, plural), names) in wanted {
        let sum = match (group.as_str(), plural.as_str()) {
            ("", "pods") => {
                let pods = context.view.in_namespace::<Pod>(namespace);
                Some(sum(quota, &group, &plural, pods.inspect(|pod| wait_for(pod, context, plan)), context))
            }
            ("", "services") => {
                Some(sum(quota, &group, &plural, context.view.in_namespace::<Service>(namespace), context))
            }
            ("", "persistentvolumeclaims") => {
                let claims = context.view.in_namespace::<PersistentVolumeClaim>(namespace);
                Some(sum(quota, &group, &plural, claims, context))
            }
            ("resource.k8s.io", "resourceclaims") => {
                let claims = context.view.in_namespace::<ResourceClaim>(namespace);
                Some(sum(quota, &group, &plural, claims, context))
            }
            _ => number(quota, &group, &plural, context.view),
        };
        let Some(sum) = sum else { continue };
        for name in names {
            let amount = match &sum {
                Sum::Number(number) => *number,
                Sum::Amounts(amounts) => amounts.get(name).copied().unwrap_or(zero()),
            };
            used.insert(name.clone(), amount);
        }
    }
    used
}

enum Sum {
    Amounts(Amounts),
    Number(Quantity),
}

fn zero() -> Quantity {
    Quantity::from_units(0, Format::DecimalSi)
}

/// A pod that is going away is charged for until its grace period is over, whether or not it is gone by then.
fn wait_for(pod: &Pod, context: &Context<'_>, plan: &mut Plan) {
    if let Some(until) = quota::charged_until(pod)
        && until >= context.now.seconds()
    {
        plan.again_after_seconds(until + 1 - context.now.seconds());
    }
}

fn sum<T: Object>(
    quota: &ResourceQuota,
    group: &str,
    plural: &str,
    objects: impl Iterator<Item = Arc<T>>,
    context: &Context<'_>,
) -> Sum {
    let mut total = Amounts::new();
    for object in objects.filter(|object| quota::in_scopes(&quota.spec, object.as_ref())) {
        for (name, amount) in quota::usage(group, plural, object.as_ref(), context.now) {
            total.entry(name).and_modify(|sum| *sum = sum.plus(amount)).or_insert(amount);
        }
    }
    Sum::Amounts(total)
}

/// How many objects there are of a resource that only the graph knows; `None` where it does not know it in full.
fn number(quota: &ResourceQuota, group: &str, plural: &str, view: &View) -> Option<Sum> {
    let of = |id: &&Arc<ResourceId>| id.group == group && id.plural == plural && id.namespaced;
    let id = view.graph().resources().find(of)?;
    if !view.graph().synced(id) {
        return None;
    }
    let scoped = !quota.spec.scopes.is_empty() || quota.spec.scope_selector.is_some();
    let count = if scoped { 0 } else { view.graph().in_namespace(id, &quota.metadata.namespace).count() };
    Some(Sum::Number(Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)))
}
