//! Pods as users write them: what they become, what is wrong with them, and what they look like in a list.

use crate::table::find;
use expect_test::expect;

use crate::tests_support::*;

#[test]
fn a_small_pod_is_filled_in() {
    check_default(
        "pods",
        "{metadata: {name: web, namespace: default}, spec: {containers: [{name: a, image: nginx, ports: [{containerPort: 80}], \
         readinessProbe: {httpGet: {port: 80}}, resources: {limits: {cpu: 1}}}], volumes: [{name: v}, {name: c, configMap: {name: x}}]}}",
        expect![[r#"
            apiVersion: v1
            kind: Pod
            metadata:
              name: web
              namespace: default
            spec:
              containers:
              - image: nginx
                imagePullPolicy: Always
                name: a
                ports:
                - containerPort: 80
                  protocol: TCP
                readinessProbe:
                  failureThreshold: 3
                  httpGet:
                    path: /
                    port: 80
                    scheme: HTTP
                  periodSeconds: 10
                  successThreshold: 1
                  timeoutSeconds: 1
                resources:
                  limits:
                    cpu: "1"
                  requests:
                    cpu: "1"
                terminationMessagePath: /dev/termination-log
                terminationMessagePolicy: File
              dnsPolicy: ClusterFirst
              enableServiceLinks: true
              restartPolicy: Always
              schedulerName: default-scheduler
              securityContext: {}
              terminationGracePeriodSeconds: 30
              volumes:
              - emptyDir: {}
                name: v
              - configMap:
                  defaultMode: 420
                  name: x
                name: c
            status: {}
        "#]],
    );
}

#[test]
fn faults_are_named_in_upstreams_words() {
    check_errors(
        "pods",
        "{metadata: {name: Web_1, namespace: default}, spec: {containers: [{name: a}, {name: a, image: x, \
         env: [{name: A, valueFrom: {}}], volumeMounts: [{name: missing, mountPath: /x}], ports: [{containerPort: 70000}]}], \
         restartPolicy: Sometimes, tolerations: [{operator: Equal}]}}",
        expect![[r#"
            metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.containers[0].image: Required value
            spec.containers[1].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[1].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`
            spec.containers[1].volumeMounts[0].name: Not found: "missing"
            spec.containers[1].name: Duplicate value: "a"
            spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
            spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
        "#]],
    );
}

#[test]
fn only_some_fields_change() {
    let pod = "{metadata: {name: web, namespace: default, resourceVersion: '1'}, spec: {containers: [{name: a, image: nginx}]}}";
    check_update_errors(
        "pods",
        pod,
        &pod.replace("nginx", "nginx:2"),
        expect![[r#"
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
            @@ -6,7 +6,7 @@
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            -   "imagePullPolicy": "Always"
            +   "imagePullPolicy": "IfNotPresent"
               }
              ],
              "restartPolicy": "Always",

        "#]],
    );
    check_update_errors(
        "pods",
        pod,
        &pod.replace("image: nginx", "image: nginx, command: [sh]"),
        expect![[r#"
            spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
            @@ -3,6 +3,9 @@
               {
                "name": "a",
                "image": "nginx",
            +   "command": [
            +    "sh"
            +   ],
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",

        "#]],
    );
}

#[test]
fn rows_boil_states_down() {
    let pod = "{metadata: {name: web, namespace: default, creationTimestamp: '2023-11-14T22:03:20Z'}, \
               spec: {nodeName: n1, containers: [{name: a, image: nginx}], readinessGates: [{conditionType: x/y}]}, \
               status: {phase: Running, podIPs: [{ip: 10.244.0.5}], containerStatuses: [{name: a, ready: true, restartCount: 2, \
               state: {running: {}}, lastState: {terminated: {exitCode: 1, finishedAt: '2023-11-14T22:08:20Z'}}}]}}";
    check_row(
        "pods",
        pod,
        expect![[r#"
        Name: "web"
        Ready: "1/1"
        Status: "Running"
        Restarts: "2 (5m ago)"
        Age: "10m"
        IP: "10.244.0.5"
        Node: "n1"
        Nominated Node: "<none>"
        Readiness Gates: "0/1"
    "#]],
    );
    check_row(
        "pods",
        &pod.replace("state: {running: {}}", "state: {waiting: {reason: CrashLoopBackOff}}"),
        expect![[r#"
            Name: "web"
            Ready: "0/1"
            Status: "CrashLoopBackOff"
            Restarts: "2 (5m ago)"
            Age: "10m"
            IP: "10.244.0.5"
            Node: "n1"
            Nominated Node: "<none>"
            Readiness Gates: "0/1"
        "#]],
    );
}

#[test]
fn unsupported_selectors_are_refused() {
    let pods = find("", "v1", "pods").unwrap();
    assert_eq!(pods.field_label("spec.host"), Ok("spec.nodeName".into()));
    assert_eq!(pods.field_label("spec.x"), Err("field label not supported: spec.x".into()));
    let maps = find("", "v1", "configmaps").unwrap();
    assert_eq!(
        maps.field_label("x"),
        Err("\"x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"".into())
    );
}

#[test]
fn grace_is_the_pods_own_unless_nobody_runs_it() {
    let pods = find("", "v1", "pods").unwrap();
    let unassigned = object("pods", "{spec: {containers: [{name: a}]}}");
    assert_eq!(pods.deletion_grace_seconds(unassigned.as_ref(), None), Some(0));
    let running = object("pods", "{spec: {nodeName: n1, containers: [{name: a}]}}");
    assert_eq!(pods.deletion_grace_seconds(running.as_ref(), None), Some(30));
    assert_eq!(pods.deletion_grace_seconds(running.as_ref(), Some(5)), Some(5));
    let finished = object("pods", "{spec: {nodeName: n1, containers: [{name: a}]}, status: {phase: Failed}}");
    assert_eq!(pods.deletion_grace_seconds(finished.as_ref(), Some(5)), Some(0));
}

#[test]
fn a_new_pod_waits_in_its_class() {
    let pod = "{metadata: {name: a, labels: {app: x}}, spec: {schedulingGates: [{name: g}], containers: [{name: a, image: x:1}], \
               topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule, matchLabelKeys: [app], \
               labelSelector: {}}]}, status: {phase: Running}}";
    check_create(
        "pods",
        pod,
        expect![[r#"
        apiVersion: v1
        kind: Pod
        metadata:
          generation: 1
          labels:
            app: x
          name: a
        spec:
          containers:
          - image: x:1
            imagePullPolicy: IfNotPresent
            name: a
            resources: {}
            terminationMessagePath: /dev/termination-log
            terminationMessagePolicy: File
          dnsPolicy: ClusterFirst
          enableServiceLinks: true
          restartPolicy: Always
          schedulerName: default-scheduler
          schedulingGates:
          - name: g
          securityContext: {}
          terminationGracePeriodSeconds: 30
          topologySpreadConstraints:
          - labelSelector:
              matchExpressions:
              - key: app
                operator: In
                values:
                - x
            matchLabelKeys:
            - app
            maxSkew: 1
            topologyKey: z
            whenUnsatisfiable: DoNotSchedule
        status:
          conditions:
          - message: Scheduling is blocked due to non-empty scheduling gates
            reason: SchedulingGated
            status: "False"
            type: PodScheduled
          phase: Pending
          qosClass: BestEffort
    "#]],
    );
}

#[test]
fn binding_keeps_what_the_server_says_in_the_status() {
    use crate::strategy::Strategy;
    let old = api::core::v1::Pod::default();
    let mut bound = old.clone();
    bound.spec.node_name = "n1".into();
    bound.metadata.labels.insert("topology.kubernetes.io/zone".into(), "a".into());
    bound
        .status
        .conditions
        .push(api::core::v1::PodCondition { r#type: "PodScheduled".into(), ..Default::default() });
    let mut prepared = bound.clone();
    super::Pods::prepare_for_subresource("binding", &mut prepared, &old);
    assert_eq!(prepared, bound);
}
