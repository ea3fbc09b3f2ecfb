//! The table itself: one line per kind, and where each is kept.

use crate::convert::{self, Conversion, Spoke};
use crate::plain::*;
use crate::resource::Resource;
use crate::row::Row;
use crate::strategy::Strategy;
use api::{ResourceFacts, Typed};
use std::sync::LazyLock;

/// The root under which a server keeps its objects, as upstream's `--etcd-prefix`.
pub const STORAGE_ROOT: &str = "/registry";

type Line = fn() -> Box<dyn Resource>;

fn row<S: Strategy>() -> Box<dyn Resource> {
    let gvk = S::Object::gvk();
    let facts = facts(gvk.group, gvk.version, S::PLURAL).unwrap_or_else(|| {
        panic!("no facts of {} {}: the schema names every resource", gvk.api_version(), S::PLURAL)
    });
    Box::new(Row::<S>::new(facts, storage_prefix(gvk.group, S::PLURAL)))
}

/// Every kind's hub version, one line each.
static LINES: &[Line] = &[
    row::<crate::admissionregistration::webhook_configurations::MutatingWebhookConfigurations>,
    row::<crate::admissionregistration::admission_policies::ValidatingAdmissionPolicies>,
    row::<crate::admissionregistration::admission_policies::ValidatingAdmissionPolicyBindings>,
    row::<crate::admissionregistration::webhook_configurations::ValidatingWebhookConfigurations>,
    row::<crate::admissionregistration::admission_policies::MutatingAdmissionPolicies>,
    row::<crate::admissionregistration::admission_policies::MutatingAdmissionPolicyBindings>,
    row::<crate::apiextensions::custom_resource_definition::CustomResourceDefinitions>,
    row::<crate::apiregistration::api_service::APIServices>,
    row::<StorageVersions>,
    row::<crate::apps::controller_revision::ControllerRevisions>,
    row::<crate::apps::daemon_set::DaemonSets>,
    row::<crate::apps::deployment::Deployments>,
    row::<crate::apps::replica_set::ReplicaSets>,
    row::<crate::apps::stateful_set::StatefulSets>,
    row::<SelfSubjectReviews>,
    row::<TokenReviews>,
    row::<LocalSubjectAccessReviews>,
    row::<SelfSubjectAccessReviews>,
    row::<SelfSubjectRulesReviews>,
    row::<SubjectAccessReviews>,
    row::<crate::autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalers>,
    row::<crate::batch::cron_job::CronJobs>,
    row::<crate::batch::job::Jobs>,
    row::<crate::certificates::certificate_signing_request::CertificateSigningRequests>,
    row::<crate::certificates::cluster_trust_bundle::ClusterTrustBundles>,
    row::<crate::certificates::pod_certificate_request::PodCertificateRequests>,
    row::<crate::coordination::lease::Leases>,
    row::<crate::coordination::lease_candidate::LeaseCandidates>,
    row::<crate::core::binding::Bindings>,
    row::<crate::core::component_status::ComponentStatuses>,
    row::<crate::core::config_map::ConfigMaps>,
    row::<crate::core::endpoints::EndpointsStrategy>,
    row::<crate::core::event::Events>,
    row::<crate::core::limit_range::LimitRanges>,
    row::<crate::core::namespace::Namespaces>,
    row::<crate::core::node::Nodes>,
    row::<crate::core::persistent_volume_claim::PersistentVolumeClaims>,
    row::<crate::core::persistent_volume::PersistentVolumes>,
    row::<crate::core::pod::Pods>,
    row::<crate::core::pod_template::PodTemplates>,
    row::<crate::core::replication_controller::ReplicationControllers>,
    row::<crate::core::resource_quota::ResourceQuotas>,
    row::<crate::core::secret::Secrets>,
    row::<crate::core::service_account::ServiceAccounts>,
    row::<crate::core::service::Services>,
    row::<crate::discovery::endpoint_slice::EndpointSlices>,
    row::<crate::flowcontrol::flow_schema::FlowSchemas>,
    row::<crate::flowcontrol::priority_level_configuration::PriorityLevelConfigurations>,
    row::<crate::networking::ingress_class::IngressClasses>,
    row::<crate::networking::ingress::Ingresses>,
    row::<crate::networking::ip_address::IPAddresses>,
    row::<crate::networking::network_policy::NetworkPolicies>,
    row::<crate::networking::service_cidr::ServiceCIDRs>,
    row::<crate::node::runtime_class::RuntimeClasses>,
    row::<crate::policy::pod_disruption_budget::PodDisruptionBudgets>,
    row::<crate::rbac::cluster_role_binding::ClusterRoleBindings>,
    row::<crate::rbac::cluster_role::ClusterRoles>,
    row::<crate::rbac::role_binding::RoleBindings>,
    row::<crate::rbac::role::Roles>,
    row::<crate::devices::device_class::DeviceClasses>,
    row::<crate::devices::resource_claim::ResourceClaims>,
    row::<crate::devices::resource_claim::ResourceClaimTemplates>,
    row::<crate::devices::resource_slice::ResourceSlices>,
    row::<DeviceTaintRules>,
    row::<ResourcePoolStatusRequests>,
    row::<crate::scheduling::priority_class::PriorityClasses>,
    row::<PodGroups>,
    row::<Workloads>,
    row::<crate::storage::csi_driver::CSIDrivers>,
    row::<crate::storage::csi_node::CSINodes>,
    row::<crate::storage::csi_storage_capacity::CSIStorageCapacities>,
    row::<crate::storage::storage_class::StorageClasses>,
    row::<crate::storage::volume_attachment::VolumeAttachments>,
    row::<crate::storage::volume_attributes_class::VolumeAttributesClasses>,
    row::<StorageVersionMigrations>,
];

fn facts(group: &str, version: &str, plural: &str) -> Option<&'static ResourceFacts> {
    api::RESOURCES
        .iter()
        .find(|facts| facts.plural == plural && facts.group == group && facts.version == version)
}

/// Upstream's layout: the plural alone for built-in kinds, but for a few older names; custom resources and the two groups that
/// began as extensions stand under their group.
pub fn storage_prefix(group: &str, plural: &str) -> String {
    let place = match (group, plural) {
        ("", "replicationcontrollers") => "controllers",
        ("", "endpoints") => "services/endpoints",
        ("", "nodes") => "minions",
        ("", "services") => "services/specs",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => {
            return format!("{STORAGE_ROOT}/{group}/{plural}");
        }
        (_, plural) => plural,
    };
    format!("{STORAGE_ROOT}/{place}")
}

/// The group under which a resource served by two groups is kept.
fn hub_group(group: &str) -> &str {
    if group == "events.k8s.io" { "" } else { group }
}

fn conversion(facts: &ResourceFacts) -> Conversion {
    match (facts.group, facts.version, facts.plural) {
        ("events.k8s.io", _, "events") => Conversion {
            to_hub: crate::core::event::to_hub,
            from_hub: crate::core::event::from_hub,
            field_label: Some(crate::core::event::field_label),
        },
        ("autoscaling", "v1", _) => Conversion {
            to_hub: crate::autoscaling::to_hub,
            from_hub: crate::autoscaling::from_hub,
            field_label: None,
        },
        _ => convert::BY_NAME,
    }
}

fn spoke(facts: &'static ResourceFacts, hubs: &[&'static dyn Resource]) -> Option<&'static dyn Resource> {
    let hub =
        *hubs.iter().find(|hub| hub.plural() == facts.plural && hub.group() == hub_group(facts.group))?;
    let kind = api::kind(facts.group, facts.version, facts.kind)?;
    let hub_kind = api::kind(hub.group(), hub.version(), hub.kind())?;
    Some(Box::leak(Box::new(Spoke::new(facts, kind, hub_kind, hub, conversion(facts)))))
}

/// Made once, and kept for the life of the process: rows are handed out as `&'static`.
static TABLE: LazyLock<Vec<&'static dyn Resource>> = LazyLock::new(|| {
    let hubs: Vec<&'static dyn Resource> = LINES.iter().map(|line| &*Box::leak(line())).collect();
    api::RESOURCES
        .iter()
        .filter_map(|facts| {
            let own = hubs.iter().find(|hub| std::ptr::eq(hub.facts(), facts));
            own.copied().or_else(|| spoke(facts, &hubs))
        })
        .collect()
});

/// Every built-in resource, in the order of discovery.
pub fn resources() -> &'static [&'static dyn Resource] {
    &TABLE
}

/// The row of one built-in resource.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static dyn Resource> {
    TABLE
        .iter()
        .copied()
        .find(|row| row.plural() == plural && row.group() == group && row.version() == version)
}

/// The row that serves a kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static dyn Resource> {
    TABLE.iter().copied().find(|row| row.kind() == kind && row.group() == group && row.version() == version)
}

#[cfg(test)]
mod tests;
