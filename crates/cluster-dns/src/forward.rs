//! Asks the host's resolvers: each question once at a time, within bounds, and never ourselves.

use crate::cache::{Key, Reply};
use services::dns::wire::{self, HEADER_BYTES, TYPE_OPT, TYPE_SOA, UDP_BYTES_MAX};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

/// Different questions under way at once; beyond it the answer is SERVFAIL.
const QUESTIONS_MAX: usize = 1000;
/// How long one resolver is waited for. Clients commonly wait five seconds in all.
const WAIT: Duration = Duration::from_millis(1500);
/// Resolvers asked for one question, one after the other.
const RESOLVERS_MAX: usize = 3;
/// How long a reading of resolv.conf is relied on without looking whether it changed.
const CONFIG_FRESH: Duration = Duration::from_secs(5);
const RCODE_SERVFAIL: u8 = 2;
const RCODE_REFUSED: u8 = 5;

type Flight = watch::Receiver<Option<Option<Arc<Reply>>>>;

/// The resolvers of resolv.conf, as last read.
#[derive(Default)]
struct Resolvers {
    looked: Option<Instant>,
    modified: Option<SystemTime>,
    list: Vec<SocketAddr>,
}

struct Inner {
    resolv_conf: PathBuf,
    own: Vec<IpAddr>,
    port: u16,
    resolvers: Mutex<Resolvers>,
    /// The resolver that answered last: asked first.
    preferred: AtomicUsize,
    flights: Mutex<HashMap<Key, Flight>>,
    room: Semaphore,
}

pub struct Forwarder {
    inner: Arc<Inner>,
}

impl Forwarder {
    /// `own` are the addresses that this server answers at on `port`: a resolv.conf that names them would lead in
    /// circles.
    pub fn new(resolv_conf: PathBuf, own: Vec<IpAddr>, port: u16) -> Forwarder {
        let inner = Inner {
            resolv_conf,
            own,
            port,
            resolvers: Mutex::default(),
            preferred: AtomicUsize::new(0),
            flights: Mutex::default(),
            room: Semaphore::new(QUESTIONS_MAX),
        };
        Forwarder { inner: Arc::new(inner) }
    }

    /// The resolvers' answer; `None` when none gives one. Equal questions at the same time are asked once: should the
    /// resolvers lead back here after all, the circle ends at the question already under way.
    pub async fn ask(&self, key: &Key) -> Option<Arc<Reply>> {
        let mut flight = self.join(key)?;
        let landed = flight.wait_for(Option::is_some).await.ok()?;
        landed.clone().flatten()
    }

    fn join(&self, key: &Key) -> Option<Flight> {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return Some(flight.clone());
        }
        if flights.len() >= QUESTIONS_MAX {
            warn!(limit = QUESTIONS_MAX, "Refused a question: too many are under way");
            return None;
        }
        let (land, flight) = watch::channel(None);
        flights.insert(key.clone(), flight.clone());
        let (inner, key) = (self.inner.clone(), key.clone());
        // On its own, so that it ends whether or not those who wait for it stay.
        tokio::spawn(async move {
            let reply = inner.exchange(&key).await.map(Arc::new);
            inner.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            land.send_replace(Some(reply));
        });
        Some(flight)
    }
}

impl Inner {
    async fn exchange(&self, key: &Key) -> Option<Reply> {
        let _permit = self.room.acquire().await.ok()?;
        let resolvers = self.resolvers();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for turn in 0..resolvers.len().min(RESOLVERS_MAX) {
            let at = (first + turn) % resolvers.len();
            match ask_one(resolvers[at], key).await {
                Ok(reply) if ![RCODE_SERVFAIL, RCODE_REFUSED].contains(&reply.rcode) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Some(reply);
                }
                Ok(reply) => last = Some(reply),
                Err(error) => debug!(resolver = %resolvers[at], %error, "Got no answer from a resolver"),
            }
        }
        last
    }

    fn resolvers(&self) -> Vec<SocketAddr> {
        let mut resolvers = self.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        if resolvers.looked.is_some_and(|looked| looked.elapsed() < CONFIG_FRESH) {
            return resolvers.list.clone();
        }
        resolvers.looked = Some(Instant::now());
        let modified = std::fs::metadata(&self.resolv_conf).and_then(|metadata| metadata.modified()).ok();
        if modified != resolvers.modified || resolvers.list.is_empty() {
            resolvers.modified = modified;
            match std::fs::read_to_string(&self.resolv_conf) {
                Ok(text) => resolvers.list = name_servers(&text, &self.own, self.port),
                Err(error) => {
                    warn!(path = %self.resolv_conf.display(), %error, "Could not read the resolvers")
                }
            }
        }
        resolvers.list.clone()
    }
}

/// The name servers of a resolv.conf, without ourselves.
fn name_servers(text: &str, own: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let mut list = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // A scope, as in fe80::1%eth0, is of no use without its link's index.
        let address =
            words.next().and_then(|word| word.split('%').next()).and_then(|word| word.parse::<IpAddr>().ok());
        let Some(address) = address else { continue };
        if own.contains(&address) && port == 53 {
            warn!(%address, "Left out a resolver of the host: it is this server");
            continue;
        }
        list.push(SocketAddr::new(address, 53));
    }
    list
}

async fn ask_one(resolver: SocketAddr, key: &Key) -> std::io::Result<Reply> {
    let id: u16 = rand::random();
    let query = query(id, key);
    let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    // A port of its own for each question: an answer from elsewhere would have to guess port and number.
    let local: IpAddr =
        if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; 4096];
    let answer = async {
        loop {
            let size = socket.recv(&mut buffer).await?;
            if let Some(read) = read_reply(&buffer[..size], id, key) {
                return Ok::<_, std::io::Error>(read);
            }
        }
    };
    match tokio::time::timeout(WAIT, answer).await.map_err(timed_out)?? {
        Read::Whole(reply) => Ok(reply),
        Read::Truncated => {
            tokio::time::timeout(WAIT, ask_tcp(resolver, &query, id, key)).await.map_err(timed_out)?
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, query: &[u8], id: u16, key: &Key) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(resolver).await?;
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let size = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(size)];
    stream.read_exact(&mut buffer).await?;
    match read_reply(&buffer, id, key) {
        Some(Read::Whole(reply)) => Ok(reply),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

fn query(id: u16, key: &Key) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired; one question, one additional record.
    bytes.extend_from_slice(&[1, if key.checking_disabled { 0x10 } else { 0 }, 0, 1, 0, 0, 0, 0, 0, 1]);
    bytes.extend_from_slice(&key.name);
    bytes.extend_from_slice(&key.qtype.to_be_bytes());
    bytes.extend_from_slice(&key.qclass.to_be_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&TYPE_OPT.to_be_bytes());
    bytes.extend_from_slice(&(UDP_BYTES_MAX as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 0, if key.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    bytes
}

enum Read {
    Whole(Reply),
    Truncated,
}

/// Reads an answer to our question; `None` for anything else.
fn read_reply(bytes: &[u8], id: u16, key: &Key) -> Option<Read> {
    let header = bytes.get(..HEADER_BYTES)?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let question_end = HEADER_BYTES + key.name.len();
    let same = count(0) == id
        && header[2] & 0x80 != 0
        && count(4) == 1
        && bytes.get(HEADER_BYTES..question_end)?.eq_ignore_ascii_case(&key.name)
        && wire::u16_at(bytes, question_end)? == key.qtype;
    if !same {
        return None;
    }
    if header[2] & 0x02 != 0 {
        return Some(Read::Truncated);
    }
    let start = question_end + 4;
    let mut counts = [count(6), count(8), count(10)];
    let (mut at, mut end) = (start, start);
    let (mut ttl, mut absence) = (u32::MAX, None);
    'sections: for section in 0..counts.len() {
        for number in 0..counts[section] {
            let record = wire::record_at(bytes, at)?;
            if section == 2 && record.rtype == TYPE_OPT {
                // Ours is put in its place; records behind it are extras.
                counts[2] = number;
                break 'sections;
            }
            if section == 0 {
                ttl = ttl.min(record.ttl);
            }
            if section == 1 && record.rtype == TYPE_SOA {
                // RFC 2308: the lesser of the record's own time and its last number.
                absence = record
                    .end
                    .checked_sub(4)
                    .and_then(|at| wire::u32_at(bytes, at))
                    .map(|m| m.min(record.ttl));
            }
            at = record.end;
            end = at;
        }
    }
    let rcode = header[3] & 0xf;
    let seconds = match (counts[0], rcode) {
        (1.., 0) => ttl,
        (_, 0 | wire::RCODE_NXDOMAIN) => absence.unwrap_or(0),
        _ => 0,
    };
    Some(Read::Whole(Reply {
        rcode,
        authentic: header[3] & 0x20 != 0,
        counts,
        records: bytes[start..end].to_vec(),
        ttl: Duration::from_secs(u64::from(seconds)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_without_ourselves() {
        let text = "# made by hand\nsearch example.com\nnameserver 10.96.0.10\nnameserver 192.0.2.53\n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver nonsense\n";
        let own = ["10.96.0.10".parse().unwrap()];
        let list: Vec<String> = name_servers(text, &own, 53).iter().map(ToString::to_string).collect();
        assert_eq!(list, ["192.0.2.53:53", "[fe80::1]:53"]);
    }
}
