//! Which objects a list or a watch wants: its namespace and selectors, and the narrowest index that finds them.

use crate::encoded::Encoded;
use crate::request::ListOptions;
use api::errors::ApiError;
use meta::{fields::Term, labels};
use resources::Resource;
use std::sync::Arc;

/// The field by which watchers of pods (and of what else has it) are indexed besides name and namespace.
pub(crate) const INDEXED_FIELD: &str = "spec.nodeName";

/// Selectors, checked against what the resource offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Empty for all namespaces.
    pub namespace: String,
    pub labels: labels::Selector,
    pub terms: Vec<Term>,
}

/// Where a watcher is registered: a change concerns only watchers found under its own scopes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    All,
    Namespace(String),
    /// The key below the resource's prefix: `namespace/name` or `name`.
    Key(String),
    Field(String),
}

impl Selection {
    pub fn new(
        resource: &'static dyn Resource,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Self, ApiError> {
        let mut terms = options.fields.terms().to_vec();
        for term in &mut terms {
            term.field = resource.field_label(&term.field).map_err(ApiError::bad_request)?;
        }
        Ok(Selection { namespace: namespace.into(), labels: options.labels.clone(), terms })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.terms.is_empty()
    }

    /// The value that a field must have, where the selection demands one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| !term.negated && term.field == field).map(|term| term.value.as_str())
    }

    /// The namespace that everything selected lies in, whether the path or a field selector names it.
    pub fn only_namespace(&self) -> Option<&str> {
        if !self.namespace.is_empty() {
            return Some(&self.namespace);
        }
        self.required("metadata.namespace").filter(|namespace| !namespace.is_empty())
    }

    /// The one key that may be selected, where name and (for namespaced kinds) namespace are both fixed.
    pub fn only_key(&self, namespaced: bool) -> Option<String> {
        let name = self.required("metadata.name").filter(|name| !name.is_empty())?;
        if !namespaced {
            return Some(name.to_string());
        }
        self.only_namespace().map(|namespace| format!("{namespace}/{name}"))
    }

    pub fn scope(&self, namespaced: bool) -> Scope {
        if let Some(key) = self.only_key(namespaced) {
            return Scope::Key(key);
        }
        if let Some(value) = self.required(INDEXED_FIELD) {
            return Scope::Field(value.to_string());
        }
        match self.only_namespace() {
            Some(namespace) => Scope::Namespace(namespace.to_string()),
            None => Scope::All,
        }
    }

    pub fn matches(&self, object: &Arc<Encoded>) -> bool {
        if !self.namespace.is_empty() && object.key().namespace != self.namespace {
            return false;
        }
        let field_fits =
            |term: &Term| (object.field(&term.field).unwrap_or_default() == term.value) != term.negated;
        self.terms.iter().all(field_fits)
            && (self.labels.is_everything() || self.labels.matches(&object.labels()))
    }
}
