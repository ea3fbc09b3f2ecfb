//! The plugin against a real kernel: what the specification asks of each command, host ports, and leaving nothing.

mod support;

use serde_json::{Value, json};
use std::net::UdpSocket;
use support::{NODE, Node, ask_tcp, ask_udp};

#[test]
fn a_pod_is_attached_checked_and_let_go() {
    let mut node = Node::make();
    let (one, two) = (node.pod(), node.pod());
    let result = &node.at(one).result;
    assert_eq!(result["cniVersion"], "1.0.0");
    assert_eq!(result["ips"], json!([{"address": "10.244.0.2/32", "gateway": "10.244.0.1", "interface": 2}]));
    assert_eq!(result["interfaces"][0]["name"], "timonel0");
    assert_eq!(result["interfaces"][2]["mac"], "0a:58:0a:f4:00:02");
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.244.0.1"}]));

    // Pods reach one another, the node reaches pods, and outside the pods bear the node's address.
    node.serve_tcp(one, 80);
    let address = node.at(one).address;
    let seen = node.at(two).namespace.run(|| ask_tcp(&format!("{address}:80")).unwrap());
    assert_eq!(seen, (one, "10.244.0.3".into()));
    node.namespace.run(|| ask_tcp(&format!("{address}:80")).unwrap());
    let server = node.outside.run(|| UdpSocket::bind("192.0.2.2:9").unwrap());
    node.at(one)
        .namespace
        .run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"?", "192.0.2.2:9").unwrap());
    assert_eq!(server.recv_from(&mut [0; 8]).unwrap().1.ip().to_string(), NODE);

    let netns = node.at(one).namespace.path().display().to_string();
    let config = node.config("1.0.0", json!([]));
    assert_eq!(node.cni("CHECK", "pod-0", &netns, &config).0, 0);
    // Once more for the same container: the same address, and it works.
    let (code, again) = node.cni("ADD", "pod-0", &netns, &config);
    assert_eq!((code, &again["ips"][0]["address"]), (0, &json!("10.244.0.2/32")));
    node.at(two).namespace.run(|| ask_tcp(&format!("{address}:80")).unwrap());
    for netns in [netns.as_str(), "", "/run/netns/tml-test-gone"] {
        assert_eq!(node.cni("DEL", "pod-0", netns, &config), (0, Value::Null));
    }
    let (code, error) = node.cni("CHECK", "pod-0", &netns, &config);
    assert_eq!((code, &error["code"]), (1, &json!(3)));
}

#[test]
fn host_ports_lead_to_the_pod_until_it_goes() {
    let mut node = Node::make();
    let ports = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"},
    ]);
    let (pod, other) = (node.pod_with_ports(ports), node.pod());
    node.serve_tcp(pod, 80);
    node.serve_udp(pod, 53);
    node.outside.run(|| {
        assert_eq!(ask_tcp(&format!("{NODE}:8080")).unwrap(), (pod, support::OUTSIDE.into()));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        ask_udp(&socket, &format!("{NODE}:8053")).unwrap();
        ask_tcp(&format!("{NODE}:8081")).unwrap();
    });
    node.namespace.run(|| {
        ask_tcp("127.0.0.1:8080").unwrap();
        ask_tcp(&format!("{NODE}:8080")).unwrap();
        assert!(ask_tcp("127.0.0.1:8081").is_err(), "confined to one address");
    });
    node.at(pod).namespace.run(|| ask_tcp(&format!("{NODE}:8080")).unwrap());
    node.at(other).namespace.run(|| ask_tcp(&format!("{NODE}:8080")).unwrap());
    // A table lost to a careless firewall script heals with the next pod.
    node.nft(&["flush", "ruleset"]);
    assert!(node.outside.run(|| ask_tcp(&format!("{NODE}:8080"))).is_err());
    node.pod();
    node.outside.run(|| ask_tcp(&format!("{NODE}:8080")).unwrap());
    assert_eq!(node.cni("DEL", "pod-0", "", &node.config("1.0.0", json!([]))).0, 0);
    assert!(node.outside.run(|| ask_tcp(&format!("{NODE}:8080"))).is_err());
}

#[test]
fn what_the_runtime_forgot_is_collected_and_reset_leaves_nothing() {
    let mut node = Node::make();
    for _ in 0..3 {
        node.pod();
    }
    let mut config = node.config("1.1.0", json!([]));
    assert_eq!(node.cni("STATUS", "", "", &config).0, 0);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "pod-1", "ifname": "eth0"}]);
    assert_eq!(node.cni("GC", "", "", &config), (0, Value::Null));
    let netns = |number: usize| node.at(number).namespace.path().display().to_string();
    assert_eq!(node.cni("CHECK", "pod-1", &netns(1), &config).0, 0);
    assert_eq!(node.cni("CHECK", "pod-2", &netns(2), &config).0, 1);
    let removed = node.namespace.run(|| net::reset(node.data.path())).unwrap();
    assert_eq!(removed.links.len(), 2, "the bridge and one pod's link: {removed:?}");
    assert_eq!(node.nft(&["list", "tables"]), "");
    assert!(!node.data.path().exists());
    node.namespace.run(|| net::reset(node.data.path())).unwrap();
}

#[test]
fn versions_and_bad_input_are_answered_as_specified() {
    let node = Node::make();
    let (code, versions) = node.cni("VERSION", "", "", &json!({"cniVersion": "1.0.0"}));
    assert_eq!(code, 0);
    assert_eq!(versions["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let refused = |command: &str, id: &str, config: &Value| {
        node.cni(command, id, "/run/netns/none", config).1["code"].clone()
    };
    let config = node.config("1.0.0", json!([]));
    assert_eq!(refused("ADD", "x", &node.config("9.0.0", json!([]))), json!(1));
    assert_eq!(refused("ADD", "x", &config), json!(3));
    assert_eq!(refused("ADD", "../x", &config), json!(4));
    assert_eq!(refused("DANCE", "x", &config), json!(4));
    assert_eq!(refused("ADD", "x", &json!("?")), json!(6));
    assert_eq!(
        refused("ADD", "x", &json!({"cniVersion": "1.0.0", "name": "n", "type": "timonel-cni"})),
        json!(7)
    );
    let old = node.config("0.4.0", json!([]));
    let space = support::Namespace::make("old");
    let result = node.cni("ADD", "old", &space.path().display().to_string(), &old).1;
    assert_eq!(result["ips"][0]["version"], "4");
}
