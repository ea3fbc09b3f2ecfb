//! Certificate signing requests: approved where a kubelet may have what it asks for, signed where approved, deleted
//! when nobody needs them any more.

mod request;

use crate::controller::{Context, Controller, Watch};
use crate::plan::{Action, Errand, Plan, Report, Target};
use api::authorization::v1::{ResourceAttributes, SubjectAccessReview};
use api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, has};

const ACCOUNT: &str = "certificate-controller";
const HOUR: i64 = 3600;
/// The least time that a certificate is signed for.
const SECONDS_MIN: i64 = 600;

/// Approves what kubelets ask for, where RBAC lets the requester create `selfnodeclient` or `nodeclient` requests.
pub struct Approver;

struct Recognized {
    subresource: &'static str,
    message: &'static str,
}

const SELF: Recognized = Recognized {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NODE: Recognized = Recognized {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// What the request may be approved as, in the order in which to try.
fn recognize(csr: &CertificateSigningRequest) -> Vec<Recognized> {
    let Ok(asked) = request::parse(&csr.spec.request) else { return Vec::new() };
    if csr.spec.signer_name != KUBELET_CLIENT || request::kubelet_client(&asked, &csr.spec.usages).is_err() {
        return Vec::new();
    }
    if asked.common_name == csr.spec.username { vec![SELF, NODE] } else { vec![NODE] }
}

fn review(csr: &CertificateSigningRequest, subresource: &str) -> SubjectAccessReview {
    let mut review = SubjectAccessReview::default();
    review.spec.user.clone_from(&csr.spec.username);
    review.spec.uid.clone_from(&csr.spec.uid);
    review.spec.groups.clone_from(&csr.spec.groups);
    review.spec.extra.clone_from(&csr.spec.extra);
    review.spec.resource_attributes = Some(Box::new(ResourceAttributes {
        group: "certificates.k8s.io".into(),
        version: "*".into(),
        resource: "certificatesigningrequests".into(),
        subresource: subresource.into(),
        verb: "create".into(),
        ..ResourceAttributes::default()
    }));
    review
}

impl Controller for Approver {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    fn component(&self) -> &'static str {
        ACCOUNT
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own::<CertificateSigningRequest>()]
    }

    /// Asks for one way of approval after the other; the mark says which one the answer is for.
    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(csr) = context.view.get::<CertificateSigningRequest>(context.key) else { return plan };
        if !csr.status.certificate.is_empty() || has(&csr, "Approved") || has(&csr, "Denied") {
            return plan;
        }
        let ways = recognize(&csr);
        let asked = context.marked.and_then(|(mark, _)| ways.iter().position(|way| way.subresource == mark));
        match (asked, context.report) {
            (Some(asked), Some(Report::Review(true))) => {
                let mut next = CertificateSigningRequest::clone(&csr);
                next.status.conditions.push(condition("Approved", "AutoApproved", ways[asked].message, None));
                plan.push(Action::UpdateSub { object: Box::new(next), subresource: "approval" });
            }
            (Some(asked), Some(Report::Review(false))) => match ways.get(asked + 1) {
                Some(next) => ask(&csr, next, &mut plan),
                // Roles may be bound later: the answer is asked for again, at upstream's pace after a refusal.
                None => plan.again_after_seconds(REFUSED_SECONDS),
            },
            _ => {
                if let Some(first) = ways.first() {
                    ask(&csr, first, &mut plan);
                }
            }
        }
        plan
    }
}

/// How long after a refusal it is asked again whether a request may be approved.
const REFUSED_SECONDS: i64 = 300;

fn ask(csr: &CertificateSigningRequest, way: &Recognized, plan: &mut Plan) {
    plan.mark = way.subresource.into();
    plan.push(Action::Review(Box::new(review(csr, way.subresource))));
}

fn condition(
    kind: &str,
    reason: &str,
    message: &str,
    now: Option<meta::Time>,
) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        r#type: kind.into(),
        status: "True".into(),
        reason: reason.into(),
        message: message.into(),
        last_update_time: now,
        last_transition_time: None,
    }
}

/// Signs approved requests of the signers that this process has keys for.
pub struct Signer {
    /// Names of signers: `kubernetes.io/kube-apiserver-client`, ...
    pub signers: Vec<&'static str>,
    /// The longest time that a certificate is good for, in seconds.
    pub seconds_max: i64,
}

impl Signer {
    /// All that Kubernetes signs itself.
    pub const NAMES: [&'static str; 4] = [KUBELET_SERVING, KUBELET_CLIENT, CLIENT, LEGACY];

    fn seconds(&self, csr: &CertificateSigningRequest) -> i64 {
        match csr.spec.expiration_seconds.map(i64::from) {
            Some(wanted) => wanted.max(SECONDS_MIN).min(self.seconds_max),
            None => self.seconds_max,
        }
    }
}

impl Controller for Signer {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-signing-controller"
    }

    fn component(&self) -> &'static str {
        ACCOUNT
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own::<CertificateSigningRequest>()]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(csr) = context.view.get::<CertificateSigningRequest>(context.key) else { return plan };
        let true_condition =
            |kind: &str| csr.status.conditions.iter().any(|c| c.r#type == kind && c.status == "True");
        let signer = self.signers.iter().find(|name| **name == csr.spec.signer_name);
        let (Some(signer), false) = (signer, has(&csr, "Denied")) else { return plan };
        if !has(&csr, "Approved") || true_condition("Failed") || !csr.status.certificate.is_empty() {
            return plan;
        }
        let mut next = CertificateSigningRequest::clone(&csr);
        if let Some(Report::Made(certificate)) = context.report {
            next.status.certificate = certificate.0.clone().into_bytes();
            plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
            return plan;
        }
        let usages = &csr.spec.usages;
        let fault = request::parse(&csr.spec.request).and_then(|asked| match *signer {
            KUBELET_SERVING => request::kubelet_serving(&asked, usages),
            KUBELET_CLIENT => request::kubelet_client(&asked, usages),
            CLIENT => request::client_usages(usages),
            _ => Ok(()),
        });
        match fault {
            Err(why) => {
                let failed = condition("Failed", "SignerValidationFailure", &why, Some(context.now));
                next.status.conditions.push(failed);
                plan.push(Action::UpdateSub { object: Box::new(next), subresource: "status" });
            }
            Ok(()) => plan.push(Action::Errand(Errand::SignCertificate {
                signer,
                request: csr.spec.request.clone(),
                usages: usages.clone(),
                seconds: self.seconds(&csr),
            })),
        }
        plan
    }
}

/// Deletes requests an hour after they were answered, a day after they were made or approved without an answer, and
/// once their certificate has expired.
pub struct Cleaner;

/// When a certificate in PEM expires.
fn expires(pem: &[u8]) -> Option<i64> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&block.contents).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// From when on a request is of no use.
fn useless_from(csr: &CertificateSigningRequest) -> Option<i64> {
    let issued = !csr.status.certificate.is_empty();
    let mut times = Vec::new();
    for condition in &csr.status.conditions {
        let hours = match condition.r#type.as_str() {
            "Approved" if issued => 1,
            "Approved" => 24,
            "Denied" | "Failed" => 1,
            _ => continue,
        };
        times.extend(condition.last_update_time.map(|time| time.seconds() + hours * HOUR));
        if condition.r#type == "Approved" && issued {
            times.extend(expires(&csr.status.certificate));
        }
    }
    if csr.status.conditions.is_empty() {
        times.extend(csr.metadata.creation_timestamp.map(|time| time.seconds() + 24 * HOUR));
    }
    times.into_iter().min()
}

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn component(&self) -> &'static str {
        ACCOUNT
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own::<CertificateSigningRequest>()]
    }

    fn reconcile(&self, context: &Context<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(csr) = context.view.get::<CertificateSigningRequest>(context.key) else { return plan };
        let Some(from) = useless_from(&csr) else { return plan };
        let left = from - context.now.seconds();
        if left >= 0 {
            plan.again_after_seconds(left + 1);
        } else if csr.metadata.deletion_timestamp.is_none() {
            let target = Target::at_revision(csr.as_ref());
            plan.push(Action::Delete { target, propagation: None, grace_seconds: None });
        }
        plan
    }
}
