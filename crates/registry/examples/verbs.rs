//! How many operations a second the registry does on a store in memory, and what one costs in CPU: a benchmark, not a test.

use api::core::v1::{ConfigMap, Pod};
use api::{Object, coordination};
use meta::ObjectKey;
use registry::{AlwaysAdmit, ListOptions, Patch, PatchType, Registry, Request, UpdateKind};
use resources::Resource;
use std::sync::Arc;
use std::time::Instant;

fn row(group: &str, version: &str, plural: &str) -> &'static dyn Resource {
    resources::find(group, version, plural).expect("in the table")
}

fn request() -> Request {
    Request { user_agent: "throughput/1".into(), ..Request::default() }
}

fn pod(number: usize) -> Box<dyn Object> {
    let text = serde_json::json!({
        "metadata": {"name": format!("pod-{number}"), "labels": {"app": "web", "tier": "front"}},
        "spec": {
            "nodeName": format!("node-{}", number % 100),
            "containers": [{
                "name": "web", "image": "registry.example.com/web:1.2.3", "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}},
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    });
    let mut pod: Box<dyn Object> = Box::new(api::codec::from_value::<Pod>(&text).expect("a pod"));
    row("", "v1", "pods").default(&mut *pod);
    pod
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

async fn measure(name: &str, count: usize, work: impl AsyncFnOnce()) {
    let (start, before) = (Instant::now(), cpu());
    work().await;
    let (took, used) = (start.elapsed().as_secs_f64(), cpu() - before);
    let rate = count as f64 / took;
    println!("{name:<40} {rate:>10.0}/s   {:>8.1} us CPU each", used / count as f64 * 1e6);
}

async fn parallel<F: Future<Output = ()> + Send + 'static>(tasks: usize, work: impl Fn(usize) -> F) {
    futures::future::join_all((0..tasks).map(|task| tokio::spawn(work(task)))).await;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    const PODS: usize = 10_000;
    let registry = Registry::new(store::memory(), Arc::new(AlwaysAdmit));
    let pods = row("", "v1", "pods");
    let leases = row("coordination.k8s.io", "v1", "leases");
    registry.warm(pods).await.expect("loaded");
    registry.warm(leases).await.expect("loaded");

    measure("create pod x32", PODS, async || {
        parallel(32, |task| {
            let registry = Arc::clone(&registry);
            async move {
                for number in (task..PODS).step_by(32) {
                    let made =
                        registry.create(&request(), row("", "v1", "pods"), "default", pod(number)).await;
                    made.expect("created").json().expect("json");
                }
            }
        })
        .await;
    })
    .await;
    measure("get pod, json", 200_000, async || {
        for number in 0..200_000 {
            let key = ObjectKey::new("default", format!("pod-{}", number % PODS));
            registry.get(pods, &key, "").await.expect("there").json().expect("json");
        }
    })
    .await;
    for round in ["list 10k pods, json first", "list 10k pods, json again"] {
        measure(round, 1, async || {
            let list = registry.list(pods, "", &ListOptions::default()).await.expect("a list");
            let bytes: usize = list.items.iter().map(|item| item.json_item().expect("json").len()).sum();
            println!("  {} items, {bytes} bytes", list.items.len());
        })
        .await;
    }
    measure("list 10k pods, protobuf", 1, async || {
        let list = registry.list(pods, "", &ListOptions::default()).await.expect("a list");
        let mut out = Vec::with_capacity(64 << 10);
        let mut bytes = 0;
        for item in &list.items {
            item.append_proto_message(&mut out);
            bytes += out.len();
            out.clear();
        }
        println!("  {} items, {bytes} bytes", list.items.len());
    })
    .await;
    for node in 0..64 {
        let mut lease = coordination::v1::Lease::default();
        lease.metadata.name = format!("node-{node}");
        registry.create(&request(), leases, "kube-node-lease", Box::new(lease)).await.expect("created");
    }
    measure("update lease x64", 32_000, async || {
        parallel(64, |task| {
            let registry = Arc::clone(&registry);
            async move {
                let key = ObjectKey::new("kube-node-lease", format!("node-{task}"));
                let row = row("coordination.k8s.io", "v1", "leases");
                let mut current = registry.get(row, &key, "").await.expect("there");
                for second in 0..500 {
                    let mut lease = current.decode().expect("decodes");
                    let spec = &mut lease.downcast_mut::<coordination::v1::Lease>().expect("a lease").spec;
                    spec.holder_identity = Some(format!("{task}-{second}"));
                    let updated = registry.update(&request(), row, &key, UpdateKind::Spec, lease).await;
                    current = updated.expect("updated").object;
                    current.json().expect("json");
                }
            }
        })
        .await;
    })
    .await;
    measure("patch pod status x16", 10_000, async || {
        parallel(16, |task| {
            let registry = Arc::clone(&registry);
            async move {
                for number in (task..PODS).step_by(16) {
                    let key = ObjectKey::new("default", format!("pod-{number}"));
                    let body = r#"{"status":{"phase":"Running","podIP":"10.0.0.1","conditions":[{"type":"Ready","status":"True"}]}}"#;
                    let patch = Patch { kind: PatchType::StrategicMerge, body: body.into(), force: false };
                    let pods = row("", "v1", "pods");
                    let patched = registry.patch(&request(), pods, &key, UpdateKind::Status, &patch).await;
                    patched.expect("patched").object.json().expect("json");
                }
            }
        })
        .await;
    })
    .await;
    fan_out(&registry, 100, 1_000).await;
}

async fn fan_out(registry: &Arc<Registry>, watchers: usize, writes: usize) {
    let maps = row("", "v1", "configmaps");
    registry.create(&request(), maps, "default", Box::new(map(0))).await.expect("created");
    let mut tasks = Vec::new();
    for _ in 0..watchers {
        let mut watcher = registry.watch(maps, "", &ListOptions::default()).await.expect("a watch");
        tasks.push(tokio::spawn(async move {
            let mut bytes = 0;
            for _ in 0..=writes {
                let event = watcher.recv().await.expect("an event");
                bytes += event.object().expect("an object").json().expect("json").len();
            }
            bytes
        }));
    }
    measure("fan-out, events to 100 watchers", watchers * writes, async || {
        for number in 1..=writes {
            let key = ObjectKey::new("default", "map");
            registry
                .update(&request(), maps, &key, UpdateKind::Spec, Box::new(map(number)))
                .await
                .expect("updated");
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    })
    .await;
}

fn map(number: usize) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = "map".into();
    map.data.insert("text".into(), "x".repeat(1024));
    map.data.insert("number".into(), number.to_string());
    map
}
