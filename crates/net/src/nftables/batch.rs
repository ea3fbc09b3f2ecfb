//! A transaction of nf_tables as one netlink batch: everything in it is applied, or nothing.

use super::expression::{Rule, Verdict, number};
use crate::netlink::{self, Attributes, Builder, Socket};
use services::Family;

// From linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const NFGENMSG_BYTES: usize = 4;
/// Elements of one message: their list must fit into an attribute of 64 KiB, and an element takes at most 120 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

pub const SET_IS_MAP: u32 = 0x8;
pub const SET_HAS_TIMEOUT: u32 = 0x10;
pub const SET_IS_DYNAMIC: u32 = 0x20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot talk to nf_tables")]
    Netlink(#[from] netlink::Error),
    #[error("nf_tables refused the transaction at {step}: {}", errno.desc())]
    Refused { step: String, errno: nix::Error },
}

/// The kinds of packets' ways that a base chain can see, with its place among others.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    pub kind: &'static str,
    pub hook: u32,
    pub priority: i32,
}

pub const PREROUTING: u32 = 0;
pub const INPUT: u32 = 1;
pub const FORWARD: u32 = 2;
pub const OUTPUT: u32 = 3;
pub const POSTROUTING: u32 = 4;

/// Types of key and data parts. The kernel only keeps the numbers; nft reads them to print elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Address,
    Protocol,
    Port,
    /// A number that was drawn; nft has no open type for plain numbers, and a mark is one.
    Slot,
}

/// What a set's elements lead to.
#[derive(Clone, Copy, Debug)]
pub enum Data {
    None,
    Verdict,
    /// An address and a port.
    Target,
}

#[derive(Clone, Debug)]
pub struct Set<'a> {
    pub name: &'a str,
    pub key: &'a [Part],
    pub data: Data,
    pub timeout_seconds: Option<u32>,
}

/// An element's data.
pub enum ElementData {
    None,
    Verdict(Verdict),
    Bytes(Vec<u8>),
}

fn key_type(family: Family, parts: &[Part]) -> (u32, u32) {
    let mut kind = 0;
    let mut bytes = 0;
    for part in parts {
        let (number, size) = match (part, family) {
            (Part::Address, Family::Ipv4) => (7, 4),
            (Part::Address, Family::Ipv6) => (8, 16),
            (Part::Protocol, _) => (12, 4),
            (Part::Port, _) => (13, 4),
            (Part::Slot, _) => (19, 4),
        };
        kind = (kind << 6) | number;
        bytes += size;
    }
    // A lone protocol or port would not be padded; no set has one.
    (kind, bytes)
}

/// A transaction under construction, for one table of one family.
pub struct Batch {
    family: Family,
    table: &'static str,
    bytes: Vec<u8>,
    /// What each message does, in order, for the error that names it.
    steps: Vec<String>,
    last: usize,
}

impl Batch {
    pub fn new(family: Family, table: &'static str) -> Batch {
        let mut batch = Batch { family, table, bytes: Vec::with_capacity(4096), steps: Vec::new(), last: 0 };
        batch.frame(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    fn frame(&mut self, kind: u16) {
        // The subsystem, in the field that otherwise names a resource, in network order.
        let fixed = [0, 0, 0, NFNL_SUBSYS_NFTABLES as u8];
        let sequence = self.steps.len() as u32;
        self.bytes.extend(Builder::new(kind, 0, &fixed).finish(0, sequence));
        self.steps.push(String::new());
    }

    fn message(&self, kind: u16, flags: i32) -> Builder {
        Builder::new((NFNL_SUBSYS_NFTABLES << 8) | kind, flags, &[number(self.family), 0, 0, 0])
    }

    fn push(&mut self, message: Builder, step: String) {
        self.last = self.bytes.len();
        let sequence = self.steps.len() as u32;
        self.bytes.extend(message.finish(0, sequence));
        self.steps.push(step);
    }

    pub fn is_empty(&self) -> bool {
        self.steps.len() <= 1
    }

    pub fn add_table(&mut self) {
        let message = self.message(NEWTABLE, libc::NLM_F_CREATE).text(1, self.table);
        self.push(message, "adding the table".into());
    }

    pub fn delete_table(&mut self) {
        let message = self.message(DELTABLE, 0).text(1, self.table);
        self.push(message, "deleting the table".into());
    }

    pub fn add_chain(&mut self, name: &str, base: Option<Base>) {
        let mut message = self.message(NEWCHAIN, libc::NLM_F_CREATE).text(1, self.table).text(3, name);
        if let Some(base) = base {
            message = message
                .nested(4, |hook| {
                    hook.attribute(1, &base.hook.to_be_bytes()).attribute(2, &base.priority.to_be_bytes())
                })
                // NF_ACCEPT.
                .attribute(5, &1u32.to_be_bytes())
                .text(7, base.kind);
        }
        self.push(message, format!("adding chain {name}"));
    }

    pub fn flush_chain(&mut self, name: &str) {
        let message = self.message(DELRULE, 0).text(1, self.table).text(2, name);
        self.push(message, format!("flushing chain {name}"));
    }

    pub fn delete_chain(&mut self, name: &str) {
        let message = self.message(DELCHAIN, 0).text(1, self.table).text(3, name);
        self.push(message, format!("deleting chain {name}"));
    }

    pub fn add_rule(&mut self, chain: &str, rule: &Rule) {
        let message = self
            .message(NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND)
            .text(1, self.table)
            .text(2, chain)
            .nested(4, |list| rule.iter().fold(list, |list, expression| expression.put(list)));
        self.push(message, format!("adding a rule to chain {chain}"));
    }

    pub fn add_set(&mut self, set: &Set<'_>) {
        let (kind, bytes) = key_type(self.family, set.key);
        let mut flags = 0;
        let mut data = None;
        match set.data {
            Data::None => {}
            Data::Verdict => data = Some((0xffff_ff00, 0)),
            Data::Target => data = Some(key_type(self.family, &[Part::Address, Part::Port])),
        }
        if data.is_some() {
            flags |= SET_IS_MAP;
        }
        if set.timeout_seconds.is_some() {
            flags |= SET_HAS_TIMEOUT | SET_IS_DYNAMIC;
        }
        let identity = self.steps.len() as u32;
        let mut message = self
            .message(NEWSET, libc::NLM_F_CREATE)
            .text(1, self.table)
            .text(2, set.name)
            .attribute(3, &flags.to_be_bytes())
            .attribute(4, &kind.to_be_bytes())
            .attribute(5, &bytes.to_be_bytes());
        if let Some((kind, bytes)) = data {
            message = message.attribute(6, &kind.to_be_bytes());
            if bytes > 0 {
                message = message.attribute(7, &bytes.to_be_bytes());
            }
        }
        message = message.attribute(10, &identity.to_be_bytes());
        if let Some(seconds) = set.timeout_seconds {
            message = message.attribute(11, &(u64::from(seconds) * 1000).to_be_bytes());
        }
        self.push(message, format!("adding set {}", set.name));
    }

    pub fn flush_set(&mut self, name: &str) {
        let message = self.message(DELSETELEM, 0).text(1, self.table).text(2, name);
        self.push(message, format!("flushing set {name}"));
    }

    pub fn delete_set(&mut self, name: &str) {
        let message = self.message(DELSET, 0).text(1, self.table).text(2, name);
        self.push(message, format!("deleting set {name}"));
    }

    pub fn add_elements(&mut self, set: &str, elements: impl Iterator<Item = (Vec<u8>, ElementData)>) {
        self.elements(NEWSETELEM, libc::NLM_F_CREATE, set, "adding elements to", elements);
    }

    pub fn delete_elements(&mut self, set: &str, keys: impl Iterator<Item = Vec<u8>>) {
        let elements = keys.map(|key| (key, ElementData::None));
        self.elements(DELSETELEM, 0, set, "deleting elements of", elements);
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: i32,
        set: &str,
        step: &str,
        elements: impl Iterator<Item = (Vec<u8>, ElementData)>,
    ) {
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            let message = self.message(kind, flags).text(1, self.table).text(2, set).nested(3, |list| {
                elements.by_ref().take(ELEMENTS_PER_MESSAGE).fold(list, |list, (key, data)| {
                    list.nested(1, |element| {
                        let element = element.nested(1, |value| value.attribute(1, &key));
                        match &data {
                            ElementData::None => element,
                            ElementData::Verdict(verdict) => element.nested(2, |value| verdict.put(value)),
                            ElementData::Bytes(bytes) => element.nested(2, |value| value.attribute(1, bytes)),
                        }
                    })
                })
            });
            self.push(message, format!("{step} {set}"));
        }
    }

    /// Applies the transaction in the calling thread's network namespace.
    pub fn send(mut self) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        // The last step is acknowledged after the commit; refusals of any step come before that.
        let last_sequence = self.steps.len() as u32 - 1;
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | libc::NLM_F_ACK as u16;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.frame(NFNL_MSG_BATCH_END);
        match Socket::netfilter()?.transaction(&self.bytes, last_sequence)? {
            None => Ok(()),
            Some((sequence, errno)) => {
                let step = self.steps.get(sequence as usize).filter(|step| !step.is_empty());
                Err(Error::Refused { step: step.cloned().unwrap_or_else(|| "its end".into()), errno })
            }
        }
    }
}

/// Deletes a table of ours where it exists.
pub fn delete_table(family: Family, table: &'static str) -> Result<(), Error> {
    if !table_exists(family, table)? {
        return Ok(());
    }
    let mut batch = Batch::new(family, table);
    batch.add_table();
    batch.delete_table();
    batch.send()
}

pub fn table_exists(family: Family, table: &'static str) -> Result<bool, Error> {
    let request = Batch::new(family, table).message(GETTABLE, 0).text(1, table);
    match Socket::netfilter()?.request("find a table", request) {
        Ok(()) => Ok(true),
        Err(error) if error.is(nix::Error::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Names of what a table holds.
#[derive(Debug, Default)]
pub struct Listing {
    pub chains: Vec<String>,
    pub sets: Vec<String>,
}

/// Lists chains and named sets of a table, without rules and elements.
pub fn list(family: Family, table: &'static str) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let mut socket = Socket::netfilter()?;
    let empty = Batch::new(family, table);
    let text = |value: &[u8]| String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned();
    for (kind, name_at, names) in [(GETCHAIN, 3, &mut listing.chains), (GETSET, 2, &mut listing.sets)] {
        let request = empty.message(kind, 0).text(1, table);
        socket.dump("list a table", request, |_, payload| {
            let attributes = Attributes::after(payload, NFGENMSG_BYTES);
            let of_table = attributes.clone().find(1).is_some_and(|value| text(value) == table);
            if let (true, Some(name)) = (of_table, attributes.find(name_at)) {
                names.push(text(name));
            }
        })?;
    }
    // Sets without a name of their own belong to their rules.
    listing.sets.retain(|name| !name.starts_with("__"));
    Ok(listing)
}
