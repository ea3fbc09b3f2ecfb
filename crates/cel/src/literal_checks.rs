//! Checks of literals once types are known: durations, times and patterns must be valid, and the elements of one list
//! or map must be of one type.

use crate::ast::{Expr, ExprKind};
use crate::checker::Checked;
use crate::error::{CompileErrors, Issue};
use crate::functions::{Piece, next_piece, unfit};
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
    let mut walk = Walk { checked, places, formatted: 0, issues: Vec::new() };
    walk.expr(root);
    match walk.issues.is_empty() {
        true => Ok(()),
        false => Err(CompileErrors::new(walk.issues, text)),
    }
}

struct Walk<'c> {
    checked: &'c Checked,
    places: &'c [(i64, i64)],
    /// How many calls of `format` are around: their literals may be of mixed types.
    formatted: usize,
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
                let format = function == "format";
                if let (true, Some(target)) = (format, target) {
                    self.format(expr.id, target, args);
                }
                self.formatted += usize::from(format);
                target.as_deref().into_iter().chain(args).for_each(|arg| self.expr(arg));
                self.formatted -= usize::from(format);
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

    /// Whether the clauses of a literal template fit the literal list of what is to be formatted.
    fn format(&mut self, id: usize, template: &Expr, args: &[Expr]) {
        let (Some(template), Some(ExprKind::List { elements, .. })) =
            (template.as_text(), args.first().map(|arg| &arg.kind))
        else {
            return;
        };
        let mut rest = template;
        let mut next = 0;
        while !rest.is_empty() {
            let more = || match next < elements.len() {
                true => Ok(()),
                false => Err(format!("index {next} out of range")),
            };
            match next_piece(&mut rest, more) {
                Ok(Piece::Text(_)) => {}
                Ok(Piece::Clause { verb, .. }) => {
                    if let Some(bad) = self.unformattable(verb, &elements[next]) {
                        let of = self.checked.type_of(bad).name();
                        let message = format!("error during formatting: {}", unfit(verb, &of));
                        return self.report(bad.id, message);
                    }
                    next += 1;
                }
                Err(message) => return self.report(id, message),
            }
        }
        if elements.len() > next {
            let given = elements.len();
            self.report(
                id,
                format!("too many arguments supplied to string.format (expected {next}, got {given})"),
            );
        }
    }

    /// The part of an argument that a clause does not take.
    fn unformattable<'x>(&self, verb: char, expr: &'x Expr) -> Option<&'x Expr> {
        let of = self.checked.type_of(expr);
        let fits = match verb {
            _ if *of == Type::Dyn => true,
            's' => !matches!(of, Type::Optional(_) | Type::Opaque(_) | Type::Struct(_)),
            'd' | 'o' => matches!(of, Type::Int | Type::Uint),
            'f' | 'e' => matches!(of, Type::Double | Type::String),
            'b' => matches!(of, Type::Int | Type::Uint | Type::Bool),
            _ => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
        };
        if !fits {
            return Some(expr);
        }
        match &expr.kind {
            ExprKind::List { elements, .. } if verb == 's' => {
                elements.iter().find_map(|element| self.unformattable(verb, element))
            }
            ExprKind::Map(entries) if verb == 's' => entries
                .iter()
                .flat_map(|entry| [&entry.key, &entry.value])
                .find_map(|part| self.unformattable(verb, part)),
            _ => None,
        }
    }

    fn list(&mut self, elements: &[Expr], optional: &[bool]) {
        self.same(&mut elements.iter().zip(optional.iter().copied()), true);
    }

    /// Whether all are of the first one's type; a list's first fault is enough.
    fn same(&mut self, all: &mut dyn Iterator<Item = (&Expr, bool)>, once: bool) {
        if self.formatted > 0 {
            return;
        }
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
