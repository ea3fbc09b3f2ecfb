//! Expressions of admission at work: what they see of a request, what they may spend, and how their errors read.
//!
//! Shared by policies and by the match conditions of webhooks.

use super::webhooks::{Kind, kind_json, options_json, resource_json, user_json};
use crate::access::Access;
use api::admissionregistration::v1::MatchCondition;
use api::core::v1::Namespace;
use authz::User;
use cel::admission::{Compiler, Gives, Names};
use cel::{Activation, AuthorizationRequest, EvalError, EvalErrorKind, Program, Type, Value, limits};
use registry::{Attributes, UserInfo};
use resources::Resource;
use serde_json::{Value as Json, json};
use std::cell::{Cell, OnceCell};

/// An expression, and its program or why it has none.
pub struct Expression {
    pub text: String,
    program: Result<Program, String>,
}

impl Expression {
    pub fn new(compiler: &Compiler, text: &str, names: Names, gives: Gives) -> Self {
        let program = compiler.compile(text, names, gives).map_err(|refusal| refusal.to_string());
        Expression { text: text.to_owned(), program }
    }

    /// The type of what it gives, where it compiles.
    pub fn output(&self) -> Option<Type> {
        self.program.as_ref().ok().map(|program| program.output_type().clone())
    }
}

/// What expressions see of one request under one policy.
pub struct Data {
    pub object: Json,
    pub old_object: Json,
    /// `None` where there are none to be seen; JSON null where there could be.
    pub params: Option<Json>,
    pub request: Json,
    pub namespace: Json,
}

/// Evaluates expressions over data, remembering the policy's variables and counting what they cost.
pub struct Scene<'d> {
    data: &'d Data,
    /// The policy's variables by name, and what they came to.
    variables: &'d [(String, Expression)],
    known: Vec<OnceCell<Result<Value<'d>, EvalError>>>,
    /// What variables have cost since that was last asked.
    spent: Cell<u64>,
    authorizer: Option<&'d RequestAuthorizer<'d>>,
}

impl<'d> Scene<'d> {
    pub fn new(
        data: &'d Data,
        variables: &'d [(String, Expression)],
        authorizer: Option<&'d RequestAuthorizer<'d>>,
    ) -> Self {
        let known = variables.iter().map(|_| OnceCell::new()).collect();
        Scene { data, variables, known, spent: Cell::new(0), authorizer }
    }

    fn variable(&self, name: &str) -> Option<Result<Value<'d>, EvalError>> {
        let at = self.variables.iter().position(|(known, _)| known == name)?;
        if let Some(known) = self.known[at].get() {
            return Some(known.clone());
        }
        let value = self.evaluate_variable(at);
        Some(self.known[at].get_or_init(|| value).clone())
    }

    fn evaluate_variable(&self, at: usize) -> Result<Value<'d>, EvalError> {
        let (name, expression) = &self.variables[at];
        let program = expression
            .program
            .as_ref()
            .map_err(|why| EvalError::new(format!("composited variable {name:?} fails to compile: {why}")))?;
        let outcome = program.eval(self, limits::PER_CALL_LIMIT);
        self.spent.set(self.spent.get().saturating_add(outcome.cost));
        outcome.value.map_err(|error| {
            EvalError::new(format!("composited variable {name:?} fails to evaluate: {error}"))
        })
    }

    /// Evaluates one expression within what is left of a budget. The outer error ends everything that shares the
    /// budget; the inner one is the expression's own.
    pub fn evaluate(
        &self,
        expression: &'d Expression,
        budget: &mut u64,
    ) -> Result<Result<Value<'d>, String>, String> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let outcome = program.eval(self, limits::PER_CALL_LIMIT);
        let cost = outcome.cost.saturating_add(self.spent.take());
        if cost > *budget {
            return Err(OUT_OF_BUDGET.into());
        }
        *budget -= cost;
        Ok(outcome.value.map_err(|error| {
            debug_assert!(error.kind == EvalErrorKind::Failed || cost > limits::PER_CALL_LIMIT);
            format!("expression '{}' resulted in error: {error}", expression.text)
        }))
    }
}

/// What ends all evaluations that share a budget.
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl<'d> Activation<'d> for Scene<'d> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'d>, EvalError>> {
        let json = match name {
            "object" => &self.data.object,
            "oldObject" => &self.data.old_object,
            "request" => &self.data.request,
            "namespaceObject" => &self.data.namespace,
            "params" => self.data.params.as_ref()?,
            "authorizer" => return Some(Ok(Value::authorizer(self.authorizer?))),
            "authorizer.requestResource" => {
                let authorizer = self.authorizer?;
                return Some(Ok(Value::resource_check(authorizer, authorizer.resource.clone())));
            }
            other => return self.variable(other.strip_prefix("variables.")?),
        };
        Some(Value::from_json(json, None))
    }
}

/// Answers `authorizer.…check(…)` for the user of a request.
pub struct RequestAuthorizer<'a> {
    access: &'a Access,
    user: &'a UserInfo,
    /// What the request itself is about.
    resource: AuthorizationRequest,
}

impl std::fmt::Debug for RequestAuthorizer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestAuthorizer({})", self.user.name)
    }
}

impl<'a> RequestAuthorizer<'a> {
    pub fn new(access: &'a Access, attributes: &Attributes<'a>) -> Self {
        let resource = AuthorizationRequest {
            group: attributes.resource.group().into(),
            resource: attributes.resource.plural().into(),
            subresource: attributes.subresource.into(),
            namespace: attributes.namespace.into(),
            name: attributes.name.into(),
            ..AuthorizationRequest::default()
        };
        RequestAuthorizer { access, user: &attributes.request.user, resource }
    }
}

impl cel::Authorizer for RequestAuthorizer<'_> {
    fn authorize(&self, request: &AuthorizationRequest) -> cel::Decision {
        let service_account = request.service_account.as_ref().map(|(namespace, name)| {
            let groups = vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ];
            (format!("system:serviceaccount:{namespace}:{name}"), groups)
        });
        let user = match &service_account {
            Some((name, groups)) => User { name, groups },
            None => User { name: &self.user.name, groups: &self.user.groups },
        };
        let demands = crate::access::demands(&request.field_selector);
        let decision = self.access.decide(&authz::Attributes {
            user,
            verb: &request.verb,
            group: &request.group,
            resource: &request.resource,
            subresource: &request.subresource,
            namespace: &request.namespace,
            name: &request.name,
            path: &request.path,
            field_selector: &demands,
        });
        cel::Decision { allowed: decision.is_allowed(), reason: decision.reason().to_owned(), error: None }
    }
}

/// The variable `request`: an AdmissionRequest without the objects.
pub fn request_json(attributes: &Attributes<'_>, kind: &Kind, resource: &dyn Resource) -> Json {
    let own = Kind::of(attributes.resource, attributes.subresource);
    let mut user = user_json(&attributes.request.user);
    for (name, empty) in [("extra", json!({})), ("groups", json!([]))] {
        if user.get(name).is_none() {
            user[name] = empty;
        }
    }
    let mut request = json!({
        "uid": "",
        "kind": kind_json(kind),
        "resource": resource_json(resource),
        "requestKind": kind_json(&own),
        "requestResource": resource_json(attributes.resource),
        "operation": attributes.operation.as_str(),
        "userInfo": user,
        "dryRun": attributes.request.dry_run,
        "options": options_json(attributes),
    });
    for (name, text) in [
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
        ("name", attributes.name),
        ("namespace", attributes.namespace),
    ] {
        if !text.is_empty() {
            request[name] = json!(text);
        }
    }
    request
}

/// The variable `namespaceObject`: a namespace without what expressions may not see of it.
pub fn namespace_json(namespace: Option<&Namespace>) -> Json {
    let Some(namespace) = namespace else { return Json::Null };
    let mut json = api::codec::to_value(namespace);
    if let Some(metadata) = json.get_mut("metadata").and_then(Json::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
        metadata.remove("selfLink");
    }
    if let Some(object) = json.as_object_mut() {
        object.remove("kind");
        object.remove("apiVersion");
    }
    json
}

/// The match conditions of a webhook or a policy.
#[derive(Default)]
pub struct Conditions(Vec<Expression>);

impl Conditions {
    /// `compiler` knows the variables that they may name, `params` whether those are there.
    pub fn new(conditions: &[MatchCondition], compiler: &Compiler, params: bool) -> Self {
        let names = Names { params, authorizer: true, patches: false };
        let all = conditions.iter();
        Conditions(
            all.map(|condition| Expression::new(compiler, condition.expression.trim(), names, Gives::Bool))
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that is false decides, whatever errors others have; an error is for the failure policy.
    pub fn hold<'d>(&'d self, scene: &Scene<'d>) -> Result<bool, String> {
        let mut budget = limits::MATCH_CONDITIONS_BUDGET;
        let mut faults: Vec<String> = Vec::new();
        let mut values = Vec::with_capacity(self.0.len());
        for expression in &self.0 {
            values.push(scene.evaluate(expression, &mut budget)?);
        }
        for value in values {
            match value {
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(fault) if !faults.contains(&fault) => faults.push(fault),
                Err(_) => {}
            }
        }
        match faults.len() {
            0 => Ok(true),
            1 => Err(faults.remove(0)),
            _ => Err(format!("[{}]", faults.join(", "))),
        }
    }
}
