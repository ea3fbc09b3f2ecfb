//! How many pods a second are decided and assumed, on one thread: `cargo run --release -p scheduler --example throughput`.

use api::core::v1::{Node, Pod, Service};
use scheduler::{Decision, Fact, PodInfo, Profile, Snapshot, Turn, decide};
use std::sync::Arc;
use std::time::Instant;

const ZONES: usize = 3;
const PODS: usize = 10_000;

fn node(number: usize) -> Arc<Node> {
    let text = format!(
        r#"{{"metadata":{{"name":"node-{number}","labels":{{"kubernetes.io/hostname":"node-{number}",
        "topology.kubernetes.io/zone":"zone-{}"}}}},
        "status":{{"allocatable":{{"cpu":"32","memory":"128Gi","pods":"110"}}}}}}"#,
        number % ZONES
    );
    Arc::new(api::codec::from_json(text.as_bytes()).expect("a node"))
}

fn pod(number: usize, more: &str) -> Arc<Pod> {
    let text = format!(
        r#"{{"metadata":{{"name":"pod-{number}","namespace":"default","uid":"{number}","labels":{{"app":"app-{}"}}}},
        "spec":{{"containers":[{{"name":"c","image":"app:1",
        "resources":{{"requests":{{"cpu":"100m","memory":"500Mi"}}}}}}]{more}}}}}"#,
        number % 10
    );
    Arc::new(api::codec::from_json(text.as_bytes()).expect("a pod"))
}

fn measure(nodes: usize, name: &str, more: &str, services: bool) {
    let (mut snapshot, profile) = (Snapshot::new(), Profile::default());
    for number in 0..nodes {
        snapshot.set_node(node(number));
    }
    for number in 0..if services { 10 } else { 0 } {
        let text = format!(
            r#"{{"metadata":{{"name":"s{number}","namespace":"default"}},"spec":{{"selector":{{"app":"app-{number}"}}}}}}"#
        );
        let service: Service = api::codec::from_json(text.as_bytes()).expect("a service");
        snapshot.set_fact(Fact::Service(Arc::new(service)));
    }
    let pods: Vec<_> = (0..PODS).map(|number| pod(number, more)).collect();
    let (mut turn, mut bound) = (Turn::default(), 0);
    let mut slowest = std::time::Duration::ZERO;
    let began = Instant::now();
    for pod in pods {
        let one = Instant::now();
        let info = Arc::new(PodInfo::new(pod));
        let decision = decide(&snapshot, &profile, &info, turn);
        turn.start += decision.evaluated();
        turn.tie = turn.tie.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if let Decision::Bind { node, .. } = decision {
            snapshot.set_pod(info, &node);
            bound += 1;
        }
        slowest = slowest.max(one.elapsed());
    }
    let each = began.elapsed() / PODS as u32;
    let rate = 1.0 / each.as_secs_f64();
    println!(
        "{nodes:>5} nodes  {name:<22} {rate:>9.0} pods/s  {each:>10.1?} each  {slowest:>9.1?} slowest  {bound} bound"
    );
}

fn main() {
    let spread = r#","topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone",
        "whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchExpressions":[{"key":"app","operator":"Exists"}]}}]"#;
    let far = r#","affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[
        {"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"app-1"}}}]}}"#;
    let near = r#","affinity":{"podAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,
        "podAffinityTerm":{"topologyKey":"topology.kubernetes.io/zone","labelSelector":{"matchLabels":{"app":"app-1"}}}}]}}"#;
    for nodes in [500, 5_000] {
        measure(nodes, "basic", "", false);
        measure(nodes, "of services (spread)", "", true);
        measure(nodes, "strict zone spread", spread, false);
        measure(nodes, "anti-affinity", far, false);
        measure(nodes, "preferred affinity", near, false);
    }
}
