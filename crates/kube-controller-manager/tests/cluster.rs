//! The controllers against the real API server in this process: RBAC on, each with its own account, a kubelet played
//! by the test.

use api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use api::batch::v1::Job;
use api::codec;
use api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, PodCondition, PodIP, Service, ServiceAccount,
};
use api::discovery::v1::EndpointSlice;
use api::policy::v1::PodDisruptionBudget;
use api::rbac::v1::ClusterRole;
use api::{Object, Typed};
use client::{Client, DeleteOptions, ListOptions, Propagation, Views};
use kube_controller_manager::Options;
use meta::ObjectKey;
use registry::UserInfo;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Far longer than anything takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    admin: Client,
    token: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo {
        name: name.into(),
        groups: groups.iter().map(|group| group.to_string()).collect(),
        ..UserInfo::default()
    }
}

async fn start() -> Cluster {
    if std::env::var("RUST_LOG").is_ok() {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let token = CancellationToken::new();
    let options = kube_apiserver::Options {
        storage_backend: "memory".into(),
        secure_port: 0,
        bind_address: [127, 0, 0, 1].into(),
        data_dir: folder.path().into(),
        ..kube_apiserver::Options::defaults()
    };
    let server = kube_apiserver::start(options, token.clone()).await.expect("the server starts");
    let server = Arc::new(server);
    let admin = Client::new(server.transport(user("admin", &["system:masters"])));
    let own = Client::new(server.transport(user("system:kube-controller-manager", &[])));
    let ca = folder.path().join("root.crt");
    std::fs::write(&ca, "PEM").expect("the file can be written");
    let options = Options {
        root_ca_file: Some(ca),
        allocate_node_cidrs: true,
        cluster_cidr: Some("10.244.0.0/16".into()),
        ..Options::defaults()
    };
    let stop = token.clone();
    tokio::spawn(async move {
        let account = move |account: &str| {
            let name = format!("system:serviceaccount:kube-system:{account}");
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            Client::new(server.transport(user(&name, &groups)))
        };
        kube_controller_manager::run_with(options, own, &account, stop).await.expect("the controllers run");
    });
    let mut node = Node::default();
    node.metadata.name = "n1".into();
    admin.create(&node).await.expect("a node can be registered");
    tokio::spawn(kubelet(admin.clone(), token.clone()));
    Cluster { admin, token, _folder: folder }
}

/// Binds each pod, starts it, and lets go what is to go.
async fn kubelet(client: Client, token: CancellationToken) {
    let views = Views::builder(&client).watch::<Pod>().expect("pods are served").start(&token);
    let mut changes = views.subscribe();
    let mut count = 0u32;
    while let Some(batch) = changes.recv().await {
        for change in batch.objects {
            let Some((_, Some(pod))) = change.of::<Pod>() else { continue };
            if pod.metadata.deletion_timestamp.is_some() {
                let now =
                    DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::of_uid(&pod.metadata.uid) };
                let _ = client.delete::<Pod>(&change.key, &now).await;
                continue;
            }
            if pod.spec.node_name.is_empty() {
                let mut binding = api::core::v1::Binding::default();
                binding.metadata.name.clone_from(&pod.metadata.name);
                binding.metadata.namespace.clone_from(&pod.metadata.namespace);
                binding.target.kind = "Node".into();
                binding.target.name = "n1".into();
                let bound: Result<api::meta::v1::Status, _> =
                    client.create_subresource::<Pod, _, _>(&change.key, "binding", &binding).await;
                bound.expect("a pod can be bound");
                continue;
            }
            if pod.status.phase != "Pending" {
                continue;
            }
            count += 1;
            let mut next = pod.clone();
            if pod.spec.restart_policy == "Never" {
                // What is to end, ends.
                next.status.phase = "Succeeded".into();
                let _ = client.update_status(&next).await;
                continue;
            }
            next.status.phase = "Running".into();
            next.status.pod_ip = format!("10.244.0.{count}");
            next.status.pod_ips = vec![PodIP { ip: next.status.pod_ip.clone() }];
            next.status.conditions.push(PodCondition {
                r#type: "Ready".into(),
                status: "True".into(),
                last_transition_time: meta::Time::parse("2026-01-01T00:00:00Z"),
                ..PodCondition::default()
            });
            let _ = client.update_status(&next).await;
        }
    }
}

/// Waits until a check answers; says what it waited for when it never does.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    match waited.await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

async fn list<T: Typed + Object>(client: &Client, namespace: &str) -> Vec<T> {
    client.list_all::<T>(namespace, &ListOptions::default()).await.expect("it can be listed").items
}

fn object<T: Typed>(text: &str) -> T {
    codec::from_json(&codec::yaml_to_json(text.as_bytes()).expect("it is YAML")).expect("it is of its kind")
}

const DEPLOYMENT: &str = "
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'web:1', ports: [{name: http, containerPort: 8080}]}]}
";

const SERVICE: &str = "
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
";

async fn complete(client: &Client, image: &str) -> Option<Deployment> {
    let deployment: Deployment = client.get(&ObjectKey::new("shop", "web")).await.ok()?;
    let wanted = deployment.spec.replicas?;
    let status = &deployment.status;
    let counted = [status.replicas, status.updated_replicas, status.available_replicas];
    let current = status.observed_generation == deployment.metadata.generation;
    let is = deployment.spec.template.spec.containers[0].image == image;
    (current && is && counted == [wanted; 3]).then_some(deployment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_lives_with_all_that_is_in_it_and_dies() {
    let cluster = start().await;
    let admin = &cluster.admin;
    let mut namespace = Namespace::default();
    namespace.metadata.name = "shop".into();
    admin.create(&namespace).await.expect("a namespace can be made");
    let key = |name: &str| ObjectKey::new("shop", name);
    eventually("the default account", || async { admin.get::<ServiceAccount>(&key("default")).await.ok() })
        .await;
    eventually("the root certificate", || async {
        let map = admin.get::<ConfigMap>(&key("kube-root-ca.crt")).await.ok()?;
        (map.data.get("ca.crt")? == "PEM").then_some(())
    })
    .await;
    eventually("the node's range", || async {
        let node = admin.get::<Node>(&ObjectKey::cluster("n1")).await.ok()?;
        (node.spec.pod_cidr == "10.244.0.0/24").then_some(())
    })
    .await;

    admin.create(&object::<Deployment>(DEPLOYMENT)).await.expect("a deployment can be made");
    admin.create(&object::<Service>(SERVICE)).await.expect("a service can be made");
    let first = eventually("the first rollout", || complete(admin, "web:1")).await;
    assert_eq!(
        first.metadata.annotations.get("deployment.kubernetes.io/revision").map(String::as_str),
        Some("1")
    );
    eventually("three endpoints, in both forms", || async {
        let slices: Vec<EndpointSlice> = list(admin, "shop").await;
        let ready: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
        let endpoints = admin.get::<Endpoints>(&key("web")).await.ok()?;
        let older: usize = endpoints.subsets.iter().map(|subset| subset.addresses.len()).sum();
        (ready == 3 && older == 3).then_some(())
    })
    .await;

    let patch = client::Patch::Strategic(serde_json::json!({
        "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}
    }));
    admin.patch::<Deployment>(&key("web"), &patch, &Default::default()).await.expect("it can be patched");
    let second = eventually("the second rollout", || complete(admin, "web:2")).await;
    assert_eq!(
        second.metadata.annotations.get("deployment.kubernetes.io/revision").map(String::as_str),
        Some("2")
    );
    eventually("only new pods", || async {
        let pods: Vec<Pod> = list(admin, "shop").await;
        let new = pods.iter().all(|pod| pod.spec.containers[0].image == "web:2");
        (pods.len() == 3 && new).then_some(())
    })
    .await;

    let background = DeleteOptions { propagation: Some(Propagation::Background), ..Default::default() };
    admin.delete::<Deployment>(&key("web"), &background).await.expect("it can be deleted");
    eventually("sets and pods to follow", || async {
        let sets: Vec<ReplicaSet> = list(admin, "shop").await;
        let pods: Vec<Pod> = list(admin, "shop").await;
        (sets.is_empty() && pods.is_empty()).then_some(())
    })
    .await;

    admin.delete::<Namespace>(&ObjectKey::cluster("shop"), &Default::default()).await.expect("it can go");
    eventually("the namespace to go", || async {
        let gone = admin.get::<Namespace>(&ObjectKey::cluster("shop")).await.is_err_and(|e| e.is_not_found());
        gone.then_some(())
    })
    .await;
    let maps: Vec<ConfigMap> = list(admin, "shop").await;
    assert!(maps.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_wait_for_their_dependents_or_let_them_go() {
    let cluster = start().await;
    let admin = &cluster.admin;
    let mut namespace = Namespace::default();
    namespace.metadata.name = "shop".into();
    admin.create(&namespace).await.expect("a namespace can be made");
    let key = ObjectKey::new("shop", "web");
    eventually("pods can be made", || async {
        admin.get::<ServiceAccount>(&ObjectKey::new("shop", "default")).await.ok()
    })
    .await;

    admin.create(&object::<Deployment>(DEPLOYMENT)).await.expect("a deployment can be made");
    eventually("the rollout", || complete(admin, "web:1")).await;
    let orphan = DeleteOptions { propagation: Some(Propagation::Orphan), ..Default::default() };
    admin.delete::<Deployment>(&key, &orphan).await.expect("it can be deleted");
    eventually("the deployment to go alone", || async {
        let gone = admin.get::<Deployment>(&key).await.is_err_and(|e| e.is_not_found());
        let sets: Vec<ReplicaSet> = list(admin, "shop").await;
        let free = sets.iter().all(|set| set.metadata.owner_references.is_empty());
        (gone && sets.len() == 1 && free).then_some(())
    })
    .await;

    // Another deployment of the same labels adopts the set.
    admin.create(&object::<Deployment>(DEPLOYMENT)).await.expect("a deployment can be made");
    eventually("the set to be adopted", || async {
        let sets: Vec<ReplicaSet> = list(admin, "shop").await;
        (sets.len() == 1 && !sets[0].metadata.owner_references.is_empty()).then_some(())
    })
    .await;

    let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..Default::default() };
    admin.delete::<Deployment>(&key, &foreground).await.expect("it can be deleted");
    eventually("all three generations to go", || async {
        let gone = admin.get::<Deployment>(&key).await.is_err_and(|e| e.is_not_found());
        if gone {
            assert!(list::<Pod>(admin, "shop").await.is_empty(), "the owner went before its dependents");
        }
        gone.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_workloads_run() {
    let cluster = start().await;
    let admin = &cluster.admin;
    let mut namespace = Namespace::default();
    namespace.metadata.name = "shop".into();
    admin.create(&namespace).await.expect("a namespace can be made");
    eventually("pods can be made", || async {
        admin.get::<ServiceAccount>(&ObjectKey::new("shop", "default")).await.ok()
    })
    .await;
    let template = |app: &str, more: &str| {
        format!(
            "template: {{metadata: {{labels: {{app: {app}}}}}, spec: {{containers: [{{name: c, image: 'i:1'}}]{more}}}}}"
        )
    };
    let head = |name: &str| format!("metadata: {{name: {name}, namespace: shop}}\nspec:\n");
    let selector = |app: &str| format!("  selector: {{matchLabels: {{app: {app}}}}}\n");

    let text =
        head("db") + "  replicas: 2\n  serviceName: db\n" + &selector("db") + "  " + &template("db", "");
    admin.create(&object::<StatefulSet>(&text)).await.expect("a stateful set can be made");
    let text = head("log") + &selector("log") + "  " + &template("log", "");
    admin.create(&object::<DaemonSet>(&text)).await.expect("a daemon set can be made");
    let text =
        head("once") + "  completions: 3\n  parallelism: 2\n  " + &template("once", ", restartPolicy: Never");
    admin.create(&object::<Job>(&text)).await.expect("a job can be made");
    let text = head("db") + "  minAvailable: 1\n" + &selector("db");
    admin.create(&object::<PodDisruptionBudget>(&text)).await.expect("a budget can be made");

    let key = |name: &str| ObjectKey::new("shop", name);
    eventually("the stateful set", || async {
        let set = admin.get::<StatefulSet>(&key("db")).await.ok()?;
        let done = set.status.available_replicas == 2 && !set.status.current_revision.is_empty();
        done.then_some(())
    })
    .await;
    eventually("the daemon set", || async {
        let set = admin.get::<DaemonSet>(&key("log")).await.ok()?;
        (set.status.desired_number_scheduled == 1 && set.status.number_available == 1).then_some(())
    })
    .await;
    eventually("the job", || async {
        let job = admin.get::<Job>(&key("once")).await.ok()?;
        let complete = job.status.conditions.iter().any(|c| c.r#type == "Complete" && c.status == "True");
        (complete && job.status.succeeded == 3).then_some(())
    })
    .await;
    eventually("the budget", || async {
        let budget = admin.get::<PodDisruptionBudget>(&key("db")).await.ok()?;
        (budget.status.current_healthy == 2 && budget.status.disruptions_allowed == 1).then_some(())
    })
    .await;
    eventually("the aggregated roles", || async {
        let role = admin.get::<ClusterRole>(&ObjectKey::cluster("view")).await.ok()?;
        (!role.rules.is_empty()).then_some(())
    })
    .await;
}
