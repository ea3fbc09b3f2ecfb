//! A node in a network namespace of its own, with pods attached by the plugin and a machine outside, for tests.
#![allow(dead_code)]

use net::cni::{self, Environment};
use net::netns;
use net::nftables::{Plane, Settings};
use serde_json::{Value, json};
use services::Family;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

pub const NODE: &str = "192.0.2.1";
pub const OUTSIDE: &str = "192.0.2.2";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, deleted when dropped.
pub struct Namespace {
    pub name: String,
    pub file: File,
}

impl Namespace {
    pub fn make(label: &str) -> Namespace {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tml-test-{}-{number}-{label}", std::process::id());
        ip(&["netns", "add", &name]);
        let file = netns::open(&path(&name)).expect("open the namespace");
        Namespace { name, file }
    }

    pub fn path(&self) -> PathBuf {
        path(&self.name)
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(&self.file, work).expect("enter the namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

pub fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("run ip");
    assert!(status.success(), "ip {arguments:?}");
}

/// A node with its plugin's folder; fields are dropped in this order.
pub struct Node {
    servers: Vec<Server>,
    pods: Vec<Pod>,
    pub outside: Namespace,
    pub namespace: Namespace,
    pub data: tempfile::TempDir,
}

pub struct Pod {
    pub namespace: Namespace,
    pub address: IpAddr,
    pub result: Value,
}

impl Node {
    pub fn make() -> Node {
        let (namespace, outside) = (Namespace::make("node"), Namespace::make("outside"));
        let data = tempfile::tempdir().expect("make a folder");
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"]);
        ip(&["-n", &outside.name, "link", "set", "lo", "up"]);
        ip(&[
            "-n",
            &namespace.name,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "eth0",
            "netns",
            &outside.name,
        ]);
        for (space, address) in [(&namespace, NODE), (&outside, OUTSIDE)] {
            ip(&["-n", &space.name, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
            ip(&["-n", &space.name, "link", "set", "eth0", "up"]);
        }
        ip(&["-n", &namespace.name, "route", "add", "default", "via", OUTSIDE]);
        // Whether bridges translate addresses themselves is the host's choice: every other node has it.
        if NUMBER.load(Ordering::Relaxed) % 4 < 2 {
            let _ = namespace.run(|| std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0"));
        }
        Node { servers: Vec::new(), pods: Vec::new(), outside, namespace, data }
    }

    pub fn config(&self, version: &str, ports: Value) -> Value {
        json!({
            "cniVersion": version, "name": "timonel", "type": "timonel-cni", "dataDir": self.data.path(),
            "subnets": ["10.244.0.0/24"], "clusterCIDRs": ["10.244.0.0/16"], "serviceCIDRs": ["10.96.0.0/16"],
            "runtimeConfig": {"portMappings": ports},
        })
    }

    pub fn cni(&self, command: &str, id: &str, netns: &str, config: &Value) -> (i32, Value) {
        let environment = Environment {
            command: command.into(),
            container_id: id.into(),
            netns: netns.into(),
            ifname: "eth0".into(),
        };
        let (code, text) = self.namespace.run(|| cni::run(&environment, config.to_string().as_bytes()));
        (code, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// Attaches a pod and returns its number.
    pub fn pod(&mut self) -> usize {
        self.pod_with_ports(json!([]))
    }

    pub fn pod_with_ports(&mut self, ports: Value) -> usize {
        let number = self.pods.len();
        let namespace = Namespace::make("pod");
        let netns = namespace.path().display().to_string();
        let (code, result) = self.cni("ADD", &format!("pod-{number}"), &netns, &self.config("1.0.0", ports));
        assert_eq!(code, 0, "{result}");
        let address = result["ips"][0]["address"].as_str().expect("an address");
        let address = address.split('/').next().expect("a prefix").parse().expect("an address");
        self.pods.push(Pod { namespace, address, result });
        number
    }

    pub fn at(&self, number: usize) -> &Pod {
        &self.pods[number]
    }

    /// Starts a TCP server in a pod that answers each connection with the pod's number and the client's address.
    pub fn serve_tcp(&mut self, number: usize, port: u16) -> SocketAddr {
        let at = SocketAddr::new(self.pods[number].address, port);
        let listener =
            self.pods[number].namespace.run(|| TcpListener::bind(("0.0.0.0", port))).expect("listen");
        listener.set_nonblocking(true).expect("do not block");
        self.servers.push(Server::start(move || {
            let Ok((mut stream, client)) = listener.accept() else { return false };
            let _ = stream.write_all(format!("{number} {}", client.ip()).as_bytes());
            true
        }));
        at
    }

    pub fn serve_udp(&mut self, number: usize, port: u16) -> SocketAddr {
        let at = SocketAddr::new(self.pods[number].address, port);
        let socket = self.pods[number].namespace.run(|| UdpSocket::bind(("0.0.0.0", port))).expect("bind");
        socket.set_nonblocking(true).expect("do not block");
        self.servers.push(Server::start(move || {
            let mut buffer = [0; 64];
            let Ok((_, client)) = socket.recv_from(&mut buffer) else { return false };
            let _ = socket.send_to(format!("{number} {}", client.ip()).as_bytes(), client);
            true
        }));
        at
    }

    /// A plane whose syncs are run by [`Node::sync`].
    pub fn plane(&self) -> Plane {
        let settings = Settings {
            cluster_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
            service_cidrs: vec!["10.96.0.0/16".parse().expect("a range")],
            node_port_addresses: vec![NODE.parse().expect("an address")],
            ..Settings::default()
        };
        Plane::new(settings, &Family::ALL)
    }

    pub fn sync(&self, plane: &mut Plane) -> net::nftables::Change {
        self.namespace.run(|| plane.sync()).expect("apply the rules")
    }

    pub fn nft(&self, arguments: &[&str]) -> String {
        let output = self.namespace.run(|| Command::new("nft").args(arguments).output()).expect("run nft");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(mut step: impl FnMut() -> bool + Send + 'static) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !step() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        Server { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// What a server answered: its pod and the client's address as it saw it.
pub type Answer = Result<(usize, String), std::io::ErrorKind>;

fn parse(text: &str) -> Answer {
    let (number, client) = text.split_once(' ').ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((number.parse().expect("a number"), client.to_owned()))
}

/// Connects from the calling thread's namespace.
pub fn ask_tcp(to: &str) -> Answer {
    let to: SocketAddr = to.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("set a time limit");
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    parse(&text)
}

pub fn ask_udp(socket: &UdpSocket, to: &str) -> Answer {
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("set a time limit");
    socket.send_to(b"?", to).map_err(|error| error.kind())?;
    let mut buffer = [0; 64];
    let size = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    parse(std::str::from_utf8(&buffer[..size]).expect("text"))
}
