//! The functions that Kubernetes adds: addresses, networks, URLs, quantities, versions, formats, authorization.

use super::{Implementation, no_overload};
use crate::authorizer;
use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::formats;
use crate::network::{Cidr, Url, parse_ip};
use crate::pattern::Pattern;
use crate::semver::Semver;
use crate::value::{Entries, Key, Map, Value};
use meta::Quantity;
use meta::quantity::Format;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

macro_rules! calls {
    ($name:expr; $($known:literal => $of:expr),* $(,)?) => {
        match $name {
            $($known => {
                fn call<'a>(args: Vec<Value<'a>>, _: Option<&Pattern>) -> Evaluated<'a> {
                    let of: fn(&[Value<'a>]) -> Evaluated<'a> = $of;
                    of(&args)
                }
                Some(call as Implementation)
            })*
            _ => None,
        }
    };
}

/// The function of this name, where it is one of these.
pub(super) fn function(name: &str) -> Option<Implementation> {
    network(name).or_else(|| amounts(name)).or_else(|| named_formats(name)).or_else(|| checks(name))
}

fn failed<'a>(message: impl Into<String>) -> Evaluated<'a> {
    Err(EvalError::new(message))
}

fn text<'a>(args: &[Value<'a>], of: impl FnOnce(&str) -> Evaluated<'a>) -> Evaluated<'a> {
    match args {
        [Value::String(text)] => of(text),
        _ => no_overload(),
    }
}

fn network(name: &str) -> Option<Implementation> {
    calls! { name;
        "ip" => |args| match args {
            [Value::Cidr(cidr)] => Ok(Value::Ip(cidr.address())),
            args => text(args, |text| parse_ip(text).map(Value::Ip).map_err(EvalError::new)),
        },
        "isIP" => |args| text(args, |text| Ok(Value::Bool(parse_ip(text).is_ok()))),
        "ip.isCanonical" => |args| text(args, |text| match parse_ip(text) {
            Ok(ip) => Ok(Value::Bool(ip.to_string() == text)),
            Err(why) => failed(why),
        }),
        "family" => |args| address(args, |ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |args| address(args, |ip| Value::Bool(ip.is_unspecified())),
        "isLoopback" => |args| address(args, |ip| Value::Bool(ip.is_loopback())),
        "isLinkLocalMulticast" => |args| address(args, |ip| Value::Bool(is_link_local_multicast(ip))),
        "isLinkLocalUnicast" => |args| address(args, |ip| Value::Bool(is_link_local(ip))),
        "isGlobalUnicast" => |args| address(args, |ip| Value::Bool(is_global_unicast(ip))),
        "cidr" => |args| text(args, |text| Cidr::parse(text).map(Value::Cidr).map_err(|why| {
            EvalError::new(format!("network address parse error during conversion from string: {why}"))
        })),
        "isCIDR" => |args| text(args, |text| Ok(Value::Bool(Cidr::parse(text).is_ok()))),
        "containsIP" => |args| match args {
            [Value::Cidr(cidr), Value::Ip(ip)] => Ok(Value::Bool(cidr.contains(*ip))),
            [Value::Cidr(cidr), Value::String(text)] => match parse_ip(text) {
                Ok(ip) => Ok(Value::Bool(cidr.contains(ip))),
                // Upstream loses the reason here.
                Err(_) => no_overload(),
            },
            _ => no_overload(),
        },
        "containsCIDR" => |args| match args {
            [Value::Cidr(cidr), Value::Cidr(other)] => Ok(Value::Bool(cidr.covers(other))),
            [Value::Cidr(cidr), Value::String(text)] => match Cidr::parse(text) {
                Ok(other) => Ok(Value::Bool(cidr.covers(&other))),
                Err(why) => failed(format!("network address parse error during conversion from string: {why}")),
            },
            _ => no_overload(),
        },
        "prefixLength" => |args| match args {
            [Value::Cidr(cidr)] => Ok(Value::Int(cidr.prefix_length().into())),
            _ => no_overload(),
        },
        "masked" => |args| match args {
            [Value::Cidr(cidr)] => Ok(Value::Cidr(cidr.masked())),
            _ => no_overload(),
        },
        "url" => |args| text(args, |text| match Url::parse(text) {
            Ok(url) => Ok(Value::Url(Arc::new(url))),
            Err(why) => failed(format!("URL parse error during conversion from string: {why}")),
        }),
        "isURL" => |args| text(args, |text| Ok(Value::Bool(Url::parse(text).is_ok()))),
        "getScheme" => |args| url(args, |url| Value::text(url.scheme.as_str())),
        "getHost" => |args| url(args, |url| Value::text(url.host.as_str())),
        "getHostname" => |args| url(args, |url| Value::text(url.hostname())),
        "getPort" => |args| url(args, |url| Value::text(url.port())),
        "getEscapedPath" => |args| url(args, |url| Value::text(url.escaped_path())),
        "getQuery" => |args| url(args, query),
    }
}

fn address<'a>(args: &[Value<'a>], of: impl FnOnce(IpAddr) -> Value<'a>) -> Evaluated<'a> {
    match args {
        [Value::Ip(ip)] => Ok(of(*ip)),
        _ => no_overload(),
    }
}

fn url<'a>(args: &[Value<'a>], of: impl FnOnce(&Url) -> Value<'a>) -> Evaluated<'a> {
    match args {
        [Value::Url(url)] => Ok(of(url)),
        _ => no_overload(),
    }
}

fn query<'a>(url: &Url) -> Value<'a> {
    let mut entries = Entries::default();
    for (name, values) in url.query_values() {
        let values = Value::list(values.into_iter().map(Value::text).collect());
        entries.insert(Key::Text(name.as_str().into()), (Value::text(name), values));
    }
    Value::Map(Map::Values(Arc::new(entries)))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !broadcast && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !is_link_local(ip)
}

fn amounts(name: &str) -> Option<Implementation> {
    calls! { name;
        "quantity" => |args| text(args, |text| match Quantity::parse(text) {
            Ok(quantity) => Ok(Value::Quantity(quantity)),
            Err(why) => failed(why.to_string()),
        }),
        "isQuantity" => |args| text(args, |text| Ok(Value::Bool(Quantity::parse(text).is_ok()))),
        "sign" => |args| quantity(args, |quantity| {
            Value::Int(if quantity.is_zero() { 0 } else if quantity.is_negative() { -1 } else { 1 })
        }),
        "isInteger" => |args| quantity(args, |quantity| Value::Bool(whole(quantity).is_some())),
        "asInteger" => |args| match args {
            [Value::Quantity(quantity)] => match whole(quantity) {
                Some(value) => Ok(Value::Int(value)),
                None => failed("cannot convert value to integer"),
            },
            _ => no_overload(),
        },
        "asApproximateFloat" => |args| quantity(args, |quantity| Value::Double(approximate(quantity))),
        "add" => |args| sum(args, |a, b| a.plus(b)),
        "sub" => |args| sum(args, |a, b| a.minus(b)),
        "isGreaterThan" => |args| ordered(args, |order| Value::Bool(order.is_gt())),
        "isLessThan" => |args| ordered(args, |order| Value::Bool(order.is_lt())),
        "compareTo" => |args| ordered(args, |order| Value::Int(order as i64)),
        "semver" => |args| match version(args) {
            Some(Ok(version)) => Ok(Value::Semver(Arc::new(version))),
            Some(Err(why)) => failed(why),
            None => no_overload(),
        },
        "isSemver" => |args| match version(args) {
            Some(version) => Ok(Value::Bool(version.is_ok())),
            None => no_overload(),
        },
        "major" => |args| part(args, |version| version.major),
        "minor" => |args| part(args, |version| version.minor),
        "patch" => |args| part(args, |version| version.patch),
    }
}

fn quantity<'a>(args: &[Value<'a>], of: impl FnOnce(&Quantity) -> Value<'a>) -> Evaluated<'a> {
    match args {
        [Value::Quantity(quantity)] => Ok(of(quantity)),
        _ => no_overload(),
    }
}

/// The quantity in whole units, where it is a whole number of them.
fn whole(quantity: &Quantity) -> Option<i64> {
    let units = quantity.value();
    (Quantity::from_units(units, Format::DecimalSi) == *quantity).then_some(units)
}

fn approximate(quantity: &Quantity) -> f64 {
    match whole(quantity) {
        Some(units) => units as f64,
        None => {
            // Units are rounded up, and what was added by that is less than one.
            let units = quantity.value();
            let over = Quantity::from_units(units, Format::DecimalSi).minus(*quantity);
            (i128::from(units) * 1_000_000_000 - i128::from(nanos(over))) as f64 / 1e9
        }
    }
}

/// Billionths of a quantity below one.
fn nanos(quantity: Quantity) -> i64 {
    let mut scaled = quantity;
    for _ in 0..9 {
        let (two, eight) = (scaled.plus(scaled), scaled.plus(scaled).plus(scaled.plus(scaled)));
        scaled = eight.plus(eight).plus(two);
    }
    scaled.value()
}

fn sum<'a>(args: &[Value<'a>], of: fn(Quantity, Quantity) -> Quantity) -> Evaluated<'a> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(Value::Quantity(of(*a, *b))),
        [Value::Quantity(a), Value::Int(b)] => {
            Ok(Value::Quantity(of(*a, Quantity::from_units(*b, Format::DecimalSi))))
        }
        _ => no_overload(),
    }
}

fn ordered<'a>(args: &[Value<'a>], of: fn(Ordering) -> Value<'a>) -> Evaluated<'a> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(of(a.cmp(b))),
        [Value::Semver(a), Value::Semver(b)] => Ok(of(a.order(b))),
        _ => no_overload(),
    }
}

fn version(args: &[Value<'_>]) -> Option<Result<Semver, String>> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Some(Semver::parse(text)),
        [Value::String(text), Value::Bool(true)] => Some(Semver::parse_lenient(text)),
        _ => None,
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Semver) -> u64) -> Evaluated<'a> {
    match args {
        [Value::Semver(version)] => Ok(Value::Int(i64::try_from(of(version)).unwrap_or(i64::MAX))),
        _ => no_overload(),
    }
}

macro_rules! constant_formats {
    ($name:expr; $($known:literal),* $(,)?) => {
        match $name {
            $(concat!("format.", $known) => Some(|_, _| Ok(Value::Format($known))),)*
            _ => None,
        }
    };
}

fn named_formats(name: &str) -> Option<Implementation> {
    calls! { name;
        "format.named" => |args| text(args, |name| {
            Ok(Value::Optional(formats::named(name).map(|name| Arc::new(Value::Format(name)))))
        }),
        "validate" => |args| match args {
            [Value::Format(name), Value::String(text)] => {
                let faults = formats::faults(name, text);
                Ok(match faults.is_empty() {
                    true => Value::Optional(None),
                    false => Value::some(Value::list(faults.into_iter().map(Value::text).collect())),
                })
            }
            _ => no_overload(),
        },
    }
    .or(constant_formats! { name;
        "dns1123Label", "dns1123Subdomain", "dns1035Label", "qualifiedName", "dns1123LabelPrefix",
        "dns1123SubdomainPrefix", "dns1035LabelPrefix", "labelValue", "uri", "uuid", "byte", "date", "datetime",
    })
}

macro_rules! check_calls {
    ($name:expr; $($known:literal),* $(,)?) => {
        match $name {
            $($known => Some(|args, _| authorizer::call($known, &args).unwrap_or_else(no_overload)),)*
            _ => None,
        }
    };
}

fn checks(name: &str) -> Option<Implementation> {
    check_calls! { name;
        "path", "group", "serviceAccount", "resource", "subresource", "namespace", "name", "fieldSelector",
        "labelSelector", "check", "allowed", "reason", "errored", "error",
    }
}
