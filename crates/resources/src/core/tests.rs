//! The core kinds other than pods, as users write them.

use crate::tests_support::*;
use expect_test::expect;

#[test]
fn services_are_filled_in_and_kept_over_updates() {
    let service =
        "{metadata: {name: web, namespace: default}, spec: {selector: {app: web}, ports: [{port: 80}]}}";
    check_create(
        "services",
        service,
        expect![[r#"
        apiVersion: v1
        kind: Service
        metadata:
          name: web
          namespace: default
        spec:
          internalTrafficPolicy: Cluster
          ports:
          - port: 80
            protocol: TCP
            targetPort: 80
          selector:
            app: web
          sessionAffinity: None
          type: ClusterIP
        status:
          loadBalancer: {}
    "#]],
    );
    check_errors("services", service, expect![""]);
    check_row(
        "services",
        &service.replace("spec: {", "spec: {type: NodePort, clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], "),
        expect![[r#"
            Name: "web"
            Type: "NodePort"
            Cluster-IP: "10.96.0.7"
            External-IP: "<none>"
            Port(s): "80/TCP"
            Age: "<unknown>"
            Selector: "app=web"
        "#]],
    );
    check_errors(
        "services",
        "{metadata: {name: Web, namespace: default}, spec: {type: Odd, clusterIP: x, ports: [{port: 80}, {port: 80, name: a, nodePort: 1}], \
         externalIPs: [127.0.0.1]}}",
        expect![[r#"
            metadata.name: Invalid value: "Web": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.ports[0].name: Required value
            spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
            spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80,"targetPort":0}
        "#]],
    );
    let given = "{metadata: {name: web, namespace: default, resourceVersion: '1'}, spec: {type: NodePort, clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7], \
                 ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, ports: [{port: 80, nodePort: 30001}]}}";
    let plain = "{metadata: {name: web, namespace: default, resourceVersion: '1'}, spec: {type: NodePort, ports: [{port: 81}]}}";
    let row = row_of("services");
    let (old, mut new) = (object("services", given), object("services", plain));
    row.prepare_for_update(new.as_mut(), old.as_ref());
    expect![[r#"
        apiVersion: v1
        kind: Service
        metadata:
          name: web
          namespace: default
          resourceVersion: "1"
        spec:
          clusterIP: "10.96.0.7"
          clusterIPs:
          - "10.96.0.7"
          externalTrafficPolicy: Cluster
          internalTrafficPolicy: Cluster
          ipFamilies:
          - IPv4
          ipFamilyPolicy: SingleStack
          ports:
          - nodePort: 30001
            port: 81
            protocol: TCP
            targetPort: 81
          sessionAffinity: None
          type: NodePort
        status:
          loadBalancer: {}
    "#]]
    .assert_eq(&api::codec::to_yaml(new.as_dyn()).unwrap());
    check_update_errors(
        "services",
        given,
        &given.replace("10.96.0.7", "10.96.0.8"),
        expect![[r#"
        spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set
    "#]],
    );
    check_update_errors(
        "services",
        given,
        &plain.replace("NodePort", "ExternalName, externalName: example.com"),
        expect![""],
    );
}

#[test]
fn namespaces_begin_active_and_hold_themselves() {
    check_create(
        "namespaces",
        "{metadata: {name: dev}}",
        expect![[r#"
        apiVersion: v1
        kind: Namespace
        metadata:
          labels:
            kubernetes.io/metadata.name: dev
          name: dev
        spec:
          finalizers:
          - kubernetes
        status:
          phase: Active
    "#]],
    );
    check_errors(
        "namespaces",
        "{metadata: {name: a.b}, spec: {finalizers: [x]}}",
        expect![[r#"
        metadata.name: Invalid value: "a.b": must not contain dots
        spec.finalizers: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified
    "#]],
    );
}

#[test]
fn secrets_keep_text_as_bytes_and_ask_for_their_keys() {
    check_default(
        "secrets",
        "{metadata: {name: s, namespace: default}, stringData: {a: b}}",
        expect![[r#"
        apiVersion: v1
        data:
          a: Yg==
        kind: Secret
        metadata:
          name: s
          namespace: default
        type: Opaque
    "#]],
    );
    check_errors(
        "secrets",
        "{metadata: {name: s, namespace: default}, type: kubernetes.io/tls, data: {'a/b': eA==}}",
        expect![[r#"
            data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            data[tls.crt]: Required value
            data[tls.key]: Required value
        "#]],
    );
    check_errors(
        "secrets",
        "{metadata: {name: s, namespace: default}, type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: x}}",
        expect![[r#"
            data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": expected value at line 1 column 1
        "#]],
    );
    let frozen = "{metadata: {name: s, namespace: default, resourceVersion: '1'}, immutable: true, stringData: {a: b}}";
    check_update_errors(
        "secrets",
        frozen,
        &frozen.replace("a: b", "a: c"),
        expect![[r#"
        data: Forbidden: field is immutable when `immutable` is set
    "#]],
    );
}

#[test]
fn config_maps_have_a_limit() {
    let large = format!(
        "{{metadata: {{name: c, namespace: default}}, data: {{a: {}}}}}",
        "x".repeat(1024 * 1024 + 1)
    );
    check_errors(
        "configmaps",
        &large,
        expect![[r#"
        <nil>: Too long: may not be more than 1048576 bytes
    "#]],
    );
    check_errors(
        "configmaps",
        "{metadata: {name: c, namespace: default}, data: {'..': x}}",
        expect![[r#"
        data[..]: Invalid value: "..": must not be '..'
    "#]],
    );
}

#[test]
fn nodes_show_their_roles_and_state() {
    let node = "{metadata: {name: n1, labels: {node-role.kubernetes.io/control-plane: ''}}, spec: {unschedulable: true, podCIDR: 10.244.0.0/24}, \
                status: {conditions: [{type: Ready, status: 'True'}], capacity: {cpu: 4}, addresses: [{type: InternalIP, address: 10.0.0.1}], \
                nodeInfo: {kubeletVersion: v1.36.0, architecture: amd64, kernelVersion: 6.1.0}}}";
    check_row(
        "nodes",
        node,
        expect![[r#"
        Name: "n1"
        Status: "Ready,SchedulingDisabled"
        Roles: "control-plane"
        Age: "<unknown>"
        Version: "v1.36.0"
        Internal-IP: "10.0.0.1"
        External-IP: "<none>"
        OS-Image: "<unknown>"
        Kernel-Version: "6.1.0 (amd64)"
        Container-Runtime: "<unknown>"
    "#]],
    );
    check_errors(
        "nodes",
        &node.replace("spec: {", "spec: {taints: [{key: a, effect: Never}, {key: a, effect: Never}], "),
        expect![[r#"
            metadata.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            metadata.taints[1].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            metadata.taints[1]: Duplicate value: {"key":"a","effect":"Never"}: taints must be unique by key and effect pair
        "#]],
    );
    check_update_errors(
        "nodes",
        &node.replace("n1,", "n1, resourceVersion: '1',"),
        &node.replace("n1,", "n1, resourceVersion: '1',").replace("10.244.0.0/24", "10.244.1.0/24"),
        expect![[r#"
            spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid
        "#]],
    );
}

#[test]
fn events_of_both_apis_are_one() {
    let newer = crate::find("events.k8s.io", "v1", "events").unwrap();
    let mut event = newer.new_object();
    let text = br#"{"metadata":{"name":"e","namespace":"default"},"eventTime":"2023-11-14T22:10:20.000000Z","reportingController":"x.io/c","reportingInstance":"i","action":"A","reason":"R","regarding":{"kind":"Pod","name":"p","namespace":"default"},"note":"hello","type":"Normal"}"#;
    meta::json::decode(event.as_dyn_mut(), text, &mut meta::json::Notes::default()).unwrap();
    assert!(newer.validate_create(event.as_ref()).is_empty());
    let stored = newer.to_storage(event.clone_object()).unwrap();
    expect![[r#"
        action: A
        apiVersion: v1
        eventTime: "2023-11-14T22:10:20.000000Z"
        involvedObject:
          kind: Pod
          name: p
          namespace: default
        kind: Event
        message: hello
        metadata:
          name: e
          namespace: default
        reason: R
        reportingComponent: x.io/c
        reportingInstance: i
        source: {}
        type: Normal
    "#]]
    .assert_eq(&api::codec::to_yaml(stored.as_dyn()).unwrap());
    let back = newer.from_storage(stored).unwrap();
    assert_eq!(api::codec::to_value(back.as_dyn()), api::codec::to_value(event.as_dyn()));
    assert_eq!(newer.field_label("regarding.name"), Ok("involvedObject.name".into()));
    let cells: Vec<String> = newer.row(event.as_ref(), now()).iter().map(ToString::to_string).collect();
    expect![[r#""3m" "Normal" "R" "pod/p" "" "x.io/c, i" "hello" "3m" 1 "e""#]].assert_eq(&cells.join(" "));
}

#[test]
fn claims_change_little() {
    let claim = "{metadata: {name: c, namespace: default, resourceVersion: '1'}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}";
    check_create(
        "persistentvolumeclaims",
        claim,
        expect![[r#"
        apiVersion: v1
        kind: PersistentVolumeClaim
        metadata:
          name: c
          namespace: default
          resourceVersion: "1"
        spec:
          accessModes:
          - ReadWriteOnce
          resources:
            requests:
              storage: 1Gi
          volumeMode: Filesystem
        status:
          phase: Pending
    "#]],
    );
    check_update_errors(
        "persistentvolumeclaims",
        claim,
        &claim.replace("1Gi", "2Gi"),
        expect![[r#"
        spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims
        @@ -4,7 +4,7 @@
          ],
          "resources": {
           "requests": {
        -   "storage": "1Gi"
        +   "storage": "2Gi"
           }
          },
          "volumeMode": "Filesystem"

    "#]],
    );
    check_errors(
        "persistentvolumeclaims",
        "{metadata: {name: c, namespace: default}, spec: {accessModes: [Odd]}}",
        expect![[r#"
            spec.accessModes: Unsupported value: "Odd": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"
            spec.resources[storage]: Required value
        "#]],
    );
    check_errors(
        "persistentvolumes",
        "{metadata: {name: v}, spec: {capacity: {storage: 0}, hostPath: {path: /a/../b}, nfs: {server: s, path: x}}}",
        expect![[r#"
            spec.accessModes: Required value
            spec.capacity[storage]: Invalid value: "0": must be greater than zero
            spec.nfs: Forbidden: may not specify more than 1 volume type
            spec.hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.nfs.path: Invalid value: "x": must be an absolute path
        "#]],
    );
}

#[test]
fn quotas_and_limits() {
    check_errors(
        "resourcequotas",
        "{metadata: {name: q, namespace: default}, spec: {hard: {pods: 1.5, cpus: 1}, scopes: [BestEffort, NotBestEffort]}}",
        expect![[r#"
            spec.hard[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified
            spec.hard[cpus]: Invalid value: "cpus": must be a standard resource for quota
            spec.hard[pods]: Invalid value: "1500m": must be an integer
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes
        "#]],
    );
    check_errors(
        "limitranges",
        "{metadata: {name: l, namespace: default}, spec: {limits: [{type: Container, max: {cpu: 1}, min: {cpu: 2}}, {type: Pod, default: {cpu: 1}}]}}",
        expect![[r#"
            spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1
            spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1
            spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1
            spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'
        "#]],
    );
    check_row(
        "resourcequotas",
        "{metadata: {name: q}, status: {hard: {pods: 3, limits.cpu: 2}, used: {pods: 1}}}",
        expect![[r#"
            Name: "q"
            Request: "pods: 1/3"
            Limit: "limits.cpu: 0/2"
            Age: "<unknown>"
        "#]],
    );
}

#[test]
fn endpoints_in_a_row() {
    check_row(
        "endpoints",
        "{metadata: {name: e}, subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{port: 80}, {port: 81}]}]}",
        expect![[r#"
            Name: "e"
            Endpoints: "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more..."
            Age: "<unknown>"
        "#]],
    );
    check_errors(
        "endpoints",
        "{metadata: {name: e, namespace: default}, subsets: [{addresses: [{ip: 127.0.0.1}], ports: [{port: 0}]}]}",
        expect![[r#"
            subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
        "#]],
    );
}

#[test]
fn controllers_follow_their_template() {
    check_default(
        "replicationcontrollers",
        "{spec: {template: {metadata: {labels: {a: b}}}}}",
        expect![[r#"
        apiVersion: v1
        kind: ReplicationController
        metadata:
          labels:
            a: b
        spec:
          replicas: 1
          selector:
            a: b
          template:
            metadata:
              labels:
                a: b
            spec:
              containers: null
              dnsPolicy: ClusterFirst
              restartPolicy: Always
              schedulerName: default-scheduler
              securityContext: {}
              terminationGracePeriodSeconds: 30
        status:
          replicas: 0
    "#]],
    );
}
