//! Service rules in a real kernel: pods attached by the plugin in namespaces of the test's own, and real connections.

mod support;

use net::nftables::Plane;
use services::{Family, Frontend, Pool, PortRules, Protocol, Refusal, Role, ServiceRules};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use support::{NODE, Node, OUTSIDE, ask_tcp, ask_udp};

const VIP: &str = "10.96.0.20";

/// A service with a cluster address and a node port, its policy outside being Local or not.
fn service(name: &str, protocol: Protocol, targets: &[SocketAddr], external: Pool) -> ServiceRules {
    let cluster = targets.to_vec();
    let refusal = targets.is_empty().then_some(Refusal::Reject);
    let frontend = |role: Role, address: Option<&str>, port: u16, pool: Pool| Frontend {
        role,
        address: address.map(|text| text.parse().unwrap()),
        port,
        pool,
        refusal,
        sources: Vec::new(),
    };
    ServiceRules {
        ports: vec![PortRules {
            name: name.into(),
            family: Family::Ipv4,
            protocol,
            local: if external == Pool::Local { cluster.clone() } else { Vec::new() },
            cluster,
            affinity_seconds: None,
            frontends: vec![
                frontend(Role::ClusterIp, Some(VIP), 80, Pool::Cluster),
                frontend(Role::ExternalIp, Some("198.51.100.7"), 80, external),
                frontend(Role::NodePort, None, 30080, external),
            ],
        }],
        cluster_ips: vec![VIP.parse().unwrap()],
        local_addresses: targets.iter().map(|target| target.ip()).collect(),
        health_check: None,
    }
}

struct End<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn serving(node: &mut Node, count: usize) -> Vec<SocketAddr> {
    (0..count)
        .map(|_| {
            let pod = node.pod();
            node.serve_tcp(pod, 8080)
        })
        .collect()
}

#[test]
fn services_are_reached_from_pods_node_and_outside() {
    let mut node = Node::make();
    let targets = serving(&mut node, 3);
    let mut plane = node.plane();
    plane.set_service("default/web", &service("default/web", Protocol::Tcp, &targets, Pool::Cluster));
    assert!(node.sync(&mut plane).full);

    // Evenly: a thousand connections over three; the standard deviation is 15.
    let client = node.pod();
    let mut counts = [0; 3];
    node.at(client).namespace.run(|| {
        for _ in 0..1000 {
            let (pod, source) = ask_tcp(&format!("{VIP}:80")).unwrap();
            counts[pod] += 1;
            assert_eq!(source, node.at(client).address.to_string(), "a pod keeps its address");
        }
    });
    assert!(counts.iter().all(|count| (250..=417).contains(count)), "{counts:?}");

    // A pod reaches itself through its service: then the node stands between.
    let own = node.at(0).namespace.run(|| {
        (0..100).find_map(|_| ask_tcp(&format!("{VIP}:80")).ok().filter(|(pod, _)| *pod == 0)).unwrap()
    });
    assert_eq!(own.1, "10.244.0.1");

    // The node itself, at the cluster address and at its node port, but not on loopback.
    node.namespace.run(|| {
        ask_tcp(&format!("{VIP}:80")).unwrap();
        ask_tcp(&format!("{NODE}:30080")).unwrap();
        assert_eq!(ask_tcp("127.0.0.1:30080"), Err(ErrorKind::ConnectionRefused));
    });
    // From outside, masqueraded, since the endpoint might be on another node.
    node.outside.run(|| {
        let (_, source) = ask_tcp(&format!("{NODE}:30080")).unwrap();
        assert_eq!(source, "10.244.0.1");
    });
    support::ip(&["-n", &node.outside.name, "route", "add", "198.51.100.7", "via", NODE]);
    node.outside.run(|| ask_tcp("198.51.100.7:80").unwrap());

    // A port that the service does not have is refused, not routed away; an address of no service gives silence.
    node.at(client).namespace.run(|| {
        assert_eq!(ask_tcp(&format!("{VIP}:81")), Err(ErrorKind::ConnectionRefused));
        assert_eq!(ask_tcp("10.96.9.9:80"), Err(ErrorKind::TimedOut));
    });

    // Policy Local: the source is kept, and pods and node are served all the same.
    plane.set_service("default/web", &service("default/web", Protocol::Tcp, &targets, Pool::Local));
    assert!(!node.sync(&mut plane).full);
    node.outside.run(|| assert_eq!(ask_tcp(&format!("{NODE}:30080")).unwrap().1, OUTSIDE));
    node.namespace.run(|| ask_tcp(&format!("{NODE}:30080")).unwrap());
    node.at(client).namespace.run(|| ask_tcp("198.51.100.7:80").unwrap());
}

#[test]
fn endpoints_come_and_go_in_one_step() {
    let mut node = Node::make();
    let targets = serving(&mut node, 2);
    let client = node.pod();
    let mut plane = node.plane();
    let set = |plane: &mut Plane, targets: &[SocketAddr]| {
        plane.set_service("default/web", &service("default/web", Protocol::Tcp, targets, Pool::Cluster));
    };
    set(&mut plane, &[]);
    node.sync(&mut plane);
    let ask = |node: &Node| node.at(client).namespace.run(|| ask_tcp(&format!("{VIP}:80")));
    assert_eq!(ask(&node), Err(ErrorKind::ConnectionRefused));
    let outside = |node: &Node| node.outside.run(|| ask_tcp(&format!("{NODE}:30080")));
    assert_eq!(outside(&node), Err(ErrorKind::ConnectionRefused));

    // While the rules change to and fro, every connection succeeds.
    set(&mut plane, &targets);
    node.sync(&mut plane);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            node.at(client).namespace.run(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    ask_tcp(&format!("{VIP}:80")).unwrap();
                }
            });
        });
        // Also when an assertion below fails: the client would ask for ever.
        let _end = End(&done);
        for round in 0..20 {
            let all = if round % 2 == 0 { &targets[..1] } else { &targets[..] };
            set(&mut plane, all);
            let change = node.sync(&mut plane);
            assert!(change.elements > 0 && change.full == (round == 11));
            if round == 10 {
                // What a restart does: another plane takes over the same tables. The first finds them changed.
                let mut other = node.plane();
                set(&mut other, all);
                assert!(node.sync(&mut other).full);
            }
        }
    });
    set(&mut plane, &targets[1..]);
    node.sync(&mut plane);
    assert!((0..50).all(|_| ask(&node).unwrap().0 == 1));

    // A table that someone took away is written whole.
    node.nft(&["delete", "table", "ip", "timonel"]);
    set(&mut plane, &targets);
    assert!(node.sync(&mut plane).full);
    ask(&node).unwrap();
    plane.set_service("default/web", &ServiceRules::default());
    node.sync(&mut plane);
    assert!(ask(&node).is_err());
}

#[test]
fn a_sticky_client_returns_to_its_endpoint() {
    let mut node = Node::make();
    let targets = serving(&mut node, 3);
    let (first, second) = (node.pod(), node.pod());
    let mut plane = node.plane();
    let sticky = |targets: &[SocketAddr]| {
        let mut rules = service("default/web", Protocol::Tcp, targets, Pool::Cluster);
        rules.ports[0].affinity_seconds = Some(3600);
        rules
    };
    plane.set_service("default/web", &sticky(&targets));
    node.sync(&mut plane);
    let ask =
        |node: &Node, pod: usize| node.at(pod).namespace.run(|| ask_tcp(&format!("{VIP}:80")).unwrap().0);
    let (one, two) = (ask(&node, first), ask(&node, second));
    assert!((0..30).all(|_| ask(&node, first) == one && ask(&node, second) == two));
    node.outside.run(|| {
        let (pod, _) = ask_tcp(&format!("{NODE}:30080")).unwrap();
        assert!((0..20).all(|_| ask_tcp(&format!("{NODE}:30080")).unwrap().0 == pod));
    });

    // A restart keeps it, and so does the going of another endpoint; the going of its own does not.
    let mut plane = node.plane();
    plane.set_service("default/web", &sticky(&targets));
    assert!(node.sync(&mut plane).full);
    assert!((0..20).all(|_| ask(&node, first) == one));
    let without = |gone: usize| -> Vec<SocketAddr> {
        targets.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, target)| *target).collect()
    };
    plane.set_service("default/web", &sticky(&without((one + 1) % 3)));
    node.sync(&mut plane);
    assert!((0..20).all(|_| ask(&node, first) == one));
    plane.set_service("default/web", &sticky(&without(one)));
    node.sync(&mut plane);
    let other = ask(&node, first);
    assert!(other != one && (0..20).all(|_| ask(&node, first) == other));
    plane.set_service("default/web", &ServiceRules::default());
    node.sync(&mut plane);
    plane.set_service("default/other", &service("default/other", Protocol::Tcp, &targets, Pool::Cluster));
    node.sync(&mut plane);
    assert!(
        !node.nft(&["list", "table", "ip", "timonel"]).contains("affinity"),
        "chains of the gone are deleted"
    );
}

#[test]
fn a_udp_client_is_led_away_from_a_gone_endpoint() {
    let mut node = Node::make();
    let targets: Vec<SocketAddr> = (0..2)
        .map(|_| {
            let pod = node.pod();
            node.serve_udp(pod, 5353)
        })
        .collect();
    let client = node.pod();
    let mut plane = node.plane();
    let set = |plane: &mut Plane, targets: &[SocketAddr]| {
        plane.set_service("default/dns", &service("default/dns", Protocol::Udp, targets, Pool::Cluster));
    };
    set(&mut plane, &targets);
    node.sync(&mut plane);
    let socket = node.at(client).namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let to = format!("{VIP}:80");
    let (first, _) = ask_udp(&socket, &to).unwrap();
    assert!((0..10).all(|_| ask_udp(&socket, &to).unwrap().0 == first), "a flow stays");
    set(&mut plane, &targets[1 - first..2 - first]);
    let change = node.sync(&mut plane);
    let addresses = [NODE.parse().unwrap()];
    let forgotten = node.namespace.run(|| net::conntrack::forget(&change.udp, &addresses)).unwrap();
    assert_eq!(forgotten, 1);
    assert_eq!(ask_udp(&socket, &to).unwrap().0, 1 - first);
}

#[test]
fn a_load_balancer_admits_its_sources_only() {
    let mut node = Node::make();
    let targets = serving(&mut node, 1);
    let mut plane = node.plane();
    let mut rules = service("default/web", Protocol::Tcp, &targets, Pool::Cluster);
    rules.ports[0].frontends[1].role = Role::LoadBalancer;
    rules.ports[0].frontends[1].sources = vec!["203.0.113.0/24".parse().unwrap()];
    plane.set_service("default/web", &rules);
    node.sync(&mut plane);
    support::ip(&["-n", &node.outside.name, "route", "add", "198.51.100.7", "via", NODE]);
    assert_eq!(node.outside.run(|| ask_tcp("198.51.100.7:80")), Err(ErrorKind::TimedOut));
    rules.ports[0].frontends[1].sources.push("192.0.2.0/24".parse().unwrap());
    plane.set_service("default/web", &rules);
    node.sync(&mut plane);
    node.outside.run(|| ask_tcp("198.51.100.7:80").unwrap());
}

#[test]
fn other_tables_are_left_alone() {
    let node = Node::make();
    node.nft(&["add", "table", "ip", "host"]);
    let mut plane = node.plane();
    plane.set_service("default/web", &service("default/web", Protocol::Tcp, &[], Pool::Cluster));
    node.sync(&mut plane);
    node.nft(&["add", "chain", "ip", "timonel", "leftover"]);
    let mut again = node.plane();
    node.sync(&mut again);
    let tables = node.nft(&["list", "tables"]);
    assert!(tables.contains("table ip host") && tables.contains("table ip timonel"), "{tables}");
    assert!(!node.nft(&["list", "table", "ip", "timonel"]).contains("leftover"));
    node.namespace.run(|| net::reset(node.data.path())).unwrap();
    assert_eq!(node.nft(&["list", "tables"]), "table ip host\n");
}

#[test]
fn the_nodes_own_server_at_a_cluster_address_is_reached() {
    let mut node = Node::make();
    let pod = node.pod();
    let address = VIP.parse().unwrap();
    let server = node.namespace.run(|| {
        net::ensure_address_link(net::DNS_LINK, &[address]).unwrap();
        net::ensure_address_link(net::DNS_LINK, &[address]).unwrap();
        UdpSocket::bind((VIP, 80)).unwrap()
    });
    let answer = std::thread::spawn(move || {
        let mut buffer = [0; 8];
        for _ in 0..2 {
            let (_, client) = server.recv_from(&mut buffer).unwrap();
            server.send_to(format!("7 {}", client.ip()).as_bytes(), client).unwrap();
        }
    });
    // The service has no endpoints: what it offers stands on the node itself.
    let mut plane = node.plane();
    plane.set_service(
        "kube-system/kube-dns",
        &service("kube-system/kube-dns", Protocol::Udp, &[], Pool::Cluster),
    );
    node.sync(&mut plane);
    let ask = || ask_udp(&UdpSocket::bind("0.0.0.0:0").unwrap(), &format!("{VIP}:80"));
    assert_eq!(node.at(pod).namespace.run(ask).unwrap(), (7, node.at(pod).address.to_string()));
    assert_eq!(node.namespace.run(ask).unwrap().0, 7);
    answer.join().unwrap();
    let removed = node.namespace.run(|| net::reset(node.data.path())).unwrap();
    assert!(removed.links.contains(&net::DNS_LINK.to_owned()), "{removed:?}");
}
