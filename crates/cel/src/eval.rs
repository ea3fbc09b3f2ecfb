//! Runs a plan and counts what it costs, as upstream counts.
//!
//! An error is a value until something needs a real one: `false && error` is false, and an accumulator may hold one.

use crate::cost::{LIST_COST, MAP_COST, STRUCT_COST};
use crate::error::{EvalError, EvalErrorKind};
use crate::plan::{Attribute, Base, Call, FieldStep, Fold, MapStep, Qualifier, QualifierKey, Step};
use crate::program::Activation;
use crate::runtime_cost::{by_result, call_cost};
use crate::value::{Built, Entries, Key, List, Map, Object, Value};
use std::sync::Arc;

/// What the names of a policy's own variables begin with.
pub(crate) const VARIABLES: &str = "variables.";

pub(crate) type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// The state of one evaluation.
pub(crate) struct Machine<'v, 'a> {
    variables: &'v dyn Activation<'a>,
    slots: Vec<Slot<'a>>,
    cost: u64,
    limit: u64,
}

/// A comprehension's variable.
enum Slot<'a> {
    Unset,
    /// An accumulator that nothing has asked for yet.
    Pending(&'a Step),
    Set(Evaluated<'a>),
}

impl<'v, 'a> Machine<'v, 'a> {
    pub fn new(variables: &'v dyn Activation<'a>, slots: usize, limit: u64) -> Self {
        let slots = std::iter::repeat_with(|| Slot::Unset).take(slots).collect();
        Machine { variables, slots, cost: 0, limit }
    }

    pub fn cost(&self) -> u64 {
        self.cost
    }

    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::cost_limit()) } else { Ok(()) }
    }

    /// Lets an error be absorbed, except that a budget is used up.
    fn settle(result: Evaluated<'a>) -> Result<Evaluated<'a>, EvalError> {
        match result {
            Err(error) if error.kind == EvalErrorKind::CostLimitExceeded => Err(error),
            other => Ok(other),
        }
    }

    pub fn eval(&mut self, step: &'a Step) -> Evaluated<'a> {
        match step {
            Step::Constant(value) => Ok(value.clone()),
            Step::Attribute(attribute) => {
                // An attribute that is not there has been looked for, which costs the same.
                let value = Self::settle(self.resolve(attribute))?;
                let conditional = matches!(attribute.base, Base::Conditional(_));
                if !conditional && !attribute.test_only {
                    self.charge(1)?;
                }
                value
            }
            Step::And(parts) => self.logic(parts, false),
            Step::Or(parts) => self.logic(parts, true),
            Step::OptionalOr { parts, value } => self.optional_or(parts, *value),
            Step::OneOf { value, keys } => {
                let value = self.eval(value)?;
                Ok(Value::Bool(Key::of(&value).is_some_and(|key| keys.contains(&key))))
            }
            Step::Call(call) => self.call(call),
            Step::List { elements, optional } => self.list(elements, optional),
            Step::Map(entries) => self.map(entries),
            Step::Struct { name, fields } => self.object(name, fields),
            Step::Fold(fold) => self.fold(fold),
        }
    }

    /// `&&` and `||`: `wins` decides whatever the other part is, even an error.
    fn logic(&mut self, parts: &'a [Step; 2], wins: bool) -> Evaluated<'a> {
        let mut failed = None;
        for part in parts {
            match Self::settle(self.eval(part))? {
                Ok(Value::Bool(value)) if value == wins => return Ok(Value::Bool(wins)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(EvalError::no_such_overload())),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!wins)), Err)
    }

    fn optional_or(&mut self, parts: &'a [Step; 2], value: bool) -> Evaluated<'a> {
        match self.eval(&parts[0])? {
            Value::Optional(Some(inner)) if value => Ok((*inner).clone()),
            Value::Optional(None) => self.eval(&parts[1]),
            other => Ok(other),
        }
    }

    // Attributes.

    fn resolve(&mut self, attribute: &'a Attribute) -> Evaluated<'a> {
        let base = match &attribute.base {
            Base::Local(slot) => self.local(*slot)?,
            Base::Global(name) => match self.variables.resolve(name) {
                Some(value) => {
                    if name.starts_with(VARIABLES) {
                        // A variable of the policy is a field of the variable that holds them all.
                        self.charge(1)?;
                    }
                    value?
                }
                None => return Err(EvalError::new(format!("no such attribute(s): {name}"))),
            },
            Base::Operand(step) => self.eval(step)?,
            Base::Conditional(parts) => {
                let branch = match self.eval(&parts[0])? {
                    Value::Bool(true) => &parts[1],
                    Value::Bool(false) => &parts[2],
                    _ => return Err(EvalError::no_such_overload()),
                };
                match branch {
                    // A variable in a branch is resolved, not evaluated, and costs nothing by itself.
                    Step::Attribute(inner) => self.resolve(inner)?,
                    other => self.eval(other)?,
                }
            }
        };
        self.qualify(base, attribute)
    }

    fn local(&mut self, slot: usize) -> Evaluated<'a> {
        match &self.slots[slot] {
            Slot::Set(value) => value.clone(),
            Slot::Pending(step) => {
                let step = *step;
                let value = Self::settle(self.eval(step))?;
                self.slots[slot] = Slot::Set(value.clone());
                value
            }
            Slot::Unset => Err(EvalError::new("a variable of a comprehension was used outside of it")),
        }
    }

    fn qualify(&mut self, base: Value<'a>, attribute: &'a Attribute) -> Evaluated<'a> {
        if attribute.qualifiers.is_empty() {
            return Ok(base);
        }
        let mut optional = false;
        let mut value = base;
        if let Value::Optional(inner) = &value {
            optional = true;
            match inner {
                Some(inner) => value = (**inner).clone(),
                None => return Ok(if attribute.test_only { Value::Bool(false) } else { value }),
            }
        }
        let last = attribute.qualifiers.len() - 1;
        for (at, qualifier) in attribute.qualifiers.iter().enumerate() {
            optional |= qualifier.optional;
            let test = attribute.test_only && at == last;
            let found = self.select(&value, qualifier, optional || test, test);
            if test {
                return Ok(Value::Bool(found?.is_some()));
            }
            match found? {
                Some(found) => value = found,
                None => return Ok(Value::Optional(None)),
            }
        }
        Ok(if optional { Value::some(value) } else { value })
    }

    /// One qualifier's value; `None` where it is not there and that is no error.
    fn select(
        &mut self,
        from: &Value<'a>,
        qualifier: &'a Qualifier,
        may_lack: bool,
        test: bool,
    ) -> Result<Option<Value<'a>>, EvalError> {
        let key = match &qualifier.key {
            QualifierKey::Constant(value) => value.clone(),
            QualifierKey::Computed(Step::Attribute(inner)) => self.resolve(inner)?,
            QualifierKey::Computed(step) => self.eval(step)?,
        };
        let found = lookup(from, &key);
        let present = matches!(found, Some(Ok(_)));
        if present || test || !may_lack {
            self.charge(1)?;
        }
        match found {
            Some(found) => found.map(Some),
            None if may_lack => Ok(None),
            None => Err(missing(from, &key)),
        }
    }

    // Calls.

    fn call(&mut self, call: &'a Call) -> Evaluated<'a> {
        let mut args = Vec::with_capacity(call.args.len());
        let mut failed = None;
        let lenient = call.function == "@not_strictly_false";
        for step in &call.args {
            match Self::settle(self.eval(step))? {
                Ok(value) => args.push(value),
                Err(_) if lenient => return self.charge(1).map(|()| Value::Bool(true)),
                Err(error) => {
                    // Of two arguments both are evaluated, of more only those before the error.
                    failed = failed.or(Some(error));
                    if call.args.len() > 2 {
                        break;
                    }
                }
            }
        }
        if let Some(error) = failed {
            self.charge(if call.args.len() > 2 { 0 } else { 1 })?;
            return Err(error);
        }
        let cost = (!by_result(call.function)).then(|| call_cost(call.function, call.overload, &args, None));
        if let Some(slot) = call.replaces {
            // Nothing else may hold the accumulator while it is changed in place.
            self.slots[slot] = Slot::Unset;
        }
        let target = (cost.is_none() && !args.is_empty()).then(|| args.clone());
        let mut types = [""; 4];
        types.iter_mut().zip(&args).for_each(|(name, arg)| *name = arg.kind_name());
        let count = args.len().min(types.len());
        let mut result = match (&call.empty, args.as_slice()) {
            (Some(zero), [Value::List(list)]) if list.is_empty() => Ok(zero.clone()),
            _ => (call.implementation)(args, call.pattern.as_ref()),
        };
        if let Err(error) = &mut result
            && *error == EvalError::no_such_overload()
        {
            error.message = match call.function {
                "size" => "no such overload: size".into(),
                function if names_types(function) => {
                    format!("no such overload: {function}({})", types[..count].join(", "))
                }
                _ => std::mem::take(&mut error.message),
            };
        }
        let cost = match (cost, target) {
            (Some(cost), _) => cost,
            (None, target) => {
                call_cost(call.function, call.overload, &target.unwrap_or_default(), result.as_ref().ok())
            }
        };
        self.charge(cost)?;
        result
    }

    // Constructions.

    /// A part of what is constructed; the construction is paid for even where a part of it fails.
    fn part(&mut self, step: &'a Step, cost: u64) -> Evaluated<'a> {
        match Self::settle(self.eval(step))? {
            Err(error) => {
                self.charge(cost)?;
                Err(error)
            }
            value => value,
        }
    }

    fn list(&mut self, elements: &'a [Step], optional: &[bool]) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(elements.len());
        for (element, optional) in elements.iter().zip(optional) {
            let element = self.part(element, LIST_COST)?;
            match (element, optional) {
                (value, false) => values.push(value),
                (Value::Optional(Some(value)), true) => values.push((*value).clone()),
                (Value::Optional(None), true) => {}
                (other, true) => {
                    let of = other.type_of();
                    return Err(EvalError::new(format!(
                        "cannot initialize optional list element from non-optional value {of}"
                    )));
                }
            }
        }
        self.charge(LIST_COST)?;
        Ok(Value::list(values))
    }

    fn map(&mut self, steps: &'a [MapStep]) -> Evaluated<'a> {
        let mut entries = Entries::default();
        for step in steps {
            let key = self.part(&step.key, MAP_COST)?;
            let mut value = self.part(&step.value, MAP_COST)?;
            if step.optional {
                match value {
                    Value::Optional(Some(inner)) => value = (*inner).clone(),
                    Value::Optional(None) => continue,
                    _ => {
                        return Err(EvalError::new(
                            "cannot initialize optional entry from non-optional value",
                        ));
                    }
                }
            }
            let name = Key::of(&key).ok_or_else(|| EvalError::new("unsupported key type"))?;
            entries.insert(name, (key, value));
        }
        self.charge(MAP_COST)?;
        Ok(Value::Map(Map::Values(Arc::new(entries))))
    }

    fn object(&mut self, name: &str, steps: &'a [FieldStep]) -> Evaluated<'a> {
        let mut fields = Vec::with_capacity(steps.len());
        for step in steps {
            let mut value = self.part(&step.value, STRUCT_COST)?;
            if step.optional {
                match value {
                    Value::Optional(Some(inner)) => value = (*inner).clone(),
                    Value::Optional(None) => continue,
                    _ => {
                        return Err(EvalError::new(
                            "cannot initialize optional entry from non-optional value",
                        ));
                    }
                }
            }
            fields.push((step.name.clone(), value));
        }
        self.charge(STRUCT_COST)?;
        Ok(Value::Object(Object::Built(Arc::new(Built { type_name: name.to_owned(), fields }))))
    }

    // Folds.

    fn fold(&mut self, fold: &'a Fold) -> Evaluated<'a> {
        let range = self.eval(&fold.range)?;
        self.slots[fold.accu] = Slot::Pending(&fold.init);
        match (&range, fold.iter2) {
            (Value::List(list), None) => {
                for item in list.iter() {
                    if !self.turn(fold, item, None)? {
                        break;
                    }
                }
            }
            (Value::List(list), Some(_)) => {
                for (at, item) in list.iter().enumerate() {
                    if !self.turn(fold, Ok(Value::Int(at as i64)), Some(item))? {
                        break;
                    }
                }
            }
            (Value::Map(map), _) => {
                for key in map.keys() {
                    let value = fold.iter2.and_then(|_| map.get(&key));
                    if !self.turn(fold, Ok(key), value)? {
                        break;
                    }
                }
            }
            (Value::Object(object), _) => {
                let names: Vec<String> = object.names().into_iter().map(str::to_owned).collect();
                for name in names {
                    let value = fold.iter2.and_then(|_| object.field(&name));
                    if !self.turn(fold, Ok(Value::text(name)), value)? {
                        break;
                    }
                }
            }
            (other, _) => {
                let of = other.type_of().name();
                return Err(EvalError::new(format!("got '{of}', expected iterable type")));
            }
        }
        let result = self.eval(&fold.result);
        self.slots[fold.accu] = Slot::Unset;
        result
    }

    /// One turn of a fold; `false` ends it.
    fn turn(
        &mut self,
        fold: &'a Fold,
        first: Evaluated<'a>,
        second: Option<Evaluated<'a>>,
    ) -> Result<bool, EvalError> {
        self.slots[fold.iter] = Slot::Set(first);
        if let (Some(slot), Some(value)) = (fold.iter2, second) {
            self.slots[slot] = Slot::Set(value);
        }
        if let Ok(Value::Bool(false)) = Self::settle(self.eval(&fold.condition))? {
            return Ok(false);
        }
        let next = Self::settle(self.eval(&fold.step))?;
        self.slots[fold.accu] = Slot::Set(next);
        Ok(true)
    }
}

/// Whether a call of the function that no overload takes is reported with the types of its arguments.
fn names_types(function: &str) -> bool {
    let operator = !function.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = matches!(
        function,
        "size" | "contains" | "startsWith" | "endsWith" | "matches" | "containsIP" | "containsCIDR" | "sort"
    );
    !operator && !plain && !function.starts_with("get")
}

/// What a value holds under a key; `None` where it does not hold it.
fn lookup<'a>(from: &Value<'a>, key: &Value<'a>) -> Option<Evaluated<'a>> {
    match (from, key) {
        (Value::Map(map), key) => map.get(key),
        (Value::Object(object), Value::String(name)) => object.field(name),
        (Value::List(list), key) => match index(key) {
            Ok(at) => usize::try_from(at).ok().and_then(|at| list.get(at)),
            Err(error) => Some(Err(error)),
        },
        _ => None,
    }
}

/// A list's index: any whole number.
fn index(key: &Value<'_>) -> Result<i64, EvalError> {
    match key {
        Value::Int(at) => Ok(*at),
        Value::Uint(at) if *at <= i64::MAX as u64 => Ok(*at as i64),
        Value::Double(at) if at.fract() == 0.0 && at.abs() < 9e15 => Ok(*at as i64),
        Value::Double(at) => Err(EvalError::new(format!("unsupported index value {at} in list"))),
        other => {
            let of = other.type_of().name();
            Err(EvalError::new(format!("unsupported index type '{of}' in list")))
        }
    }
}

fn missing(from: &Value<'_>, key: &Value<'_>) -> EvalError {
    let shown = match key {
        Value::String(text) => text.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        other => other.type_of().name(),
    };
    match from {
        Value::List(_) => EvalError::new(format!("index out of bounds: {shown}")),
        _ => EvalError::new(format!("no such key: {shown}")),
    }
}

/// Adds the elements of one list behind those of another.
pub(crate) fn concat<'a>(left: List<'a>, right: List<'a>) -> Evaluated<'a> {
    let mut all = match left {
        List::Values(values) => values,
        json => Arc::new(json.to_vec()?),
    };
    let more = right.to_vec()?;
    Arc::make_mut(&mut all).extend(more);
    Ok(Value::List(List::Values(all)))
}
