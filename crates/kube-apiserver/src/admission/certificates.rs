//! Certificate requests: who asks is who is authenticated, and approving or signing needs the signer's permission.

use super::{Chain, forbidden};
use api::Object;
use api::certificates::v1::CertificateSigningRequest;
use api::errors::ApiError;
use authz::{Attributes as Access, PRIVILEGED_GROUP, User};
use meta::StringList;
use registry::{Attributes, Operation};
use x509_parser::prelude::FromDer;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

impl Chain {
    /// A request carries its maker, whatever its maker wrote.
    pub(super) fn stamp_requester(&self, attributes: &Attributes<'_>, object: &mut dyn Object) {
        let Some(request) = object.downcast_mut::<CertificateSigningRequest>() else { return };
        let user = &attributes.request.user;
        let spec = &mut request.spec;
        if let Some(old) = attributes.old.and_then(|old| old.downcast::<CertificateSigningRequest>()) {
            spec.username = old.spec.username.clone();
            spec.uid = old.spec.uid.clone();
            spec.groups = old.spec.groups.clone();
            spec.extra = old.spec.extra.clone();
            return;
        }
        spec.username = user.name.clone();
        spec.uid = user.uid.clone();
        spec.groups = user.groups.clone();
        spec.extra =
            user.extra.iter().map(|(key, values)| (key.clone(), StringList(values.clone()))).collect();
    }

    pub(super) fn check_certificates(
        &self,
        attributes: &Attributes<'_>,
        object: &dyn Object,
    ) -> Result<(), ApiError> {
        let Some(request) = object.downcast::<CertificateSigningRequest>() else { return Ok(()) };
        let signer = &request.spec.signer_name;
        let old = attributes.old.and_then(|old| old.downcast::<CertificateSigningRequest>());
        let signed = old.is_some_and(|old| old.status.certificate != request.status.certificate);
        let verb = match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => return check_subject(attributes, request),
            (Operation::Update, "approval") => "approve",
            (Operation::Update, "status") if signed => "sign",
            _ => return Ok(()),
        };
        let domain = signer.split_once('/').map_or(signer.as_str(), |(domain, _)| domain);
        let allowed = [signer.clone(), format!("{domain}/*")].iter().any(|name| {
            let user = &attributes.request.user;
            let request = Access {
                user: User { name: &user.name, groups: &user.groups },
                verb,
                group: "certificates.k8s.io",
                resource: "signers",
                subresource: "",
                namespace: "",
                name,
                path: "",
                field_selector: &[],
            };
            self.access.decide(&request).is_allowed()
        });
        if allowed {
            return Ok(());
        }
        let text = format!("user not permitted to {verb} requests with signerName {signer:?}");
        Err(forbidden(attributes, Some(object), text))
    }
}

/// Nobody asks for a certificate of the group that may do everything.
fn check_subject(attributes: &Attributes<'_>, request: &CertificateSigningRequest) -> Result<(), ApiError> {
    if request.spec.signer_name != CLIENT_SIGNER {
        return Ok(());
    }
    let privileged = organizations(&request.spec.request).iter().any(|name| name == PRIVILEGED_GROUP);
    if !privileged {
        return Ok(());
    }
    let text = format!("use of {CLIENT_SIGNER} signer with {PRIVILEGED_GROUP} group is not allowed");
    Err(forbidden(attributes, Some(request), text))
}

/// The organizations in a request's subject; none where it cannot be read, which validation says.
fn organizations(pem: &[u8]) -> Vec<String> {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem) else { return Vec::new() };
    let Ok((_, request)) =
        x509_parser::certification_request::X509CertificationRequest::from_der(&pem.contents)
    else {
        return Vec::new();
    };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_string).collect()
}
