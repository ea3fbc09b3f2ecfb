//! The validating side: what the expressions of each policy say of the object, and what its bindings do about it.

use super::policy::{Binding, Head, Validating};
use super::{NamespaceOf, Policies, data, params};
use crate::admission::expressions::{Data, Scene};
use api::Object;
use api::errors::{ApiError, Cause, Reason};
use cel::{Value, limits};
use registry::Attributes;
use serde_json::{Value as Json, json};

/// The longest value of an audit annotation, in bytes.
const AUDIT_VALUE_MAX_BYTES: usize = 10 * 1024;

/// What one validation came to, unless it was fine.
struct Denial {
    message: String,
    reason: Option<String>,
    /// The place of the validation in its policy.
    index: usize,
}

/// Everything that one evaluation of a policy came to.
#[derive(Default)]
struct Verdict {
    denials: Vec<Denial>,
    annotations: Vec<(String, String)>,
    /// Faults of audit annotations, which refuse whatever the binding's actions are.
    faults: Vec<String>,
}

impl Policies {
    /// Refuses what a validating policy refuses. `connect` stands in for the object where there is none.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        connect: Option<&Json>,
    ) -> Result<(), ApiError> {
        if !self.validates || !self.concerns(attributes, object) {
            return Ok(());
        }
        let registry = self.ready(attributes)?;
        let all = self.all.load_full();
        if all.validating.is_empty() {
            return Ok(());
        }
        let namespace = NamespaceOf::new(&registry, attributes);
        let mut refusals = Vec::new();
        for policy in &all.validating {
            let head = &policy.head;
            let matched = match &head.constraints {
                Some(constraints) => constraints.matches(attributes, object, &namespace).await,
                None => Err("policy contained no match constraints, a required field".into()),
            };
            let matched = match matched {
                Ok(Some(matched)) => matched,
                Ok(None) => continue,
                Err(why) => {
                    refusals.extend(misconfigured(head, None, &why));
                    continue;
                }
            };
            if let Some(Err(why)) =
                head.param_kind.as_ref().map(|kind| params::resource_of(self.kinds(), kind))
            {
                refusals.extend(misconfigured(head, None, &why));
                continue;
            }
            let mut published: Vec<(String, String)> = Vec::new();
            let mut seen: Option<Data> = None;
            for binding in &policy.bindings {
                let found = self.params_of(&registry, head, binding, attributes, object, &namespace).await;
                let found = match found {
                    Ok(found) => found,
                    Err(why) => {
                        refusals.extend(misconfigured(head, Some(binding), &why));
                        continue;
                    }
                };
                for param in found {
                    let mut scene = match seen.take() {
                        Some(seen) => seen,
                        None => data(attributes, object, connect, &matched, &namespace).await?,
                    };
                    scene.params = Some(param.unwrap_or(Json::Null));
                    let verdict = self.judge(policy, &scene, attributes);
                    seen = Some(scene);
                    published.extend(verdict.annotations.iter().cloned());
                    refusals.extend(act(head, binding, attributes, verdict));
                }
            }
            publish(head, attributes, published);
        }
        match refusals.into_iter().next() {
            Some((message, reason)) => Err(refusal(attributes, object, message, reason.as_deref())),
            None => Ok(()),
        }
    }

    /// The parameters of a binding that concerns the request; none where it does not.
    pub(super) async fn params_of(
        &self,
        registry: &registry::Registry,
        head: &Head,
        binding: &Binding,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        namespace: &NamespaceOf<'_>,
    ) -> Result<Vec<Option<Json>>, String> {
        if let Some(constraints) = &binding.constraints
            && constraints.matches(attributes, object, namespace).await?.is_none()
        {
            return Ok(Vec::new());
        }
        let (kind, reference) = (head.param_kind.as_ref(), binding.param_ref.as_ref());
        params::collect(registry, self.kinds(), kind, reference, attributes.namespace).await
    }

    fn judge(&self, policy: &Validating, data: &Data, attributes: &Attributes<'_>) -> Verdict {
        let head = &policy.head;
        // A fault refuses the request or, with failurePolicy Ignore, is passed over.
        let fault = |message: String, index: usize| {
            (!head.fails_open).then_some(Denial { message, reason: None, index })
        };
        let faulty = |message: String| Verdict {
            denials: fault(message, 0).into_iter().collect(),
            ..Verdict::default()
        };
        let authorizer = self.authorizer(attributes);
        if !head.conditions.is_empty() {
            match head.conditions.hold(&Scene::new(data, &head.variables, Some(&authorizer))) {
                Ok(true) => {}
                Ok(false) => return Verdict::default(),
                Err(message) => return faulty(message),
            }
        }
        let mut budget = limits::RUNTIME_BUDGET;
        let scene = Scene::new(data, &head.variables, Some(&authorizer));
        let mut results = Vec::with_capacity(policy.rules.len());
        for rule in &policy.rules {
            match scene.evaluate(&rule.expression, &mut budget) {
                Ok(result) => results.push(result),
                Err(message) => return faulty(message),
            }
        }
        let messages = messages(policy, data, &mut budget);
        let mut verdict = Verdict::default();
        for (index, (rule, result)) in policy.rules.iter().zip(results).enumerate() {
            match (result, &messages) {
                (Err(message), _) => verdict.denials.extend(fault(message, index)),
                (Ok(_), Err(why)) => {
                    verdict.denials.extend(fault(format!("failed messageExpression: {why}"), index));
                }
                (Ok(Value::Bool(true)), _) => {}
                (Ok(_), Ok(messages)) => {
                    let made = messages[index].clone();
                    let own = Some(rule.message.trim()).filter(|own| !own.is_empty()).map(str::to_owned);
                    let message = made
                        .or(own)
                        .unwrap_or_else(|| format!("failed expression: {}", rule.expression.text.trim()));
                    let reason = rule.reason.clone().or_else(|| Some("Invalid".into()));
                    verdict.denials.push(Denial { message, reason, index });
                }
            }
        }
        self.annotate(policy, data, attributes, &mut verdict);
        verdict
    }

    fn annotate(&self, policy: &Validating, data: &Data, attributes: &Attributes<'_>, verdict: &mut Verdict) {
        if policy.audit.is_empty() {
            return;
        }
        let head = &policy.head;
        let authorizer = self.authorizer(attributes);
        let scene = Scene::new(data, &head.variables, Some(&authorizer));
        let mut budget = limits::RUNTIME_BUDGET;
        for (key, expression) in &policy.audit {
            match scene.evaluate(expression, &mut budget) {
                Ok(Ok(Value::String(text))) if !text.trim().is_empty() => {
                    verdict.annotations.push((key.clone(), text.trim().to_owned()));
                }
                Ok(Ok(_)) => {}
                Ok(Err(message)) if !head.fails_open => verdict.faults.push(message),
                Ok(Err(_)) => {}
                Err(message) => {
                    // The budget of annotations is used up: nothing else of the evaluation counts then.
                    verdict.denials.clear();
                    if !head.fails_open {
                        verdict.denials.push(Denial { message, reason: None, index: 0 });
                    }
                    return;
                }
            }
        }
    }
}

/// The messages that expressions make, by validation. The error says that they cost too much.
fn messages(policy: &Validating, data: &Data, budget: &mut u64) -> Result<Vec<Option<String>>, String> {
    let scene = Scene::new(data, &policy.head.variables, None);
    let mut all = Vec::with_capacity(policy.rules.len());
    for rule in &policy.rules {
        let Some(expression) = &rule.message_expression else {
            all.push(None);
            continue;
        };
        let message = match scene.evaluate(expression, budget)? {
            Ok(Value::String(text)) => Some(text.trim().to_owned()),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(policy = policy.head.name, error, "Could not evaluate a messageExpression");
                None
            }
        };
        // What is empty, too long or of several lines is no message.
        let fits = |text: &String| {
            !text.is_empty() && text.len() <= limits::MAX_MESSAGE_BYTES && !text.contains('\n')
        };
        all.push(message.filter(fits));
    }
    Ok(all)
}

/// A refusal's message and reason.
type Refusal = (String, Option<String>);

fn misconfigured(head: &Head, binding: Option<&Binding>, why: &str) -> Option<Refusal> {
    if head.fails_open {
        return None;
    }
    let name = &head.name;
    let message = match binding {
        Some(binding) => format!(
            "ValidatingAdmissionPolicy '{name}' with binding '{}' denied request: failed to configure binding: {why}",
            binding.name
        ),
        None => {
            format!("ValidatingAdmissionPolicy '{name}' denied request: failed to configure policy: {why}")
        }
    };
    Some((message, None))
}

/// Does what a binding wants done about what failed: refuses, warns, tells the audit log.
fn act(head: &Head, binding: &Binding, attributes: &Attributes<'_>, verdict: Verdict) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let (policy, bound) = (&head.name, &binding.name);
    for denial in verdict.denials {
        let message = &denial.message;
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => refusals.push((
                    format!(
                        "ValidatingAdmissionPolicy '{policy}' with binding '{bound}' denied request: {message}"
                    ),
                    denial.reason.clone(),
                )),
                "Warn" => attributes.request.warnings.add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{bound}': {message}"
                )),
                _ => {
                    let failure = json!([{
                        "message": message, "policy": policy, "binding": bound,
                        "expressionIndex": denial.index, "validationActions": binding.actions,
                    }]);
                    let key = "validation.policy.admission.k8s.io/validation_failure";
                    attributes.request.annotations.add(key, failure.to_string());
                }
            }
        }
    }
    for fault in verdict.faults {
        let message =
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{bound}' denied request: {fault}");
        refusals.push((message, None));
    }
    refusals
}

/// Tells the audit log what a policy has to say: the values of one key in one line.
fn publish(head: &Head, attributes: &Attributes<'_>, annotations: Vec<(String, String)>) {
    let mut joined: Vec<(String, Vec<String>)> = Vec::new();
    for (key, mut value) in annotations {
        let mut end = value.len().min(AUDIT_VALUE_MAX_BYTES);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        match joined.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => joined.push((key, vec![value])),
        }
    }
    for (key, values) in joined {
        attributes.request.annotations.add(format!("{}/{key}", head.name), values.join(", "));
    }
}

/// A refusal with the code of its reason; a fault of the policy itself counts as invalid.
fn refusal(
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    message: String,
    reason: Option<&str>,
) -> ApiError {
    let mut error = crate::admission::forbidden(attributes, object, &message);
    let reason = Reason::parse(reason.unwrap_or("Invalid"));
    error.code = ApiError::new(reason, "").code;
    error.reason = reason;
    error.details.get_or_insert_default().causes.push(Cause { message, ..Cause::default() });
    error
}
