//! What a call costs, by the sizes of its actual arguments.

use crate::ast::op;
use crate::cost::selector_cost;
use crate::cost::{AUTHORIZATION_COST, CostRange, FORMAT_REGEX_LENGTH, REGEX_FACTOR, STRING_FACTOR, scale};
use crate::value::{Map, Object, Value};

/// The cost of one call. `overload` is empty where more than one was possible; the result is given where it matters.
pub(crate) fn call_cost(
    function: &str,
    overload: &str,
    args: &[Value<'_>],
    result: Option<&Value<'_>>,
) -> u64 {
    library(function, overload, args, result).unwrap_or_else(|| standard(overload, args))
}

/// The functions whose costs go by the name, whichever their overload.
fn library(function: &str, overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    let size = |at: usize| args.get(at).map(size);
    let read = |at: usize, times: f64| Some(scale(size(at)?, times * STRING_FACTOR));
    match function {
        "check" => Some(AUTHORIZATION_COST),
        "fieldSelector" | "labelSelector" => Some(selector_cost(CostRange::fixed(size(1)?)).max),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            Some(args.first().map_or(0, traversal))
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "cidr" | "isIP" | "isCIDR"
        | "quantity" | "isQuantity" | "semver" | "isSemver" => read(0, 1.0),
        "replace" | "split" | "ip.isCanonical" => read(0, 2.0),
        "join" => Some(scale(result.map_or(1, self::size), 2.0 * STRING_FACTOR)),
        "find" | "findAll" => Some(search(size(0)?, size(1)?)),
        "ip" if overload == "cidr_ip" => Some(1),
        "ip" => read(0, 1.0),
        "containsIP" | "containsCIDR" => {
            let (cidr, other) = (size(0)?, size(1)?);
            let mut cost = scale(cidr * 2, STRING_FACTOR);
            if function == "containsCIDR" {
                cost += scale(cidr, STRING_FACTOR) + 1;
            }
            if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                cost += scale(other, STRING_FACTOR);
            }
            Some(cost)
        }
        "validate" => match args {
            [Value::Format(name), text] => {
                let regex = crate::formats::regex_length(name).unwrap_or(FORMAT_REGEX_LENGTH);
                Some(search(self::size(text), regex))
            }
            _ => None,
        },
        op::EQUALS => match args.first() {
            Some(
                Value::Quantity(_)
                | Value::Ip(_)
                | Value::Cidr(_)
                | Value::Format(_)
                | Value::Url(_)
                | Value::Semver(_)
                | Value::Check(_),
            ) => Some(1),
            _ => None,
        },
        _ => None,
    }
}

fn standard(overload: &str, args: &[Value<'_>]) -> u64 {
    match (overload, args) {
        (
            "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
            | "strings_quote" | "string_format",
            [text, ..],
        ) => scale(size(text), STRING_FACTOR),
        ("in_list", [_, list]) => size(list),
        (
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals",
            [left, right],
        ) => scale(size(left).min(size(right)), STRING_FACTOR),
        ("add_string" | "add_bytes", [left, right]) => scale(size(left) + size(right), STRING_FACTOR),
        ("matches_string", [text, pattern]) => search(size(text), size(pattern)),
        ("contains_string", [text, part]) => {
            scale(size(text), STRING_FACTOR) * scale(size(part), STRING_FACTOR)
        }
        _ => 1,
    }
}

/// The cost of a regular expression on a text: one more character, so that an empty text costs something too.
fn search(text: u64, pattern: u64) -> u64 {
    scale(text + 1, STRING_FACTOR).saturating_mul(scale(pattern, REGEX_FACTOR))
}

/// How many elements a value has; 1 where it has none.
fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => text.chars().count() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::List(list) => list.len() as u64,
        Value::Map(map) => map.len() as u64,
        Value::Object(Object::Json { entries, .. }) => entries.len() as u64,
        Value::Ip(ip) => {
            if ip.is_ipv4() {
                4
            } else {
                16
            }
        }
        Value::Cidr(cidr) => u64::from(cidr.prefix_length().div_ceil(8)),
        Value::Optional(Some(inner)) => size(inner),
        _ => 1,
    }
}

/// The cost of looking at all of a value.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * STRING_FACTOR) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * STRING_FACTOR) as u64,
        Value::List(list) => list.iter().flatten().map(|item| traversal(&item)).sum(),
        Value::Map(map) => entries(map),
        Value::Object(Object::Json { entries: fields, .. }) => {
            entries(&Map::Json { entries: fields, value: None })
        }
        _ => 1,
    }
}

fn entries(map: &Map<'_>) -> u64 {
    map.to_vec().unwrap_or_default().iter().map(|(key, value)| traversal(key) + traversal(value)).sum()
}
