//! Policies and their bindings, compiled and made ready to be matched.

use super::matching::Constraints;
use crate::admission::expressions::{Conditions, Expression};
use api::admissionregistration::{v1, v1beta1};
use cel::admission::{Compiler, Gives, Names};
use meta::Message;

/// What policies of both sides have.
pub struct Head {
    pub name: String,
    /// failurePolicy Ignore.
    pub fails_open: bool,
    pub constraints: Option<Constraints>,
    pub param_kind: Option<v1::ParamKind>,
    pub variables: Vec<(String, Expression)>,
    pub conditions: Conditions,
}

/// A binding of a policy.
pub struct Binding {
    pub name: String,
    pub constraints: Option<Constraints>,
    pub param_ref: Option<v1::ParamRef>,
    /// `Deny`, `Warn`, `Audit`; empty on the mutating side.
    pub actions: Vec<String>,
}

/// A policy that only refuses.
pub struct Validating {
    pub head: Head,
    pub bindings: Vec<Binding>,
    pub rules: Vec<Rule>,
    pub audit: Vec<(String, Expression)>,
}

/// One validation.
pub struct Rule {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: Option<String>,
}

/// A policy that changes objects.
pub struct Mutating {
    pub head: Head,
    pub bindings: Vec<Binding>,
    pub mutations: Vec<Change>,
    /// reinvocationPolicy IfNeeded.
    pub reinvocable: bool,
}

/// One mutation.
pub enum Change {
    JsonPatch(Expression),
    Apply(Expression),
}

/// The parts of a spec that both sides have.
struct Parts<'p> {
    name: &'p str,
    failure_policy: Option<&'p String>,
    constraints: Option<&'p v1::MatchResources>,
    param_kind: Option<&'p v1::ParamKind>,
    variables: &'p [v1::Variable],
    conditions: &'p [v1::MatchCondition],
}

fn head(parts: &Parts<'_>, composed: bool) -> (Head, Compiler, Names) {
    let names = Names { params: parts.param_kind.is_some(), authorizer: true, patches: false };
    let mut compiler = if composed { Compiler::with_variables() } else { Compiler::new() };
    let mut variables = Vec::with_capacity(parts.variables.len());
    for variable in parts.variables {
        let expression = Expression::new(&compiler, &variable.expression, names, Gives::Anything);
        compiler.declare(&variable.name, expression.output());
        variables.push((variable.name.clone(), expression));
    }
    let head = Head {
        name: parts.name.to_owned(),
        fails_open: parts.failure_policy.is_some_and(|policy| policy == "Ignore"),
        constraints: parts.constraints.map(Constraints::new),
        param_kind: parts.param_kind.cloned(),
        variables,
        conditions: Conditions::new(parts.conditions, &compiler, names.params),
    };
    (head, compiler, names)
}

impl Validating {
    /// The policy with the bindings that name it; `None` where there are none, since nothing will ask it.
    pub fn new(
        policy: &v1::ValidatingAdmissionPolicy,
        bindings: &[v1::ValidatingAdmissionPolicyBinding],
    ) -> Option<Validating> {
        let own = bindings.iter().filter(|binding| binding.spec.policy_name == policy.metadata.name);
        let mut own: Vec<Binding> = own
            .map(|binding| Binding {
                name: binding.metadata.name.clone(),
                constraints: binding.spec.match_resources.as_deref().map(Constraints::new),
                param_ref: binding.spec.param_ref.as_deref().cloned(),
                actions: binding.spec.validation_actions.clone(),
            })
            .collect();
        if own.is_empty() {
            return None;
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        let spec = &policy.spec;
        let parts = Parts {
            name: &policy.metadata.name,
            failure_policy: spec.failure_policy.as_ref(),
            constraints: spec.match_constraints.as_deref(),
            param_kind: spec.param_kind.as_deref(),
            variables: &spec.variables,
            conditions: &spec.match_conditions,
        };
        let (head, compiler, names) = head(&parts, !spec.variables.is_empty());
        let message_names = Names { authorizer: false, ..names };
        let rules = spec.validations.iter().map(|rule| Rule {
            expression: Expression::new(&compiler, &rule.expression, names, Gives::Bool),
            message: rule.message.clone(),
            message_expression: (!rule.message_expression.is_empty())
                .then(|| Expression::new(&compiler, &rule.message_expression, message_names, Gives::String)),
            reason: rule.reason.clone(),
        });
        let rules = rules.collect();
        let audit = spec.audit_annotations.iter().map(|annotation| {
            let text = annotation.value_expression.trim();
            (annotation.key.clone(), Expression::new(&compiler, text, names, Gives::StringOrNull))
        });
        let audit = audit.collect();
        Some(Validating { head, bindings: own, rules, audit })
    }
}

impl Mutating {
    /// The policy with the bindings that name it; `None` where there are none, or where what is stored is no policy.
    pub fn new(
        policy: &v1beta1::MutatingAdmissionPolicy,
        bindings: &[v1beta1::MutatingAdmissionPolicyBinding],
    ) -> Option<Mutating> {
        let own = bindings.iter().filter(|binding| binding.spec.policy_name == policy.metadata.name);
        let mut own: Vec<Binding> = own
            .filter_map(|binding| {
                let spec: v1::MutatingAdmissionPolicyBindingSpec = stable(&binding.spec)?;
                Some(Binding {
                    name: binding.metadata.name.clone(),
                    constraints: spec.match_resources.as_deref().map(Constraints::new),
                    param_ref: spec.param_ref.map(|reference| *reference),
                    actions: Vec::new(),
                })
            })
            .collect();
        if own.is_empty() {
            return None;
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        let spec: v1::MutatingAdmissionPolicySpec = stable(&policy.spec)?;
        let parts = Parts {
            name: &policy.metadata.name,
            failure_policy: spec.failure_policy.as_ref(),
            constraints: spec.match_constraints.as_deref(),
            param_kind: spec.param_kind.as_deref(),
            variables: &spec.variables,
            conditions: &spec.match_conditions,
        };
        let (head, compiler, names) = head(&parts, true);
        let names = Names { patches: true, ..names };
        let mutations = spec.mutations.iter().filter_map(|mutation| match mutation.patch_type.as_str() {
            "JSONPatch" => {
                let text = mutation.json_patch.as_ref()?.expression.trim();
                Some(Change::JsonPatch(Expression::new(&compiler, text, names, Gives::JsonPatches)))
            }
            _ => {
                let text = mutation.apply_configuration.as_ref()?.expression.trim();
                Some(Change::Apply(Expression::new(&compiler, text, names, Gives::Object)))
            }
        });
        let mutations = mutations.collect();
        Some(Mutating { head, bindings: own, mutations, reinvocable: spec.reinvocation_policy == "IfNeeded" })
    }
}

/// A message in its stable version, which differs in nothing but its name.
fn stable<T: Message + Default>(from: &dyn Message) -> Option<T> {
    api::codec::from_value(&api::codec::to_value(from)).ok()
}
