//! Mirrored endpoints, and claims that go with their set: a fixture in, a plan out.

use super::plan;
use crate::endpointslicemirroring::EndpointSliceMirroring;
use crate::statefulset::StatefulSets;
use expect_test::{Expect, expect};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {ports: [{port: 5432}]}
";

const ENDPOINTS: &str = "
---
apiVersion: v1
kind: Endpoints
metadata: {name: db, namespace: shop, labels: {tier: data}, annotations: {note: a, endpoints.kubernetes.io/last-change-trigger-time: x}}
subsets:
- addresses: [{ip: 10.0.0.1}, {ip: '2001:db8::1'}]
  notReadyAddresses: [{ip: 10.0.0.2, hostname: two}]
  ports: [{name: pg, port: 5432, protocol: TCP}]
- addresses: [{ip: nonsense}]
  ports: [{port: 1, protocol: TCP}]
";

fn check(actual: String, expected: Expect) {
    expected.assert_eq(&actual);
}

#[test]
fn endpoints_made_by_hand_are_mirrored() {
    let mirroring = EndpointSliceMirroring { max_endpoints: 1000 };
    check(
        plan(&mirroring, &format!("{SERVICE}{ENDPOINTS}"), "shop/db"),
        expect![[r#"
        create EndpointSlice {"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}},{"addresses":["10.0.0.2"],"conditions":{"ready":false},"hostname":"two"}],"kind":"EndpointSlice","metadata":{"annotations":{"note":"a"},"generateName":"db-","labels":{"endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io","kubernetes.io/service-name":"db","tier":"data"},"namespace":"shop","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Endpoints","name":"db","uid":"uid-db"}]},"ports":[{"name":"pg","port":5432,"protocol":"TCP"}]}
        create EndpointSlice {"addressType":"IPv6","apiVersion":"discovery.k8s.io/v1","endpoints":[{"addresses":["2001:db8::1"],"conditions":{"ready":true}}],"kind":"EndpointSlice","metadata":{"annotations":{"note":"a"},"generateName":"db-","labels":{"endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io","kubernetes.io/service-name":"db","tier":"data"},"namespace":"shop","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Endpoints","name":"db","uid":"uid-db"}]},"ports":[{"name":"pg","port":5432,"protocol":"TCP"}]}
        event Warning InvalidIPAddress on Endpoints db: Skipped 1 invalid IP addresses when mirroring to EndpointSlices
    "#]],
    );
    let slice = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db, endpointslice.kubernetes.io/managed-by: endpointslicemirroring-controller.k8s.io}}
addressType: IPv4
ports: [{name: pg, port: 5432, protocol: TCP}]
endpoints: [{addresses: [10.0.0.9], conditions: {ready: true}}]
";
    check(
        plan(&mirroring, &format!("{SERVICE}{ENDPOINTS}{slice}"), "shop/db"),
        expect![[r#"
        update EndpointSlice {"addressType":"IPv4","apiVersion":"discovery.k8s.io/v1","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true}},{"addresses":["10.0.0.2"],"conditions":{"ready":false},"hostname":"two"}],"kind":"EndpointSlice","metadata":{"annotations":{"note":"a"},"labels":{"endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io","kubernetes.io/service-name":"db","tier":"data"},"name":"db-1","namespace":"shop","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Endpoints","name":"db","uid":"uid-db"}],"resourceVersion":"3","uid":"uid-db-1"},"ports":[{"name":"pg","port":5432,"protocol":"TCP"}]}
        create EndpointSlice {"addressType":"IPv6","apiVersion":"discovery.k8s.io/v1","endpoints":[{"addresses":["2001:db8::1"],"conditions":{"ready":true}}],"kind":"EndpointSlice","metadata":{"annotations":{"note":"a"},"generateName":"db-","labels":{"endpointslice.kubernetes.io/managed-by":"endpointslicemirroring-controller.k8s.io","kubernetes.io/service-name":"db","tier":"data"},"namespace":"shop","ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Endpoints","name":"db","uid":"uid-db"}]},"ports":[{"name":"pg","port":5432,"protocol":"TCP"}]}
        event Warning InvalidIPAddress on Endpoints db: Skipped 1 invalid IP addresses when mirroring to EndpointSlices
    "#]],
    );
    check(
        plan(&mirroring, &format!("{SERVICE}{slice}"), "shop/db"),
        expect![[r#"
        delete EndpointSlice shop/db-1
    "#]],
    );
    let selecting = SERVICE.replace("spec: {", "spec: {selector: {app: db}, ");
    check(
        plan(&mirroring, &format!("{selecting}{ENDPOINTS}{slice}"), "shop/db"),
        expect![[r#"
        delete EndpointSlice shop/db-1
    "#]],
    );
}

fn set(replicas: u8, policy: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: shop, uid: uid-db}}
spec:
  replicas: {replicas}
  serviceName: db
  podManagementPolicy: Parallel
  persistentVolumeClaimRetentionPolicy: {policy}
  selector: {{matchLabels: {{app: db}}}}
  template: {{metadata: {{labels: {{app: db}}}}, spec: {{containers: [{{name: a}}]}}}}
  volumeClaimTemplates: [{{metadata: {{name: data}}}}]
"
    )
}

fn claim(number: u8, owner: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data-db-{number}, namespace: shop, ownerReferences: [{owner}]}}
"
    )
}

fn pod(number: u8) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata:
  name: db-{number}
  namespace: shop
  labels: {{app: db}}
  ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: uid-db, controller: true}}]
status: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}
"
    )
}

/// Who is to own which claim, and which pods are made and deleted.
fn told(fixture: &str) -> String {
    let text = plan(&StatefulSets, fixture, "shop/db");
    let brief = |line: &str| {
        let body = |rest: &str| -> Option<String> {
            let value: serde_json::Value = serde_json::from_str(rest).ok()?;
            let owners = value["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let owners: Vec<&str> = owners.iter().filter_map(|owner| owner["name"].as_str()).collect();
            Some(format!("{} of {owners:?}", value["metadata"]["name"].as_str()?))
        };
        let (verb, rest) = line.split_once(' ')?;
        let (kind, rest) = rest.split_once(' ')?;
        matches!(kind, "Pod" | "PersistentVolumeClaim")
            .then(|| format!("{verb} {kind} {}", body(rest).unwrap_or(rest.to_string())))
    };
    text.lines().filter_map(brief).collect::<Vec<_>>().join("\n")
}

#[test]
fn claims_go_with_their_set_or_with_their_pod() {
    let both = "{whenDeleted: Delete, whenScaled: Delete}";
    let pods = format!("{}{}{}{}", pod(0), claim(0, ""), pod(1), claim(1, ""));
    check(
        told(&format!("{}{pods}", set(1, both))),
        expect![[r#"
        update PersistentVolumeClaim data-db-0 of ["db"]
        update PersistentVolumeClaim data-db-1 of ["db-1"]
        delete Pod shop/db-1
        delete Pod shop/db-0"#]],
    );
    check(
        told(&format!("{}{pods}", set(2, "{whenDeleted: Delete, whenScaled: Retain}"))),
        expect![[r#"
        update PersistentVolumeClaim data-db-0 of ["db"]
        update PersistentVolumeClaim data-db-1 of ["db"]
        delete Pod shop/db-1"#]],
    );
    let owned = "{apiVersion: apps/v1, kind: StatefulSet, name: db, uid: uid-db, controller: true}";
    let kept = format!("{}{}", pod(0), claim(0, owned));
    check(
        told(&format!("{}{kept}", set(1, "{whenDeleted: Retain, whenScaled: Retain}"))),
        expect![[r#"
        update PersistentVolumeClaim data-db-0 of []
        delete Pod shop/db-0"#]],
    );
    check(told(&format!("{}{kept}", set(1, both))), expect!["delete Pod shop/db-0"]);
    let leaving = claim(0, "{apiVersion: v1, kind: Pod, name: db-0, uid: old, controller: true}");
    check(told(&format!("{}{leaving}", set(1, both))), expect![[""]]);
}
