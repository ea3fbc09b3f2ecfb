//! From changed objects to the kernel, in a network namespace of the test's own.

use crate::health::Health;
use crate::metrics::Metrics;
use crate::options::{Config, NodePortAddresses};
use crate::proxier::Proxier;
use api::Object;
use api::core::v1::{Node, Service};
use api::discovery::v1::EndpointSlice;
use client::Change;
use jiff::Timestamp;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const NODE: &str = "192.0.2.1";

/// Runs `work` on a node with one address and a default route.
fn on_a_node(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            net::netns::leave_for_new().expect("make a network namespace");
            let mut socket = net::netlink::Socket::route().unwrap();
            let lo = socket.link("lo").unwrap().unwrap();
            socket.set_up(lo.index).unwrap();
            net::ensure_address_link("outside", &[NODE.parse().unwrap()]).unwrap();
            let link = socket.link("outside").unwrap().unwrap();
            socket.add_route("0.0.0.0/0".parse().unwrap(), None, link.index).unwrap();
            work();
        });
        thread.join().unwrap();
    });
}

fn parse<T: meta::Message + Default>(yaml: &str) -> T {
    api::codec::from_json(&api::codec::yaml_to_json(yaml.as_bytes()).unwrap()).unwrap()
}

fn change<T: Object + Clone>(old: Option<&T>, new: Option<&T>) -> Change {
    let shared = |object: Option<&T>| object.map(|object| Arc::new(object.clone()) as Arc<dyn Object>);
    let key = view::key_of(old.or(new).unwrap());
    Change { kind: view::kind_id::<T>(), key, old: shared(old), new: shared(new) }
}

/// A server that answers every connection with its name, until the test ends.
fn serve(name: &'static str) -> u16 {
    let listener = TcpListener::bind((NODE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stream.and_then(|mut stream| stream.write_all(name.as_bytes())).is_err() {
                return;
            }
        }
    });
    port
}

fn ask(port: u16) -> Result<String, std::io::ErrorKind> {
    let to = if port < 30000 { format!("10.96.0.20:{port}") } else { format!("{NODE}:{port}") };
    let timeout = Duration::from_secs(2);
    let mut stream =
        TcpStream::connect_timeout(&to.parse().unwrap(), timeout).map_err(|error| error.kind())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    Ok(text)
}

fn config() -> Config {
    Config {
        node_name: "here".into(),
        cluster_cidrs: vec![],
        primary_address: None,
        healthz_bind_address: None,
        metrics_bind_address: None,
        node_port_addresses: NodePortAddresses::Primary,
        masquerade_all: false,
        masquerade_mark: 1 << 14,
        min_sync_period: Duration::ZERO,
        sync_period: Duration::ZERO,
    }
}

#[test]
fn changed_objects_change_the_rules() {
    on_a_node(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follow());
    });
}

async fn follow() {
    let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::default()));
    let mut proxier = Proxier::new(config(), health.clone(), metrics.clone(), CancellationToken::new());
    let (one, two) = (serve("one"), serve("two"));
    let node: Node = parse(
        "{metadata: {name: here}, status: {addresses: [{type: Hostname, address: here}, {type: InternalIP, address: 192.0.2.1}]}}",
    );
    let service: Service = parse(
        "{metadata: {name: web, namespace: shop}, spec: {type: NodePort, clusterIP: 10.96.0.20,
          ports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 81}]}}",
    );
    let slice = |ready: bool| -> EndpointSlice {
        parse(&format!(
            "{{metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4,
              ports: [{{name: a, port: {one}}}, {{name: b, port: {two}}}],
              endpoints: [{{addresses: [{NODE}], nodeName: here, conditions: {{ready: {ready}}}}}]}}"
        ))
    };
    // Slices may be seen before their service.
    proxier.take(&[change(None, Some(&slice(true)))]);
    proxier.sync().await.unwrap();
    proxier.take(&[change(None, Some(&node)), change(None, Some(&service))]);
    proxier.sync().await.unwrap();
    assert_eq!((ask(80), ask(81), ask(30080)), (Ok("one".into()), Ok("two".into()), Ok("one".into())));
    assert_eq!(health.answer("/healthz", Timestamp::now()).0, 200);

    // A pod that is no longer ready is out with the sync that hears of it.
    let refused = Err(std::io::ErrorKind::ConnectionRefused);
    proxier.take(&[change(Some(&slice(true)), Some(&slice(false)))]);
    proxier.sync().await.unwrap();
    assert_eq!((ask(80), ask(30080)), (refused.clone(), refused.clone()));
    proxier.take(&[change(Some(&slice(false)), Some(&slice(true)))]);
    proxier.sync().await.unwrap();
    assert_eq!(ask(80), Ok("one".into()));
    proxier.take(&[change(Some(&slice(true)), None)]);
    proxier.sync().await.unwrap();
    assert_eq!(ask(81), refused);
    proxier.take(&[change(Some(&service), None)]);
    proxier.sync().await.unwrap();

    let text = metrics.answer("/metrics").2;
    assert!(text.contains("kubeproxy_sync_proxy_rules_service_changes_total 2\n"), "{text}");
    assert!(text.contains("kubeproxy_sync_proxy_rules_endpoint_changes_total 4\n"), "{text}");
    let mut leaving = node.clone();
    leaving.spec.taints = vec![parse("{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}")];
    proxier.take(&[change(Some(&node), Some(&leaving))]);
    assert_eq!(health.answer("/healthz", Timestamp::now()).0, 503);
    assert_eq!(health.answer("/livez", Timestamp::now()).0, 200);
    crate::cleanup().unwrap();
    assert!(ask(80).is_err());
}
