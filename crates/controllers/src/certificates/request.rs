//! What a certificate request asks for, and whether it is one that a kubelet may make.

use api::certificates::v1::CertificateSigningRequest;
use std::collections::BTreeSet;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// The parts of a request that decisions look at.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: usize,
    pub addresses: usize,
    pub emails: usize,
    pub uris: usize,
}

/// Reads a PEM request.
pub(super) fn parse(pem: &[u8]) -> Result<Request, String> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem)
        .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_string())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    }
    let (_, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    let subject = &csr.certification_request_info.subject;
    let mut out = Request {
        common_name: subject
            .iter_common_name()
            .last()
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default()
            .into(),
        organizations: subject
            .iter_organization()
            .filter_map(|name| name.as_str().ok())
            .map(Into::into)
            .collect(),
        ..Request::default()
    };
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(_) => out.dns_names += 1,
                GeneralName::IPAddress(_) => out.addresses += 1,
                GeneralName::RFC822Name(_) => out.emails += 1,
                GeneralName::URI(_) => out.uris += 1,
                _ => {}
            }
        }
    }
    Ok(out)
}

fn usages_are(usages: &[String], purpose: &str) -> bool {
    let has: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let short = BTreeSet::from(["digital signature", purpose]);
    let long = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    has == short || has == long
}

const ORGANIZATION: &str = "subject organization is not system:nodes";
const COMMON_NAME: &str = "subject common name does not begin with system:node:";

/// Why this is no request for a kubelet's client certificate.
pub(super) fn kubelet_client(request: &Request, usages: &[String]) -> Result<(), String> {
    let fault = if request.organizations != ["system:nodes"] {
        ORGANIZATION
    } else if request.dns_names > 0 {
        "DNS subjectAltNames are not allowed"
    } else if request.emails > 0 {
        "Email subjectAltNames are not allowed"
    } else if request.addresses > 0 {
        "IP subjectAltNames are not allowed"
    } else if request.uris > 0 {
        "URI subjectAltNames are not allowed"
    } else if !request.common_name.starts_with("system:node:") {
        COMMON_NAME
    } else if !usages_are(usages, "client auth") {
        "usages did not match [client auth digital signature key encipherment]"
    } else {
        return Ok(());
    };
    Err(fault.into())
}

/// Why this is no request for a kubelet's serving certificate.
pub(super) fn kubelet_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    let fault = if request.organizations != ["system:nodes"] {
        ORGANIZATION
    } else if request.dns_names == 0 && request.addresses == 0 {
        "DNS or IP subjectAltName is required"
    } else if request.emails > 0 {
        "Email subjectAltNames are not allowed"
    } else if request.uris > 0 {
        "URI subjectAltNames are not allowed"
    } else if !usages_are(usages, "server auth") {
        "usages did not match [digital signature key encipherment server auth]"
    } else if !request.common_name.starts_with("system:node:") {
        COMMON_NAME
    } else {
        return Ok(());
    };
    Err(fault.into())
}

/// Why these are no usages of a client's certificate.
pub(super) fn client_usages(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|usage| usage == "client auth") {
        return Err("missing required usage for client certificate: client auth".into());
    }
    Ok(())
}

/// Whether the request has this condition.
pub(super) fn has(csr: &CertificateSigningRequest, kind: &str) -> bool {
    csr.status.conditions.iter().any(|condition| condition.r#type == kind)
}
