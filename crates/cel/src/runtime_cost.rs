//! What a call costs, by the sizes of its actual arguments.

use crate::ast::op;
use crate::cost::selector_cost;
use crate::cost::{
    AUTHORIZATION_COST, CostRange, FORMAT_REGEX_LENGTH, LIST_COST, REGEX_FACTOR, STRING_FACTOR, scale,
};
use crate::value::{Map, Object, Value};

/// The cost of one call. `overload` is empty where more than one was possible; the result is given where it matters.
pub(crate) fn call_cost(
    function: &str,
    overload: &str,
    args: &[Value<'_>],
    result: Option<&Value<'_>>,
) -> u64 {
    lists(overload, args, result)
        .or_else(|| library(function, overload, args, result))
        .unwrap_or_else(|| standard(overload, args))
}

/// Whether the cost of the function goes by its result.
pub(crate) fn by_result(function: &str) -> bool {
    matches!(function, "join" | "slice" | "lists.range" | "reverse")
}

/// Functions that make lists of lists, and those on sets.
fn lists(overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    // A negative depth counts backwards, as upstream's conversion has it.
    let made = |factor: f64, count: u64| {
        let work = count as f64 * factor;
        let work = if work < 0.0 { work as i64 as u64 } else { work as u64 };
        Some(work.wrapping_add(1 + LIST_COST))
    };
    let sorted = |list: &Value<'_>| {
        let Value::List(items) = list else { return None };
        let texts = matches!(items.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
        let count = size(list);
        made(if texts { 2.0 + STRING_FACTOR } else { 2.0 }, count.saturating_mul(count))
    };
    match overload {
        "list_slice" | "lists_range" | "list_reverse" => made(1.0, result.map_or(1, size)),
        "list_flatten" => made(1.0, size(args.first()?)),
        "list_flatten_int" => match args {
            [list, Value::Int(depth)] => made(*depth as f64, size(list)),
            _ => None,
        },
        "list_distinct" => sorted(args.first()?),
        "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list" => {
            let factor = if overload == "list_sets_equivalent_list" { 2 } else { 1 };
            let [a, b] = args else { return None };
            Some(1 + size(a).saturating_mul(size(b)).saturating_mul(factor))
        }
        _ if overload.ends_with("_sort") || overload.ends_with("_sortByAssociatedKeys") => {
            sorted(args.last()?)
        }
        _ => None,
    }
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
        "url"
        | "jsonpatch.escapeKey"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => read(0, 1.0),
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
