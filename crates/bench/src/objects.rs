//! The objects that the workloads write, alike for every server.

use crate::target::Encoding;
use anyhow::Result;
use api::codec;
use bytes::Bytes;
use serde_json::{Value, json};

/// A sort of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    Configmap,
    Pod,
    Lease,
    Node,
    Service,
}

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Sort::Configmap => "configmap",
            Sort::Pod => "pod",
            Sort::Lease => "lease",
            Sort::Node => "node",
            Sort::Service => "service",
        }
    }

    /// Where objects of this sort are served.
    pub fn collection(self, namespace: &str) -> String {
        match self {
            Sort::Configmap => format!("/api/v1/namespaces/{namespace}/configmaps"),
            Sort::Pod => format!("/api/v1/namespaces/{namespace}/pods"),
            Sort::Lease => format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"),
            Sort::Node => "/api/v1/nodes".into(),
            Sort::Service => format!("/api/v1/namespaces/{namespace}/services"),
        }
    }

    /// An object of about `bytes` bytes where its size can be chosen.
    pub fn object(self, namespace: &str, name: &str, bytes: usize) -> Value {
        match self {
            Sort::Configmap => config_map(namespace, name, bytes),
            Sort::Pod => pod(namespace, name, ""),
            Sort::Lease => lease(namespace, name, ""),
            Sort::Node => node(name, 0),
            Sort::Service => service(namespace, name),
        }
    }

    /// The object as a request's body.
    pub fn encode(self, object: &Value, encoding: Encoding) -> Result<Bytes> {
        if encoding == Encoding::Json {
            return Ok(Bytes::from(object.to_string()));
        }
        Ok(Bytes::from(match self {
            Sort::Configmap => codec::to_protobuf(&codec::from_value::<api::core::v1::ConfigMap>(object)?),
            Sort::Pod => codec::to_protobuf(&codec::from_value::<api::core::v1::Pod>(object)?),
            Sort::Lease => codec::to_protobuf(&codec::from_value::<api::coordination::v1::Lease>(object)?),
            Sort::Node => codec::to_protobuf(&codec::from_value::<api::core::v1::Node>(object)?),
            Sort::Service => codec::to_protobuf(&codec::from_value::<api::core::v1::Service>(object)?),
        }))
    }
}

pub fn config_map(namespace: &str, name: &str, bytes: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": "bench"}},
        "data": {"text": "x".repeat(bytes)},
    })
}

/// A pod as a Deployment makes it; on a node where one is named.
pub fn pod(namespace: &str, name: &str, node: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name,
            "labels": {"app": "bench", "pod-template-hash": "5c9b8f6d7d", "tier": "frontend"},
            "annotations": {"example.com/revision": "7", "example.com/owner": "the team that measures"},
        },
        "spec": {
            "containers": [{
                "name": "web", "image": "registry.example.com/shop/web:1.4.2",
                "args": ["--listen=:8080", "--log-level=info"],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "DATABASE", "value": "postgres.shop.svc.cluster.local:5432"},
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
            }],
            "terminationGracePeriodSeconds": 0,
        },
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

/// What a kubelet says of a running pod, as a patch of its status.
pub fn pod_status(number: u64) -> Value {
    let time = now();
    let address = format!("10.{}.{}.{}", (number >> 16) & 255, (number >> 8) & 255, number & 255);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time});
    json!({"status": {
        "phase": "Running", "hostIP": "192.0.2.1", "podIP": address, "startTime": time,
        "conditions": [
            condition("PodReadyToStartContainers"), condition("Initialized"), condition("Ready"),
            condition("ContainersReady"), condition("PodScheduled"),
        ],
        "containerStatuses": [{
            "name": "web", "image": "registry.example.com/shop/web:1.4.2", "imageID": "sha256:0123456789abcdef",
            "containerID": format!("containerd://{number:064x}"), "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": time}},
        }],
    }})
}

/// A lease as a node renews it; `revision` empty for a new one.
pub fn lease(namespace: &str, name: &str, revision: &str) -> Value {
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_now()},
    });
    if !revision.is_empty() {
        lease["metadata"]["resourceVersion"] = revision.into();
    }
    lease
}

/// A node that is ready for pods: 32 processors, 128 GiB, 110 pods, in one of three zones.
pub fn node(name: &str, number: u64) -> Value {
    let (time, zone) = (now(), format!("zone-{}", number % 3));
    let resources = json!({"cpu": "32", "memory": "128Gi", "ephemeral-storage": "500Gi", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "bench", "bench": "node",
        }},
        "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": time,
                    "lastTransitionTime": time},
                {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory",
                    "lastHeartbeatTime": time, "lastTransitionTime": time},
            ],
            "addresses": [{"type": "Hostname", "address": name}],
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.1.0", "osImage": "bench",
                "containerRuntimeVersion": "bench://1", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    })
}

pub fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": "bench"}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// An event about a pod.
pub fn event(namespace: &str, name: &str, pod: &str) -> Value {
    let time = now();
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"namespace": namespace, "name": name},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod},
        "reason": "Started", "message": "Started container web", "type": "Normal", "count": 1,
        "source": {"component": "kubelet", "host": "bench"}, "firstTimestamp": time, "lastTimestamp": time,
    })
}

/// This second, as the API writes it.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn micro_now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sort_is_the_same_in_both_encodings() {
        for sort in [Sort::Configmap, Sort::Pod, Sort::Lease, Sort::Node, Sort::Service] {
            let object = sort.object("shop", "a", 100);
            let bytes = sort.encode(&object, Encoding::Protobuf).unwrap();
            let envelope = codec::open(&bytes).unwrap();
            assert_eq!(envelope.kind, object["kind"].as_str().unwrap());
            // Nothing of the text is unknown to the type and lost on the way.
            let kind = codec::find_kind(&envelope.api_version, &envelope.kind).unwrap();
            let mut decoded = (kind.message)();
            meta::proto::merge(decoded.as_mut(), envelope.raw).unwrap();
            let back = codec::to_value(decoded.as_ref());
            for part in ["metadata", "spec", "data"] {
                for (field, value) in object[part].as_object().into_iter().flatten() {
                    if value.is_string() || value.is_number() {
                        assert_eq!(&back[part][field], value, "{part}.{field}");
                    }
                }
            }
        }
    }
}
