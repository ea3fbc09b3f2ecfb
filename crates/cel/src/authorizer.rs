//! Checks of what a user may do, as an expression builds them up.

use crate::error::EvalError;
use crate::eval::Evaluated;
use crate::value::Value;
use std::fmt;
use std::sync::Arc;

/// Who answers `authorizer...check(...)`. It speaks for the user of the request.
pub trait Authorizer: fmt::Debug + Send + Sync {
    fn authorize(&self, request: &AuthorizationRequest) -> Decision;
}

/// What is asked of an [`Authorizer`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationRequest {
    /// Another user than the request's: a service account's namespace and name.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    /// A path that is no resource; empty where a resource is asked about.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// A selector as it was written.
    pub field_selector: String,
    pub label_selector: String,
}

/// What an [`Authorizer`] answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// A check on its way from the authorizer to a decision.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    stage: Stage,
    authorizer: &'a dyn Authorizer,
    request: AuthorizationRequest,
    decision: Decision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decision,
}

impl<'a> Check<'a> {
    fn next(&self, stage: Stage) -> Check<'a> {
        Check { stage, ..self.clone() }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decision => "kubernetes.authorization.Decision",
        }
    }
}

impl<'a> Value<'a> {
    /// The value of the variable `authorizer`.
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Value<'a> {
        Value::Check(Arc::new(Check {
            stage: Stage::Authorizer,
            authorizer,
            request: AuthorizationRequest::default(),
            decision: Decision::default(),
        }))
    }

    /// The value of the variable `authorizer.requestResource`: a check of the resource that the request is for.
    pub fn resource_check(authorizer: &'a dyn Authorizer, request: AuthorizationRequest) -> Value<'a> {
        Value::Check(Arc::new(Check {
            stage: Stage::Resource,
            authorizer,
            request,
            decision: Decision::default(),
        }))
    }
}

/// Calls a function of checks; `None` where there is no such function for what it is called on.
pub(crate) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Evaluated<'a>> {
    let Some((Value::Check(check), rest)) = args.split_first() else { return None };
    let texts: Vec<&str> = rest
        .iter()
        .filter_map(|arg| match arg {
            Value::String(text) => Some(&**text),
            _ => None,
        })
        .collect();
    if texts.len() != rest.len() {
        return None;
    }
    let made = |check: Check<'a>| Some(Ok(Value::Check(Arc::new(check))));
    let refuse = |why: &str| Some(Err(EvalError::new(why)));
    match (check.stage, function, texts.as_slice()) {
        (Stage::Authorizer, "path", [path]) => {
            let mut next = check.next(Stage::Path);
            next.request.path = (*path).to_owned();
            if path.is_empty() { refuse("path must not be empty") } else { made(next) }
        }
        (Stage::Authorizer, "group", [group]) => {
            let mut next = check.next(Stage::Group);
            next.request.group = (*group).to_owned();
            made(next)
        }
        (Stage::Authorizer, "serviceAccount", [namespace, name]) => {
            if !meta::validation::dns1123_subdomain(name).is_empty() {
                return refuse("Invalid service account name");
            }
            if !meta::validation::dns1123_label(namespace).is_empty() {
                return refuse("Invalid service account namespace");
            }
            let mut next = check.next(Stage::Authorizer);
            next.request.service_account = Some(((*namespace).to_owned(), (*name).to_owned()));
            made(next)
        }
        (Stage::Group, "resource", [resource]) => {
            let mut next = check.next(Stage::Resource);
            next.request.resource = (*resource).to_owned();
            if resource.is_empty() { refuse("resource must not be empty") } else { made(next) }
        }
        (Stage::Resource, field, [text]) if field != "check" => {
            let mut next = check.next(Stage::Resource);
            let into = match field {
                "subresource" => &mut next.request.subresource,
                "namespace" => &mut next.request.namespace,
                "name" => &mut next.request.name,
                "fieldSelector" => &mut next.request.field_selector,
                "labelSelector" => &mut next.request.label_selector,
                _ => return None,
            };
            *into = (*text).to_owned();
            made(next)
        }
        (Stage::Path | Stage::Resource, "check", [verb]) => {
            let mut next = check.next(Stage::Decision);
            next.request.verb = (*verb).to_owned();
            next.decision = next.authorizer.authorize(&next.request);
            made(next)
        }
        (Stage::Decision, "allowed", []) => Some(Ok(Value::Bool(check.decision.allowed))),
        (Stage::Decision, "reason", []) => Some(Ok(Value::text(check.decision.reason.as_str()))),
        (Stage::Decision, "errored", []) => Some(Ok(Value::Bool(check.decision.error.is_some()))),
        (Stage::Decision, "error", []) => {
            Some(Ok(Value::text(check.decision.error.as_deref().unwrap_or_default())))
        }
        _ => None,
    }
}
