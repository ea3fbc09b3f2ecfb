//! What the node does for a pod: pulls its image, opens its ports, gives it terminals and files.

use crate::services::get;
use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::registry::{PASSWORD, Registry, USER};
use e2e::{eventually, images};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

/// A pod that sleeps on an image that is always pulled.
fn puller(name: &str, image: &str, secret: &str) -> String {
    let secrets = if secret.is_empty() { String::new() } else { format!("[{{name: {secret}}}]") };
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: pulls}}
spec:
  terminationGracePeriodSeconds: 1
  imagePullSecrets: {secrets}
  containers: [{{name: main, image: "{image}", imagePullPolicy: Always, command: [sleep, "600"]}}]
"#
    )
}

fn waits_for_image(cluster: &Cluster, name: &str) -> Result<()> {
    let path = ".status.containerStatuses[0].state.waiting.reason";
    for reasons in [["ErrImagePull", "ImagePullBackOff"], ["ImagePullBackOff", "ImagePullBackOff"]] {
        eventually(20, || {
            let reason = cluster.field(&["-n", "pulls", "pod", name], path)?;
            ensure!(reasons.contains(&reason.as_str()), "pod {name} waits for {reason:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn runs(cluster: &Cluster, namespace: &str, name: &str) -> Result<()> {
    let pod = format!("pod/{name}");
    cluster
        .kubectl(&["-n", namespace, "wait", &pod, "--for=condition=Ready", "--timeout=20s"])
        .map(|_| ())
        .with_context(|| cluster.kubectl(&["-n", namespace, "describe", &pod]).unwrap_or_default())
}

pub fn images_are_pulled(cluster: &Cluster) -> Result<()> {
    let (open, guarded) = (Registry::start(false)?, Registry::start(true)?);
    let user = format!("{USER}:{PASSWORD}");
    for (host, credentials) in [(&open.host, None), (&guarded.host, Some(user.as_str()))] {
        let image = format!("{host}/fleet/busybox:1");
        cluster.ctr(&["images", "tag", images::BUSYBOX, &image])?;
        let mut push = vec!["images", "push", "--plain-http"];
        push.extend(credentials.into_iter().flat_map(|user| ["--user", user]));
        push.push(&image);
        cluster.ctr(&push)?;
        // What the pods run must have come from the registry.
        cluster.ctr(&["images", "rm", "--sync", &image])?;
    }
    cluster.kubectl(&["create", "namespace", "pulls"])?;
    cluster.kubectl(&[
        "-n",
        "pulls",
        "create",
        "secret",
        "docker-registry",
        "pass",
        &format!("--docker-server={}", guarded.host),
        &format!("--docker-username={USER}"),
        &format!("--docker-password={PASSWORD}"),
    ])?;
    let public = format!("{}/fleet/busybox:1", open.host);
    let private = format!("{}/fleet/busybox:1", guarded.host);
    cluster.apply(&puller("public", &public, ""))?;
    cluster.apply(&puller("missing", &format!("{}/fleet/busybox:none", open.host), ""))?;
    cluster.apply(&puller("stranger", &private, ""))?;
    runs(cluster, "pulls", "public")?;
    let events = cluster.kubectl(&["-n", "pulls", "events", "--for=pod/public"])?;
    ensure!(
        events.contains(&format!("Successfully pulled image \"{public}\"")),
        "no event tells of the pull:\n{events}"
    );
    let id = cluster.field(&["-n", "pulls", "pod", "public"], ".status.containerStatuses[0].imageID")?;
    ensure!(id.contains("@sha256:"), "the image's ID names no digest: {id:?}");
    waits_for_image(cluster, "missing")?;
    waits_for_image(cluster, "stranger")?;
    cluster.apply(&puller("known", &private, "pass"))?;
    runs(cluster, "pulls", "known")?;
    cluster.kubectl(&["delete", "namespace", "pulls", "--timeout=60s"]).map(|_| ())
}

const PORTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: ports}
---
apiVersion: v1
kind: Pod
metadata: {name: open, namespace: ports}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: timonel.dev/testserver:1
      ports: [{containerPort: 8080, hostPort: 38080}]
"#;

pub fn host_ports_answer(cluster: &Cluster) -> Result<()> {
    cluster.apply(PORTS)?;
    runs(cluster, "ports", "open")?;
    let node = cluster.field(&["-n", "ports", "pod", "open"], ".status.hostIP")?;
    for address in [node.as_str(), "127.0.0.1"] {
        let answer = eventually(10, || get(&format!("{address}:38080"), "/"))
            .with_context(|| format!("the host port on {address}"))?;
        ensure!(answer.trim() == "open", "the host port on {address} answered {answer:?}");
    }
    cluster.kubectl(&["delete", "namespace", "ports", "--timeout=60s"])?;
    ensure!(get(&format!("{node}:38080"), "/").is_err(), "the host port outlives its pod");
    Ok(())
}

const TERMINAL: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: terminals}
---
apiVersion: v1
kind: Pod
metadata: {name: shell, namespace: terminals}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "timonel.dev/testserver:1"}]
"#;

/// The kubectl words that make it speak WebSocket, and SPDY as older ones do.
const PROTOCOLS: [&str; 2] = ["true", "false"];

pub fn terminals_work(cluster: &Cluster) -> Result<()> {
    cluster.apply(TERMINAL)?;
    runs(cluster, "terminals", "shell")?;
    for websockets in PROTOCOLS {
        in_a_terminal(cluster, websockets).with_context(|| format!("a terminal, websockets {websockets}"))?;
        ran_in_a_terminal(cluster, websockets)
            .with_context(|| format!("run -it, websockets {websockets}"))?;
        piped(cluster, websockets).with_context(|| format!("exec, websockets {websockets}"))?;
        forwarded(cluster, websockets).with_context(|| format!("port-forward, websockets {websockets}"))?;
    }
    cluster.kubectl(&["delete", "namespace", "terminals", "--timeout=60s"]).map(|_| ())
}

/// What a shell line prints in a terminal of 37 rows and 91 columns, made by util-linux's script, where `typed` is what
/// the user types.
fn in_terminal(
    cluster: &Cluster,
    line: &str,
    websockets: &str,
    typed: &str,
) -> Result<(Option<i32>, String)> {
    let mut command = Command::new("script");
    for (key, value) in cluster.kubectl_command(&[]).get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    let told = command
        .args(["-qec", &format!("stty rows 37 cols 91; {line}"), "/dev/null"])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .output_with_open_input(typed)?;
    Ok((told.status.code(), String::from_utf8_lossy(&told.stdout).into_owned()))
}

/// Waits for the window's size, which follows the start of a session.
const SIZE: &str =
    "for i in 1 2 3 4 5 6 7 8 9 10; do stty size | grep -q 37 && break; sleep 0.2; done; stty size";

fn in_a_terminal(cluster: &Cluster, websockets: &str) -> Result<()> {
    let line = format!("kubectl -n terminals exec -it shell -- sh -c 'tty; {SIZE}; exit 5'");
    let (code, text) = in_terminal(cluster, &line, websockets, "")?;
    ensure!(text.contains("/dev/"), "no terminal: {text:?}");
    ensure!(text.contains("37 91"), "the window's size did not arrive: {text:?}");
    ensure!(code == Some(5), "the exit code is {code:?}: {text:?}");
    Ok(())
}

/// `run --rm -it`: a shell of its own that is typed into, and gone when it ends.
fn ran_in_a_terminal(cluster: &Cluster, websockets: &str) -> Result<()> {
    let line = format!(
        "kubectl -n terminals run visit --rm -it --restart=Never --image={} -- sh -c 'read word; tty; {SIZE}; echo said $word'",
        images::BUSYBOX
    );
    let (code, text) = in_terminal(cluster, &line, websockets, "ahoy\n")?;
    for part in ["/dev/", "37 91", "said ahoy", "pod \"visit\" deleted"] {
        ensure!(text.contains(part), "no {part:?} in {text:?}");
    }
    ensure!(code == Some(0), "the exit code is {code:?}: {text:?}");
    let left = cluster.kubectl(&["-n", "terminals", "get", "pod", "visit", "--ignore-not-found"])?;
    ensure!(left.is_empty(), "the pod outlives its visit: {left}");
    Ok(())
}

/// A command whose input stays open, after what is typed at once, until it ends.
trait OpenInput {
    fn output_with_open_input(&mut self, typed: &str) -> Result<std::process::Output>;
}

impl OpenInput for Command {
    fn output_with_open_input(&mut self, typed: &str) -> Result<std::process::Output> {
        let mut child = self.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("piped")?;
        input.write_all(typed.as_bytes())?;
        let told = child.wait_with_output()?;
        drop(input);
        Ok(told)
    }
}

fn piped(cluster: &Cluster, websockets: &str) -> Result<()> {
    let mut child = cluster
        .kubectl_command(&[
            "-n",
            "terminals",
            "exec",
            "-i",
            "shell",
            "--",
            "sh",
            "-c",
            "cat; echo late >&2; exit 9",
        ])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("piped")?.write_all(b"ahoy\n")?;
    let told = child.wait_with_output()?;
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    ensure!(out == "ahoy\n", "output {out:?}, errors {err:?}");
    ensure!(err.contains("late"), "errors {err:?}");
    ensure!(told.status.code() == Some(9), "exit code {:?}: {err}", told.status.code());
    Ok(())
}

fn forwarded(cluster: &Cluster, websockets: &str) -> Result<()> {
    let mut forwarder = cluster
        .kubectl_command(&["-n", "terminals", "port-forward", "pod/shell", ":8080"])
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = BufReader::new(forwarder.stdout.take().context("piped")?);
    let mut first = String::new();
    let result = told.read_line(&mut first).map_err(anyhow::Error::from).and_then(|_| {
        let host =
            first.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).context("no port told")?;
        let answer = get(host, "/")?;
        ensure!(answer.trim() == "shell", "through port-forward came {answer:?}");
        Ok(())
    });
    forwarder.kill()?;
    forwarder.wait()?;
    // What it said last is read, so that it never met a closed pipe.
    told.read_to_string(&mut first)?;
    result
}

const FILES: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: files}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: chart, namespace: files}
data: {depth: "10", width: "10"}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: files}
stringData: {code: abracadabra}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, namespace: files, labels: {deck: upper}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456}
  containers:
    - name: main
      image: docker.io/library/busybox:1.36
      command: [sleep, "600"]
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}
      volumeMounts:
        - {name: chart, mountPath: /chart}
        - {name: chart, mountPath: /one/depth, subPath: depth}
        - {name: key, mountPath: /key, readOnly: true}
        - {name: about, mountPath: /about}
        - {name: hold, mountPath: /hold}
        - {name: hold, mountPath: /corner, subPath: deep/corner}
  volumes:
    - {name: chart, configMap: {name: chart}}
    - {name: key, secret: {secretName: key, defaultMode: 0440}}
    - name: about
      downwardAPI:
        items:
          - {path: labels, fieldRef: {fieldPath: metadata.labels}}
    - {name: hold, emptyDir: {}}
"#;

/// What holds in the pod from its start: a script, and what it prints.
const HELD: &[(&str, &str)] = &[
    ("id -u; id -g", "1234\n2345\n"),
    ("id -G | grep -o 3456", "3456\n"),
    ("touch /here 2>/dev/null || echo refused", "refused\n"),
    ("cat /chart/depth /one/depth", "1010"),
    ("cat /key/code", "abracadabra"),
    ("grep ' /key ' /proc/mounts | cut -d' ' -f3", "tmpfs\n"),
    ("touch /key/new 2>/dev/null || echo refused", "refused\n"),
    ("stat -L -c '%a %g' /key/code", "440 3456\n"),
    ("cat /about/labels", "deck=\"upper\""),
    ("stat -c '%g %A' /hold", "3456 drwxrwsrwx\n"),
    ("touch /hold/mine && stat -c '%u %g' /hold/mine", "1234 3456\n"),
    ("touch /corner/mine && ls /hold/deep/corner", "mine\n"),
    ("ls /var/run/secrets/kubernetes.io/serviceaccount", "ca.crt\nnamespace\ntoken\n"),
    ("cut -d. -f1-3 /var/run/secrets/kubernetes.io/serviceaccount/token | grep -c .", "1\n"),
    ("grep NoNewPrivs /proc/self/status | cut -f2", "1\n"),
];

pub fn files_follow(cluster: &Cluster) -> Result<()> {
    cluster.apply(FILES)?;
    runs(cluster, "files", "reader")?;
    let inside = |script: &str| cluster.kubectl(&["-n", "files", "exec", "reader", "--", "sh", "-c", script]);
    let mut wrong = Vec::new();
    for (script, expected) in HELD {
        let told = inside(script).unwrap_or_else(|error| format!("{error:#}"));
        if told != *expected {
            wrong.push(format!("{script}: {told:?}, not {expected:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let patch = r#"{"data":{"depth":"20","width":"20"}}"#;
    cluster.kubectl(&["-n", "files", "patch", "configmap", "chart", "-p", patch])?;
    cluster.kubectl(&["-n", "files", "label", "pod", "reader", "deck=lower", "--overwrite"])?;
    // Both files come through one link, which is swapped: no mixture is seen.
    let watch = "n=0; while [ $n -lt 900 ]; do both=$(cd -P /chart/..data && cat depth width); case $both in 2020) echo new; exit;; 1010) ;; *) echo mixed $both; exit;; esac; sleep 0.1; n=$((n+1)); done; echo old";
    let seen = inside(watch)?;
    ensure!(seen == "new\n", "the pod saw {seen:?}");
    ensure!(inside("cat /one/depth")? == "10", "a subPath mount follows its source");
    eventually(90, || {
        let labels = inside("cat /about/labels")?;
        ensure!(labels == "deck=\"lower\"", "labels in the pod: {labels:?}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "namespace", "files", "--timeout=60s"]).map(|_| ())
}

const WORK: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: work}
---
apiVersion: batch/v1
kind: Job
metadata: {name: sum, namespace: work}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "docker.io/library/busybox:1.36", command: [sh, -c, "echo part $JOB_COMPLETION_INDEX"]}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: watch, namespace: work}
spec:
  selector: {matchLabels: {app: watch}}
  template:
    metadata: {labels: {app: watch}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "docker.io/library/busybox:1.36", command: [sleep, "600"]}]
---
apiVersion: v1
kind: Service
metadata: {name: crew, namespace: work}
spec:
  clusterIP: None
  selector: {app: crew}
  ports: [{port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: crew, namespace: work}
spec:
  serviceName: crew
  replicas: 2
  selector: {matchLabels: {app: crew}}
  template:
    metadata: {labels: {app: crew}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: main
          image: timonel.dev/testserver:1
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
"#;

pub fn work_is_done(cluster: &Cluster) -> Result<()> {
    cluster.apply(WORK)?;
    let ns = |args: &[&str]| cluster.kubectl(&[&["-n", "work"], args].concat());
    ns(&["wait", "job/sum", "--for=condition=Complete", "--timeout=30s"])?;
    let done = cluster.field(&["-n", "work", "job", "sum"], ".status['succeeded','completedIndexes']")?;
    ensure!(done == "3 0-2", "the job's status is {done:?}");
    let mut parts: Vec<String> = ns(&["logs", "-l", "job-name=sum"])?.lines().map(str::to_owned).collect();
    parts.sort();
    ensure!(parts == ["part 0", "part 1", "part 2"], "the job's pods said {parts:?}");
    ns(&["rollout", "status", "daemonset/watch", "--timeout=20s"])?;
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"])?.lines().count();
    let watchers = ns(&["get", "pods", "-l", "app=watch", "-o", "name"])?.lines().count();
    ensure!(nodes == watchers, "{watchers} daemon pods on {nodes} nodes");
    ns(&["rollout", "status", "statefulset/crew", "--timeout=30s"])?;
    let times = |name: &str| -> Result<(String, String)> {
        let pod = ["-n", "work", "pod", name];
        let ready = cluster.field(&pod, ".status.conditions[?(@.type=='Ready')].lastTransitionTime")?;
        Ok((cluster.field(&pod, ".metadata.creationTimestamp")?, ready))
    };
    let ((_, first_ready), (second_made, _)) = (times("crew-0")?, times("crew-1")?);
    ensure!(first_ready <= second_made, "crew-1 was made at {second_made}, crew-0 ready at {first_ready}");
    for name in ["crew-0", "crew-1"] {
        let answer = eventually(10, || {
            ns(&[
                "exec",
                "crew-0",
                "--",
                "wget",
                "-qO-",
                &format!("http://{name}.crew.work.svc.cluster.local:8080/"),
            ])
        })?;
        ensure!(answer.trim() == name, "{name}'s own name leads to {answer:?}");
    }
    let uid = cluster.field(&["-n", "work", "pod", "crew-1"], ".metadata.uid")?;
    ns(&["delete", "pod", "crew-1", "--timeout=20s"])?;
    eventually(20, || {
        let now = cluster.field(&["-n", "work", "pod", "crew-1"], ".metadata.uid")?;
        ensure!(!now.is_empty() && now != uid, "crew-1 did not come back under its name");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "namespace", "work", "--timeout=60s"]).map(|_| ())
}
