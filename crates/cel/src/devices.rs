//! The environment of device selectors: one variable, `device`, and how much a selector may cost.

use crate::admission::{Refusal, refusal, shown};
use crate::environment::Environment;
use crate::program::Program;
use crate::schema::{DeclType, Field, Kind, ObjectType};
use crate::types::Type;
use std::sync::Arc;

/// The most that a selector may cost in the worst case, and while it runs.
pub const MAX_COST: u64 = 1_000_000;
/// The longest selector, in bytes.
pub const MAX_BYTES: usize = 10 * 1024;

/// Domains of attributes and capacities, and of each domain its attributes or capacities, at most.
const MAX_ENTRIES: u64 = 32;
/// The longest name of a driver.
const DRIVER_LENGTH: u64 = 63;
/// The longest text that an attribute holds.
const ATTRIBUTE_LENGTH: u64 = 64;

/// Compiles a selector, which gives a bool, or an attribute that may be one.
pub fn compile(text: &str) -> Result<Program, Refusal> {
    let program = environment().compile(text).map_err(refusal)?;
    let got = program.output_type();
    if matches!(got, Type::Bool | Type::Dyn) {
        return Ok(program);
    }
    let detail = format!("must evaluate to bool or the unknown type, not {}", shown(got));
    Err(Refusal { detail, internal: false })
}

fn environment() -> Environment {
    let mut environment = Environment::kubernetes();
    environment.declare("device", &Arc::new(device()));
    // Capacities are quantities, which no schema describes.
    let quantities = Type::map(Type::String, Type::object("kubernetes.Quantity", []));
    let attributes = Type::map(Type::String, Type::Dyn);
    let fields = [
        ("driver", Type::String),
        ("allowMultipleAllocations", Type::Bool),
        ("attributes", Type::map(Type::String, attributes)),
        ("capacity", Type::map(Type::String, quantities)),
    ];
    let fields = fields.map(|(name, of)| (name.to_owned(), of));
    environment.declare_type("device", Type::object("kubernetes.DRADevice", fields));
    environment.with_bind();
    environment
}

/// The sizes of what a device has.
fn device() -> DeclType {
    let sized = |kind: Kind, max_elements: u64| DeclType {
        kind,
        max_elements,
        min_serialized_size: 0,
        nullable: false,
    };
    let nested = |value: DeclType| {
        let inner = sized(Kind::Map(Arc::new(value)), MAX_ENTRIES);
        sized(Kind::Map(Arc::new(inner)), MAX_ENTRIES)
    };
    let fields = [
        ("driver", sized(Kind::String, DRIVER_LENGTH)),
        ("allowMultipleAllocations", sized(Kind::Bool, 1)),
        ("attributes", nested(sized(Kind::Dyn, ATTRIBUTE_LENGTH))),
        // A quantity has no size.
        ("capacity", nested(sized(Kind::Int, 0))),
    ];
    let fields = fields
        .map(|(name, decl)| (name.to_owned(), Field { property: name.to_owned(), decl: Arc::new(decl) }));
    let object = ObjectType { name: "kubernetes.DRADevice".into(), fields: fields.into() };
    sized(Kind::Object(object), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn selectors_are_checked_and_costed() {
        let texts = [
            "device.driver == 'dra.example.com'",
            "device.attributes['dra.example.com'].model == 'a100'",
            "device.attributes['dra.example.com'].model",
            "device.capacity['dra.example.com'].memory.isGreaterThan(quantity('1Gi'))",
            "cel.bind(dra, device.attributes['dra.example.com'], dra.a == 1 && dra.b == 'x')",
            "cel.bind(1, 2, true)",
            "device.attributes['d'].name.lowerAscii().matches('^a')",
            "device.attributes['d'].version.isGreaterThan(semver('1.0.0'))",
            "device.attributes.all(d, device.attributes[d].all(a, device.attributes[d].exists(b, \
             device.attributes.exists(e, true))))",
            "device.driver",
            "device.nope",
            "claim.name == 'x'",
        ];
        let shown = texts.map(|text| match compile(text) {
            Ok(program) => format!("{text}\n    at most {}\n", program.cost().max),
            Err(refusal) => format!("{text}\n    {}\n", refusal.to_string().replace('\n', "\n    ")),
        });
        expect![[r#"
            device.driver == 'dra.example.com'
                at most 4
            device.attributes['dra.example.com'].model == 'a100'
                at most 5
            device.attributes['dra.example.com'].model
                at most 4
            device.capacity['dra.example.com'].memory.isGreaterThan(quantity('1Gi'))
                at most 6
            cel.bind(dra, device.attributes['dra.example.com'], dra.a == 1 && dra.b == 'x')
                at most 19
            cel.bind(1, 2, true)
                compilation failed: ERROR: <input>:1:10: cel.bind() variable names must be simple identifiers
                 | cel.bind(1, 2, true)
                 | .........^
            device.attributes['d'].name.lowerAscii().matches('^a')
                at most 18
            device.attributes['d'].version.isGreaterThan(semver('1.0.0'))
                at most 6
            device.attributes.all(d, device.attributes[d].all(a, device.attributes[d].exists(b, device.attributes.exists(e, true))))
                at most 4432131
            device.driver
                must evaluate to bool or the unknown type, not string
            device.nope
                compilation failed: ERROR: <input>:1:7: undefined field 'nope'
                 | device.nope
                 | ......^
            claim.name == 'x'
                compilation failed: ERROR: <input>:1:1: undeclared reference to 'claim' (in container '')
                 | claim.name == 'x'
                 | ^
        "#]].assert_eq(&shown.concat());
    }
}
