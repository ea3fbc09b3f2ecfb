//! What an expression costs at least and at most, before it runs: upstream's rules, since what they allow to be
//! written must be the same.

mod calls;
mod range;

pub(crate) use calls::selector_cost;
pub use range::CostRange;
pub(crate) use range::{
    AUTHORIZATION_COST, FORMAT_NAME_LENGTH, FORMAT_REGEX_LENGTH, LIST_COST, MAP_COST, REGEX_FACTOR,
    STRING_FACTOR, STRUCT_COST, scale,
};

use crate::ast::{ACCU, Comprehension, Expr, ExprKind, op};
use crate::checker::Checked;
use crate::schema::{DeclType, Kind};
use crate::types::Type;
use crate::value::Value;
use range::{ONE, UNKNOWN, ZERO};
use std::collections::HashMap;

/// The cost of an expression; `root` gives the bounds of the data that its variables hold.
pub(crate) fn estimate(expr: &Expr, checked: &Checked, root: Option<&DeclType>) -> CostRange {
    let mut coster = Coster {
        checked,
        root,
        paths: HashMap::new(),
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    coster.cost(expr)
}

/// The way to data from a variable: its name, then fields, `@items`, `@keys`, `@values`, `@indices`.
type Path = Vec<String>;

/// The sizes of a container's keys (or indices) and values.
#[derive(Clone, Copy, Debug)]
struct Entry {
    list: bool,
    key: CostRange,
    value: CostRange,
}

/// A variable of a comprehension.
#[derive(Clone, Debug)]
struct Local {
    name: String,
    path: Path,
    size: Option<CostRange>,
    entry: Option<Entry>,
}

struct Coster<'c> {
    checked: &'c Checked,
    root: Option<&'c DeclType>,
    paths: HashMap<usize, Path>,
    locals: Vec<Local>,
    sizes: HashMap<usize, CostRange>,
    entries: HashMap<usize, Entry>,
}

/// What is known of an argument.
#[derive(Clone, Debug)]
struct Node<'c> {
    of: &'c Type,
    path: Path,
    size: Option<CostRange>,
    expr: &'c Expr,
}

impl<'c> Coster<'c> {
    fn cost(&mut self, expr: &'c Expr) -> CostRange {
        match &expr.kind {
            ExprKind::Literal(_) => ZERO,
            ExprKind::Ident(name) => {
                let path = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => vec![name.clone()],
                };
                self.paths.insert(expr.id, path);
                ONE
            }
            // Whether a field is there costs nothing beyond what it is asked of.
            ExprKind::Select { operand, test_only: true, .. } => self.cost(operand),
            ExprKind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.checked.type_of(operand), Type::Map(_) | Type::Struct(_) | Type::Param(_)) {
                    sum = sum.plus(ONE);
                }
                let mut path = self.path(operand);
                path.push(field.clone());
                self.paths.insert(expr.id, path);
                sum
            }
            ExprKind::Call { .. } => self.cost_of_call(expr),
            ExprKind::List { elements, .. } => self.cost_of_list(expr, elements),
            ExprKind::Map(entries) => self.cost_of_map(expr, entries),
            ExprKind::Struct { fields, .. } => fields
                .iter()
                .fold(ZERO, |sum, field| sum.plus(self.cost(&field.value)))
                .plus(CostRange::fixed(STRUCT_COST)),
            ExprKind::Comprehension(fold) if is_bind(fold) => self.cost_of_bind(expr, fold),
            ExprKind::Comprehension(fold) => self.cost_of_fold(expr, fold),
        }
    }

    fn cost_of_list(&mut self, expr: &Expr, elements: &'c [Expr]) -> CostRange {
        let mut sum = ZERO;
        let mut size = CostRange::new(if elements.is_empty() { 0 } else { u64::MAX }, 0);
        for element in elements {
            sum = sum.plus(self.cost(element));
            size = size.union(self.size_or_unknown(element));
        }
        self.entries.insert(expr.id, Entry { list: true, key: ONE, value: size });
        sum.plus(CostRange::fixed(LIST_COST))
    }

    fn cost_of_map(&mut self, expr: &Expr, entries: &'c [crate::ast::MapEntry]) -> CostRange {
        let mut sum = ZERO;
        let none = CostRange::new(if entries.is_empty() { 0 } else { u64::MAX }, 0);
        let (mut keys, mut values) = (none, none);
        for entry in entries {
            sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
            keys = keys.union(self.size_or_unknown(&entry.key));
            values = values.union(self.size_or_unknown(&entry.value));
        }
        self.entries.insert(expr.id, Entry { list: false, key: keys, value: values });
        sum.plus(CostRange::fixed(MAP_COST))
    }

    fn cost_of_bind(&mut self, expr: &Expr, fold: &'c Comprehension) -> CostRange {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_accu(fold);
        let sum = sum.plus(self.cost(&fold.result));
        self.locals.pop();
        self.set_size(expr, self.size(&fold.result));
        self.set_entry(expr, self.entry(&fold.result));
        sum
    }

    fn cost_of_fold(&mut self, expr: &Expr, fold: &'c Comprehension) -> CostRange {
        let sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        self.push_accu(fold);
        let before = self.locals.len();
        match &fold.iter2 {
            Some(second) => {
                self.push_iter(&fold.iter, &fold.range, Part::Key);
                self.push_iter(second, &fold.range, Part::Value);
            }
            None => self.push_iter(&fold.iter, &fold.range, Part::Single),
        }
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.locals.truncate(before);
        let sum = sum.plus(self.cost(&fold.result));
        self.locals.pop();
        let count = self.size_or_unknown(&fold.range);
        match &fold.init.kind {
            ExprKind::Literal(_) => self.set_size(expr, self.size(&fold.init)),
            ExprKind::List { .. } | ExprKind::Map(_) => {
                self.set_size(expr, Some(count));
                self.set_entry(expr, self.entry(&fold.step));
            }
            _ => {}
        }
        sum.plus(count.times(step.plus(condition)))
    }

    fn push_accu(&mut self, fold: &'c Comprehension) {
        let path = self.path(&fold.init);
        let (size, entry) = (self.size(&fold.init), self.entry(&fold.init));
        self.locals.push(Local { name: fold.accu.clone(), path, size, entry });
    }

    fn push_iter(&mut self, name: &str, range: &Expr, part: Part) {
        let entry = self.entry(range);
        let list = entry.map_or(matches!(self.checked.type_of(range), Type::List(_)), |entry| entry.list);
        let (step, key) = match (part, list) {
            (Part::Key, true) => ("@indices", true),
            (Part::Key | Part::Single, false) => ("@keys", true),
            (Part::Value | Part::Single, true) => ("@items", false),
            (Part::Value, false) => ("@values", false),
        };
        let mut path = self.path(range);
        path.push(step.into());
        let size = entry.map(|entry| if key { entry.key } else { entry.value });
        self.locals.push(Local { name: name.into(), path, size, entry: None });
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let ExprKind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    /// The size of data by its path. Upstream's estimator passes over the first step, whatever it is.
    fn size_by_path(&self, path: &[String]) -> Option<CostRange> {
        let mut decl = self.root?;
        for step in path.split_first()?.1 {
            decl = match (&decl.kind, step.as_str()) {
                (Kind::List(inner, _) | Kind::Map(inner), "@items" | "@values") => inner,
                // Keys are strings without bounds of their own.
                (Kind::Map(_), "@keys") => return Some(CostRange::new(0, 0)),
                (Kind::Object(object), field) => &object.fields.get(field)?.decl,
                // A map of which every value may be anything of a known size.
                (Kind::Map(inner), _) if matches!(inner.kind, Kind::Dyn) => inner,
                _ => return None,
            };
        }
        Some(CostRange::new(0, decl.max_elements))
    }

    fn size(&self, expr: &Expr) -> Option<CostRange> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let literal = match &expr.kind {
            ExprKind::Literal(Value::String(text)) => Some(text.chars().count() as u64),
            ExprKind::Literal(Value::Bytes(bytes)) => Some(bytes.len() as u64),
            ExprKind::Literal(_) => Some(1),
            ExprKind::List { elements, .. } => Some(elements.len() as u64),
            ExprKind::Map(entries) => Some(entries.len() as u64),
            _ => None,
        };
        literal
            .map(CostRange::fixed)
            .or_else(|| self.size_by_path(&self.path(expr)))
            .or_else(|| is_scalar(self.checked.type_of(expr)).then_some(ONE))
            .or_else(|| match &expr.kind {
                ExprKind::Ident(name) => self.local(name).and_then(|local| local.size),
                _ => None,
            })
    }

    fn size_or_unknown(&self, expr: &Expr) -> CostRange {
        self.size(expr).unwrap_or(UNKNOWN)
    }

    fn set_size(&mut self, expr: &Expr, size: Option<CostRange>) {
        if let Some(size) = size {
            self.sizes.insert(expr.id, size);
        }
    }

    fn entry(&self, expr: &Expr) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        match &expr.kind {
            ExprKind::Ident(name) => self.local(name).and_then(|local| local.entry),
            _ => None,
        }
    }

    fn set_entry(&mut self, expr: &Expr, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.entries.insert(expr.id, entry);
        }
    }

    fn node(&self, expr: &'c Expr) -> Node<'c> {
        let mut path = self.path(expr);
        if path.first().is_some_and(|first| first == ACCU) {
            path.clear();
        }
        Node { of: self.checked.type_of(expr), path, size: self.size(expr), expr }
    }

    fn cost_of_call(&mut self, expr: &'c Expr) -> CostRange {
        let ExprKind::Call { function, target, args } = &expr.kind else { return ZERO };
        if function == "dyn" {
            let cost = self.cost(&args[0]);
            self.set_size(expr, self.size(&args[0]));
            self.set_entry(expr, self.entry(&args[0]));
            return cost.plus(ONE);
        }
        let costs: Vec<CostRange> = args.iter().map(|arg| self.cost(arg)).collect();
        let nodes: Vec<Node<'c>> = args.iter().map(|arg| self.node(arg)).collect();
        let overloads = self.checked.overloads_of(expr);
        if overloads.is_empty() {
            return ZERO;
        }
        let mut sum = ZERO;
        let mut receiver = None;
        if let Some(target) = target {
            sum = self.cost(target);
            receiver = Some(self.node(target));
        }
        let mut cost = CostRange::new(u64::MAX, 0);
        let mut size: Option<CostRange> = None;
        for overload in overloads {
            let call = calls::Call {
                expr,
                function,
                overload,
                target: receiver.as_ref(),
                args: &nodes,
                costs: &costs,
            };
            let (one, result) = self.cost_of_overload(&call);
            cost = cost.union(one);
            if let Some(result) = result {
                size = Some(size.map_or(result, |size| size.union(result)));
            }
            let step = match *overload {
                "index_list" => Some("@items"),
                "index_map" => Some("@values"),
                _ => None,
            };
            if let Some(step) = step {
                size = self.entry(&args[0]).map(|entry| entry.value);
                let mut path = self.path(&args[0]);
                path.push(step.into());
                self.paths.insert(expr.id, path);
            }
            size = size.or_else(|| self.size(expr));
        }
        self.set_size(expr, size);
        sum.plus(cost)
    }
}

/// What of a range a variable goes over.
#[derive(Clone, Copy)]
enum Part {
    Key,
    Value,
    /// A list's items or a map's keys.
    Single,
}

/// Whether the fold only gives a name to a value.
pub(crate) fn is_bind(fold: &Comprehension) -> bool {
    let empty = matches!(&fold.range.kind, ExprKind::List { elements, .. } if elements.is_empty());
    empty && matches!(fold.condition.kind, ExprKind::Literal(Value::Bool(false))) && fold.accu != ACCU
}

fn is_scalar(of: &Type) -> bool {
    match of {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}

/// Whether the function is one of the logical operators, whose second operand may not be looked at.
fn is_logic(function: &str) -> bool {
    matches!(function, op::AND | op::OR)
}
