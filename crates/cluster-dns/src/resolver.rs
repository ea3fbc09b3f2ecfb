//! The answer to a query: at once from the index or the cache, or later from the host's resolvers.

use crate::cache::{Cache, Hit, Key};
use crate::forward::Forwarder;
use crate::options::Config;
use anyhow::Context;
use services::dns::wire::{self, Query, RCODE_SERVFAIL};
use services::dns::{self, Index, Outcome, Transport};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Time to live of a record used beyond its time, seconds (RFC 8767, 4).
const STALE_TTL_SECONDS: u32 = 30;
/// Records spliced behind an alias at most.
const SPLICED_MAX: u16 = 64;
/// An OPT record without options.
const OPT_BYTES: usize = 11;

/// What to do with a query.
#[derive(Debug)]
pub enum Step {
    /// The response is written.
    Answer,
    /// No response is due.
    Silence,
    /// The host's resolvers have to be asked.
    Ask(Asked),
}

/// A question for the host's resolvers.
#[derive(Debug)]
pub struct Asked {
    pub key: Key,
    /// The response so far, when an alias of the cluster leads to the name asked for.
    alias: Option<Vec<u8>>,
}

pub struct Resolver {
    index: RwLock<Index>,
    ready: AtomicBool,
    cache: Mutex<Cache>,
    forwarder: Forwarder,
}

impl Resolver {
    pub fn new(config: &Config) -> anyhow::Result<Resolver> {
        let index = Index::new(dns::Config {
            domain: config.domain.clone(),
            ttl_seconds: config.ttl_seconds,
            server_addresses: config.addresses.clone(),
            reverse_ranges: config.reverse_ranges.clone(),
        })
        .with_context(|| format!("--cluster-domain: {:?} is no DNS name", config.domain))?;
        let own: Vec<IpAddr> = config.addresses.iter().chain(&config.more_addresses).copied().collect();
        Ok(Resolver {
            index: RwLock::new(index),
            ready: AtomicBool::new(false),
            cache: Mutex::new(Cache::default()),
            forwarder: Forwarder::new(config.resolv_conf.clone(), own, config.port),
        })
    }

    /// Notes that the index is complete; true the first time.
    pub fn set_ready(&self) -> bool {
        !self.ready.swap(true, Ordering::Relaxed)
    }

    pub fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub fn change(&self, change: impl FnOnce(&mut Index)) {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Answers what can be answered without waiting.
    pub fn answer(&self, query: &[u8], transport: Transport, out: &mut Vec<u8>, now: Instant) -> Step {
        let outcome =
            self.index.read().unwrap_or_else(PoisonError::into_inner).respond(query, transport, out);
        if !self.ready() && matches!(outcome, Outcome::Answered | Outcome::Chase(_)) {
            fail(query, out);
            return Step::Answer;
        }
        let (name, alias) = match outcome {
            Outcome::Answered => return Step::Answer,
            Outcome::Drop => return Step::Silence,
            Outcome::Forward => (None, None),
            Outcome::Chase(target) => (Some(target), Some(std::mem::take(out))),
        };
        let Ok(question) = wire::read_query(query) else { return Step::Silence };
        let name = name.unwrap_or_else(|| question.name.to_ascii_lowercase());
        let key = Key {
            name: name.into(),
            qtype: question.qtype,
            qclass: question.qclass,
            dnssec_ok: question.edns.is_some_and(|edns| edns.dnssec_ok),
            checking_disabled: query[3] & 0x10 != 0,
        };
        let hit = self.cached(&key, now);
        let asked = Asked { key, alias };
        match hit {
            Some(hit) if !hit.stale => {
                write(&question, &asked, &hit, transport, out);
                Step::Answer
            }
            _ => Step::Ask(asked),
        }
    }

    fn cached(&self, key: &Key, now: Instant) -> Option<Hit> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key, now)
    }

    /// Answers a query for which [`Resolver::answer`] said to ask. Always writes a response.
    pub async fn ask(&self, query: &[u8], asked: &Asked, transport: Transport, out: &mut Vec<u8>) {
        let reply = self.forwarder.ask(&asked.key).await;
        let now = Instant::now();
        let hit = match reply {
            Some(reply) => {
                let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                cache.insert(asked.key.clone(), reply.clone(), now);
                Some(Hit { reply, age: Duration::ZERO, stale: false })
            }
            None => self.cached(&asked.key, now),
        };
        match (hit, wire::read_query(query)) {
            (Some(hit), Ok(question)) => write(&question, asked, &hit, transport, out),
            _ => fail(query, out),
        }
    }
}

/// SERVFAIL, for now: the client is to ask again or ask another.
pub fn fail(query: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let Ok(question) = wire::read_query(query) else { return };
    header(&question, out);
    out[3] |= RCODE_SERVFAIL;
}

fn header(question: &Query<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&question.id.to_be_bytes());
    out.extend_from_slice(&[0x80 | u8::from(question.recursion_desired), 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(question.name);
    out.extend_from_slice(&question.qtype.to_be_bytes());
    out.extend_from_slice(&question.qclass.to_be_bytes());
}

fn write(question: &Query<'_>, asked: &Asked, hit: &Hit, transport: Transport, out: &mut Vec<u8>) {
    match &asked.alias {
        Some(alias) => splice(alias, &asked.key, hit, limit(question, transport), out),
        None => plain(question, hit, transport, out),
    }
}

fn limit(question: &Query<'_>, transport: Transport) -> usize {
    match (transport, question.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => wire::UDP_BYTES_PLAIN,
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.udp_bytes).clamp(wire::UDP_BYTES_PLAIN, wire::UDP_BYTES_MAX)
        }
    }
}

/// The reply as it came, its times to live reduced by its age.
fn plain(question: &Query<'_>, hit: &Hit, transport: Transport, out: &mut Vec<u8>) {
    header(question, out);
    let reply = &hit.reply;
    out[3] |= reply.rcode | if reply.authentic { 0x20 } else { 0 };
    let body = out.len();
    let reserved = if question.edns.is_some() { OPT_BYTES } else { 0 };
    let mut counts = reply.counts;
    if body + reply.records.len() + reserved <= limit(question, transport) {
        out.extend_from_slice(&reply.records);
        let mut at = body;
        while let Some(record) = wire::record_at(out, at) {
            let ttl = remaining(record.ttl, hit);
            out[record.ttl_at..record.ttl_at + 4].copy_from_slice(&ttl.to_be_bytes());
            at = record.end;
        }
    } else {
        // The client asks again over TCP.
        out[2] |= 0x02;
        counts = [0; 3];
    }
    if question.edns.is_some() {
        out.push(0);
        out.extend_from_slice(&wire::TYPE_OPT.to_be_bytes());
        out.extend_from_slice(&(wire::UDP_BYTES_MAX as u16).to_be_bytes());
        let dnssec_ok = if question.edns.is_some_and(|edns| edns.dnssec_ok) { 0x80 } else { 0 };
        out.extend_from_slice(&[0, 0, dnssec_ok, 0, 0, 0]);
        counts[2] += 1;
    }
    for (at, count) in counts.iter().enumerate() {
        out[6 + 2 * at..8 + 2 * at].copy_from_slice(&count.to_be_bytes());
    }
}

fn remaining(ttl: u32, hit: &Hit) -> u32 {
    if hit.stale {
        return STALE_TTL_SECONDS;
    }
    ttl.saturating_sub(u32::try_from(hit.age.as_secs()).unwrap_or(u32::MAX))
}

/// An alias of the cluster with the records of its target behind it. Names are written out, since the reply's
/// compression counts from another question.
fn splice(alias: &[u8], target: &Key, hit: &Hit, limit: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(alias);
    // The index ends a message with its OPT record when the query had one.
    let has_opt = out[10..12] != [0, 0];
    let opt = if has_opt { out.split_off(out.len() - OPT_BYTES) } else { Vec::new() };
    let limit = limit - opt.len();
    let mut message = vec![0; wire::HEADER_BYTES];
    message.extend_from_slice(&target.name);
    message.extend_from_slice(&target.qtype.to_be_bytes());
    message.extend_from_slice(&target.qclass.to_be_bytes());
    let (mut at, mut added) = (message.len(), 0u16);
    message.extend_from_slice(&hit.reply.records);
    for _ in 0..hit.reply.counts[0].min(SPLICED_MAX) {
        let Some(record) = wire::record_at(&message, at) else { break };
        at = record.end;
        let data = match record.rtype {
            wire::TYPE_CNAME => wire::expand_name(&message, record.data),
            wire::TYPE_A | wire::TYPE_AAAA => Some(message[record.data..record.end].to_vec()),
            _ => None,
        };
        let (Some(owner), Some(data)) = (wire::expand_name(&message, record.start), data) else { continue };
        if out.len() + owner.len() + 10 + data.len() > limit {
            out[2] |= 0x02;
            break;
        }
        wire::put_record(out, &owner, record.rtype, remaining(record.ttl, hit), &data);
        added += 1;
    }
    let answers = u16::from_be_bytes([out[6], out[7]]) + added;
    out[6..8].copy_from_slice(&answers.to_be_bytes());
    // RFC 6604: the code speaks of the last name.
    out[3] |= hit.reply.rcode;
    out.extend_from_slice(&opt);
}
