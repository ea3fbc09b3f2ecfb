//! Rules as nf_tables expressions: loads into registers, comparisons, lookups, verdicts (linux/netfilter/nf_tables.h).

use crate::netlink::Builder;
use ipnet::IpNet;
use services::{Family, Protocol};
use std::net::{IpAddr, SocketAddr};

/// Registers are numbered in words of four bytes. The first has two names; nft knows this one better.
const FIRST: u32 = 1;
const WORD_ZERO: u32 = 8;

/// The register that starts at word `word`.
const fn register(word: u32) -> u32 {
    if word == 0 { FIRST } else { WORD_ZERO + word }
}

/// What a rule or a map's element decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    /// Appends the verdict as the content of a data attribute.
    pub fn put(&self, data: Builder) -> Builder {
        const NFTA_DATA_VERDICT: u16 = 2;
        const NFTA_VERDICT_CODE: u16 = 1;
        const NFTA_VERDICT_CHAIN: u16 = 2;
        let (code, chain) = match self {
            Verdict::Drop => (0i32, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        data.nested(NFTA_DATA_VERDICT, |verdict| {
            let verdict = verdict.attribute(NFTA_VERDICT_CODE, &code.to_be_bytes());
            match chain {
                Some(chain) => verdict.text(NFTA_VERDICT_CHAIN, chain),
                None => verdict,
            }
        })
    }
}

/// One expression; `word` is the first register word it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Bytes of the network (1) or transport (2) header.
    Payload {
        base: u32,
        offset: u32,
        length: u32,
        word: u32,
    },
    Meta {
        key: u32,
        word: u32,
    },
    SetMark,
    Conntrack {
        key: u32,
    },
    /// `register = (register & mask) ^ xor`.
    Bitwise {
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Compare {
        equal: bool,
        data: Vec<u8>,
    },
    /// Verdict of a verdict map, or membership in a set.
    Lookup {
        set: String,
        verdict: bool,
    },
    /// Data of a map into the first registers.
    Translate {
        map: String,
    },
    Random {
        modulus: u32,
        word: u32,
    },
    Load {
        data: Vec<u8>,
        word: u32,
    },
    /// Destination from the first registers: address, then port.
    Dnat {
        family: Family,
    },
    Masquerade {
        random: bool,
    },
    /// Type of the source or destination address: local, unicast, ...
    AddressType {
        source: bool,
    },
    Decide(Verdict),
    Reject {
        family: Family,
    },
    /// Enters the first registers into a set, or renews them there.
    Update {
        set: String,
    },
}

pub type Rule = Vec<Expression>;

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const IFNAME_BYTES: usize = 16;

/// How many words an address of the family takes.
pub const fn words(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 4,
    }
}

pub fn octets(address: &IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Loads the source address.
pub fn source(family: Family, word: u32) -> Expression {
    let (offset, length) = match family {
        Family::Ipv4 => (12, 4),
        Family::Ipv6 => (8, 16),
    };
    Expression::Payload { base: NETWORK, offset, length, word }
}

/// Loads the destination address.
pub fn destination(family: Family, word: u32) -> Expression {
    let (offset, length) = match family {
        Family::Ipv4 => (16, 4),
        Family::Ipv6 => (24, 16),
    };
    Expression::Payload { base: NETWORK, offset, length, word }
}

/// Loads protocol and destination port into two words.
pub fn protocol_and_port(word: u32) -> [Expression; 2] {
    [
        Expression::Meta { key: META_L4PROTO, word },
        Expression::Payload { base: TRANSPORT, offset: 2, length: 2, word: word + 1 },
    ]
}

/// Loads destination address, protocol and port.
pub fn place(family: Family) -> Rule {
    let [protocol, port] = protocol_and_port(words(family));
    vec![destination(family, 0), protocol, port]
}

pub fn verdict_from(map: &str) -> Expression {
    Expression::Lookup { set: map.into(), verdict: true }
}

pub fn member_of(set: &str) -> Expression {
    Expression::Lookup { set: set.into(), verdict: false }
}

pub fn goto(chain: impl ToString) -> Expression {
    Expression::Decide(Verdict::Goto(chain.to_string()))
}

pub fn jump(chain: impl ToString) -> Expression {
    Expression::Decide(Verdict::Jump(chain.to_string()))
}

pub fn drop() -> Expression {
    Expression::Decide(Verdict::Drop)
}

/// Only packets of which conntrack knows no flow yet.
pub fn is_new() -> [Expression; 3] {
    // 1 << (IP_CT_NEW + 1).
    flag(Expression::Conntrack { key: CT_STATE }, 8)
}

/// Only flows whose destination was translated.
pub fn is_translated() -> [Expression; 3] {
    // IPS_DST_NAT.
    flag(Expression::Conntrack { key: CT_STATUS }, 1 << 5)
}

/// Only packets with this bit in their mark.
pub fn is_marked(mark: u32) -> [Expression; 3] {
    flag(Expression::Meta { key: META_MARK, word: 0 }, mark)
}

fn flag(load: Expression, bit: u32) -> [Expression; 3] {
    [
        load,
        Expression::Bitwise { mask: bit.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        Expression::Compare { equal: false, data: vec![0; 4] },
    ]
}

/// Sets (`on`) or clears a bit of the mark.
pub fn set_mark(mark: u32, on: bool) -> [Expression; 3] {
    let xor = if on { mark } else { 0 };
    [
        Expression::Meta { key: META_MARK, word: 0 },
        Expression::Bitwise { mask: (!mark).to_ne_bytes().to_vec(), xor: xor.to_ne_bytes().to_vec() },
        Expression::SetMark,
    ]
}

/// Only packets whose source or destination is an address of the node, or (`local` false) is not.
pub fn address_type(source: bool, local: bool) -> [Expression; 2] {
    let data = u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec();
    [Expression::AddressType { source }, Expression::Compare { equal: local, data }]
}

/// Only packets whose loaded address lies in `net`, or (`inside` false) does not. `load` loads into word 0.
pub fn within(load: Expression, net: &IpNet, inside: bool) -> Rule {
    let mut rule = vec![load];
    if net.prefix_len() < net.max_prefix_len() {
        let mask = octets(&net.netmask());
        let xor = vec![0; mask.len()];
        rule.push(Expression::Bitwise { mask, xor });
    }
    rule.push(Expression::Compare { equal: inside, data: octets(&net.network()) });
    rule
}

/// Only packets that come in (`output` false) or go out on a link.
pub fn on_link(name: &str, output: bool) -> [Expression; 2] {
    let mut data = name.as_bytes().to_vec();
    data.resize(IFNAME_BYTES, 0);
    let key = if output { META_OIFNAME } else { META_IIFNAME };
    [Expression::Meta { key, word: 0 }, Expression::Compare { equal: true, data }]
}

/// Only packets of a protocol, by number.
pub fn is_protocol(number: u8) -> [Expression; 2] {
    [Expression::Meta { key: META_L4PROTO, word: 0 }, Expression::Compare { equal: true, data: vec![number] }]
}

/// Only packets whose first transport byte is `value`: an ICMP type.
pub fn first_byte(value: u8) -> [Expression; 2] {
    [
        Expression::Payload { base: TRANSPORT, offset: 0, length: 1, word: 0 },
        Expression::Compare { equal: true, data: vec![value] },
    ]
}

/// Translates the destination to a fixed endpoint, for packets of its protocol.
pub fn dnat_to(target: &SocketAddr, protocol: Protocol) -> Rule {
    let family = Family::of(&target.ip());
    let mut rule = is_protocol(protocol.number()).to_vec();
    rule.push(Expression::Load { data: octets(&target.ip()), word: 0 });
    rule.push(Expression::Load { data: target.port().to_be_bytes().to_vec(), word: words(family) });
    rule.push(Expression::Dnat { family });
    rule
}

/// Attributes with a number in network order.
fn be(builder: Builder, kind: u16, value: u32) -> Builder {
    builder.attribute(kind, &value.to_be_bytes())
}

const NFTA_DATA_VALUE: u16 = 1;

impl Expression {
    /// Appends the expression as an element of a rule's list.
    pub fn put(&self, list: Builder) -> Builder {
        const NFTA_LIST_ELEM: u16 = 1;
        const NFTA_EXPR_NAME: u16 = 1;
        const NFTA_EXPR_DATA: u16 = 2;
        list.nested(NFTA_LIST_ELEM, |element| {
            element.text(NFTA_EXPR_NAME, self.name()).nested(NFTA_EXPR_DATA, |data| self.data(data))
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Expression::Payload { .. } => "payload",
            Expression::Meta { .. } | Expression::SetMark => "meta",
            Expression::Conntrack { .. } => "ct",
            Expression::Bitwise { .. } => "bitwise",
            Expression::Compare { .. } => "cmp",
            Expression::Lookup { .. } | Expression::Translate { .. } => "lookup",
            Expression::Random { .. } => "numgen",
            Expression::Load { .. } | Expression::Decide(_) => "immediate",
            Expression::Dnat { .. } => "nat",
            Expression::Masquerade { .. } => "masq",
            Expression::AddressType { .. } => "fib",
            Expression::Reject { .. } => "reject",
            Expression::Update { .. } => "dynset",
        }
    }

    /// The attributes, numbered as in the kernel's header, in its order.
    fn data(&self, b: Builder) -> Builder {
        match self {
            Expression::Payload { base, offset, length, word } => {
                be(be(be(be(b, 1, register(*word)), 2, *base), 3, *offset), 4, *length)
            }
            Expression::Meta { key, word } => be(be(b, 1, register(*word)), 2, *key),
            Expression::SetMark => be(be(b, 2, META_MARK), 3, FIRST),
            Expression::Conntrack { key } => be(be(b, 1, FIRST), 2, *key),
            Expression::Bitwise { mask, xor } => {
                let b = be(be(be(b, 1, FIRST), 2, FIRST), 3, mask.len() as u32);
                b.nested(4, |data| data.attribute(NFTA_DATA_VALUE, mask))
                    .nested(5, |data| data.attribute(NFTA_DATA_VALUE, xor))
            }
            Expression::Compare { equal, data } => be(be(b, 1, FIRST), 2, u32::from(!equal))
                .nested(3, |inner| inner.attribute(NFTA_DATA_VALUE, data)),
            Expression::Lookup { set, verdict } => {
                let b = be(b.text(1, set), 2, FIRST);
                if *verdict { be(b, 3, 0) } else { b }
            }
            Expression::Translate { map } => be(be(b.text(1, map), 2, FIRST), 3, FIRST),
            Expression::Random { modulus, word } => be(be(be(b, 1, register(*word)), 2, *modulus), 3, 1),
            Expression::Load { data, word } => {
                be(b, 1, register(*word)).nested(2, |inner| inner.attribute(NFTA_DATA_VALUE, data))
            }
            Expression::Decide(verdict) => be(b, 1, 0).nested(2, |data| verdict.put(data)),
            Expression::Dnat { family } => {
                let port = register(words(*family));
                let b = be(be(b, 1, 1), 2, u32::from(number(*family)));
                be(be(be(be(b, 3, FIRST), 4, FIRST), 5, port), 6, port)
            }
            // NF_NAT_RANGE_PROTO_RANDOM_FULLY.
            Expression::Masquerade { random: true } => be(b, 1, 1 << 4),
            Expression::Masquerade { random: false } => b,
            Expression::AddressType { source } => {
                be(be(be(b, 1, FIRST), 2, 3), 3, if *source { 1 } else { 2 })
            }
            Expression::Reject { family } => {
                // ICMP's and ICMPv6's code for an unreachable port.
                let code = if *family == Family::Ipv4 { 3u8 } else { 4 };
                be(b, 1, 0).attribute(2, &[code])
            }
            Expression::Update { set } => be(be(b.text(1, set), 3, 1), 4, FIRST),
        }
    }
}

/// The family as nfnetlink numbers it.
pub fn number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    }
}
