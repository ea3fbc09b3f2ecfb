//! Namespaces, nodes and garbage: a fixture in, a plan out.

use super::{plan, plan_after, view_of};
use crate::garbagecollector::GarbageCollector;
use crate::namespace::Namespaces;
use crate::nodeipam::NodeIpam;
use crate::nodelifecycle::NodeLifecycle;
use crate::podgc::PodGc;
use crate::serviceaccount::{RootCaPublisher, ServiceAccounts};
use crate::tainteviction::TaintEviction;
use crate::{Controller, Remains, Report};
use expect_test::{Expect, expect};
use view::Vertex;

fn check(actual: String, expected: Expect) {
    expected.assert_eq(&actual);
}

const LEAVING: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, deletionTimestamp: '2026-01-01T00:00:00Z'}
spec: {finalizers: [kubernetes]}
status: {phase: Terminating}
";

#[test]
fn a_leaving_namespace_is_emptied_then_let_go() {
    check(
        plan(&Namespaces, LEAVING, "shop"),
        expect![[r#"
        clear namespace shop
    "#]],
    );
    let remains = Remains {
        resources: [("pods".to_string(), 2)].into(),
        finalizers: [("example.com/hold".to_string(), 1)].into(),
        ..Remains::default()
    };
    let report = Report::Namespace(remains);
    check(
        plan_after(&Namespaces, LEAVING, "shop", Some(&report), None),
        expect![[r#"
        update Namespace/status shop: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"All resources successfully discovered","reason":"ResourcesDiscovered","status":"False","type":"NamespaceDeletionDiscoveryFailure"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"All legacy kube types successfully parsed","reason":"ParsedGroupVersions","status":"False","type":"NamespaceDeletionGroupVersionParsingFailure"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"All content successfully deleted, may be waiting on finalization","reason":"ContentDeleted","status":"False","type":"NamespaceDeletionContentFailure"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"Some resources are remaining: pods has 2 resource instances","reason":"SomeResourcesRemain","status":"True","type":"NamespaceContentRemaining"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances","reason":"SomeFinalizersRemain","status":"True","type":"NamespaceFinalizersRemaining"}],"phase":"Terminating"}
        again in 15000 ms
    "#]],
    );
    let report = Report::Namespace(Remains::default());
    check(
        plan_after(&Namespaces, LEAVING, "shop", Some(&report), None),
        expect![[r#"
        update Namespace/finalize shop: {"apiVersion":"v1","kind":"Namespace","metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z","name":"shop","resourceVersion":"1","uid":"uid-shop"},"spec":{},"status":{"phase":"Terminating"}}
    "#]],
    );
}

const ACTIVE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
status: {phase: Active}
";

#[test]
fn every_namespace_has_an_account_and_the_root_certificate() {
    check(
        plan(&ServiceAccounts, ACTIVE, "shop"),
        expect![[r#"
        create ServiceAccount {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default","namespace":"shop"}}
    "#]],
    );
    let publisher = RootCaPublisher { ca_pem: "PEM".into() };
    let text = plan(&publisher, ACTIVE, "shop");
    assert!(text.contains("\"data\":{\"ca.crt\":\"PEM\"}") && text.contains("kube-root-ca.crt"), "{text}");
    check(
        plan(&publisher, LEAVING, "shop"),
        expect![[r#"
        nothing
    "#]],
    );
}

const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24]}
status:
  conditions:
  - {type: Ready, status: 'True', lastHeartbeatTime: '2026-01-01T00:08:00Z', lastTransitionTime: '2026-01-01T00:00:00Z', reason: KubeletReady}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
status:
  conditions:
  - {type: Ready, status: 'True', lastHeartbeatTime: '2026-01-01T00:08:00Z', lastTransitionTime: '2026-01-01T00:00:00Z', reason: KubeletReady}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: shop}
spec:
  nodeName: n2
  containers: []
  tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}]
status:
  phase: Running
  conditions: [{type: Ready, status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z'}]
";

#[test]
fn a_silent_node_becomes_unknown_and_loses_its_pods() {
    let lifecycle =
        NodeLifecycle { grace_seconds: 50, startup_grace_seconds: 60, eviction: Default::default() };
    check(
        plan(&lifecycle, NODES, "n2"),
        expect![[r#"
        again in 50000 ms
    "#]],
    );
    // The same sign of life for a minute: our clock counts, not the node's.
    let mark = " 2026-01-01T00:08:00Z";
    let silent = plan_after(&lifecycle, NODES, "n2", None, Some((mark, "2026-01-01T00:09:00Z")));
    check(
        silent,
        expect![[r#"
        update Node/status n2: {"conditions":[{"lastHeartbeatTime":"2026-01-01T00:08:00Z","lastTransitionTime":"2026-01-01T00:10:00Z","message":"Kubelet stopped posting node status.","reason":"NodeStatusUnknown","status":"Unknown","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"MemoryPressure"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"DiskPressure"},{"lastTransitionTime":"2026-01-01T00:10:00Z","message":"Kubelet never posted node status.","reason":"NodeStatusNeverUpdated","status":"Unknown","type":"PIDPressure"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"architecture":"","bootID":"","containerRuntimeVersion":"","kernelVersion":"","kubeProxyVersion":"","kubeletVersion":"","machineID":"","operatingSystem":"","osImage":"","systemUUID":""}}
          then Normal NodeNotReady on Node n2: Node n2 status is now: NodeNotReady
    "#]],
    );
    // Its condition set, taints and pods follow.
    let unknown = NODES.replacen("status: 'True'", "status: X", 1);
    let unknown = unknown.replacen("status: 'True', lastHeartbeat", "status: Unknown, lastHeartbeat", 1);
    let unknown = unknown.replace("status: X", "status: 'True'");
    check(
        plan(&lifecycle, &unknown, "n2"),
        expect![[r#"
        patch Node n2: {"metadata":{"resourceVersion":"2","uid":"uid-n2"},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T00:10:00Z"},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","timeAdded":"2026-01-01T00:10:00Z"}]}}
        update Pod/status p: {"conditions":[{"lastTransitionTime":"2026-01-01T00:10:00Z","status":"False","type":"Ready"}],"phase":"Running"}
          then Warning NodeNotReady on Pod p: Node is not ready
    "#]],
    );
}

#[test]
fn a_pod_stays_as_long_as_it_tolerates() {
    let tainted = NODES.replace(
        "metadata: {name: n2}",
        "metadata: {name: n2}\nspec: {taints: [{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T00:09:00Z'}]}",
    );
    check(
        plan(&TaintEviction, &tainted, "shop/p"),
        expect![[r#"
        again in 240000 ms
    "#]],
    );
    let earlier = tainted.replace("00:09:00Z'}]}", "00:04:00Z'}]}");
    check(
        plan(&TaintEviction, &earlier, "shop/p"),
        expect![[r#"
        patch Pod shop/p/status: {"metadata":{"uid":"uid-p"},"status":{"conditions":[{"message":"Taint manager: deleting due to NoExecute taint","reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}]}}
        delete Pod shop/p
          then Normal TaintManagerEviction on Pod p: Marking for deletion Pod shop/p
    "#]],
    );
}

#[test]
fn nodes_without_a_range_get_the_next_free_one() {
    let ipam = NodeIpam::new("10.244.0.0/16", 24).expect("it is a range");
    check(
        plan(&ipam, NODES, "node-ranges"),
        expect![[r#"
        patch Node n2: {"metadata":{"uid":"uid-n2"},"spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24"]}}
    "#]],
    );
}

#[test]
fn pods_of_vanished_nodes_are_collected_after_a_while() {
    let fixture = NODES.replace("nodeName: n2", "nodeName: n3");
    let gc = PodGc { terminated_threshold: 100 };
    check(
        plan(&gc, &fixture, "shop/p"),
        expect![[r#"
        again in 40000 ms
    "#]],
    );
    // The view of nodes is older than the pod: not yet.
    let missing = Some(("n3 is missing", "2026-01-01T00:09:00Z"));
    check(
        plan_after(&gc, &fixture, "shop/p", None, missing),
        expect![[r#"
        again in 5000 ms
    "#]],
    );
    let fixture = fixture + "---\napiVersion: v1\nkind: Node\nmetadata: {name: n4}\n";
    check(
        plan_after(&gc, &fixture, "shop/p", None, missing),
        expect![[r#"
        patch Pod shop/p/status: {"metadata":{"uid":"uid-p"},"status":{"conditions":[{"message":"PodGC: node no longer exists","reason":"DeletionByPodGC","status":"True","type":"DisruptionTarget"}],"phase":"Failed"}}
        delete Pod shop/p within 0 s
    "#]],
    );
}

const FAMILY: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: set, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata:
  name: child
  namespace: shop
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: set, uid: uid-set, controller: true, blockOwnerDeletion: true}]
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: other, namespace: shop}
";

#[test]
fn dependents_follow_their_owner() {
    // Both are there: nothing to do.
    check(
        plan(&GarbageCollector, FAMILY, "uid-child"),
        expect![[r#"
        nothing
    "#]],
    );
    // The owner never was, as far as the view of its kind reaches.
    let orphaned = FAMILY.replace("{name: set, namespace", "{name: gone, namespace");
    check(
        plan(&GarbageCollector, &orphaned, "uid-child"),
        expect![[r#"
        delete Pod shop/child Background
    "#]],
    );
    // The view of its kind does not reach that far: in doubt, nothing.
    let doubtful =
        orphaned.split("\n---\napiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: other").next();
    check(
        plan(&GarbageCollector, doubtful.expect("it splits"), "uid-child"),
        expect![[r#"
        again in 10000 ms
    "#]],
    );
}

#[test]
fn foreground_and_orphan_finalizers_are_carried_out() {
    let leaving = |finalizer: &str| {
        FAMILY.replace(
            "{name: set, namespace: shop}",
            &format!(
                "{{name: set, namespace: shop, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [{finalizer}]}}"
            ),
        )
    };
    let foreground = leaving("foregroundDeletion");
    // The owner waits, the dependent goes first.
    check(
        plan(&GarbageCollector, &foreground, "uid-set"),
        expect![[r#"
        nothing
    "#]],
    );
    check(
        plan(&GarbageCollector, &foreground, "uid-child"),
        expect![[r#"
        delete Pod shop/child Background
    "#]],
    );
    let childless = foreground.replace("uid: uid-set,", "uid: uid-another,");
    check(
        plan(&GarbageCollector, &childless, "uid-set"),
        expect![[r#"
        patch ReplicaSet shop/set: {"metadata":{"finalizers":[],"resourceVersion":"1","uid":"uid-set"}}
    "#]],
    );
    check(
        plan(&GarbageCollector, &leaving("orphan"), "uid-set"),
        expect![[r#"
        patch Pod shop/child: {"metadata":{"ownerReferences":[],"resourceVersion":"2","uid":"uid-child"}}
        patch ReplicaSet shop/set: {"metadata":{"finalizers":[],"resourceVersion":"1","uid":"uid-set"}}
    "#]],
    );
}

#[test]
fn changes_concern_dependents_and_waiting_owners() {
    let view = view_of(FAMILY);
    let set = view.graph().get("uid-set").expect("it is there").clone();
    let keys = |old: Option<&std::sync::Arc<Vertex>>, new: Option<&std::sync::Arc<Vertex>>| {
        let keys = GarbageCollector.vertex_keys(&view, old, new);
        keys.into_iter().map(|key| key.name).collect::<Vec<_>>()
    };
    assert_eq!(keys(Some(&set), None), ["uid-set", "uid-child"]);
    assert_eq!(keys(None, Some(&set)), ["uid-set"]);
}

fn zone_node(name: &str, ready: &str, since: &str, taints: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Node
metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: a}}}}
spec: {{taints: [{taints}]}}
status: {{conditions: [{{type: Ready, status: '{ready}', lastHeartbeatTime: '2026-01-01T00:00:00Z', lastTransitionTime: '2026-01-01T00:{since}Z'}}]}}
"
    )
}

#[test]
fn nodes_of_a_zone_lose_their_pods_one_after_the_other() {
    let lifecycle =
        NodeLifecycle { grace_seconds: 50, startup_grace_seconds: 60, eviction: Default::default() };
    let up = |count: usize| -> String {
        (0..count).map(|number| zone_node(&format!("up{number}"), "True", "00:00", "")).collect()
    };
    let (first, second) =
        (zone_node("down0", "Unknown", "08:00", ""), zone_node("down1", "Unknown", "09:00", ""));
    let keys = |fixture: &str, key: &str| {
        let text = plan(&lifecycle, fixture, key);
        let added = |line: &str| line.contains("\"NoExecute\"");
        let evicts = if text.lines().any(added) { "evicts" } else { "keeps" };
        let again = text.lines().find(|line| line.starts_with("again")).unwrap_or_default();
        format!("{evicts} {again}")
    };
    let two = format!("{}{first}{second}", up(3));
    expect!["evicts "].assert_eq(&keys(&two, "down0"));
    expect!["keeps again in 10000 ms"].assert_eq(&keys(&two, "down1"));
    let taint = "{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2026-01-01T00:09:56Z'}";
    let begun = format!("{}{}{second}", up(3), zone_node("down0", "Unknown", "08:00", taint));
    expect!["keeps again in 6000 ms"].assert_eq(&keys(&begun, "down1"));
    // Three of five: too many for a small zone.
    let many = format!("{two}{}", zone_node("down2", "Unknown", "09:30", ""))
        .replace("name: up0", "name: down3")
        .replacen("'True'", "'False'", 1);
    expect!["keeps "].assert_eq(&keys(&many, "down0"));
}
