//! Storage as a user meets it: the default class waits for a consumer, keeps data over a pod's end, and takes it away
//! with the claim.

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::eventually;

const CLAIM: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: disks}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: disks}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
"#;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: writer, namespace: disks}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {fsGroup: 2000, runAsUser: 1000}
  containers:
    - name: main
      image: busybox:1.36
      command: [sh, -c, "echo kept > /data/file && sleep 600"]
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: data, mountPath: /part, subPath: sub/part}
        - {name: scratch, mountPath: /scratch}
  volumes:
    - {name: data, persistentVolumeClaim: {claimName: data}}
    - name: scratch
      ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}}
"#;

/// A claim is pending until a pod uses it, grows, and its directory goes when it is deleted.
pub fn come_and_go(cluster: &Cluster) -> Result<()> {
    cluster.apply(CLAIM)?;
    let claim = ["-n", "disks", "pvc", "data"];
    eventually(10, || {
        let events = cluster.kubectl(&["-n", "disks", "events", "--for=pvc/data"])?;
        ensure!(events.contains("WaitForFirstConsumer"), "no event says what the claim waits for:\n{events}");
        Ok(())
    })?;
    ensure!(cluster.field(&claim, ".status.phase")? == "Pending", "the claim was bound without a consumer");
    ensure!(
        cluster.field(&claim, ".spec.storageClassName")? == "local-path",
        "the default class was not set"
    );
    cluster.apply(POD)?;
    runs(cluster, "disks", "writer")?;
    let volume = cluster.field(&claim, ".spec.volumeName")?;
    let path = cluster.field(&["pv", &volume], ".spec.local.path")?;
    ensure!(
        std::fs::read_to_string(format!("{path}/file"))?.trim() == "kept",
        "the pod's file is not in {path}"
    );
    ensure!(std::path::Path::new(&path).join("sub/part").is_dir(), "the subpath is not in the volume");
    let scratch = cluster.field(&["-n", "disks", "pvc", "writer-scratch"], ".spec.volumeName")?;

    let larger = r#"{"spec":{"resources":{"requests":{"storage":"32Mi"}}}}"#;
    cluster.kubectl(&["-n", "disks", "patch", "pvc", "data", "-p", larger])?;
    eventually(10, || {
        let size = cluster.field(&claim, ".status.capacity.storage")?;
        ensure!(size == "32Mi", "the claim has {size}");
        Ok(())
    })?;

    cluster.kubectl(&["-n", "disks", "delete", "pvc", "data", "--wait=false"])?;
    ensure!(cluster.field(&claim, ".status.phase")? == "Bound", "a claim in use was not kept");
    cluster.kubectl(&["-n", "disks", "delete", "pod", "writer", "--timeout=30s"])?;
    for volume in [&volume, &scratch] {
        cluster
            .kubectl(&["wait", "--for=delete", &format!("pv/{volume}"), "--timeout=20s"])
            .with_context(|| cluster.kubectl(&["describe", "pv", volume]).unwrap_or_default())?;
    }
    ensure!(!std::path::Path::new(&path).exists(), "{path} outlives its claim");
    cluster.kubectl(&["delete", "namespace", "disks", "--timeout=60s"]).map(|_| ())
}

const SET: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: keep}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: keep}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: busybox:1.36
          command: [sh, -c, "hostname >> /data/starts && sleep 600"]
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
"#;

/// A StatefulSet's pod finds what its predecessor wrote.
pub fn keep_data(cluster: &Cluster) -> Result<()> {
    cluster.apply(SET)?;
    cluster
        .kubectl(&["-n", "keep", "rollout", "status", "statefulset/db", "--timeout=60s"])
        .with_context(|| cluster.kubectl(&["-n", "keep", "describe", "pods,pvc"]).unwrap_or_default())?;
    let before = cluster.field(&["-n", "keep", "pod", "db-1"], ".metadata.uid")?;
    cluster.kubectl(&["-n", "keep", "delete", "pod", "db-1", "--timeout=30s"])?;
    eventually(30, || {
        let uid = cluster.field(&["-n", "keep", "pod", "db-1"], ".metadata.uid")?;
        ensure!(uid != before, "the pod was not made again");
        Ok(())
    })?;
    runs(cluster, "keep", "db-1")?;
    let starts = eventually(10, || {
        let starts = cluster.kubectl(&["-n", "keep", "exec", "db-1", "--", "cat", "/data/starts"])?;
        ensure!(starts.lines().count() >= 2, "the second pod found {starts:?}");
        Ok(starts)
    })?;
    ensure!(starts.lines().all(|line| line == "db-1"), "the volume was another pod's: {starts:?}");
    cluster.kubectl(&["delete", "namespace", "keep", "--timeout=60s"])?;
    eventually(30, || {
        let volumes = cluster.kubectl(&["get", "pv", "-o", "name"])?;
        ensure!(volumes.trim().is_empty(), "volumes outlive their claims:\n{volumes}");
        Ok(())
    })
}

const RESIZED: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: sizes}
---
apiVersion: v1
kind: Pod
metadata: {name: elastic, namespace: sizes}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: busybox:1.36
      command: [sleep, "600"]
      resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}
      volumeMounts: [{name: files, mountPath: /files}]
  volumes:
    - {name: files, image: {reference: "busybox:1.36", pullPolicy: IfNotPresent}}
"#;

/// A pod gets more without a restart, and is told where it asks for too much; its image volume has the image's files.
pub fn sizes_change(cluster: &Cluster) -> Result<()> {
    cluster.apply(RESIZED)?;
    runs(cluster, "sizes", "elastic")?;
    let files = cluster.kubectl(&["-n", "sizes", "exec", "elastic", "--", "ls", "/files/bin"])?;
    ensure!(files.contains("busybox"), "the image volume holds {files:?}");
    let resize = |cpu: &str| {
        let patch = format!(
            r#"{{"spec":{{"containers":[{{"name":"main","resources":{{"requests":{{"cpu":"{cpu}"}},"limits":{{"cpu":"{cpu}"}}}}}}]}}}}"#
        );
        cluster.kubectl(&["-n", "sizes", "patch", "pod", "elastic", "--subresource", "resize", "-p", &patch])
    };
    let pod = ["-n", "sizes", "pod", "elastic"];
    resize("200m")?;
    eventually(10, || {
        let cpu = cluster.field(&pod, ".status.containerStatuses[0].resources.limits.cpu")?;
        ensure!(cpu == "200m", "the container has {cpu:?}");
        Ok(())
    })?;
    ensure!(
        cluster.field(&pod, ".status.containerStatuses[0].restartCount")? == "0",
        "the container was restarted"
    );
    resize("1000")?;
    eventually(10, || {
        let reason = cluster.field(&pod, ".status.conditions[?(@.type=='PodResizePending')].reason")?;
        ensure!(reason == "Infeasible", "the wish for too much is {reason:?}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "namespace", "sizes", "--timeout=60s"]).map(|_| ())
}

fn runs(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let pod = format!("pod/{name}");
    cluster
        .kubectl(&["-n", namespace, "wait", &pod, "--for=condition=Ready", "--timeout=30s"])
        .map(|_| ())
        .with_context(|| {
            let pods = cluster.kubectl(&["-n", namespace, "describe", &pod]).unwrap_or_default();
            pods + &cluster.kubectl(&["-n", namespace, "describe", "pvc"]).unwrap_or_default()
        })
}
