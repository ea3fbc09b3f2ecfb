//! The mutating side: one policy after the other, each on what the one before left, and some of them again.

use super::policy::{Binding, Change, Mutating};
use super::{Matched, NamespaceOf, Policies, data};
use crate::admission::expressions::{Data, Scene};
use crate::admission::webhooks::{take_over, tree};
use api::Object;
use api::errors::{ApiError, Cause, Reason};
use cel::{List, Object as CelObject, Value, limits};
use registry::{Attributes, Operation, Registry};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;

/// What one pass over the mutating policies leaves for the next, if there is a next.
#[derive(Default)]
pub struct PolicyRound {
    again_only: bool,
    last: Json,
    invoked: BTreeSet<String>,
    again: BTreeSet<String>,
    /// A policy has changed the object: the chain runs once more.
    pub changed: bool,
}

impl PolicyRound {
    /// The second pass, which asks only the policies that want to be asked again.
    pub fn next(self) -> Self {
        PolicyRound { again_only: true, changed: false, ..self }
    }

    fn something_changed(&mut self) {
        let invoked = std::mem::take(&mut self.invoked);
        self.again.extend(invoked);
    }
}

/// One evaluation: a policy under a binding with one of its parameters.
struct Invocation<'p> {
    policy: &'p Mutating,
    binding: &'p Binding,
    matched: Matched,
    param: Option<Json>,
}

impl Invocation<'_> {
    fn key(&self) -> String {
        let metadata = self.param.as_ref().map(|param| &param["metadata"]);
        let text = |name: &str| metadata.and_then(|metadata| metadata[name].as_str()).unwrap_or_default();
        format!("{}/{}/{}/{}", self.policy.head.name, self.binding.name, text("namespace"), text("name"))
    }
}

impl Policies {
    /// Changes the object as the mutating policies want it. `connect` stands in for the object where there is none.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&mut dyn Object>,
        round: &mut PolicyRound,
    ) -> Result<(), ApiError> {
        if !self.mutates || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let Some(object) = object else { return Ok(()) };
        if !self.concerns(attributes, Some(&*object)) {
            return Ok(());
        }
        let registry = self.ready(attributes)?;
        let all = self.all.load_full();
        if all.mutating.is_empty() {
            return Ok(());
        }
        if round.again_only && tree(&*object) != round.last {
            round.something_changed();
        }
        let mut faults = Vec::new();
        let namespace = NamespaceOf::new(&registry, attributes);
        let invocations =
            self.invocations(&registry, &all.mutating, attributes, &*object, &namespace, &mut faults).await;
        for invocation in invocations {
            if round.again_only && !round.again.contains(&invocation.key()) {
                continue;
            }
            self.invoke(&invocation, attributes, &mut *object, &namespace, round, &mut faults).await?;
        }
        round.last = tree(&*object);
        refuse(attributes, &*object, &faults)
    }

    async fn invocations<'p>(
        &self,
        registry: &Registry,
        policies: &'p [Mutating],
        attributes: &Attributes<'_>,
        object: &dyn Object,
        namespace: &NamespaceOf<'_>,
        faults: &mut Vec<String>,
    ) -> Vec<Invocation<'p>> {
        let mut invocations = Vec::new();
        for policy in policies {
            let head = &policy.head;
            let mut fault = |binding: Option<&Binding>, why: &str| {
                let what = if binding.is_some() { "binding" } else { "policy" };
                if !head.fails_open {
                    faults.push(denial(policy, binding, &format!("failed to configure {what}: {why}")));
                }
            };
            let Some(constraints) = &head.constraints else { continue };
            match constraints.matches(attributes, Some(object), namespace).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(why) => {
                    fault(None, &why);
                    continue;
                }
            }
            let kinds = self.kinds();
            if let Some(Err(why)) =
                head.param_kind.as_ref().map(|kind| super::params::resource_of(kinds, kind))
            {
                fault(None, &why);
                continue;
            }
            for binding in &policy.bindings {
                let found =
                    self.params_of(registry, head, binding, attributes, Some(object), namespace).await;
                let found = match found {
                    Ok(found) => found,
                    Err(why) => {
                        fault(Some(binding), &why);
                        continue;
                    }
                };
                for param in found {
                    let matched = constraints.matches(attributes, Some(object), namespace).await;
                    if let Ok(Some(matched)) = matched {
                        invocations.push(Invocation { policy, binding, matched, param });
                    }
                }
            }
        }
        invocations
    }

    async fn invoke(
        &self,
        invocation: &Invocation<'_>,
        attributes: &Attributes<'_>,
        object: &mut dyn Object,
        namespace: &NamespaceOf<'_>,
        round: &mut PolicyRound,
        faults: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let policy = invocation.policy;
        let mut seen = data(attributes, Some(&*object), None, &invocation.matched, namespace).await?;
        seen.params = Some(invocation.param.clone().unwrap_or(Json::Null));
        let before = seen.object.clone();
        let mut fault = |why: String| {
            if !policy.head.fails_open {
                faults.push(denial(policy, Some(invocation.binding), &why));
            }
        };
        match self.conditions_hold(policy, &seen, attributes) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(why) => {
                fault(why);
                return Ok(());
            }
        }
        for change in &policy.mutations {
            match self.change(policy, change, &seen, attributes, invocation) {
                Ok(after) if after == seen.object => {}
                Ok(after) => {
                    let own = object.gvk() == attributes.resource.gvk();
                    let to = if own { invocation.matched.resource } else { attributes.resource };
                    take_over(object, attributes.resource, to, &after)?;
                    seen.object =
                        crate::admission::webhooks::versioned(Some(&*object), attributes.resource, to)?;
                }
                Err(why) => fault(why),
            }
        }
        if seen.object != before {
            round.something_changed();
            round.changed = true;
        }
        if policy.reinvocable {
            round.invoked.insert(invocation.key());
        }
        Ok(())
    }

    fn conditions_hold(
        &self,
        policy: &Mutating,
        seen: &Data,
        attributes: &Attributes<'_>,
    ) -> Result<bool, String> {
        if policy.head.conditions.is_empty() {
            return Ok(true);
        }
        let authorizer = self.authorizer(attributes);
        policy.head.conditions.hold(&Scene::new(seen, &policy.head.variables, Some(&authorizer)))
    }

    /// The object after one mutation.
    fn change(
        &self,
        policy: &Mutating,
        change: &Change,
        seen: &Data,
        attributes: &Attributes<'_>,
        invocation: &Invocation<'_>,
    ) -> Result<Json, String> {
        let authorizer = self.authorizer(attributes);
        let scene = Scene::new(seen, &policy.head.variables, Some(&authorizer));
        let mut budget = limits::RUNTIME_BUDGET;
        match change {
            Change::JsonPatch(expression) => {
                let Value::List(steps) = scene.evaluate(expression, &mut budget)?? else {
                    return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
                };
                let patch = json_patch(&steps)?;
                match patch::json::apply(&seen.object, patch.to_string().as_bytes()) {
                    Ok(after) => Ok(after),
                    // A test that fails leaves the object as it is.
                    Err(error) if error.to_string().contains("testing value") => Ok(seen.object.clone()),
                    Err(error) => Err(format!("JSON Patch: {error}")),
                }
            }
            Change::Apply(expression) => {
                let value = scene.evaluate(expression, &mut budget)??;
                check_names(&value, "Object").map_err(|why| format!("type mismatch: {why}"))?;
                let mut configuration = value.to_json().map_err(|error| error.to_string())?;
                for name in ["apiVersion", "kind"] {
                    configuration[name] = seen.object[name].clone();
                }
                let mut merged = Err("the resource has no schema".to_owned());
                invocation.matched.resource.with_shape(&mut |shape| {
                    merged = patch::managed::merge_configuration(shape, &seen.object, &configuration);
                });
                merged.map_err(|why| format!("error applying patch: {why}"))
            }
        }
    }
}

/// The steps of a JSON patch, out of `JSONPatch{...}` objects.
fn json_patch(steps: &List<'_>) -> Result<Json, String> {
    let mut patch = Vec::with_capacity(steps.len());
    for step in steps.iter() {
        let step = step.map_err(|error| error.to_string())?;
        let Value::Object(CelObject::Built(step)) = &step else {
            return Err(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into()
            );
        };
        let mut made = json!({});
        for (name, value) in &step.fields {
            if let (Value::Object(CelObject::Built(object)), "value") = (value, name.as_str()) {
                let root = object.type_name.clone();
                check_names(value, &root).map_err(|why| format!("type mismatch: {why}"))?;
            }
            made[name.as_str()] = value.to_json().map_err(|error| {
                format!(
                    "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}"
                )
            })?;
        }
        patch.push(made);
    }
    Ok(Json::Array(patch))
}

/// Whether each constructed object has the name of the place where it stands, such as `Object.spec.template`.
fn check_names(value: &Value<'_>, place: &str) -> Result<(), String> {
    match value {
        Value::Object(CelObject::Built(object)) => {
            if object.type_name != place {
                return Err(format!(
                    "unexpected type name {:?}, expected {place:?}, which matches field name path from root Object type",
                    object.type_name
                ));
            }
            object.fields.iter().try_for_each(|(name, value)| check_names(value, &format!("{place}.{name}")))
        }
        Value::List(list) => list.iter().flatten().try_for_each(|item| check_names(&item, place)),
        _ => Ok(()),
    }
}

fn denial(policy: &Mutating, binding: Option<&Binding>, why: &str) -> String {
    let name = &policy.head.name;
    match binding {
        Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
        None => format!("policy {name:?} denied request: {why}"),
    }
}

/// The refusal that faults of policies make: the first one's message, and all as causes.
fn refuse(attributes: &Attributes<'_>, object: &dyn Object, faults: &[String]) -> Result<(), ApiError> {
    let Some(first) = faults.first() else { return Ok(()) };
    let mut error = crate::admission::forbidden(attributes, Some(object), "");
    error.message = first.clone();
    if !first.contains("failed to configure") {
        // Upstream names the reason and leaves the code.
        error.reason = Reason::Invalid;
    }
    let causes = faults.iter().map(|message| Cause { message: message.clone(), ..Cause::default() });
    error.details.get_or_insert_default().causes.extend(causes);
    Err(error)
}
