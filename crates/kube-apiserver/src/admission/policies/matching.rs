//! Whether the match constraints of a policy or a binding name a request: rules, exclusions, selectors.

use crate::admission::webhooks::{Kind, equivalents, namespace_of, rules};
use crate::objects;
use api::Object;
use api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations};
use api::core::v1::Namespace;
use meta::ObjectKey;
use meta::labels::Selector;
use registry::{Attributes, Operation, Registry};
use resources::Resource;
use std::collections::BTreeMap;

/// The namespace of a request, read when it is first needed.
pub struct NamespaceOf<'a> {
    registry: &'a Registry,
    name: &'a str,
    known: tokio::sync::OnceCell<Option<Namespace>>,
}

impl<'a> NamespaceOf<'a> {
    pub fn new(registry: &'a Registry, attributes: &Attributes<'a>) -> Self {
        NamespaceOf { registry, name: namespace_of(attributes), known: tokio::sync::OnceCell::new() }
    }

    pub async fn get(&self) -> Result<Option<&Namespace>, String> {
        let read =
            || async { objects::get::<Namespace>(self.registry, &ObjectKey::cluster(self.name)).await };
        let found = self.known.get_or_try_init(read).await.map_err(|error| error.to_string())?;
        Ok(found.as_ref())
    }
}

/// Match constraints, made ready.
pub struct Constraints {
    rules: Vec<NamedRuleWithOperations>,
    excluded: Vec<NamedRuleWithOperations>,
    equivalent: bool,
    namespaces: Result<Selector, String>,
    objects: Result<Selector, String>,
}

/// What a request is to a policy: the resource that a rule names, in its version.
pub struct Matched {
    pub resource: &'static dyn Resource,
    pub kind: Kind,
}

impl Constraints {
    pub fn new(matches: &MatchResources) -> Self {
        let selector = |from: Option<&api::meta::v1::LabelSelector>, name: &str| match from {
            Some(from) => api::selector(from),
            None => Err(format!(
                "a nil {name} selector was passed, please ensure selectors are initialized properly"
            )),
        };
        Constraints {
            rules: matches.resource_rules.clone(),
            excluded: matches.exclude_resource_rules.clone(),
            equivalent: matches.match_policy.as_deref() == Some("Equivalent"),
            namespaces: selector(matches.namespace_selector.as_deref(), "namespace"),
            objects: selector(matches.object_selector.as_deref(), "object"),
        }
    }

    /// What the request is to these constraints.
    pub async fn matches(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        namespace: &NamespaceOf<'_>,
    ) -> Result<Option<Matched>, String> {
        if self.named(&self.excluded, attributes).is_some() {
            return Ok(None);
        }
        let resource = match self.rules.is_empty() {
            true => attributes.resource,
            false => match self.named(&self.rules, attributes) {
                Some(resource) => resource,
                None => return Ok(None),
            },
        };
        let objects = self.objects.as_ref().map_err(String::clone)?;
        if !objects.is_everything() {
            let fits = |object: Option<&dyn Object>| {
                object.is_some_and(|object| objects.matches(&object.metadata().labels))
            };
            if !fits(object) && !fits(attributes.old) {
                return Ok(None);
            }
        }
        if !self.namespace_fits(attributes, object, namespace).await? {
            return Ok(None);
        }
        Ok(Some(Matched { resource, kind: Kind::of(resource, attributes.subresource) }))
    }

    async fn namespace_fits(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        namespace: &NamespaceOf<'_>,
    ) -> Result<bool, String> {
        let selector = self.namespaces.as_ref().map_err(String::clone)?;
        if selector.is_everything() || namespace_of(attributes).is_empty() {
            return Ok(true);
        }
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if rules::is_namespace(attributes) && writes && attributes.subresource.is_empty() {
            let none = BTreeMap::new();
            return Ok(selector.matches(object.map_or(&none, |object| &object.metadata().labels)));
        }
        match namespace.get().await? {
            Some(namespace) => Ok(selector.matches(&namespace.metadata.labels)),
            None => Err(format!("namespaces {:?} not found", namespace_of(attributes))),
        }
    }

    /// The resource that one of the rules names: the request's own, or that of an equivalent version.
    fn named(
        &self,
        rules: &[NamedRuleWithOperations],
        attributes: &Attributes<'_>,
    ) -> Option<&'static dyn Resource> {
        let fits = |resource: &'static dyn Resource| {
            rules.iter().any(|rule| {
                let name = |name: &String| name == attributes.name;
                rules::matches(&rule.rule_with_operations, attributes, resource)
                    && (rule.resource_names.is_empty() || rule.resource_names.iter().any(name))
            })
        };
        if fits(attributes.resource) {
            return Some(attributes.resource);
        }
        if !self.equivalent {
            return None;
        }
        equivalents(attributes.resource).find(|other| fits(*other))
    }
}
