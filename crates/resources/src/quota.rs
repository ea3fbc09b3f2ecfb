//! What an object uses of what a ResourceQuota may limit, and which objects a quota's scopes take in.
//!
//! Admission adds with it what comes, the quota controller with it what is there: so that both count alike.

use crate::core::pod::resources::{pod_limits, pod_requests, qos_class};
use api::Object;
use api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec, ScopedResourceSelectorRequirement,
    Service,
};
use api::errors::qualified;
use api::resource::v1::ResourceClaim;
use meta::quantity::Format;
use meta::{Quantity, Time};
use std::collections::{BTreeMap, BTreeSet};

pub type Amounts = BTreeMap<String, Quantity>;

/// The most devices that one request can be given, which one for all devices counts as.
const DEVICES_MAX: i64 = 32;
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// Still in use by the names that older quotas know, beside `count/...`; of the core group.
const NAMED: [&str; 5] = ["configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services"];
const POD_NAMES: [&str; 10] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// Whose number or sum a name in a quota stands for, as (group, plural); a name that nothing counts has none.
pub fn counted(name: &str) -> Option<(String, String)> {
    let core = |plural: &str| Some((String::new(), plural.to_string()));
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group.to_string(), plural.to_string()));
    }
    if NAMED.contains(&name) {
        return core(name);
    }
    if matches!(name, "services.nodeports" | "services.loadbalancers") {
        return core("services");
    }
    let by_class = |part: &str| name.strip_suffix(part).is_some_and(|rest| rest.ends_with(STORAGE_CLASS));
    if matches!(name, "persistentvolumeclaims" | "requests.storage")
        || by_class("persistentvolumeclaims")
        || by_class("requests.storage")
    {
        return core("persistentvolumeclaims");
    }
    if name.ends_with(DEVICE_CLASS) {
        return Some(("resource.k8s.io".into(), "resourceclaims".into()));
    }
    // Extended resources are limited by what is requested of them alone.
    let extended = || name.starts_with("requests.") && is_extended(name);
    let huge = name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-");
    if POD_NAMES.contains(&name) || huge || extended() { core("pods") } else { None }
}

fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

fn number(count: i64) -> Quantity {
    Quantity::from_units(count, Format::DecimalSi)
}

/// What an object uses of each thing that a quota may limit. `now` tells pods that outstayed their grace period, which
/// are not charged for: their node may be lost.
pub fn usage(group: &str, plural: &str, object: &dyn Object, now: Time) -> Amounts {
    let mut out = Amounts::from([(format!("count/{}", qualified(group, plural)), number(1))]);
    if group.is_empty() && NAMED.contains(&plural) {
        out.insert(plural.into(), number(1));
    }
    if let Some(pod) = object.downcast::<Pod>() {
        if is_charged(pod, now) {
            compute(pod, &mut out);
        }
    } else if let Some(service) = object.downcast::<Service>() {
        service_usage(service, &mut out);
    } else if let Some(claim) = object.downcast::<PersistentVolumeClaim>() {
        claim_usage(claim, &mut out);
    } else if let Some(claim) = object.downcast::<ResourceClaim>() {
        device_usage(claim, &mut out);
    }
    out
}

/// When a pod that is going away stops to be charged for; `None` where it is not, or at once where it has finished.
pub fn charged_until(pod: &Pod) -> Option<i64> {
    let (deleted, grace) = (pod.metadata.deletion_timestamp?, pod.metadata.deletion_grace_period_seconds?);
    Some(deleted.seconds().saturating_add(grace))
}

/// Whether a pod's resources count: not once it has finished, nor once it should have.
pub fn is_charged(pod: &Pod, now: Time) -> bool {
    !crate::core::pod::is_finished(pod) && charged_until(pod).is_none_or(|until| now.seconds() <= until)
}

fn compute(pod: &Pod, out: &mut Amounts) {
    out.insert("pods".into(), number(1));
    for (name, amount) in pod_requests(pod) {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if plain || name.starts_with("hugepages-") {
            out.insert(format!("requests.{name}"), amount);
            out.insert(name, amount);
        } else if is_extended(&name) {
            out.insert(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in pod_limits(pod) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            out.insert(format!("limits.{name}"), amount);
        }
    }
}

/// Node ports are counted by intent: at admission they are not allocated yet.
fn service_usage(service: &Service, out: &mut Amounts) {
    let spec = &service.spec;
    let all = i64::try_from(spec.ports.len()).unwrap_or(i64::MAX);
    let stated = spec.ports.iter().filter(|port| port.node_port != 0).count();
    let balanced = spec.r#type == "LoadBalancer";
    let ports = match spec.r#type.as_str() {
        "NodePort" => all,
        "LoadBalancer" if spec.allocate_load_balancer_node_ports == Some(false) => {
            i64::try_from(stated).unwrap_or(i64::MAX)
        }
        "LoadBalancer" => all,
        _ => 0,
    };
    out.insert("services.nodeports".into(), number(ports));
    out.insert("services.loadbalancers".into(), number(i64::from(balanced)));
}

fn claim_usage(claim: &PersistentVolumeClaim, out: &mut Amounts) {
    let beta = claim.metadata.annotations.get("volume.beta.kubernetes.io/storage-class");
    let class = beta.or(claim.spec.storage_class_name.as_ref()).filter(|class| !class.is_empty());
    out.insert("persistentvolumeclaims".into(), number(1));
    if let Some(class) = class {
        out.insert(format!("{class}{STORAGE_CLASS}persistentvolumeclaims"), number(1));
    }
    let Some(asked) = claim.spec.resources.requests.get("storage") else { return };
    // An expansion that was given up still holds what was allocated for it.
    let held = claim.status.allocated_resources.get("storage").filter(|held| *held > asked);
    let amount = *held.unwrap_or(asked);
    out.insert("requests.storage".into(), amount);
    if let Some(class) = class {
        out.insert(format!("{class}{STORAGE_CLASS}requests.storage"), amount);
    }
}

fn device_usage(claim: &ResourceClaim, out: &mut Amounts) {
    let devices = |mode: &str, count: i64| match mode {
        "ExactCount" => count,
        "All" => DEVICES_MAX,
        _ => 0,
    };
    for request in &claim.spec.devices.requests {
        // Of alternatives the dearest counts, class by class.
        let mut worst: BTreeMap<String, i64> = BTreeMap::new();
        for option in &request.first_available {
            let most = worst.entry(option.device_class_name.clone()).or_default();
            *most = (*most).max(devices(&option.allocation_mode, option.count));
        }
        if let Some(exact) = request.exactly.as_ref().filter(|_| request.first_available.is_empty()) {
            worst.insert(exact.device_class_name.clone(), devices(&exact.allocation_mode, exact.count));
        }
        for (class, count) in worst {
            let sum = out.entry(format!("{class}{DEVICE_CLASS}")).or_insert(number(0));
            *sum = sum.plus(number(count));
        }
    }
}

/// Whether a quota counts an object, as far as its scopes go: without any it counts all.
pub fn in_scopes(spec: &ResourceQuotaSpec, object: &dyn Object) -> bool {
    let terms = spec.scope_selector.iter().flat_map(|selector| &selector.match_expressions);
    spec.scopes.iter().all(|scope| fits(scope, None, object))
        && terms.into_iter().all(|term| fits(&term.scope_name, Some(term), object))
}

fn fits(scope: &str, term: Option<&ScopedResourceSelectorRequirement>, object: &dyn Object) -> bool {
    if let Some(claim) = object.downcast::<PersistentVolumeClaim>() {
        return scope == "VolumeAttributesClass" && any_selected(term, &attribute_classes(claim));
    }
    let Some(pod) = object.downcast::<Pod>() else { return false };
    let ends = pod.spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => qos_class(&pod.spec) == "BestEffort",
        "NotBestEffort" => qos_class(&pod.spec) != "BestEffort",
        "PriorityClass" => {
            let class = &pod.spec.priority_class_name;
            any_selected(term, &(!class.is_empty()).then_some(class.as_str()).into_iter().collect())
        }
        "CrossNamespacePodAffinity" => has_cross_namespace_affinity(pod),
        _ => false,
    }
}

fn attribute_classes(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let wanted = claim.spec.volume_attributes_class_name.as_deref();
    let current = claim.status.current_volume_attributes_class_name.as_deref();
    let coming = claim.status.modify_volume_status.as_deref();
    let coming = coming.map(|status| status.target_volume_attributes_class_name.as_str());
    [wanted, current, coming].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

/// Whether a term selects one of the values; where there is none, whether it selects their absence.
fn any_selected(term: Option<&ScopedResourceSelectorRequirement>, values: &BTreeSet<&str>) -> bool {
    let Some(term) = term else { return !values.is_empty() };
    let listed = |value: &str| term.values.iter().any(|known| known == value);
    match term.operator.as_str() {
        "In" => values.iter().any(|value| listed(value)),
        "NotIn" => values.is_empty() || values.iter().any(|value| !listed(value)),
        "DoesNotExist" => values.is_empty(),
        _ => !values.is_empty(),
    }
}

fn has_cross_namespace_affinity(pod: &Pod) -> bool {
    let Some(affinity) = &pod.spec.affinity else { return false };
    let crosses = |term: &PodAffinityTerm| !term.namespaces.is_empty() || term.namespace_selector.is_some();
    let towards = affinity.pod_affinity.as_ref().is_some_and(|affinity| {
        affinity.required_during_scheduling_ignored_during_execution.iter().any(crosses)
            || affinity
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .any(|weighted| crosses(&weighted.pod_affinity_term))
    });
    towards
        || affinity.pod_anti_affinity.as_ref().is_some_and(|affinity| {
            affinity.required_during_scheduling_ignored_during_execution.iter().any(crosses)
                || affinity
                    .preferred_during_scheduling_ignored_during_execution
                    .iter()
                    .any(|weighted| crosses(&weighted.pod_affinity_term))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn object<T: api::Typed + Object>(text: &str) -> T {
        api::codec::from_json(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap()
    }

    fn check(plural: &str, object: &dyn Object, expected: Expect) {
        let now = Time::parse("2026-01-01T00:00:00Z").unwrap();
        let amounts = usage("", plural, object, now);
        let text: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        expected.assert_eq(&text.join(" "));
    }

    #[test]
    fn objects_use_what_quotas_name() {
        let mut pod: Pod = object(
            "spec: {overhead: {cpu: 100m}, containers: [{name: a, resources: {requests: {cpu: 1, example.com/gpu: 2, hugepages-2Mi: 4Mi}, limits: {cpu: 2, memory: 1Gi}}}]}",
        );
        check(
            "pods",
            &pod,
            expect![
                "count/pods=1 cpu=1100m hugepages-2Mi=4Mi limits.cpu=2100m limits.memory=1Gi pods=1 requests.cpu=1100m requests.example.com/gpu=2 requests.hugepages-2Mi=4Mi"
            ],
        );
        pod.status.phase = "Failed".into();
        check("pods", &pod, expect!["count/pods=1"]);
        let service: Service = object("spec: {type: LoadBalancer, ports: [{port: 80}, {port: 81}]}");
        check(
            "services",
            &service,
            expect!["count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"],
        );
        let claim: PersistentVolumeClaim =
            object("spec: {storageClassName: gold, resources: {requests: {storage: 1Gi}}}");
        check(
            "persistentvolumeclaims",
            &claim,
            expect![
                "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi"
            ],
        );
    }

    #[test]
    fn what_an_object_uses_is_counted_by_its_own_kind() {
        for (name, expected) in [
            ("count/deployments.apps", Some(("apps", "deployments"))),
            ("count/pods", Some(("", "pods"))),
            ("limits.memory", Some(("", "pods"))),
            ("requests.example.com/gpu", Some(("", "pods"))),
            ("requests.storage", Some(("", "persistentvolumeclaims"))),
            ("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
            ("services.nodeports", Some(("", "services"))),
            ("example.com/gpu", None),
        ] {
            let expected = expected.map(|(group, plural)| (group.to_string(), plural.to_string()));
            assert_eq!(counted(name), expected, "{name}");
        }
    }

    #[test]
    fn scopes_take_pods_in() {
        let spec = |text: &str| object::<api::core::v1::ResourceQuota>(text).spec;
        let pod: Pod =
            object("spec: {priorityClassName: high, activeDeadlineSeconds: 5, containers: [{name: a}]}");
        for (scope, expected) in [
            ("spec: {scopes: [Terminating, BestEffort]}", true),
            ("spec: {scopes: [NotTerminating]}", false),
            ("spec: {scopes: [PriorityClass]}", true),
            (
                "spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [low]}]}}",
                false,
            ),
            (
                "spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: NotIn, values: [low]}]}}",
                true,
            ),
            ("spec: {}", true),
        ] {
            assert_eq!(in_scopes(&spec(scope), &pod), expected, "{scope}");
        }
        assert!(!in_scopes(&spec("spec: {scopes: [Terminating]}"), &Service::default()));
    }
}
