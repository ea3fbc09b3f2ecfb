//! What each node says of a pod, and where it goes: cluster in, table out.

use crate::fixture::table;
use expect_test::{Expect, expect};

fn check(cluster: &str, expected: Expect) {
    expected.assert_eq(&table(cluster));
}

#[test]
fn the_emptier_and_evener_node_wins() {
    check(
        "node n1
         node n2
         node n3 cpu=2
         pod a on=n1 cpu=1 memory=2Gi
         pod b on=n2 cpu=2 memory=1Gi
         pod p cpu=500m memory=1Gi",
        expect![[r#"
            n1: 437 = TaintToleration 100*3 NodeResourcesFit 62*1 NodeResourcesBalancedAllocation 75*1
            n2: 431 = TaintToleration 100*3 NodeResourcesFit 56*1 NodeResourcesBalancedAllocation 75*1
            n3: 452 = TaintToleration 100*3 NodeResourcesFit 81*1 NodeResourcesBalancedAllocation 71*1
            -> bind n3
        "#]],
    );
}

#[test]
fn a_node_without_room_says_what_is_missing() {
    check(
        "node n1 cpu=1
         node n2 cpu=1 memory=1Gi
         node n3 pods=1
         node n4 cpu=3
         pod a on=n3
         pod b on=n4 cpu=2
         pod p cpu=2 memory=2Gi",
        expect![[r#"
            n1: rejected by NodeResourcesFit: Insufficient cpu, for good
            n2: rejected by NodeResourcesFit: Insufficient cpu, Insufficient memory, for good
            n3: rejected by NodeResourcesFit: Too many pods
            n4: rejected by NodeResourcesFit: Insufficient cpu
            -> 0/4 nodes are available: 1 Insufficient memory, 1 Too many pods, 3 Insufficient cpu. no new claims to deallocate, preemption: 0/4 nodes are available: 2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling. [NodeResourcesFit]
        "#]],
    );
}

#[test]
fn init_containers_sidecars_overhead_and_pod_level_requests_count() {
    // 1 + sidecar 1 = 2; the init container after the sidecar needs 3 + 1 = 4; overhead makes it 4.5.
    check(
        "node n1 cpu=4
         node n2 cpu=4500m
         pod p cpu=1 | {spec: {overhead: {cpu: 500m}, initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: 1}}}, {name: i, resources: {requests: {cpu: 3}}}]}}",
        expect![[r#"
            n1: rejected by NodeResourcesFit: Insufficient cpu, for good
            n2: 397 = TaintToleration 100*3 NodeResourcesFit 47*1 NodeResourcesBalancedAllocation 50*1
            -> bind n2
        "#]],
    );
    check(
        "node n1 cpu=2
         pod p cpu=3 | {spec: {resources: {requests: {cpu: 2}}}}",
        expect![[r#"
            n1: 398 = TaintToleration 100*3 NodeResourcesFit 48*1 NodeResourcesBalancedAllocation 50*1
            -> bind n1
        "#]],
    );
}

#[test]
fn extended_resources_and_ports_are_counted() {
    check(
        "node n1 example.com/gpu=2
         node n2
         node n3 example.com/gpu=1
         pod a on=n1 example.com/gpu=1 port=80
         pod b on=n3 port=8080
         pod p example.com/gpu=1 port=80",
        expect![[r#"
            n1: rejected by NodePorts: node(s) didn't have free ports for the requested pod ports
            n2: rejected by NodeResourcesFit: Insufficient example.com/gpu, for good
            n3: 395 = TaintToleration 100*3 NodeResourcesFit 95*1
            -> bind n3
        "#]],
    );
}

#[test]
fn cordons_and_taints_keep_pods_away() {
    check(
        "node n1 cordoned
         node n2 taint=dedicated=db:NoSchedule
         node n3 taint=node.kubernetes.io/not-ready:NoExecute
         pod p",
        expect![[r#"
            n1: rejected by NodeUnschedulable: node(s) were unschedulable, for good
            n2: rejected by TaintToleration: node(s) had untolerated taint(s), for good
            n3: rejected by TaintToleration: node(s) had untolerated taint(s), for good
            -> 0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling. [NodeUnschedulable TaintToleration]
        "#]],
    );
    check(
        "node n1 cordoned
         node n2 taint=dedicated=db:NoSchedule
         node n3 taint=soft:PreferNoSchedule
         pod p | {spec: {tolerations: [{key: dedicated, value: db}, {key: node.kubernetes.io/unschedulable, operator: Exists}]}}",
        expect![[r#"
            n1: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
            n2: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
            n3: 97 = TaintToleration 0*3 NodeResourcesFit 97*1
            -> bind n1
        "#]],
    );
}

#[test]
fn node_affinity_requires_and_prefers() {
    check(
        "node n1 label:disk=ssd label:size=3
         node n2 label:disk=ssd label:size=9
         node n3 label:disk=hdd label:size=9
         pod p | {spec: {nodeSelector: {disk: ssd}, affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 5, preference: {matchExpressions: [{key: size, operator: Gt, values: ['5']}]}}]}}}}",
        expect![[r#"
            n1: 397 = TaintToleration 100*3 NodeAffinity 0*2 NodeResourcesFit 97*1
            n2: 597 = TaintToleration 100*3 NodeAffinity 100*2 NodeResourcesFit 97*1
            n3: rejected by NodeAffinity: node(s) didn't match Pod's node affinity/selector, for good
            -> bind n2
        "#]],
    );
    check(
        "node n1
         node n2
         node n3 cpu=1
         pod p cpu=2 | {spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [n3]}]}]}}}}}",
        expect![[r#"
            n1: passed over by NodeAffinity
            n2: passed over by NodeAffinity
            n3: rejected by NodeResourcesFit: Insufficient cpu, for good
            -> 0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling. [NodeResourcesFit NodeAffinity]
        "#]],
    );
}

#[test]
fn images_draw_pods_less_the_fewer_nodes_have_them() {
    check(
        "node n1 image=registry/app:1@800
         node n2 image=registry/app:1@800
         node n3
         pod p image=registry/app:1",
        expect![[r#"
            n1: 449 = TaintToleration 100*3 NodeResourcesFit 97*1 ImageLocality 52*1
            n2: 449 = TaintToleration 100*3 NodeResourcesFit 97*1 ImageLocality 52*1
            n3: 397 = TaintToleration 100*3 NodeResourcesFit 97*1 ImageLocality 0*1
            -> bind n1
        "#]],
    );
}

#[test]
fn pods_of_a_service_prefer_to_spread() {
    check(
        "node n1 zone=a
         node n2 zone=a
         node n3 zone=b
         service web | {spec: {selector: {app: web}}}
         pod w1 on=n1 label:app=web
         pod w2 on=n3 label:app=web
         pod other on=n2 label:app=db
         pod p label:app=web",
        expect![[r#"
            n1: 549 = TaintToleration 100*3 NodeResourcesFit 95*1 PodTopologySpread 77*2
            n2: 595 = TaintToleration 100*3 NodeResourcesFit 95*1 PodTopologySpread 100*2
            n3: 549 = TaintToleration 100*3 NodeResourcesFit 95*1 PodTopologySpread 77*2
            -> bind n2
        "#]],
    );
}

#[test]
fn strict_spreading_bounds_the_skew() {
    check(
        "node n1 zone=a
         node n2 zone=b
         node n3 zone=c label:hidden=yes
         node n4
         pod w1 on=n1 label:app=web
         pod p label:app=web | {spec: {nodeSelector: {kubernetes.io/hostname: n1}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}, nodeAffinityPolicy: Ignore}]}}",
        expect![[r#"
            n1: rejected by PodTopologySpread: node(s) didn't match pod topology spread constraints
            n2: rejected by NodeAffinity: node(s) didn't match Pod's node affinity/selector, for good
            n3: rejected by NodeAffinity: node(s) didn't match Pod's node affinity/selector, for good
            n4: rejected by NodeAffinity: node(s) didn't match Pod's node affinity/selector, for good
            -> 0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints, 3 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling. [PodTopologySpread NodeAffinity]
        "#]],
    );
    check(
        "node n1 zone=a
         node n2 zone=b
         node n4
         pod w1 on=n1 label:app=web
         pod p label:app=web | {spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, minDomains: 3, labelSelector: {matchLabels: {app: web}}}]}}",
        expect![[r#"
            n1: rejected by PodTopologySpread: node(s) didn't match pod topology spread constraints
            n2: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
            n4: rejected by PodTopologySpread: node(s) didn't match pod topology spread constraints (missing required label), for good
            -> bind n2
        "#]],
    );
}

#[test]
fn pods_keep_near_and_far_as_they_and_others_state() {
    let near = "{spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: db}}}]}}}}";
    check(
        &format!(
            "node n1 zone=a
             node n2 zone=b
             node n3
             pod db on=n1 label:app=db
             pod p | {near}"
        ),
        expect![[r#"
            n1: 395 = TaintToleration 100*3 NodeResourcesFit 95*1
            n2: rejected by InterPodAffinity: node(s) didn't match pod affinity rules, for good
            n3: rejected by InterPodAffinity: node(s) didn't match pod affinity rules, for good
            -> bind n1
        "#]],
    );
    // Nobody is there to be near: only a pod that it would be near to itself may be the first.
    check(
        &format!("node n1 zone=a\n node n2\n pod p | {near}"),
        expect![[r#"
        n1: rejected by InterPodAffinity: node(s) didn't match pod affinity rules, for good
        n2: rejected by InterPodAffinity: node(s) didn't match pod affinity rules, for good
        -> 0/2 nodes are available: 2 node(s) didn't match pod affinity rules. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling. [InterPodAffinity]
    "#]],
    );
    check(
        &format!("node n1 zone=a\n node n2\n pod p label:app=db | {near}"),
        expect![[r#"
        n1: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
        n2: rejected by InterPodAffinity: node(s) didn't match pod affinity rules, for good
        -> bind n1
    "#]],
    );
    let far = "{spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}]}}}}";
    check(
        &format!(
            "node n1
             node n2
             node n3
             pod w1 on=n1 label:app=web
             pod loner on=n2 | {far}
             pod p label:app=web | {far}"
        ),
        expect![[r#"
            n1: rejected by InterPodAffinity: node(s) didn't match pod anti-affinity rules
            n2: rejected by InterPodAffinity: node(s) didn't satisfy existing pods anti-affinity rules
            n3: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
            -> bind n3
        "#]],
    );
}

#[test]
fn preferences_toward_pods_weigh() {
    check(
        "node n1 zone=a
         node n2 zone=b
         pod db on=n2 label:app=db
         pod shy on=n1 | {spec: {affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, podAffinityTerm: {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: web}}}}]}}}}
         pod p label:app=web | {spec: {affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, podAffinityTerm: {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: db}}}}]}}}}",
        expect![[r#"
            n1: 395 = TaintToleration 100*3 NodeResourcesFit 95*1 InterPodAffinity 0*2
            n2: 595 = TaintToleration 100*3 NodeResourcesFit 95*1 InterPodAffinity 100*2
            -> bind n2
        "#]],
    );
}

#[test]
fn claims_must_be_there_and_bound_and_reachable() {
    let pod = "pod p | {spec: {volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}}";
    check(
        &format!("node n1\n {pod}"),
        expect![[r#"
            rejected by VolumeRestrictions: persistentvolumeclaim "data" not found
            -> 0/1 nodes are available: persistentvolumeclaim "data" not found. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. [VolumeRestrictions]
        "#]],
    );
    check(
        &format!("node n1\n claim data\n {pod}"),
        expect![[r#"
        rejected by VolumeBinding: pod has unbound immediate PersistentVolumeClaims
        -> 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling. [VolumeBinding]
    "#]],
    );
    check(
        &format!(
            "node n1 zone=a
             node n2 zone=b
             volume pv | {{spec: {{nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: topology.kubernetes.io/zone, operator: In, values: [b]}}]}}]}}}}}}}}
             claim data | {{metadata: {{annotations: {{pv.kubernetes.io/bind-completed: 'yes'}}}}, spec: {{volumeName: pv}}}}
             {pod}"
        ),
        expect![[r#"
            n1: rejected by VolumeBinding: node(s) didn't match PersistentVolume's node affinity, for good
            n2: 397 = TaintToleration 100*3 NodeResourcesFit 97*1
            -> bind n2
        "#]],
    );
}

#[test]
fn preemption_takes_the_least() {
    check(
        "node n1 cpu=2
         node n2 cpu=2
         pod low on=n1 cpu=1 priority=1
         pod lower on=n1 cpu=1
         pod mid on=n2 cpu=2 priority=5
         pod p cpu=1 priority=10",
        expect![[r#"
            n1: rejected by NodeResourcesFit: Insufficient cpu
            n2: rejected by NodeResourcesFit: Insufficient cpu
            -> 0/2 nodes are available: 2 Insufficient cpu.
            nominate n1, evict lower
        "#]],
    );
    check(
        "node n1 cpu=2
         pod a on=n1 cpu=1 label:app=a
         pod b on=n1 cpu=1 label:app=b
         budget a | {spec: {selector: {matchLabels: {app: a}}}, status: {disruptionsAllowed: 0}}
         pod p cpu=1 priority=10",
        expect![[r#"
            n1: rejected by NodeResourcesFit: Insufficient cpu
            -> 0/1 nodes are available: 1 Insufficient cpu.
            nominate n1, evict b
        "#]],
    );
    check(
        "node n1 cpu=2
         pod a on=n1 cpu=2
         pod p cpu=1 priority=10 | {spec: {preemptionPolicy: Never}}",
        expect![[r#"
            n1: rejected by NodeResourcesFit: Insufficient cpu
            -> 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never. [NodeResourcesFit]
        "#]],
    );
}

#[test]
fn a_cluster_without_nodes_says_so() {
    check(
        "pod p",
        expect![[r#"
        -> no nodes available to schedule pods []
    "#]],
    );
}
