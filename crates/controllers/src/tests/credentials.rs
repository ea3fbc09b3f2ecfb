//! Certificates and tokens: a fixture in, a plan out.

use super::{plan, plan_after};
use crate::bootstrap::{BootstrapSigner, TokenCleaner};
use crate::certificates::{Approver, Cleaner, Signer};
use crate::serviceaccounttoken::{LegacyTokenCleaner, Tokens};
use crate::{Made, Report};
use expect_test::{Expect, expect};

/// Of `O=system:nodes, CN=system:node:n1`, made by openssl.
const NODE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIck1JR1NBZ0VBTURBeEZUQVRCZ05WQkFvTURITjVjM1JsYlRwdWIyUmxjekVYTUJVR0ExVUVBd3dPYzNsegpkR1Z0T201dlpHVTZiakV3V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQkJ3TkNBQVRYdklBSmVGZlhZbE5uCjZWSnMveW45UmpCeVBLMG1RcnJSdmM2RFkzTldRWFN6NThrVFVEbW5iWjM0SzVacnpvUUFNRG5jR2U2SnIxQU0KWmUzb1lCMUxvQUF3Q2dZSUtvWkl6ajBFQXdJRFNBQXdSUUlnYVpkOWIvTUkzaFJ3OVpIb0xrWDZFYkw2T2YrRwpMZi9aYUI2YXZHd0YzYndDSVFES2NtaEJ6SXFEeGFJemhIRTdHZUdZWE4zUkxSVnQwTFdmNU9JamlZMXd3dz09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";

fn csr(signer: &str, usages: &str, status: &str) -> String {
    format!(
        "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: c, creationTimestamp: '2026-01-01T00:00:00Z'}}
spec: {{signerName: kubernetes.io/{signer}, request: {NODE}, username: 'system:node:n1', groups: ['system:nodes'], usages: [{usages}]}}
status: {{{status}}}
"
    )
}

const CLIENT: &str = "client auth, digital signature";
const APPROVED: &str =
    "conditions: [{type: Approved, status: 'True', lastUpdateTime: '2026-01-01T00:00:00Z'}]";

fn check(actual: String, expected: Expect) {
    expected.assert_eq(&actual);
}

#[test]
fn kubelets_requests_are_approved_by_the_roles_of_the_requester() {
    let own = csr("kube-apiserver-client-kubelet", CLIENT, "");
    check(
        plan(&Approver, &own, "c"),
        expect![[r#"
        review {"groups":["system:nodes"],"resourceAttributes":{"group":"certificates.k8s.io","resource":"certificatesigningrequests","subresource":"selfnodeclient","verb":"create","version":"*"},"user":"system:node:n1"}
    "#]],
    );
    let after = |allowed, mark| {
        let marked = Some((mark, "2026-01-01T00:10:00Z"));
        plan_after(&Approver, &own, "c", Some(&Report::Review(allowed)), marked)
    };
    check(
        after(false, "selfnodeclient"),
        expect![[r#"
        review {"groups":["system:nodes"],"resourceAttributes":{"group":"certificates.k8s.io","resource":"certificatesigningrequests","subresource":"nodeclient","verb":"create","version":"*"},"user":"system:node:n1"}
    "#]],
    );
    check(
        after(false, "nodeclient"),
        expect![[r#"
        again in 300000 ms
    "#]],
    );
    check(
        after(true, "nodeclient"),
        expect![[r#"
        update CertificateSigningRequest/approval c: {"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{"creationTimestamp":"2026-01-01T00:00:00Z","name":"c","resourceVersion":"1","uid":"uid-c"},"spec":{"groups":["system:nodes"],"request":"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIck1JR1NBZ0VBTURBeEZUQVRCZ05WQkFvTURITjVjM1JsYlRwdWIyUmxjekVYTUJVR0ExVUVBd3dPYzNsegpkR1Z0T201dlpHVTZiakV3V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQkJ3TkNBQVRYdklBSmVGZlhZbE5uCjZWSnMveW45UmpCeVBLMG1RcnJSdmM2RFkzTldRWFN6NThrVFVEbW5iWjM0SzVacnpvUUFNRG5jR2U2SnIxQU0KWmUzb1lCMUxvQUF3Q2dZSUtvWkl6ajBFQXdJRFNBQXdSUUlnYVpkOWIvTUkzaFJ3OVpIb0xrWDZFYkw2T2YrRwpMZi9aYUI2YXZHd0YzYndDSVFES2NtaEJ6SXFEeGFJemhIRTdHZUdZWE4zUkxSVnQwTFdmNU9JamlZMXd3dz09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=","signerName":"kubernetes.io/kube-apiserver-client-kubelet","usages":["client auth","digital signature"],"username":"system:node:n1"},"status":{"conditions":[{"message":"Auto approving kubelet client certificate after SubjectAccessReview.","reason":"AutoApproved","status":"True","type":"Approved"}]}}
    "#]],
    );
    check(
        plan(&Approver, &csr("kubelet-serving", CLIENT, ""), "c"),
        expect![[r#"
        nothing
    "#]],
    );
}

#[test]
fn approved_requests_are_signed_where_they_fit_their_signer() {
    let signer = Signer { signers: Signer::NAMES.to_vec(), seconds_max: 86_400 };
    let approved = csr("kube-apiserver-client-kubelet", CLIENT, APPROVED);
    check(
        plan(&signer, &approved, "c"),
        expect![[r#"
        sign a certificate by kubernetes.io/kube-apiserver-client-kubelet for 86400 s: client auth, digital signature
    "#]],
    );
    let made = Report::Made(Made("PEM".into()));
    check(
        plan_after(&signer, &approved, "c", Some(&made), None),
        expect![[r#"
        update CertificateSigningRequest/status c: {"certificate":"UEVN","conditions":[{"lastUpdateTime":"2026-01-01T00:00:00Z","status":"True","type":"Approved"}]}
    "#]],
    );
    check(
        plan(&signer, &csr("kubelet-serving", "server auth, digital signature", APPROVED), "c"),
        expect![[r#"
            update CertificateSigningRequest/status c: {"conditions":[{"lastUpdateTime":"2026-01-01T00:00:00Z","status":"True","type":"Approved"},{"lastUpdateTime":"2026-01-01T00:10:00Z","message":"DNS or IP subjectAltName is required","reason":"SignerValidationFailure","status":"True","type":"Failed"}]}
        "#]],
    );
    check(
        plan(&signer, &csr("kube-apiserver-client", "server auth", APPROVED), "c"),
        expect![[r#"
        update CertificateSigningRequest/status c: {"conditions":[{"lastUpdateTime":"2026-01-01T00:00:00Z","status":"True","type":"Approved"},{"lastUpdateTime":"2026-01-01T00:10:00Z","message":"invalid usage for client certificate: server auth","reason":"SignerValidationFailure","status":"True","type":"Failed"}]}
    "#]],
    );
    check(
        plan(&signer, &csr("kube-apiserver-client", CLIENT, ""), "c"),
        expect![[r#"
        nothing
    "#]],
    );
}

#[test]
fn old_requests_are_cleaned_up() {
    let denied = "conditions: [{type: Denied, status: 'True', lastUpdateTime: '2025-12-31T23:00:00Z'}]";
    check(
        plan(&Cleaner, &csr("x", CLIENT, denied), "c"),
        expect![[r#"
        delete CertificateSigningRequest c
    "#]],
    );
    check(
        plan(&Cleaner, &csr("x", CLIENT, APPROVED), "c"),
        expect![[r#"
        again in 85801000 ms
    "#]],
    );
    check(
        plan(&Cleaner, &csr("x", CLIENT, ""), "c"),
        expect![[r#"
        again in 85801000 ms
    "#]],
    );
}

#[test]
fn bootstrap_tokens_sign_and_expire() {
    let token = |id: &str, expiration: &str, signs: &str| {
        format!(
            "
---
apiVersion: v1
kind: Secret
metadata: {{name: bootstrap-token-{id}, namespace: kube-system}}
type: bootstrap.kubernetes.io/token
stringData: {{}}
data: {{token-id: {}, token-secret: c2VjcmV0, expiration: {}, usage-bootstrap-signing: {}}}
",
            base64(id),
            base64(expiration),
            base64(signs)
        )
    };
    let map = "
apiVersion: v1
kind: ConfigMap
metadata: {name: cluster-info, namespace: kube-public}
data: {kubeconfig: hello, jws-kubeconfig-gone00: old}
";
    let fixture = [
        map.to_string(),
        token("aaaaaa", "2026-01-01T00:11:00Z", "true"),
        token("bbbbbb", "2026-01-01T00:09:00Z", "true"),
        token("cccccc", "2026-02-01T00:00:00Z", "false"),
    ]
    .concat();
    check(
        plan(&BootstrapSigner, &fixture, "kube-public/cluster-info"),
        expect![[r#"
        update ConfigMap {"apiVersion":"v1","data":{"jws-kubeconfig-aaaaaa":"eyJhbGciOiJIUzI1NiIsImtpZCI6ImFhYWFhYSJ9..chJmef8YLChi4-dX0iJY3BNeuxOypjs6s1wU4kvI9Zs","kubeconfig":"hello"},"kind":"ConfigMap","metadata":{"name":"cluster-info","namespace":"kube-public","resourceVersion":"1","uid":"uid-cluster-info"}}
        again in 60000 ms
    "#]],
    );
    check(
        plan(&TokenCleaner, &fixture, "kube-system/bootstrap-token-bbbbbb"),
        expect![[r#"
        delete Secret kube-system/bootstrap-token-bbbbbb
    "#]],
    );
    check(
        plan(&TokenCleaner, &fixture, "kube-system/bootstrap-token-aaaaaa"),
        expect![[r#"
        again in 60000 ms
    "#]],
    );
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

const ACCOUNT: &str = "
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop, resourceVersion: '9'}
secrets: [{name: web-token}]
";

fn secret(labels: &str, data: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Secret
metadata:
  name: web-token
  namespace: shop
  creationTimestamp: '2025-06-01T00:00:00Z'
  labels: {{{labels}}}
  annotations: {{kubernetes.io/service-account.name: web}}
type: kubernetes.io/service-account-token
data: {{{data}}}
"
    )
}

#[test]
fn token_secrets_are_filled_and_go_with_their_account() {
    let tokens = Tokens { ca_pem: "CA".into() };
    let bare = format!("{}{ACCOUNT}", secret("", ""));
    check(
        plan(&tokens, &bare, "shop/web-token"),
        expect![[r#"
        sign a token of shop/web for web-token
    "#]],
    );
    let made = Report::Made(Made("TOKEN".into()));
    check(
        plan_after(&tokens, &bare, "shop/web-token", Some(&made), None),
        expect![[r#"
        update Secret {"apiVersion":"v1","data":{"ca.crt":"Q0E=","namespace":"c2hvcA==","token":"VE9LRU4="},"kind":"Secret","metadata":{"annotations":{"kubernetes.io/service-account.name":"web","kubernetes.io/service-account.uid":"uid-web"},"creationTimestamp":"2025-06-01T00:00:00Z","name":"web-token","namespace":"shop","resourceVersion":"1","uid":"uid-web-token"},"type":"kubernetes.io/service-account-token"}
    "#]],
    );
    let other = ACCOUNT.replace("name: web,", "name: other,").replace("web-token", "other");
    check(
        plan(&tokens, &format!("{}{other}", secret("", "")), "shop/web-token"),
        expect![[r#"
        delete Secret shop/web-token
    "#]],
    );
    check(
        plan(&tokens, ACCOUNT, "shop/web-token"),
        expect![[r#"
        update ServiceAccount {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"web","namespace":"shop","resourceVersion":"9","uid":"uid-web"}}
    "#]],
    );
}

#[test]
fn unused_tokens_are_marked_and_then_deleted() {
    let cleaner = LegacyTokenCleaner { unused_seconds: 30 * 86_400 };
    let noted = "
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-apiserver-legacy-service-account-token-tracking, namespace: kube-system}
data: {since: '2025-06-01'}
";
    let check_with = |labels: &str, more: &str, expected: Expect| {
        let fixture = format!("{}{ACCOUNT}{noted}{more}", secret(labels, ""));
        check(plan(&cleaner, &fixture, "shop/web-token"), expected);
    };
    check_with(
        "",
        "",
        expect![[r#"
        patch Secret shop/web-token: {"metadata":{"labels":{"kubernetes.io/legacy-token-invalid-since":"2026-01-01"},"uid":"uid-web-token"}}
        again in 86400000 ms
    "#]],
    );
    check_with(
        "kubernetes.io/legacy-token-last-used: '2025-12-30'",
        "",
        expect![[r#"
        again in 86400000 ms
    "#]],
    );
    check_with(
        "kubernetes.io/legacy-token-invalid-since: '2025-08-01'",
        "",
        expect![[r#"
        delete Secret shop/web-token
        again in 86400000 ms
    "#]],
    );
    let pod = "
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: shop}
spec: {containers: [{name: a}], volumes: [{name: v, secret: {secretName: web-token}}]}
";
    check_with(
        "",
        pod,
        expect![[r#"
        again in 86400000 ms
    "#]],
    );
}
