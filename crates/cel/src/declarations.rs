//! The functions that expressions may call: names, overloads, and the types these take and give.
//!
//! The table `signatures.txt` holds the functions of upstream's 1.36 environment, under the names of their overloads,
//! which costs and references go by.

use crate::types::Type;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// One way to call a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub id: &'static str,
    /// Called as `target.function(...)`; the target's type is then the first of `args`.
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
}

/// A function and its overloads, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
}

/// The function of a name.
pub(crate) fn function(name: &str) -> Option<&'static Function> {
    static TABLE: OnceLock<HashMap<&'static str, Function>> = OnceLock::new();
    TABLE.get_or_init(|| read(include_str!("signatures.txt"))).get(name)
}

/// Reads the table: a line that starts at the margin names a function, indented ones are its overloads as
/// `id (arg; arg) -> result` or `id target.(arg; arg) -> result`.
fn read(table: &'static str) -> HashMap<&'static str, Function> {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    let mut current = "";
    for line in table.lines().filter(|line| !line.is_empty()) {
        let Some(overload) = line.strip_prefix("    ") else {
            current = line;
            continue;
        };
        let function =
            functions.entry(current).or_insert_with(|| Function { name: current, overloads: Vec::new() });
        function.overloads.push(read_overload(overload));
    }
    functions
}

fn read_overload(line: &'static str) -> Overload {
    let (id, signature) = line.split_once(' ').expect("an overload has a name and a signature");
    let (call, result) = signature.split_once(" -> ").expect("a signature has a result");
    // The arguments' parenthesis is the last one that opens at depth zero.
    let mut depth = 0;
    let mut open = 0;
    for (at, c) in call.char_indices() {
        match c {
            '(' if depth == 0 => (open, depth) = (at, 1),
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
    }
    let target = call[..open].strip_suffix('.');
    let rest = &call[open + 1..call.len() - 1];
    let rest = rest.split("; ").filter(|arg| !arg.is_empty());
    let args: Vec<Type> = target.into_iter().chain(rest).map(read_type).collect();
    let result = read_type(result);
    Overload { id, member: target.is_some(), args, result }
}

fn read_type(text: &'static str) -> Type {
    if let Some((name, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        return match name {
            "list" => Type::list(read_type(inner)),
            "optional_type" => Type::optional(read_type(inner)),
            "type" => Type::Type(Some(Arc::new(read_type(inner)))),
            _ => {
                let (key, value) = inner.split_once(", ").expect("a map has keys and values");
                Type::map(read_type(key), read_type(value))
            }
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "net.IP" | "net.CIDR" => Type::Opaque(text),
        _ if text.len() == 1 => Type::Param(text.into()),
        _ => Type::object(text, []),
    }
}

/// The type that a name stands for in an expression, such as `int` or `google.protobuf.Timestamp`.
pub(crate) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "int" => Type::Int,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "string" => Type::String,
        "type" => Type::Type(None),
        "uint" => Type::Uint,
        "optional_type" => Type::optional(Type::Dyn),
        "net.IP" => Type::Opaque("net.IP"),
        "net.CIDR" => Type::Opaque("net.CIDR"),
        "kubernetes.URL"
        | "kubernetes.Quantity"
        | "kubernetes.Semver"
        | "kubernetes.NamedFormat"
        | "kubernetes.authorization.Authorizer"
        | "kubernetes.authorization.PathCheck"
        | "kubernetes.authorization.GroupCheck"
        | "kubernetes.authorization.ResourceCheck"
        | "kubernetes.authorization.Decision" => Type::object(name, []),
        _ => return None,
    })
}
