//! Volumes: what claims that wait for a consumer mean for nodes, and what is written once a node is chosen.

use super::fixture::{read, table};
use api::core::v1::PersistentVolumeClaim;
use expect_test::{Expect, expect};
use scheduler::Fact;
use scheduler::plugins::volume_binding::{Progress, plan, progress};
use std::sync::Arc;

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&table(text));
}

const POD: &str = "pod p | {spec: {volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}}";
const CLAIM: &str = "claim data | {spec: {storageClassName: slow, accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}}";
const WAITS: &str =
    "class slow | {provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer}";
const MAKES: &str =
    "class slow | {provisioner: timonel.dev/local-path, volumeBindingMode: WaitForFirstConsumer}";

fn volume(name: &str, size: &str, node: &str) -> String {
    format!(
        "volume {name} | {{spec: {{storageClassName: slow, accessModes: [ReadWriteOnce], capacity: {{storage: {size}}}, local: {{path: /x}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}}}, status: {{phase: Available}}}}"
    )
}

#[test]
fn a_claim_that_waits_goes_where_a_volume_is() {
    let nodes = "node n1\nnode n2";
    let volumes = [volume("small", "1Gi", "n1"), volume("right", "3Gi", "n2")].join("\n");
    check(
        &format!("{nodes}\n{WAITS}\n{CLAIM}\n{volumes}\n{POD}"),
        expect![[r#"
            n1: rejected by VolumeBinding: node(s) didn't find available persistent volumes to bind, for good
            n2: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
            -> bind n2
        "#]],
    );
    check(
        &format!("{nodes}\n{WAITS}\n{CLAIM}\n{POD}"),
        expect![[r#"
        n1: rejected by VolumeBinding: node(s) didn't find available persistent volumes to bind, for good
        n2: rejected by VolumeBinding: node(s) didn't find available persistent volumes to bind, for good
        -> 0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling. [VolumeBinding]
    "#]],
    );
}

#[test]
fn what_is_planned_is_written_and_awaited() {
    let text = format!("node n1\n{MAKES}\n{CLAIM}\n{POD}");
    let (mut snapshot, pod) = read(&text);
    let pod = pod.expect("a waiting pod");
    let made = plan(&snapshot, &pod, "n1").expect("the node can have a volume");
    let [(_, claim)] = made.provision.as_slice() else { panic!("one claim is provisioned") };
    assert_eq!(claim.metadata.annotations["volume.kubernetes.io/selected-node"], "n1");
    assert_eq!(made.awaited, ["data"]);
    let at = |snapshot: &_, node: &str| progress(snapshot, &pod, node, &made.awaited, &[]);
    snapshot.set_fact(Fact::Claim(Arc::new(claim.clone())));
    assert_eq!(at(&snapshot, "n1"), Progress::Waiting);
    // The provisioner gave up: it took the node's name away.
    let (fresh, _) = read(&text);
    assert_eq!(at(&fresh, "n1"), Progress::Failed("provisioning failed for PVC \"data\"".into()));
    let (other, _) = read(&volume("pvc-1", "2Gi", "n1"));
    let volume = other.facts.volume("pvc-1").expect("it was read").clone();
    let mut bound = PersistentVolumeClaim::clone(claim);
    bound.spec.volume_name = "pvc-1".into();
    bound.metadata.annotations.insert("pv.kubernetes.io/bind-completed".into(), "yes".into());
    snapshot.set_fact(Fact::Claim(Arc::new(bound)));
    assert_eq!(at(&snapshot, "n1"), Progress::Waiting);
    snapshot.set_fact(Fact::Volume(volume));
    assert_eq!(at(&snapshot, "n1"), Progress::Bound);
}

#[test]
fn a_kept_volume_is_not_given_twice() {
    let text = format!("node n1\n{WAITS}\n{CLAIM}\n{}\n{POD}", volume("only", "3Gi", "n1"));
    let (mut snapshot, pod) = read(&text);
    let pod = pod.expect("a waiting pod");
    let made = plan(&snapshot, &pod, "n1").expect("there is a volume");
    let [(_, kept)] = made.bind.as_slice() else { panic!("one volume is kept") };
    snapshot.set_fact(Fact::Volume(Arc::new(kept.clone())));
    let (mut second, _) = read(CLAIM);
    let mut claim = PersistentVolumeClaim::clone(second.facts.claim("default", "data").expect("it was read"));
    claim.metadata.uid = "another".into();
    second.set_fact(Fact::Claim(Arc::new(claim.clone())));
    snapshot.set_fact(Fact::Claim(Arc::new(claim)));
    assert!(plan(&snapshot, &pod, "n1").is_err());
}

#[test]
fn zones_limits_and_single_users_rule_nodes_out() {
    let bound = "claim data | {metadata: {annotations: {pv.kubernetes.io/bind-completed: 'yes'}}, spec: {volumeName: d, accessModes: [ReadWriteOncePod]}}";
    let zoned = "volume d | {metadata: {labels: {topology.kubernetes.io/zone: b}}, spec: {csi: {driver: x.io, volumeHandle: h}}}";
    check(
        &format!("node n1 zone=a\n{bound}\n{zoned}\n{POD}"),
        expect![[r#"
        n1: rejected by VolumeZone: node(s) had no available volume zone, for good
        -> 0/1 nodes are available: 1 node(s) had no available volume zone. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. [VolumeZone]
    "#]],
    );
    let full = "csinode n1 | {spec: {drivers: [{name: x.io, nodeID: node-1, allocatable: {count: 0}}]}}";
    check(
        &format!("node n1 zone=b\n{full}\n{bound}\n{zoned}\n{POD}"),
        expect![[r#"
        n1: rejected by NodeVolumeLimits: node(s) exceed max volume count
        -> 0/1 nodes are available: 1 node(s) exceed max volume count. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. [NodeVolumeLimits]
    "#]],
    );
    let user = "pod other on=n1 | {spec: {volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}}";
    check(
        &format!("node n1\n{bound}\n{zoned}\n{user}\n{POD}"),
        expect![[r#"
        n1: rejected by VolumeRestrictions: node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod
        -> 0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod. [VolumeRestrictions]
    "#]],
    );
}

#[test]
fn a_driver_that_counts_its_storage_is_heeded() {
    let class = "class slow | {provisioner: x.io, volumeBindingMode: WaitForFirstConsumer}";
    let driver = "driver x.io | {spec: {storageCapacity: true}}";
    let capacity = |size: &str| {
        format!(
            "capacity c | {{storageClassName: slow, capacity: {size}, nodeTopology: {{matchLabels: {{topology.kubernetes.io/zone: b}}}}}}"
        )
    };
    let nodes = "node n1 zone=a\nnode n2 zone=b";
    check(
        &format!("{nodes}\n{class}\n{driver}\n{}\n{CLAIM}\n{POD}", capacity("2Gi")),
        expect![[r#"
        n1: rejected by VolumeBinding: node(s) did not have enough free storage, for good
        n2: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
        -> bind n2
    "#]],
    );
    check(
        &format!("{nodes}\n{class}\n{driver}\n{}\n{CLAIM}\n{POD}", capacity("1Gi")),
        expect![[r#"
        n1: rejected by VolumeBinding: node(s) did not have enough free storage, for good
        n2: rejected by VolumeBinding: node(s) did not have enough free storage, for good
        -> 0/2 nodes are available: 2 node(s) did not have enough free storage. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling. [VolumeBinding]
    "#]],
    );
}
