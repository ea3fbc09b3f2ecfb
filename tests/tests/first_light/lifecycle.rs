//! What happens to containers and pods: killed, failing, deleted, relabelled, surplus, updated under load.

use crate::services::get;
use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::{eventually, images};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const MORTALS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: lifecycle}
---
apiVersion: v1
kind: Pod
metadata: {name: mortal, namespace: lifecycle}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: dies, image: "docker.io/library/busybox:1.36", command: ["sh", "-c", "sleep 2; exit 3"]}
    - name: fails
      image: timonel.dev/testserver:1
      livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 2}
    - name: calls
      image: timonel.dev/testserver:1
      args: ["8090"]
      startupProbe: {grpc: {port: 8091}, periodSeconds: 1, failureThreshold: 30}
      readinessProbe: {grpc: {port: 8091, service: life}, periodSeconds: 1}
      livenessProbe: {grpc: {port: 8091, service: life}, periodSeconds: 1, failureThreshold: 2}
    - name: stranger
      image: timonel.dev/testserver:1
      args: ["8100"]
      readinessProbe: {grpc: {port: 8101, service: unknown}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: once, namespace: lifecycle}
spec:
  restartPolicy: Never
  containers:
    - {name: main, image: "docker.io/library/busybox:1.36", command: ["sh", "-c", "echo farewell > /dev/termination-log; exit 42"]}
"#;

pub fn restarts(cluster: &Cluster) -> Result<()> {
    cluster.apply(MORTALS)?;
    let mortal = ["-n", "lifecycle", "pod", "mortal"];
    let count = |name: &str| {
        cluster.field(&mortal, &format!(".status.containerStatuses[?(@.name=='{name}')].restartCount"))
    };
    eventually(60, || {
        let waiting =
            cluster.field(&mortal, ".status.containerStatuses[?(@.name=='dies')].state.waiting.reason")?;
        ensure!(waiting == "CrashLoopBackOff", "a container that dies waits for {waiting:?}");
        Ok(())
    })?;
    let code = cluster
        .field(&mortal, ".status.containerStatuses[?(@.name=='dies')].lastState.terminated.exitCode")?;
    ensure!(code == "3", "the last exit code is {code}");
    ensure!(count("dies")?.parse::<u32>()? >= 1, "the dead container was not restarted");
    let ready =
        |name: &str| cluster.field(&mortal, &format!(".status.containerStatuses[?(@.name=='{name}')].ready"));
    for name in ["fails", "calls"] {
        eventually(30, || {
            ensure!(ready(name)? == "true", "container {name} is not ready");
            Ok(())
        })?;
        ensure!(count(name)? == "0", "a healthy container was restarted");
        cluster.kubectl(&[
            "-n",
            "lifecycle",
            "exec",
            "mortal",
            "-c",
            name,
            "--",
            "touch",
            "/tmp/unhealthy",
        ])?;
        eventually(60, || {
            ensure!(count(name)? == "1", "restarts after a failing liveness probe: {}", count(name)?);
            Ok(())
        })?;
    }
    ensure!(ready("stranger")? == "false", "a gRPC probe of a service that is not there passes");
    let events = cluster.kubectl(&["-n", "lifecycle", "events", "--for=pod/mortal"])?;
    ensure!(events.contains("Readiness probe failed: service unhealthy"), "the gRPC probe's event: {events}");
    ensure!(
        !cluster.kubectl(&["-n", "lifecycle", "logs", "mortal", "-c", "fails", "--previous"])?.is_empty(),
        "no previous log"
    );
    let once = ["-n", "lifecycle", "pod", "once"];
    eventually(30, || {
        let phase = cluster.field(&once, ".status.phase")?;
        ensure!(phase == "Failed", "the pod that ran once is {phase}");
        Ok(())
    })?;
    let said = cluster.field(&once, ".status.containerStatuses[0].state.terminated['exitCode','message']")?;
    ensure!(said.starts_with("42 farewell"), "exit code and message are {said:?}");
    cluster.kubectl(&["delete", "namespace", "lifecycle", "--timeout=60s"]).map(|_| ())
}

pub fn replicas(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", "replicas"])?;
    let ns = |args: &[&str]| cluster.kubectl(&[&["-n", "replicas"], args].concat());
    ns(&["create", "deployment", "kept", &format!("--image={}", images::SERVER), "--replicas=3"])?;
    ns(&["rollout", "status", "deployment/kept", "--timeout=60s"])?;
    let names = || -> Result<Vec<String>> {
        let text =
            ns(&["get", "pods", "-l", "app=kept", "--field-selector=status.phase=Running", "-o", "name"])?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let three = |what: &str| {
        eventually(60, || {
            let found = names()?;
            ensure!(found.len() == 3, "{what}: {found:?}");
            Ok(found)
        })
    };
    let first = three("at first")?;
    ns(&["delete", &first[0], "--wait=true"])?;
    let second = three("after a deletion")?;
    ensure!(!second.contains(&first[0]), "the deleted pod is back under its name");
    ns(&["label", &second[0], "app=freed", "--overwrite"])?;
    let third = three("after one was relabelled")?;
    ensure!(!third.contains(&second[0]), "the relabelled pod still counts");
    let owner = ns(&["get", &second[0], "-o=jsonpath={.metadata.ownerReferences}"])?;
    ensure!(owner.is_empty(), "the relabelled pod is still owned: {owner}");
    ns(&["label", &second[0], "app=kept", "--overwrite"])?;
    three("after a surplus pod came back")?;
    cluster.kubectl(&["delete", "namespace", "replicas", "--timeout=60s"]).map(|_| ())
}

/// Updates of all pods, one after another.
const ROUNDS: usize = 4;

/// Requests through the Service while every pod is replaced: none may fail. A pod serves on for five seconds after it
/// is deleted, as users write it: that is how long a slow disk may hold up the news that it left the Service.
pub fn rolling_update(cluster: &Cluster) -> Result<()> {
    let host = format!("{}:80", cluster.field(&["-n", "services", "service", "echo"], ".spec.clusterIP")?);
    let patch = r#"{"spec":{"strategy":{"rollingUpdate":{"maxUnavailable":0,"maxSurge":1}},"template":{"spec":{"terminationGracePeriodSeconds":10,"containers":[{"name":"server","lifecycle":{"preStop":{"sleep":{"seconds":5}}}}]}}}}"#;
    cluster.kubectl(&["-n", "services", "patch", "deployment", "echo", "-p", patch])?;
    cluster.kubectl(&["-n", "services", "rollout", "status", "deployment/echo", "--timeout=120s"])?;
    // The pods of before have no such hook: the load begins when they are gone.
    eventually(30, || {
        let pods = cluster.kubectl(&["-n", "services", "get", "pods", "-l", "app=echo", "-o", "name"])?;
        ensure!(pods.lines().count() == 4, "old pods are still there: {pods}");
        Ok(())
    })?;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let began = std::time::Instant::now();
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (stop, sent, host) = (stop.clone(), sent.clone(), host.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    let asked = began.elapsed().as_millis();
                    let failure = get(&host, "/slow?ms=5").err();
                    failures.extend(failure.map(|error| {
                        format!("from {asked} ms to {} ms: {error:#}", began.elapsed().as_millis())
                    }));
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                failures
            })
        })
        .collect();
    let updated = (0..ROUNDS).try_for_each(|round| {
        let image = if round % 2 == 0 { images::SERVER_NEXT } else { images::SERVER };
        cluster.kubectl(&[
            "-n",
            "services",
            "set",
            "image",
            "deployment/echo",
            &format!("server={image}"),
        ])?;
        cluster
            .kubectl(&["-n", "services", "rollout", "status", "deployment/echo", "--timeout=120s"])
            .map(|_| ())
    });
    stop.store(true, Ordering::Relaxed);
    let failures: Vec<String> =
        load.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect();
    updated.context("the rolling update")?;
    let sent = sent.load(Ordering::Relaxed);
    eprintln!("        {sent} requests during a rolling update");
    ensure!(sent > 50, "only {sent} requests were made");
    ensure!(
        failures.is_empty(),
        "{} of {sent} requests failed:\n{}\n{}",
        failures.len(),
        failures.join("\n"),
        cluster.kubectl(&["-n", "services", "get", "events"]).unwrap_or_default()
    );
    Ok(())
}
