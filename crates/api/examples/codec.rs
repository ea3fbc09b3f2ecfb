//! How long the codecs take on a Pod of usual size: `cargo run --release -p api --example codec`.

use std::hint::black_box;
use std::time::Instant;

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-7d4b9c6f5-abcde","namespace":"shop","uid":"0b9a5f0e-8f0b-4c53-9f1e-2f6a1c0d9b11","resourceVersion":"12345",
"creationTimestamp":"2026-01-02T03:04:05Z","labels":{"app":"web","pod-template-hash":"7d4b9c6f5"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c6f5","uid":"u","controller":true,"blockOwnerDeletion":true}]},
"spec":{"containers":[{"name":"web","image":"registry.example/web:1.2.3","ports":[{"containerPort":80,"name":"http","protocol":"TCP"}],"resources":{"limits":{"cpu":"100m","memory":"64Mi"},"requests":{"cpu":"100m","memory":"64Mi"}},
"env":[{"name":"A","value":"b"},{"name":"POD","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}}],"livenessProbe":{"httpGet":{"path":"/","port":"http","scheme":"HTTP"},"periodSeconds":5,"timeoutSeconds":1,"successThreshold":1,"failureThreshold":3},
"volumeMounts":[{"name":"kube-api-access-x","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],
"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","nodeName":"node-1","securityContext":{},"schedulerName":"default-scheduler",
"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority",
"volumes":[{"name":"kube-api-access-x","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}],"defaultMode":420}}]},
"status":{"phase":"Running","podIP":"10.244.0.17","podIPs":[{"ip":"10.244.0.17"}],"startTime":"2026-01-02T03:04:05Z","qosClass":"Guaranteed","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-02T03:04:06Z"}]}}"#;

/// Rounds of each measurement.
const ROUNDS: u32 = 20_000;

fn time<T>(what: &str, bytes: usize, mut work: impl FnMut() -> T) {
    for _ in 0..ROUNDS / 10 {
        black_box(work());
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(work());
    }
    let each = start.elapsed().as_nanos() as f64 / f64::from(ROUNDS);
    println!("{what:<16} {:>8.0} ns  {:>7.0} MB/s", each, bytes as f64 / each * 1000.0);
}

fn main() {
    let pod: api::core::v1::Pod = api::codec::from_json(POD.as_bytes()).expect("the document is a pod");
    let (json, protobuf) = (api::codec::to_json(&pod), api::codec::to_protobuf(&pod));
    println!("a pod of {} bytes JSON, {} bytes protobuf", json.len(), protobuf.len());
    time("read JSON", json.len(), || api::codec::from_json::<api::core::v1::Pod>(&json));
    time("write JSON", json.len(), || api::codec::to_json(&pod));
    time("read protobuf", protobuf.len(), || api::codec::from_protobuf::<api::core::v1::Pod>(&protobuf));
    time("write protobuf", protobuf.len(), || api::codec::to_protobuf(&pod));
    time("clone", json.len(), || pod.clone());
}
