//! From a query's bytes to a response's bytes: which record answers, NXDOMAIN or no data, what fits.

use super::index::Index;
use super::records::{Answer, Records, undashed};
use super::wire::{
    self, Fault, HEADER_BYTES, QUESTION_POINTER, Query, RCODE_FORMERR, RCODE_NOERROR, RCODE_NOTIMP,
    RCODE_NXDOMAIN, TYPE_A, TYPE_AAAA, TYPE_CNAME, TYPE_NS, TYPE_OPT, TYPE_PTR, TYPE_SOA, TYPE_SRV, TYPE_TXT,
    UDP_BYTES_MAX, UDP_BYTES_PLAIN,
};
use std::net::IpAddr;

/// How many names of the cluster may stand for one another before an answer is final.
const CHASE_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What became of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The response is complete.
    Answered,
    /// The name is not the cluster's: whoever serves it is to be asked. Nothing was written.
    Forward,
    /// The response so far ends with an alias to a name (wire form) outside the cluster: that name's records belong
    /// behind it.
    Chase(Vec<u8>),
    /// Not a query: no response is sent.
    Drop,
}

/// What stands at a name.
enum Found<'a> {
    /// Records of the type asked for, with the records that spare the next question.
    Records(&'a Answer, Option<&'a Answer>),
    Made(Answer),
    Alias(&'a [u8], &'a Answer),
    /// The name exists, but has nothing of this type.
    NoData,
    NoName,
}

impl Index {
    /// Answers `query` into `out`, which is cleared first. Address records are rotated by the query's id, so that
    /// clients that take the first one spread over all.
    pub fn respond(&self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> Outcome {
        out.clear();
        let question = match wire::read_query(query) {
            Ok(question) => question,
            Err(Fault::Silent) => return Outcome::Drop,
            Err(fault) => {
                let rcode = if fault == Fault::Unsupported { RCODE_NOTIMP } else { RCODE_FORMERR };
                refuse(query, rcode, out);
                return Outcome::Answered;
            }
        };
        let mut lower = [0u8; 256];
        let name = lower_case(question.name, &mut lower);
        let mut labels: [&[u8]; 128] = [b""; 128];
        let mut count = 0;
        for label in wire::labels(name).take(labels.len()) {
            labels[count] = label;
            count += 1;
        }
        let labels = &labels[..count];
        if question.edns.is_some_and(|edns| edns.version != 0) {
            return bad_version(&question, out);
        }
        let limit = limit(&question, transport);
        match labels.strip_zone(&self.zone) {
            Some(relative) => self.in_zone(&question, relative, limit, out),
            None => self.in_reverse(&question, labels, limit, out),
        }
    }

    fn in_zone(&self, question: &Query<'_>, relative: &[&[u8]], limit: usize, out: &mut Vec<u8>) -> Outcome {
        let mut writer = Writer::start(question, limit, out);
        let zone_at = HEADER_BYTES + relative.iter().map(|label| label.len() + 1).sum::<usize>();
        let mut found = self.lookup(relative, question.qtype);
        let mut owner = QUESTION_POINTER;
        let mut next: Vec<u8>;
        for _ in 0..CHASE_MAX {
            let Found::Alias(target, record) = found else { break };
            writer.answer(record, owner, 0);
            if question.qtype == TYPE_CNAME || writer.truncated {
                writer.finish(RCODE_NOERROR, None, self);
                return Outcome::Answered;
            }
            // The target ends the message so far.
            owner = pointer(writer.out.len() - target.len());
            next = target.to_vec();
            let labels: Vec<&[u8]> = wire::labels(&next).collect();
            let Some(relative) = labels.as_slice().strip_zone(&self.zone) else {
                writer.finish(RCODE_NOERROR, None, self);
                return Outcome::Chase(next);
            };
            found = self.lookup(relative, question.qtype);
        }
        let zone = pointer(zone_at);
        match found {
            Found::Records(answer, additional) => {
                writer.answer(answer, owner, usize::from(question.id));
                if let Some(additional) = additional {
                    writer.additional(additional);
                }
                writer.finish(RCODE_NOERROR, None, self);
            }
            Found::Made(answer) => {
                writer.answer(&answer, owner, 0);
                writer.finish(RCODE_NOERROR, None, self);
            }
            Found::NoData | Found::Alias(..) => writer.finish(RCODE_NOERROR, Some(zone), self),
            Found::NoName => writer.finish(RCODE_NXDOMAIN, Some(zone), self),
        }
        Outcome::Answered
    }

    fn in_reverse(&self, question: &Query<'_>, labels: &[&[u8]], limit: usize, out: &mut Vec<u8>) -> Outcome {
        let Some(address) = wire::reverse_address(labels) else { return Outcome::Forward };
        let names = self.reverse.get(&address);
        let owned = self.config.reverse_ranges.iter().any(|range| range.contains(&address));
        if names.is_none() && !owned {
            return Outcome::Forward;
        }
        let mut writer = Writer::start(question, limit, out);
        // The zone that the absence is stated for is the last two labels.
        let zone_at =
            HEADER_BYTES + labels[..labels.len() - 2].iter().map(|label| label.len() + 1).sum::<usize>();
        match names {
            Some(names) if question.qtype == TYPE_PTR => {
                let mut bytes = Vec::new();
                for name in names.values() {
                    wire::put_record(&mut bytes, &QUESTION_POINTER, TYPE_PTR, self.config.ttl_seconds, name);
                }
                let answer = Answer { count: names.len() as u16, bytes: bytes.into() };
                writer.answer(&answer, QUESTION_POINTER, 0);
                writer.finish(RCODE_NOERROR, None, self);
            }
            Some(_) => writer.finish(RCODE_NOERROR, Some(pointer(zone_at)), self),
            None => writer.finish(RCODE_NXDOMAIN, Some(pointer(zone_at)), self),
        }
        Outcome::Answered
    }

    /// What stands at a name of the domain; `relative` is the name without the domain, outermost label last.
    fn lookup(&self, relative: &[&[u8]], qtype: u16) -> Found<'_> {
        match relative {
            [] => self.apex(qtype),
            [b"dns-version"] if qtype == TYPE_TXT => Found::Made(self.version()),
            [b"dns-version"] | [b"svc"] | [b"pod"] | [b"dns"] => Found::NoData,
            [b"ns", b"dns"] => self.address_records(&self.config.server_addresses, qtype),
            [host @ .., service, namespace, b"svc"] => {
                let service = text(service);
                match self.namespace(namespace).and_then(|namespace| namespace.services.get(service)) {
                    Some(records) => in_service(records, host, qtype),
                    None => Found::NoName,
                }
            }
            [namespace, b"svc" | b"pod"] => {
                if self.namespace(namespace).is_some() {
                    Found::NoData
                } else {
                    Found::NoName
                }
            }
            // Any address of an existing namespace has such a name, whether or not a pod holds it: what upstream's
            // default calls insecure mode, kept for compatibility.
            [address, namespace, b"pod"] => match (self.namespace(namespace), undashed(text(address))) {
                (Some(_), Some(address)) => self.address_records(&[address], qtype),
                _ => Found::NoName,
            },
            _ => Found::NoName,
        }
    }

    fn namespace(&self, label: &[u8]) -> Option<&super::index::Namespace> {
        self.namespaces.get(text(label))
    }

    fn apex(&self, qtype: u16) -> Found<'_> {
        let data = match qtype {
            TYPE_SOA => &self.soa,
            TYPE_NS => &self.name_server,
            _ => return Found::NoData,
        };
        let mut bytes = Vec::new();
        wire::put_record(&mut bytes, &QUESTION_POINTER, qtype, self.config.ttl_seconds, data);
        Found::Made(Answer { count: 1, bytes: bytes.into() })
    }

    fn version(&self) -> Answer {
        let version = super::SPECIFICATION_VERSION;
        let mut data = vec![version.len() as u8];
        data.extend_from_slice(version.as_bytes());
        let mut bytes = Vec::new();
        wire::put_record(&mut bytes, &QUESTION_POINTER, TYPE_TXT, self.config.ttl_seconds, &data);
        Answer { count: 1, bytes: bytes.into() }
    }

    fn address_records(&self, addresses: &[IpAddr], qtype: u16) -> Found<'_> {
        let mut bytes = Vec::new();
        let mut count = 0;
        for address in addresses {
            if (qtype == TYPE_A && address.is_ipv4()) || (qtype == TYPE_AAAA && address.is_ipv6()) {
                wire::put_address(&mut bytes, &QUESTION_POINTER, self.config.ttl_seconds, address);
                count += 1;
            }
        }
        if count == 0 { Found::NoData } else { Found::Made(Answer { count, bytes: bytes.into() }) }
    }
}

fn in_service<'a>(records: &'a Records, host: &[&[u8]], qtype: u16) -> Found<'a> {
    let filled = |answer: Option<&'a Answer>| match answer {
        Some(answer) if answer.count > 0 => Found::Records(answer, None),
        _ => Found::NoData,
    };
    match host {
        [] => match &records.cname {
            Some((target, record)) => Found::Alias(target, record),
            None => filled(records.addresses.get(qtype)),
        },
        [port, protocol] => {
            let key = format!("{}.{}", text(port), text(protocol));
            match records.srv.get(key.as_str()) {
                Some(srv) if qtype == TYPE_SRV => Found::Records(&srv.answer, Some(&srv.additional)),
                Some(_) => Found::NoData,
                None => Found::NoName,
            }
        }
        [one] => {
            let label = text(one);
            if let Some(addresses) = records.hosts.get(label) {
                return filled(addresses.get(qtype));
            }
            // `_tcp` exists when a port stands below it.
            let above = |key: &str| key.split_once('.').is_some_and(|(_, protocol)| protocol == label);
            if records.srv.keys().any(|key| above(key)) { Found::NoData } else { Found::NoName }
        }
        _ => Found::NoName,
    }
}

/// A response under way; sections are written in order.
struct Writer<'a, 'q> {
    out: &'a mut Vec<u8>,
    question: &'a Query<'q>,
    /// Bytes the message may have, the OPT record's set aside.
    limit: usize,
    answers: u16,
    additionals: u16,
    truncated: bool,
}

const OPT_BYTES: usize = 11;

impl<'a, 'q> Writer<'a, 'q> {
    fn start(question: &'a Query<'q>, limit: usize, out: &'a mut Vec<u8>) -> Self {
        out.resize(HEADER_BYTES, 0);
        out.extend_from_slice(question.name);
        out.extend_from_slice(&question.qtype.to_be_bytes());
        out.extend_from_slice(&question.qclass.to_be_bytes());
        let reserved = if question.edns.is_some() { OPT_BYTES } else { 0 };
        Writer { out, question, limit: limit - reserved, answers: 0, additionals: 0, truncated: false }
    }

    /// Appends records under `owner`, starting with the one numbered `turn` modulo their count, as many as fit.
    fn answer(&mut self, answer: &Answer, owner: [u8; 2], turn: usize) {
        let bytes = &answer.bytes;
        let start = start_of(bytes, if answer.count == 0 { 0 } else { turn % usize::from(answer.count) });
        for part in [&bytes[start..], &bytes[..start]] {
            let mut at = 0;
            while let Some(record) = wire::record_at(part, at) {
                if self.out.len() + record.end - record.start > self.limit {
                    self.truncated = true;
                    return;
                }
                self.out.extend_from_slice(&owner);
                self.out.extend_from_slice(&part[record.start + 2..record.end]);
                self.answers += 1;
                at = record.end;
            }
        }
    }

    /// Appends additional records where all fit; leaving them out is no truncation.
    fn additional(&mut self, additional: &Answer) {
        if !self.truncated && self.out.len() + additional.bytes.len() <= self.limit {
            self.out.extend_from_slice(&additional.bytes);
            self.additionals += additional.count;
        }
    }

    /// Closes the message. `absence` is a pointer to the zone's name: the SOA record then states how long the absence
    /// may be remembered.
    fn finish(&mut self, rcode: u8, absence: Option<[u8; 2]>, index: &Index) {
        let mut authorities = 0u16;
        if let Some(zone) = absence {
            let size = 12 + index.soa.len();
            if self.out.len() + size <= self.limit {
                wire::put_record(self.out, &zone, TYPE_SOA, index.config.ttl_seconds, &index.soa);
                authorities = 1;
            }
        }
        if self.question.edns.is_some() {
            put_opt(self.out, 0);
            self.additionals += 1;
        }
        let counts = [1, self.answers, authorities, self.additionals];
        put_header(self.out, self.question, rcode, self.truncated, counts);
    }
}

fn start_of(bytes: &[u8], number: usize) -> usize {
    let mut at = 0;
    for _ in 0..number {
        match wire::record_at(bytes, at) {
            Some(record) => at = record.end,
            None => return 0,
        }
    }
    at
}

fn put_opt(out: &mut Vec<u8>, extended_rcode: u8) {
    out.push(0);
    out.extend_from_slice(&TYPE_OPT.to_be_bytes());
    out.extend_from_slice(&(UDP_BYTES_MAX as u16).to_be_bytes());
    out.extend_from_slice(&[extended_rcode, 0, 0, 0, 0, 0]);
}

fn put_header(out: &mut [u8], question: &Query<'_>, rcode: u8, truncated: bool, counts: [u16; 4]) {
    out[0..2].copy_from_slice(&question.id.to_be_bytes());
    // Response, authoritative; recursion is offered because other names are forwarded.
    out[2] = 0x84 | (u8::from(truncated) << 1) | u8::from(question.recursion_desired);
    out[3] = 0x80 | rcode;
    for (at, count) in counts.iter().enumerate() {
        out[4 + 2 * at..6 + 2 * at].copy_from_slice(&count.to_be_bytes());
    }
}

/// An error without the question, for queries that could not be read.
fn refuse(query: &[u8], rcode: u8, out: &mut Vec<u8>) {
    out.resize(HEADER_BYTES, 0);
    out[0..2].copy_from_slice(&query[0..2]);
    out[2] = 0x80 | (query[2] & 0x79);
    out[3] = 0x80 | rcode;
}

/// RFC 6891, 6.1.3: a version we do not speak is answered with the one we do.
fn bad_version(question: &Query<'_>, out: &mut Vec<u8>) -> Outcome {
    Writer::start(question, UDP_BYTES_PLAIN, out);
    put_opt(out, 1);
    put_header(out, question, RCODE_NOERROR, false, [1, 0, 0, 1]);
    Outcome::Answered
}

fn limit(question: &Query<'_>, transport: Transport) -> usize {
    match (transport, question.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, None) => UDP_BYTES_PLAIN,
        (Transport::Udp, Some(edns)) => usize::from(edns.udp_bytes).clamp(UDP_BYTES_PLAIN, UDP_BYTES_MAX),
    }
}

fn pointer(at: usize) -> [u8; 2] {
    (0xc000 | at as u16).to_be_bytes()
}

/// Labels are compared as text; one that is not UTF-8 is no name of ours.
fn text(label: &[u8]) -> &str {
    std::str::from_utf8(label).unwrap_or("\u{fffd}")
}

fn lower_case<'b>(name: &[u8], buffer: &'b mut [u8; 256]) -> &'b [u8] {
    // Label lengths are below 64, and so are no letters.
    for (to, from) in buffer.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    &buffer[..name.len()]
}

trait StripZone<'a> {
    fn strip_zone(&self, zone: &[Box<[u8]>]) -> Option<&[&'a [u8]]>;
}

impl<'a> StripZone<'a> for [&'a [u8]] {
    /// The labels before `zone`, when the name ends with it.
    fn strip_zone(&self, zone: &[Box<[u8]>]) -> Option<&[&'a [u8]]> {
        let split = self.len().checked_sub(zone.len())?;
        let (relative, tail) = self.split_at(split);
        tail.iter().zip(zone).all(|(label, own)| *label == own.as_ref()).then_some(relative)
    }
}
