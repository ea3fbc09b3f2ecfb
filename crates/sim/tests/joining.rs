//! Simulated nodes against a real API server in this process: they join, run pods, obey deletions, leave.

use api::core::v1::{Node, Pod, ServiceAccount};
use client::{Auth, Client, Config, DeleteOptions, ListOptions, Wire};
use kube_apiserver::Options;
use meta::ObjectKey;
use sim::{Fleet, NodesArgs};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

async fn serve(folder: &std::path::Path, cancel: CancellationToken) -> Config {
    std::fs::write(folder.join("tokens.csv"), "secret,admin,1,system:masters\n").unwrap();
    std::fs::write(folder.join("sa.key"), pki::Signer::generate_pem().unwrap()).unwrap();
    let mut options = Options::defaults();
    options.data_dir = folder.to_path_buf();
    options.storage_backend = "memory".into();
    options.secure_port = 0;
    options.bind_address = "127.0.0.1".parse().unwrap();
    options.advertise_address = Some("192.0.2.10".parse().unwrap());
    options.token_auth_file = Some(folder.join("tokens.csv"));
    options.service_account_signing_key_file = Some(folder.join("sa.key"));
    let server = kube_apiserver::start(options, cancel).await.unwrap();
    Config {
        server: format!("https://{}", server.addr),
        insecure: true,
        auth: Auth::Token("secret".into()),
        ..Config::default()
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never happened: {what}");
}

fn pod(number: usize) -> Pod {
    let text = format!(
        "{{metadata: {{namespace: default, name: pod-{number}}}, spec: {{nodeName: sim-node-{}, terminationGracePeriodSeconds: 1, containers: [{{name: a, image: i, readinessProbe: {{tcpSocket: {{port: 80}}, periodSeconds: 1}}}}]}}}}",
        number % 3
    );
    api::codec::from_json(&api::codec::yaml_to_json(text.as_bytes()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_run_pods_and_let_them_go() {
    let (folder, cancel) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let config = serve(folder.path(), cancel.clone()).await;
    let client = Client::new(Arc::new(Wire::new(config.clone()).unwrap()));
    let mut account = ServiceAccount::default();
    account.metadata.namespace = "default".into();
    account.metadata.name = "default".into();
    client.create(&account).await.unwrap();
    let args =
        NodesArgs { count: 3, remove: true, start_delay: Duration::from_millis(20), ..NodesArgs::default() };
    let fleet = Fleet::start(&config, args, CancellationToken::new()).unwrap();
    fleet.joined().await;
    for number in 0..9 {
        client.create(&pod(number)).await.unwrap();
    }
    let pods = async || client.list_all::<Pod>("default", &ListOptions::default()).await.unwrap().items;
    let ready =
        |pod: &Pod| pod.status.conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True");
    until("all pods ready", async || pods().await.iter().filter(|pod| ready(pod)).count() == 9).await;
    let addresses: std::collections::BTreeSet<String> =
        pods().await.into_iter().map(|pod| pod.status.pod_ip).collect();
    assert_eq!(addresses.len(), 9);
    assert_eq!(fleet.stats().snapshot().running, 9);

    for number in 0..4 {
        let key = ObjectKey::new("default", format!("pod-{number}"));
        client.delete::<Pod>(&key, &DeleteOptions::default()).await.unwrap();
    }
    until("deleted pods gone", async || pods().await.len() == 5).await;
    until("machines ended", async || fleet.stats().snapshot().pods == 5).await;
    let last = fleet.stats().snapshot();
    assert_eq!((last.nodes, last.deletions, last.failures), (3, 4, 0), "{last}");
    assert!(last.leases >= 3);

    fleet.stop().await.unwrap();
    assert!(client.list_all::<Node>("", &ListOptions::default()).await.unwrap().items.is_empty());
    cancel.cancel();
}
