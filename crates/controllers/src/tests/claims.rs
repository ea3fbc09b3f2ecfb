//! Resource claims: a fixture in, a plan out.

use super::{plan, plan_after};
use crate::resourceclaim::{ClaimReservations, PodClaims};
use expect_test::{Expect, expect};

fn pod(spec: &str, status: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: p, namespace: shop, uid: uid-p, resourceVersion: '50'}}
spec: {{containers: [{{name: a}}], {spec}}}
status: {{{status}}}
"
    )
}

const TEMPLATE: &str = "
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpu, namespace: shop}
spec: {metadata: {labels: {a: b}}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: gpu}}]}}}
";

fn claim(finalizers: &str, status: &str) -> String {
    format!(
        "
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata:
  name: p-gpu-1
  namespace: shop
  finalizers: [{finalizers}]
  annotations: {{resource.kubernetes.io/pod-claim-name: gpu}}
  ownerReferences: [{{apiVersion: v1, kind: Pod, name: p, uid: uid-p, controller: true}}]
spec: {{devices: {{requests: [{{name: r, exactly: {{deviceClassName: gpu}}}}]}}}}
status: {{{status}}}
"
    )
}

const ASKS: &str = "resourceClaims: [{name: gpu, resourceClaimTemplateName: gpu}]";
const ALLOCATED: &str = "allocation: {devices: {}}";
const RESERVED: &str = "reservedFor: [{resource: pods, name: p, uid: uid-p}]";
const HELD: &str = "resource.kubernetes.io/delete-protection";

fn check(actual: String, expected: Expect) {
    expected.assert_eq(&actual);
}

#[test]
fn pods_get_the_claims_of_their_templates() {
    check(
        plan(&PodClaims, &format!("{}{TEMPLATE}", pod(ASKS, "")), "shop/p"),
        expect![[r#"
        create ResourceClaim {"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","metadata":{"annotations":{"resource.kubernetes.io/pod-claim-name":"gpu"},"generateName":"p-gpu-","labels":{"a":"b"},"namespace":"shop","ownerReferences":[{"apiVersion":"v1","controller":true,"kind":"Pod","name":"p","uid":"uid-p"}]},"spec":{"devices":{"requests":[{"exactly":{"deviceClassName":"gpu"},"name":"r"}]}}}
          else Warning FailedResourceClaimCreation on Pod p: PodResourceClaim gpu: create ResourceClaim : {error}
    "#]],
    );
    check(
        plan(&PodClaims, &pod(ASKS, ""), "shop/p"),
        expect![[r#"
        event Warning FailedResourceClaimCreation on Pod p: PodResourceClaim gpu: resource claim template "gpu": resourceclaimtemplate.resource.k8s.io "gpu" not found
    "#]],
    );
    let made = claim("", "");
    check(
        plan(&PodClaims, &format!("{}{TEMPLATE}{made}", pod(ASKS, "")), "shop/p"),
        expect![[r#"
        patch Pod shop/p/status: {"metadata":{"uid":"uid-p"},"status":{"resourceClaimStatuses":[{"name":"gpu","resourceClaimName":"p-gpu-1"}]}}
    "#]],
    );
    let noted = "resourceClaimStatuses: [{name: gpu, resourceClaimName: p-gpu-1}]";
    let bound = pod(&format!("nodeName: n1, {ASKS}"), noted);
    let allocated = claim(HELD, ALLOCATED);
    check(
        plan(&PodClaims, &format!("{bound}{TEMPLATE}{allocated}"), "shop/p"),
        expect![[r#"
        update ResourceClaim/status p-gpu-1: {"allocation":{"devices":{}},"reservedFor":[{"name":"p","resource":"pods","uid":"uid-p"}]}
    "#]],
    );
}

#[test]
fn claims_are_freed_step_by_step() {
    let used = claim(HELD, &format!("{ALLOCATED}, {RESERVED}"));
    let frees = |pod: &str, claim: &str| plan(&ClaimReservations, &format!("{pod}{claim}"), "shop/p-gpu-1");
    check(
        frees(&pod(ASKS, "phase: Running"), &used),
        expect![[r#"
        nothing
    "#]],
    );
    check(
        frees(&pod(ASKS, "phase: Succeeded"), &used),
        expect![[r#"
        update ResourceClaim/status p-gpu-1: {}
    "#]],
    );
    // A scheduler may be about to allocate it; what this controller has freed it lets go.
    let done = pod("", "phase: Running");
    let bare =
        format!("{done}{}", claim(HELD, "").replace("name: p, uid: uid-p,", "name: other, uid: other,"));
    check(
        plan(&ClaimReservations, &bare, "shop/p-gpu-1"),
        expect![[r#"
        nothing
    "#]],
    );
    let marked = Some(("freed", "2026-01-01T00:09:59Z"));
    check(
        plan_after(&ClaimReservations, &bare, "shop/p-gpu-1", None, marked),
        expect![[r#"
        update ResourceClaim {"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","metadata":{"annotations":{"resource.kubernetes.io/pod-claim-name":"gpu"},"name":"p-gpu-1","namespace":"shop","ownerReferences":[{"apiVersion":"v1","controller":true,"kind":"Pod","name":"other","uid":"other"}],"resourceVersion":"2","uid":"uid-p-gpu-1"},"spec":{"devices":{"requests":[{"exactly":{"deviceClassName":"gpu"},"name":"r"}]}}}
    "#]],
    );
    check(
        frees(&pod(ASKS, "phase: Succeeded"), &claim("", "")),
        expect![[r#"
        delete ResourceClaim shop/p-gpu-1
    "#]],
    );
    check(
        frees(&pod(ASKS, "phase: Running"), &claim("", "")),
        expect![[r#"
        nothing
    "#]],
    );
}
