//! A real node: our API server in this process, a private containerd, pods on the node's own network.
//! What a pod is given, how it is seen, that it outlives a kubelet, and that nothing of it is left.

mod csi_driver;

use api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use api::storage::v1::{CSIDriver, CSINode};
use clap::Parser;
use client::{Client, DeleteOptions, Patch, PatchOptions};
use container_runtime::archive::{Archive, Entry};
use meta::ObjectKey;
use registry::UserInfo;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NODE: &str = "n1";
const IMAGE: &str = "timonel.test/busybox:1";

#[derive(Parser)]
struct Server {
    #[command(flatten)]
    options: kube_apiserver::Options,
}

#[derive(Parser)]
struct Kubelet {
    #[command(flatten)]
    options: kubelet::Options,
}

struct Cluster {
    dir: tempfile::TempDir,
    server: kube_apiserver::Server,
    admin: Client,
    port: u16,
    group: String,
}

fn busybox() -> Vec<u8> {
    let program = std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox")).unwrap();
    let mut entries = vec![Entry::folder("bin", 0o755), Entry::file("bin/busybox", 0o755, program)];
    let names = [
        "sh", "sleep", "cat", "echo", "id", "env", "httpd", "nc", "ls", "hostname", "touch", "test", "true",
        "false",
    ];
    entries.extend(names.map(|name| Entry::link(&format!("bin/{name}"), "busybox")));
    entries.push(Entry::folder("tmp", 0o1777));
    entries.push(Entry::folder("etc", 0o755));
    Archive { name: IMAGE.into(), entries, cmd: vec!["sh".into()], ..Archive::default() }.to_tar()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("tkl").tempdir().unwrap();
        let (port, api) = (free_port(), free_port());
        let options = pki::cluster::Options {
            data: dir.path().into(),
            node_name: NODE.into(),
            server: format!("https://127.0.0.1:{api}"),
            names: vec![],
            service_address: [10, 96, 0, 1].into(),
            cluster_domain: "cluster.local".into(),
        };
        let pki = pki::cluster::open_or_create(&options).unwrap();
        pki.open_node(NODE, &[]).unwrap();
        pki.write_kubeconfig(&dir.path().join("admin.kubeconfig"), "admin", &["system:masters"]).unwrap();
        let layout = &pki.layout;
        let mut words = vec!["x".to_string(), "--storage-backend=memory".into()];
        words.push(format!("--secure-port={api}"));
        words.push("--bind-address=127.0.0.1".into());
        for (flag, path) in [
            ("data-dir", dir.path().join("server")),
            ("client-ca-file", layout.ca_cert()),
            ("tls-cert-file", layout.cert("apiserver")),
            ("tls-private-key-file", layout.key("apiserver")),
            ("service-account-signing-key-file", layout.token_key()),
            ("kubelet-client-certificate", layout.cert("apiserver-kubelet-client")),
            ("kubelet-client-key", layout.key("apiserver-kubelet-client")),
            ("kubelet-certificate-authority", layout.ca_cert()),
        ] {
            words.push(format!("--{flag}={}", text(&path)));
        }
        words.push("--kubelet-preferred-address-types=InternalIP".into());
        words.push("--service-account-issuer=https://kubernetes.default.svc".into());
        let options = Server::try_parse_from(words).unwrap().options;
        let server = kube_apiserver::start(options, CancellationToken::new()).await.unwrap();
        let admin = user("admin", &["system:masters"]);
        let admin = Client::new(server.transport(admin));
        let group = format!("/timonel-test-{}", std::process::id());
        let cluster = Cluster { dir, server, admin, port, group };
        cluster.namespace("t").await;
        cluster
    }

    /// A namespace as controllers would furnish it.
    async fn namespace(&self, name: &str) {
        let mut namespace = Namespace::default();
        namespace.metadata.name = name.into();
        self.admin.create(&namespace).await.unwrap();
        let mut account = ServiceAccount::default();
        account.metadata.name = "default".into();
        account.metadata.namespace = name.into();
        self.admin.create(&account).await.unwrap();
        self.config_map(name, "kube-root-ca.crt", "ca.crt", "a certificate").await;
    }

    async fn config_map(&self, namespace: &str, name: &str, key: &str, value: &str) {
        let mut map = ConfigMap::default();
        map.metadata.name = name.into();
        map.metadata.namespace = namespace.into();
        map.data.insert(key.into(), value.into());
        self.admin.create(&map).await.unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn runtime(&self) -> container_runtime::Config {
        container_runtime::Config::under(&self.path("data"), &self.path("run"))
    }

    fn kubelet(&self) -> (CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>) {
        let mut words =
            vec!["x".to_string(), format!("--hostname-override={NODE}"), "--node-ip=127.0.0.1".into()];
        words.extend([format!("--port={}", self.port), format!("--cgroup-root={}", self.group)]);
        for (flag, name) in [
            ("root-dir", "kubelet"),
            ("data-dir", "data"),
            ("run-dir", "run"),
            ("pod-logs-dir", "logs"),
            ("container-logs-dir", "links"),
            ("tls-cert-file", "pki/kubelet.crt"),
            ("tls-private-key-file", "pki/kubelet.key"),
            ("client-ca-file", "pki/ca.crt"),
        ] {
            words.push(format!("--{flag}={}", text(&self.path(name))));
        }
        // However full the machine that runs the tests is.
        words.extend(
            ["--eviction-hard=memory.available<1Mi", "--image-gc-high-threshold=100"].map(String::from),
        );
        words.push("--cluster-dns=10.96.0.10".into());
        let options = Kubelet::try_parse_from(words).unwrap().options;
        let client =
            Client::new(self.server.transport(user(&format!("system:node:{NODE}"), &["system:nodes"])));
        let token = CancellationToken::new();
        (token.clone(), tokio::spawn(kubelet::run(options, client, token)))
    }

    async fn create(&self, name: &str, spec: serde_json::Value) {
        let mut spec = spec;
        spec["nodeName"] = NODE.into();
        spec["hostNetwork"] = true.into();
        spec["terminationGracePeriodSeconds"] = 1.into();
        let value =
            json!({"metadata": {"name": name, "namespace": "t", "labels": {"app": name}}, "spec": spec});
        let pod: Pod = api::codec::from_value(&value).unwrap();
        self.admin.create(&pod).await.unwrap();
    }

    async fn get(&self, name: &str) -> Option<Pod> {
        self.admin.get::<Pod>(&ObjectKey::new("t", name)).await.ok()
    }

    /// Waits until a pod is as asked; tells what it was instead.
    async fn until(&self, name: &str, what: &str, test: impl Fn(&Pod) -> bool) -> Pod {
        for _ in 0..600 {
            if let Some(pod) = self.get(name).await
                && test(&pod)
            {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let pod = self.get(name).await.map(|pod| api::codec::to_value(&pod.status));
        let events = self.admin.get_text("/api/v1/namespaces/t/events").await.unwrap_or_default();
        let events: serde_json::Value = serde_json::from_str(&events).unwrap_or_default();
        let words: Vec<String> = events["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| format!("{} {}: {}", one["involvedObject"]["name"], one["reason"], one["message"]))
            .collect();
        panic!("pod {name} is not {what}: {pod:#?}\nevents: {words:#?}");
    }

    async fn logs(&self, name: &str, query: &str) -> String {
        let path = format!("/api/v1/namespaces/t/pods/{name}/log{query}");
        self.admin.get_text(&path).await.unwrap_or_else(|error| error.chain())
    }
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.into(),
        groups: groups.iter().map(ToString::to_string).collect(),
        ..UserInfo::default()
    }
}

fn ready(pod: &Pod) -> bool {
    pod.status.conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True")
}

fn phase(phase: &'static str) -> impl Fn(&Pod) -> bool {
    move |pod| pod.status.phase == phase
}

fn shell(name: &str, script: &str) -> serde_json::Value {
    json!({"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_runs_pods() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let cluster = std::sync::Arc::new(Cluster::start().await);
    let story = tokio::spawn(live(cluster.clone()));
    let told = story.await;
    let root = cluster.path("");
    container_runtime::remove(&cluster.runtime(), &cluster.group).await.unwrap();
    container_runtime::unmount_under(&root);
    drop(cluster);
    told.unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&text(&root)), "{mounts}");
}

async fn live(cluster: std::sync::Arc<Cluster>) {
    let containerd = container_runtime::Containerd::start(cluster.runtime()).await.unwrap();
    container_runtime::import(containerd.socket(), IMAGE, busybox()).await.unwrap();
    let (token, running) = cluster.kubelet();
    // Ended with this story, however it ends: a kubelet would start again what is being removed.
    let _ends = token.clone().drop_guard();

    what_a_pod_is_given(&cluster).await;
    ends(&cluster).await;
    init_and_sidecar(&cluster).await;
    probes(&cluster).await;
    streams(&cluster).await;
    drivers_volumes(&cluster).await;
    outlives_a_kubelet(&cluster, token, running).await;
    let node: Node = cluster.admin.get(&ObjectKey::cluster(NODE)).await.unwrap();
    assert_eq!(node.metadata.labels["kubernetes.io/os"], "linux");
    assert_eq!(node.status.daemon_endpoints.kubelet_endpoint.port, i32::from(cluster.port));
}

async fn what_a_pod_is_given(cluster: &Cluster) {
    cluster.config_map("t", "settings", "color", "blue").await;
    let mut secret = Secret::default();
    secret.metadata.name = "hidden".into();
    secret.metadata.namespace = "t".into();
    secret.data.insert("word".into(), b"hush".to_vec());
    cluster.admin.create(&secret).await.unwrap();
    let mut container = shell(
        "c",
        "echo $COLOR $WORD $NAME $CPU $JOINED; cat /config/color /hidden/word /down/labels /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; echo hi > /scratch/f; cat /etc/hosts > /dev/null && id -u; exec sleep 1000",
    );
    container["env"] = json!([
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "JOINED", "value": "$(COLOR)-$(NAME)-$(NONE)-$$(COLOR)"},
        {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
    ]);
    container["resources"] = json!({"limits": {"cpu": "250m", "memory": "64Mi"}});
    container["securityContext"] = json!({"runAsUser": 1000});
    container["volumeMounts"] = json!([
        {"name": "config", "mountPath": "/config"},
        {"name": "hidden", "mountPath": "/hidden"},
        {"name": "down", "mountPath": "/down"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]);
    let volumes = json!([
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "hidden", "secret": {"secretName": "hidden"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]);
    cluster.create("given", json!({"containers": [container], "volumes": volumes})).await;
    let pod = cluster.until("given", "ready", ready).await;
    assert_eq!((pod.status.qos_class.as_str(), pod.status.pod_ip.as_str()), ("Guaranteed", "127.0.0.1"));
    let mut log = String::new();
    for _ in 0..100 {
        log = cluster.logs("given", "").await;
        if log.ends_with("1000\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(log, "blue hush given 250 blue-given-$(NONE)-$(COLOR)\nbluehushapp=\"given\"t\ntoken\n1000\n");
    // A change reaches the files of a running pod.
    let patch = Patch::Merge(json!({"data": {"color": "red"}}));
    cluster
        .admin
        .patch::<ConfigMap>(&ObjectKey::new("t", "settings"), &patch, &PatchOptions::default())
        .await
        .unwrap();
    let file = cluster
        .path("kubelet")
        .join("pods")
        .join(&pod.metadata.uid)
        .join("volumes/kubernetes.io~configmap/config/color");
    for _ in 0..200 {
        if std::fs::read_to_string(&file).unwrap() == "red" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "red");
    let options = DeleteOptions::default();
    cluster.admin.delete::<Pod>(&ObjectKey::new("t", "given"), &options).await.unwrap();
    for _ in 0..400 {
        if cluster.get("given").await.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(cluster.get("given").await.is_none(), "the pod was not deleted");
}

async fn ends(cluster: &Cluster) {
    cluster.create("good", json!({"restartPolicy": "Never", "containers": [shell("c", "echo bye")]})).await;
    let mut bad = shell("c", "echo why > /dev/termination-log; exit 7");
    bad["env"] = json!([]);
    cluster.create("bad", json!({"restartPolicy": "Never", "containers": [bad]})).await;
    cluster.create("crash", json!({"containers": [shell("c", "echo run; exit 1")]})).await;
    let mut missing = shell("c", "true");
    missing["image"] = "timonel.test/none:1".into();
    missing["imagePullPolicy"] = "Never".into();
    cluster.create("missing", json!({"containers": [missing]})).await;
    let pod = cluster.until("good", "over", phase("Succeeded")).await;
    assert_eq!(pod.status.container_statuses[0].state.terminated.as_ref().unwrap().reason, "Completed");
    assert_eq!(cluster.logs("good", "").await, "bye\n");
    let pod = cluster.until("bad", "over", phase("Failed")).await;
    let end = pod.status.container_statuses[0].state.terminated.clone().unwrap();
    assert_eq!((end.exit_code, end.reason.as_str(), end.message.as_str()), (7, "Error", "why\n"));
    let waits = |reason: &'static str| {
        move |pod: &Pod| {
            let first = pod.status.container_statuses.first();
            first.and_then(|one| one.state.waiting.as_ref()).is_some_and(|waiting| waiting.reason == reason)
        }
    };
    let pod = cluster.until("crash", "backing off", waits("CrashLoopBackOff")).await;
    assert_eq!(pod.status.container_statuses[0].restart_count, 1);
    assert_eq!(cluster.logs("crash", "?previous=true").await, "run\n");
    cluster.until("missing", "refused its image", waits("ErrImageNeverPull")).await;
}

async fn init_and_sidecar(cluster: &Cluster) {
    let mut init = shell("i", "echo made > /shared/f");
    let mut side = shell("side", "trap 'exit 0' TERM; while true; do sleep 1; done");
    side["restartPolicy"] = "Always".into();
    let mut main = shell("c", "cat /shared/f; cat /shared/f");
    for one in [&mut init, &mut side, &mut main] {
        one["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    }
    let spec = json!({
        "restartPolicy": "Never", "initContainers": [init, side], "containers": [main],
        "volumes": [{"name": "shared", "emptyDir": {}}],
    });
    cluster.create("staged", spec).await;
    let pod = cluster.until("staged", "over", phase("Succeeded")).await;
    assert!(
        pod.status.init_container_statuses.iter().all(|one| one.state.terminated.is_some()),
        "{:#?}",
        pod.status
    );
    assert_eq!(cluster.logs("staged", "?container=c").await, "made\nmade\n");
    assert_eq!(cluster.logs("staged", "?container=c&tailLines=1").await, "made\n");
}

async fn probes(cluster: &Cluster) {
    let port = free_port();
    let mut web = shell("web", &format!("touch /tmp/ok; exec httpd -f -p 127.0.0.1:{port} -h /tmp"));
    web["readinessProbe"] = json!({"httpGet": {"path": "/ok", "port": port}, "periodSeconds": 1});
    web["startupProbe"] = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
    let mut sick = shell("sick", "sleep 1000");
    sick["livenessProbe"] =
        json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
    cluster.create("web", json!({"containers": [web]})).await;
    cluster.create("sick", json!({"containers": [sick]})).await;
    cluster.until("web", "ready", ready).await;
    cluster
        .until("sick", "restarted", |pod| {
            pod.status.container_statuses.first().is_some_and(|one| one.restart_count > 0)
        })
        .await;
}

/// A driver registers; its volumes are staged once, published for pods, and taken back in the opposite order.
async fn drivers_volumes(cluster: &Cluster) {
    let calls = csi_driver::Calls::default();
    csi_driver::start(cluster.path("kubelet/plugins_registry/driver.sock"), calls.clone());
    let driver: CSIDriver = api::codec::from_value(&json!({
        "metadata": {"name": csi_driver::NAME},
        "spec": {"attachRequired": false, "podInfoOnMount": true, "volumeLifecycleModes": ["Persistent", "Ephemeral"]},
    }))
    .unwrap();
    cluster.admin.create(&driver).await.unwrap();
    let volume: PersistentVolume = api::codec::from_value(&json!({
        "metadata": {"name": "disk"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": csi_driver::NAME, "volumeHandle": "h1", "volumeAttributes": {"color": "blue"}},
            "claimRef": {"namespace": "t", "name": "data"},
        },
    }))
    .unwrap();
    let mut volume = cluster.admin.create(&volume).await.unwrap();
    let claim: PersistentVolumeClaim = api::codec::from_value(&json!({
        "metadata": {"name": "data", "namespace": "t", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {
            "volumeName": "disk", "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }))
    .unwrap();
    let mut claim = cluster.admin.create(&claim).await.unwrap();
    // No controller runs here: the binding is written as it would write it.
    if let Some(reference) = &mut volume.spec.claim_ref {
        reference.uid.clone_from(&claim.metadata.uid);
    }
    cluster.admin.update(&volume).await.unwrap();
    claim.status.phase = "Bound".into();
    cluster.admin.update_status(&claim).await.unwrap();

    let mut container = shell("c", "cat /data/staged; touch /own/file; exec sleep 1000");
    container["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}, {"name": "own", "mountPath": "/own"}]);
    let volumes = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}},
        {"name": "own", "csi": {"driver": csi_driver::NAME}},
    ]);
    cluster.create("stored", json!({"containers": [container], "volumes": volumes})).await;
    cluster.until("stored", "ready", ready).await;
    let mut log = String::new();
    for _ in 0..100 {
        log = cluster.logs("stored", "").await;
        if !log.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(log, "from the driver\n");
    let node: CSINode = cluster.admin.get(&ObjectKey::cluster(NODE)).await.unwrap();
    let own = &node.spec.drivers[0];
    assert_eq!((own.name.as_str(), own.node_id.as_str()), (csi_driver::NAME, "node-7"));
    assert_eq!(own.topology_keys, ["timonel.test/rack"]);
    cluster.admin.delete::<Pod>(&ObjectKey::new("t", "stored"), &DeleteOptions::default()).await.unwrap();
    for _ in 0..400 {
        if calls.all().iter().any(|call| call.starts_with("unstage")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut all = calls.all();
    // The pod may be served before the driver hears that it is in.
    let before = all.len();
    all.retain(|call| call != "registered true");
    assert_eq!(all.len() + 1, before, "the driver was not told once");
    assert_eq!(
        all,
        [
            "stage h1 {\"color\": \"blue\"}",
            "publish inline=false pod=stored readonly=true",
            "publish inline=true pod=stored readonly=false",
            "unpublish",
            "unpublish",
            "unstage h1",
        ]
    );
}

/// What stock kubectl does through the API server and the kubelet down to the runtime.
async fn streams(cluster: &Cluster) {
    let kubectl = async |words: &[&str]| {
        let mut command = tokio::process::Command::new("kubectl");
        command.arg("--kubeconfig").arg(cluster.path("admin.kubeconfig")).args(["-n", "t"]).args(words);
        command.env("HOME", cluster.path("")).kill_on_drop(true).stdin(std::process::Stdio::null());
        let output =
            tokio::time::timeout(Duration::from_secs(20), command.output()).await.expect("kubectl hangs");
        output.map(|output| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        })
    };
    if kubectl(&["version", "--client"]).await.is_err() {
        eprintln!("skipped: no kubectl on the PATH");
        return;
    }
    assert_eq!(kubectl(&["exec", "web", "--", "echo", "in"]).await.unwrap(), "in\n");
    let failed = kubectl(&["exec", "web", "--", "sh", "-c", "exit 5"]).await.unwrap();
    assert!(failed.contains("exit code 5"), "{failed}");
    assert_eq!(kubectl(&["logs", "-f", "good"]).await.unwrap(), "bye\n");
}

async fn outlives_a_kubelet(
    cluster: &Cluster,
    token: CancellationToken,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
) {
    let before = cluster.until("web", "ready", ready).await;
    token.cancel();
    running.await.unwrap().unwrap();
    let (token, running) = cluster.kubelet();
    cluster.create("after", json!({"containers": [shell("c", "exec sleep 1000")]})).await;
    cluster.until("after", "ready", ready).await;
    let after = cluster.until("web", "ready", ready).await;
    let id = |pod: &Pod| pod.status.container_statuses[0].container_id.clone();
    assert_eq!((id(&before), 0), (id(&after), after.status.container_statuses[0].restart_count));
    token.cancel();
    running.await.unwrap().unwrap();
}
