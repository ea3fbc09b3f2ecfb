//! Pod certificate requests: made by a node for one of its pods.

use super::signer_name;
use crate::columns::{self, Cell, Column, NAME};
use crate::object_meta::immutable_value;
use crate::strategy::{StatusMetadata, Strategy};
use crate::with_status;
use api::certificates::v1beta1::PodCertificateRequest;
use meta::Time;
use meta::field::{Errors, Path};

pub struct PodCertificateRequests;

const DAY_SECONDS: i32 = 86_400;
const SECONDS_MIN: i32 = 3600;
const SECONDS_MAX: i32 = 91 * DAY_SECONDS;

impl Strategy for PodCertificateRequests {
    type Object = PodCertificateRequest;
    const PLURAL: &'static str = "podcertificaterequests";
    const COLUMNS: &'static [Column] = &[
        NAME,
        Column::string("PodName"),
        Column::string("ServiceAccountName"),
        Column::string("NodeName"),
        Column::string("SignerName"),
        Column::string("State"),
        Column::string("UnverifiedUserAnnotations").wide(),
    ];
    const SELECTABLE: &'static [&'static str] =
        &["metadata.name", "metadata.namespace", "spec.signerName", "spec.podName", "spec.nodeName"];
    const UNCONDITIONAL_UPDATE: bool = false;
    const STATUS_METADATA: StatusMetadata = StatusMetadata::Keep;
    with_status!();

    fn default(request: &mut PodCertificateRequest) {
        request.spec.max_expiration_seconds.get_or_insert(DAY_SECONDS);
    }

    fn validate(new: &PodCertificateRequest, old: Option<&PodCertificateRequest>, errors: &mut Errors) {
        let (spec, path) = (&new.spec, Path::new("spec"));
        signer_name(&spec.signer_name, &path.child("signerName"), errors);
        for (value, field) in [
            (&spec.pod_name, "podName"),
            (&spec.pod_uid, "podUID"),
            (&spec.service_account_name, "serviceAccountName"),
            (&spec.service_account_uid, "serviceAccountUID"),
            (&spec.node_name, "nodeName"),
            (&spec.node_uid, "nodeUID"),
        ] {
            if value.is_empty() {
                errors.required(&path.child(field), "must not be empty");
            }
        }
        let field = path.child("maxExpirationSeconds");
        match spec.max_expiration_seconds {
            None => errors.required(&field, "must be set"),
            Some(seconds) if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) => {
                let detail = format!("must be in the range [{SECONDS_MIN}, {SECONDS_MAX}]");
                errors.invalid(&field, seconds, detail);
            }
            Some(_) => {}
        }
        if let Some(old) = old {
            immutable_value(spec, &old.spec, &path, errors);
        }
    }

    fn selectable(request: &PodCertificateRequest) -> Vec<(&'static str, String)> {
        let spec = &request.spec;
        vec![
            ("spec.signerName", spec.signer_name.clone()),
            ("spec.podName", spec.pod_name.clone()),
            ("spec.nodeName", spec.node_name.clone()),
        ]
    }

    fn row(request: &PodCertificateRequest, _now: Time) -> Vec<Cell> {
        let spec = &request.spec;
        let last = request.status.conditions.iter().rev().map(|condition| condition.r#type.as_str());
        let state = last.into_iter().find(|kind| matches!(*kind, "Issued" | "Denied" | "Failed"));
        vec![
            columns::name(&request.metadata),
            spec.pod_name.clone().into(),
            spec.service_account_name.clone().into(),
            spec.node_name.clone().into(),
            spec.signer_name.clone().into(),
            state.unwrap_or("Pending").into(),
            columns::labels(&spec.unverified_user_annotations).into(),
        ]
    }
}
