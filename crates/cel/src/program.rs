//! An expression that is ready to run, as often as is wanted.

use crate::cost::CostRange;
use crate::error::EvalError;
use crate::eval::Machine;
use crate::plan::Step;
use crate::types::Type;
use crate::value::Value;
use std::collections::HashSet;

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    step: Step,
    slots: usize,
    names: HashSet<String>,
    output: Type,
    cost: CostRange,
}

/// What an evaluation came to, and what it cost whether or not it gave a value.
#[derive(Debug)]
pub struct Outcome<'a> {
    pub value: Result<Value<'a>, EvalError>,
    pub cost: u64,
}

/// The values of an environment's variables.
///
/// The fields of the variable `variables` are asked for by their full names, such as `variables.replicas`.
pub trait Activation<'a> {
    /// A variable's value; `None` where it has none.
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>>;
}

/// Values under names: the usual [`Activation`].
#[derive(Clone, Debug, Default)]
pub struct Bindings<'a> {
    values: Vec<(&'static str, Value<'a>)>,
}

impl<'a> Bindings<'a> {
    /// Gives a variable its value, in place of one that it has.
    pub fn set(&mut self, name: &'static str, value: Value<'a>) {
        self.values.retain(|(known, _)| *known != name);
        self.values.push((name, value));
    }
}

impl<'a> Activation<'a> for Bindings<'a> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

impl Program {
    pub(crate) fn new(
        step: Step,
        slots: usize,
        names: HashSet<String>,
        output: Type,
        cost: CostRange,
    ) -> Self {
        Program { step, slots, names, output, cost }
    }

    /// The type of what the expression gives.
    pub fn output_type(&self) -> &Type {
        &self.output
    }

    /// What it costs at least and at most, as far as sizes are bounded.
    pub fn cost(&self) -> CostRange {
        self.cost
    }

    /// Whether the expression names a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.names.contains(variable)
    }

    /// Evaluates; the evaluation is given up as soon as it has cost more than `limit`.
    pub fn eval<'a>(&'a self, variables: &dyn Activation<'a>, limit: u64) -> Outcome<'a> {
        let mut machine = Machine::new(variables, self.slots, limit);
        let value = machine.eval(&self.step);
        Outcome { value, cost: machine.cost() }
    }
}
