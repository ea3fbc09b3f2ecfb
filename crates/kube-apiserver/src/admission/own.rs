//! Admission of what never passes through the registry as itself: the objects of subresources that have a kind of their
//! own, and connections.

use super::{PolicyRound, Round};
use crate::Api;
use crate::filters::Passed;
use crate::verbs::Target;
use api::Object;
use api::core::v1 as core;
use api::errors::ApiError;
use registry::{Attributes, Operation};
use serde_json::Value;

impl Api {
    /// Asks webhooks about the object of a subresource: a Binding, a Scale, an Eviction, a TokenRequest.
    pub(crate) async fn admit_own(
        &self,
        passed: &Passed,
        target: &Target,
        operation: Operation,
        object: &mut dyn Object,
        old: Option<&dyn Object>,
    ) -> Result<(), ApiError> {
        let attributes = attributes(passed, target, operation, old);
        let (mut policies, mut round) = (PolicyRound::default(), Round::default());
        self.policies.mutate(&attributes, Some(&mut *object), &mut policies).await?;
        self.webhooks.mutate(&attributes, Some(&mut *object), None, &mut round).await?;
        if policies.changed || round.changed {
            self.policies.mutate(&attributes, Some(&mut *object), &mut policies.next()).await?;
            self.webhooks.mutate(&attributes, Some(&mut *object), None, &mut round.next()).await?;
        }
        self.policies.validate(&attributes, Some(&*object), None).await?;
        self.webhooks.validate(&attributes, Some(object), None).await
    }

    /// Asks webhooks whether a connection may be made.
    pub(crate) async fn admit_connection(
        &self,
        passed: &Passed,
        target: &Target,
        subresource: &str,
    ) -> Result<(), ApiError> {
        let attributes = attributes(passed, target, Operation::Connect, None);
        let options = connect_options(passed, target.resource.plural(), subresource);
        self.webhooks.mutate(&attributes, None, Some(&options), &mut Round::default()).await?;
        self.policies.validate(&attributes, None, Some(&options)).await?;
        self.webhooks.validate(&attributes, None, Some(&options)).await
    }
}

fn attributes<'a>(
    passed: &'a Passed,
    target: &'a Target,
    operation: Operation,
    old: Option<&'a dyn Object>,
) -> Attributes<'a> {
    Attributes {
        request: &passed.request,
        resource: target.resource,
        subresource: &passed.info.subresource,
        namespace: &target.key.namespace,
        name: &target.key.name,
        operation,
        old,
    }
}

/// What the query of a connection says, as the kind that upstream reads it into.
fn connect_options(passed: &Passed, plural: &str, subresource: &str) -> Value {
    let query = &passed.query;
    let flag = |name: &str| query.boolean(name);
    let text = |name: &str| query.first(name).unwrap_or_default().to_string();
    let path = format!("/{}", passed.info.rest);
    match (plural, subresource) {
        (_, "exec") => api::codec::to_value(&core::PodExecOptions {
            stdin: flag("stdin"),
            stdout: flag("stdout"),
            stderr: flag("stderr"),
            tty: flag("tty"),
            container: text("container"),
            command: query.all("command").map(str::to_string).collect(),
            ..Default::default()
        }),
        (_, "attach") => api::codec::to_value(&core::PodAttachOptions {
            stdin: flag("stdin"),
            stdout: flag("stdout"),
            stderr: flag("stderr"),
            tty: flag("tty"),
            container: text("container"),
            ..Default::default()
        }),
        (_, "portforward") => api::codec::to_value(&core::PodPortForwardOptions {
            ports: query.all("ports").filter_map(|port| port.parse().ok()).collect(),
            ..Default::default()
        }),
        ("nodes", _) => api::codec::to_value(&core::NodeProxyOptions { path, ..Default::default() }),
        ("services", _) => api::codec::to_value(&core::ServiceProxyOptions { path, ..Default::default() }),
        _ => api::codec::to_value(&core::PodProxyOptions { path, ..Default::default() }),
    }
}
