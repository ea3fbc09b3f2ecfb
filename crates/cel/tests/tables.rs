//! Decides whether expressions come to what upstream's implementation made of them: value, type, cost and error.
//!
//! A table in `tests/tables` has an expression at the margin and, indented below it, what becomes of it. Lines of an
//! expression's own, and what a JSON string escapes, are written as in JSON. `UPDATE_EXPECT=1` rewrites the tables.

use cel::{Bindings, DeclType, Environment, Map, Object, Schema, Type, Value};
use expect_test::expect_file;
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::sync::Arc;

/// What expressions of one table see.
struct Sight {
    environment: Environment,
    declared: Option<Arc<DeclType>>,
    data: Vec<(&'static str, Json)>,
}

impl Sight {
    fn nothing() -> Sight {
        Sight { environment: Environment::kubernetes(), declared: None, data: Vec::new() }
    }

    fn typed(schema: &Json, data: Json) -> Sight {
        let decl = DeclType::of(&Schema::from_json(schema), false, "Tself").expect("the schema is visible");
        let decl = Arc::new(decl);
        let mut environment = Environment::kubernetes();
        environment.declare("self", &decl);
        Sight { environment, declared: Some(decl), data: vec![("self", data)] }
    }

    fn dynamic(data: Vec<(&'static str, Json)>) -> Sight {
        let mut environment = Environment::kubernetes();
        data.iter().for_each(|(name, _)| environment.declare_type(name, Type::Dyn));
        Sight { environment, declared: None, data }
    }

    /// The lines that stand below an expression.
    fn outcome(&self, text: &str) -> String {
        let program = match self.environment.compile(text) {
            Ok(program) => program,
            Err(errors) => return errors.to_string(),
        };
        let mut bindings = Bindings::default();
        for (name, data) in &self.data {
            let value = Value::from_json(data, self.declared.as_deref()).expect("the data fits its schema");
            bindings.set(name, value);
        }
        let outcome = program.eval(&bindings, cel::limits::PER_CALL_LIMIT);
        let shown = match &outcome.value {
            Ok(value) => show(value),
            Err(error) => format!("error: {error}"),
        };
        let (of, cost) = (program.output_type(), program.cost());
        format!("{shown}\n{of}, estimated {}..{}, cost {}", cost.min, cost.max, outcome.cost)
    }

    /// A table with the outcomes as they are now.
    fn table(&self, table: &str) -> String {
        let mut out = String::new();
        for line in table.lines().filter(|line| !line.starts_with("    ")) {
            if line.is_empty() || line.starts_with("# ") {
                writeln!(out, "{line}").expect("a string takes all that is written");
                continue;
            }
            let text: String = match line.starts_with('"') && line.contains("\\n") {
                true => serde_json::from_str(line).unwrap_or_else(|_| line.to_owned()),
                false => line.to_owned(),
            };
            writeln!(out, "{line}").expect("a string takes all that is written");
            for line in self.outcome(&text).lines() {
                writeln!(out, "    {line}").expect("a string takes all that is written");
            }
        }
        out
    }
}

fn show(value: &Value<'_>) -> String {
    let entries = |entries: Vec<(String, String)>| {
        let mut all: Vec<String> =
            entries.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
        all.sort();
        format!("{{{}}}", all.join(", "))
    };
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => format!("{value}u"),
        Value::Double(value) => format!("{value:?}"),
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(bytes) => format!("b{bytes:02x?}"),
        Value::Duration(duration) => format!("duration {duration}"),
        Value::Timestamp(time) => format!("timestamp {time}"),
        Value::List(list) => {
            let items: Vec<String> = list
                .iter()
                .map(|item| item.map_or_else(|error| error.to_string(), |item| show(&item)))
                .collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => entries(map_entries(map)),
        Value::Object(Object::Json { entries: json, .. }) => {
            entries(map_entries(&Map::Json { entries: json, value: None }))
        }
        Value::Type(of) => format!("type {}", of.name()),
        Value::Optional(None) => "none".into(),
        Value::Optional(Some(value)) => format!("some {}", show(value)),
        Value::Ip(ip) => format!("ip {ip}"),
        Value::Cidr(cidr) => format!("cidr {cidr}"),
        Value::Quantity(quantity) => format!("quantity {quantity}"),
        Value::Semver(version) => format!("semver {version}"),
        Value::Format(name) => format!("format {name}"),
        other => other.type_of().name(),
    }
}

fn map_entries(map: &Map<'_>) -> Vec<(String, String)> {
    let all = map.to_vec().expect("the data fits its schema");
    all.iter().map(|(key, value)| (show(key), show(value))).collect()
}

fn check(sight: &Sight, name: &str, table: &str) {
    expect_file![format!("{}/tests/tables/{name}.txt", env!("CARGO_MANIFEST_DIR"))]
        .assert_eq(&sight.table(table));
}

#[test]
fn the_language_and_its_library() {
    check(&Sight::nothing(), "language", include_str!("tables/language.txt"));
}

#[test]
fn faults_of_syntax() {
    let null = || vec![("a", Json::Null), ("b", Json::Null), ("c", Json::Null), ("x", Json::Null)];
    check(&Sight::dynamic(null()), "syntax", include_str!("tables/syntax.txt"));
}

#[test]
fn data_without_a_schema() {
    let object = json!({
        "metadata": {"name": "web", "labels": {"app": "x"}, "annotations": null},
        "spec": {
            "replicas": 3,
            "template": {"spec": {"containers": [
                {"name": "c", "image": "reg/x:1", "resources": {"limits": {"cpu": "100m"}}},
            ]}},
            "f": 1.5,
            "big": 12_345_678_901_234_567_890_u64,
        },
    });
    let params = json!({"maxReplicas": 5, "n": "q"});
    let sight = Sight::dynamic(vec![("object", object), ("oldObject", Json::Null), ("params", params)]);
    check(&sight, "dynamic", include_str!("tables/dynamic.txt"));
}

#[test]
fn data_with_a_schema() {
    let schema: Json = serde_json::from_str(include_str!("tables/schema.json")).expect("the schema is JSON");
    let data: Json = serde_json::from_str(include_str!("tables/data.json")).expect("the data is JSON");
    check(&Sight::typed(&schema, data), "typed", include_str!("tables/typed.txt"));
}

#[test]
fn a_budget_ends_an_evaluation() {
    let program = Environment::kubernetes().compile("[1, 2, 3].all(x, x > 0)").expect("it compiles");
    let bindings = Bindings::default();
    let full = program.eval(&bindings, u64::MAX).cost;
    assert!(program.eval(&bindings, full).value.is_ok());
    let error = program.eval(&bindings, full - 1).value.expect_err("the budget is too small");
    assert_eq!(error.kind, cel::EvalErrorKind::CostLimitExceeded);
    assert_eq!(error.to_string(), "operation cancelled: actual cost limit exceeded");
}

#[test]
fn absorbed_errors_do_not_hide_a_spent_budget() {
    let text = "[1, 2, 3, 4, 5].map(x, x * 2).size() > 100 || true";
    let program = Environment::kubernetes().compile(text).expect("it compiles");
    assert!(program.eval(&Bindings::default(), 10).value.is_err());
}
