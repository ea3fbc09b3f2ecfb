//! Kinds without rules of their own beyond those of every kind.

use crate::strategy::Strategy;
use crate::{with_spec, with_status};

/// Strategies that only name their kind; `spec` and `status` say which common rules it takes.
macro_rules! plain {
    ($($name:ident: $type:ty, $plural:literal $(, $with:ident)*;)*) => {$(
        pub struct $name;
        impl Strategy for $name {
            type Object = $type;
            const PLURAL: &'static str = $plural;
            $($with!();)*
        }
    )*};
}

plain! {
    StorageVersions: api::apiserverinternal::v1alpha1::StorageVersion, "storageversions", with_status;
    SelfSubjectReviews: api::authentication::v1::SelfSubjectReview, "selfsubjectreviews";
    TokenReviews: api::authentication::v1::TokenReview, "tokenreviews";
    LocalSubjectAccessReviews: api::authorization::v1::LocalSubjectAccessReview, "localsubjectaccessreviews";
    SelfSubjectAccessReviews: api::authorization::v1::SelfSubjectAccessReview, "selfsubjectaccessreviews";
    SelfSubjectRulesReviews: api::authorization::v1::SelfSubjectRulesReview, "selfsubjectrulesreviews";
    SubjectAccessReviews: api::authorization::v1::SubjectAccessReview, "subjectaccessreviews";
    DeviceTaintRules: api::resource::v1alpha3::DeviceTaintRule, "devicetaintrules", with_spec, with_status;
    ResourcePoolStatusRequests: api::resource::v1alpha3::ResourcePoolStatusRequest, "resourcepoolstatusrequests", with_status;
    PodGroups: api::scheduling::v1alpha2::PodGroup, "podgroups", with_status;
    Workloads: api::scheduling::v1alpha2::Workload, "workloads";
    StorageVersionMigrations: api::storagemigration::v1beta1::StorageVersionMigration, "storageversionmigrations", with_status;
}
