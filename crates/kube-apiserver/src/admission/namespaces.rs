//! NamespaceLifecycle: nothing is created in a namespace that is not there or on its way out, and the system's own stay.

use super::{Chain, forbidden, is};
use api::Object;
use api::core::v1::Namespace;
use api::errors::{ApiError, Cause};
use registry::{Attributes, Operation};

/// Namespaces that may not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Chain {
    pub(super) async fn namespace_lifecycle(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let namespaces = is(attributes, "", "namespaces");
        if attributes.operation == Operation::Delete {
            if namespaces && attributes.subresource.is_empty() && IMMORTAL.contains(&attributes.name) {
                return Err(forbidden(attributes, object, "this namespace may not be deleted"));
            }
            return Ok(());
        }
        if namespaces || attributes.namespace.is_empty() {
            return Ok(());
        }
        if attributes.resource.group() == "authorization.k8s.io" {
            // Whether one may do something can be asked of any namespace.
            return Ok(());
        }
        let Some(namespace) = self.get::<Namespace>("", attributes.namespace).await? else {
            return Err(ApiError::not_found("", "namespaces", attributes.namespace));
        };
        let creates = attributes.operation == Operation::Create && attributes.subresource.is_empty();
        if creates && namespace.status.phase == "Terminating" {
            let name = attributes.namespace;
            let text =
                format!("unable to create new content in namespace {name} because it is being terminated");
            return Err(forbidden(attributes, object, text).with_causes(vec![Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".into(),
            }]));
        }
        Ok(())
    }
}
