//! Certificate signing requests: asked by one, approved by another, answered by the signer.

use super::signer_name;
use crate::columns::{self, AGE, Cell, Column, NAME, human_duration, or_none};
use crate::difference;
use crate::names;
use crate::resource::Requester;
use crate::strategy::Strategy;
use crate::with_status;
use api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use meta::field::{Errors, Json, Path};
use meta::{StringList, Time};

pub struct CertificateSigningRequests;

type Condition = CertificateSigningRequestCondition;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Conditions that never go away, and are true or not there.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];
const EXPIRATION_SECONDS_MIN: i32 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

impl Strategy for CertificateSigningRequests {
    type Object = CertificateSigningRequest;
    const PLURAL: &'static str = "certificatesigningrequests";
    const COLUMNS: &'static [Column] = &[
        NAME,
        AGE,
        Column::string("SignerName"),
        Column::string("Requestor"),
        Column::string("RequestedDuration"),
        Column::string("Condition"),
    ];
    const NAME: names::Rule = names::any;
    const SELECTABLE: &'static [&'static str] = &["metadata.name", "spec.signerName"];
    with_status!();

    /// Who asks is what the server knows of the user, never what the user says.
    fn set_requester(request: &mut CertificateSigningRequest, requester: &Requester<'_>) {
        let spec = &mut request.spec;
        spec.username = requester.name.into();
        spec.uid = requester.uid.into();
        spec.groups = requester.groups.to_vec();
        let extra = requester.extra.iter();
        spec.extra = extra.map(|(key, values)| (key.clone(), StringList(values.clone()))).collect();
    }

    fn prepare_for_update(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        new.spec = old.spec.clone();
    }

    fn prepare_for_status(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        for kind in ["Approved", "Denied"] {
            let before: Vec<Condition> = of_kind(old, kind).cloned().collect();
            if of_kind(new, kind).count() == before.len() {
                let after = new.status.conditions.iter_mut().filter(|condition| condition.r#type == kind);
                after.zip(before).for_each(|(after, before)| *after = before);
            }
        }
        stamp(new, old);
    }

    /// `approval` writes conditions only.
    fn prepare_for_subresource(
        _: &str,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        stamp(new, old);
        let conditions = std::mem::take(&mut new.status.conditions);
        new.spec = old.spec.clone();
        new.status = old.status.clone();
        new.status.conditions = conditions;
    }

    fn validate(
        new: &CertificateSigningRequest,
        old: Option<&CertificateSigningRequest>,
        errors: &mut Errors,
    ) {
        validate_all(new, old, "", errors);
    }
    fn validate_status(
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut Errors,
    ) {
        validate_all(new, Some(old), "status", errors);
    }
    fn validate_subresource(
        subresource: &str,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
        errors: &mut Errors,
    ) {
        validate_all(new, Some(old), subresource, errors);
    }

    fn selectable(request: &CertificateSigningRequest) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", request.spec.signer_name.clone())]
    }

    fn row(request: &CertificateSigningRequest, now: Time) -> Vec<Cell> {
        let spec = &request.spec;
        let duration = spec.expiration_seconds.map(|seconds| human_duration(i64::from(seconds)));
        vec![
            columns::name(&request.metadata),
            columns::age(&request.metadata, now),
            or_none(&spec.signer_name).into(),
            spec.username.clone().into(),
            duration.unwrap_or_else(|| "<none>".into()).into(),
            state(request).into(),
        ]
    }
}

fn of_kind<'a>(request: &'a CertificateSigningRequest, kind: &'a str) -> impl Iterator<Item = &'a Condition> {
    request.status.conditions.iter().filter(move |condition| condition.r#type == kind)
}

/// A condition that says nothing of its transition keeps the time it had.
fn stamp(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
    for condition in &mut new.status.conditions {
        if condition.last_transition_time.is_none() {
            let before = of_kind(old, &condition.r#type).find(|before| before.status == condition.status);
            condition.last_transition_time =
                before.and_then(|before| before.last_transition_time).or(condition.last_update_time);
        }
    }
}

fn state(request: &CertificateSigningRequest) -> String {
    let has = |kind: &str| of_kind(request, kind).next().is_some();
    let mut state = if has("Denied") {
        "Denied".to_string()
    } else if has("Approved") {
        "Approved".into()
    } else {
        "Pending".into()
    };
    if has("Failed") {
        state += ",Failed";
    }
    if !request.status.certificate.is_empty() {
        state += ",Issued";
    }
    state
}

/// PEM of the right kind, whose inside is base64; the signature is checked by who can.
fn is_request(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let begins = text.trim_start().starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        || text.trim_start().starts_with("-----BEGIN NEW CERTIFICATE REQUEST-----");
    if begins && text.contains("-----END ") {
        return Ok(());
    }
    Err("PEM block type must be CERTIFICATE REQUEST".into())
}

fn validate_all(
    new: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    subresource: &str,
    errors: &mut Errors,
) {
    let (spec, path) = (&new.spec, Path::new("spec"));
    if let Err(fault) = is_request(&spec.request) {
        errors.invalid(&path.child("request"), Json(&spec.request), fault);
    }
    let usages = path.child("usages");
    if spec.usages.is_empty() {
        errors.required(&usages, "");
    }
    if old.is_none() {
        for (index, usage) in spec.usages.iter().enumerate() {
            if !USAGES.contains(&usage.as_str()) {
                errors.not_supported(&usages.index(index), usage, USAGES);
            }
            if spec.usages[..index].contains(usage) {
                errors.duplicate(&usages.index(index), usage);
            }
        }
    }
    let signer = path.child("signerName");
    if spec.signer_name == LEGACY_SIGNER && old.is_none() {
        let detail = "the legacy signerName is not allowed via this API version";
        errors.invalid(&signer, &spec.signer_name, detail);
    } else {
        signer_name(&spec.signer_name, &signer, errors);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|seconds| *seconds < EXPIRATION_SECONDS_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), seconds, detail);
    }
    conditions(new, errors);
    if let Some(old) = old {
        changed(new, old, subresource, errors);
    }
}

fn conditions(request: &CertificateSigningRequest, errors: &mut Errors) {
    let path = Path::new("status").child("conditions");
    let all = &request.status.conditions;
    for (index, condition) in all.iter().enumerate() {
        let at = path.index(index);
        if condition.r#type.is_empty() {
            errors.required(&at.child("type"), "");
        }
        let lasting = LASTING.contains(&condition.r#type.as_str());
        let known: &[&str] = if lasting { &["True"] } else { &["False", "True", "Unknown"] };
        if condition.status.is_empty() {
            errors.required(&at.child("status"), "");
        } else if !known.contains(&condition.status.as_str()) {
            errors.not_supported(&at.child("status"), &condition.status, known);
        }
        let opposite = match condition.r#type.as_str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !opposite.is_empty() && all[..index].iter().any(|other| other.r#type == opposite) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid(&path, &condition.r#type, detail);
        }
        if all[..index].iter().any(|other| other.r#type == condition.r#type) {
            errors.duplicate(&at.child("type"), &condition.r#type);
        }
    }
}

fn changed(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    subresource: &str,
    errors: &mut Errors,
) {
    let path = Path::new("status");
    let field = path.child("conditions");
    for kind in LASTING {
        if of_kind(new, kind).count() < of_kind(old, kind).count() {
            errors.forbidden(&field, format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| subresource != "approval") {
        let (is, was): (Vec<_>, Vec<_>) = (of_kind(new, kind).collect(), of_kind(old, kind).collect());
        if is.len() > was.len() {
            errors.forbidden(&field, format!("updates may not add a condition of type {kind:?}"));
        } else if is.len() == was.len()
            && let Some((after, before)) = is.iter().zip(&was).find(|(after, before)| after != before)
        {
            let rule = format!("updates may not modify a condition of type {kind:?}");
            errors.forbidden(&field, difference::describe(&rule, *before, *after));
        }
    }
    let certificate = path.child("certificate");
    if new.status.certificate != old.status.certificate {
        if subresource != "status" {
            errors.forbidden(&certificate, "updates may not set certificate content");
        } else if !old.status.certificate.is_empty() {
            errors.forbidden(&certificate, "updates may not modify existing certificate content");
        }
    }
}
