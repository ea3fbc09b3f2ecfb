//! kubectl's verbs, each as a user types it.

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::{eventually, images};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

fn contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "no {part:?} in:\n{text}");
    }
    Ok(())
}

pub fn reads(cluster: &Cluster) -> Result<()> {
    contains(
        &cluster.kubectl(&["-n", "shop", "get", "pods", "-o", "wide"])?,
        &["READY", "RESTARTS", "NODE", "3/3", "Running"],
    )?;
    contains(&cluster.kubectl(&["get", "nodes", "-o", "wide"])?, &["Ready", "containerd://", "v1.36"])?;
    contains(
        &cluster.kubectl(&["-n", "shop", "describe", "deployment", "web"])?,
        &["Replicas:", "3 desired", "RollingUpdateStrategy:", "ScalingReplicaSet"],
    )?;
    contains(
        &cluster.kubectl(&["-n", "shop", "describe", "pods"])?,
        &["Successfully assigned shop/web-", "Started", "Init Containers:", "QoS Class:", "Burstable"],
    )?;
    contains(&cluster.kubectl(&["-n", "shop", "events"])?, &["Scheduled", "Created", "Started"])?;
    contains(&cluster.kubectl(&["explain", "deployment.spec.strategy"])?, &["FIELDS:", "rollingUpdate"])?;
    contains(
        &cluster.kubectl(&["explain", "pod", "--recursive"])?,
        &["livenessProbe", "ephemeralContainers"],
    )?;
    contains(
        &cluster.kubectl(&["api-resources"])?,
        &["deployments", "apps/v1", "leases", "networkpolicies"],
    )?;
    contains(&cluster.kubectl(&["get", "--raw", "/version"])?, &["\"minor\": \"36\""])?;
    contains(&cluster.kubectl(&["get", "--raw", "/readyz?verbose"])?, &["readyz check passed"])?;
    ensure!(
        cluster.kubectl(&["auth", "can-i", "create", "pods"])?.trim() == "yes",
        "the administrator may create pods"
    );
    let stranger = cluster.kubectl(&["auth", "can-i", "list", "secrets", "--as", "stranger"]);
    ensure!(stranger.is_err(), "a stranger may list secrets");
    contains(&cluster.kubectl(&["cluster-info"])?, &["Kubernetes control plane"])?;
    contains(
        &cluster.kubectl(&["get", "all", "-n", "shop"])?,
        &["deployment.apps/web", "replicaset.apps/web-", "service/web"],
    )
}

pub fn writes(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", "verbs"])?;
    let in_ns = |args: &[&str]| cluster.kubectl(&[&["-n", "verbs"], args].concat());
    in_ns(&["create", "deployment", "app", &format!("--image={}", images::SERVER), "--replicas=2"])?;
    in_ns(&["wait", "deployment/app", "--for=condition=Available", "--timeout=60s"])?;
    in_ns(&["label", "deployment", "app", "tier=front"])?;
    in_ns(&["annotate", "deployment", "app", "note=first light"])?;
    in_ns(&[
        "patch",
        "deployment",
        "app",
        "--type=json",
        "-p",
        r#"[{"op":"add","path":"/metadata/labels/a","value":"json"}]"#,
    ])?;
    in_ns(&["patch", "deployment", "app", "--type=merge", "-p", r#"{"metadata":{"labels":{"b":"merge"}}}"#])?;
    in_ns(&[
        "patch",
        "deployment",
        "app",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"testserver","env":[{"name":"COLOUR","value":"red"}]}]}}}}"#,
    ])?;
    let labels = cluster.field(&["-n", "verbs", "deployment", "app"], ".metadata.labels")?;
    contains(&labels, &[r#""a":"json""#, r#""b":"merge""#, r#""tier":"front""#])?;
    let image =
        cluster.field(&["-n", "verbs", "deployment", "app"], ".spec.template.spec.containers[0].image")?;
    ensure!(image == images::SERVER, "the strategic merge patch kept no image: {image}");
    in_ns(&["scale", "deployment", "app", "--replicas=3"])?;
    in_ns(&["rollout", "status", "deployment/app", "--timeout=60s"])?;
    let edited = cluster
        .kubectl_command(&["-n", "verbs", "edit", "deployment", "app"])
        .env("KUBE_EDITOR", "sed -i s/first/second/")
        .output()?;
    ensure!(edited.status.success(), "edit: {}", String::from_utf8_lossy(&edited.stderr));
    let note = cluster.field(&["-n", "verbs", "deployment", "app"], ".metadata.annotations.note")?;
    ensure!(note == "second light", "edit wrote {note}");
    in_ns(&["delete", "deployment", "app", "--cascade=orphan"])?;
    ensure!(
        in_ns(&["get", "rs", "-o", "name"])?.contains("replicaset.apps/app-"),
        "orphaned replica sets are gone"
    );
    in_ns(&["delete", "rs", "--all", "--cascade=foreground", "--timeout=60s"])?;
    eventually(60, || {
        let left = in_ns(&["get", "pods", "-o", "name"])?;
        ensure!(left.is_empty(), "pods are left: {left}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "namespace", "verbs", "--timeout=60s"]).map(|_| ())
}

/// A pod that prints, counts, and answers on 8080.
const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker, namespace: default, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: docker.io/library/busybox:1.36
      command: ["sh", "-c", "mkdir -p /www; echo served > /www/index.html; httpd -p 8080 -h /www; i=0; while true; do i=$((i+1)); echo tick $i; sleep 0.2; done"]
"#;

pub fn streams(cluster: &Cluster) -> Result<()> {
    watches(cluster)?;
    cluster.kubectl(&["wait", "pod/talker", "--for=condition=Ready", "--timeout=60s"])?;
    followed_logs(cluster)?;
    let out = cluster.kubectl(&["exec", "talker", "--", "sh", "-c", "echo out; echo err >&2"])?;
    ensure!(out.trim() == "out", "exec printed {out:?}");
    let code =
        cluster.kubectl_command(&["exec", "talker", "--", "sh", "-c", "exit 7"]).output()?.status.code();
    ensure!(code == Some(7), "exec's exit code is {code:?}");
    let echoed = cluster.kubectl_with_input(&["exec", "-i", "talker", "--", "cat"], "through and back\n")?;
    ensure!(echoed == "through and back\n", "exec -i gave back {echoed:?}");
    copies(cluster)?;
    forwards(cluster)?;
    attaches(cluster)?;
    let ran = cluster.kubectl_with_input(
        &[
            "run",
            "once",
            "--rm",
            "-i",
            "--restart=Never",
            "--quiet",
            "--image",
            images::BUSYBOX,
            "--",
            "sh",
            "-c",
            "read x; echo got $x",
        ],
        "this\n",
    )?;
    ensure!(ran.contains("got this"), "run --rm -i printed {ran:?}");
    let debugged = cluster.kubectl(&[
        "debug",
        "talker",
        "--image",
        images::BUSYBOX,
        "--target=main",
        "--container=probe",
        "--attach=false",
        "--",
        "sh",
        "-c",
        "ps | grep httpd; sleep 1",
    ]);
    debugged.context("debug")?;
    eventually(30, || {
        let told = cluster.kubectl(&["logs", "talker", "-c", "probe"])?;
        ensure!(told.contains("httpd"), "the ephemeral container sees no process of its target: {told}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod", "talker", "--timeout=30s"]).map(|_| ())
}

/// `get -o wide -w` over the pod's coming: from pending without a node to running, with its address and node.
fn watches(cluster: &Cluster) -> Result<()> {
    let mut watcher = cluster
        .kubectl_command(&["get", "pods", "-o", "wide", "-w", "-l", "app=talker"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(watcher.stdout.take().context("piped")?).lines().map_while(Result::ok);
    cluster.apply(TALKER)?;
    let mut seen: Vec<String> = Vec::new();
    while !seen.last().is_some_and(|line| line.contains("1/1")) {
        seen.push(lines.next().context("the watch ended")?);
    }
    watcher.kill()?;
    watcher.wait()?;
    let all = seen.join("\n");
    ensure!(seen[0].starts_with("NAME ") && seen[0].contains("NOMINATED NODE"), "no header:\n{all}");
    ensure!(seen[1].contains("Pending") && seen[1].contains("<none>"), "it was not pending first:\n{all}");
    let last = seen.last().context("nothing was watched")?;
    ensure!(last.contains("Running") && last.contains("10.244."), "it did not come to run:\n{all}");
    ensure!(all.contains("ContainerCreating"), "its container was not seen to be made:\n{all}");
    Ok(())
}

fn followed_logs(cluster: &Cluster) -> Result<()> {
    let mut follower =
        cluster.kubectl_command(&["logs", "-f", "--since=10m", "talker"]).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(follower.stdout.take().context("piped")?).lines();
    let seen = lines.map_while(Result::ok).take_while(|line| line != "tick 12").count();
    follower.kill()?;
    follower.wait()?;
    ensure!(seen >= 11, "logs -f showed only {seen} lines before tick 12");
    let tail = cluster.kubectl(&["logs", "talker", "--tail=2"])?;
    ensure!(tail.lines().count() == 2, "--tail=2 gave {tail:?}");
    let stamped = cluster.kubectl(&["logs", "talker", "--timestamps", "--tail=1"])?;
    ensure!(stamped.contains('T') && stamped.contains("Z tick"), "--timestamps gave {stamped:?}");
    Ok(())
}

fn copies(cluster: &Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    let bytes: Vec<u8> = (0..300_000u32).map(|at| (at * 31 % 251) as u8).collect();
    std::fs::write(&there, &bytes)?;
    cluster.kubectl(&["cp", &there.to_string_lossy(), "talker:/tmp/copy"])?;
    cluster.kubectl(&["cp", "talker:/tmp/copy", &back.to_string_lossy()])?;
    ensure!(std::fs::read(&back)? == bytes, "cp changed the file on its way");
    Ok(())
}

fn forwards(cluster: &Cluster) -> Result<()> {
    let mut forwarder =
        cluster.kubectl_command(&["port-forward", "pod/talker", ":8080"]).stdout(Stdio::piped()).spawn()?;
    // kubectl goes on talking: its output must stay open.
    let mut told = BufReader::new(forwarder.stdout.take().context("piped")?);
    let mut first = String::new();
    told.read_line(&mut first)?;
    let port = first
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .context("no port told")?
        .to_string();
    let result = (0..3).try_for_each(|_| {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text.contains("served"), "through port-forward came {text:?}");
        Ok(())
    });
    forwarder.kill()?;
    forwarder.wait()?;
    result
}

fn attaches(cluster: &Cluster) -> Result<()> {
    let mut attached = cluster
        .kubectl_command(&["attach", "talker"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = BufReader::new(attached.stdout.take().context("piped")?).lines();
    let found = lines.by_ref().take(20).map_while(Result::ok).any(|line| line.starts_with("tick "));
    attached.kill()?;
    attached.wait()?;
    ensure!(found, "attach showed no output");
    Ok(())
}

pub fn rollouts(cluster: &Cluster) -> Result<()> {
    let shop = |args: &[&str]| cluster.kubectl(&[&["-n", "shop"], args].concat());
    shop(&["rollout", "pause", "deployment/web"])?;
    shop(&["set", "env", "deployment/web", "-c", "web", "EDITION=2"])?;
    let revision = || {
        cluster.field(
            &["-n", "shop", "deployment", "web"],
            ".metadata.annotations.deployment\\.kubernetes\\.io/revision",
        )
    };
    ensure!(revision()? == "1", "a paused deployment rolled out");
    shop(&["rollout", "resume", "deployment/web"])?;
    shop(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
    ensure!(revision()? == "2", "the second revision is {}", revision()?);
    contains(&shop(&["rollout", "history", "deployment/web"])?, &["REVISION", "1", "2"])?;
    shop(&["rollout", "undo", "deployment/web"])?;
    shop(&["rollout", "status", "deployment/web", "--timeout=120s"])?;
    let env = cluster.field(&["-n", "shop", "deployment", "web"], ".spec.template.spec.containers[0].env")?;
    ensure!(!env.contains("EDITION"), "undo kept {env}");
    shop(&["set", "image", "deployment/web", "ambassador=docker.io/library/busybox:none"])?;
    eventually(60, || {
        contains(&shop(&["get", "pods"])?, &["ErrImage"])
            .or_else(|_| contains(&shop(&["get", "pods"])?, &["ImagePullBackOff"]))
    })?;
    shop(&["rollout", "undo", "deployment/web"])?;
    shop(&["rollout", "status", "deployment/web", "--timeout=120s"]).map(|_| ())
}
