//! Addresses, networks and URLs as upstream reads them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network in CIDR form; the bits behind the prefix are kept as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Reads an address; zones and IPv4 in IPv6 are refused. The error is upstream's.
pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, String> {
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(address) => Ok(address),
        Err(_) => {
            let why = parse_failure(text);
            Err(format!("IP Address {text:?} parse error during conversion from string: {why}"))
        }
    }
}

/// Why Go does not read a text as an address.
fn parse_failure(text: &str) -> String {
    let because = |why: &str| format!("ParseAddr({text:?}): {why}");
    if let Some(at) = text.find(['.', ':']) {
        if text[at..].starts_with('.') {
            let parts: Vec<&str> = text.split('.').collect();
            for part in &parts {
                if part.is_empty() {
                    return because("IPv4 field must have at least one digit");
                }
                if let Some(at) = part.find(|c: char| !c.is_ascii_digit()) {
                    let _ = at;
                    return because("unexpected character");
                }
                if part.len() > 1 && part.starts_with('0') {
                    return because("IPv4 field has octet with leading zero");
                }
                if part.parse::<u16>().map_or(true, |octet| octet > 255) {
                    return because("IPv4 field has value >255");
                }
            }
            return because(if parts.len() < 4 { "IPv4 address too short" } else { "IPv4 address too long" });
        }
        return because("unexpected character");
    }
    because("unable to parse IP")
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Result<Cidr, String> {
        let wrap = |why: String| format!("network address parse error during conversion from string: {why}");
        let refuse = |why: String| Err(wrap(format!("netip.ParsePrefix({text:?}): {why}")));
        let Some((address, prefix)) = text.rsplit_once('/') else { return refuse("no '/'".into()) };
        let address: IpAddr = match address.parse() {
            Ok(address) => address,
            Err(_) => return refuse(parse_failure(address)),
        };
        if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let plain =
            prefix.bytes().all(|c| c.is_ascii_digit()) && !(prefix.len() > 1 && prefix.starts_with('0'));
        match prefix.parse::<u8>() {
            Ok(prefix) if plain && prefix <= most => Ok(Cidr { address, prefix }),
            Ok(_) if plain => refuse("prefix length out of range".into()),
            _ => refuse(format!("bad bits after slash: {prefix:?}")),
        }
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn prefix_length(&self) -> u8 {
        self.prefix
    }

    pub(crate) fn masked(&self) -> Cidr {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        };
        Cidr { address, prefix: self.prefix }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Cidr { address, prefix: self.prefix }.masked().address == self.masked().address
    }

    /// Whether the other network lies in this one.
    pub(crate) fn covers(&self, other: &Cidr) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// An absolute URL or path, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    /// With the port, where there is one.
    pub host: String,
    pub path: String,
    pub query: String,
    fragment: String,
}

impl Url {
    /// Reads what upstream takes for an absolute URI; the error is upstream's.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let refuse = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.bytes().any(|c| c < 0x20 || c == 0x7f) {
            return refuse("net/url: invalid control character in URL");
        }
        if text.is_empty() {
            return refuse("empty url");
        }
        let (scheme, rest) = match scheme(text) {
            Ok(parts) => parts,
            Err(why) => return refuse(why),
        };
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let part = |host: &str, path: &str| Url {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            fragment: fragment.to_owned(),
        };
        if !rest.starts_with('/') {
            return match scheme {
                "" => refuse("invalid URI for request"),
                _ => Ok(part("", "")),
            };
        }
        let (authority, path) = match rest.strip_prefix("//") {
            // A path of three slashes has no authority.
            Some(after) if !scheme.is_empty() || !rest.starts_with("///") => {
                after.split_at(after.find('/').unwrap_or(after.len()))
            }
            _ => ("", rest),
        };
        if let Some(escape) = bad_escape(path) {
            return refuse(&format!("invalid URL escape {escape:?}"));
        }
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        match check_host(host) {
            Some(why) => refuse(&why),
            None => Ok(part(host, path)),
        }
    }

    pub(crate) fn hostname(&self) -> &str {
        if let Some(inner) = self.host.strip_prefix('[') {
            return inner.split(']').next().unwrap_or_default();
        }
        self.host.rsplit_once(':').map_or(self.host.as_str(), |(host, _)| host)
    }

    pub(crate) fn port(&self) -> &str {
        let after = self.host.rsplit_once(']').map_or(self.host.as_str(), |(_, after)| after);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    pub(crate) fn escaped_path(&self) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%[]".contains(c);
        let mut out = String::with_capacity(self.path.len());
        for c in self.path.chars() {
            match plain(c) {
                true => out.push(c),
                false => {
                    let mut buffer = [0; 4];
                    c.encode_utf8(&mut buffer).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
                }
            }
        }
        out
    }

    /// The query's names and their values, in the order in which they first appear; what is malformed is left out.
    pub(crate) fn query_values(&self) -> Vec<(String, Vec<String>)> {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (unescape(name), unescape(value)) else { continue };
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => all.push((name, vec![value])),
            }
        }
        all
    }
}

fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            '0'..='9' | '+' | '-' | '.' => return Ok(("", text)),
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn bad_escape(text: &str) -> Option<String> {
    for (at, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Some(text[at..].chars().take(3).collect());
        }
    }
    None
}

fn check_host(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(inner) => match inner.rsplit_once(']') {
            Some((name, after)) => (name, after),
            None => return Some("missing ']' in host".into()),
        },
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let digits = port.strip_prefix(':');
    if !port.is_empty() && !digits.is_some_and(|digits| digits.bytes().all(|c| c.is_ascii_digit())) {
        return Some(format!("invalid port {port:?} after host"));
    }
    let bad = name
        .chars()
        .find(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-._~!$&'()*+,;=:%<>\"[]".contains(*c));
    bad.map(|c| format!("invalid character {:?} in host name", c.to_string()))
}

/// Decodes a part of a query.
fn unescape(text: &str) -> Option<String> {
    if bad_escape(text).is_some() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                out.push(u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok()?);
                at += 2;
            }
            other => out.push(other),
        }
        at += 1;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
