//! The mutating side: one webhook after the other, each on what the one before left, and some of them again.

use super::call::{Outcome, Side};
use super::{Invocation, Webhooks, validate};
use crate::outbound::webhook::CallError;
use api::Object;
use api::codec::MediaType;
use api::errors::ApiError;
use meta::json::Notes;
use registry::Attributes;
use resources::Resource;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What one pass over the mutating plugins leaves for the next, if there is a next.
#[derive(Default)]
pub struct Round {
    /// 0 for the first pass, 1 when the chain runs again.
    number: usize,
    /// The object as the webhooks left it.
    last: Value,
    /// Webhooks that want to be asked again if anything changes after them.
    invoked: BTreeSet<String>,
    again: BTreeSet<String>,
    /// A webhook has changed the object: the chain runs once more.
    pub changed: bool,
}

impl Round {
    /// The second pass, after the plugins of the server have run again on what webhooks changed.
    pub fn next(self) -> Self {
        Round { number: 1, changed: false, ..self }
    }

    fn something_changed(&mut self) {
        let invoked = std::mem::take(&mut self.invoked);
        self.again.extend(invoked);
    }
}

impl Webhooks {
    /// Asks the mutating webhooks and applies their patches. `connect` stands in for the object where there is none.
    pub async fn mutate(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut dyn Object>,
        connect: Option<&Value>,
        round: &mut Round,
    ) -> Result<(), ApiError> {
        if !self.mutates || !self.concerns(attributes, object.as_deref()) {
            return Ok(());
        }
        self.ready(attributes)?;
        let hooks = self.hooks.load_full();
        if hooks.mutating.is_empty() {
            return Ok(());
        }
        let reinvoked = round.number > 0;
        if reinvoked && object.as_deref().is_some_and(|object| tree(object) != round.last) {
            round.something_changed();
        }
        for (index, hook) in hooks.mutating.iter().enumerate() {
            let Some(invocation) = self.matching(hook, attributes, object.as_deref()).await? else {
                continue;
            };
            let holds = self.conditions_hold(&invocation, attributes, object.as_deref(), connect)?;
            if !holds || (reinvoked && !round.again.contains(&hook.uid)) {
                continue;
            }
            let changed =
                self.invoke(&invocation, attributes, &mut object, connect, (round.number, index)).await?;
            if changed {
                round.something_changed();
                round.changed = true;
            }
            if hook.reinvocable {
                round.invoked.insert(hook.uid.clone());
            }
        }
        round.last = object.as_deref().map_or(Value::Null, tree);
        Ok(())
    }

    async fn invoke(
        &self,
        invocation: &Invocation,
        attributes: &Attributes<'_>,
        object: &mut Option<&mut dyn Object>,
        connect: Option<&Value>,
        place: (usize, usize),
    ) -> Result<bool, ApiError> {
        let (before, old) = validate::sides(invocation, attributes, object.as_deref(), connect)?;
        let outcome = self.ask(Side::Mutating, invocation, attributes, before.clone(), old).await;
        let answer = match outcome {
            Outcome::Allowed(answer) => answer,
            Outcome::Denied(error) => {
                annotate(invocation, attributes, place, false, None);
                return Err(error);
            }
            Outcome::Unreachable(error) => {
                annotate(invocation, attributes, place, false, None);
                self.unreachable(Side::Mutating, invocation, attributes, &error, place)?;
                return Ok(false);
            }
        };
        let changed = if answer.patch.is_empty() {
            Ok(false)
        } else {
            self.patched(invocation, attributes, object, &before, &answer.patch, place)
        };
        let patch = if answer.patch.is_empty() { None } else { Some(answer.patch.as_slice()) };
        annotate(invocation, attributes, place, matches!(changed, Ok(true)), patch);
        changed
    }

    fn patched(
        &self,
        invocation: &Invocation,
        attributes: &Attributes<'_>,
        object: &mut Option<&mut dyn Object>,
        before: &Value,
        patch: &[u8],
        place: (usize, usize),
    ) -> Result<bool, ApiError> {
        let hook = &invocation.hook;
        let steps = match serde_json::from_slice::<Vec<Value>>(patch) {
            Ok(steps) => steps,
            Err(error) => {
                let reason = format!("received undecodable patch in webhook response: {error}");
                let error = CallError { reason, code: 503 };
                self.unreachable(Side::Mutating, invocation, attributes, &error, place)?;
                return Ok(false);
            }
        };
        if steps.is_empty() {
            return Ok(false);
        }
        let Some(object) = object.as_deref_mut() else {
            return Err(ApiError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            )));
        };
        let after = patch::json::apply(before, patch).map_err(ApiError::internal)?;
        let own = object.gvk() == attributes.resource.gvk();
        if own {
            take_over(object, attributes.resource, invocation.resource, &after)?;
        } else {
            let mut fresh = object.clone_object();
            clear_and_read(&mut *fresh, &after)?;
            object.assign(fresh);
        }
        Ok(after != *before)
    }
}

pub(crate) fn tree(object: &dyn Object) -> Value {
    api::codec::to_value(object.as_dyn())
}

/// Reads the patched tree, which is in the version of `seen`, back into the object.
pub(crate) fn take_over(
    object: &mut dyn Object,
    resource: &'static dyn Resource,
    seen: &'static dyn Resource,
    after: &Value,
) -> Result<(), ApiError> {
    let mut fresh = seen.new_object();
    read(&mut *fresh, after)?;
    seen.default(&mut *fresh);
    if seen.gvk() != resource.gvk() {
        let hub = seen.to_storage(fresh).map_err(ApiError::internal)?;
        fresh = resource.from_storage(hub).map_err(ApiError::internal)?;
    }
    if object.assign(fresh) {
        return Ok(());
    }
    Err(ApiError::internal("a webhook's patch made an object of another kind"))
}

fn read(object: &mut dyn Object, tree: &Value) -> Result<(), ApiError> {
    let mut notes = Notes::default();
    api::codec::decode(object.as_dyn_mut(), tree.to_string().as_bytes(), MediaType::Json, &mut notes)
        .map_err(ApiError::internal)
}

/// For the kinds of subresources, which have no row of their own to make an empty object.
fn clear_and_read(object: &mut dyn Object, tree: &Value) -> Result<(), ApiError> {
    let gvk = object.gvk();
    let kind = api::codec::find_kind(&gvk.api_version(), gvk.kind).map_err(ApiError::internal)?;
    let Some(make) = kind.object else { return Ok(()) };
    let mut fresh = make();
    read(&mut *fresh, tree)?;
    object.assign(fresh);
    Ok(())
}

/// Tells the audit log which webhook changed what.
fn annotate(
    invocation: &Invocation,
    attributes: &Attributes<'_>,
    place: (usize, usize),
    mutated: bool,
    patch: Option<&[u8]>,
) {
    let annotations = &attributes.request.annotations;
    if !annotations.wanted() {
        return;
    }
    let (round, index) = place;
    let hook = &invocation.hook;
    let value = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated});
    annotations
        .add(format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}"), value.to_string());
    if let Some(patch) = patch.and_then(|patch| serde_json::from_slice::<Value>(patch).ok()) {
        let value = json!({
            "configuration": hook.configuration, "webhook": hook.name, "patch": patch, "patchType": "JSONPatch",
        });
        let key = format!("patch.webhook.admission.k8s.io/round_{round}_index_{index}");
        annotations.add_at_request_level(key, value.to_string());
    }
}
