//! Ranges of service addresses: a fixture in, a plan out.

use super::plan;
use crate::servicecidr::ServiceCidrs;
use expect_test::{Expect, expect};

fn range(name: &str, cidr: &str, metadata: &str) -> String {
    format!(
        "
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {{name: {name}, {metadata}}}
spec: {{cidrs: [{cidr}]}}
"
    )
}

const ADDRESS: &str = "
---
apiVersion: networking.k8s.io/v1
kind: IPAddress
metadata: {name: 10.96.0.10, labels: {ipaddress.kubernetes.io/managed-by: ipallocator.k8s.io}}
";

fn check(fixture: &str, expected: Expect) {
    expected.assert_eq(&plan(&ServiceCidrs, fixture, "main"));
}

#[test]
fn a_range_is_ready_and_goes_when_no_address_needs_it() {
    check(
        &range("main", "10.96.0.0/16", ""),
        expect![[r#"
            patch ServiceCIDR main: {"metadata":{"finalizers":["networking.k8s.io/service-cidr-finalizer"]}}
        "#]],
    );
    let held = range("main", "10.96.0.0/16", "finalizers: [networking.k8s.io/service-cidr-finalizer]");
    check(
        &held,
        expect![[r#"
        update ServiceCIDR/status main: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"Kubernetes Service CIDR is ready","reason":"","status":"True","type":"Ready"}]}
    "#]],
    );
    let going = |at: &str| {
        let metadata = format!(
            "deletionTimestamp: '2026-01-01T00:{at}Z', finalizers: [networking.k8s.io/service-cidr-finalizer]"
        );
        range("main", "10.96.0.0/16", &metadata)
    };
    check(
        &format!("{}{ADDRESS}", going("09:00")),
        expect![[r#"
        update ServiceCIDR/status main: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR","reason":"Terminating","status":"False","type":"Ready"}]}
    "#]],
    );
    check(
        &format!("{}{ADDRESS}{}", going("09:00"), range("wide", "10.96.0.0/12", "")),
        expect![[r#"
        patch ServiceCIDR main: {"metadata":{"$deleteFromPrimitiveList/finalizers":["networking.k8s.io/service-cidr-finalizer"]}}
    "#]],
    );
    check(
        &format!("{}{ADDRESS}{}", going("09:00"), range("part", "10.96.0.0/24", "")),
        expect![[r#"
        patch ServiceCIDR main: {"metadata":{"$deleteFromPrimitiveList/finalizers":["networking.k8s.io/service-cidr-finalizer"]}}
    "#]],
    );
    check(
        &format!("{}{ADDRESS}{}", going("09:00"), range("six", "'fd00::/64'", "")),
        expect![[r#"
        update ServiceCIDR/status main: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR","reason":"Terminating","status":"False","type":"Ready"}]}
    "#]],
    );
    check(
        &going("09:55"),
        expect![[r#"
        again in 5000 ms
    "#]],
    );
}
