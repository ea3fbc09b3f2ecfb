//! Whether a value is what its schema wants, in upstream's words and by its paths.
//!
//! On an update, what is wrong in a part that did not change is let through: `old` is what stood at the same place, as
//! far as places can be told apart (fields by name, elements of keyed lists by their keys).

use crate::schema::{Additional, Checks, ListType, Schema, Type};
use meta::field::{Errors, Path};
use serde_json::{Map, Value};

/// Checks the fields of a whole object.
pub fn object(new: &Value, old: Option<&Value>, schema: &Schema, errors: &mut Errors) {
    value_at("", new, old, schema, &Path::root(), errors);
}

/// Checks a value that stands at `under` in its object, under its own schema: `status`, or a default.
pub fn value_at(
    path: &str,
    new: &Value,
    old: Option<&Value>,
    schema: &Schema,
    under: &Path,
    errors: &mut Errors,
) {
    let outcome = validate(path, new, old, schema);
    for fault in outcome.faults {
        fault.report(under, errors);
    }
}

/// One thing that is wrong, by what it is reported as.
#[derive(Clone, Debug, PartialEq)]
enum What {
    Required,
    NotSupported {
        value: Value,
        allowed: Vec<String>,
    },
    TooLong {
        limit: i64,
    },
    TooMany {
        actual: i64,
        limit: i64,
    },
    WrongType {
        value: Value,
    },
    Invalid {
        value: Value,
    },
    /// Said of the value as a whole, without a path of its own.
    Whole,
}

#[derive(Clone, Debug, PartialEq)]
struct Fault {
    /// With a leading dot below the root.
    path: String,
    what: What,
    text: String,
}

impl Fault {
    fn report(self, under: &Path, errors: &mut Errors) {
        let name = self.path.trim_start_matches('.');
        let path = if name.is_empty() { under.clone() } else { under.child(name) };
        match self.what {
            What::Required => errors.required(&path, ""),
            What::NotSupported { value, allowed } => {
                let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                errors.not_supported(&path, value, &allowed);
            }
            What::TooLong { limit } => errors.too_long(&path, usize::try_from(limit).unwrap_or(0)),
            What::TooMany { actual, limit } => {
                errors.too_many(
                    &path,
                    usize::try_from(actual).unwrap_or(0),
                    usize::try_from(limit).unwrap_or(0),
                );
            }
            What::WrongType { value } => errors.type_invalid(&path, value, self.text),
            What::Invalid { value } => errors.invalid(&path, value, self.text),
            What::Whole => errors.invalid(under, "", self.text),
        }
    }
}

/// What a validation found, and how many checks held: alternatives are weighed by it.
#[derive(Debug, Default)]
struct Outcome {
    faults: Vec<Fault>,
    matches: u32,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        for fault in other.faults {
            self.add(fault);
        }
    }

    fn add(&mut self, fault: Fault) {
        if !self.faults.iter().any(|known| known.text == fault.text && known.path == fault.path) {
            self.faults.push(fault);
        }
    }

    fn fault(&mut self, path: &str, what: What, text: String) {
        self.add(Fault { path: path.into(), what, text });
    }

    fn invalid(&mut self, path: &str, value: &Value, text: String) {
        self.fault(path, What::Invalid { value: value.clone() }, text);
    }

    fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn validate(path: &str, new: &Value, old: Option<&Value>, schema: &Schema) -> Outcome {
    let mut out = Outcome { faults: Vec::new(), matches: 1 };
    check_type(path, new, schema, &mut out);
    if new.is_null() {
        check_allowed(path, new, &schema.checks, &mut out);
    } else {
        check_logic(path, new, old, &schema.checks, &mut out);
        match new {
            Value::String(text) => check_string(path, new, text, &schema.checks, &mut out),
            Value::Number(_) => check_number(path, new, schema, &mut out),
            Value::Array(items) => check_items(path, items, old, schema, &mut out),
            _ => {}
        }
        check_allowed(path, new, &schema.checks, &mut out);
        if let Value::Object(fields) = new {
            check_fields(path, fields, old, schema, &mut out);
        }
    }
    if !out.is_valid() && old == Some(new) {
        out.faults.clear();
    }
    out
}

fn check_type(path: &str, value: &Value, schema: &Schema, out: &mut Outcome) {
    let wanted = schema.types();
    if wanted.is_empty() {
        return;
    }
    let found = type_of(value);
    let fits = match value {
        Value::Null => schema.nullable,
        Value::Number(number) => {
            let whole = number.as_f64().is_some_and(|float| float.fract() == 0.0);
            match schema.ty {
                _ if schema.int_or_string => whole,
                Some(Type::Integer) => whole,
                Some(Type::Number) => true,
                _ => false,
            }
        }
        Value::String(_) => schema.int_or_string || schema.ty == Some(Type::String),
        _ => wanted == found,
    };
    if fits {
        out.matches += 1;
        return;
    }
    let text = format!("{path} in body must be of type {wanted}: \"{found}\"");
    out.fault(path, What::WrongType { value: found.into() }, text);
}

fn check_logic(path: &str, new: &Value, old: Option<&Value>, checks: &Checks, out: &mut Outcome) {
    let whole = |out: &mut Outcome, text: String| {
        out.add(Fault { path: path.into(), what: What::Whole, text });
    };
    if !checks.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut held = false;
        for schema in &checks.any_of {
            let outcome = validate(path, new, old, schema);
            held = outcome.is_valid();
            if held {
                best = Some(outcome);
                break;
            }
            if best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
                best = Some(outcome);
            }
        }
        if !held {
            whole(out, format!("{path:?} must validate at least one schema (anyOf)"));
        }
        out.merge(best.unwrap_or_default());
    }
    if !checks.one_of.is_empty() {
        check_one_of(path, new, old, checks, out);
    }
    if !checks.all_of.is_empty() {
        let mut held = 0;
        for schema in &checks.all_of {
            let outcome = validate(path, new, old, schema);
            held += usize::from(outcome.is_valid());
            out.merge(outcome);
        }
        if held != checks.all_of.len() {
            let none = if held == 0 { ". None validated" } else { "" };
            whole(out, format!("{path:?} must validate all the schemas (allOf){none}"));
        }
    }
    if let Some(not) = &checks.not
        && validate(path, new, old, not).is_valid()
    {
        whole(out, format!("{path:?} must not validate the schema (not)"));
    }
    out.matches += 1;
}

fn check_one_of(path: &str, new: &Value, old: Option<&Value>, checks: &Checks, out: &mut Outcome) {
    let (mut held, mut first, mut best) = (0, None, None::<Outcome>);
    for schema in &checks.one_of {
        let outcome = validate(path, new, old, schema);
        if outcome.is_valid() {
            held += 1;
            best = None;
            first.get_or_insert(outcome);
        } else if held == 0 && best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            best = Some(outcome);
        }
    }
    if held == 1 {
        return out.merge(first.unwrap_or_default());
    }
    let found =
        if held == 0 { "Found none valid".into() } else { format!("Found {held} valid alternatives") };
    let text = format!("{path:?} must validate one and only one schema (oneOf). {found}");
    out.add(Fault { path: path.into(), what: What::Whole, text });
    out.merge(best.unwrap_or_default());
}

fn check_string(path: &str, value: &Value, text: &str, checks: &Checks, out: &mut Outcome) {
    let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(limit) = checks.max_length.filter(|limit| length() > *limit) {
        let told = format!("{path} in body should be at most {limit} chars long");
        out.fault(path, What::TooLong { limit }, told);
    }
    if let Some(limit) = checks.min_length.filter(|limit| length() < *limit) {
        out.invalid(path, value, format!("{path} in body should be at least {limit} chars long"));
    }
    if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.compiled.is_match(text)) {
        out.invalid(path, value, format!("{path} in body should match '{}'", pattern.text));
    }
    out.matches += 1;
    if !checks.format.is_empty() {
        if crate::formats::has(&checks.format, text) {
            out.matches += 1;
        } else {
            let told = format!("{path} in body must be of type {}: {text:?}", checks.format);
            out.fault(path, What::WrongType { value: value.clone() }, told);
        }
    }
}

/// A limit as Go prints it: whole for whole numbers.
fn shown(limit: f64, whole: bool) -> String {
    let mut text = Vec::new();
    if whole {
        return (limit as i64).to_string();
    }
    meta::json::write_double(limit, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn check_number(path: &str, value: &Value, schema: &Schema, out: &mut Outcome) {
    let checks = &schema.checks;
    let Value::Number(number) = value else { return };
    let whole = !number.is_f64();
    let float = number.as_f64().unwrap_or_default();
    let out_of_range = match (schema.ty, checks.format.as_str()) {
        (Some(Type::Integer), "int32") => i32::try_from(number.as_i64().unwrap_or(float as i64)).is_err(),
        (Some(Type::Number), "float") => float.abs() > f64::from(f32::MAX),
        _ => false,
    };
    if out_of_range {
        let (ty, format) = (schema.types(), &checks.format);
        let text = format!("Checked value must be of type {ty} with format {format} in {path}");
        out.add(Fault { path: path.into(), what: What::Whole, text });
    }
    if let Some(factor) = checks.multiple_of {
        let holds = match number.as_i64() {
            Some(whole) if factor.fract() == 0.0 && factor != 0.0 => whole % (factor as i64) == 0,
            _ => {
                let times = if factor < 1.0 { 1.0 / factor * float } else { float / factor };
                times.fract().abs() < 1e-9 || (1.0 - times.fract().abs()) < 1e-9
            }
        };
        if !holds {
            out.invalid(
                path,
                value,
                format!("{path} in body should be a multiple of {}", shown(factor, whole)),
            );
        }
    }
    if let Some(limit) = checks.maximum {
        let limit = if whole { limit.trunc() } else { limit };
        let over = float > limit || (checks.exclusive_maximum && float == limit);
        if over {
            let how = if checks.exclusive_maximum { "less than" } else { "less than or equal to" };
            out.invalid(path, value, format!("{path} in body should be {how} {}", shown(limit, whole)));
        }
    }
    if let Some(limit) = checks.minimum {
        let limit = if whole { limit.trunc() } else { limit };
        let under = float < limit || (checks.exclusive_minimum && float == limit);
        if under {
            let how = if checks.exclusive_minimum { "greater than" } else { "greater than or equal to" };
            out.invalid(path, value, format!("{path} in body should be {how} {}", shown(limit, whole)));
        }
    }
    out.matches += 1;
}

/// What stood in the old list in place of an element: only keys tell elements apart.
fn old_element<'a>(list_type: Option<&ListType>, old: Option<&'a Value>, item: &Value) -> Option<&'a Value> {
    let Some(ListType::Map(keys)) = list_type else { return None };
    old?.as_array()?.iter().find(|before| keys.iter().all(|key| before.get(key) == item.get(key)))
}

fn check_items(path: &str, items: &[Value], old: Option<&Value>, schema: &Schema, out: &mut Outcome) {
    if let Some(inner) = schema.items.as_deref() {
        for (index, item) in items.iter().enumerate() {
            let before = old_element(schema.list_type.as_ref(), old, item);
            out.merge(validate(&format!("{path}[{index}]"), item, before, inner));
        }
    }
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(limit) = schema.checks.min_items.filter(|limit| size < *limit) {
        out.invalid(path, &size.into(), format!("{path} in body should have at least {limit} items"));
    }
    if let Some(limit) = schema.checks.max_items.filter(|limit| size > *limit) {
        let text = format!("{path} in body should have at most {limit} items");
        out.fault(path, What::TooMany { actual: size, limit }, text);
    }
    if schema.checks.unique_items && (1..items.len()).any(|at| items[..at].contains(&items[at])) {
        out.invalid(path, &"".into(), format!("{path} in body shouldn't contain duplicates"));
    }
    out.matches += 1;
}

fn equal(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

fn check_allowed(path: &str, value: &Value, checks: &Checks, out: &mut Outcome) {
    if checks.allowed.is_empty() {
        return;
    }
    if checks.allowed.iter().any(|allowed| !value.is_null() && equal(allowed, value)) {
        out.matches += 1;
        return;
    }
    let text_of = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let allowed: Vec<String> = checks.allowed.iter().map(text_of).collect();
    let text = format!("{path} in body should be one of [{}]", allowed.join(" "));
    out.fault(path, What::NotSupported { value: value.clone(), allowed }, text);
}

fn check_fields(
    path: &str,
    fields: &Map<String, Value>,
    old: Option<&Value>,
    schema: &Schema,
    out: &mut Outcome,
) {
    let size = i64::try_from(fields.len()).unwrap_or(i64::MAX);
    if let Some(limit) = schema.checks.min_properties.filter(|limit| size < *limit) {
        out.invalid(path, &size.into(), format!("{path} in body should have at least {limit} properties"));
    }
    if let Some(limit) = schema.checks.max_properties.filter(|limit| size > *limit) {
        let text = format!("{path} in body should have at most {limit} properties");
        out.fault(path, What::TooMany { actual: size, limit }, text);
    }
    for (name, value) in fields {
        let before = old.and_then(|old| old.get(name));
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                out.merge(validate(&path, value, before, property));
            }
            (None, Some(Additional::Schema(schema))) => {
                out.merge(validate(&format!("{path}.{name}"), value, before, schema));
            }
            (None, Some(Additional::Any(false))) => {
                let text = format!("{path}.{name} in body is a forbidden property");
                out.invalid(path, &name.as_str().into(), text);
            }
            _ => {}
        }
    }
    for name in &schema.checks.required {
        if !fields.contains_key(name) {
            let path = format!("{path}.{name}");
            let text = format!("{path} in body is required");
            out.fault(&path, What::Required, text);
        }
    }
    out.matches += 1;
}
