//! The cost of each function by the sizes of what it is called on.

use super::range::{CostRange, ONE, UNKNOWN, ZERO};
use super::{
    AUTHORIZATION_COST, Coster, FORMAT_NAME_LENGTH, FORMAT_REGEX_LENGTH, LIST_COST, Node, REGEX_FACTOR,
};
use super::{STRING_FACTOR, STRUCT_COST, is_logic};
use crate::ast::{Expr, ExprKind, op};
use crate::types::Type;
use crate::value::Value;

/// One overload of a call, and what is known of its arguments.
pub(super) struct Call<'n, 'c> {
    pub expr: &'c Expr,
    pub function: &'n str,
    pub overload: &'n str,
    pub target: Option<&'n Node<'c>>,
    pub args: &'n [Node<'c>],
    pub costs: &'n [CostRange],
}

/// A cost, and the size of the result where one is known.
type Estimate = (CostRange, Option<CostRange>);

impl Coster<'_> {
    /// The cost of a call with that of its arguments (but not of its target), and the size of its result.
    pub(super) fn cost_of_overload(&mut self, call: &Call<'_, '_>) -> Estimate {
        let arguments = call.costs.iter().fold(ZERO, |sum, cost| sum.plus(*cost));
        if let Some((cost, size)) = self.list_library(call) {
            return (cost.plus(arguments), size);
        }
        if let Some((cost, size)) = self.library(call) {
            return (cost.plus(arguments), size);
        }
        if is_logic(call.function) {
            let (left, right) = (call.costs[0], call.costs[1]);
            return (CostRange::new(left.min, left.plus(right).max), None);
        }
        if call.function == op::CONDITIONAL {
            return self.conditional(call);
        }
        let (cost, size) = self.standard(call).unwrap_or((ONE, None));
        (cost.plus(arguments), size)
    }

    fn conditional(&mut self, call: &Call<'_, '_>) -> Estimate {
        let size = known(&call.args[1]).union(known(&call.args[2]));
        let entries = (self.entry(call.args[1].expr), self.entry(call.args[2].expr));
        if let (Some(a), Some(b)) = entries {
            let joined =
                super::Entry { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) };
            self.set_entry(call.expr, Some(joined));
        }
        (call.costs[0].plus(call.costs[1].union(call.costs[2])), Some(size))
    }

    fn standard(&mut self, call: &Call<'_, '_>) -> Option<Estimate> {
        let size = |at: usize| known(&call.args[at]);
        let target = call.target.map(known);
        Some(match call.overload {
            "string_format" => (target?.scaled(STRING_FACTOR), None),
            "string_to_bytes" => {
                let size = size(0);
                let result = CostRange::new(size.min, size.max.wrapping_mul(4));
                (size.scaled(STRING_FACTOR), Some(result))
            }
            "bytes_to_string" => {
                let size = size(0);
                (size.scaled(STRING_FACTOR), Some(CostRange::new(size.min / 4, size.max)))
            }
            "strings_quote" => {
                let size = size(0);
                let result = CostRange::new(size.min + 2, size.max.wrapping_mul(2).wrapping_add(2));
                (size.scaled(STRING_FACTOR), Some(result))
            }
            "starts_with_string" | "ends_with_string" => (size(0).scaled(STRING_FACTOR), None),
            "in_list" => (size(1).scaled(1.0), None),
            "matches_string" => {
                let text = target?.plus(ONE).scaled(STRING_FACTOR);
                (text.times(size(0).scaled(REGEX_FACTOR)), None)
            }
            "contains_string" => (target?.scaled(STRING_FACTOR).times(size(0).scaled(STRING_FACTOR)), None),
            "add_string" | "add_bytes" | "add_list" => {
                let result = size(0).plus(size(1));
                let entries = (self.entry(call.args[0].expr), self.entry(call.args[1].expr));
                if let (Some(a), Some(b)) = entries {
                    let joined =
                        super::Entry { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) };
                    self.set_entry(call.expr, Some(joined));
                }
                let cost = if call.overload == "add_list" { ONE } else { result.scaled(STRING_FACTOR) };
                (cost, Some(result))
            }
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals" => {
                let most = size(0).max.min(size(1).max);
                (CostRange::new(u64::from(most > 0), most).scaled(STRING_FACTOR), None)
            }
            _ => return None,
        })
    }

    /// The functions that Kubernetes adds.
    fn library(&self, call: &Call<'_, '_>) -> Option<Estimate> {
        let size = |at: usize| call.args.get(at).map(|node| self.bounded(node));
        let target = call.target.map(|node| self.bounded(node));
        let read = |size: CostRange| (size.scaled(STRING_FACTOR), None);
        Some(match call.function {
            "check" => (CostRange::fixed(AUTHORIZATION_COST), None),
            "serviceAccount"
            | "path"
            | "group"
            | "resource"
            | "subresource"
            | "namespace"
            | "name"
            | "allowed"
            | "reason"
            | "error"
            | "errored"
            | "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => (ONE, None),
            "fieldSelector" | "labelSelector" if call.args.len() == 1 => (selector_cost(size(0)?), None),
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                (self.cost_of_search(call.target?), None)
            }
            "url" | "jsonpatch.escapeKey" => (size(0)?.scaled(STRING_FACTOR), size(0)),
            "lowerAscii" | "upperAscii" | "substring" | "trim" => (target?.scaled(STRING_FACTOR), target),
            "replace" => {
                let result = replaced(target?, size(0)?, size(1)?);
                (target?.scaled(2.0 * STRING_FACTOR), Some(result))
            }
            "split" => {
                let limit = match call.args.get(1).map(|node| &node.expr.kind) {
                    Some(ExprKind::Literal(Value::Int(limit))) => *limit as u64,
                    _ => target?.max,
                };
                (target?.scaled(2.0 * STRING_FACTOR), Some(CostRange::new(0, limit)))
            }
            "join" => {
                let result = self.joined(call.target?, size(0));
                (result.scaled(STRING_FACTOR), Some(result))
            }
            "find" | "findAll" => {
                let text = target?.plus(ONE).scaled(STRING_FACTOR);
                let cost = text.times(size(0)?.scaled(REGEX_FACTOR));
                (cost, Some(CostRange::new(0, target?.max)))
            }
            "ip" if call.overload == "cidr_ip" => (ONE, None),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                read(size(0)?)
            }
            "ip.isCanonical" => (size(0)?.scaled(2.0 * STRING_FACTOR), None),
            "containsIP" | "containsCIDR" => (containment(call, size(0)?), None),
            "validate" => {
                let per_character = FORMAT_REGEX_LENGTH as f64 * REGEX_FACTOR;
                (size(0)?.scaled(STRING_FACTOR).scaled(per_character), None)
            }
            op::EQUALS => (equality(call)?, None),
            _ => return None,
        })
    }

    /// Functions that make lists of lists, and those on sets: their costs go by the overload.
    fn list_library(&self, call: &Call<'_, '_>) -> Option<Estimate> {
        let literal = |at: usize| match call.args.get(at).map(|node| &node.expr.kind) {
            Some(ExprKind::Literal(Value::Int(value))) => Some(u64::try_from(*value).unwrap_or(0)),
            _ => None,
        };
        let made = |factor: f64, size: CostRange| {
            let cost = size.scaled(factor).plus(ONE).plus(CostRange::fixed(LIST_COST));
            Some((cost, Some(size)))
        };
        let target = call.target.map(|node| self.bounded(node));
        match call.overload {
            "list_slice" => {
                let (from, to) = (literal(0).unwrap_or(0), literal(1).unwrap_or(target?.max));
                made(1.0, CostRange::fixed(to.wrapping_sub(from)))
            }
            "list_flatten" => made(1.0, target?),
            "list_flatten_int" => made(literal(0).unwrap_or(u64::MAX) as f64, target?),
            "lists_range" => made(1.0, CostRange::fixed(literal(0).unwrap_or(u64::MAX))),
            "list_reverse" => made(1.0, target?),
            "list_distinct" => made(2.0, target?.times(target?)),
            "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list" => {
                let factor = if call.overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let size = self.bounded(&call.args[0]).times(self.bounded(&call.args[1]));
                Some((size.scaled(factor).plus(ONE), None))
            }
            overload if call.function == "sort" || call.function == "@sortByAssociatedKeys" => {
                let size = match call.args.first() {
                    Some(keys) => self.bounded(keys),
                    None => target?,
                };
                let texts = overload.starts_with("list_string") || overload.starts_with("list_bytes");
                made(if texts { 2.0 + STRING_FACTOR } else { 2.0 }, size.times(size))
            }
            _ => None,
        }
    }

    /// A node's size, or the bound of the data at its path.
    fn bounded(&self, node: &Node<'_>) -> CostRange {
        node.size.or_else(|| self.size_by_path(&node.path)).unwrap_or(UNKNOWN)
    }

    /// The type and size of a list's elements.
    fn element<'n>(&self, list: &'n Node<'_>) -> Option<(&'n Type, CostRange)> {
        let of = match list.of {
            Type::List(of) | Type::Optional(of) => of,
            Type::Map(of) => &of.0,
            _ => return None,
        };
        if list.path.is_empty() {
            return Some((of, UNKNOWN));
        }
        let mut path = list.path.clone();
        path.push("@items".into());
        Some((of, self.size_by_path(&path).unwrap_or(UNKNOWN)))
    }

    fn cost_of_search(&self, target: &Node<'_>) -> CostRange {
        let size = self.bounded(target);
        match self.element(target) {
            Some((Type::String | Type::Bytes, element)) => {
                size.times(ONE.plus(element.scaled(STRING_FACTOR)))
            }
            Some(_) => size,
            None => size.scaled(STRING_FACTOR),
        }
    }

    fn joined(&self, target: &Node<'_>, separator: Option<CostRange>) -> CostRange {
        let list = self.bounded(target);
        let texts = self.element(target).map_or(ZERO, |(_, element)| list.times(element));
        let Some(separator) = separator else { return texts };
        let count = CostRange::new(list.min.saturating_sub(1), list.max.saturating_sub(1));
        texts.plus(separator.times(count))
    }
}

/// A node's size without looking at its path again.
fn known(node: &Node<'_>) -> CostRange {
    node.size.unwrap_or(UNKNOWN)
}

/// The cost of reading a selector: its text, and the requirements that it can hold.
pub(crate) fn selector_cost(length: CostRange) -> CostRange {
    let requirements = length.scaled(0.5).scaled((LIST_COST + STRUCT_COST) as f64);
    CostRange::fixed(LIST_COST).plus(length.scaled(STRING_FACTOR)).plus(requirements)
}

/// The size of a text after each occurrence of one text was replaced by another.
fn replaced(size: CostRange, from: CostRange, to: CostRange) -> CostRange {
    let (mut count, mut kept) = (ZERO, ZERO);
    if from.min == 0 {
        // An empty text is found before, between and behind all characters.
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if to.max <= from.min {
        kept.max = size.max;
    } else {
        count.max = (size.max as f64 / from.min as f64).ceil() as u64;
    }
    if from.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if from.max <= to.min {
        kept.min = size.min;
    } else {
        count.min = (size.min as f64 / from.max as f64).ceil() as u64;
    }
    count.times(to).plus(kept)
}

fn containment(call: &Call<'_, '_>, size: CostRange) -> CostRange {
    // Addresses are four or sixteen bytes.
    let address = CostRange::new(4, 16);
    let mut cost = address.plus(address).scaled(STRING_FACTOR);
    if call.function == "containsCIDR" {
        cost = cost.plus(address.scaled(STRING_FACTOR)).plus(ONE);
    }
    if matches!(call.overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
        cost = cost.plus(size.scaled(STRING_FACTOR));
    }
    cost
}

/// Equality of the library's own types, which are small.
fn equality(call: &Call<'_, '_>) -> Option<CostRange> {
    let [left, right] = call.args else { return None };
    if left.of != right.of {
        return None;
    }
    match left.of {
        Type::Opaque(_) => Some(ONE),
        Type::Struct(object) => match object.name.as_str() {
            "kubernetes.NamedFormat" => Some(CostRange::new(1, FORMAT_NAME_LENGTH).scaled(STRING_FACTOR)),
            "kubernetes.URL" => {
                let most = right.size.map_or(1, |size| size.max);
                Some(CostRange::new(1, most).scaled(STRING_FACTOR))
            }
            name if name.starts_with("kubernetes.authorization.") => Some(ONE),
            "kubernetes.Quantity" | "kubernetes.Semver" => Some(ONE),
            _ => None,
        },
        _ => None,
    }
}
