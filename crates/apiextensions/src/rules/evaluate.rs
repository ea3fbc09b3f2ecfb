//! Rules as an object is written: every rule on every value it stands for, within one budget.
//!
//! A rule that fails on a part that did not change is let through, unless it looks at the old value itself.

use super::{Compiled, OLD_SELF, Rules, SELF};
use cel::limits::{MAX_MESSAGE_BYTES, PER_CALL_LIMIT, RUNTIME_BUDGET};
use cel::{Bindings, EvalErrorKind, Value as CelValue};
use meta::field::{Error, Errors, Kind, Path};
use serde_json::Value;

/// The budget is used up, or what is left of it cannot be told: nothing more runs.
struct Stop;

type Walked = Result<(), Stop>;

struct Run<'a> {
    errors: &'a mut Errors,
    budget: u64,
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What stood at the same place before.
#[derive(Clone, Copy)]
struct Before<'a> {
    value: Option<&'a Value>,
    /// Whether the nearest value around that can be told to be the same one is unchanged.
    unchanged: bool,
}

/// Evaluates all rules on a value that stands at `path`. `old` is what stood there before.
pub fn evaluate(rules: &Rules, path: &Path, new: &Value, old: Option<&Value>, errors: &mut Errors) {
    let mut run = Run { errors, budget: RUNTIME_BUDGET };
    let before = Before { value: old, unchanged: old == Some(new) };
    // Whoever stopped has said why.
    let _ = run.node(rules, path, new, before);
}

impl Rules {
    /// Evaluates all rules on a whole object.
    pub fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut Errors) {
        evaluate(self, &Path::root(), new, old, errors);
    }

    /// Evaluates all rules on a value that stands at `path`.
    pub fn validate_at(&self, path: &Path, new: &Value, old: Option<&Value>, errors: &mut Errors) {
        evaluate(self, path, new, old, errors);
    }
}

impl Run<'_> {
    fn node(&mut self, rules: &Rules, path: &Path, new: &Value, before: Before<'_>) -> Walked {
        if new.is_null() {
            return Ok(());
        }
        if !rules.own.is_empty() {
            self.own(rules, path, new, before)?;
        }
        let below = |old: Option<&'_ Value>, new: &Value, unchanged| -> bool {
            old.map_or(unchanged, |old| old == new)
        };
        match new {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let (inner, path) = match (rules.properties.get(name), &rules.additional) {
                        (Some(inner), _) => (inner, path.child(name)),
                        (None, Some(inner)) => (&**inner, path.key(name)),
                        (None, None) => continue,
                    };
                    let old = before.value.and_then(|old| old.get(name));
                    let before = Before { value: old, unchanged: below(old, value, before.unchanged) };
                    self.node(inner, &path, value, before)?;
                }
            }
            Value::Array(items) => {
                let Some(inner) = &rules.items else { return Ok(()) };
                for (index, item) in items.iter().enumerate() {
                    let old = old_element(rules.keys.as_deref(), before.value, item);
                    let before = Before { value: old, unchanged: below(old, item, before.unchanged) };
                    self.node(inner, &path.index(index), item, before)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn own(&mut self, rules: &Rules, path: &Path, new: &Value, before: Before<'_>) -> Walked {
        let mut bindings = Bindings::default();
        let this = match CelValue::from_json(new, Some(&rules.decl)) {
            Ok(value) => value,
            Err(why) => {
                self.errors.invalid(path, rules.ty, why.message);
                return Ok(());
            }
        };
        bindings.set(SELF, this);
        let old = before.value.filter(|old| !old.is_null());
        let old = old.and_then(|old| CelValue::from_json(old, Some(&rules.decl)).ok());
        for compiled in &rules.own {
            let Some(program) = &compiled.program else { continue };
            let program = match program {
                Ok(program) => program,
                Err(why) => {
                    self.errors.invalid(path, rules.ty, format!("rule compile error: {why}"));
                    continue;
                }
            };
            let optional = compiled.rule.optional_old_self == Some(true);
            match (&old, optional) {
                (None, false) if compiled.uses_old_self => continue,
                (Some(old), false) => bindings.set(OLD_SELF, old.clone()),
                (Some(old), true) => bindings.set(OLD_SELF, CelValue::some(old.clone())),
                (None, true) => bindings.set(OLD_SELF, CelValue::Optional(None)),
                (None, false) => {}
            }
            if self.budget == 0 {
                self.errors.invalid(path, rules.ty, OUT_OF_BUDGET);
                return Err(Stop);
            }
            let outcome = program.eval(&bindings, PER_CALL_LIMIT);
            if outcome.cost > self.budget {
                self.errors.invalid(path, rules.ty, OUT_OF_BUDGET);
                return Err(Stop);
            }
            self.budget -= outcome.cost;
            match outcome.value {
                Ok(CelValue::Bool(true)) => {}
                Ok(_) => self.failed(rules, compiled, &bindings, path, new, before)?,
                Err(error) => self.broken(rules, compiled, path, &error)?,
            }
        }
        Ok(())
    }

    fn broken(&mut self, rules: &Rules, compiled: &Compiled, path: &Path, error: &cel::EvalError) -> Walked {
        let rule = told(&compiled.rule);
        let message = &error.message;
        if error.kind == EvalErrorKind::CostLimitExceeded {
            let detail = format!(
                "'{message}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            );
            self.errors.invalid(path, rules.ty, detail);
            return Err(Stop);
        }
        let detail = if message.starts_with("no such overload") {
            format!(
                "'{message}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
            )
        } else {
            format!("{message} evaluating rule: {rule}")
        };
        self.errors.invalid(path, rules.ty, detail);
        Ok(())
    }

    fn failed(
        &mut self,
        rules: &Rules,
        compiled: &Compiled,
        bindings: &Bindings<'_>,
        path: &Path,
        new: &Value,
        before: Before<'_>,
    ) -> Walked {
        let ratcheted = !compiled.uses_old_self && before.unchanged;
        let at = match compiled.field_path.as_str() {
            "" => path.clone(),
            below => path.child(below),
        };
        let detail = match self.message(compiled, bindings) {
            Ok(message) => message,
            Err(why) => {
                if !ratcheted {
                    self.errors.invalid(&at, rules.ty, why);
                }
                return Err(Stop);
            }
        };
        if ratcheted {
            return Ok(());
        }
        let kind = match compiled.rule.reason.as_deref() {
            Some("FieldValueForbidden") => Kind::Forbidden,
            Some("FieldValueRequired") => Kind::Required,
            Some("FieldValueDuplicate") => Kind::Duplicate,
            _ => Kind::Invalid,
        };
        let shown = rules.shown && matches!(kind, Kind::Invalid | Kind::Duplicate);
        let value = shown.then(|| meta::field::Shown::shown(new));
        let detail = if kind == Kind::Duplicate { String::new() } else { detail };
        self.errors.0.push(Error { kind, field: at.to_string(), value, detail });
        Ok(())
    }

    /// What a failed rule says; an error where the budget does not last for it.
    fn message(&mut self, compiled: &Compiled, bindings: &Bindings<'_>) -> Result<String, String> {
        let rule = &compiled.rule;
        let plain = || match rule.message.trim() {
            "" => format!("failed rule: {}", told(rule)),
            message => message.into(),
        };
        let Some(Ok(program)) = &compiled.message else { return Ok(plain()) };
        let outcome = program.eval(bindings, PER_CALL_LIMIT);
        if outcome.cost > self.budget {
            let why = "messageExpression evaluation failed due to running out of cost budget, no further validation \
                       rules will be run";
            return Err(why.into());
        }
        self.budget -= outcome.cost;
        let message = match outcome.value {
            Ok(CelValue::String(text)) => text.trim().to_string(),
            Ok(_) => return Ok(plain()),
            Err(error) if error.kind == EvalErrorKind::CostLimitExceeded => {
                return Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                    rule.message_expression
                ));
            }
            Err(_) => return Ok(plain()),
        };
        let usable = !message.is_empty() && message.len() <= MAX_MESSAGE_BYTES && !message.contains('\n');
        Ok(if usable { message } else { plain() })
    }
}

/// A rule as errors name it.
fn told(rule: &crate::Rule) -> &str {
    match rule.message.trim() {
        "" => rule.rule.trim(),
        message => message,
    }
}

fn old_element<'a>(keys: Option<&[String]>, old: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
    let keys = keys?;
    old?.as_array()?.iter().find(|before| keys.iter().all(|key| before.get(key) == item.get(key)))
}
