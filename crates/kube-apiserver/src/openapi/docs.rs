//! What fields are for, in the words of the published API, out of a dependency's schemas: `kubectl explain` shows them.
//!
//! Read once, when the first OpenAPI document is made.

use k8s_openapi::schemars::SchemaGenerator;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Descriptions of types by published name: their own, and their fields'.
type Docs = HashMap<String, (String, HashMap<String, String>)>;

macro_rules! roots {
    ($generator:expr; $($($module:ident)::+ { $($kind:ident)* })*) => {
        $({
            use k8s_openapi::$($module)::+ as kinds;
            $( $generator.subschema_for::<kinds::$kind>(); )*
        })*
    };
}

/// Every kind; what they are made of comes with them.
fn definitions() -> HashMap<String, Value> {
    let mut generator = SchemaGenerator::default();
    roots! {
        generator;
        api::admissionregistration::v1 {
            MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration
        }
        api::admissionregistration::v1alpha1 { MutatingAdmissionPolicy MutatingAdmissionPolicyBinding }
        api::admissionregistration::v1beta1 { MutatingAdmissionPolicy MutatingAdmissionPolicyBinding }
        api::apiserverinternal::v1alpha1 { StorageVersion }
        api::apps::v1 { ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet }
        api::authentication::v1 { SelfSubjectReview TokenRequest TokenReview }
        api::authorization::v1 {
            LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview
        }
        api::autoscaling::v1 { HorizontalPodAutoscaler Scale }
        api::autoscaling::v2 { HorizontalPodAutoscaler }
        api::batch::v1 { CronJob Job }
        api::certificates::v1 { CertificateSigningRequest }
        api::certificates::v1alpha1 { ClusterTrustBundle }
        api::certificates::v1beta1 { ClusterTrustBundle PodCertificateRequest }
        api::coordination::v1 { Lease }
        api::coordination::v1alpha2 { LeaseCandidate }
        api::coordination::v1beta1 { LeaseCandidate }
        api::core::v1 {
            Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service
            ServiceAccount
        }
        api::discovery::v1 { EndpointSlice }
        api::events::v1 { Event }
        api::flowcontrol::v1 { FlowSchema PriorityLevelConfiguration }
        api::networking::v1 { IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR }
        api::networking::v1beta1 { IPAddress ServiceCIDR }
        api::node::v1 { RuntimeClass }
        api::policy::v1 { Eviction PodDisruptionBudget }
        api::rbac::v1 { ClusterRole ClusterRoleBinding Role RoleBinding }
        api::resource::v1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        api::resource::v1alpha3 { DeviceTaintRule ResourcePoolStatusRequest }
        api::resource::v1beta1 { DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice }
        api::resource::v1beta2 {
            DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice
        }
        api::scheduling::v1 { PriorityClass }
        api::scheduling::v1alpha2 { PodGroup Workload }
        api::storage::v1 {
            CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass
        }
        api::storage::v1beta1 { VolumeAttributesClass }
        api::storagemigration::v1beta1 { StorageVersionMigration }
        apiextensions_apiserver::pkg::apis::apiextensions::v1 { CustomResourceDefinition }
        apimachinery::pkg::apis::meta::v1 { APIGroup APIGroupList APIResourceList APIVersions Status }
        kube_aggregator::pkg::apis::apiregistration::v1 { APIService }
    }
    generator.definitions().clone().into_iter().collect()
}

fn docs() -> &'static Docs {
    static DOCS: OnceLock<Docs> = OnceLock::new();
    DOCS.get_or_init(|| {
        let text = |schema: &Value| schema["description"].as_str().unwrap_or_default().to_string();
        let read = |(name, schema): (String, Value)| {
            let properties = schema["properties"].as_object().into_iter().flatten();
            let fields = properties.map(|(field, schema)| (field.clone(), text(schema))).collect();
            (name, (text(&schema), fields))
        };
        definitions().into_iter().map(read).collect()
    })
}

/// The description of a type by its published name.
pub fn of_type(name: &str) -> Option<&'static str> {
    docs().get(name).map(|(text, _)| text.as_str()).filter(|text| !text.is_empty())
}

/// The description of one field of a type.
pub fn of_field(name: &str, field: &str) -> Option<&'static str> {
    docs().get(name)?.1.get(field).map(String::as_str).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_explained() {
        let text = of_field("io.k8s.api.core.v1.Container", "image").unwrap();
        assert!(text.starts_with("Container image name."), "{text}");
        assert!(of_type("io.k8s.api.apps.v1.Deployment").unwrap().contains("declarative updates"));
    }
}
