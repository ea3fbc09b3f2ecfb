//! A checked expression as a plan that runs: names are slots, constants are folded, patterns are compiled.
//!
//! What is folded and what is not decides what an evaluation costs, and follows upstream.

use crate::ast::{ACCU, Comprehension, Expr, ExprKind, op};
use crate::checker::Checked;
use crate::cost::CostRange;
use crate::eval::VARIABLES;
use crate::functions::{self, Implementation};
use crate::pattern::{Pattern, compile_pattern};
use crate::program::Program;
use crate::types::Type;
use crate::value::{Key, Value};
use std::collections::HashSet;

/// A step of a plan.
#[derive(Debug)]
pub(crate) enum Step {
    Constant(Value<'static>),
    /// A variable or a value, and what is selected from it.
    Attribute(Box<Attribute>),
    And(Box<[Step; 2]>),
    Or(Box<[Step; 2]>),
    /// `or` and `orValue` of optionals, whose second part is looked at only if need be.
    OptionalOr {
        parts: Box<[Step; 2]>,
        value: bool,
    },
    /// Whether a value is one of constants.
    OneOf {
        value: Box<Step>,
        keys: HashSet<Key>,
    },
    Call(Box<Call>),
    List {
        elements: Vec<Step>,
        optional: Vec<bool>,
    },
    Map(Vec<MapStep>),
    Struct {
        name: String,
        fields: Vec<FieldStep>,
    },
    Fold(Box<Fold>),
}

#[derive(Debug)]
pub(crate) struct MapStep {
    pub key: Step,
    pub value: Step,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) struct FieldStep {
    pub name: String,
    pub value: Step,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) struct Attribute {
    pub base: Base,
    pub qualifiers: Vec<Qualifier>,
    /// `has(...)`: the last qualifier is only asked for.
    pub test_only: bool,
}

#[derive(Debug)]
pub(crate) enum Base {
    /// A variable of a comprehension.
    Local(usize),
    /// A variable of the environment.
    Global(String),
    Operand(Step),
    /// A condition, and what follows from it.
    Conditional(Box<[Step; 3]>),
}

#[derive(Debug)]
pub(crate) struct Qualifier {
    pub key: QualifierKey,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) enum QualifierKey {
    Constant(Value<'static>),
    Computed(Step),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub function: &'static str,
    /// The overload where only one is possible, else empty.
    pub overload: &'static str,
    pub implementation: Implementation,
    pub args: Vec<Step>,
    /// The accumulator that the call replaces, and may therefore change in place.
    pub replaces: Option<usize>,
    /// The pattern that the second argument is, where it is constant.
    pub pattern: Option<Pattern>,
    /// What the sum of an empty list is, where it is not the number 0.
    pub empty: Option<Value<'static>>,
}

#[derive(Debug)]
pub(crate) struct Fold {
    pub range: Step,
    pub accu: usize,
    pub iter: usize,
    pub iter2: Option<usize>,
    pub init: Step,
    pub condition: Step,
    pub step: Step,
    pub result: Step,
}

/// Makes a program of a checked expression. Fails where a constant part of it fails.
pub(crate) fn plan(root: &Expr, checked: &Checked, cost: CostRange) -> Result<Program, String> {
    let mut planner = Planner { checked, scopes: Vec::new(), slots: 0, names: HashSet::new() };
    let step = planner.step(root)?;
    Ok(Program::new(step, planner.slots, planner.names, checked.type_of(root).clone(), cost))
}

struct Planner<'c> {
    checked: &'c Checked,
    /// The variables in scope and their slots, innermost last.
    scopes: Vec<(String, usize)>,
    slots: usize,
    /// The environment's variables that the expression names.
    names: HashSet<String>,
}

impl Planner<'_> {
    fn step(&mut self, expr: &Expr) -> Result<Step, String> {
        Ok(match &expr.kind {
            ExprKind::Literal(value) => Step::Constant(value.clone()),
            ExprKind::Ident(name) => self.ident(expr, name),
            ExprKind::Select { operand, field, test_only } if self.is_policy_variables(operand) => {
                match test_only {
                    // The checker knows which there are.
                    true => Step::Constant(Value::Bool(true)),
                    false => {
                        self.names.insert("variables".into());
                        let base = Base::Global(format!("{VARIABLES}{field}"));
                        Step::Attribute(Box::new(Attribute {
                            base,
                            qualifiers: Vec::new(),
                            test_only: false,
                        }))
                    }
                }
            }
            ExprKind::Select { operand, field, test_only } => {
                let operand = self.step(operand)?;
                let key = QualifierKey::Constant(Value::text(field.as_str()));
                let mut attribute = qualify(operand, Qualifier { key, optional: false });
                attribute.test_only = *test_only;
                Step::Attribute(attribute)
            }
            ExprKind::Call { function, target, args } => {
                self.call(expr, function, target.as_deref(), args)?
            }
            ExprKind::List { elements, optional } => {
                let elements =
                    elements.iter().map(|element| self.step(element)).collect::<Result<Vec<_>, _>>()?;
                list(elements, optional)
            }
            ExprKind::Map(entries) => {
                let mut steps = Vec::with_capacity(entries.len());
                for entry in entries {
                    let (key, value) = (self.step(&entry.key)?, self.step(&entry.value)?);
                    steps.push(MapStep { key, value, optional: entry.optional });
                }
                fold_map(steps)?
            }
            ExprKind::Struct { name, fields } => {
                let mut steps = Vec::with_capacity(fields.len());
                for field in fields {
                    let value = self.step(&field.value)?;
                    steps.push(FieldStep { name: field.name.clone(), value, optional: field.optional });
                }
                Step::Struct { name: name.clone(), fields: steps }
            }
            ExprKind::Comprehension(fold) => self.fold(fold)?,
        })
    }

    /// Whether the expression is the variable that holds a policy's own variables.
    fn is_policy_variables(&self, expr: &Expr) -> bool {
        matches!(&expr.kind, ExprKind::Ident(name) if name == "variables")
            && !self.scopes.iter().any(|(known, _)| known == "variables")
            && matches!(self.checked.type_of(expr), Type::Struct(_))
    }

    fn ident(&mut self, expr: &Expr, name: &str) -> Step {
        if let Some(named) = &self.checked.type_names[expr.id] {
            return Step::Constant(Value::Type(named.clone()));
        }
        let base = match self.scopes.iter().rev().find(|(known, _)| known == name) {
            Some((_, slot)) => Base::Local(*slot),
            None => {
                self.names.insert(name.to_owned());
                Base::Global(name.to_owned())
            }
        };
        Step::Attribute(Box::new(Attribute { base, qualifiers: Vec::new(), test_only: false }))
    }

    fn call(
        &mut self,
        expr: &Expr,
        function: &str,
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Result<Step, String> {
        let mut steps = Vec::with_capacity(args.len() + 1);
        for arg in target.into_iter().chain(args) {
            steps.push(self.step(arg)?);
        }
        let pair = |steps: Vec<Step>| -> Box<[Step; 2]> {
            steps.try_into().expect("the checker has counted the arguments")
        };
        let overloads = self.checked.overloads_of(expr);
        Ok(match function {
            op::AND => Step::And(pair(steps)),
            op::OR => Step::Or(pair(steps)),
            op::CONDITIONAL => {
                let parts = steps.try_into().expect("the checker has counted the arguments");
                let base = Base::Conditional(parts);
                Step::Attribute(Box::new(Attribute { base, qualifiers: Vec::new(), test_only: false }))
            }
            op::INDEX | op::OPT_INDEX | op::OPT_SELECT => {
                let [operand, key] = *pair(steps);
                let key = match key {
                    Step::Constant(value) => QualifierKey::Constant(value),
                    other => QualifierKey::Computed(other),
                };
                Step::Attribute(qualify(operand, Qualifier { key, optional: function != op::INDEX }))
            }
            "or" | "orValue" => Step::OptionalOr { parts: pair(steps), value: function == "orValue" },
            _ => self.plain_call(function, overloads, steps)?,
        })
    }

    fn plain_call(
        &mut self,
        function: &str,
        overloads: &[&'static str],
        args: Vec<Step>,
    ) -> Result<Step, String> {
        let (function, implementation) =
            functions::implementation(function).ok_or_else(|| format!("no such overload: {function}"))?;
        let overload = match overloads {
            [one] => *one,
            _ => "",
        };
        let args = match one_of(overload, args) {
            Ok(step) => return Ok(step),
            Err(args) => args,
        };
        if let [Step::Constant(value)] = args.as_slice()
            && is_conversion(function)
        {
            let of = value.type_of().name();
            let value = implementation(vec![value.clone()], None).map_err(|error| {
                match error == crate::EvalError::no_such_overload() {
                    true => format!("no such overload: {function}({of})"),
                    false => error.message,
                }
            })?;
            return Ok(Step::Constant(value));
        }
        let pattern = match (function, args.get(1)) {
            ("matches" | "find" | "findAll", Some(Step::Constant(Value::String(text)))) => {
                Some(compile_pattern(text)?)
            }
            _ => None,
        };
        let replaces = match (function, args.first()) {
            (op::ADD | op::MAP_INSERT, Some(Step::Attribute(attribute))) => match attribute.base {
                Base::Local(slot) if attribute.qualifiers.is_empty() && self.is_accu(slot) => Some(slot),
                _ => None,
            },
            _ => None,
        };
        let empty = functions::empty_sum(overload);
        let call = Call { function, overload, implementation, args, replaces, pattern, empty };
        Ok(Step::Call(Box::new(call)))
    }

    fn is_accu(&self, slot: usize) -> bool {
        self.scopes.iter().any(|(name, known)| *known == slot && name == ACCU)
    }

    fn fold(&mut self, fold: &Comprehension) -> Result<Step, String> {
        let range = self.step(&fold.range)?;
        let init = self.step(&fold.init)?;
        let outside = self.scopes.len();
        let accu = self.declare(&fold.accu);
        let iter = self.declare(&fold.iter);
        let iter2 = fold.iter2.as_ref().map(|name| self.declare(name));
        let condition = self.step(&fold.condition)?;
        let step = self.step(&fold.step)?;
        self.scopes.truncate(outside + 1);
        let result = self.step(&fold.result)?;
        self.scopes.truncate(outside);
        let fold = Fold { range, accu, iter, iter2, init, condition, step, result };
        Ok(Step::Fold(Box::new(fold)))
    }

    fn declare(&mut self, name: &str) -> usize {
        self.scopes.push((name.to_owned(), self.slots));
        self.slots += 1;
        self.slots - 1
    }
}

/// Adds a qualifier to a chain of them, or begins a chain at a value.
fn qualify(operand: Step, qualifier: Qualifier) -> Box<Attribute> {
    match operand {
        Step::Attribute(mut attribute) if !attribute.test_only => {
            attribute.qualifiers.push(qualifier);
            attribute
        }
        other => {
            Box::new(Attribute { base: Base::Operand(other), qualifiers: vec![qualifier], test_only: false })
        }
    }
}

fn list(elements: Vec<Step>, optional: &[bool]) -> Step {
    let constant = elements.iter().all(|element| matches!(element, Step::Constant(_)));
    if !constant || optional.contains(&true) {
        return Step::List { elements, optional: optional.to_vec() };
    }
    let values = elements.into_iter().filter_map(|element| match element {
        Step::Constant(value) => Some(value),
        _ => None,
    });
    Step::Constant(Value::list(values.collect()))
}

fn fold_map(entries: Vec<MapStep>) -> Result<Step, String> {
    let constant = entries.iter().all(|entry| {
        matches!((&entry.key, &entry.value), (Step::Constant(_), Step::Constant(_))) && !entry.optional
    });
    if !constant {
        return Ok(Step::Map(entries));
    }
    let mut map = crate::value::Entries::default();
    for entry in entries {
        let (Step::Constant(key), Step::Constant(value)) = (entry.key, entry.value) else { continue };
        let name = Key::of(&key).ok_or("unsupported key type")?;
        map.insert(name, (key, value));
    }
    Ok(Step::Constant(Value::Map(crate::value::Map::Values(map.into()))))
}

/// `value in [constants]` as a look into a set, which costs nothing.
fn one_of(overload: &str, args: Vec<Step>) -> Result<Step, Vec<Step>> {
    if overload != "in_list" {
        return Err(args);
    }
    let Some(Step::Constant(Value::List(list))) = args.get(1) else { return Err(args) };
    let mut keys = HashSet::new();
    for value in list.iter() {
        let key = match &value {
            Ok(value @ (Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::String(_))) => {
                Key::of(value)
            }
            _ => None,
        };
        match key {
            Some(key) => keys.insert(key),
            None => return Err(args),
        };
    }
    if keys.is_empty() {
        return Ok(Step::Constant(Value::Bool(false)));
    }
    let value = args.into_iter().next().expect("a membership has a value");
    Ok(Step::OneOf { value: Box::new(value), keys })
}

fn is_conversion(function: &str) -> bool {
    matches!(
        function,
        "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "type" | "uint"
    )
}
