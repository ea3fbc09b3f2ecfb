//! Match conditions: the expressions that narrow down which requests a webhook hears of.

use super::hook::Hook;
use api::errors::ApiError;
use registry::Attributes;

/// Whether the conditions of a hook let the request through to it. One that cannot be evaluated counts as the hook's
/// failurePolicy says: the request is refused, or the hook is passed over.
pub fn hold(hook: &Hook, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    if hook.fails_open {
        return Ok(false);
    }
    let why = format!("match conditions of webhook {:?} cannot be evaluated by this server", hook.name);
    Err(ApiError::forbidden(attributes.resource.group(), attributes.resource.plural(), attributes.name, why))
}
