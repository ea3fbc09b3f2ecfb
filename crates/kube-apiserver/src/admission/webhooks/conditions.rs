//! Match conditions: the expressions that narrow down which requests a webhook hears of.

use super::validate::sides;
use super::{Invocation, Webhooks};
use crate::admission::expressions::{Data, RequestAuthorizer, Scene, request_json};
use crate::admission::forbidden;
use api::Object;
use api::errors::ApiError;
use registry::Attributes;
use serde_json::Value;

impl Webhooks {
    /// Whether the conditions of a hook let the request through to it. One that cannot be evaluated counts as the
    /// hook's failurePolicy says: the request is refused, or the hook is passed over.
    pub(super) fn conditions_hold(
        &self,
        invocation: &Invocation,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        connect: Option<&Value>,
    ) -> Result<bool, ApiError> {
        let hook = &invocation.hook;
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let (object, old_object) = sides(invocation, attributes, object, connect)?;
        let request = request_json(attributes, &invocation.kind, attributes.resource);
        let data = Data { object, old_object, params: None, request, namespace: Value::Null };
        let authorizer = RequestAuthorizer::new(&self.access, attributes);
        match hook.conditions.hold(&Scene::new(&data, &[], Some(&authorizer))) {
            Ok(holds) => Ok(holds),
            Err(_) if hook.fails_open => Ok(false),
            Err(why) => Err(forbidden(attributes, None, why)),
        }
    }
}
