//! Decides whether any text at all is taken without a panic, and whether an estimate bounds what is spent.

use cel::{Bindings, Environment, Type, Value};
use proptest::prelude::*;
use serde_json::json;

const PIECES: &[&str] = &[
    "a",
    "b",
    "x",
    "1",
    "2u",
    "1.5",
    "'s'",
    "b'y'",
    "true",
    "null",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    ".",
    ",",
    ":",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "in",
    " ",
    ".size()",
    ".all(x, ",
    ".map(x, ",
    ".filter(x, ",
    "has(",
    ".?a",
    "[?",
    "int(",
    "string(",
    "duration('1h')",
    "optional.of(",
    ".orValue(",
    "\"",
    "'",
    "`",
    "\\",
    "#",
    "é",
    "\n",
    "r'",
    "'''",
    "0x",
    "9223372036854775808",
    ".optMap(x, ",
    ".format([",
    "dyn(",
];

fn environment() -> Environment {
    let mut environment = Environment::kubernetes();
    environment.declare_type("a", Type::Dyn);
    environment.declare_type("b", Type::list(Type::Int));
    environment
}

fn run(text: &str) {
    let Ok(program) = environment().compile(text) else { return };
    let (a, b) = (json!({"a": [1, {"a": "s"}], "b": 2.5}), json!([1, 2, 3]));
    let mut bindings = Bindings::default();
    bindings.set("a", Value::from_json(&a, None).expect("data without a schema fits"));
    bindings.set("b", Value::from_json(&b, None).expect("data without a schema fits"));
    let outcome = program.eval(&bindings, 100_000);
    if let Ok(value) = outcome.value {
        let _ = value.to_json();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn pieces_of_expressions(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        run(&pieces.concat());
    }

    #[test]
    fn any_text(text in "\\PC{0,60}") {
        run(&text);
    }

    #[test]
    fn escapes_come_back(name in "[a-zA-Z_./-][a-zA-Z0-9_./-]{0,20}") {
        let escaped = cel::escape(&name).expect("the name can be escaped");
        let back = cel::unescape(&escaped).map(|back| back.into_owned());
        prop_assert_eq!(back, Some(name));
    }

    #[test]
    fn constants_cost_no_more_than_estimated(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..20)) {
        let text = pieces.concat();
        let Ok(program) = Environment::kubernetes().compile(&text) else { return Ok(()) };
        let bindings = Bindings::default();
        let outcome = program.eval(&bindings, 100_000);
        if outcome.value.is_ok() {
            prop_assert!(outcome.cost <= program.cost().max, "{text:?} cost {}", outcome.cost);
        }
    }
}

#[test]
fn depth_is_limited() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("-", ""), ("!", ""), ("{1:", "}"), ("a[", "]"), ("int(", ")")]
    {
        run(&format!("{}1{}", open.repeat(10_000), close.repeat(10_000)));
        run(&format!("{}1{}", open.repeat(200), close.repeat(200)));
    }
    for link in [" + 1", ".a", "[0]", " && true", " || a", " == 1", ".map(x, x)", ".optMap(x, x)"] {
        run(&format!("a{}", link.repeat(2_000)));
        run(&format!("a{}", link.repeat(200)));
    }
    run(&format!("{}x{}", "a.map(x, ".repeat(100), ")".repeat(100)));
    run(&"a ? ".repeat(5_000));
}
