//! One webhook of a configuration, made ready to be matched and called.

use crate::admission::expressions::Conditions;
use crate::outbound::webhook::ClientConfig;
use api::admissionregistration::v1::{
    MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration,
};
use api::meta::v1::LabelSelector;
use cel::admission::Compiler;
use meta::labels::Selector;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a webhook has without timeoutSeconds.
const TIMEOUT_SECONDS: u64 = 10;

pub struct Hook {
    pub configuration: String,
    pub name: String,
    /// Tells webhooks of one name in one configuration apart.
    pub uid: String,
    pub client: ClientConfig,
    pub rules: Vec<RuleWithOperations>,
    /// failurePolicy Ignore.
    pub fails_open: bool,
    /// matchPolicy Equivalent.
    pub equivalent: bool,
    pub namespaces: Result<Selector, String>,
    pub objects: Result<Selector, String>,
    pub side_effects: Option<String>,
    pub timeout: Duration,
    pub versions: Vec<String>,
    /// reinvocationPolicy IfNeeded.
    pub reinvocable: bool,
    pub conditions: Conditions,
}

fn selector(from: Option<&LabelSelector>) -> Result<Selector, String> {
    from.map_or_else(|| Ok(Selector::nothing()), api::selector)
}

macro_rules! hooks {
    ($configuration:expr, $reinvocable:expr) => {{
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut out = Vec::with_capacity($configuration.webhooks.len());
        for webhook in &$configuration.webhooks {
            let nth = seen.entry(&webhook.name).or_default();
            let uid = format!("{}/{}/{nth}", $configuration.metadata.name, webhook.name);
            *nth += 1;
            let seconds = webhook.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            out.push(Arc::new(Hook {
                configuration: $configuration.metadata.name.clone(),
                name: webhook.name.clone(),
                uid,
                client: ClientConfig::from(&webhook.client_config),
                rules: webhook.rules.clone(),
                fails_open: webhook.failure_policy.as_deref() == Some("Ignore"),
                equivalent: webhook.match_policy.as_deref() == Some("Equivalent"),
                namespaces: selector(webhook.namespace_selector.as_deref()),
                objects: selector(webhook.object_selector.as_deref()),
                side_effects: webhook.side_effects.clone(),
                timeout: Duration::from_secs(seconds.unwrap_or(TIMEOUT_SECONDS)),
                versions: webhook.admission_review_versions.clone(),
                reinvocable: $reinvocable(webhook),
                conditions: Conditions::new(&webhook.match_conditions, &Compiler::new(), false),
            }));
        }
        out
    }};
}

pub fn mutating(configuration: &MutatingWebhookConfiguration) -> Vec<Arc<Hook>> {
    hooks!(configuration, |webhook: &api::admissionregistration::v1::MutatingWebhook| {
        webhook.reinvocation_policy.as_deref() == Some("IfNeeded")
    })
}

pub fn validating(configuration: &ValidatingWebhookConfiguration) -> Vec<Arc<Hook>> {
    hooks!(configuration, |_: &api::admissionregistration::v1::ValidatingWebhook| false)
}
