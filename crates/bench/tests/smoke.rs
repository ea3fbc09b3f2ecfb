//! Every workload, small, against a server in this process: that counts are right, never how long it takes.

use bench::*;
use clap::Parser;
use kube_apiserver::Options;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// A server over the memory store, and the kubeconfig of its administrator.
struct Fixture {
    _folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    cancel: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn serve() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("tokens.csv"), "secret,admin,1,system:masters\n").unwrap();
    std::fs::write(path.join("sa.key"), pki::Signer::generate_pem().unwrap()).unwrap();
    let mut options = Options::defaults();
    options.secure_port = 0;
    options.bind_address = "127.0.0.1".parse().unwrap();
    options.advertise_address = Some("192.0.2.10".parse().unwrap());
    options.data_dir = path.to_path_buf();
    options.storage_backend = "memory".into();
    options.token_auth_file = Some(path.join("tokens.csv"));
    options.service_account_signing_key_file = Some(path.join("sa.key"));
    let cancel = CancellationToken::new();
    let server = kube_apiserver::start(options, cancel.clone()).await.unwrap();
    let kubeconfig = path.join("ours.kubeconfig");
    let file = pki::kubeconfig::Kubeconfig {
        server: format!("https://{}", server.addr),
        insecure_skip_tls_verify: true,
        token: Some("secret".into()),
        ..Default::default()
    };
    file.write(&kubeconfig, &pki::kubeconfig::Names { cluster: "ours", user: "admin" }).unwrap();
    Fixture { _folder: folder, kubeconfig, cancel }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// Runs a command line with a result file, and reads that.
async fn bench(fixture: &Fixture, words: &[&str]) -> Document {
    let json = fixture.kubeconfig.with_file_name("result.json");
    let pid = std::process::id().to_string();
    let mut line = vec!["bench"];
    line.extend(words);
    line.extend(["--seconds", "20", "--server-pid", &pid, "--json", json.to_str().unwrap()]);
    if !words.contains(&"--compare") {
        line.extend(["--kubeconfig", fixture.kubeconfig.to_str().unwrap()]);
    }
    bench::run(Cli::parse_from(line).args).await.unwrap();
    serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap()
}

fn counts(document: &Document) -> Vec<(&str, u64)> {
    document.rows.iter().map(|row| (row.case.as_str(), row.count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_of_every_object() {
    let fixture = serve().await;
    let line =
        "verbs --objects configmap,pod,lease,node,service --clients 4 --encoding json,protobuf --count 24";
    let document = bench(&fixture, &line.split(' ').collect::<Vec<_>>()).await;
    let cases = counts(&document);
    // Per encoding: 5 each of configmap, pod and lease; node and service are not updated.
    assert_eq!(cases.len(), 2 * (5 + 5 + 5 + 4 + 4), "{cases:?}");
    assert!(cases.iter().all(|(_, count)| *count == 24), "{cases:?}");
    assert!(document.rows.iter().all(|row| row.latency.is_some_and(|latency| latency.p50 > 0)));
    let left = bench(&fixture, &["verbs", "--objects", "node", "--clients", "1", "--count", "1"]).await;
    assert_eq!(left.rows.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_over_http1_and_on_a_schedule() {
    let fixture = serve().await;
    let line = "verbs --clients 3 --count 30 --http 1 --rate 500 --verbs get,delete";
    let document = bench(&fixture, &line.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(
        counts(&document),
        [("get configmap 1024 B, json, x3", 30), ("delete configmap 1024 B, json, x3", 30)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_every_sort() {
    let fixture = serve().await;
    let line = "lists --pods 620 --clients 2 --count 2";
    let document = bench(&fixture, &line.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(document.rows.len(), 9, "{:?}", counts(&document));
    assert!(document.rows.iter().all(|row| row.count == 2 && row.facts["list_mb"] > 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_see_everything_once() {
    let fixture = serve().await;
    let line = "watch --watchers 3,20 --count 60 --pods 20 --encoding json,protobuf";
    let document = bench(&fixture, &line.split(' ').collect::<Vec<_>>()).await;
    let events: Vec<u64> = document.rows.iter().map(|row| row.count).collect();
    assert_eq!(events, [180, 1200, 60, 60, 180, 1200, 60, 60]);
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_of_few_nodes() {
    let fixture = serve().await;
    let mut common = Common { kubeconfig: Some(fixture.kubeconfig.clone()), ..Common::default() };
    common.seconds = 1.0;
    let args = TrafficArgs {
        nodes: vec![40],
        lease_seconds: 1.0,
        status_seconds: 2.0,
        pod_rate: 30.0,
        event_rate: 10.0,
        clients: 8,
    };
    let target = Target::open(&fixture.kubeconfig, &common, Default::default()).unwrap();
    let rows = run_on(&target, &common, &Workload::Traffic(args)).await.unwrap();
    let counts: Vec<u64> = rows.iter().map(|row| row.count).collect();
    assert_eq!(counts, [40, 20, 30, 10, 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_take_turns() {
    let (one, other) = (serve().await, serve().await);
    let files = [one.kubeconfig.to_str().unwrap(), other.kubeconfig.to_str().unwrap()];
    let words = [
        "verbs",
        "--clients",
        "1",
        "--count",
        "5",
        "--verbs",
        "get",
        "--rounds",
        "2",
        "--compare",
        files[0],
        files[1],
    ];
    let document = bench(&one, &words).await;
    let turns: Vec<(u32, &str)> = document.rows.iter().map(|row| (row.round, row.server.as_str())).collect();
    assert_eq!(turns, [(1, "A"), (1, "B"), (2, "A"), (2, "B")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_counts_its_revisions() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("store.json");
    let paths = [folder.path().to_str().unwrap(), json.to_str().unwrap()];
    let line =
        ["bench", "store", "--count", "50", "--clients", "1,8", "--directory", paths[0], "--json", paths[1]];
    bench::run(Cli::parse_from(line).args).await.unwrap();
    let document: Document = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(document.rows.iter().map(|row| row.count).collect::<Vec<_>>(), [50, 50, 50, 51, 50, 51]);
    let out = folder.path().join("page");
    let line = ["bench", "report", paths[1], "--out", out.to_str().unwrap()];
    bench::run(Cli::parse_from(line).args).await.unwrap();
    assert!(
        std::fs::read_to_string(out.join("README.md"))
            .unwrap()
            .contains("durable transactions of 1024 B, x8")
    );
    assert!(out.join("store-0.svg").exists());
}
