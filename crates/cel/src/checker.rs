//! The type of each part of an expression, and which overloads its calls may use.

use crate::ast::{Comprehension, Expr, ExprKind, MapEntry, StructField, op};
use crate::declarations::{Function, function, type_named};
use crate::environment::Environment;
use crate::error::{CompileErrors, Issue};
use crate::types::{Type, signature};
use crate::unify::{Substitutions, most_general};

/// What the checker found, by the ids of nodes.
#[derive(Debug)]
pub(crate) struct Checked {
    pub types: Vec<Type>,
    /// The overloads that a call may use.
    pub overloads: Vec<Vec<&'static str>>,
    /// The types that names stand for.
    pub type_names: Vec<Option<Type>>,
}

impl Checked {
    pub fn type_of(&self, expr: &Expr) -> &Type {
        &self.types[expr.id]
    }

    pub fn overloads_of(&self, expr: &Expr) -> &[&'static str] {
        &self.overloads[expr.id]
    }
}

/// Checks an expression; its names and calls are rewritten to what they were found to mean.
pub(crate) fn check(
    root: &mut Expr,
    places: &[(i64, i64)],
    environment: &Environment,
    text: &str,
) -> Result<Checked, CompileErrors> {
    let mut checker = Checker {
        environment,
        places,
        subs: Substitutions::default(),
        types: vec![None; places.len()],
        overloads: vec![Vec::new(); places.len()],
        type_names: vec![None; places.len()],
        scopes: Vec::new(),
        issues: Vec::new(),
    };
    checker.check(root);
    if !checker.issues.is_empty() {
        return Err(CompileErrors::new(checker.issues, text));
    }
    let subs = &checker.subs;
    let types = checker.types.iter().map(|of| of.as_ref().map_or(Type::Dyn, |of| subs.resolve(of, true)));
    Ok(Checked { types: types.collect(), overloads: checker.overloads, type_names: checker.type_names })
}

struct Checker<'e> {
    environment: &'e Environment,
    places: &'e [(i64, i64)],
    subs: Substitutions,
    types: Vec<Option<Type>>,
    overloads: Vec<Vec<&'static str>>,
    type_names: Vec<Option<Type>>,
    /// Variables of the comprehensions around, innermost last.
    scopes: Vec<(String, Type)>,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn report(&mut self, id: usize, message: String) {
        let (line, column) = self.places[id];
        self.issues.push(Issue { line, column, message });
    }

    fn mismatch(&mut self, id: usize, expected: &Type, found: &Type) {
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn undeclared(&mut self, expr: &Expr, name: &str) {
        self.types[expr.id] = Some(Type::Error);
        self.report(expr.id, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.types[expr.id].clone().unwrap_or(Type::Error)
    }

    fn resolved(&self, expr: &Expr) -> Type {
        self.subs.resolve(&self.type_of(expr), false)
    }

    fn check(&mut self, expr: &mut Expr) {
        let of = match &mut expr.kind {
            ExprKind::Literal(value) => value.type_of(),
            ExprKind::Ident(name) => {
                let name = name.clone();
                return self.check_ident(expr, &name);
            }
            ExprKind::Select { .. } => return self.check_select(expr),
            ExprKind::Call { function, .. } if function == op::OPT_SELECT => {
                return self.check_optional_select(expr);
            }
            ExprKind::Call { .. } => return self.check_call(expr),
            ExprKind::List { elements, optional } => self.check_list(elements, optional),
            ExprKind::Map(entries) => self.check_map(entries),
            ExprKind::Struct { .. } => return self.check_struct(expr),
            ExprKind::Comprehension(fold) => self.check_comprehension(fold),
        };
        self.types[expr.id] = Some(of);
    }

    /// What a name stands for: the type of a variable, or the type of a type. The second is set for types.
    fn lookup(&self, name: &str) -> Option<(Type, Option<Type>)> {
        if let Some((_, of)) = self.scopes.iter().rev().find(|(known, _)| known == name) {
            return Some((of.clone(), None));
        }
        if let Some(of) = self.environment.variable(name) {
            return Some((of, None));
        }
        let named = self.environment.object_type(name).or_else(|| type_named(name))?;
        Some((Type::Type(Some(named.clone().into())), Some(named)))
    }

    fn check_ident(&mut self, expr: &mut Expr, name: &str) {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let Some((of, named)) = self.lookup(plain) else {
            return self.undeclared(expr, name);
        };
        self.types[expr.id] = Some(of);
        self.type_names[expr.id] = named;
        expr.kind = ExprKind::Ident(plain.to_owned());
    }

    fn check_select(&mut self, expr: &mut Expr) {
        if let Some(name) = expr.qualified_name()
            && let Some((of, named)) = self.lookup(name.strip_prefix('.').unwrap_or(&name))
        {
            self.types[expr.id] = Some(of);
            self.type_names[expr.id] = named;
            expr.kind = ExprKind::Ident(name);
            return;
        }
        let ExprKind::Select { operand, field, test_only } = &mut expr.kind else { return };
        let found = self.check_field(expr.id, operand, field, false);
        let of = if *test_only { Type::Bool } else { self.subs.resolve(&found, false) };
        self.types[expr.id] = Some(of);
    }

    fn check_optional_select(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::Call { args, .. } = &mut expr.kind else { return };
        let [operand, field] = args.as_mut_slice() else { return };
        let field = field.as_text().unwrap_or_default().to_owned();
        let found = self.check_field(id, operand, &field, true);
        self.types[id] = Some(self.subs.resolve(&found, false));
        self.overloads[id] = vec!["select_optional_field"];
    }

    fn check_field(&mut self, id: usize, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let of = self.resolved(operand);
        let (target, was_optional) = of.unwrap_optional();
        let result = match target {
            Type::Map(of) => of.1.clone(),
            Type::Struct(object) => match object.field(field) {
                Some(of) => of,
                None => {
                    self.report(id, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.subs.assign(&Type::Dyn, target);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.report(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(result) } else { result }
    }

    /// A function of the environment; some there are only where patches are made.
    fn function(&self, name: &str) -> Option<&'static Function> {
        function(name).filter(|found| found.name != "jsonpatch.escapeKey" || self.environment.constructs())
    }

    fn check_call(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::Call { function: name, target, args } = &mut expr.kind else { return };
        for arg in args.iter_mut() {
            self.check(arg);
        }
        let Some(receiver) = target else {
            let name = name.clone();
            let Some(found) = self.function(name.strip_prefix('.').unwrap_or(&name)) else {
                return self.undeclared(expr, &name);
            };
            let types = args.iter().map(|arg| (arg.id, self.type_of(arg))).collect();
            return self.resolve_overload(id, found, types, false);
        };
        if let Some(prefix) = receiver.qualified_name() {
            let whole = format!("{prefix}.{name}");
            if let Some(found) = self.function(whole.strip_prefix('.').unwrap_or(&whole)) {
                *name = found.name.to_owned();
                *target = None;
                let types = args.iter().map(|arg| (arg.id, self.type_of(arg))).collect();
                return self.resolve_overload(id, found, types, false);
            }
        }
        self.check(receiver);
        let Some(found) = self.function(name) else {
            let name = name.clone();
            return self.undeclared(expr, &name);
        };
        let all = std::iter::once(&**receiver).chain(args.iter());
        let types = all.map(|arg| (arg.id, self.type_of(arg))).collect();
        self.resolve_overload(id, found, types, true);
    }

    /// Finds the overloads that take these arguments; the call's type is theirs, or dyn where they differ.
    fn resolve_overload(&mut self, id: usize, function: &Function, args: Vec<(usize, Type)>, member: bool) {
        if matches!(function.name, op::AND | op::OR) {
            return self.resolve_logic(id, function, &args);
        }
        let types: Vec<Type> = args.into_iter().map(|(_, of)| of).collect();
        let mut result: Option<Type> = None;
        let mut found = Vec::new();
        for overload in function.overloads.iter().filter(|overload| overload.member == member) {
            let mut fresh = Fresh { names: Vec::new() };
            let wanted: Vec<Type> =
                overload.args.iter().map(|of| fresh.instance(of, &mut self.subs)).collect();
            let gives = fresh.instance(&overload.result, &mut self.subs);
            if !self.subs.assign_all(&types, &wanted) {
                continue;
            }
            found.push(overload.id);
            let gives = self.subs.resolve(&gives, false);
            result = Some(match result {
                None => gives,
                Some(Type::Dyn) => Type::Dyn,
                Some(before) if before == gives => before,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(result) => {
                self.types[id] = Some(result);
                self.overloads[id] = found;
            }
            None => {
                let types: Vec<Type> = types.iter().map(|of| self.subs.resolve(of, true)).collect();
                let call = signature(&types, member);
                self.report(
                    id,
                    format!("found no matching overload for '{}' applied to '{call}'", function.name),
                );
                self.types[id] = Some(Type::Error);
            }
        }
    }

    fn resolve_logic(&mut self, id: usize, function: &Function, args: &[(usize, Type)]) {
        let mut result = Type::Bool;
        for (arg, of) in args {
            if !self.subs.assign(of, &Type::Bool) {
                let of = self.subs.resolve(of, false);
                self.mismatch(*arg, &Type::Bool, &of);
                result = Type::Error;
            }
        }
        self.types[id] = Some(result);
        self.overloads[id] = function.overloads.iter().map(|overload| overload.id).collect();
    }

    /// The type of an entry written with `?` is that of the optional's value.
    fn unwrapped(&mut self, expr: &Expr, of: Type, optional: bool) -> Type {
        if !optional {
            return of;
        }
        let (inner, was_optional) = of.unwrap_optional();
        if !was_optional && *inner != Type::Dyn {
            self.mismatch(expr.id, &Type::optional(inner.clone()), inner);
        }
        inner.clone()
    }

    /// The type of what is one or the other; where these do not fit each other, any. Literals of mixed types are
    /// refused later, where they are not to be formatted.
    fn join(&mut self, before: Option<Type>, now: Type) -> Type {
        let Some(before) = before else { return now };
        if self.subs.assign(&before, &now) { most_general(&before, &now) } else { Type::Dyn }
    }

    fn check_list(&mut self, elements: &mut [Expr], optional: &[bool]) -> Type {
        let mut joined = None;
        for (element, optional) in elements.iter_mut().zip(optional) {
            self.check(element);
            let of = self.type_of(element);
            let of = self.unwrapped(element, of, *optional);
            joined = Some(self.join(joined, of));
        }
        Type::list(joined.unwrap_or_else(|| self.subs.variable()))
    }

    fn check_map(&mut self, entries: &mut [MapEntry]) -> Type {
        let mut joined: Option<(Type, Type)> = None;
        for entry in entries {
            self.check(&mut entry.key);
            let (keys, values) = joined.map_or((None, None), |(keys, values)| (Some(keys), Some(values)));
            let key = self.type_of(&entry.key);
            let key = self.join(keys, key);
            self.check(&mut entry.value);
            let value = self.type_of(&entry.value);
            let value = self.unwrapped(&entry.value, value, entry.optional);
            joined = Some((key, self.join(values, value)));
        }
        let (key, value) = joined.unwrap_or_else(|| (self.subs.variable(), self.subs.variable()));
        Type::map(key, value)
    }

    fn check_struct(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::Struct { name, fields } = &mut expr.kind else { return };
        let plain = name.strip_prefix('.').unwrap_or(name).to_owned();
        let Some((of, named)) = self.lookup(&plain) else {
            let name = name.clone();
            return self.undeclared(expr, &name);
        };
        let object = match named {
            Some(object @ Type::Struct(_)) => object,
            Some(other) => {
                self.report(id, format!("'{}' is not a message type", other.name()));
                Type::Error
            }
            None => {
                self.report(id, format!("'{}' is not a type", of.name()));
                Type::Error
            }
        };
        *name = plain;
        for field in fields {
            self.check_struct_field(&object, name, field);
        }
        self.types[id] = Some(object);
    }

    fn check_struct_field(&mut self, object: &Type, name: &str, field: &mut StructField) {
        self.check(&mut field.value);
        let wanted = match object {
            Type::Struct(object) => object.field(&field.name).unwrap_or_else(|| {
                self.report(field.id, format!("undefined field '{}'", field.name));
                Type::Error
            }),
            _ => {
                self.report(field.id, format!("unexpected failed resolution of '{name}'"));
                Type::Error
            }
        };
        let value = self.type_of(&field.value);
        let value = self.unwrapped(&field.value, value, field.optional);
        if !self.subs.assign(&wanted, &value) {
            let value = self.subs.resolve(&value, false);
            self.report(
                field.id,
                format!(
                    "expected type of field '{}' is '{wanted}' but provided type is '{value}'",
                    field.name
                ),
            );
        }
    }

    fn check_comprehension(&mut self, fold: &mut Comprehension) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.resolved(&fold.range);
        let accu = self.type_of(&fold.init);
        let two = fold.iter2.is_some();
        let (first, second) = match &range {
            Type::List(element) if two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(of) => (of.0.clone(), of.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.subs.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        self.scopes.push((fold.iter.clone(), first));
        if let Some(name) = &fold.iter2 {
            self.scopes.push((name.clone(), second));
        }
        self.check(&mut fold.condition);
        self.assert(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.assert(&fold.step, &accu);
        self.scopes.truncate(outside + 1);
        self.check(&mut fold.result);
        self.scopes.truncate(outside);
        self.resolved(&fold.result)
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let of = self.type_of(expr);
        if !self.subs.assign(wanted, &of) {
            self.mismatch(expr.id, wanted, &of);
        }
    }
}

/// Replaces the parameters of one overload by new variables.
struct Fresh {
    names: Vec<(std::sync::Arc<str>, Type)>,
}

impl Fresh {
    fn instance(&mut self, of: &Type, subs: &mut Substitutions) -> Type {
        match of {
            Type::Param(name) => {
                if let Some((_, known)) = self.names.iter().find(|(known, _)| known == name) {
                    return known.clone();
                }
                let variable = subs.variable();
                self.names.push((name.clone(), variable.clone()));
                variable
            }
            Type::List(inner) => Type::list(self.instance(inner, subs)),
            Type::Optional(inner) => Type::optional(self.instance(inner, subs)),
            Type::Type(Some(inner)) => Type::Type(Some(self.instance(inner, subs).into())),
            Type::Map(of) => Type::map(self.instance(&of.0, subs), self.instance(&of.1, subs)),
            other => other.clone(),
        }
    }
}
