//! Checks of literals once types are known: durations, times and patterns must be valid, and the elements of one list
//! or map must be of one type.

use crate::ast::{Expr, ExprKind};
use crate::checker::Checked;
use crate::error::{CompileErrors, Issue};
use crate::pattern::compile_pattern;
use crate::time::{Duration, Timestamp};
use crate::types::Type;
use crate::value::Value;

/// Checks all literals of an expression.
pub(crate) fn check(
    root: &Expr,
    checked: &Checked,
    places: &[(i64, i64)],
    text: &str,
) -> Result<(), CompileErrors> {
    let mut walk = Walk { checked, places, issues: Vec::new() };
    walk.expr(root);
    match walk.issues.is_empty() {
        true => Ok(()),
        false => Err(CompileErrors::new(walk.issues, text)),
    }
}

struct Walk<'c> {
    checked: &'c Checked,
    places: &'c [(i64, i64)],
    issues: Vec<Issue>,
}

impl Walk<'_> {
    fn report(&mut self, id: usize, message: String) {
        let (line, column) = self.places[id];
        self.issues.push(Issue { line, column, message });
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Literal(_) | ExprKind::Ident(_) => {}
            ExprKind::Select { operand, .. } => self.expr(operand),
            ExprKind::Call { function, target, args } => {
                self.argument(function, args);
                target.as_deref().into_iter().chain(args).for_each(|arg| self.expr(arg));
            }
            ExprKind::List { elements, optional } => {
                self.list(elements, optional);
                elements.iter().for_each(|element| self.expr(element));
            }
            ExprKind::Map(entries) => {
                let keys = entries.iter().map(|entry| (&entry.key, false));
                self.same(&mut keys.into_iter(), false);
                let values = entries.iter().map(|entry| (&entry.value, entry.optional));
                self.same(&mut values.into_iter(), false);
                for entry in entries {
                    self.expr(&entry.key);
                    self.expr(&entry.value);
                }
            }
            ExprKind::Struct { fields, .. } => fields.iter().for_each(|field| self.expr(&field.value)),
            ExprKind::Comprehension(fold) => {
                for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                    self.expr(part);
                }
            }
        }
    }

    fn argument(&mut self, function: &str, args: &[Expr]) {
        let Some(Expr { id, kind: ExprKind::Literal(value) }) = args.first() else { return };
        let valid = match (function, value) {
            ("duration", Value::String(text)) => Duration::parse(text).is_some(),
            ("timestamp", Value::String(text)) => Timestamp::parse(text).is_some(),
            ("timestamp", Value::Int(seconds)) => Timestamp::from_seconds(*seconds).is_some(),
            ("matches", Value::String(text)) => compile_pattern(text).is_ok(),
            _ => true,
        };
        if !valid {
            self.report(*id, format!("invalid {function} argument"));
        }
    }

    fn list(&mut self, elements: &[Expr], optional: &[bool]) {
        self.same(&mut elements.iter().zip(optional.iter().copied()), true);
    }

    /// Whether all are of the first one's type; a list's first fault is enough.
    fn same(&mut self, all: &mut dyn Iterator<Item = (&Expr, bool)>, once: bool) {
        let mut first: Option<Type> = None;
        for (expr, optional) in all {
            let of = self.checked.type_of(expr);
            let of = if optional { of.unwrap_optional().0 } else { of };
            match &first {
                None => first = Some(of.clone()),
                Some(first) if equivalent(first, of) => {}
                Some(first) => {
                    let message = format!("expected type '{first}' but found '{of}'");
                    self.report(expr.id, message);
                    if once {
                        break;
                    }
                }
            }
        }
    }
}

fn equivalent(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => equivalent(a, b),
        (Type::Map(a), Type::Map(b)) => equivalent(&a.0, &b.0) && equivalent(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
