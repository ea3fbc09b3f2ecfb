//! DNS messages as bytes (RFC 1035, 6891): reading a query, writing names and records.

use std::net::IpAddr;

pub const TYPE_A: u16 = 1;
pub const TYPE_NS: u16 = 2;
pub const TYPE_CNAME: u16 = 5;
pub const TYPE_SOA: u16 = 6;
pub const TYPE_PTR: u16 = 12;
pub const TYPE_TXT: u16 = 16;
pub const TYPE_AAAA: u16 = 28;
pub const TYPE_SRV: u16 = 33;
pub const TYPE_OPT: u16 = 41;
pub const CLASS_IN: u16 = 1;

pub const RCODE_NOERROR: u8 = 0;
pub const RCODE_FORMERR: u8 = 1;
pub const RCODE_SERVFAIL: u8 = 2;
pub const RCODE_NXDOMAIN: u8 = 3;
pub const RCODE_NOTIMP: u8 = 4;

pub const HEADER_BYTES: usize = 12;
/// Largest UDP response without EDNS0.
pub const UDP_BYTES_PLAIN: usize = 512;
/// Largest UDP response we send at all: what passes every path without fragments (DNS flag day 2020).
pub const UDP_BYTES_MAX: usize = 1232;
/// A compression pointer to the question's name, which always follows the header.
pub const QUESTION_POINTER: [u8; 2] = [0xc0, HEADER_BYTES as u8];

const LABELS_MAX: usize = 128;

/// The one question of a query, with what its OPT record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    pub id: u16,
    pub recursion_desired: bool,
    /// The name in wire form, as sent.
    pub name: &'a [u8],
    pub qtype: u16,
    pub qclass: u16,
    /// Set when the query carries an OPT record.
    pub edns: Option<Edns>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub udp_bytes: u16,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// Why bytes are not a query that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not a query at all: answering could only feed a loop.
    Silent,
    Malformed,
    /// Another operation than a query.
    Unsupported,
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Where the name at `at` ends, pointers not followed.
pub fn name_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    for _ in 0..LABELS_MAX {
        let length = *bytes.get(at)? as usize;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + length,
            0xc0.. => return bytes.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
    None
}

/// The name at `at` without compression, lower case not applied.
pub fn expand_name(bytes: &[u8], mut at: usize) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(64);
    for _ in 0..LABELS_MAX {
        let length = *bytes.get(at)? as usize;
        match length {
            0 => {
                name.push(0);
                return (name.len() <= 255).then_some(name);
            }
            1..=63 => {
                name.extend_from_slice(bytes.get(at..at + 1 + length)?);
                at += 1 + length;
            }
            0xc0.. => at = (usize::from(u16_at(bytes, at)?)) & 0x3fff,
            _ => return None,
        }
    }
    None
}

/// Reads a query of exactly one question.
pub fn read_query(bytes: &[u8]) -> Result<Query<'_>, Fault> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Fault::Silent)?;
    if header[2] & 0x80 != 0 {
        return Err(Fault::Silent);
    }
    if (header[2] >> 3) & 0xf != 0 {
        return Err(Fault::Unsupported);
    }
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 {
        return Err(Fault::Malformed);
    }
    let end = name_end(bytes, HEADER_BYTES).ok_or(Fault::Malformed)?;
    let name = &bytes[HEADER_BYTES..end];
    // Nothing precedes the question that a pointer could refer to.
    if name.last() != Some(&0) || name.len() > 255 {
        return Err(Fault::Malformed);
    }
    let qtype = u16_at(bytes, end).ok_or(Fault::Malformed)?;
    let qclass = u16_at(bytes, end + 2).ok_or(Fault::Malformed)?;
    let skipped = u32::from(count(6)) + u32::from(count(8));
    let edns = find_opt(bytes, end + 4, skipped, count(10)).ok_or(Fault::Malformed)?;
    Ok(Query { id: count(0), recursion_desired: header[2] & 1 != 0, name, qtype, qclass, edns })
}

fn find_opt(bytes: &[u8], mut at: usize, skipped: u32, additional: u16) -> Option<Option<Edns>> {
    let mut edns = None;
    for number in 0..skipped + u32::from(additional) {
        let record = record_at(bytes, at)?;
        if number >= skipped && record.rtype == TYPE_OPT {
            let ttl = record.ttl.to_be_bytes();
            edns = Some(Edns { udp_bytes: record.class, version: ttl[1], dnssec_ok: ttl[2] & 0x80 != 0 });
        }
        at = record.end;
    }
    Some(edns)
}

/// A resource record's fixed part and where its parts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub start: usize,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    pub ttl_at: usize,
    pub data: usize,
    pub end: usize,
}

pub fn record_at(bytes: &[u8], start: usize) -> Option<Record> {
    let fixed = name_end(bytes, start)?;
    let data = fixed + 10;
    let end = data + usize::from(u16_at(bytes, fixed + 8)?);
    bytes.get(data..end)?;
    Some(Record {
        start,
        rtype: u16_at(bytes, fixed)?,
        class: u16_at(bytes, fixed + 2)?,
        ttl: u32_at(bytes, fixed + 4)?,
        ttl_at: fixed + 4,
        data,
        end,
    })
}

/// Writes `text`, a dotted name with or without its last dot, in wire form and lower case; `None` where a label is
/// empty or too long, or the whole is.
pub fn name(text: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.strip_suffix('.').unwrap_or(text).split('.') {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    wire.push(0);
    (wire.len() <= 255).then_some(wire)
}

/// A name in dotted text, for logs and tests.
pub fn name_text(wire: &[u8]) -> String {
    let mut text = String::new();
    for label in labels(wire) {
        text.push_str(&String::from_utf8_lossy(label));
        text.push('.');
    }
    if text.is_empty() { ".".into() } else { text }
}

/// The labels of an uncompressed name, outermost last.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = wire;
    std::iter::from_fn(move || {
        let (&length, tail) = rest.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, after) = tail.split_at_checked(usize::from(length))?;
        rest = after;
        Some(label)
    })
}

/// Appends a record. `owner` is a wire name or a pointer.
pub fn put_record(out: &mut Vec<u8>, owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) {
    out.extend_from_slice(owner);
    out.extend_from_slice(&rtype.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends the A or AAAA record of `address`.
pub fn put_address(out: &mut Vec<u8>, owner: &[u8], ttl: u32, address: &IpAddr) {
    match address {
        IpAddr::V4(address) => put_record(out, owner, TYPE_A, ttl, &address.octets()),
        IpAddr::V6(address) => put_record(out, owner, TYPE_AAAA, ttl, &address.octets()),
    }
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for; labels outermost last, lower case.
pub fn reverse_address(labels: &[&[u8]]) -> Option<IpAddr> {
    match labels {
        [octets @ .., b"in-addr", b"arpa"] if octets.len() == 4 => {
            let mut address = [0u8; 4];
            for (octet, label) in address.iter_mut().rev().zip(octets) {
                *octet = std::str::from_utf8(label).ok()?.parse().ok()?;
            }
            Some(IpAddr::from(address))
        }
        [nibbles @ .., b"ip6", b"arpa"] if nibbles.len() == 32 => {
            let mut address = [0u8; 16];
            for (place, label) in nibbles.iter().rev().enumerate() {
                let nibble = (*label.first()? as char).to_digit(16).filter(|_| label.len() == 1)? as u8;
                address[place / 2] |= if place % 2 == 0 { nibble << 4 } else { nibble };
            }
            Some(IpAddr::from(address))
        }
        _ => None,
    }
}
