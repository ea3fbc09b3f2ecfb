//! `x-kubernetes-validations`: rules in CEL at any node of a schema, compiled once for a definition.

mod check;
mod evaluate;

pub use check::check;

use crate::schema::{Additional, ListType, Schema, Type};
use cel::{DeclType, Environment, Kind, Program};
use meta::field::Path;
use std::collections::BTreeMap;
use std::sync::Arc;

const SELF: &str = "self";
const OLD_SELF: &str = "oldSelf";

/// A rule ready to run.
#[derive(Debug)]
struct Compiled {
    rule: crate::Rule,
    /// `None` for a rule that says nothing.
    program: Option<Result<Program, String>>,
    message: Option<Result<Program, String>>,
    uses_old_self: bool,
    /// Where below the node a failure is reported; empty for the node itself.
    field_path: String,
}

/// The rules of a schema's node and of all below it. Nodes without any are not there.
#[derive(Debug)]
pub struct Rules {
    decl: Arc<DeclType>,
    /// The node's type, as errors that have no value show it.
    ty: &'static str,
    /// The value of an object or list is not shown.
    shown: bool,
    keys: Option<Vec<String>>,
    own: Vec<Compiled>,
    items: Option<Box<Rules>>,
    properties: BTreeMap<String, Rules>,
    additional: Option<Box<Rules>>,
}

/// A schema as the language sees it.
fn cel_schema(schema: &Schema) -> cel::Schema {
    let checks = &schema.checks;
    let additional = match &schema.additional {
        Some(Additional::Schema(schema)) => Some(Box::new(cel_schema(schema))),
        _ => None,
    };
    let length = |value: &serde_json::Value| value.as_str().map(|text| text.len() as u64);
    cel::Schema {
        kind: schema.ty.map(Type::as_str).unwrap_or_default().into(),
        format: match checks.format.as_str() {
            "datetime" => "date-time".into(),
            format => format.into(),
        },
        nullable: schema.nullable,
        items: schema.items.as_deref().map(|items| Box::new(cel_schema(items))),
        properties: schema
            .properties
            .iter()
            .map(|(name, schema)| (name.clone(), cel_schema(schema)))
            .collect(),
        additional_properties: additional,
        required: checks.required.iter().cloned().collect(),
        has_default: schema.default.is_some(),
        enum_lengths: checks.allowed.iter().filter_map(length).collect(),
        max_items: checks.max_items,
        max_length: checks.max_length,
        max_properties: checks.max_properties,
        int_or_string: schema.int_or_string,
        preserve_unknown_fields: schema.preserve_unknown,
        embedded_resource: schema.embedded,
        list_type: match &schema.list_type {
            None => cel::ListType::Atomic,
            Some(ListType::Set) => cel::ListType::Set,
            Some(ListType::Map(keys)) => cel::ListType::Map(keys.clone()),
        },
    }
}

/// The name under which errors show the type of `self`.
const TYPE_NAME: &str = "selfType";

fn declared(schema: &Schema, root: bool) -> Option<Arc<DeclType>> {
    DeclType::of(&cel_schema(schema), root, TYPE_NAME).map(Arc::new)
}

impl Rules {
    /// Compiles all rules of a whole object's schema; `None` where there are none.
    pub fn compile(schema: &Schema) -> Option<Rules> {
        Self::of(schema, true)
    }

    /// The same for a value under its own schema.
    pub fn of(schema: &Schema, root: bool) -> Option<Rules> {
        if !schema.has_rules() {
            return None;
        }
        Self::node(schema, &declared(schema, root)?)
    }

    fn node(schema: &Schema, decl: &Arc<DeclType>) -> Option<Rules> {
        let below = |schema: &Schema, decl: &Arc<DeclType>| {
            if schema.has_rules() { Self::node(schema, decl).map(Box::new) } else { None }
        };
        let mut properties = BTreeMap::new();
        for (name, property) in schema.properties.iter().filter(|(_, property)| property.has_rules()) {
            let decl = match (&decl.kind, cel::escape(name)) {
                (Kind::Object(object), Some(escaped)) => {
                    object.fields.get(&*escaped).map(|field| Arc::clone(&field.decl))
                }
                // A name that expressions cannot write.
                (_, None) => declared(property, property.embedded),
                _ => None,
            };
            if let Some(rules) = decl.and_then(|decl| below(property, &decl)) {
                properties.insert(name.clone(), *rules);
            }
        }
        let items = match (&decl.kind, schema.items.as_deref()) {
            (Kind::List(item, _), Some(items)) => below(items, item),
            _ => None,
        };
        let additional = match (&decl.kind, &schema.additional) {
            (Kind::Map(value), Some(Additional::Schema(schema))) => below(schema, value),
            _ => None,
        };
        Some(Rules {
            decl: Arc::clone(decl),
            ty: schema.ty.map(Type::as_str).unwrap_or_default(),
            shown: !matches!(schema.ty, Some(Type::Object | Type::Array)),
            keys: match &schema.list_type {
                Some(ListType::Map(keys)) => Some(keys.clone()),
                _ => None,
            },
            own: schema.rules.iter().map(|rule| Compiled::new(rule, schema, decl)).collect(),
            items,
            properties,
            additional,
        })
    }
}

impl Compiled {
    fn new(rule: &crate::Rule, schema: &Schema, decl: &Arc<DeclType>) -> Self {
        let mut environment = Environment::kubernetes();
        environment.declare(SELF, decl);
        if rule.optional_old_self == Some(true) {
            environment.declare_optional(OLD_SELF, decl);
        } else {
            environment.declare(OLD_SELF, decl);
        }
        let program = (!rule.rule.trim().is_empty()).then(|| {
            let what = ["compilation failed", "program instantiation failed"];
            compile(
                &environment,
                &rule.rule,
                &cel::Type::Bool,
                what,
                "cel expression must evaluate to a bool",
            )
        });
        let message = (!rule.message_expression.is_empty() && matches!(program, Some(Ok(_)))).then(|| {
            let what = ["messageExpression compilation failed", "messageExpression instantiation failed"];
            let other = "messageExpression must evaluate to a string";
            compile(&environment, &rule.message_expression, &cel::Type::String, what, other)
        });
        Compiled {
            uses_old_self: matches!(&program, Some(Ok(program)) if program.uses(OLD_SELF)),
            program,
            message,
            field_path: reported_at(&rule.field_path, schema),
            rule: rule.clone(),
        }
    }
}

fn compile(
    environment: &Environment,
    text: &str,
    wanted: &cel::Type,
    what: [&str; 2],
    other: &str,
) -> Result<Program, String> {
    let program = environment.compile(text).map_err(|errors| {
        let what = if errors.stage == cel::Stage::Instantiation { what[1] } else { what[0] };
        format!("{what}: {errors}")
    })?;
    if program.output_type() == wanted { Ok(program) } else { Err(other.into()) }
}

/// A rule's path as errors print it: fields after dots, keys of maps in brackets.
fn reported_at(text: &str, schema: &Schema) -> String {
    let Ok((steps, _)) = crate::crd::resolve(text, schema, true) else { return String::new() };
    let (mut path, mut place) = (Path::root(), schema);
    for step in &steps {
        path = if place.properties.contains_key(step) { path.child(step) } else { path.key(step) };
        match place.field(step) {
            Some(next) => place = next,
            None => return String::new(),
        }
    }
    path.as_str().into()
}
