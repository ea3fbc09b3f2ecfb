//! What workloads become, what is wrong with them, and what they look like in a list.

use crate::tests_support::*;
use expect_test::expect;

const DEPLOYMENT: &str = "{metadata: {name: web, namespace: default, resourceVersion: '1'}, spec: {selector: {matchLabels: {app: web}}, \
                          template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: nginx:1}]}}}}";

#[test]
fn a_deployment_rolls_by_quarters() {
    check_create(
        "deployments",
        DEPLOYMENT,
        expect![[r#"
        apiVersion: apps/v1
        kind: Deployment
        metadata:
          generation: 1
          name: web
          namespace: default
          resourceVersion: "1"
        spec:
          progressDeadlineSeconds: 600
          replicas: 1
          revisionHistoryLimit: 10
          selector:
            matchLabels:
              app: web
          strategy:
            rollingUpdate:
              maxSurge: 25%
              maxUnavailable: 25%
            type: RollingUpdate
          template:
            metadata:
              labels:
                app: web
            spec:
              containers:
              - image: nginx:1
                imagePullPolicy: IfNotPresent
                name: a
                resources: {}
                terminationMessagePath: /dev/termination-log
                terminationMessagePolicy: File
              dnsPolicy: ClusterFirst
              restartPolicy: Always
              schedulerName: default-scheduler
              securityContext: {}
              terminationGracePeriodSeconds: 30
        status: {}
    "#]],
    );
    check_errors("deployments", DEPLOYMENT, expect![""]);
}

#[test]
fn a_deployment_must_select_its_own_pods() {
    check_errors(
        "deployments",
        &DEPLOYMENT.replace("matchLabels: {app: web}", "matchLabels: {app: x}"),
        expect![[r#"
            spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`
        "#]],
    );
    check_errors(
        "deployments",
        "{metadata: {name: web, namespace: default}}",
        expect![[r#"
        spec.selector: Required value
        spec.template.spec.containers: Required value
    "#]],
    );
    check_update_errors(
        "deployments",
        DEPLOYMENT,
        &DEPLOYMENT.replace("app: web", "app: x"),
        expect![[r#"
        spec.selector: Invalid value: {"matchLabels":{"app":"x"}}: field is immutable
    "#]],
    );
}

#[test]
fn generations_step_with_the_spec() {
    let row = row_of("deployments");
    let mut old = object("deployments", DEPLOYMENT);
    row.prepare_for_create(old.as_mut());
    let mut same = old.clone_object();
    row.prepare_for_update(same.as_mut(), old.as_ref());
    assert_eq!(same.metadata().generation, 1);
    let mut scaled = old.clone_object();
    let mut scale = row.scale(old.as_ref()).unwrap();
    assert_eq!(scale.status.selector, "app=web");
    scale.spec.replicas = 3;
    row.set_scale(scaled.as_mut(), &scale);
    row.prepare_for_update(scaled.as_mut(), old.as_ref());
    assert_eq!(scaled.metadata().generation, 2);
    let mut status = scaled.clone_object();
    row.prepare_for_subresource("status", status.as_mut(), old.as_ref());
    assert_eq!(status.metadata().generation, 1);
    assert_eq!(row.scale(status.as_ref()).unwrap().spec.replicas, 1);
}

#[test]
fn rows_of_workloads() {
    check_row(
        "deployments",
        DEPLOYMENT,
        expect![[r#"
        Name: "web"
        Ready: "0/1"
        Up-to-date: 0
        Available: 0
        Age: "<unknown>"
        Containers: "a"
        Images: "nginx:1"
        Selector: "app=web"
    "#]],
    );
    check_row(
        "replicasets",
        DEPLOYMENT,
        expect![[r#"
        Name: "web"
        Desired: 1
        Current: 0
        Ready: 0
        Age: "<unknown>"
        Containers: "a"
        Images: "nginx:1"
        Selector: "app=web"
    "#]],
    );
    check_row(
        "daemonsets",
        DEPLOYMENT,
        expect![[r#"
        Name: "web"
        Desired: 0
        Current: 0
        Ready: 0
        Up-to-date: 0
        Available: 0
        Node Selector: "<none>"
        Age: "<unknown>"
        Containers: "a"
        Images: "nginx:1"
        Selector: "app=web"
    "#]],
    );
    check_row(
        "statefulsets",
        DEPLOYMENT,
        expect![[r#"
        Name: "web"
        Ready: "0/1"
        Age: "<unknown>"
        Containers: "a"
        Images: "nginx:1"
    "#]],
    );
}

#[test]
fn sets_with_storage() {
    let set = "{metadata: {name: db, namespace: default, resourceVersion: '1'}, spec: {serviceName: db, selector: {matchLabels: {app: db}}, \
               template: {metadata: {labels: {app: db}}, spec: {containers: [{name: a, image: db:1, volumeMounts: [{name: data, mountPath: /d}]}]}}, \
               volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}";
    check_errors("statefulsets", set, expect![""]);
    check_default(
        "statefulsets",
        set,
        expect![[r#"
        apiVersion: apps/v1
        kind: StatefulSet
        metadata:
          name: db
          namespace: default
          resourceVersion: "1"
        spec:
          persistentVolumeClaimRetentionPolicy:
            whenDeleted: Retain
            whenScaled: Retain
          podManagementPolicy: OrderedReady
          replicas: 1
          revisionHistoryLimit: 10
          selector:
            matchLabels:
              app: db
          serviceName: db
          template:
            metadata:
              labels:
                app: db
            spec:
              containers:
              - image: db:1
                imagePullPolicy: IfNotPresent
                name: a
                resources: {}
                terminationMessagePath: /dev/termination-log
                terminationMessagePolicy: File
                volumeMounts:
                - mountPath: /d
                  name: data
              dnsPolicy: ClusterFirst
              restartPolicy: Always
              schedulerName: default-scheduler
              securityContext: {}
              terminationGracePeriodSeconds: 30
          updateStrategy:
            rollingUpdate:
              partition: 0
            type: RollingUpdate
          volumeClaimTemplates:
          - apiVersion: v1
            kind: PersistentVolumeClaim
            metadata:
              name: data
            spec:
              accessModes:
              - ReadWriteOnce
              resources:
                requests:
                  storage: 1Gi
              volumeMode: Filesystem
            status:
              phase: Pending
        status:
          availableReplicas: 0
          replicas: 0
    "#]],
    );
    check_update_errors(
        "statefulsets",
        set,
        &set.replace("serviceName: db", "serviceName: other"),
        expect![[r#"
            spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden
        "#]],
    );
}

#[test]
fn daemon_sets_count_their_templates() {
    let set = DEPLOYMENT;
    let row = row_of("daemonsets");
    let mut old = object("daemonsets", set);
    row.prepare_for_create(old.as_mut());
    let key = "deprecated.daemonset.template.generation";
    assert_eq!(old.metadata().annotations[key], "1");
    let mut new = object("daemonsets", &set.replace("nginx:1", "nginx:2"));
    row.prepare_for_update(new.as_mut(), old.as_ref());
    assert_eq!(new.metadata().annotations[key], "2");
    assert_eq!(new.metadata().generation, 2);
    check_errors(
        "daemonsets",
        &set.replace("spec: {selector", "spec: {updateStrategy: {rollingUpdate: {maxSurge: 1}}, selector"),
        expect![[r#"
            spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero
        "#]],
    );
}
