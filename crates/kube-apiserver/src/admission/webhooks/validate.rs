//! The validating side: all webhooks that match are asked at once, and the first refusal in their order counts.

use super::call::{Outcome, Side};
use super::{Invocation, Webhooks, review};
use api::Object;
use api::errors::ApiError;
use futures::future::join_all;
use registry::Attributes;
use serde_json::Value;

impl Webhooks {
    /// Asks the validating webhooks. `connect` stands in for the object where there is none: the options of a
    /// connection.
    pub async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        connect: Option<&Value>,
    ) -> Result<(), ApiError> {
        if !self.validates || !self.concerns(attributes, object) {
            return Ok(());
        }
        self.ready(attributes)?;
        let hooks = self.hooks.load_full();
        let mut invocations: Vec<(usize, Invocation)> = Vec::new();
        for (index, hook) in hooks.validating.iter().enumerate() {
            if let Some(invocation) = self.matching(hook, attributes, object).await?
                && self.conditions_hold(&invocation, attributes, object, connect)?
            {
                invocations.push((index, invocation));
            }
        }
        if invocations.is_empty() {
            return Ok(());
        }
        let asked = invocations.iter().map(|(index, invocation)| async move {
            let (new, old) = match sides(invocation, attributes, object, connect) {
                Ok(sides) => sides,
                Err(error) => return Err(error),
            };
            match self.ask(Side::Validating, invocation, attributes, new, old).await {
                Outcome::Allowed(_) => Ok(()),
                Outcome::Denied(error) => Err(error),
                Outcome::Unreachable(error) => {
                    self.unreachable(Side::Validating, invocation, attributes, &error, (0, *index))
                }
            }
        });
        join_all(asked).await.into_iter().collect()
    }
}

/// The object and the old one, in the version that the webhook is to see.
pub(super) fn sides(
    invocation: &Invocation,
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    connect: Option<&Value>,
) -> Result<(Value, Value), ApiError> {
    if let Some(options) = connect {
        return Ok((options.clone(), Value::Null));
    }
    // A subresource's own kind is the same in every version of its parent.
    let own = object.is_none_or(|object| object.gvk() == attributes.resource.gvk());
    let to = if own { invocation.resource } else { attributes.resource };
    let new = review::versioned(object, attributes.resource, to)?;
    let old = review::versioned(attributes.old, attributes.resource, to)?;
    Ok((new, old))
}
