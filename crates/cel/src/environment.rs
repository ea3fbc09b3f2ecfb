//! What expressions may name: variables with their types, and the objects that they may construct.

use crate::checker::check;
use crate::cost::{CostRange, estimate};
use crate::error::CompileErrors;
use crate::literal_checks;
use crate::parser::{Binds, parse};
use crate::plan::plan;
use crate::program::Program;
use crate::schema::DeclType;
use crate::types::Type;
use std::collections::HashMap;
use std::sync::Arc;

/// The environment of Kubernetes 1.36, with the variables that a caller declares.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: HashMap<String, Type>,
    /// Where paths through the data start when sizes are estimated: the first declared variable.
    root: Option<Arc<DeclType>>,
    objects: Option<fn(&str) -> Option<Type>>,
    binds: Binds,
}

impl Environment {
    /// All of upstream's functions, and no variable.
    pub fn kubernetes() -> Environment {
        Environment::default()
    }

    /// Declares a variable whose type and size bounds a schema gives. The first such variable is the one whose bounds
    /// the cost estimate uses; others, such as `oldSelf`, have the same shape.
    pub fn declare(&mut self, name: &str, decl: &Arc<DeclType>) {
        self.root.get_or_insert_with(|| decl.clone());
        self.declare_type(name, decl.cel_type());
    }

    /// Declares a variable that is an optional of such data.
    pub fn declare_optional(&mut self, name: &str, decl: &Arc<DeclType>) {
        self.root.get_or_insert_with(|| decl.clone());
        self.declare_type(name, Type::optional(decl.cel_type()));
    }

    /// Declares a variable of a type, without bounds.
    pub fn declare_type(&mut self, name: &str, of: Type) {
        self.variables.insert(name.to_owned(), of);
    }

    /// Lets expressions construct objects: the function gives the type for a name, where there is one.
    pub fn construct(&mut self, objects: fn(&str) -> Option<Type>) {
        self.objects = Some(objects);
    }

    /// Adds the macro `cel.bind(name, value, expression)`.
    pub(crate) fn with_bind(&mut self) {
        self.binds = Binds::Yes;
    }

    pub(crate) fn variable(&self, name: &str) -> Option<Type> {
        self.variables.get(name).cloned()
    }

    pub(crate) fn object_type(&self, name: &str) -> Option<Type> {
        self.objects.and_then(|objects| objects(name))
    }

    pub(crate) fn constructs(&self) -> bool {
        self.objects.is_some()
    }

    pub(crate) fn root(&self) -> Option<&DeclType> {
        self.root.as_deref()
    }

    /// Parses and checks an expression and makes it ready to run. The errors print as upstream prints them.
    pub fn compile(&self, text: &str) -> Result<Program, CompileErrors> {
        let mut parsed = parse(text, self.binds)?;
        let checked = check(&mut parsed.root, &parsed.places, self, text)?;
        literal_checks::check(&parsed.root, &checked, &parsed.places, text)?;
        let cost: CostRange = estimate(&parsed.root, &checked, self.root());
        plan(&parsed.root, &checked, cost).map_err(|message| CompileErrors::instantiation(message, text))
    }
}
