//! The Common Expression Language as Kubernetes 1.36 speaks it: what an expression may say, what its types are, what
//! it costs before it runs and while it runs, and what it comes to.
//!
//! ```ignore
//! let schema = cel::Schema::from_json(&openapi);            // or fill the struct by hand
//! let decl = Arc::new(cel::DeclType::of(&schema, root, "selfType").expect("visible to expressions"));
//! let mut environment = cel::Environment::kubernetes();
//! environment.declare("self", &decl);
//! let program = environment.compile("self.replicas <= 5")?; // prints `ERROR: <input>:1:5: ...` as upstream does
//! assert_eq!(*program.output_type(), cel::Type::Bool);
//! let bound = program.cost();                               // the static estimate
//!
//! let mut bindings = cel::Bindings::default();
//! bindings.set("self", cel::Value::from_json(&object, Some(&decl))?);
//! let outcome = program.eval(&bindings, cel::limits::PER_CALL_LIMIT);
//! ```
//!
//! Texts, trees and values that are too deep or too large are refused; no input makes anything here panic.
#![forbid(unsafe_code)]

pub mod admission;
mod ast;
mod authorizer;
mod checker;
mod convert;
mod cost;
mod declarations;
pub mod devices;
mod environment;
mod error;
mod escape;
mod eval;
mod formats;
mod functions;
mod lexer;
pub mod limits;
mod literal_checks;
mod literals;
mod macros;
mod network;
mod parser;
mod pattern;
mod plan;
mod program;
mod runtime_cost;
mod schema;
mod semver;
mod time;
mod types;
mod unify;
mod value;

pub use authorizer::{AuthorizationRequest, Authorizer, Check, Decision};
pub use cost::CostRange;
pub use environment::Environment;
pub use error::{CompileErrors, EvalError, EvalErrorKind, Issue, Stage};
pub use escape::{escape, unescape};
pub use network::{Cidr, Url};
pub use program::{Activation, Bindings, Outcome, Program};
pub use schema::{DeclType, Field, Kind, ListType, MAX_REQUEST_BYTES, ObjectType, Schema};
pub use semver::Semver;
pub use time::{Duration, Timestamp};
pub use types::{Fields, StructType, Type};
pub use value::{Built, Entries, Key, List, Map, Object, Text, Value};
