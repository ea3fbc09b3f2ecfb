//! Measures the data plane and the DNS index at size, as root, in a network namespace of its own:
//! `cargo run --release -p net --example scale [services]`.

use api::core::v1::{Service, ServicePort};
use api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use net::datagrams::{Batch, Stop};
use net::nftables::{Plane, Settings};
use services::dns::{self, Index, Transport};
use services::{Family, NodeConfig};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() {
    let count: u32 =
        std::env::args().nth(1).map_or(10_000, |text| text.parse().expect("a number of services"));
    net::netns::leave_for_new().expect("make a network namespace: are you root?");
    let mut socket = net::netlink::Socket::route().expect("open a socket");
    let lo = socket.link("lo").expect("find lo").expect("lo is there");
    socket.set_up(lo.index).expect("set lo up");
    proxy(count);
    names(count);
}

fn objects(number: u32, endpoints: &[u32]) -> (Service, EndpointSlice) {
    let mut service = Service::default();
    service.metadata.namespace = "default".into();
    service.metadata.name = format!("service-{number}");
    service.spec.cluster_ip = format!("10.96.{}.{}", number >> 8, number & 255);
    service.spec.ports = vec![ServicePort { name: "http".into(), port: 80, ..Default::default() }];
    let mut slice = EndpointSlice::default();
    slice.metadata.namespace = "default".into();
    slice.metadata.name = format!("service-{number}-abcde");
    slice.metadata.labels.insert(services::SERVICE_NAME_LABEL.into(), service.metadata.name.clone());
    slice.ports = vec![EndpointPort { name: Some("http".into()), port: Some(8080), ..Default::default() }];
    slice.endpoints = endpoints
        .iter()
        .map(|at| {
            let number = number * 4 + at;
            let address = format!("10.{}.{}.{}", 128 + (number >> 16), (number >> 8) & 255, number & 255);
            Endpoint { addresses: vec![address], node_name: Some("there".into()), ..Default::default() }
        })
        .collect();
    (service, slice)
}

fn proxy(count: u32) {
    let node = NodeConfig { node_name: "here".into(), zone: String::new() };
    let all: Vec<_> = (0..count).map(|number| objects(number, &[0, 1])).collect();
    let settings =
        Settings { cluster_cidrs: vec!["10.128.0.0/9".parse().expect("a range")], ..Settings::default() };
    let before = resident_kib();
    let started = Instant::now();
    let ruleset = services::ruleset(all.iter().map(|pair| &pair.0), all.iter().map(|pair| &pair.1), &node);
    let decided = started.elapsed();
    let mut plane = Plane::new(settings.clone(), &[Family::Ipv4]);
    plane.replace(&ruleset);
    let compiled = started.elapsed() - decided;
    let change = plane.sync().expect("apply");
    println!(
        "{count} services x 2: rules {decided:?}, elements {compiled:?}, first sync {:?} ({} elements), +{} KiB resident",
        started.elapsed() - decided - compiled,
        change.elements,
        resident_kib() - before
    );
    let mut again = Plane::new(settings, &[Family::Ipv4]);
    let started = Instant::now();
    again.replace(&ruleset);
    again.sync().expect("apply");
    println!("restart over the same table: {:?}", started.elapsed());

    let mut times: Vec<Duration> = (0..1000)
        .map(|round| {
            let number = (round * 7919) % count;
            let (service, slice) = objects(number, if round % 2 == 0 { &[0] } else { &[0, 1, 2] });
            let started = Instant::now();
            let rules = services::service_rules(&service, &[&slice], &node);
            again.set_service(&format!("default/service-{number}"), &rules);
            again.sync().expect("apply");
            started.elapsed()
        })
        .collect();
    times.sort();
    println!("one service changed: p50 {:?}, p99 {:?}, worst {:?}", times[500], times[990], times[999]);
}

fn names(count: u32) {
    let mut index = Index::new(dns::Config {
        domain: "cluster.local".into(),
        ttl_seconds: 5,
        server_addresses: vec![],
        reverse_ranges: vec![],
    })
    .expect("a domain");
    let before = resident_kib();
    for number in 0..count {
        let (service, slice) = objects(number, &[0, 1]);
        index.insert_service(&service, &[&slice]);
    }
    println!("DNS index of {count} services: +{} KiB resident", resident_kib() - before);
    let queries: Vec<Vec<u8>> = (0..1000u32)
        .map(|number| {
            let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            let name = format!("service-{}.default.svc.cluster.local", number * 7 % count);
            query.extend(dns::wire::name(&name).expect("a name"));
            query.extend([0, 1, 0, 1]);
            query
        })
        .collect();
    let mut out = Vec::with_capacity(512);
    let started = Instant::now();
    let rounds = 1_000_000;
    for round in 0..rounds {
        index.respond(&queries[round % queries.len()], Transport::Udp, &mut out);
    }
    println!("an answer from the index: {:?}", started.elapsed() / rounds as u32);

    // The server's loop on one thread, a client that keeps 256 queries under way on another.
    let server = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let to = server.local_addr().expect("an address");
    let (stop, done, answered) = (Stop::new().expect("an event"), AtomicBool::new(false), AtomicU64::new(0));
    let mut cpu = Duration::ZERO;
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut batch = Batch::default();
            while let Ok(received @ 1..) = batch.receive(&server, &stop) {
                let mut replies = Vec::with_capacity(received);
                for number in 0..received {
                    let mut out = Vec::with_capacity(512);
                    index.respond(batch.bytes(number), Transport::Udp, &mut out);
                    replies.push((number, out));
                }
                batch.send(&server, &replies);
            }
            thread_cpu()
        });
        scope.spawn(|| {
            let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
            client.connect(to).expect("connect");
            client.set_read_timeout(Some(Duration::from_millis(100))).expect("set a limit");
            let mut buffer = [0; 2048];
            let mut under_way = 0;
            let mut next = queries.iter().cycle();
            while !done.load(Ordering::Relaxed) {
                while under_way < 256 {
                    client.send(next.next().expect("endless")).expect("send");
                    under_way += 1;
                }
                match client.recv(&mut buffer) {
                    Ok(_) => {
                        under_way -= 1;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => under_way = 0,
                }
            }
        });
        std::thread::sleep(Duration::from_secs(3));
        done.store(true, Ordering::Relaxed);
        stop.stop().expect("stop");
        cpu = serving.join().expect("the server ends");
    });
    let answered = answered.load(Ordering::Relaxed);
    let each = cpu.as_secs_f64() / answered as f64;
    println!(
        "over UDP loopback: {} answers/s (bounded by the client); {:.2} us of the server's CPU each = {:.0}/s per core",
        answered / 3,
        each * 1e6,
        1.0 / each
    );
}

fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0))
}

fn resident_kib() -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
