//! Calls that are not calls: `has`, and the folds over lists and maps.

use crate::ast::{ACCU, Comprehension, Expr, ExprKind, op};
use crate::parser::{Binds, Parse, Parser};
use crate::value::Value;

/// Copies of an expression may hold this many nodes in all: nested macros that copy their target would double it
/// again and again.
const MAX_DUPLICATES: usize = 50_000;

/// A fault of a macro's argument: the node it is at, and what is wrong.
type Fault = (usize, String);

impl Parser<'_> {
    /// A call, or what its macro makes of it.
    pub(crate) fn call_or_macro(
        &mut self,
        at: usize,
        function: &str,
        target: Option<Expr>,
        args: Vec<Expr>,
    ) -> Parse<Expr> {
        let call = ExprKind::Call { function: function.into(), target: None, args: Vec::new() };
        let mut call = self.node(at, call);
        let place = self.place_of(call.id);
        let mut builder = Builder { parser: self, place };
        let expanded = match (target, function, args.len()) {
            (None, "has", 1) => builder.has(args),
            (Some(target), "all" | "exists" | "exists_one", 2 | 3) | (Some(target), "existsOne", 3) => {
                builder.quantifier(function, target, args)
            }
            (Some(target), "map", 2 | 3) | (Some(target), "filter", 2) => {
                builder.list_fold(function, target, args)
            }
            (Some(target), "transformList" | "transformMap" | "transformMapEntry", 3 | 4) => {
                builder.transform(function, target, args)
            }
            (Some(target), "optMap" | "optFlatMap", 2) => builder.optional(function, target, args)?,
            (Some(target), "sortBy", 2) => builder.sort_by(target, args),
            (Some(Expr { kind: ExprKind::Ident(name), .. }), "bind", 3)
                if name == "cel" && builder.parser.binds == Binds::Yes =>
            {
                builder.named(args)
            }
            (target, _, _) => {
                let target = target.map(Box::new);
                call.kind = ExprKind::Call { function: function.into(), target, args };
                return Ok(call);
            }
        };
        Ok(expanded.unwrap_or_else(|(id, message)| {
            self.report_at(id, message);
            call
        }))
    }
}

/// Makes nodes that all stand where the macro's call stands.
struct Builder<'p, 't> {
    parser: &'p mut Parser<'t>,
    place: (i64, i64),
}

impl Builder<'_, '_> {
    fn node(&mut self, kind: ExprKind) -> Expr {
        self.parser.node_at(self.place, kind)
    }

    fn literal(&mut self, value: Value<'static>) -> Expr {
        self.node(ExprKind::Literal(value))
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(ExprKind::Ident(name.into()))
    }

    fn accu(&mut self) -> Expr {
        self.ident(ACCU)
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(ExprKind::Call { function: function.into(), target: None, args })
    }

    fn member(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        let target = Some(Box::new(target));
        self.node(ExprKind::Call { function: function.into(), target, args })
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        let optional = vec![false; elements.len()];
        self.node(ExprKind::List { elements, optional })
    }

    fn fold(&mut self, range: Expr, names: (String, Option<String>), parts: [Expr; 4]) -> Expr {
        let [init, condition, step, result] = parts;
        let (iter, iter2) = names;
        let accu = ACCU.to_owned();
        let fold = Comprehension { range, iter, iter2, accu, init, condition, step, result };
        self.node(ExprKind::Comprehension(Box::new(fold)))
    }

    /// `name` bound to a value in an expression: a fold over nothing.
    fn bind(&mut self, name: &str, value: Expr, result: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Value::Bool(false));
        let step = self.ident(name);
        let fold = Comprehension {
            range,
            iter: "#unused".into(),
            iter2: None,
            accu: name.into(),
            init: value,
            condition,
            step,
            result,
        };
        self.node(ExprKind::Comprehension(Box::new(fold)))
    }

    fn named(&mut self, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let result = args.pop().expect("bind has three arguments");
        let value = args.pop().expect("bind has three arguments");
        match &args[0].kind {
            ExprKind::Ident(name) => Ok(self.bind(name, value, result)),
            _ => Err((args[0].id, "cel.bind() variable names must be simple identifiers".into())),
        }
    }

    fn has(&mut self, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let argument = args.remove(0);
        match argument.kind {
            ExprKind::Select { operand, field, test_only: false } => {
                Ok(self.node(ExprKind::Select { operand, field, test_only: true }))
            }
            _ => Err((argument.id, "invalid argument to has() macro".into())),
        }
    }

    fn quantifier(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let predicate = args.pop().expect("a quantifier has at least two arguments");
        let names = variables(&args, "argument must be a simple name")?;
        let parts = match function {
            "all" => {
                let accu = self.accu();
                let condition = self.call(op::NOT_STRICTLY_FALSE, vec![accu]);
                let accu = self.accu();
                let step = self.call(op::AND, vec![accu, predicate]);
                [self.literal(Value::Bool(true)), condition, step, self.accu()]
            }
            "exists" => {
                let accu = self.accu();
                let not = self.call(op::NOT, vec![accu]);
                let condition = self.call(op::NOT_STRICTLY_FALSE, vec![not]);
                let accu = self.accu();
                let step = self.call(op::OR, vec![accu, predicate]);
                [self.literal(Value::Bool(false)), condition, step, self.accu()]
            }
            _ => {
                let (accu, one) = (self.accu(), self.literal(Value::Int(1)));
                let more = self.call(op::ADD, vec![accu, one]);
                let same = self.accu();
                let step = self.call(op::CONDITIONAL, vec![predicate, more, same]);
                let (accu, one) = (self.accu(), self.literal(Value::Int(1)));
                let result = self.call(op::EQUALS, vec![accu, one]);
                [self.literal(Value::Int(0)), self.literal(Value::Bool(true)), step, result]
            }
        };
        Ok(self.fold(target, names, parts))
    }

    /// `accu + [element]`, where the filter lets it in.
    fn append(&mut self, element: Expr, filter: Option<Expr>) -> [Expr; 4] {
        let (accu, more) = (self.accu(), self.list(vec![element]));
        let step = self.call(op::ADD, vec![accu, more]);
        let step = self.filtered(step, filter);
        [self.list(Vec::new()), self.literal(Value::Bool(true)), step, self.accu()]
    }

    fn filtered(&mut self, step: Expr, filter: Option<Expr>) -> Expr {
        match filter {
            Some(filter) => {
                let same = self.accu();
                self.call(op::CONDITIONAL, vec![filter, step, same])
            }
            None => step,
        }
    }

    fn list_fold(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let last = args.pop().expect("a fold has at least two arguments");
        let names = variables(&args[..1], "argument is not an identifier")?;
        let parts = match function {
            "filter" => self.append(args.remove(0), Some(last)),
            _ => {
                let filter = (args.len() == 2).then(|| args.remove(1));
                self.append(last, filter)
            }
        };
        Ok(self.fold(target, names, parts))
    }

    fn transform(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        let last = args.pop().expect("a transformation has at least three arguments");
        let filter = (args.len() == 3).then(|| args.remove(2));
        let names = variables(&args, "argument must be a simple name")?;
        if function == "transformList" {
            let parts = self.append(last, filter);
            return Ok(self.fold(target, names, parts));
        }
        let mut inserted = vec![self.accu()];
        if function == "transformMap" {
            inserted.push(self.ident(&names.0));
        }
        inserted.push(last);
        let step = self.call(op::MAP_INSERT, inserted);
        let step = self.filtered(step, filter);
        let init = self.node(ExprKind::Map(Vec::new()));
        let parts = [init, self.literal(Value::Bool(true)), step, self.accu()];
        Ok(self.fold(target, names, parts))
    }

    fn optional(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Parse<Result<Expr, Fault>> {
        let mapped = args.pop().expect("both macros have two arguments");
        let ExprKind::Ident(name) = &args[0].kind else {
            let message = match function {
                "optMap" => "optMap() variable name must be a simple identifier",
                _ => "optFlatMap() variable name must be a simple identifier",
            };
            return Ok(Err((args[0].id, message.into())));
        };
        let copy = self.copy(&target)?;
        let present = self.member("hasValue", target, Vec::new());
        let value = self.member("value", copy, Vec::new());
        let bound = self.bind(name, value, mapped);
        let then = match function {
            "optMap" => self.call("optional.of", vec![bound]),
            _ => bound,
        };
        let otherwise = self.call("optional.none", Vec::new());
        Ok(Ok(self.call(op::CONDITIONAL, vec![present, then, otherwise])))
    }

    fn sort_by(&mut self, target: Expr, mut args: Vec<Expr>) -> Result<Expr, Fault> {
        const INPUT: &str = "@__sortBy_input__";
        if matches!(target.kind, ExprKind::Literal(_) | ExprKind::Map(_) | ExprKind::Struct { .. }) {
            let message =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err((target.id, message.into()));
        }
        let key = args.pop().expect("sortBy has two arguments");
        let names = variables(&args, "argument is not an identifier")?;
        let parts = self.append(key, None);
        let range = self.ident(INPUT);
        let keys = self.fold(range, names, parts);
        let input = self.ident(INPUT);
        let sorted = self.member("@sortByAssociatedKeys", input, vec![keys]);
        Ok(self.bind(INPUT, target, sorted))
    }

    /// The same expression with nodes of its own.
    fn copy(&mut self, expr: &Expr) -> Parse<Expr> {
        let mut copy = expr.clone();
        self.renumber(&mut copy)?;
        Ok(copy)
    }

    fn renumber(&mut self, expr: &mut Expr) -> Parse<()> {
        self.parser.duplicates += 1;
        if self.parser.duplicates > MAX_DUPLICATES {
            return Err(self.parser.too_deep());
        }
        let place = self.parser.place_of(expr.id);
        expr.id = self.parser.node_at(place, ExprKind::Literal(Value::Null)).id;
        let mut each = |inner: &mut Expr| self.renumber(inner);
        match &mut expr.kind {
            ExprKind::Literal(_) | ExprKind::Ident(_) => Ok(()),
            ExprKind::Select { operand, .. } => each(operand),
            ExprKind::Call { target, args, .. } => {
                target.as_deref_mut().into_iter().chain(args).try_for_each(each)
            }
            ExprKind::List { elements, .. } => elements.iter_mut().try_for_each(each),
            ExprKind::Map(entries) => {
                entries.iter_mut().flat_map(|entry| [&mut entry.key, &mut entry.value]).try_for_each(each)
            }
            ExprKind::Struct { fields, .. } => {
                fields.iter_mut().map(|field| &mut field.value).try_for_each(each)
            }
            ExprKind::Comprehension(fold) => {
                [&mut fold.range, &mut fold.init, &mut fold.condition, &mut fold.step, &mut fold.result]
                    .into_iter()
                    .try_for_each(each)
            }
        }
    }
}

/// The names of the one or two variables of a fold.
fn variables(args: &[Expr], message: &'static str) -> Result<(String, Option<String>), Fault> {
    let mut names = Vec::new();
    for arg in args {
        match &arg.kind {
            ExprKind::Ident(name) if name == "__result__" => {
                return Err((arg.id, "iteration variable overwrites accumulator variable".into()));
            }
            ExprKind::Ident(name) => names.push(name.clone()),
            _ => return Err((arg.id, message.into())),
        }
    }
    let second = names.get(1).cloned();
    if second.as_ref() == names.first() {
        return Err((args[1].id, format!("duplicate variable name: {}", names[0])));
    }
    Ok((names.remove(0), second))
}
