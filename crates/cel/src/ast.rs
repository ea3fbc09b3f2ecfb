//! Expressions as trees, after macros were expanded.

use crate::value::Value;

/// An expression. The id is its place in the tables of positions, types and references.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub id: usize,
    pub kind: ExprKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    /// Null, a bool, a number, a string or bytes.
    Literal(Value<'static>),
    Ident(String),
    Select {
        operand: Box<Expr>,
        field: String,
        test_only: bool,
    },
    Call {
        function: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    List {
        elements: Vec<Expr>,
        optional: Vec<bool>,
    },
    Map(Vec<MapEntry>),
    Struct {
        name: String,
        fields: Vec<StructField>,
    },
    Comprehension(Box<Comprehension>),
}

#[derive(Clone, Debug)]
pub(crate) struct MapEntry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct StructField {
    pub id: usize,
    pub name: String,
    pub value: Expr,
    pub optional: bool,
}

/// What the macros over lists and maps expand to: a fold of `range` into `accu`.
#[derive(Clone, Debug)]
pub(crate) struct Comprehension {
    pub range: Expr,
    pub iter: String,
    /// The second variable: a list's element beside its index, a map's value beside its key.
    pub iter2: Option<String>,
    pub accu: String,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// The accumulator's name, which no source text can spell.
pub(crate) const ACCU: &str = "@result";

/// The names of the operators' functions.
pub(crate) mod op {
    pub const CONDITIONAL: &str = "_?_:_";
    pub const AND: &str = "_&&_";
    pub const OR: &str = "_||_";
    pub const NOT: &str = "!_";
    pub const NEGATE: &str = "-_";
    pub const ADD: &str = "_+_";
    pub const EQUALS: &str = "_==_";
    pub const NOT_EQUALS: &str = "_!=_";
    pub const IN: &str = "@in";
    pub const INDEX: &str = "_[_]";
    pub const OPT_INDEX: &str = "_[?_]";
    pub const OPT_SELECT: &str = "_?._";
    pub const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub const MAP_INSERT: &str = "cel.@mapInsert";

    /// The function of a binary operator as it is written.
    pub fn binary(text: &str) -> Option<&'static str> {
        Some(match text {
            "+" => ADD,
            "-" => "_-_",
            "*" => "_*_",
            "/" => "_/_",
            "%" => "_%_",
            "==" => EQUALS,
            "!=" => NOT_EQUALS,
            "<" => "_<_",
            "<=" => "_<=_",
            ">" => "_>_",
            ">=" => "_>=_",
            "in" => IN,
            _ => return None,
        })
    }
}

impl Expr {
    /// `a.b.c` as a name with dots, where the expression is one.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name.clone()),
            ExprKind::Select { operand, field, test_only: false } => {
                Some(format!("{}.{field}", operand.qualified_name()?))
            }
            _ => None,
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            ExprKind::Literal(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// How many levels the tree has, counted no further than `limit`.
    pub fn height(&self, limit: usize) -> usize {
        if limit == 0 {
            return 1;
        }
        let below = |exprs: &mut dyn Iterator<Item = &Expr>| {
            exprs.map(|expr| expr.height(limit - 1)).max().unwrap_or(0)
        };
        1 + match &self.kind {
            ExprKind::Literal(_) | ExprKind::Ident(_) => 0,
            ExprKind::Select { operand, .. } => operand.height(limit - 1),
            ExprKind::Call { target, args, .. } => below(&mut target.as_deref().into_iter().chain(args)),
            ExprKind::List { elements, .. } => below(&mut elements.iter()),
            ExprKind::Map(entries) => below(&mut entries.iter().flat_map(|entry| [&entry.key, &entry.value])),
            ExprKind::Struct { fields, .. } => below(&mut fields.iter().map(|field| &field.value)),
            ExprKind::Comprehension(fold) => {
                below(&mut [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter())
            }
        }
    }
}
