//! The server against a resolver of the test's own, both in a network namespace of the test's own.

use crate::options::Config;
use crate::resolver::Resolver;
use crate::serve;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SERVER: &str = "127.0.0.10";

/// Runs `work` in a fresh namespace with loopback, which ends with its last thread.
fn in_namespace(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            net::netns::leave_for_new().expect("make a network namespace");
            let mut socket = net::netlink::Socket::route().unwrap();
            let index = socket.link("lo").unwrap().unwrap().index;
            socket.set_up(index).unwrap();
            work();
        });
        thread.join().unwrap();
    });
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message
}

/// What the outside says: `big` needs TCP, `none` does not exist, all others have an address.
fn outside(query: &Message, tcp: bool) -> Vec<u8> {
    let asked = query.queries[0].clone();
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.add_query(asked.clone());
    let name = asked.name().to_string();
    let mut add = |data: RData| message.answers.push(Record::from_rdata(asked.name().clone(), 60, data));
    match name.as_str() {
        "none.example.com." => message.metadata.response_code = ResponseCode::NXDomain,
        "big.example.com." if tcp => {
            (0..40).for_each(|number| add(RData::TXT(TXT::new(vec![format!("{number:050}")]))))
        }
        "big.example.com." => message.metadata.truncation = true,
        _ => add(RData::A(A::new(192, 0, 2, 80))),
    }
    message.to_vec().unwrap()
}

/// A resolver at the usual port; counts the questions over UDP.
fn resolver_of_the_host() -> Arc<AtomicUsize> {
    let udp = UdpSocket::bind("127.0.0.53:53").unwrap();
    let tcp = TcpListener::bind("127.0.0.53:53").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((size, from)) = udp.recv_from(&mut buffer) {
            let query = Message::from_vec(&buffer[..size]).unwrap();
            if query.queries[0].name().to_string() == "quit." {
                return;
            }
            counter.fetch_add(1, Ordering::Relaxed);
            // Long enough for equal questions to meet.
            std::thread::sleep(Duration::from_millis(50));
            udp.send_to(&outside(&query, false), from).unwrap();
        }
    });
    std::thread::spawn(move || {
        let (mut stream, _) = tcp.accept().unwrap();
        let mut size = [0; 2];
        stream.read_exact(&mut size).unwrap();
        let mut buffer = vec![0; usize::from(u16::from_be_bytes(size))];
        stream.read_exact(&mut buffer).unwrap();
        let answer = outside(&Message::from_vec(&buffer).unwrap(), true);
        stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    });
    asked
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect((SERVER, 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 4096];
    let size = socket.recv(&mut buffer).unwrap();
    let message = Message::from_vec(&buffer[..size]).unwrap();
    assert_eq!(message.metadata.id, 77);
    message
}

fn ask(name: &str, kind: RecordType) -> Message {
    let socket = client();
    socket.send(&query(name, kind).to_vec().unwrap()).unwrap();
    receive(&socket)
}

fn ask_tcp(name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect((SERVER, 53)).unwrap();
    let bytes = query(name, kind).to_vec().unwrap();
    stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut size = [0; 2];
    stream.read_exact(&mut size).unwrap();
    let mut buffer = vec![0; usize::from(u16::from_be_bytes(size))];
    stream.read_exact(&mut buffer).unwrap();
    Message::from_vec(&buffer).unwrap()
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect()
}

#[test]
fn names_of_the_cluster_are_answered_and_others_asked_for() {
    in_namespace(|| {
        let asked = resolver_of_the_host();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = std::env::temp_dir().join(format!("cluster-dns-test-{}", std::process::id()));
        std::fs::write(&folder, format!("nameserver {SERVER}\nnameserver 127.0.0.53\n")).unwrap();
        let config = Config {
            addresses: vec![SERVER.parse().unwrap()],
            more_addresses: vec![],
            port: 53,
            domain: "cluster.local".into(),
            reverse_ranges: vec![],
            resolv_conf: folder.clone(),
            ttl_seconds: 5,
            ready_address: None,
        };
        let resolver = Arc::new(Resolver::new(&config).unwrap());
        let token = CancellationToken::new();
        let server = resolver.clone();
        runtime.block_on(async {
            for address in config.listeners() {
                serve::udp(address, server.clone(), token.clone()).unwrap();
                serve::tcp(address, server.clone(), token.clone()).await.unwrap();
            }
            // Blocking clients in their own thread, in the same namespace: threads inherit it.
            tokio::task::spawn_blocking(move || converse(&resolver, &asked)).await.unwrap();
            token.cancel();
        });
        std::fs::remove_file(folder).unwrap();
    });
}

fn converse(resolver: &Resolver, asked: &AtomicUsize) {
    let own = "web.shop.svc.cluster.local.";
    assert_eq!(
        ask(own, RecordType::A).metadata.response_code,
        ResponseCode::ServFail,
        "nothing is known yet"
    );
    resolver.change(|index| {
        for (name, spec) in [
            ("web", r#"{"clusterIP":"10.96.0.20"}"#),
            ("out", r#"{"type":"ExternalName","externalName":"www.example.com"}"#),
        ] {
            let text = format!(r#"{{"metadata":{{"name":"{name}","namespace":"shop"}},"spec":{spec}}}"#);
            index.insert_service(&api::codec::from_json(text.as_bytes()).unwrap(), &[]);
        }
    });
    assert!(resolver.set_ready());
    assert_eq!(data(&ask(own, RecordType::A)), ["web.shop.svc.cluster.local. 10.96.0.20"]);
    assert_eq!(data(&ask_tcp(own, RecordType::A)), ["web.shop.svc.cluster.local. 10.96.0.20"]);

    // Many ask the same at once: the host's resolver is asked once, then the cache answers.
    let clients: Vec<UdpSocket> = (0..20).map(|_| client()).collect();
    let bytes = query("www.example.com.", RecordType::A).to_vec().unwrap();
    for client in &clients {
        client.send(&bytes).unwrap();
    }
    for client in &clients {
        assert_eq!(data(&receive(client)), ["www.example.com. 192.0.2.80"]);
    }
    assert_eq!(
        data(&ask("out.shop.svc.cluster.local.", RecordType::A)),
        ["out.shop.svc.cluster.local. www.example.com.", "www.example.com. 192.0.2.80",]
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1);

    assert_eq!(ask("none.example.com.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    let cut = ask("big.example.com.", RecordType::TXT);
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(ask_tcp("big.example.com.", RecordType::TXT).answers.len(), 40);

    // Without the host's resolver what is known is still answered; what is not fails.
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(&query("quit.", RecordType::A).to_vec().unwrap(), "127.0.0.53:53")
        .unwrap();
    assert_eq!(data(&ask("www.example.com.", RecordType::A)), ["www.example.com. 192.0.2.80"]);
    assert_eq!(ask("other.example.com.", RecordType::A).metadata.response_code, ResponseCode::ServFail);
}
