//! The environment of admission: the variables of policies and match conditions, and upstream's words for expressions
//! that they may not have.

use crate::environment::Environment;
use crate::error::{CompileErrors, Stage};
use crate::program::Program;
use crate::types::{Fields, StructType, Type};
use std::sync::Arc;

/// Which variables an expression has beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`.
    pub authorizer: bool,
    /// `Object{...}` and `JSONPatch{...}`.
    pub patches: bool,
}

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    Bool,
    String,
    StringOrNull,
    /// `Object{...}`.
    Object,
    /// A list of `JSONPatch{...}`.
    JsonPatches,
    Anything,
}

/// Why an expression is not one of admission's. Prints as upstream's detail of the fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub detail: String,
    /// It is well typed, but cannot be made to run.
    pub internal: bool,
}

/// Compiles the expressions of one policy, in their order.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    /// The policy's own variables and their types, where it may have any.
    variables: Option<Vec<(String, Type)>>,
}

impl Compiler {
    /// For expressions without variables of their own.
    pub fn new() -> Compiler {
        Compiler::default()
    }

    /// For a policy that may have variables.
    pub fn with_variables() -> Compiler {
        Compiler { variables: Some(Vec::new()) }
    }

    /// Adds a variable for the expressions to come; of one that did not compile nothing is known.
    pub fn declare(&mut self, name: &str, of: Option<Type>) {
        let variables = self.variables.get_or_insert_default();
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), of.unwrap_or(Type::Dyn)));
    }

    fn environment(&self, names: Names) -> Environment {
        let mut environment = Environment::kubernetes();
        environment.declare_type("object", Type::Dyn);
        environment.declare_type("oldObject", Type::Dyn);
        environment.declare_type("request", request_type());
        environment.declare_type("namespaceObject", namespace_type());
        if names.params {
            environment.declare_type("params", Type::Dyn);
        }
        if names.authorizer {
            let check = |name: &str| Type::object(format!("kubernetes.authorization.{name}"), []);
            environment.declare_type("authorizer", check("Authorizer"));
            environment.declare_type("authorizer.requestResource", check("ResourceCheck"));
        }
        if names.patches {
            environment.construct(patch_type);
        }
        if let Some(variables) = &self.variables {
            let of = Type::object("kubernetes.variables", variables.iter().cloned());
            environment.declare_type("variables", of);
        }
        environment
    }

    /// Compiles an expression that must give a value of a certain type.
    pub fn compile(&self, text: &str, names: Names, gives: Gives) -> Result<Program, Refusal> {
        let program = self.environment(names).compile(text).map_err(refusal)?;
        let got = program.output_type();
        let fits = match gives {
            Gives::Bool => *got == Type::Bool,
            Gives::String => *got == Type::String,
            Gives::StringOrNull => matches!(got, Type::String | Type::Null),
            Gives::Object => matches!(got, Type::Struct(of) if of.name == "Object"),
            Gives::JsonPatches => {
                matches!(got, Type::List(of) if matches!(&**of, Type::Struct(of) if of.name == "JSONPatch"))
            }
            Gives::Anything => true,
        };
        if fits {
            return Ok(program);
        }
        let wanted = match gives {
            Gives::StringOrNull => "one of [string null_type]",
            Gives::Bool => "bool",
            Gives::String => "string",
            Gives::Object => "Object",
            _ => "list(JSONPatch)",
        };
        let got = shown(got);
        Err(Refusal { detail: format!("must evaluate to {wanted} but got {got}"), internal: false })
    }
}

pub(crate) fn refusal(errors: CompileErrors) -> Refusal {
    match errors.stage {
        Stage::Compilation => Refusal { detail: format!("compilation failed: {errors}"), internal: false },
        Stage::Instantiation => {
            Refusal { detail: format!("program instantiation failed: {errors}"), internal: true }
        }
    }
}

/// A type as upstream prints what an expression gives.
pub(crate) fn shown(of: &Type) -> String {
    match of {
        Type::List(inner) => format!("list({})", shown(inner)),
        Type::Map(of) => format!("map({}, {})", shown(&of.0), shown(&of.1)),
        Type::Optional(inner) => format!("optional_type({})", shown(inner)),
        Type::Type(Some(inner)) => format!("type({})", shown(inner)),
        other => other.name(),
    }
}

fn fields<const N: usize>(name: &str, fields: [(&str, Type); N]) -> Type {
    Type::object(name, fields.map(|(name, of)| (name.to_owned(), of)))
}

fn texts() -> Type {
    Type::list(Type::String)
}

fn request_type() -> Type {
    let place = |name: &str, last: &str| {
        fields(name, [("group", Type::String), ("version", Type::String), (last, Type::String)])
    };
    let kind = place("kubernetes.GroupVersionKind", "kind");
    let resource = place("kubernetes.GroupVersionResource", "resource");
    let user = fields(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts()),
            ("extra", Type::map(Type::String, texts())),
        ],
    );
    fields(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::String),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace_type() -> Type {
    let labels = || Type::map(Type::String, Type::String);
    let metadata = fields(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", texts()),
        ],
    );
    let condition = fields(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    fields(
        "kubernetes.Namespace",
        [
            ("metadata", metadata),
            ("spec", fields("kubernetes.NamespaceSpec", [("finalizers", texts())])),
            (
                "status",
                fields(
                    "kubernetes.NamespaceStatus",
                    [("conditions", Type::list(condition)), ("phase", Type::String)],
                ),
            ),
        ],
    )
}

/// The objects that a mutation constructs: `JSONPatch`, and `Object` with everything below it.
fn patch_type(name: &str) -> Option<Type> {
    if name == "JSONPatch" {
        return Some(fields(
            name,
            [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)],
        ));
    }
    if name == "Object" || name.starts_with("Object.") {
        // A field may be any value or an object of its own; which object it is, its construction says.
        let fields = Fields::Any(|_, _| Type::Dyn);
        return Some(Type::Struct(Arc::new(StructType { name: name.to_owned(), fields })));
    }
    None
}

/// Whether a policy's variable may have this name.
pub fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !crate::escape::is_reserved(name)
}
